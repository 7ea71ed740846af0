"""The table as a depth camera sees it: its plane, the height of every pixel above it, and the robot left out.

Frame: the rig's world (``docs/conventions.md``). The calibration is trusted to a degree and a few millimetres; what is
left of its error is taken up by the plane, which is fitted anew to every picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ...hardware.collision import CollisionModel
from ...hardware.description import CameraDescription, RigDescription
from ...hardware.errors import BadInput
from ...hardware.geometry import apply
from ...hardware.values import Intrinsics
from ..table import SAMPLES, refined, through_three
from .base import Look, PlannerError

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
_WIDE_PX = 480


@dataclass(frozen=True)
class TableConfig:
    """How the plane is found, and what stands out of it."""

    inlier_m: float = 0.010
    """Distance from the plane within which a point counts for it: three deviations of a D435 at 0.85 m."""
    search_m: float = 0.045
    """Points are looked for this far above and below where the calibration puts the table."""
    max_tilt_rad: float = 0.05
    """Largest angle between the plane and the calibration's; a wall of boxes is not a table."""
    rounds: int = 120
    """Planes through three points that are tried."""
    min_share: float = 0.15
    """Least part of the looked-at points that must lie in the plane."""
    edge_m: float = 0.008
    """The table is this much smaller on all sides, so that the bin's rim is not on it."""
    column_margin_m: float = 0.045
    """Points this near to the arm's column are the column's."""
    arm_margin_m: float = 0.030
    """Points within this distance of the capsules of the arm's links are the robot's: the housings bulge."""
    hand_margin_m: float = 0.010
    """The same for palm, fingers and wrist camera, which objects come close to."""

    def __post_init__(self) -> None:
        for name in (
            "inlier_m",
            "search_m",
            "max_tilt_rad",
            "edge_m",
            "column_margin_m",
            "arm_margin_m",
            "hand_margin_m",
        ):
            value = getattr(self, name)
            if not 0.0 < value <= 0.3:
                raise BadInput(f"TableConfig.{name} is {value}: expected more than 0 and at most 0.3")
        if self.rounds < 1 or not 0.0 < self.min_share < 1.0:
            raise BadInput(
                f"TableConfig.rounds is {self.rounds} and min_share {self.min_share}: expected at least 1 round and a "
                "share between 0 and 1"
            )


@dataclass(frozen=True)
class Plane:
    """All p with ``normal @ p = offset_m``; the normal is a unit vector that points up."""

    normal: Array  # (3,)
    offset_m: float

    def height(self, points: Array) -> Array:
        """(...,) m above the plane of (..., 3) m."""
        return points @ self.normal - self.offset_m

    @property
    def tilt_rad(self) -> float:
        """Angle between the plane and the world's horizontal."""
        return float(np.arccos(np.clip(self.normal[2], -1.0, 1.0)))


@dataclass(frozen=True)
class Table:
    """One depth picture made sense of. All arrays are of the head picture's size."""

    plane: Plane
    points: NDArray[np.float32]  # (H, W, 3) m, world; meaningless where not valid
    height_m: NDArray[np.float32]  # (H, W) m above the plane, smoothed; NaN where not valid
    valid: Mask  # (H, W) depth was measured
    on_table: Mask  # (H, W) valid, above or on the table top (from the side of the bin no closer than its rim)
    robot: Mask  # (H, W) valid and on the robot's own surface


def unproject(depth_m: NDArray[np.float32], intrinsics: Intrinsics) -> NDArray[np.float32]:
    """z depth (H, W) m -> points (H, W, 3) m in the camera frame."""
    rows, columns = np.indices(depth_m.shape, dtype=np.float32)
    x = (columns - intrinsics.cx) / intrinsics.fx * depth_m
    y = (rows - intrinsics.cy) / intrinsics.fy * depth_m
    return np.stack([x, y, depth_m], -1).astype(np.float32)


def fit_plane(points: Array, config: TableConfig | None = None, seed: int = 0) -> Plane:
    """The nearly horizontal plane that most of ``points`` (N, 3) m lie in: RANSAC, then least squares on its inliers.

    The same points give the same plane. Raises PlannerError where there is none.
    """
    config = config or TableConfig()
    if points.ndim != 2 or points.shape[1:] != (3,):
        raise BadInput(f"got points of shape {points.shape} for a plane, expected (N, 3)")
    if len(points) < 200:
        raise PlannerError(
            f"{len(points)} depth points near the table, expected hundreds: is the head camera covered, or depth off?"
        )
    drawn = np.random.default_rng(seed).choice(len(points), min(SAMPLES, len(points)), replace=False)
    few = points[drawn].astype(np.float64)
    # Nearly level: the height is linear in x and y, and its error is the distance from the plane but for 1 in 1000.
    terms, tolerance = np.column_stack([few[:, :2], np.ones(len(few))]), np.full(1, config.inlier_m)
    steepest = float(np.tan(2 * config.max_tilt_rad))
    start = through_three(terms, few[:, 2], tolerance, config.rounds, seed, steepest)
    if start is None:
        raise PlannerError("no plane near the calibrated table: is the head camera where the calibration says?")
    near = np.abs(terms @ start - few[:, 2]) < tolerance
    fit = refined(terms, few[:, 2], tolerance, near, (0.7, 0.7, 1.0))
    slope = fit.coefficients[:2] if fit is not None else start[:2]
    share, tilt = fit.share if fit is not None else 0.0, float(np.arctan(np.hypot(*slope)))
    if fit is None or share < config.min_share or tilt > config.max_tilt_rad:
        raise PlannerError(
            f"the best plane near the table holds {share:.0%} of the depth points at a tilt of "
            f"{np.rad2deg(tilt):.1f} deg, expected at least {config.min_share:.0%} and at most "
            f"{np.rad2deg(config.max_tilt_rad):.1f} deg: clear the view, or calibrate the head camera"
        )
    normal = np.array([-slope[0], -slope[1], 1.0]) / np.sqrt(1.0 + slope @ slope)
    return Plane(normal, float(fit.coefficients[2] * normal[2]))


class TableFinder:
    """Makes a :class:`Table` of a look. Knows the rig's calibration and nothing else."""

    def __init__(self, rig: RigDescription, config: TableConfig | None = None, camera: str = "head") -> None:
        self.rig, self.config = rig, config or TableConfig()
        self.camera: CameraDescription = rig.camera(camera)
        if self.camera.parent != "world":
            raise BadInput(
                f"camera {camera!r} is mounted on {self.camera.parent!r}: the table needs one that stands in the world"
            )
        self.collision = CollisionModel(rig)

    def intrinsics(self, shape: tuple[int, ...]) -> Intrinsics:
        """Of a picture of (H, W) pixels."""
        return self.camera.intrinsics.scaled(shape[1], shape[0])

    def find(self, look: Look) -> Table:
        """Raises BadInput for pictures that do not fit each other, PlannerError where there is no table."""
        check_look(look)
        depth = look.head_depth_m
        valid = depth > 0
        raw = apply(self.camera.parent_T_camera, unproject(depth, self.intrinsics(depth.shape)).astype(np.float64))
        x0, x1, y0, y1, _, top = self.rig.table_box_m
        edge = self.config.edge_m
        over = valid & (raw[..., 0] > x0 + edge) & (raw[..., 0] < x1 - edge)
        over &= (raw[..., 1] > y0 + edge) & (raw[..., 1] < y1 - edge)
        cx0, cx1, cy0, cy1, _, _ = self.rig.column_box_m
        beside = self.config.column_margin_m
        over &= ~(
            (raw[..., 0] > cx0 - beside) & (raw[..., 0] < cx1 + beside)
            & (raw[..., 1] > cy0 - beside) & (raw[..., 1] < cy1 + beside)
        )  # fmt: skip
        robot = over & self.robot_points(look.state, raw, over)
        flat = over & ~robot & (np.abs(raw[..., 2] - top) < self.config.search_m)
        plane = fit_plane(raw[flat], self.config)
        smooth = apply(
            self.camera.parent_T_camera, unproject(smoothed(depth), self.intrinsics(depth.shape)).astype(np.float64)
        )
        height = np.where(valid, plane.height(smooth), np.nan).astype(np.float32)
        return Table(plane, smooth.astype(np.float32), height, valid, over & ~robot, robot)

    def robot_points(self, state: NDArray[np.floating], points: Array, where: Mask) -> Mask:
        """(H, W): of the pixels ``where``, those whose point (H, W, 3) m lies on the robot, by forward kinematics."""
        chosen = np.flatnonzero(where)
        out = np.zeros(where.size, bool)
        config = self.config
        out[chosen] = self.near_robot(state, points.reshape(-1, 3)[chosen], config.arm_margin_m, config.hand_margin_m)
        return out.reshape(where.shape)

    def near_robot(
        self, state: NDArray[np.floating], points: Array, arm_margin_m: float, hand_margin_m: float
    ) -> NDArray[np.bool_]:
        """(N,): which of (N, 3) m, world, lie within the margins of the robot's capsules."""
        start_end, radii, names = self.collision.capsules(np.asarray(state[:7], float), np.asarray(state[7:], float))
        p = np.asarray(points, np.float32)
        x, y, z = np.ascontiguousarray(p.T)
        hit = np.zeros(len(p), bool)
        for (a, b), radius, name in zip(start_end.astype(np.float32), radii, names, strict=True):
            arm = name == "base" or name.startswith("link")
            reach = np.float32(radius + (arm_margin_m if arm else hand_margin_m))
            low, high = np.minimum(a, b) - reach, np.maximum(a, b) + reach
            # Axis by axis: most points fall out at the first.
            close = np.flatnonzero((z >= low[2]) & (z <= high[2]) & ~hit)
            close = close[(x[close] >= low[0]) & (x[close] <= high[0])]
            close = close[(y[close] >= low[1]) & (y[close] <= high[1])]
            if len(close):
                hit[close] = _distance(p[close], a, b) < reach
        return hit


def smoothed(depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H, W) m with the pixel noise of stereo matching taken out and depth edges kept; 0 stays 0.

    A D435 scatters by 3 mm at the table, pixel by pixel: a pen would drown in it. The median of 5 x 5 leaves 0.8 mm. In
    pictures of 320 x 240, where a shaft is two pixels wide, it is 3 x 3: 5 x 5 would wipe it away.
    """
    side = 5 if depth_m.shape[1] >= _WIDE_PX else 3
    valid = depth_m > 0
    filled = depth_m
    if not valid.all():
        # Holes would pull the median: the nearest measured pixel stands in for them.
        _, labels = cv2.distanceTransformWithLabels(
            (~valid).astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
        )
        by_label = np.zeros(int(labels.max()) + 1, np.float32)
        by_label[labels[valid]] = depth_m[valid]
        filled = by_label[labels]
    return np.where(valid, cv2.medianBlur(np.ascontiguousarray(filled, np.float32), side), np.float32(0.0))


def check_look(look: Look) -> None:
    """Raises BadInput unless the head picture, its depth, mask and the state belong together."""
    if look.head.ndim != 3 or look.head.shape[2] != 3 or look.head.dtype != np.uint8:
        raise BadInput(f"the head picture is {look.head.dtype} {look.head.shape}: expected uint8 (H, W, 3) RGB")
    if look.head_depth_m.shape != look.head.shape[:2]:
        raise BadInput(
            f"the head depth is {look.head_depth_m.shape}, its picture {look.head.shape[:2]}: expected depth aligned "
            "to colour (record with --depth)"
        )
    if look.state.shape != (13,) or not np.isfinite(look.state).all():
        raise BadInput(f"the state is {look.state.shape} or not finite: expected 7 joint angles and 6 openings")
    if look.target is not None and look.target.shape != look.head.shape[:2]:
        raise BadInput(f"the target's mask is {look.target.shape}: expected the head picture's {look.head.shape[:2]}")


def _distance(points: NDArray[np.float32], a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N,) m of points (N, 3) to the segment from a to b, (3,) each."""
    along = b - a
    length = float(along @ along)
    t = np.clip((points - a) @ along / length, 0.0, 1.0) if length > 0 else np.zeros(len(points), np.float32)
    return np.asarray(np.linalg.norm(points - a - t[:, None] * along, axis=1))
