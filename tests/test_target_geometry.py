"""Geometry of the target from masked depth: a box drawn by the head camera is found where it stands."""

import numpy as np
import pytest
import torch
from dexloop.hardware.rig import DEXGRASPVLA_RIG
from dexloop.train.controller.draws import Draws
from dexloop.train.controller.geometry import HeadCamera, Target, heading, look, six_to_rotation, world_T_palm
from hypothesis import given, settings
from hypothesis import strategies as st

SIZE = (320, 240)
CAMERA = HeadCamera(SIZE)
WINDOW = 96


def picture(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth (H, W) m and mask (H, W) of an upright box on the table, by tracing each pixel's ray."""
    camera = DEXGRASPVLA_RIG.camera("head")
    intrinsics = camera.intrinsics.scaled(*SIZE)
    x, y = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    ray = np.stack([(x - intrinsics.cx) / intrinsics.fx, (y - intrinsics.cy) / intrinsics.fy, np.ones_like(x)], -1)
    turn, eye = camera.parent_T_camera[:3, :3], camera.parent_T_camera[:3, 3]
    ray = ray @ turn.T  # world, per metre of depth
    near, far = (low - eye) / ray, (high - eye) / ray
    enter, leave = np.minimum(near, far).max(-1), np.maximum(near, far).min(-1)
    mask = enter < leave
    return np.where(mask, enter, -eye[2] / ray[..., 2]).astype(np.float32), mask


def window(depth: np.ndarray, mask: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(1, 96, 96) depth and mask around the mask, and its corner (1, 2)."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    y = int(rows[0] + rows[-1]) // 2 - WINDOW // 2 if len(rows) else 40
    x = int(columns[0] + columns[-1]) // 2 - WINDOW // 2 if len(columns) else 40
    parts = [np.zeros((WINDOW, WINDOW), array.dtype) for array in (depth, mask)]
    for part, array in zip(parts, (depth, mask), strict=True):
        y0, y1, x0, x1 = max(y, 0), min(y + WINDOW, SIZE[1]), max(x, 0), min(x + WINDOW, SIZE[0])
        part[y0 - y : y1 - y, x0 - x : x1 - x] = array[y0:y1, x0:x1]
    return torch.tensor(parts[0])[None], torch.tensor(parts[1])[None], torch.tensor([[x, y]])


def seen(depth: np.ndarray, mask: np.ndarray, draws: Draws | None = None) -> Target:
    d, m, origin = window(depth, mask)
    return look(CAMERA, d, m, origin, 128, draws)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.28, 0.55), st.floats(-0.2, 0.2), st.floats(0.02, 0.05), st.floats(0.02, 0.05), st.floats(0.03, 0.12))
def test_a_box_is_found_where_it_stands(x: float, y: float, half_x: float, half_y: float, height: float) -> None:
    low, high = np.array([x - half_x, y - half_y, 0.0]), np.array([x + half_x, y + half_y, height])
    target = seen(*picture(low, high))
    assert target.seen.all()
    assert float(target.high[0, 2]) == pytest.approx(height, abs=0.004)
    assert np.abs(target.anchor[0].numpy() - (low + high) / 2).max() < 0.012
    cloud = target.points[0].numpy()
    assert (cloud > low - 0.004).all()
    assert (cloud < high + 0.004).all()
    drawn = seen(*picture(low, high), Draws(1, 2, 1))
    assert not torch.equal(drawn.points, target.points)  # training sees other points of it
    assert (drawn.points[0].numpy() > low - 0.004).all()
    assert (drawn.points[0].numpy() < high + 0.004).all()


def test_where_the_window_lies_does_not_matter() -> None:
    depth, mask = picture(np.array([0.2, 0.2, 0.0]), np.array([0.28, 0.26, 0.06]))  # at the picture's edge
    x = np.flatnonzero(mask.any(0))
    assert x[0] < WINDOW  # the window reaches out of the picture
    middle = seen(depth, mask)
    whole = look(CAMERA, torch.tensor(depth)[None], torch.tensor(mask)[None], torch.zeros(1, 2, dtype=torch.long), 128)
    assert torch.allclose(middle.points, whole.points, atol=1e-6)


def test_a_mask_that_bleeds_onto_the_table_hardly_moves_it() -> None:
    depth, mask = picture(np.array([0.36, 0.0, 0.0]), np.array([0.44, 0.06, 0.08]))
    wide = torch.nn.functional.max_pool2d(torch.tensor(mask, dtype=torch.float32)[None], 5, 1, 2)[0].numpy() > 0
    assert wide.sum() > 1.2 * mask.sum()
    exact, bled = seen(depth, mask), seen(depth, wide)
    for name in ("anchor", "centre", "low", "high"):
        assert (getattr(exact, name) - getattr(bled, name)).abs().max() < 0.006, name


def test_a_long_object_lies_the_way_it_lies() -> None:
    along_x = seen(*picture(np.array([0.3, 0.0, 0.0]), np.array([0.5, 0.03, 0.04])))
    along_y = seen(*picture(np.array([0.4, -0.1, 0.0]), np.array([0.43, 0.1, 0.04])))
    assert along_x.covariance[0, 0] > 10 * along_x.covariance[0, 2]
    assert along_y.covariance[0, 2] > 10 * along_y.covariance[0, 0]


@pytest.mark.parametrize("how", ["no mask", "no depth"])
def test_what_is_not_seen_is_zero_and_said_so(how: str) -> None:
    depth, mask = picture(np.array([0.36, 0.0, 0.0]), np.array([0.44, 0.06, 0.08]))
    if how == "no mask":
        mask = np.zeros_like(mask)
    else:
        depth = np.where(mask, 0.0, depth).astype(np.float32)
    target = seen(depth, mask)
    assert not target.seen.any()
    assert int(target.pixels) == 0
    for name in ("points", "centre", "low", "high", "covariance", "anchor"):
        assert not getattr(target, name).any(), name


def test_seen_from_a_turned_frame_a_long_object_lies_the_other_way() -> None:
    target = seen(*picture(np.array([0.3, 0.0, 0.0]), np.array([0.5, 0.03, 0.04])))
    quarter = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
    turned = target.seen_from(target.anchor, quarter)
    assert turned.covariance[0, 2] > 10 * turned.covariance[0, 0]
    sizes, swapped = target.high - target.low, turned.high - turned.low
    assert torch.allclose(sizes[0, [1, 0, 2]], swapped[0], atol=2e-3)
    assert ((turned.low + turned.high) / 2)[0, :2].abs().max() < 1e-4


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=6, max_size=6))
def test_a_heading_is_an_upright_frame(numbers: list[float]) -> None:
    palm = six_to_rotation(torch.tensor([numbers], dtype=torch.float64))
    level = heading(palm)
    assert torch.allclose(level[0].T @ level[0], torch.eye(3, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(level[0, :, 2], torch.tensor([0.0, 0, 1], dtype=torch.float64))
    forward = (level.transpose(1, 2) @ palm)[0, :, 0]
    assert abs(float(forward[1])) < 1e-8
    assert float(forward[0]) > -1e-8


def test_rows_of_a_batch_do_not_mix() -> None:
    one = window(*picture(np.array([0.36, 0.0, 0.0]), np.array([0.44, 0.06, 0.08])))
    two = window(*picture(np.array([0.5, -0.2, 0.0]), np.array([0.55, -0.1, 0.05])))
    both = look(CAMERA, *(torch.cat([a, b]) for a, b in zip(one, two, strict=True)), 128)
    for row, alone in enumerate((one, two)):
        assert torch.allclose(both.points[row], look(CAMERA, *alone, 128).points[0], atol=1e-6)


def test_the_palm_is_where_forward_kinematics_puts_it() -> None:
    mount = DEXGRASPVLA_RIG.arms[0]
    q = torch.zeros(2, 3, 7)
    at_zero = mount.world_T_base @ np.diag([1.0, 1, 1, 1])
    palm = world_T_palm(q)
    assert palm.shape == (2, 3, 4, 4)
    assert palm.dtype == torch.float64
    # Stretched out, flange and base share their z axis.
    assert np.allclose(palm[0, 0, :3, 0].numpy(), at_zero[:3, 2], atol=1e-9)
