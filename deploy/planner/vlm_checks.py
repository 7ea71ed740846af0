"""Whether a box can be that of an object on the table: inside the picture, of a sensible size, something under it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..table import PlaneDepth, plane_in
from .base import Box
from .vlm_config import VlmConfig

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


def table_depth(depth_m: NDArray[np.float32], seed: int = 0) -> PlaneDepth | None:
    """The plane on which most of the picture lies; None where less than a quarter of it lies on one."""
    plane = plane_in(depth_m, _NEAR_PLANE_M, seed=seed)
    return plane if plane is not None and plane.share >= _TABLE_SHARE else None
