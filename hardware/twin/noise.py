"""What a stereo depth camera does to true depth: disparity noise, quantisation, holes.

The noise lives in disparity, d = f B / Z: a deviation of s pixels there gives sigma_z = Z^2 s / (f B), about 1.5 mm
at 0.6 m for the D435 and 0.46 mm at 0.2 m for the D405 (s = 0.08 px). Pixels that only one of the two imagers sees
have no depth: the shadow on the side of a near object's edge. Matching fails near depth edges too.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ..description import CameraDescription
from ..values import Intrinsics

Depth = NDArray[np.float32]  # (H, W) m, 0 = invalid

EDGE_STEP = 0.03  # relative depth change between neighbours that counts as an edge
EDGE_HOLES = 0.5  # part of edge pixels without a match
SPECKLE_HOLES = 0.001  # part of all pixels without a match


def measured_depth(depth_m: Depth, camera: CameraDescription, intrinsics: Intrinsics, rng: Generator) -> Depth:
    """True z depth (H, W) m of the colour view -> what the camera would report, quantised to its depth unit.

    ``intrinsics`` are those of the view that the depth is aligned to; the noise uses the depth imager's own focal
    length. Returns a new array; 0 marks pixels without depth.
    """
    true = np.asarray(depth_m, np.float32)
    seen = (true >= camera.near_m) & (true <= camera.far_m)
    safe = np.where(seen, true, np.float32(camera.far_m))
    focal_baseline = np.float32(camera.depth_focal_px * camera.baseline_m)
    disparity = focal_baseline / safe
    seen &= ~_shadow(safe, intrinsics.fx * camera.baseline_m)
    uniform = rng.random(true.shape, dtype=np.float32)
    seen &= uniform >= np.where(_edges(safe), np.float32(EDGE_HOLES), np.float32(SPECKLE_HOLES))
    disparity += np.float32(camera.disparity_noise_px) * rng.standard_normal(true.shape, dtype=np.float32)
    unit = np.float32(camera.depth_unit_m)
    with np.errstate(divide="ignore"):
        counts = np.rint(focal_baseline / (disparity * unit))
    measured = counts * unit
    seen &= (disparity > 0) & (measured >= camera.near_m) & (measured <= camera.far_m)
    return np.where(seen, measured, np.float32(0.0))


def _shadow(depth_m: Depth, focal_baseline: float) -> NDArray[np.bool_]:
    """(H, W) True where the second imager, a baseline to the right, cannot see the point: something nearer, further
    right, lies in its way."""
    columns = np.arange(depth_m.shape[1], dtype=np.float32)
    in_second = columns - np.float32(focal_baseline) / depth_m
    nearest_from_right = np.minimum.accumulate(in_second[:, ::-1], axis=1)[:, ::-1]
    hidden = np.zeros(depth_m.shape, bool)
    # A quarter of a pixel of slack: neighbours on one slanted surface may touch but do not hide each other.
    hidden[:, :-1] = nearest_from_right[:, 1:] < in_second[:, :-1] - np.float32(0.25)
    return hidden


def _edges(depth_m: Depth) -> NDArray[np.bool_]:
    """(H, W) True on both sides of a depth step, along rows and columns."""
    out = np.zeros(depth_m.shape, bool)
    across = np.abs(np.diff(depth_m, axis=1)) > EDGE_STEP * depth_m[:, 1:]
    down = np.abs(np.diff(depth_m, axis=0)) > EDGE_STEP * depth_m[1:]
    out[:, 1:] |= across
    out[:, :-1] |= across
    out[1:] |= down
    out[:-1] |= down
    return out
