"""The last millimetres: a chunk that closes the hand is led to do so at the goal.

A chunk comes to within centimetres of the goal that it is conditioned on, and fingers that close a centimetre too high
close on nothing. The pose in which they are to close is known, so the way there is bent to end in it, by a correction
of the joints that grows until the fingers begin to close and then stays; where there is too little time for it, the
fingers wait (``docs/decisions/101-rehearsed-grasps.md``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...hardware.geometry import Array
from .geometry import ARM_DOF, CLOSING, FINGERS
from .reachable import GoalArm, pose_of

CLOSING_STEPS = 5  # from the beginning of closing to CLOSING, at 20 Hz
STEP_RAD = 0.03  # of any joint, for each command of the correction, on average


class Arrival:
    """Leads chunks of ``arm``."""

    def __init__(self, arm: GoalArm) -> None:
        self._arm = arm

    def led(self, chunk: Array, goal: NDArray[np.floating], late: int) -> Array:
        """``chunk`` (H, 13) of an open hand, bent to close at ``goal`` (15,), :data:`.goal.GOAL_DIM`, from its command
        ``late`` on. It stays as it is where it does not close, or the arm does not get there."""
        closed = chunk[:, FINGERS].mean(1) < CLOSING
        if not closed.any():
            return chunk
        begins = max(int(closed.argmax()) - CLOSING_STEPS, late)
        if begins >= len(chunk):
            return chunk
        wanted = self._arm.solve(pose_of(np.asarray(goal, float)), chunk[begins, :ARM_DOF])
        if wanted is None:
            return chunk
        off = wanted - chunk[begins, :ARM_DOF]
        steps = max(begins - late, int(np.ceil(np.abs(off).max() / STEP_RAD)))
        out = np.insert(chunk, [begins] * (steps - (begins - late)), chunk[begins], axis=0)[: len(chunk)]
        share = np.clip((np.arange(len(out)) - late + 1) / max(steps, 1), 0, 1)
        out[:, :ARM_DOF] += (0.5 - 0.5 * np.cos(np.pi * share))[:, None] * off
        return out
