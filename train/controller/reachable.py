"""Whether the arm gets to a grasp from above, and up again: what no learnt judge need tell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...hardware.collision import CollisionModel
from ...hardware.description import START_ARM_Q
from ...hardware.geometry import Array, Transform, transform
from ...hardware.palm import PalmArm
from ...hardware.rig import DEXGRASPVLA_RIG

ABOVE_M = (0.10, 0.05, 0.0, 0.07, 0.14)  # down to the grasp, and up
LIMIT_MARGIN_RAD = 0.03
LARGEST_STEP_RAD = 0.8  # of any joint between two of the heights: more is another branch
# Kept from the arm itself, and by arm and fingers from table, bin and column: a little more than SafeRobot asks for.
SELF_M, TABLE_M, FINGER_M = 0.014, 0.012, -0.003


def pose_of(goal: Array) -> Transform:
    """world_T_palm (4, 4) of a goal (15,), :data:`.goal.GOAL_DIM`."""
    return transform(np.stack([goal[3:6], goal[6:9], np.cross(goal[3:6], goal[6:9])], 1), goal[:3])


class GoalArm:
    """Inverse kinematics of goals on the rig's first arm."""

    def __init__(self) -> None:
        self._collision = CollisionModel(DEXGRASPVLA_RIG)
        self._arm = PalmArm(DEXGRASPVLA_RIG.arms[0])

    def first(self, goals: Sequence[Array] | Array) -> int:
        """The first of ``goals`` (N, 15) that the arm gets to; 0 where it gets to none."""
        return next((index for index, goal in enumerate(goals) if self.reaches(np.asarray(goal, float))), 0)

    def reaches(self, goal: Array) -> bool:
        """Whether the arm goes straight down to ``goal`` (15,) and straight up, keeping clear of all but objects."""
        pose, q = pose_of(goal), np.array(START_ARM_Q)
        for index, above_m in enumerate(ABOVE_M):
            raised = pose.copy()
            raised[2, 3] += above_m
            found = self.solve(raised, q)
            if found is None or (index and np.abs(found - q).max() > LARGEST_STEP_RAD):
                return False
            clear = self._collision.distances(found, goal[9:])
            if clear.self_m < SELF_M or clear.table_m < TABLE_M or clear.finger_m < FINGER_M:
                return False
            q = found
        return True

    def solve(self, world_T_palm: Transform, q_near: Array) -> Array | None:
        """Arm angles (7,) rad that put the palm there, near ``q_near`` and off their limits; None if there are none."""
        return self._arm.solve(world_T_palm, q_near, LIMIT_MARGIN_RAD)
