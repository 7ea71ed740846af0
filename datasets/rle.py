"""Masks as text: exact run lengths, row by row, in a few hundred characters.

``"640x480 "`` then the runs, starting with a run of background (possibly 0 long). Each run is written as its
difference to the run two before (rows of a blob resemble their neighbours), zigzag-signed, in base-64 digits of five
bits plus a continuation bit, lowest first. A text column survives every LeRobot tool, and policies do not see it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..hardware.errors import DatasetError

Mask = NDArray[np.bool_]

_ALPHABET = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", np.uint8)
_DIGIT = np.full(256, 255, np.uint8)
_DIGIT[_ALPHABET] = np.arange(64)
_BITS, _CONTINUES = 5, 32


def encode(mask: NDArray[np.generic]) -> str:
    """(H, W) bool (or anything that is true where the target is) -> text."""
    if mask.ndim != 2:
        raise ValueError(f"mask has shape {mask.shape}, expected (H, W)")
    height, width = mask.shape
    flat = np.ascontiguousarray(mask).astype(bool, copy=False).ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    first = [0] if flat.size and flat[0] else []
    runs = np.diff(np.concatenate([[0], first, edges, [flat.size]]).astype(np.int64))
    delta = runs.copy()
    delta[2:] -= runs[:-2]
    return f"{width}x{height} " + _digits((delta << 1) ^ (delta >> 63))


def decode(text: str) -> Mask:
    """The mask of :func:`encode`, (H, W) bool. Raises DatasetError where the text is not one."""
    height, width, runs = _whole(text)
    values = np.zeros(len(runs), bool)
    values[1::2] = True
    return np.repeat(values, runs).reshape(height, width)


def check(text: str) -> tuple[int, int]:
    """(height, width) of a mask whose runs are proved to fill it, without building it. Raises DatasetError."""
    height, width, _ = _whole(text)
    return height, width


def area(text: str) -> int:
    """Pixels of the target, without building the mask."""
    return int(_runs(_split(text)[2])[1::2].sum())


def _whole(text: str) -> tuple[int, int, NDArray[np.int64]]:
    height, width, body = _split(text)
    runs = _runs(body)
    if (runs < 0).any() or runs.sum() != width * height:
        raise DatasetError(f"a mask of {width}x{height} has runs that add up to {runs.sum()} pixels: it is damaged.")
    return height, width, runs


def _split(text: str) -> tuple[int, int, str]:
    head, _, body = text.partition(" ")
    width, _, height = head.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise DatasetError(f"a mask begins with {text[:16]!r}, expected its size such as '640x480 '.")
    return int(height), int(width), body


def _digits(values: NDArray[np.int64]) -> str:
    """Non-negative integers -> base-64 text, vectorised over the runs."""
    places = max(1, -(-int(values.max(initial=0)).bit_length() // _BITS))
    shifts = _BITS * np.arange(places)
    parts = values[:, None] >> shifts  # (runs, places): what is left at each digit
    used = parts > 0
    used[:, 0] = True
    digits = parts & (_CONTINUES - 1)
    digits[:, :-1] |= np.where(used[:, 1:], _CONTINUES, 0)
    return _ALPHABET[digits[used]].tobytes().decode("ascii")


def _runs(body: str) -> NDArray[np.int64]:
    digits = _DIGIT[np.frombuffer(body.encode("ascii", "replace"), np.uint8)].astype(np.int64)
    if digits.size == 0 or (digits == 255).any() or digits[-1] & _CONTINUES:
        raise DatasetError("a mask holds characters that are no run lengths, or ends early: it is damaged.")
    last = (digits & _CONTINUES) == 0
    starts = np.concatenate([[0], np.flatnonzero(last)[:-1] + 1])
    lengths = np.diff(np.append(starts, digits.size))
    place = np.arange(digits.size) - np.repeat(starts, lengths)
    if place.max() > 11:
        raise DatasetError("a mask holds a run longer than any image: it is damaged.")
    coded = np.add.reduceat((digits & (_CONTINUES - 1)) << (_BITS * place), starts)
    delta = (coded >> 1) ^ -(coded & 1)
    delta[::2] = np.cumsum(delta[::2])
    delta[1::2] = np.cumsum(delta[1::2])
    return delta
