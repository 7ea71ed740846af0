"""Where a model's numbers lie in the picture: sizes that its server leaves alone, and the convention of its boxes.

Qwen2-VL and Qwen3-VL answer in thousandths of the picture's sides, Qwen2.5-VL in pixels *of the picture as its server
resized it*. So a picture is resized here, to whole patches, and the server's own resize is the identity; and what a
model really does is measured by a self-test, because a wrong guess is silent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ...hardware.errors import BadInput
from .base import Box

Scale = Literal["pixels", "thousand"]
Order = Literal["xyxy", "yxyx"]
Size = tuple[int, int]
"""(width, height) in pixels."""

_GREY = (150, 150, 150)
_SELF_TEST_GRID = (52, 20)  # patches; far from square, and neither side near 1000 pixels
_ASPECT_WEIGHT = 20.0  # a picture 1 % out of shape is as bad as one 22 % larger than asked


@dataclass(frozen=True)
class Convention:
    """How four numbers mean a box."""

    scale: Scale
    order: Order

    def __str__(self) -> str:
        return f"{self.order} in {'pixels' if self.scale == 'pixels' else 'thousandths (0-1000)'}"


CONVENTIONS = tuple(Convention(scale, order) for scale in ("pixels", "thousand") for order in ("xyxy", "yxyx"))


@dataclass(frozen=True)
class Family:
    """What is known of a family of models before it is asked anything."""

    name: str
    multiple: int  # pixels; the server resizes both sides to whole multiples of it
    scale: Scale | None  # None: unknown


_FAMILIES = (
    (r"qwen3(\.?5)?-?vl|qwen3\.5", Family("Qwen3-VL", 32, "thousand")),
    (r"qwen2[.-]?5-?vl|qwen-vl-(max|plus)", Family("Qwen2.5-VL", 28, "pixels")),
    (r"qwen2-?vl", Family("Qwen2-VL", 28, "thousand")),
)
UNKNOWN = Family("unknown", 28, None)


def family_of(model: str) -> Family:
    """The family that a model's name tells: "Qwen/Qwen2.5-VL-7B-Instruct", "qwen3-vl:8b", ..."""
    plain = re.sub(r"[_\s:]+", "-", model.lower())
    return next((family for pattern, family in _FAMILIES if re.search(pattern, plain)), UNKNOWN)


@lru_cache(maxsize=64)
def fit_size(size: Size, multiple: int, min_tokens: int, max_tokens: int) -> Size:
    """The size to send a picture of ``size`` at: sides whole multiples of ``multiple``, ``min_tokens`` to
    ``max_tokens`` patches, in the picture's own shape as nearly as possible, as near its own size as they allow."""
    width, height = size
    if width < 1 or height < 1:
        raise BadInput(f"a picture of {width} x {height} pixels: expected at least 1 x 1.")
    aspect = width / height
    wanted = min(max(width * height / multiple**2, min_tokens), max_tokens)
    best: tuple[float, Size] | None = None
    for rows in range(1, max_tokens + 1):
        for columns in {math.floor(rows * aspect), math.ceil(rows * aspect)}:
            tokens = columns * rows
            if columns < 1 or not min_tokens <= tokens <= max_tokens:
                continue
            cost = _ASPECT_WEIGHT * abs(math.log(columns / rows / aspect)) + abs(math.log(tokens / wanted))
            if best is None or cost < best[0]:
                best = (cost, (columns * multiple, rows * multiple))
    if best is None:
        raise BadInput(
            f"a picture of {width} x {height} pixels does not fit into {min_tokens} to {max_tokens} patches of "
            f"{multiple} x {multiple}: expected a shape nearer to square; cut it."
        )
    return best[1]


def resized(picture: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """``picture`` (H, W, 3) at ``size``: averaged where it shrinks, interpolated where it grows."""
    if picture.shape[1::-1] == size:
        return picture
    shrinks = size[0] <= picture.shape[1] and size[1] <= picture.shape[0]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, size, interpolation=how), np.uint8)


def to_picture(numbers: Sequence[float], convention: Convention, sent: Size, picture: Size) -> Box:
    """A model's four numbers about a picture sent at size ``sent`` -> the box in pixels of ``picture``, the original.

    Corner to corner, so that no half pixels enter. Corners in the wrong order are put right; nothing is clipped."""
    a, b, c, d = (float(v) for v in numbers)
    x0, y0, x1, y1 = (a, b, c, d) if convention.order == "xyxy" else (b, a, d, c)
    whole_x, whole_y = sent if convention.scale == "pixels" else (1000, 1000)
    sx, sy = picture[0] / whole_x, picture[1] / whole_y
    return (min(x0, x1) * sx, min(y0, y1) * sy, max(x0, x1) * sx, max(y0, y1) * sy)


def from_picture(box: Box, convention: Convention, sent: Size, picture: Size) -> tuple[float, float, float, float]:
    """The inverse of :func:`to_picture`: the numbers with which a model of ``convention`` means ``box``."""
    whole_x, whole_y = sent if convention.scale == "pixels" else (1000, 1000)
    sx, sy = whole_x / picture[0], whole_y / picture[1]
    x0, y0, x1, y1 = box[0] * sx, box[1] * sy, box[2] * sx, box[3] * sy
    return (x0, y0, x1, y1) if convention.order == "xyxy" else (y0, x0, y1, x1)


def iou(one: Box, other: Box) -> float:
    """Intersection over union; 0 where either is empty."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    union = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - shared
    return float(shared / union)


@dataclass(frozen=True)
class SelfTest:
    """A picture whose boxes are known."""

    picture: NDArray[np.uint8]  # (H, W, 3) RGB
    boxes: Mapping[str, Box]  # colour -> pixels

    @property
    def size(self) -> Size:
        return (self.picture.shape[1], self.picture.shape[0])


# Colour -> RGB, left and top as shares of the sides, side as a share of the height. No two conventions read one
# another's boxes with an IoU above 0.2.
_SQUARES = {
    "red": ((214, 32, 36), 0.77, 0.52, 0.26),
    "green": ((24, 150, 60), 0.31, 0.66, 0.22),
    "blue": ((28, 64, 204), 0.55, 0.09, 0.29),
    "yellow": ((240, 208, 28), 0.08, 0.31, 0.24),
}


def self_test_picture(multiple: int, min_tokens: int, max_tokens: int) -> SelfTest:
    """Four coloured squares on grey, at a size that needs no resizing."""
    columns, rows = _SELF_TEST_GRID
    width, height = fit_size((columns * multiple, rows * multiple), multiple, min_tokens, max_tokens)
    picture = np.full((height, width, 3), _GREY, np.uint8)
    boxes: dict[str, Box] = {}
    for colour, (rgb, left, top, share) in _SQUARES.items():
        x0, y0, side = round(left * width), round(top * height), round(share * height)
        picture[y0 : y0 + side, x0 : x0 + side] = rgb
        boxes[colour] = (float(x0), float(y0), float(x0 + side), float(y0 + side))
    return SelfTest(picture, boxes)


def score(test: SelfTest, answers: Mapping[str, Sequence[float]]) -> dict[Convention, float]:
    """Mean IoU over the squares under each convention, best first. A square without an answer counts 0."""
    means = {}
    for convention in CONVENTIONS:
        found = {colour: to_picture(numbers, convention, test.size, test.size) for colour, numbers in answers.items()}
        each = [iou(box, found[colour]) if colour in found else 0.0 for colour, box in test.boxes.items()]
        means[convention] = sum(each) / len(each)
    return dict(sorted(means.items(), key=lambda item: -item[1]))


def stretch(test: SelfTest, answers: Mapping[str, Sequence[float]]) -> tuple[float, float] | None:
    """(x, y) factors by which the answers, read as xyxy pixels, are the truth shrunk or grown: what a server that
    resizes once more leaves behind. None where no such factors explain them to 3 % of the sides."""
    if set(answers) != set(test.boxes):
        return None
    truth = np.array([test.boxes[colour] for colour in test.boxes]).reshape(-1, 2)
    said = np.array([answers[colour] for colour in test.boxes], float).reshape(-1, 2)
    factors = (truth * said).sum(0) / (truth**2).sum(0)
    if not (factors > 0.05).all():
        return None
    off = np.abs(said / factors - truth) / np.array(test.size)
    return (float(factors[0]), float(factors[1])) if off.max() < 0.03 else None
