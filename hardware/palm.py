"""One arm of a rig, asked for where its palm goes in the world instead of its flange at its base."""

from __future__ import annotations

import numpy as np

from .description import PLACE_ARM_Q, ArmMount, RigDescription
from .geometry import Array, Transform, apply, inverse
from .kinematics import ArmKinematics

STEP_M = 0.02  # between waypoints of a straight motion
LARGEST_STEP_RAD = 0.4  # of any joint between two of them: more is a jump, not a motion
HELD_M = (0.10, 0.0, -0.07)  # palm frame: about where what a hand holds is


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

    def straight(self, q: Array, to_m: Array) -> list[Array]:
        """Waypoints (7,) rad of a straight way of the palm's origin to ``to_m`` (3,), world, from ``q``, which comes
        first; the palm does not turn. It ends where the arm cannot go on."""
        q = np.asarray(q, float)
        pose, way = self.palm(q), [q]
        start_m = pose[:3, 3].copy()
        away_m = np.asarray(to_m, float) - start_m
        steps = int(np.ceil(np.linalg.norm(away_m) / STEP_M - 1e-9))
        for k in range(1, steps + 1):
            pose[:3, 3] = start_m + away_m * k / steps
            found = self.kinematics.ik(self.flange(pose), way[-1])
            if not found.ok or np.abs(found.q - way[-1]).max() > LARGEST_STEP_RAD:
                break
            way.append(found.q)
        return way

    def margin(self, q: Array) -> float:
        """Smallest distance (rad) of any joint of ``q`` (..., 7) to its limits."""
        limits = self.kinematics.limits
        return float(np.minimum(q - limits[:, 0], limits[:, 1] - q).min())

    def solve(self, world_T_palm: Transform, q_near: Array, margin_rad: float) -> Array | None:
        """Arm angles (7,) rad that put the palm there, near ``q_near`` and so far off their limits; None if there are
        none."""
        found = self.kinematics.ik(self.flange(world_T_palm), q_near)
        return found.q if found.ok and self.margin(found.q) >= margin_rad else None


def over_bin(rig: RigDescription) -> Array:
    """Angles (7,) rad of the rig's first arm that have what is held over the middle of the bin: the place pose, which
    has it over the rim, moved on."""
    arm = PalmArm(rig.arms[0])
    place = np.array(PLACE_ARM_Q)
    palm = arm.palm(place)
    to_m = palm[:3, 3].copy()
    to_m[:2] += np.array(rig.bin_center_m)[:2] - apply(palm, np.array([HELD_M]))[0, :2]
    return arm.straight(place, to_m)[-1]
