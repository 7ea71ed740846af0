"""The network that tells what a thing is called: what it sees, its file, and how it learns."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from dexloop.benchmarks.recogniser_training import Examples, disturbed, train
from dexloop.deploy.planner import recognition
from dexloop.deploy.planner.recognition import SIDE, Recogniser, load, patch, recogniser, save
from dexloop.deploy.planner.segments import Cluster
from dexloop.hardware.errors import BadInput
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

KINDS, COLOURS = ("cup", "hammer"), ("green", "red")


def seen(
    size: tuple[int, int] = (240, 320), at: tuple[int, int] = (100, 120), radius: int = 14, red: float = 50.0
) -> tuple[Cluster, NDArray[np.float32]]:
    """A disc of one colour, 5 cm high, and the picture that it is in."""
    mask = np.zeros(size, np.uint8)
    cv2.circle(mask, (at[1], at[0]), radius, 1, cv2.FILLED)
    rows, columns = np.nonzero(mask)
    box = (float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
    height = np.full(len(rows), 0.05, np.float32)
    cluster = Cluster(mask > 0, box, np.zeros((len(rows), 3), np.float32), height, np.zeros(3), np.flatnonzero(mask))
    lab = np.zeros((*size, 3), np.float32) + np.array([80, 0, 0], np.float32)
    lab[mask > 0] = (50.0, red, 20.0)
    return cluster, lab


def test_a_patch_is_the_thing_alone() -> None:
    cluster, lab = seen()
    found = patch(cluster, lab)
    assert found.shape == (6, SIDE, SIDE)
    inside = found[4] > 0.99
    assert 0.5 < inside.mean() < np.pi / 4
    np.testing.assert_allclose(found[:, inside].T, [[50, 50, 20, 0.05, 1, 1]] * inside.sum(), atol=1e-5)
    assert not found[:, found[4] == 0].any(), "nothing of the table around it"


@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from((1, 2)))
@settings(deadline=None, max_examples=30)
def test_a_patch_does_not_tell_where_it_was_nor_how_near(down: int, right: int, scale: int) -> None:
    here = patch(*seen())
    there = patch(*seen((480, 640), (110 + down, 120 + right), 14 * scale))
    apart = np.abs(here - there).mean((1, 2)) / np.maximum(np.abs(here).mean((1, 2)), 1e-9)
    assert apart.max() < (0.02 if scale == 1 else 0.1)


def test_pixels_without_depth_are_told_from_low_ones() -> None:
    cluster, lab = seen()
    half = cluster.pixels[: len(cluster.pixels) // 2]
    cluster = Cluster(cluster.mask, cluster.box, cluster.points, cluster.height_m[: len(half)], np.zeros(3), half)
    found = patch(cluster, lab)
    assert found[4].sum() > 1.8 * found[5].sum()
    assert not found[3][found[5] == 0].any()


def network() -> Recogniser:
    torch.manual_seed(1)
    return Recogniser(KINDS, COLOURS, 3, 2).eval()


def some(count: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(count)
    patches = np.stack([patch(*seen(radius=int(rng.integers(6, 20)), red=rng.uniform(-50, 50))) for _ in range(count)])
    return patches, rng.normal(size=(count, 3)).astype(np.float32), rng.normal(size=(count, 2)).astype(np.float32)


def test_answers_add_up_and_do_not_depend_on_what_lies_beside() -> None:
    given_ = some(5)
    kinds, colours = network().recognise(*given_)
    assert kinds.shape == colours.shape == (5, 2)
    np.testing.assert_allclose([kinds.sum(1), colours.sum(1)], 1.0, atol=1e-6)
    alone = network().recognise(*(array[2:3] for array in given_))
    np.testing.assert_allclose(alone[0][0], kinds[2], atol=1e-6)
    np.testing.assert_allclose(alone[1][0], colours[2], atol=1e-6)


def test_a_mirrored_thing_is_called_the_same() -> None:
    patches, of_kind, of_colour = some(4)
    patches[:, :3, :, : SIDE // 2] *= 0.5  # so that it has two sides
    once = network().recognise(patches, of_kind, of_colour)
    mirrored = network().recognise(patches[..., ::-1].copy(), of_kind, of_colour)
    np.testing.assert_allclose(once[0], mirrored[0], atol=1e-6)


def test_hotter_is_less_sure_and_no_other() -> None:
    given_, sharp, mild = some(6), network(), network()
    mild.heat.fill_(3.0)
    one, other = sharp.recognise(*given_)[0], mild.recognise(*given_)[0]
    assert (one.argmax(1) == other.argmax(1)).all()
    assert (one.max(1) >= other.max(1)).all()


def test_measures_far_out_say_no_more() -> None:
    patches, of_kind, of_colour = some(2)
    far, farther = of_kind * 0 + 3, of_kind * 0 + 300
    np.testing.assert_array_equal(
        network().recognise(patches, far, of_colour)[0], network().recognise(patches, farther, of_colour)[0]
    )


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    made, path = network(), tmp_path / "r.safetensors"
    made.heat.copy_(torch.tensor([1.5, 0.7]))
    save(made, path, {"scenes": 3})
    again = load(path)
    assert (again.kinds, again.colours) == (KINDS, COLOURS)
    for one, other in zip(made.recognise(*some(3)), again.recognise(*some(3)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.safetensors"
    with pytest.raises(BadInput, match=r"fit_offline_planner\.py"):
        load(path)
    save(network(), path, {})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match="holds no recogniser"):
        load(path)
    path.write_bytes(whole)
    weights = load_file(path)
    save_file(weights, path, {"other": "{}"})
    with pytest.raises(BadInput, match="its format is other"):
        load(path)
    made = {"kinds": ["cup"], "colours": COLOURS, "of_kind": 3, "of_colour": 2}
    save_file(weights, path, {recognition.FORMAT: json.dumps({"made": made})})
    with pytest.raises(BadInput, match="size mismatch"):
        load(path)


def test_measures_of_another_kind_are_refused() -> None:
    patches, of_kind, of_colour = some(2)
    with pytest.raises(BadInput, match=r"for the kind of shape \(2, 2\), expected \(2, 3\)"):
        network().recognise(patches, of_kind[:, :2], of_colour)
    with pytest.raises(BadInput, match="for the colour"):
        network().recognise(patches, of_kind, of_colour[:1])


def test_the_one_in_the_repository_knows_what_it_was_fitted_to() -> None:
    found = recogniser()
    assert len(found.kinds) > 20
    assert len(found.colours) == 12
    assert not found.training


# -- learning -------------------------------------------------------------------------------------------------------


def taught(count: int = 96) -> Examples:
    """Small things are cups and large ones hammers, by their measures; their colour is in the picture alone."""
    rng, examples = np.random.default_rng(0), Examples()
    for scene in range(count):
        large, red = bool(rng.integers(2)), bool(rng.integers(2))
        examples.patches.append(patch(*seen(red=50.0 if red else -50.0)).astype(np.float16))
        examples.of_kind.append(rng.normal(size=3) + 6.0 * large)
        examples.of_colour.append(rng.normal(size=2))
        examples.kinds.append("hammer" if large else "cup")
        examples.colours.append("red" if red else "green")
        examples.scenes.append(scene)
    return examples


def test_it_learns_from_the_picture_and_from_measures() -> None:
    examples = taught()
    kinds, colours = asked(made := train(examples, 30), examples)
    assert [made.colours[k] for k in colours.argmax(1)] == examples.colours
    right = [made.kinds[k] == kind for k, kind in zip(kinds.argmax(1), examples.kinds, strict=True)]
    assert np.mean(right) > 0.9


def test_the_same_examples_make_the_same_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    examples, paths = taught(24), (tmp_path / "first", tmp_path / "second")
    for path in paths:
        save(train(examples, 2), path, {})
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert "20 examples, 4 held back" in capsys.readouterr().out


def asked(network: Recogniser, examples: Examples) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    patches = np.stack(examples.patches).astype(np.float32)
    return network.recognise(patches, np.stack(examples.of_kind), np.stack(examples.of_colour))


def test_what_is_disturbed_is_still_a_patch() -> None:
    torch.manual_seed(0)
    patches = torch.from_numpy(np.stack([patch(*seen())] * 64))
    found = disturbed(patches)
    assert found.shape == patches.shape
    assert torch.isfinite(found).all()
    mask = found[:, 4]
    assert ((mask >= 0) & (mask <= 1.001)).all()
    assert not found[:, :3][(mask == 0)[:, None].expand(-1, 3, -1, -1)].any(), "light falls on the thing alone"
    area = mask.mean((1, 2)) / patches[:, 4].mean((1, 2))
    assert 0.3 < area.min() < 0.95 < 1.05 < area.max() < 2.0
    assert found[:, 0].amax((1, 2)).std() > 0.5
