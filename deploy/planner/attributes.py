"""What can be said of an object on the table: its colours, size, shape, place, and how well a word fits it.

All answers are degrees from 0 to 1. Colour is judged in CIE Lab with lightness counted half, since it is also shading;
a noun by the size and build that such things have, which is weak evidence: a can and a jar look alike from above.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from .cuts import solidity
from .segments import Cluster
from .shapes import NOUN_COLOURS, NOUN_SHAPES
from .table import Array

# Centres of the colour words in Lab, several where a word covers much. Medians of objects under the twin's training
# lights; they lie where one would look for them in the ISCC-NBS dictionary, a little darker.
COLOUR_LAB: dict[str, tuple[tuple[float, float, float], ...]] = {
    "red": ((34.0, 54.0, 40.0), (28.0, 46.0, 33.0), (20.0, 36.0, 25.0), (48.0, 68.0, 48.0)),
    "orange": ((60.0, 36.0, 62.0), (50.0, 30.0, 55.0), (41.0, 26.0, 47.0)),
    "yellow": ((76.0, -2.0, 70.0), (64.0, -4.0, 62.0), (54.0, -3.0, 54.0), (41.0, -3.0, 43.0)),
    "green": ((48.0, -44.0, 38.0), (40.0, -38.0, 32.0), (33.0, -33.0, 27.0), (23.0, -24.0, 19.0)),
    "blue": ((36.0, 26.0, -60.0), (25.0, 24.0, -52.0), (19.0, 18.0, -42.0), (11.0, 12.0, -28.0)),
    "turquoise": ((62.0, -32.0, -10.0), (50.0, -25.0, -9.0), (33.0, -18.0, -7.0)),
    "purple": ((33.0, 42.0, -40.0), (24.0, 37.0, -35.0), (17.0, 27.0, -26.0)),
    "pink": ((66.0, 40.0, -2.0), (54.0, 34.0, -3.0), (46.0, 28.0, -2.0)),
    "white": ((86.0, 0.0, 2.0), (75.0, 0.0, 0.0), (63.0, 0.0, 0.0)),
    "black": ((5.0, 0.0, 0.0), (15.0, 0.0, 0.0)),
    "grey": ((46.0, 1.0, -2.0), (39.0, 0.0, 0.0), (28.0, 0.0, 0.0)),
    "brown": ((30.0, 15.0, 25.0), (23.0, 11.0, 19.0), (14.0, 8.0, 13.0), (36.0, 13.0, 25.0)),
}
COLOURS = tuple(COLOUR_LAB)
_CENTRES = np.array([centre for name in COLOURS for centre in COLOUR_LAB[name]], np.float32)
_OWNER = np.array([k for k, name in enumerate(COLOURS) for _ in COLOUR_LAB[name]])
_WEIGHT = np.array([0.5, 1.0, 1.0], np.float32)
_NEUTRAL = ("white", "black", "grey")
_SOFT = 5.0  # Lab distance over which one colour gives way to another


@dataclass(frozen=True)
class Thing:
    """An object on the table, and what can be said of it."""

    cluster: Cluster
    colours: dict[str, float]  # part of its surface in each colour of COLOURS; adds up to 1
    length_m: float  # of its footprint
    width_m: float
    height_m: float
    fill: float  # footprint area over that of its smallest rectangle: 0.79 a disc, 1 a rectangle
    convexity: float  # of its outline, 0..1
    hollow_m: float  # how far its middle lies below its rim
    blocked_m: float = 1.0  # free space to its nearest neighbour

    @property
    def centroid_m(self) -> Array:
        """(3,) world."""
        return self.cluster.centroid_m

    @cached_property
    def colour(self) -> str:
        """The one word for it."""
        return max(self.colours, key=lambda name: self.colour_fit(name))

    def colour_fit(self, name: str) -> float:
        """0..1: how rightly it is called so. Half of a surface is enough, and a strong colour names a thing before the
        white or black that is printed on it."""
        fit = min(1.0, self.colours[name] / 0.5)
        if name in _NEUTRAL:
            strong = sum(share for other, share in self.colours.items() if other not in _NEUTRAL)
            fit *= 1.0 - 0.3 * min(1.0, strong / 0.4)
        return fit

    @property
    def size_m(self) -> tuple[float, float, float]:
        """Its three sides, longest first, however it lies."""
        long, middle, short = sorted((self.length_m, self.width_m, self.height_m), reverse=True)
        return long, middle, short

    @property
    def volume_m3(self) -> float:
        """Of its bounding box: what "big" means."""
        return self.length_m * self.width_m * self.height_m

    def shape_fit(self, word: str) -> float:
        """0..1: how rightly it is called round, long, flat, square, tall, short, big or small."""
        long, middle, short = self.size_m
        ratio = self.length_m / max(self.width_m, 1e-3)
        if word == "round":
            return _between(ratio, 0.9, 1.25, 0.25) * _between(self.fill, 0.60, 0.88, 0.06) * self.convexity**2
        if word == "long":
            return _above(long / max(middle, 1e-3), 2.2, 0.5)
        if word == "flat":
            return _below(self.height_m / max(self.width_m, 1e-3), 0.55, 0.15) * _below(self.height_m, 0.055, 0.015)
        if word == "square":
            return _above(self.fill, 0.88, 0.04) * _below(self.hollow_m, 0.015, 0.01)
        if word == "tall":
            return _above(self.height_m, 0.10, 0.02)
        if word == "short":
            return _below(self.height_m, 0.07, 0.02)
        size = long * middle
        return _above(size, 0.011, 0.003) if word == "big" else _below(size, 0.006, 0.002)

    def noun_fit(self, noun: str) -> float:
        """0..1: how well its size, build and colour suit such a thing."""
        shape = NOUN_SHAPES.get(noun)
        if shape is None:
            return 0.5
        worst = 0.0
        for value, (low, high) in zip(self.size_m, shape.sides_m, strict=True):
            worst += max(np.log(low / max(value, 1e-3)), np.log(max(value, 1e-3) / high), 0.0) ** 2
        fit = float(np.exp(-worst / (2 * 0.18**2)))
        hollow = _above(self.hollow_m, 0.02, 0.008)
        fit *= 1.0 - 0.8 * max(hollow - shape.hollow, 0.0) - 0.3 * max(shape.hollow - 0.5 - hollow, 0.0)
        fit *= _above(self.convexity, shape.convexity - 0.04, 0.03) if self.convexity < shape.convexity else 1.0
        fit *= _between(self.fill, *shape.fill, 0.06)
        if noun in NOUN_COLOURS:
            fit *= 0.08 + 0.92 * min(1.0, sum(self.colours[name] for name in NOUN_COLOURS[noun]) / 0.5)
        return float(np.clip(fit, 0.0, 1.0))

    @cached_property
    def shape_word(self) -> str:
        """The most telling shape word, empty where none fits well."""
        order = ("round", "long", "square", "tall", "flat")
        best = max(order, key=self.shape_fit)
        return best if self.shape_fit(best) > 0.7 else ""


def describe(clusters: tuple[Cluster, ...], lab: NDArray[np.float32]) -> tuple[Thing, ...]:
    """What the pictures say of each cluster. ``lab`` (H, W, 3) of the head picture."""
    things = []
    for cluster in clusters:
        length, width, fill = _footprint(cluster)
        gaps = [gap_m(cluster, other) for other in clusters if other is not cluster]
        things.append(
            Thing(
                cluster, colour_shares(lab[_inner(cluster)]), length, width, cluster.top_m, fill,
                solidity(cluster.mask), _hollow(cluster), min(gaps, default=1.0),
            )
        )  # fmt: skip
    return tuple(things)


def colour_shares(lab: NDArray[np.float32]) -> dict[str, float]:
    """Part of the pixels (N, 3) Lab in each colour word; each pixel is shared out softly. Adds up to 1."""
    if len(lab) == 0:
        return {name: 1.0 / len(COLOURS) for name in COLOURS}
    few = lab[:: max(1, len(lab) // 800)]
    distance = np.linalg.norm((few[:, None] - _CENTRES) * _WEIGHT, axis=-1)  # (n, centres)
    nearest = np.stack([distance[:, k == _OWNER].min(1) for k in range(len(COLOURS))], -1)
    weight = np.exp(-(nearest - nearest.min(1, keepdims=True)) / _SOFT)
    shares = (weight / weight.sum(1, keepdims=True)).mean(0)
    return {name: float(share) for name, share in zip(COLOURS, shares, strict=True)}


def balanced(rgb: NDArray[np.uint8], housing: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The picture (H, W, 3) as under white light, judged by the arm's own neutral housing (H, W) where it is in view.

    Only the light's tint is taken out, at most by a third per channel: how bright it is, shading tells as well.
    """
    seen = rgb[housing]
    if len(seen) < 800:
        return rgb
    bright = seen.astype(np.float32).sum(1)
    light = np.median(seen[bright >= np.percentile(bright, 50)], axis=0) / 255.0
    linear = np.maximum(light, 0.02) ** 2.2
    gain = np.clip(linear.mean() / linear, 0.67, 1.5)
    curve = (np.arange(256)[:, None] / 255.0) ** 2.2 * gain
    table = np.clip(255.0 * np.clip(curve, 0.0, 1.0) ** (1 / 2.2), 0, 255).round().astype(np.uint8)
    return np.stack([table[rgb[..., k], k] for k in range(3)], -1)


def gap_m(a: Cluster, b: Cluster) -> float:
    """Free space between two clusters' points on the table, about."""
    one, other = (c.points[:: max(1, len(c.points) // 150), :2] for c in (a, b))
    return float(np.sqrt(((one[:, None] - other) ** 2).sum(-1).min()))


def _inner(cluster: Cluster) -> NDArray[np.bool_]:
    """Its pixels without the outermost, which mix with the table."""
    inner = cv2.erode(cluster.mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    return inner if inner.sum() >= 30 else cluster.mask


def _footprint(cluster: Cluster) -> tuple[float, float, float]:
    """Length and width (m) of the smallest rectangle around the points from above, and the part of it they fill."""
    flat = np.ascontiguousarray(_trimmed(cluster.points[:, :2]), np.float32)
    if len(flat) < 3:
        return 0.0, 0.0, 0.0
    (_, (a, b), _) = cv2.minAreaRect(flat)
    hull = float(cv2.contourArea(cv2.convexHull(flat)))
    return max(a, b), min(a, b), hull / max(a * b, 1e-9)


def _trimmed(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without the points that have few others near: stereo throws some far out."""
    cells = np.floor(points / 0.005).astype(int)
    _, inverse, count = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    kept = points[count[inverse.ravel()] >= 2]
    return kept if len(kept) >= 12 else points


def _hollow(cluster: Cluster) -> float:
    """How far (m) the middle of the footprint lies below its rim."""
    centre = np.median(cluster.points[:, :2], axis=0)
    distance = np.linalg.norm(cluster.points[:, :2] - centre, axis=1)
    radius = float(np.percentile(distance, 95))
    inner = cluster.height_m[distance < 0.4 * radius]
    if len(inner) < 8:
        return 0.0
    return float(max(0.0, cluster.top_m - np.percentile(inner, 30)))


def _above(value: float, limit: float, soft: float) -> float:
    return float(1.0 / (1.0 + np.exp(-np.clip((value - limit) / soft * 3.0, -30.0, 30.0))))


def _below(value: float, limit: float, soft: float) -> float:
    return 1.0 - _above(value, limit, soft)


def _between(value: float, low: float, high: float, soft: float) -> float:
    return min(_above(value, low - soft / 3, soft), _below(value, high + soft / 3, soft))
