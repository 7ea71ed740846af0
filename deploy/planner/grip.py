"""Whether the hand holds something, and of what colours: from its openings, and from what head and wrist camera see
between its fingers.

Palm frame (``docs/conventions.md``): x distal, y to the index side, the palm faces -z. The tracked target counts for
nothing here by itself: a tracker that moves its target with the palm sees it in an empty hand as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...hardware.description import RigDescription
from ...hardware.errors import BadInput
from ...hardware.geometry import apply, inverse
from .attributes import colour_shares
from .base import FullLook, Look
from .light import Light
from .segments import to_lab
from .table import Array, Table, TableFinder, unproject

_STRIDE = 3  # of the wrist camera's pixels every third is looked at


@dataclass(frozen=True)
class GripConfig:
    """What a grip looks like."""

    closed: float = 0.08
    """Fingers whose openings are all below this closed on air (1 = straight, 0 = bent as far as they go)."""
    open: float = 0.85
    """Fingers whose openings are all above this hold nothing."""
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
        if self.min_points < 1:
            raise BadInput(f"GripConfig.min_points is {self.min_points}: expected at least 1")


@dataclass(frozen=True)
class Grip:
    """What speaks for an object in the hand."""

    something: bool
    points: int  # seen between palm and fingers by head and wrist camera, as in pictures of 640 x 480
    colours: dict[str, float]  # parts of these points in each colour word, as ``Thing.colours``
    reason: str


@dataclass(frozen=True)
class WristView:
    """What the wrist camera sees, every third pixel."""

    points: Array  # (N, 3) m, world
    height_m: Array  # (N,) above the table's plane
    rgb: NDArray[np.uint8]  # (N, 3)


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

    def sense(self, look: FullLook, table: Table, light: Light, wrist: WristView) -> Grip:
        """``table``, ``light`` and ``wrist`` of the same look."""
        config = self.config
        fingers = np.asarray(look.state[8:12], float)  # index to little
        points, colours = self._between(look, table, light, wrist)
        if fingers.min() > config.open:
            return Grip(False, points, colours, f"the fingers are open ({fingers.min():.2f} and wider)")
        if fingers.max() < config.closed:
            return Grip(False, points, colours, f"the fingers closed on air (at most {fingers.max():.2f} open)")
        if points >= config.min_points:
            return Grip(True, points, colours, f"{points} depth points lie between palm and fingers")
        return Grip(False, points, colours, f"nothing is seen between palm and fingers ({points} depth points)")

    def wrist_view(self, look: FullLook, table: Table) -> WristView:
        """Empty where the rig has no wrist camera or it measures nothing."""
        depth = look.wrist_depth_m
        if self._wrist is None or depth.size == 0 or not (depth > 0).any() or look.wrist.shape[:2] != depth.shape:
            return WristView(np.zeros((0, 3)), np.zeros(0), np.zeros((0, 3), np.uint8))
        few = np.ascontiguousarray(depth[::_STRIDE, ::_STRIDE])
        intrinsics = self._wrist.intrinsics.scaled(depth.shape[1], depth.shape[0]).scaled(few.shape[1], few.shape[0])
        points = unproject(few, intrinsics)[few > 0].astype(np.float64)
        mount = self._rig.arms[0]
        world_T_flange = mount.world_T_base @ self._finder.collision.arm.fk(look.state[:7])
        points = apply(world_T_flange @ self._wrist.parent_T_camera, points)
        return WristView(points, table.plane.height(points), look.wrist[::_STRIDE, ::_STRIDE][few > 0])

    def _between(self, look: FullLook, table: Table, light: Light, wrist: WristView) -> tuple[int, dict[str, float]]:
        """Depth points between palm and fingers that are not the hand's own, as in pictures of 640 x 480, and what
        colours they have."""
        above = table.valid & (table.height_m > self.config.above_m)
        head = self._inside(look, table.points[above].astype(np.float64))
        raised = wrist.height_m > self.config.above_m
        near = self._inside(look, wrist.points[raised])
        rgb = np.concatenate([look.head[above][head], wrist.rgb[raised][near]])
        count = head.sum() / look.head_depth_m.size + near.sum() / max(look.wrist_depth_m.size, 1)
        return round(float(count) * 640.0 * 480.0), colour_shares(to_lab(light.balanced(rgb)))

    def _inside(self, look: Look, points: Array) -> NDArray[np.bool_]:
        """(N,): which of (N, 3) m, world, lie in the volume and not on the hand."""
        x0, x1, y0, y1, z0, z1 = self.config.volume_m
        local = apply(inverse(self._finder.collision.world_T_palm(look.state[:7])), points)
        out = np.asarray(((local > (x0, y0, z0)) & (local < (x1, y1, z1))).all(1))
        chosen = np.flatnonzero(out)
        skin = self.config.skin_m
        out[chosen[self._finder.near_robot(look.state, points[chosen], skin, skin)]] = False
        return out
