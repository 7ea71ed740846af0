"""What the rig is made of: the tables that kinematics, twin, safety and retargeting are all built from.

Sources: RealMan's RM75 parameters and RM75-6F model (two typos of the published URDF mended: link 3's COM y, link 7's
mass), OYMotion ROH-A001 geometry for the PsiBot GO-R hand (an inference: see ``docs/conventions.md``), Intel's
data sheets for the cameras. Metres, radians, kilograms unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .geometry import Transform, rot_x, transform
from .values import Intrinsics

Array = NDArray[np.float64]
Vec3 = tuple[float, float, float]
MM = 1e-3


@dataclass(frozen=True)
class ArmLink:
    """One moving link and the joint that carries it; the joint turns about the link's own z."""

    joint: str
    origin_m: Vec3  # joint origin in the parent link
    origin_roll_rad: float  # turn about the parent's x before the joint
    limit_rad: float  # symmetric
    speed_rad_s: float
    effort_nm: float
    mass_kg: float
    com_mm: Vec3
    inertia_kg_mm2: tuple[float, float, float, float, float, float]  # about COM: xx, xy, xz, yy, yz, zz
    box_mm: tuple[float, float, float, float, float, float]  # x0, x1, y0, y1, z0, z1 in the link frame


@dataclass(frozen=True)
class ArmDescription:
    """A serial arm. ``links[i]`` moves with joint i; the flange is the last link's origin, +z outward."""

    name: str
    base_mass_kg: float
    base_com_mm: Vec3
    base_inertia_kg_mm2: tuple[float, float, float, float, float, float]
    base_box_mm: tuple[float, float, float, float, float, float]
    links: tuple[ArmLink, ...]
    command_rate_hz: float
    acceleration_rad_s2: float

    @property
    def joints(self) -> tuple[str, ...]:
        return tuple(link.joint for link in self.links)

    @property
    def limits(self) -> Array:
        """(n, 2) rad, lower and upper."""
        upper = np.array([link.limit_rad for link in self.links])
        return np.stack([-upper, upper], -1)

    @property
    def speeds(self) -> Array:
        """(n,) rad/s."""
        return np.array([link.speed_rad_s for link in self.links])


def _link(
    number: int,
    origin_m: Vec3,
    roll_deg: float,
    limit_deg: float,
    speed_deg_s: float,
    effort_nm: float,
    mass_kg: float,
    com_mm: Vec3,
    inertia: tuple[float, float, float, float, float, float],
    box_mm: tuple[float, float, float, float, float, float],
) -> ArmLink:
    rad = np.pi / 180
    joint = f"arm_joint_{number}"
    return ArmLink(
        joint, origin_m, roll_deg * rad, limit_deg * rad, speed_deg_s * rad, effort_nm, mass_kg, com_mm, inertia, box_mm
    )


RM75_6F = ArmDescription(
    name="rm75_6f",
    base_mass_kg=1.862,
    base_com_mm=(0.50, 0.05, 60.02),
    base_inertia_kg_mm2=(1723, -3.1, -37.9, 1705, 1.4, 902),
    base_box_mm=(-59, 59, -55, 55, 0, 138.5),
    links=(
        _link(1, (0, 0, 0.2405), 0, 178, 180, 60, 1.574, (0.241, -13.273, -9.950),
              (2487.5, 9.67, -7.91, 2321.0, 179.4, 1450.5), (-41, 41, -68, 41, -102, 40.5)),
        _link(2, (0, 0, 0), -90, 130, 180, 60, 1.217, (-0.357, -106.798, 5.329),
              (3488.8, 2.91, -5.61, 892.7, -584.1, 3438.7), (-40.5, 40.5, -152.5, 40.5, -35, 47)),
        _link(3, (0, -0.256, 0), 90, 178, 225, 30, 1.110, (0.003, -10.398, -11.324),
              (1836.7, 2.26, -4.22, 1498.9, 37.2, 1062.5), (-35, 35, -67, 35, -103.5, 34)),
        _link(4, (0, 0, 0), -90, 135, 225, 30, 0.685, (-0.005, -84.658, 4.747),
              (1279.8, -0.53, -0.63, 373.0, -232.2, 1253.5), (-34, 34, -128.5, 34, -29, 45)),
        _link(5, (0, -0.21, 0), 90, 178, 225, 10, 0.619, (0.078, -12.937, -8.781),
              (627.3, 1.64, -1.35, 542.4, 35.0, 370.3), (-29, 29, -54, 29, -81.5, 28.5)),
        _link(6, (0, 0, 0), -90, 128, 225, 10, 0.602, (-0.014, -78.524, 2.819),
              (783.1, -0.14, -0.47, 290.0, -120.4, 766.3), (-28.6, 28.6, -115, 28.5, -28.5, 40)),
        _link(7, (0, -0.1725, 0), 90, 360, 225, 10, 0.248, (-0.426, 0.237, -27.223),
              (125.0, -3.81, 1.41, 120.8, -0.71, 122.6), (-28.5, 35.7, -37, 29.4, -57.5, 0)),
    ),
    command_rate_hz=100.0,
    acceleration_rad_s2=float(np.deg2rad(600)),
)  # fmt: skip


@dataclass(frozen=True)
class Finger:
    """A finger of two phalanges whose PIP angle is a polynomial of its MCP angle p."""

    name: str
    mcp_mm: Vec3  # pivot in the hand frame
    axis: Vec3  # positive angle bends towards the palm (-z)
    proximal_mm: float
    distal_mm: float  # PIP to tip, along the finger
    pip_poly: Vec3  # rad: c0 + c1 p + c2 p^2, never below 0
    mcp_range_rad: tuple[float, float] = (0.0, 1.44)


@dataclass(frozen=True)
class Thumb:
    """Rotation about the palm, then bend with a coupled distal joint."""

    rotation_pivot_mm: Vec3
    rotation_axis: Vec3
    rotation_range_rad: tuple[float, float]
    bend_pivot_mm: Vec3
    bend_axis: Vec3
    bend_range_rad: tuple[float, float]
    proximal_mm: float
    distal_mm: float
    distal_ratio: float  # distal angle = ratio x bend
    # Unit vector from the bend pivot to the distal pivot at rotation 0 and bend 0 (both phalanges are then in line).
    # From the ROH-A001's published model at its open end stop, made square to the bend axis.
    direction: Vec3 = (0.8799, 0.4205, -0.2212)


@dataclass(frozen=True)
class HandDescription:
    """Hand frame (``palm``): origin at the wrist, x distal, y to the index side, the palm faces -z (right hand)."""

    name: str
    motors: tuple[str, ...]
    fingers: tuple[Finger, ...]
    thumb: Thumb
    palm_box_mm: tuple[float, float, float, float, float, float]
    phalanx_width_mm: float
    mass_kg: float
    tip_force_n: float  # at a bent fingertip, thumb alike
    closing_speed_rad_s: float
    stroke_s: float
    command_rate_hz: float
    state_rate_hz: float


GO_R = HandDescription(
    name="go_r",
    motors=("thumb_bend", "index", "middle", "ring", "little", "thumb_rotation"),
    fingers=(
        Finger("index", (115.1, 37.6, 2.1), (-0.083, 0.993, -0.087), 35.9, 50.8, (-0.122, 1.264, -0.086)),
        Finger("middle", (118.9, 17.6, 7.0), (-0.012, 1.0, 0.0), 41.0, 50.8, (-0.121, 1.244, -0.072)),
        Finger("ring", (116.6, -2.4, 6.2), (0.056, 0.998, 0.0), 35.9, 50.8, (-0.122, 1.264, -0.086)),
        Finger("little", (113.3, -22.6, 4.3), (0.118, 0.989, 0.087), 31.9, 36.3, (-0.142, 1.456, -0.200)),
    ),
    thumb=Thumb(
        rotation_pivot_mm=(49.1, 19.9, -23.0),
        rotation_axis=(-0.976, -0.013, 0.217),
        rotation_range_rad=(0.0, 1.57),
        bend_pivot_mm=(51.0, 41.8, -31.7),
        bend_axis=(-0.22, -0.05, -0.97),
        bend_range_rad=(0.0, float(np.deg2rad(30.7))),
        proximal_mm=52.9,
        distal_mm=28.0,
        distal_ratio=1.29,
    ),
    palm_box_mm=(-1.6, 129.5, -40.0, 42.0, -31.0, 29.5),
    phalanx_width_mm=16.0,
    mass_kg=0.545,
    tip_force_n=10.0,
    closing_speed_rad_s=float(np.deg2rad(82.5)),
    stroke_s=1.0,
    command_rate_hz=60.0,
    state_rate_hz=60.0,
)

ARM_JOINTS = RM75_6F.joints
HAND_MOTORS = GO_R.motors


@dataclass(frozen=True)
class CameraDescription:
    """A RealSense camera and where it is mounted. Camera frame: OpenCV, +z forward."""

    name: str
    model: str
    parent: str  # "world" or "flange"
    parent_T_camera: Transform
    intrinsics: Intrinsics  # colour stream, 640x480
    baseline_m: float
    depth_unit_m: float
    near_m: float
    far_m: float
    disparity_noise_px: float = 0.08  # sigma_z = Z^2 s / (f B)
    depth_focal_px: float = 383.0


def link_origin(link: ArmLink) -> Transform:
    """parent_T_joint at joint angle 0, (4, 4)."""
    return transform(rot_x(link.origin_roll_rad), np.array(link.origin_m))


# The rig's own soft limits and poses (DexGraspVLA), rad.
RIG_LIMITS_RAD = (3.1, 2.268, 3.1, 2.355, 3.1, 2.233, 6.28)
START_ARM_Q = (0.369, -1.427, 0.325, -0.788, -1.787, 0.857, 2.337)
PLACE_ARM_Q = (0.952, -1.109, 0.301, -1.853, -2.636, 0.255, 2.439)
RETURN_ARM_Q = (0.586, -0.729, 0.208, -1.246, -2.824, 1.291, 2.687)
OPEN_HAND: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True)
class ArmMount:
    """One arm with its hand on the column."""

    side: str  # prefix of its names where there are two arms
    arm: ArmDescription
    hand: HandDescription
    world_T_base: Transform
    flange_T_palm: Transform


@dataclass(frozen=True)
class RigDescription:
    """Everything on the rig. World frame: origin on the table top, x away from the column, y left, z up."""

    name: str
    arms: tuple[ArmMount, ...]
    cameras: tuple[CameraDescription, ...]
    table_box_m: tuple[float, float, float, float, float, float]  # x0, x1, y0, y1, z0, z1
    object_area_m: tuple[float, float, float, float]  # x0, x1, y0, y1: where scenes put objects
    column_box_m: tuple[float, float, float, float, float, float]
    bin_center_m: Vec3  # of the bin's floor
    bin_size_m: Vec3  # inner length x, width y, depth z
    workspace_m: tuple[float, float, float, float, float, float] = field(default=(-0.2, 0.8, -0.8, 0.6, 0.0, 0.9))

    def camera(self, name: str) -> CameraDescription:
        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise KeyError(f"no camera {name!r}: the rig has {', '.join(c.name for c in self.cameras)}")
