"""Whether a configuration is admissible in space: workspace box and clearances, never stuck in a violation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .collision import Clearance, CollisionModel
from .description import RigDescription
from .values import Safety

Array = NDArray[np.float64]

_NO_WORSE_M = 1e-7  # a clearance may shrink by this much (rounding) and still count as kept


@dataclass(frozen=True, slots=True)
class Margins:
    """Smallest admissible clearances, m; see :class:`dexloop.hardware.collision.Clearance`."""

    self_m: float
    table_m: float
    finger_m: float


@dataclass(frozen=True, slots=True)
class _Space:
    """How a configuration stands. The larger each number the better."""

    workspace_m: float  # 0 inside the box, minus the palm's distance from it outside
    clearance: Clearance


class SpaceGuard:
    """Judges rest configurations one after the other: each must obey the margins, or not be worse than the last."""

    def __init__(self, rig: RigDescription, margins: Margins, arm: int = 0) -> None:
        self._model = CollisionModel(rig, arm)
        self._margins = margins
        self._box = np.array(rig.workspace_m).reshape(3, 2)  # x, y, z: low, high

    def start_from(self, q: Array, hand: Array) -> None:
        """Take the configuration (7,) rad, (6,) as it is, admissible or not."""
        self._q, self._hand, self._space = q, hand.copy(), self._measure(q, hand)

    def judge(self, q: Array, hand: Array) -> tuple[Safety, str]:
        """The violated rule and a sentence, or (NONE, "") where the configuration is admissible: it is then the one
        that the next is compared with.

        Only the arm is judged. Fingers that close on the table push with the hand's own small force, and must be able
        to grasp what lies there: the comparison is with the last arm configuration and the fingers as they are now.
        """
        if np.array_equal(q, self._q) and np.array_equal(hand, self._hand):
            return Safety.NONE, ""
        space = self._measure(q, hand)
        flag, reason = self._compare(space, self._space)
        if flag and not np.array_equal(hand, self._hand):
            self._hand, self._space = hand.copy(), self._measure(self._q, hand)
            flag, reason = self._compare(space, self._space)
        if not flag:
            self._q, self._hand, self._space = q, hand.copy(), space
        return flag, reason

    def _measure(self, q: Array, hand: Array) -> _Space:
        palm = self._model.world_T_palm(q)[:3, 3]
        outside = np.maximum(np.maximum(self._box[:, 0] - palm, palm - self._box[:, 1]), 0.0)
        return _Space(-float(np.linalg.norm(outside)), self._model.distances(q, hand))

    def _compare(self, new: _Space, old: _Space) -> tuple[Safety, str]:
        if new.workspace_m < old.workspace_m - _NO_WORSE_M:
            return Safety.WORKSPACE, f"the palm would be {-1e3 * new.workspace_m:.0f} mm outside the workspace"
        a, b, margins = new.clearance, old.clearance, self._margins
        checks = (
            (a.self_m, b.self_m, margins.self_m, a.self_pair, Safety.SELF_COLLISION),
            (a.table_m, b.table_m, margins.table_m, a.table_pair, Safety.TABLE),
            (a.finger_m, b.finger_m, margins.finger_m, a.finger_pair, Safety.TABLE),
        )
        for value, before, margin, pair, flag in checks:
            if value < min(margin, before) - _NO_WORSE_M:
                text = f"{pair[0]} would come to {1e3 * value:.0f} mm from {pair[1]} (margin {1e3 * margin:.0f} mm)"
                return flag, text
        return Safety.NONE, ""
