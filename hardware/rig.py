"""The DexGraspVLA rig: where its arm, cameras, table, column and bin stand.

The mounting is not published. It is inferred from the three poses that are (start, placement, return) and from a
reach study: ``docs/decisions/10-mounting.md``. Lengths in m, angles in rad, world frame: origin on the table top in
front of the column, x away from the column, y left, z up.
"""

from __future__ import annotations

import numpy as np

from .description import GO_R, RM75_6F, ArmMount, CameraDescription, RigDescription
from .geometry import Array, Transform, rot_y, rot_z, transform
from .values import Intrinsics

SHOULDER_M = np.array([0.28, -0.17, 0.55])  # joints 1-3 cross here; everything within 0.466 m of it is the wrist's
BASE_TO_SHOULDER_M = RM75_6F.links[0].origin_m[2]

# The base leans 45 deg forward, 30 deg to the left of straight ahead, and is turned 45 deg about its own axis. Then
# start has the hand off to the right and high, return and placement have it 18-25 deg off vertical over the bin.
_LEAN_RAD, _HEADING_RAD, _SPIN_RAD = np.deg2rad(45), np.deg2rad(30), np.deg2rad(45)
# Palm x = flange z. At this turn the palm faces left (to the workspace) with the index side up at the start pose and
# faces left over the bin: a right hand's natural attitude in both, and 120 deg from the nearest limit of joint 7.
_PALM_TURN_RAD = np.deg2rad(240)


def look_at(eye: Array, target: Array, up: Array) -> Transform:
    """parent_T_camera (OpenCV: +z to the target, +y down) of a camera at ``eye``, (3,) m each, in the parent."""
    eye, target, up = (np.asarray(v, float) for v in (eye, target, up))
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, up)
    right = right / np.linalg.norm(right)
    return transform(np.stack([right, np.cross(forward, right), forward], -1), eye)


def _world_T_base() -> Transform:
    rotation = rot_z(_HEADING_RAD) @ rot_y(_LEAN_RAD) @ rot_z(_SPIN_RAD)
    return transform(rotation, SHOULDER_M - BASE_TO_SHOULDER_M * rotation[:, 2])


def _flange_T_palm() -> Transform:
    palm_x = np.array([0.0, 0.0, 1.0])
    palm_z = -np.array([np.cos(_PALM_TURN_RAD), np.sin(_PALM_TURN_RAD), 0.0])  # the palm faces -z
    return transform(np.stack([palm_x, np.cross(palm_z, palm_x), palm_z], -1))


FLANGE_T_PALM = _flange_T_palm()

HEAD_D435 = CameraDescription(
    name="head",
    model="D435",
    parent="world",
    parent_T_camera=look_at(np.array([0.08, 0.09, 0.86]), np.array([0.37, -0.05, 0.03]), np.array([1.0, 0.0, 0.0])),
    intrinsics=Intrinsics(640, 480, 610.0, 610.0, 319.5, 239.5),
    baseline_m=0.050,
    depth_unit_m=0.001,
    near_m=0.175,
    far_m=3.0,
    depth_focal_px=383.0,
)

WRIST_D405 = CameraDescription(
    name="wrist",
    model="D405",
    parent="flange",
    # On the little finger's side, looking between fingers and opposed thumb: there it is no lower than the palm when
    # the hand wraps from above.
    parent_T_camera=FLANGE_T_PALM
    @ look_at(np.array([-0.04, -0.05, -0.075]), np.array([0.15, 0.0, -0.035]), np.array([0.0, 0.0, 1.0])),
    intrinsics=Intrinsics(640, 480, 386.0, 386.0, 319.5, 239.5),
    baseline_m=0.018,
    depth_unit_m=0.0001,
    near_m=0.070,
    far_m=1.0,
    depth_focal_px=386.0,
)

DEXGRASPVLA_RIG = RigDescription(
    name="dexgraspvla",
    arms=(ArmMount("right", RM75_6F, GO_R, _world_T_base(), FLANGE_T_PALM),),
    cameras=(HEAD_D435, WRIST_D405),
    table_box_m=(0.0, 0.95, -0.28, 0.60, -0.03, 0.0),
    object_area_m=(0.20, 0.60, -0.25, 0.25),
    column_box_m=(-0.14, -0.02, -0.06, 0.06, -0.75, 0.95),
    bin_center_m=(0.27, -0.435, -0.17),
    bin_size_m=(0.36, 0.28, 0.19),
    workspace_m=(0.0, 0.90, -0.95, 0.50, 0.0, 0.95),
)
