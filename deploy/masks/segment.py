"""The mask of the one object in a box, without weights: what stands out of the table and has the object's colours."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ...hardware.description import CameraDescription
from ...hardware.errors import BadInput
from ...hardware.geometry import apply
from ...hardware.rig import HEAD_D435
from ..planner.base import Box
from .appearance import Colours, Floats, bins_of, depth_noise_m, fit_plane, lab_of
from .base import Depth, Mask, Rgb, check_box

_TABLE_SLACK_M = 0.03  # a pixel whose height is within this by the calibration may be the table
_FLOOR_PER_M = 1.0  # density of depths that no surface explains


@dataclass(frozen=True)
class SegmentConfig:
    """How a box becomes a mask."""

    margin: float = 0.6
    """The surroundings that colours are compared with: this share of the box's sides on each side."""
    outside: float = 6.0
    """Log odds against pixels outside of the box, at twice ``slack_px``."""
    slack_px: float = 2.0
    """How far the object may reach out of the box, at 640 pixels of width."""
    tallest_m: float = 0.2
    """Objects are no taller than this."""
    smoothness: float = 2.0
    """Log odds that neighbours give each other."""
    rounds: int = 4
    """Estimates of colours and mask, in turn."""
    least_px: int = 12
    """A mask of fewer pixels is no object."""

    def __post_init__(self) -> None:
        if not (0.1 <= self.margin <= 3 and self.rounds >= 1 and self.tallest_m > 0 and self.least_px >= 1):
            raise BadInput(
                f"segment margin {self.margin}, rounds {self.rounds}, tallest_m {self.tallest_m}, least_px "
                f"{self.least_px}: expected 0.1..3, 1 or more, above 0, 1 or more."
            )
        if self.slack_px < 0 or self.smoothness < 0 or self.outside < 0:
            raise BadInput("segment slack_px, smoothness and outside are 0 or more.")


def table_depth(depth_m: Depth, around: Mask, camera: CameraDescription = HEAD_D435) -> Floats | None:
    """Depth (H, W) m of the table's plane by the pixels ``around``; None where they show no table.

    The calibration only chooses pixels that may be table; the plane itself is measured, since a milliradian of the
    camera's pose is a millimetre of height.
    """
    intrinsics = camera.intrinsics.scaled(depth_m.shape[1], depth_m.shape[0])
    rows, columns = np.nonzero(around & (depth_m > 0))
    z = depth_m[rows, columns].astype(float)
    rays = np.stack([(columns - intrinsics.cx) / intrinsics.fx, (rows - intrinsics.cy) / intrinsics.fy, z**0], -1)
    height = apply(camera.parent_T_camera, rays * z[:, None])[:, 2]
    low = np.abs(height) < _TABLE_SLACK_M
    chosen = np.zeros(depth_m.shape, bool)
    chosen[rows[low], columns[low]] = True
    return fit_plane(depth_m, chosen, camera)


def segment_box(
    rgb: Rgb,
    depth_m: Depth,
    box: Box,
    robot: Mask | None = None,
    config: SegmentConfig | None = None,
    camera: CameraDescription = HEAD_D435,
) -> Mask:
    """(H, W) mask of the object that fills ``box``. ``robot`` (H, W): pixels that are the robot's.

    Raises BadInput where nothing in the box differs from the table. Depth may be missing (0) anywhere, with colour
    alone left to tell.
    """
    config = config or SegmentConfig()
    height, width = depth_m.shape
    x0, y0, x1, y1 = check_box(box, height, width)
    pad_x, pad_y = round(config.margin * (x1 - x0)) + 8, round(config.margin * (y1 - y0)) + 8
    wx0, wy0, wx1, wy1 = max(0, x0 - pad_x), max(0, y0 - pad_y), min(width, x1 + pad_x), min(height, y1 + pad_y)
    cut = np.s_[wy0:wy1, wx0:wx1]
    free = np.ones(depth_m[cut].shape, bool) if robot is None else ~robot[cut]
    in_box = np.zeros(depth_m.shape, bool)
    in_box[y0:y1, x0:x1] = True
    around = np.zeros(depth_m.shape, bool)
    around[cut] = free & ~in_box[cut]
    plane = table_depth(depth_m, around, camera)
    if plane is None:  # the surroundings hold too little table: all of the picture may
        plane = table_depth(depth_m, ~in_box if robot is None else ~in_box & ~robot, camera)
    stands_out = np.zeros(free.shape, np.float32) if plane is None else _above(depth_m[cut], plane[cut], config, camera)
    near = cv2.distanceTransform((~in_box[cut]).astype(np.uint8), cv2.DIST_L2, 3)
    slack = max(config.slack_px * width / 640, 0.5)
    prior = np.where(near > 0, -config.outside * np.clip(near / (2 * slack), 0, 1), 0.5).astype(np.float32)
    prior[~free] = -20.0
    mask = _refine(bins_of(lab_of(rgb[cut])), stands_out, prior, in_box[cut] & free, free, config)
    if mask.sum() < config.least_px:
        raise BadInput(
            f"the box {tuple(round(float(v), 1) for v in box)} holds no object: nothing in it stands out of the table "
            "or differs in colour. Ground again, or draw the box around the object."
        )
    out = np.zeros(depth_m.shape, bool)
    out[cut] = mask
    return out


def _above(depth_m: Floats, plane_m: Floats, config: SegmentConfig, camera: CameraDescription) -> Floats:
    """Log odds that a pixel is above the table rather than the table, by its depth."""
    sigma = np.sqrt(depth_noise_m(plane_m, camera) ** 2 + np.float32(1.5e-3) ** 2)
    rise = plane_m - depth_m
    table = np.exp(-0.5 * np.square(rise / sigma)) / (sigma * np.float32(2.5066))
    above = np.where((rise > -2 * sigma) & (rise < config.tallest_m), np.float32(1 / config.tallest_m), 0)
    odds = np.log((above + _FLOOR_PER_M) / (table + _FLOOR_PER_M))
    return np.where(depth_m > 0, np.clip(odds, -3, 3), 0).astype(np.float32)


def _refine(
    bins: NDArray[np.int32], depth_odds: Floats, prior: Floats, in_box: Mask, free: Mask, config: SegmentConfig
) -> Mask:
    """Colours of object and surroundings from the mask, the mask from colours, depth and its neighbours, in turn."""
    seed = in_box & (depth_odds > 1.0)
    if seed.sum() < max(config.least_px, 0.05 * in_box.sum()):  # flat, or no depth: the middle of the box
        middle = np.zeros(in_box.shape, np.float32)
        rows, columns = np.flatnonzero(in_box.any(1)), np.flatnonzero(in_box.any(0))
        if not len(rows):
            return np.zeros(in_box.shape, bool)
        centre, axes = (columns.mean(), rows.mean()), (0.35 * len(columns), 0.35 * len(rows))
        cv2.ellipse(middle, (round(centre[0]), round(centre[1])), (round(axes[0]), round(axes[1])), 0, 0, 360, 1, -1)
        seed = (middle > 0) & in_box
    mask = seed
    belief = np.zeros(in_box.shape, np.float32)
    for _ in range(config.rounds):
        inside, outside = Colours(), Colours()
        inside.add(bins[mask])
        outside.add(bins[free & ~mask])
        colour = np.clip(np.log(inside.likelihood(bins) / outside.likelihood(bins)), -3, 3)
        odds = colour + depth_odds + prior
        belief = odds
        for _ in range(3):
            pull = cv2.GaussianBlur(np.tanh(0.5 * belief), (0, 0), 1.0)
            belief = odds + config.smoothness * pull
        mask = belief > 0
        if mask.sum() < config.least_px:
            return np.zeros(in_box.shape, bool)
    return main_part(mask)


def main_part(mask: Mask, share: float = 0.25) -> Mask:
    """The largest connected part, others of at least ``share`` of its size, and the holes in them."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    if count < 2:
        return mask
    areas = stats[1:, cv2.CC_STAT_AREA]
    kept = np.isin(labels, 1 + np.flatnonzero(areas >= share * areas.max()))
    outlines, tree = cv2.findContours(kept.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    limit = 0.35 * areas.max()  # the floor of a bowl is hardly above the table; a wide ring keeps its hole
    out = kept.astype(np.uint8)
    for outline, links in zip(outlines, tree[0], strict=True):
        if links[3] >= 0 and cv2.contourArea(outline) < limit:
            cv2.drawContours(out, [outline], -1, 1, -1)
    return out.astype(bool)
