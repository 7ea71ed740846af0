"""What is measured of a thing on the table, to tell its colour and kind (``recognition.py``).

Everything is a number that a depth camera above the table can tell: sides and profile of the points, what lies on top,
and how much of each of the palette's colours is seen, over all and on the sides: a jar's colour is under its lid.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .cuts import solidity
from .fitted import Palette
from .light import Light
from .segments import Cluster

Array = NDArray[np.float64]
Floats = NDArray[np.float32]

_LAB_WEIGHT = np.array([0.5, 1.0, 1.0], np.float32)  # lightness is also shading
_SOFT = 5.0  # Lab distance over which one colour gives way to another
_BINS = 6  # of the profile along the longer side
_FEW = 1500  # points that measures are taken of


def shares(lab: Floats, centres: Floats) -> Array:
    """Part of the pixels (N, 3) Lab that is nearest to each of the centres (C, 3), softly. Adds up to 1."""
    if len(lab) == 0:
        return np.full(len(centres), 1.0 / len(centres))
    few = lab[:: max(1, len(lab) // 800)]
    distance = np.linalg.norm((few[:, None] - centres) * _LAB_WEIGHT, axis=-1)  # (n, C)
    weight = np.exp(-(distance - distance.min(1, keepdims=True)) / _SOFT)
    return np.asarray((weight / weight.sum(1, keepdims=True)).mean(0), float)


@dataclass(frozen=True)
class Measures:
    """One thing, measured."""

    length_m: float  # of its footprint
    width_m: float
    fill: float  # footprint area over that of its smallest rectangle: 0.79 a disc, 1 a rectangle
    convexity: float  # of its outline, 0..1
    hollow_m: float  # how far its middle lies below its rim
    words: Array  # (W,) part of its surface in each colour word; adds up to 1
    of_colour: Array  # (2 C + 18,) what the colour is told from
    of_kind: Array  # (25 + W,) what the kind is told from


def measure(cluster: Cluster, lab: Floats, light: Light, palette: Palette) -> Measures:
    """``lab`` (H, W, 3) of the picture as under even light."""
    length_m, width_m, fill = rectangle(_trimmed(cluster.points[:, :2]))
    convexity, hollow_m = solidity(cluster.mask), _hollow(cluster)
    inner = _inner(cluster, lab)
    over_all = shares(inner, palette.centres)
    words = palette.by_word(over_all)
    high = cluster.height_m > 0.8 * cluster.top_m
    seen = lab.reshape(-1, 3)[cluster.pixels]
    beside = seen[~high] if (~high).sum() >= 30 else seen
    medians = np.concatenate([np.median(pixels, axis=0) for pixels in (inner, beside)]) / 50.0
    rest = [light.level, float(high.mean()), min(cluster.top_m / 0.1, 2.0), *light.at(cluster.centroid_m)]
    of_kind = np.concatenate([_build(cluster, length_m, width_m, fill, convexity, hollow_m), words])
    return Measures(
        length_m, width_m, fill, convexity, hollow_m, words,
        np.concatenate([over_all, shares(beside, palette.centres), rest, medians]), of_kind,
    )  # fmt: skip


def _build(cluster: Cluster, length_m: float, width_m: float, fill: float, convexity: float, hollow_m: float) -> Array:
    """(25,) Sides in logarithms, what lies on top, and profiles as shares of the sides."""
    step = max(1, len(cluster.points) // _FEW)
    xy, height = cluster.points[::step, :2].astype(float), cluster.height_m[::step].astype(float)
    top = max(cluster.top_m, 1e-3)
    sides = np.maximum([length_m, width_m, top], 1e-3)
    cap = height > top - max(0.010, 0.12 * top)
    cap_long, cap_wide, cap_fill = rectangle(xy[cap]) if cap.sum() >= 6 else (0.0, 0.0, 0.0)
    widths, heights = _profile(xy, height)
    return np.concatenate(
        [
            np.log(sides), np.log(np.sort(sides)), [fill, convexity, min(hollow_m / 0.03, 2.0)],
            [cap_long / sides[0], cap_wide / sides[1], cap_fill, float(cap.mean())],
            widths / sides[1], heights / top,
        ]
    )  # fmt: skip


def rectangle(xy: NDArray[np.floating]) -> tuple[float, float, float]:
    """Length and width (m) of the smallest rectangle around points (N, 2), and the part of it that their hull fills;
    the outermost hundredth on every side, which stereo throws out, is left aside."""
    if len(xy) < 3:
        return 0.0, 0.0, 0.0
    flat = np.ascontiguousarray(xy, np.float32)
    _, _, angle_deg = cv2.minAreaRect(cv2.convexHull(flat))
    cos, sin = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    turned = flat @ np.array([[cos, -sin], [sin, cos]], np.float32)
    low, high = np.percentile(turned, [1, 99], axis=0)
    inside = turned[((turned >= low) & (turned <= high)).all(1)]
    a, b = (high - low).tolist()
    fill = float(cv2.contourArea(cv2.convexHull(inside))) / max(a * b, 1e-9) if len(inside) > 2 else 0.0
    return max(a, b), min(a, b), fill


def _profile(xy: Array, height: Array) -> tuple[Array, Array]:
    """Width and median height (bins,) m along the longer axis, the broader half first."""
    middle = np.median(xy, axis=0)
    axes = np.linalg.eigh(np.cov((xy - middle).T))[1] if len(xy) > 3 else np.eye(2)
    along, across = (xy - middle) @ axes[:, 1], (xy - middle) @ axes[:, 0]
    low, high = np.percentile(along, [2, 98])
    place = np.clip(((along - low) / max(high - low, 1e-6) * _BINS).astype(int), 0, _BINS - 1)
    widths, heights = np.zeros(_BINS), np.zeros(_BINS)
    for k in range(_BINS):
        inside = place == k
        if inside.sum() >= 3:
            widths[k] = np.ptp(np.percentile(across[inside], [5, 95]))
            heights[k] = np.median(height[inside])
    if widths[: _BINS // 2].sum() < widths[_BINS // 2 :].sum():
        return widths[::-1], heights[::-1]
    return widths, heights


def _inner(cluster: Cluster, lab: Floats) -> Floats:
    """(N, 3) its pixels' colours without the outermost, which mix with the table."""
    x0, y0, x1, y1 = (int(v) for v in cluster.box)
    mask = cluster.mask[y0:y1, x0:x1]
    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0).astype(bool)
    return np.asarray(lab[y0:y1, x0:x1][inner if inner.sum() >= 30 else mask])


def _trimmed(points: Floats) -> Floats:
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
