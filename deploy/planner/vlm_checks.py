"""Whether a box can be that of an object on the table: inside the picture, of a sensible size, something under it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .base import Box
from .vlm_config import VlmConfig

_SAMPLES = 3000  # pixels that the table's plane is fitted to
_TRIALS = 120  # planes through three of them
_NEAR_PLANE_M = 0.006  # an inlier's distance: depth noise of a D435 at 0.9 m
_TABLE_SHARE = 0.25  # of the valid pixels must lie on a plane before it is taken for the table
_NOISES = 2.5  # standard deviations of the table's own depth noise that something must rise above
_RAISED_SHARE = 0.05  # of a box's valid pixels must stand above the table
_OVERSHOOT = 0.02  # of a side, by which a box may leave the picture and be clipped
_MIN_SIDE_PX = 4.0


@dataclass(frozen=True)
class Checked:
    """A box clipped to the picture, or what is wrong with it in words that the model is told."""

    box: Box | None
    fault: str = ""


def check_box(box: Box, depth_m: NDArray[np.float32], config: VlmConfig) -> Checked:
    """``box`` in pixels of the head picture; ``depth_m`` (H, W), 0 = invalid, aligned with it."""
    height, width = depth_m.shape
    x0, y0, x1, y1 = box
    slack_x, slack_y = _OVERSHOOT * width, _OVERSHOOT * height
    if not all(np.isfinite(box)):
        return Checked(None, "its numbers are not finite")
    if x0 < -slack_x or y0 < -slack_y or x1 > width + slack_x or y1 > height + slack_y:
        beyond = f"x {x0 / width:.2f} to {x1 / width:.2f}, y {y0 / height:.2f} to {y1 / height:.2f} of the sides"
        return Checked(None, f"it leaves the picture ({beyond})")
    x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
    if x1 - x0 < _MIN_SIDE_PX or y1 - y0 < _MIN_SIDE_PX:
        return Checked(None, "one of its sides is next to nothing")
    share = (x1 - x0) * (y1 - y0) / (width * height)
    if not config.min_box_share <= share <= config.max_box_share:
        return Checked(
            None,
            f"it covers {share:.2%} of the picture, where an object covers {config.min_box_share:.2%} to "
            f"{config.max_box_share:.0%}",
        )
    fault = _depth_fault((x0, y0, x1, y1), depth_m, config)
    return Checked(None, fault) if fault else Checked((x0, y0, x1, y1))


def _depth_fault(box: Box, depth_m: NDArray[np.float32], config: VlmConfig) -> str:
    x0, y0, x1, y1 = (round(v) for v in box)
    inside = depth_m[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]
    valid = np.isfinite(inside) & (inside > 0)
    if valid.mean() < config.min_depth_share:
        return f"the depth camera sees nothing under {1 - valid.mean():.0%} of it"
    if config.min_above_table_m == 0:
        return ""
    table = table_depth(depth_m)
    if table is None:  # no plane to be seen, for example behind the arm: nothing to hold against the box
        return ""
    rows, columns = np.nonzero(valid)
    gap_m = table(columns + x0, rows + y0) - inside[valid]
    # Every part of a noisy table is nearer than its plane somewhere: only what is clearly so stands on it.
    least_m = max(config.min_above_table_m, _NOISES * table.noise_m)
    if (gap_m > least_m).mean() < _RAISED_SHARE:
        return "nothing stands above the table in it"
    return ""


@dataclass(frozen=True)
class PlaneDepth:
    """A plane as a pinhole camera sees it: 1 / z = a u + b v + c, whatever the intrinsics are."""

    coefficients: NDArray[np.float64]  # (3,) 1/m per pixel, 1/m per pixel, 1/m
    noise_m: float = 0.0  # standard deviation of the depth of what lies on it

    def __call__(self, u: NDArray[np.integer], v: NDArray[np.integer]) -> NDArray[np.float64]:
        """Depth in m of the plane at pixels (u, v); infinite where it does not cross the ray."""
        inverse = u * self.coefficients[0] + v * self.coefficients[1] + self.coefficients[2]
        return np.where(inverse > 1e-6, 1.0 / np.maximum(inverse, 1e-6), np.inf)


def table_depth(depth_m: NDArray[np.float32], seed: int = 0) -> PlaneDepth | None:
    """The plane on which most of the picture lies; None where less than a quarter of it lies on one."""
    rows, columns = np.nonzero(np.isfinite(depth_m) & (depth_m > 0))
    if len(rows) < 100:
        return None
    rng = np.random.default_rng(seed)
    some = rng.choice(len(rows), min(_SAMPLES, len(rows)), replace=False)
    u, v = columns[some].astype(float), rows[some].astype(float)
    z = depth_m[rows[some], columns[some]].astype(float)
    points = np.stack([u, v, np.ones_like(u)], -1)  # (n, 3)
    triples = rng.integers(0, len(z), (_TRIALS, 3))
    corners = points[triples]  # (trials, 3, 3)
    sound = np.abs(np.linalg.det(corners)) > 100.0  # twice the triangle's area in pixels: no slivers
    if not sound.any():
        return None
    planes = np.linalg.solve(corners[sound], (1.0 / z[triples[sound]])[..., None])[..., 0]  # (m, 3)
    inverse = np.maximum(planes @ points.T, 1e-6)
    votes = (np.abs(1.0 / inverse - z) < _NEAR_PLANE_M).sum(-1)
    best: NDArray[np.float64] = planes[int(votes.argmax())]
    noise_m = 0.0
    for _ in range(2):  # least squares over the inliers, twice: three noisy pixels make a slanted plane
        near = np.abs(1.0 / np.maximum(points @ best, 1e-6) - z) < _NEAR_PLANE_M
        if near.mean() < _TABLE_SHARE:
            return None
        best = np.linalg.lstsq(points[near], 1.0 / z[near], rcond=None)[0]
        off = np.abs(1.0 / np.maximum(points[near] @ best, 1e-6) - z[near])
        noise_m = 1.4826 * float(np.median(off))  # of a normal distribution, whatever else is among the inliers
    return PlaneDepth(best, noise_m)
