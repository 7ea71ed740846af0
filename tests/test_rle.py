"""Masks as text: exact, and honest about damage."""

from __future__ import annotations

import time

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from dexloop.datasets import rle
from dexloop.hardware.errors import DatasetError
from hypothesis import given
from hypothesis import strategies as st

MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40))


@given(MASKS)
def test_round_trip_is_exact(mask: np.ndarray) -> None:
    text = rle.encode(mask)
    assert np.array_equal(rle.decode(text), mask)
    assert rle.check(text) == mask.shape
    assert rle.area(text) == mask.sum()


@given(MASKS, st.integers(0, 10_000), st.characters(codec="ascii"))
def test_a_changed_character_gives_another_mask_or_an_error(mask: np.ndarray, at: int, char: str) -> None:
    text = rle.encode(mask)
    changed = text[: at % len(text)] + char + text[at % len(text) + 1 :]
    try:
        other = rle.decode(changed)
    except DatasetError:
        return
    assert changed.lstrip("0") == text.lstrip("0") or other.shape != mask.shape or not np.array_equal(other, mask)


@pytest.mark.parametrize("mask", [np.zeros((480, 640), bool), np.ones((480, 640), bool), np.zeros((1, 1), bool)])
def test_uniform_masks(mask: np.ndarray) -> None:
    assert np.array_equal(rle.decode(rle.encode(mask)), mask)


@pytest.mark.parametrize(
    "text", ["", "640x480", "640x480 ", "axb AA", "4x4 qé", "4x4 A", "4x4 g", "4x4 " + "g" * 14 + "A", "4x4 hB"]
)
def test_damaged_text_is_said_to_be(text: str) -> None:
    with pytest.raises(DatasetError, match="mask"):
        rle.decode(text)


def test_an_object_in_a_camera_picture_is_small_and_quick() -> None:
    rows, columns = np.mgrid[:480, :640]
    mask = (rows - 240) ** 2 / 90**2 + (columns - 300) ** 2 / 60**2 < 1
    text = rle.encode(mask)
    assert len(text) < 800  # 0.2 MB for 300 rows
    start = time.process_time()
    for _ in range(50):
        rle.decode(rle.encode(mask))
    assert (time.process_time() - start) / 50 < 5e-3
