"""One arm of a rig, asked for where its palm goes in the world instead of its flange at its base."""

from __future__ import annotations

import numpy as np

from .description import ArmMount
from .geometry import Array, Transform, inverse
from .kinematics import ArmKinematics


class PalmArm:
    """Kinematics of the palm of a mounted arm."""

    def __init__(self, mount: ArmMount) -> None:
        self.kinematics = ArmKinematics(mount.arm)
        self._world_T_base, self._flange_T_palm = mount.world_T_base, mount.flange_T_palm
        self._base_T_world, self._palm_T_flange = inverse(mount.world_T_base), inverse(mount.flange_T_palm)

    def palm(self, q: Array) -> Transform:
        """world_T_palm (..., 4, 4) of arm angles (..., 7) rad."""
        return self._world_T_base @ self.kinematics.fk(q) @ self._flange_T_palm

    def flange(self, world_T_palm: Transform) -> Transform:
        """base_T_flange (..., 4, 4) that puts the palm there."""
        return self._base_T_world @ world_T_palm @ self._palm_T_flange

    def margin(self, q: Array) -> float:
        """Smallest distance (rad) of any joint of ``q`` (..., 7) to its limits."""
        limits = self.kinematics.limits
        return float(np.minimum(q - limits[:, 0], limits[:, 1] - q).min())

    def solve(self, world_T_palm: Transform, q_near: Array, margin_rad: float) -> Array | None:
        """Arm angles (7,) rad that put the palm there, near ``q_near`` and so far off their limits; None if there are
        none."""
        found = self.kinematics.ik(self.flange(world_T_palm), q_near)
        return found.q if found.ok and self.margin(found.q) >= margin_rad else None
