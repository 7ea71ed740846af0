"""What training does to masks, depth and colours: bounded, repeatable, and nothing at strength 0."""

import pytest
import torch
from dexloop.train.controller.corruption import (
    corrupt_depth,
    corrupt_edges,
    corrupt_tracking,
    jitter_colours,
    moved,
)
from dexloop.train.controller.draws import Draws

ROWS = 400


def masks(rows: int = ROWS, side: int = 64) -> torch.Tensor:
    mask = torch.zeros(rows, side, side, dtype=torch.bool)
    mask[:, 20:44, 18:40] = True
    return mask


def test_strength_zero_leaves_all_as_it_was() -> None:
    mask, depth = masks(4), torch.full((4, 64, 64), 0.8)
    assert corrupt_edges(mask, 0.0, Draws(0, 0, 4)) is mask
    assert corrupt_tracking(mask, ~mask, 0.0, Draws(0, 0, 4)) is mask
    assert corrupt_depth(depth, 0.0, Draws(0, 0, 4)) is depth


def test_the_same_draws_give_the_same_and_processes_see_their_rows() -> None:
    depth = torch.full((8, 64, 64), 0.8)

    def run(rows: slice) -> list[torch.Tensor]:
        draws = Draws(3, 5, 8, rows)
        mask = masks(8)[rows]
        return [
            corrupt_depth(depth[rows], 1.0, draws),
            corrupt_tracking(mask, torch.roll(mask, 5, 2), 1.0, draws),
            corrupt_edges(mask, 1.0, draws),
            jitter_colours(torch.full((len(mask), 3, 4, 4), 0.3), (0.3, 0.3, 0.3, 0.1), draws),
        ]

    whole, again = run(slice(0, 8)), run(slice(0, 8))
    for one, other in zip(whole, again, strict=True):
        assert torch.equal(one, other)
    for rows in (slice(0, 4), slice(4, 8)):
        for one, part in zip(whole, run(rows), strict=True):
            assert torch.allclose(one[rows].float(), part.float())


def test_edges_move_by_two_pixels_at_most_and_masks_never_vanish() -> None:
    mask = masks()
    out = corrupt_edges(mask, 1.0, Draws(0, 0, ROWS))
    assert out.flatten(1).any(1).all()
    widest = torch.zeros_like(mask[0])
    widest[18:46, 16:42] = True
    assert not (out & ~widest).any()
    changed = (out != mask).flatten(1).any(1).float().mean()
    assert 0.6 < float(changed) < 0.95
    areas = out.flatten(1).sum(1)
    assert int(areas.max()) == 28 * 26  # dilated by two
    assert (areas == 20 * 18).any()  # eroded by two
    tiny = torch.zeros(ROWS, 64, 64, dtype=torch.bool)
    tiny[:, 30, 30] = True
    assert corrupt_edges(tiny, 1.0, Draws(0, 1, ROWS)).flatten(1).any(1).all()


def test_trackers_lose_swap_and_lag_as_often_as_said() -> None:
    mask = masks(4000, 64)
    late = torch.roll(mask, 7, 2)
    out = corrupt_tracking(mask, late, 1.0, Draws(0, 0, 4000))
    lost = ~out.flatten(1).any(1)
    same = (out == mask).flatten(1).all(1)
    lagged = (out == late).flatten(1).all(1)
    assert float(lost.float().mean()) == pytest.approx(0.03, abs=0.015)
    assert float(lagged.float().mean()) == pytest.approx(0.3 * 0.95, abs=0.03)
    assert float((~(lost | same | lagged)).float().mean()) == pytest.approx(0.02, abs=0.01)  # somewhere else
    out = corrupt_tracking(mask, None, 1.0, Draws(0, 0, 4000))
    assert float((out == mask).flatten(1).all(1).float().mean()) == pytest.approx(0.95, abs=0.02)


def test_a_mask_moves_and_what_leaves_is_gone() -> None:
    mask = torch.zeros(2, 5, 7, dtype=torch.bool)
    mask[:, 1, 2] = True
    out = moved(mask, torch.tensor([[3, 2], [-3, 0]]))
    assert out[0].nonzero().tolist() == [[3, 5]]
    assert not out[1].any()


def test_depth_errors_grow_with_distance_and_invalid_stays_invalid() -> None:
    near = corrupt_depth(torch.full((ROWS, 64, 64), 0.5), 1.0, Draws(0, 0, ROWS))
    far = corrupt_depth(torch.full((ROWS, 64, 64), 1.0), 1.0, Draws(0, 0, ROWS))
    errors = [float((d[d > 0] - true).std()) for d, true in ((near, 0.5), (far, 1.0))]
    assert errors[1] == pytest.approx(4 * errors[0], rel=0.01)
    assert 0.002 < errors[1] < 0.006
    holes = (far == 0).float().mean((1, 2))
    assert 0.01 < float(holes.mean()) < 0.06
    assert float(holes.max()) < 0.4
    invalid = torch.zeros(4, 64, 64)
    assert not corrupt_depth(invalid, 1.0, Draws(0, 0, 4)).any()


def test_each_picture_gets_its_own_colours() -> None:
    rgb = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).repeat(50, 1, 1, 1)
    out = jitter_colours(rgb, (0.3, 0.3, 0.3, 0.1), Draws(0, 0, 50))
    assert float(out.min()) >= 0
    assert float(out.max()) <= 1
    means = out.mean((1, 2, 3))
    assert float(means.std()) > 0.05
    assert len(set(means.tolist())) == 50
    assert torch.allclose(jitter_colours(rgb, (0.0, 0.0, 0.0, 0.0), Draws(0, 0, 50)), rgb, atol=1e-5)


def test_hue_and_saturation_leave_grey_alone_and_brightness_does_not() -> None:
    grey = torch.full((20, 3, 4, 4), 0.4)
    assert torch.allclose(jitter_colours(grey, (0.0, 0.3, 0.3, 0.1), Draws(0, 0, 20)), grey, atol=1e-5)
    bright = jitter_colours(grey, (0.3, 0.0, 0.0, 0.0), Draws(0, 0, 20))
    assert float(bright.std()) > 0.02
    assert torch.allclose(bright[:, 0], bright[:, 2], atol=1e-5)
