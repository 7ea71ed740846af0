"""Whether the hand holds something: from its openings, from depth beside the palm, and from the tracked target.

Palm frame (``docs/conventions.md``): x distal, y to the index side, the palm faces -z.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ...hardware.description import RigDescription
from ...hardware.errors import BadInput
from ...hardware.geometry import apply, inverse
from .base import Look
from .table import Array, Table, TableFinder, unproject


@dataclass(frozen=True)
class GripConfig:
    """What a grip looks like."""

    closed: float = 0.08
    """Fingers whose openings are all below this closed on air (1 = straight, 0 = bent as far as they go)."""
    open: float = 0.85
    """Fingers whose openings are all above this hold nothing."""
    raised_m: float = 0.04
    """A target that rose by this much was lifted."""
    volume_m: tuple[float, float, float, float, float, float] = (0.03, 0.18, -0.05, 0.06, -0.12, -0.032)
    """x0, x1, y0, y1, z0, z1 in the palm frame: where a held object is."""
    skin_m: float = 0.009
    """Points this near to palm and fingers are theirs."""
    above_m: float = 0.03
    """Points lower than this over the table are of what stands there."""
    min_points: int = 300
    """So many points in the volume are an object, in pictures of 640 x 480. On the twin an empty hand shows up to 80, a
    held carrot or screwdriver 1000."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.closed < self.open <= 1.0:
            raise BadInput(f"GripConfig.closed is {self.closed}, open {self.open}: expected 0 <= closed < open <= 1")
        x0, x1, y0, y1, z0, z1 = self.volume_m
        if not (x0 < x1 and y0 < y1 and z0 < z1):
            raise BadInput(f"GripConfig.volume_m is {self.volume_m}: expected x0 < x1, y0 < y1, z0 < z1")


@dataclass(frozen=True)
class Grip:
    """What speaks for an object in the hand."""

    something: bool
    points: int  # seen between palm and fingers by head and wrist camera, pixels
    target_raised_m: float | None  # height of the tracked target's lowest points over the table; None without one
    reason: str


class GripSense:
    """Senses the hand of the rig's first arm."""

    def __init__(self, rig: RigDescription, finder: TableFinder, config: GripConfig) -> None:
        self.config = config
        self._rig, self._finder = rig, finder
        wrist = [camera for camera in rig.cameras if camera.parent == "flange"]
        self._wrist = wrist[0] if wrist else None

    def centre(self, look: Look) -> Array:
        """(3,) m, world: the middle of the volume that a hand closes around."""
        x0, x1, y0, y1, z0, z1 = self.config.volume_m
        middle = np.array([[(x0 + x1) / 2, (y0 + y1) / 2, (z0 + z1) / 2]])
        return apply(self._finder.collision.world_T_palm(look.state[:7]), middle)[0]

    def sense(self, look: Look, table: Table) -> Grip:
        """``table``: of the same look."""
        config = self.config
        fingers = np.asarray(look.state[8:12], float)  # index to little
        raised = self._target_height(look, table)
        # Counted as in pictures of 640 x 480; the wrist camera sees nearly all of it.
        points = round(self._count(look, table) * 640.0 * 480.0 / max(look.wrist_depth_m.size, 1))
        if fingers.min() > config.open:
            return Grip(False, points, raised, f"the fingers are open ({fingers.min():.2f} and wider)")
        if fingers.max() < config.closed:
            return Grip(False, points, raised, f"the fingers closed on air (at most {fingers.max():.2f} open)")
        if points >= config.min_points:
            return Grip(True, points, raised, f"{points} depth points lie between palm and fingers")
        if raised is not None and raised > config.raised_m:
            return Grip(True, points, raised, "the tracked target is in the air")
        return Grip(False, points, raised, f"nothing is seen between palm and fingers ({points} depth points)")

    def _count(self, look: Look, table: Table) -> int:
        height = table.plane.height(table.points.astype(np.float64))
        head = table.points[table.valid & (height > self.config.above_m)].astype(np.float64)
        return self._inside(look, head) + self._inside(look, self._wrist_points(look, table))

    def _wrist_points(self, look: Look, table: Table) -> Array:
        """(N, 3) m, world: what the wrist camera sees above the table, every third pixel."""
        depth = look.wrist_depth_m
        if self._wrist is None or depth.size == 0 or not (depth > 0).any():
            return np.zeros((0, 3))
        few = np.ascontiguousarray(depth[::3, ::3])
        intrinsics = self._wrist.intrinsics.scaled(depth.shape[1], depth.shape[0]).scaled(few.shape[1], few.shape[0])
        points = unproject(few, intrinsics)[few > 0].astype(np.float64)
        mount = self._rig.arms[0]
        world_T_flange = mount.world_T_base @ self._finder.collision.arm.fk(look.state[:7])
        points = apply(world_T_flange @ self._wrist.parent_T_camera, points)
        return points[table.plane.height(points) > self.config.above_m]

    def _inside(self, look: Look, points: Array) -> int:
        """How many of (N, 3) m, world, lie in the volume and not on the hand."""
        if not len(points):
            return 0
        x0, x1, y0, y1, z0, z1 = self.config.volume_m
        local = apply(inverse(self._finder.collision.world_T_palm(look.state[:7])), points)
        inside = ((local > (x0, y0, z0)) & (local < (x1, y1, z1))).all(1)
        chosen = points[inside]
        if not len(chosen):
            return 0
        near = self._finder.near_robot(look.state, chosen, self.config.skin_m, self.config.skin_m)
        return int((~near).sum())

    def _target_height(self, look: Look, table: Table) -> float | None:
        """Height (m) of the lower part of what is seen of the tracked target, None where there is none."""
        if look.target is None:
            return None
        inner = cv2.erode(look.target.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        seen: NDArray[np.bool_] = (inner if inner.sum() > 30 else look.target) & table.valid
        if seen.sum() < 20:
            return None
        return float(np.percentile(table.height_m[seen], 10))
