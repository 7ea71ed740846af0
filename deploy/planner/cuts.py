"""Cuts between things that touch: which lines to try through a cluster, and what speaks for two things there.

A cluster is cut where a straight line between two of its dents, or the border between two strong hues, leaves parts
that look like things of their own: more convex than the whole, a neck between them, a step in height or another colour.
A bottle has a neck too, but it does not widen at once on both sides, which two things that touch at a point do.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ...hardware.errors import BadInput
from .fitted import fitted
from .table import Array, Mask

Floats = NDArray[np.float32]
Pixel = tuple[int, int]  # x, y
_APART = 9.0  # Lab distance of two colours between which a border is looked for
_NEAR_CUT_PX = 9  # strips this wide on both sides of a cut are compared


@dataclass(frozen=True)
class SegmentConfig:
    """What counts as an object, and when one cluster is two. Pixels are those of a picture 640 wide."""

    seed_m: float = 0.008
    """An object has points at least this high."""
    grow_m: float = 0.0042
    """It goes on to where it is this high: five deviations of the smoothed depth."""
    min_area_px: int = 110
    """Fewer pixels are noise."""
    top_m: float = 0.36
    """Nothing on the table is taller: what is, hangs over it."""
    min_part: float = 0.08
    """Least part of the cluster's area on the smaller side of a cut."""
    min_gain: float = 0.025
    """How much nearer to convex (area over hull area) the parts of a cut must be than the whole."""
    max_solidity: float = 0.955
    """A cluster this convex is one object."""
    min_logit: float = -0.5
    """Least evidence for a cut, logarithm of odds; higher cuts less. Chosen on 34 scenes of the validation split: two
    things in one are lost both, a thing in two is mostly still found by its larger part."""

    def __post_init__(self) -> None:
        if not 0.0 < self.grow_m <= self.seed_m <= 0.05:
            raise BadInput(
                f"SegmentConfig.grow_m is {self.grow_m}, seed_m {self.seed_m}: expected 0 < grow_m <= seed_m <= 0.05"
            )
        if self.min_area_px < 1:
            raise BadInput(f"SegmentConfig.min_area_px is {self.min_area_px}: expected at least 1")
        for name in ("min_part", "min_gain", "max_solidity"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise BadInput(f"SegmentConfig.{name} is {getattr(self, name)}: expected a share between 0 and 1")

    def smallest_px(self, width: int) -> int:
        """Least area of an object in a picture of so many columns."""
        return max(12, round(self.min_area_px * (width / 640.0) ** 2))


# What a cut is judged by (``fitted.py``): by cuts of the twin's train split, where it is known which part two objects.
CUT_FEATURES = (
    "neck", "contrast", "rise", "gain", "convexity", "small reach", "large reach", "share", "colour", "length",
    "thickness", "hues", "curved", "small low", "small high", "large low", "large high", "overlap", "border",
    "small chroma", "large chroma", "lightness", "small solidity", "large solidity",
)  # fmt: skip


@dataclass(frozen=True)
class Cut:
    """Two parts of a cluster, and what speaks for the cut between them."""

    first: Mask
    second: Mask
    features: Array  # in the order of CUT_FEATURES


class Cutter:
    """Cuts one island, in a window around it."""

    def __init__(self, points: Floats, height_m: Floats, valid: Mask, lab: Floats, smallest: int) -> None:
        self._points, self._height, self._valid, self._lab = points, height_m, valid, lab
        self._smallest = smallest

    def parts(self, mask: Mask, config: SegmentConfig) -> list[Mask]:
        """One mask, or several that share its pixels."""
        done: list[Mask] = []
        waiting = [mask]
        while waiting:
            piece = waiting.pop()
            cut = self._best(piece, config) if len(done) + len(waiting) < 12 else None
            if cut is None:
                done.append(piece)
            else:
                waiting += [cut.first, cut.second]
        return done

    def _best(self, mask: Mask, config: SegmentConfig) -> Cut | None:
        if mask.sum() < 2 * self._smallest:
            return None
        cuts = list(self.cuts(mask, config))
        if not cuts:
            return None
        logits = fitted().cuts.logits(np.stack([cut.features for cut in cuts]))
        lead = logits[:, 1] - logits[:, 0]  # above 0: rather two objects than one
        best = int(np.argmax(lead))
        return cuts[best] if lead[best] > config.min_logit else None

    def cuts(self, mask: Mask, config: SegmentConfig) -> Iterator[Cut]:
        """All cuts of the mask that are worth a thought."""
        area, before = float(mask.sum()), solidity(mask)
        lines = self._lines(mask) if before <= config.max_solidity else []
        straight = ((sides, p, q) for p, q in lines if (sides := _sides(mask, p, q)) is not None)
        for sides, p, q in itertools.chain(straight, self._by_colour(mask)):
            small, large = sorted(sides, key=lambda side: int(side.sum()))
            share = float(small.sum()) / area
            if small.sum() < self._smallest or share < config.min_part:
                continue
            after = share * solidity(small) + (1 - share) * solidity(large)
            curved = (p, q) not in lines
            if after - before < (-config.min_gain if curved else config.min_gain):
                continue
            yield Cut(small, large, self._features(small, large, p, q, before, after, share, curved))

    def _by_colour(self, mask: Mask) -> Iterator[tuple[tuple[Mask, Mask], Pixel, Pixel]]:
        """Cuts along the borders of colours, with the ends of each border: for what shows no dent."""
        pixels = self._lab[mask] * np.array([0.5, 1.0, 1.0], np.float32)  # lightness is also shading
        for label in _groups(pixels):
            blob = np.zeros(mask.shape, np.uint8)
            blob[mask] = label
            blob = cv2.morphologyEx(blob, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)) & mask.astype(np.uint8)
            blob = cv2.morphologyEx(blob, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
            count, labels, stats, _ = cv2.connectedComponentsWithStats(blob, connectivity=4)
            if count < 2:
                continue
            one = labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
            # The rim of either mixes with the table and has neither's hue: it goes to the nearer core.
            core = cv2.morphologyEx((mask & ~one).astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
            if not core.any():
                continue
            to_one = cv2.distanceTransform((~one).astype(np.uint8), cv2.DIST_L2, 3)
            one = mask & (to_one < cv2.distanceTransform(1 - core, cv2.DIST_L2, 3))
            rest = mask & ~one
            border = cv2.dilate(one.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & rest
            rows, columns = np.nonzero(border)
            if len(rows) < 4:
                continue
            points = np.stack([columns, rows], -1)
            p = points[np.argmax(np.linalg.norm(points - points.mean(0), axis=1))]
            q = points[np.argmax(np.linalg.norm(points - p, axis=1))]
            if np.any(p != q):
                yield (one, rest), _pixel(p), _pixel(q)

    def _lines(self, mask: Mask) -> list[tuple[Pixel, Pixel]]:
        """Ends of the cuts to try: from dent to dent, and from each dent straight across."""
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        contour = max(contours, key=len)
        if len(contour) < 12:
            return []
        ring = contour[:, 0]
        n = len(ring)
        dents = _dents(contour)
        pairs = {(a, b) for k, a in enumerate(dents) for b in dents[k + 1 :]}
        for a in dents[:6]:
            along = np.abs((np.arange(n) - a + n // 2) % n - n // 2)
            distance = np.linalg.norm(ring - ring[a], axis=1)
            distance[along < max(6, n // 10)] = np.inf
            blocks = np.array_split(np.arange(n), 10)
            nearest = [int(block[np.argmin(distance[block])]) for block in blocks]
            pairs |= {(a, b) for b in sorted(nearest, key=lambda k: distance[k])[:4] if np.isfinite(distance[b])}
        return [(_pixel(ring[a]), _pixel(ring[b])) for a, b in sorted(pairs) if np.any(ring[a] != ring[b])]

    def _features(
        self, small: Mask, large: Mask, p: Pixel, q: Pixel, before: float, after: float, share: float, curved: bool
    ) -> Array:
        length = float(np.hypot(p[0] - q[0], p[1] - q[1])) + 1.0
        (width_small, reach_small), (width_large, reach_large) = (
            _beside(part, p, q, length) for part in (small, large)
        )
        contrast, rise = self._difference(small, large, p, q)
        colours = [np.median(self._lab[part], axis=0) * (0.5, 1.0, 1.0) for part in (small, large)]
        apart = float(np.linalg.norm(colours[0] - colours[1]))
        if curved:  # the strips beside the straight line between its ends are not beside the border
            contrast = apart
        long_m, _ = self._size(small | large)
        _, thick_m = self._size(small)
        (low_small, high_small), (low_large, high_large) = (self._heights(part) for part in (small, large))
        border = cv2.dilate(small.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & large
        chromas = [float(np.hypot(*colour[1:])) for colour in colours]
        return np.array(
            [
                min(length / max(min(width_small, width_large), 1.0), 2.0),
                min(contrast / 20.0, 3.0),
                min(rise / 0.012, 3.0),
                after - before,
                after,
                min(reach_small / length, 5.0),
                min(reach_large / length, 5.0),
                share,
                min(apart / 20.0, 3.0),
                min(long_m / 0.1, 4.0),
                min(thick_m / 0.03, 3.0),
                _hues_apart(*colours),
                float(curved),
                low_small,
                high_small,
                low_large,
                high_large,
                self._overlap(small, large),
                min(float(border.sum()) / float(np.sqrt(small.sum())), 4.0),
                min(chromas[0] / 20.0, 3.0),
                min(chromas[1] / 20.0, 3.0),
                abs(float(colours[0][0] - colours[1][0])) / 10.0,
                solidity(small),
                solidity(large),
            ]
        )

    def _heights(self, part: Mask) -> tuple[float, float]:
        """Lowest and highest of a part over the table, in 5 cm: a lid does not come down to the table."""
        height = self._height[part & self._valid]
        if len(height) < 6:
            return 0.0, 0.0
        low, high = np.percentile(height, [5, 95])
        return float(low) / 0.05, float(high) / 0.05

    def _overlap(self, small: Mask, large: Mask) -> float:
        """Part of the smaller footprint's hull that lies in the larger's, seen from above: two things stand beside each
        other, a lid and its jar on each other."""
        hulls = []
        for part in (small, large):
            xy = self._points[part & self._valid][:, :2]
            if len(xy) < 6:
                return 0.0
            low, high = np.percentile(xy, [3, 97], axis=0)
            inside = xy[((xy >= low) & (xy <= high)).all(1)]
            if len(inside) < 6:
                return 0.0
            hulls.append(cv2.convexHull(np.ascontiguousarray(inside, np.float32) * 100.0))
        least = min(float(cv2.contourArea(hull)) for hull in hulls)
        common, _ = cv2.intersectConvexConvex(hulls[0], hulls[1])
        return float(np.clip(common / max(least, 1e-6), 0.0, 1.0))

    def _size(self, mask: Mask) -> tuple[float, float]:
        """Length and width on the table, m."""
        points = self._points[mask & self._valid][:, :2]
        if len(points) < 8:
            return 0.0, 0.0
        (_, (a, b), _) = cv2.minAreaRect(np.ascontiguousarray(points[::3] if len(points) > 300 else points, np.float32))
        return max(a, b), min(a, b)

    def _difference(self, first: Mask, second: Mask, p: Pixel, q: Pixel) -> tuple[float, float]:
        """Lab distance and height step (m) between strips on both sides of the cut."""
        near, core = np.zeros(first.shape, np.uint8), np.zeros(first.shape, np.uint8)
        cv2.line(near, p, q, 1, 2 * _NEAR_CUT_PX)
        cv2.line(core, p, q, 1, 5)
        strip = near.astype(bool) & ~core.astype(bool)
        colours, heights = [], []
        for part in (first & strip, second & strip):
            known = part & self._valid
            if known.sum() < 8:
                return 0.0, 0.0
            colours.append(np.median(self._lab[part], axis=0))
            heights.append(float(np.median(self._height[known])))
        delta = (colours[0] - colours[1]) * np.array([0.5, 1.0, 1.0])  # lightness is also shading
        return float(np.linalg.norm(delta)), abs(heights[0] - heights[1])


def _groups(pixels: Floats) -> Iterator[NDArray[np.bool_]]:
    """Which of the pixels (N, 3) are of one colour, and which are not: of two means and of three, begun at the median
    and at what is farthest from all that came before."""
    centres = np.median(pixels, axis=0)[None]
    for count in (2, 3):
        gaps = np.linalg.norm(pixels[:, None] - centres, axis=-1).min(1)
        far = pixels[gaps >= np.percentile(gaps, 97)]  # one pixel may be noise
        centres = np.concatenate([centres, np.median(far, axis=0)[None]])
        nearest = np.zeros(len(pixels), int)
        for _ in range(5):
            nearest = np.linalg.norm(pixels[:, None] - centres, axis=-1).argmin(1)
            centres = np.stack([pixels[nearest == k].mean(0) if (nearest == k).any() else centres[k]
                                for k in range(count)])  # fmt: skip
        for k in range(count):
            mine = nearest == k
            if 0.05 < mine.mean() < 0.95 and np.linalg.norm(centres[k] - pixels[~mine].mean(0)) > _APART:
                yield mine


def _beside(part: Mask, p: Pixel, q: Pixel, length: float) -> tuple[float, float]:
    """Width (px, along the cut) of a part a little away from the cut p q, and how far it reaches from it."""
    direction = np.array([q[0] - p[0], q[1] - p[1]], float)
    direction /= np.linalg.norm(direction)
    rows, columns = np.nonzero(part)
    dx, dy = columns - p[0], rows - p[1]
    away = np.abs(dy * direction[0] - dx * direction[1])
    along = dx * direction[0] + dy * direction[1]
    strip = (away > 0.35 * length) & (away <= 0.35 * length + max(4.0, 0.25 * length))
    width = float(np.ptp(along[strip])) + 1.0 if strip.sum() > 4 else 1.0
    return width, float(away.max())


def _hues_apart(a: Array, b: Array) -> float:
    """0..1: two strong colours of different hue. Print is white or black far more often than of a second hue."""
    chroma = min(float(np.hypot(*a[1:])), float(np.hypot(*b[1:])))
    turn = abs((np.arctan2(a[2], a[1]) - np.arctan2(b[2], b[1]) + np.pi) % (2 * np.pi) - np.pi)
    return float(np.clip((chroma - 8.0) / 14.0, 0.0, 1.0) * np.clip((np.rad2deg(turn) - 15.0) / 30.0, 0.0, 1.0))


def _pixel(point: NDArray[np.int32]) -> Pixel:
    return int(point[0]), int(point[1])


def solidity(mask: Mask) -> float:
    """Area over the area of the convex hull, 0..1, both of the outlines through pixel centres."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return 0.0
    hull = float(cv2.contourArea(cv2.convexHull(np.concatenate(contours))))
    return sum(float(cv2.contourArea(contour)) for contour in contours) / hull if hull > 0 else 1.0


def _dents(contour: NDArray[np.int32]) -> list[int]:
    """Indices of the deepest points between the hull's corners, at most 8, the deepest first."""
    hull = cv2.convexHull(contour, returnPoints=False)
    hull = np.sort(hull.ravel())[::-1][:, None].astype(np.int32)
    if len(hull) < 4:
        return []
    try:
        defects = cv2.convexityDefects(contour, hull)
    except cv2.error:  # a contour that touches itself
        return []
    if defects is None:
        return []
    deep = [(int(d[3]), int(d[2])) for d in defects[:, 0] if d[3] / 256.0 > 2.5]
    return [index for _, index in sorted(deep, reverse=True)[:8]]


def _sides(mask: Mask, p: tuple[int, int], q: tuple[int, int]) -> tuple[Mask, Mask] | None:
    """The two parts that a cut leaves, its own pixels shared out; None when it does not part the mask."""
    blade = mask.astype(np.uint8)
    cv2.line(blade, p, q, 0, 2)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(blade, connectivity=4)
    if count < 3:
        return None
    order = np.argsort(stats[1:, cv2.CC_STAT_AREA])[::-1] + 1
    direction = np.array([-(q[1] - p[1]), q[0] - p[0]], float)
    rows, columns = np.nonzero(labels == order[1])
    side = np.sign(((columns - p[0]) * direction[0] + (rows - p[1]) * direction[1]).mean())
    r, c = np.nonzero(mask & (labels == 0))  # the blade's own pixels
    mine = np.sign((c - p[0]) * direction[0] + (r - p[1]) * direction[1]) == side
    second = labels == order[1]
    second[r[mine], c[mine]] = True
    return mask & ~second, second
