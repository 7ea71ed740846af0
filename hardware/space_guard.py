"""Whether a configuration is admissible in space: workspace box and clearances, and never stuck in a violation.

Six measures are kept: how far the palm is inside its box along x, y and z (negative outside), and the clearances of
:class:`dexloop.hardware.collision.Clearance`. A measure is admissible where it

- is at least its margin; or, if the start was inside a margin, at least that start (less a little, since a straight way
  out in joint angles may begin with a dip), or the best that has been reached since; or
- is no less than it is now: what leads away from a violation is never refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .collision import CollisionModel
from .description import RigDescription
from .values import Safety

Array = NDArray[np.float64]

_ROUNDING_M = 1e-7
_DIP_M = 0.004  # below a start inside a margin
# On its way to a rest that keeps the margins the arm may cut into them by this much: joints do not stop in step, so the
# way is a little curved, and a rest at the margin would otherwise often be refused.
_WAY_SLACK_M = 0.004
_SAMPLE_M = 0.03  # shortest sweep between the configurations looked at on the way
_TIGHT_M = 0.005  # a measure this little above what it must be hems the arm in
_DIFFERENCE_RAD = 1e-4  # for the measures' gradients
_FLAGS = (Safety.WORKSPACE, Safety.WORKSPACE, Safety.WORKSPACE, Safety.SELF_COLLISION, Safety.TABLE, Safety.TABLE)


@dataclass(frozen=True, slots=True)
class Margins:
    """Smallest admissible clearances, m; see :class:`dexloop.hardware.collision.Clearance`."""

    self_m: float
    table_m: float
    finger_m: float


@dataclass(frozen=True, slots=True)
class _Space:
    """How a configuration stands."""

    measures: Array  # (6,) m: workspace x, y, z, self, table, finger. The larger the better.
    pairs: tuple[tuple[str, str], ...]  # of the three clearances


class SpaceGuard:
    """Judges rest configurations one after the other."""

    def __init__(self, rig: RigDescription, margins: Margins, arm: int = 0) -> None:
        self._model = CollisionModel(rig, arm)
        self._margins = np.array([0.0, 0.0, 0.0, margins.self_m, margins.table_m, margins.finger_m])
        self._box = np.array(rig.workspace_m).reshape(3, 2)  # x, y, z: low, high

    def start_from(self, q: Array, hand: Array) -> None:
        """Take the configuration (7,) rad, (6,) as it is, admissible or not."""
        self._settle(q, hand, self._measure(q, hand))
        self._best = self._space.measures

    def judge(self, way: Array, hand: Array) -> tuple[Safety, str]:
        """The violated rule and a sentence, or (NONE, "") where a step is admissible: the robot is then taken to go
        there. ``way`` (n, 7) rad is the step's own configuration and those through which it can brake to rest.

        Only the arm is judged. Fingers that close on the table push with the hand's own small force, and must be able
        to grasp what lies there: what they change is taken as it is.
        """
        rest = way[-1]
        if np.array_equal(rest, self._q) and np.array_equal(hand, self._hand):
            return Safety.NONE, ""
        space = self._measure(rest, hand)
        flag, reason = self._compare(space, 0.0)
        if flag and not np.array_equal(hand, self._hand):
            self._settle(self._q, hand, self._measure(self._q, hand))
            self._best = np.minimum(self._best, self._space.measures)
            flag, reason = self._compare(space, 0.0)
        if not flag:
            flag, reason = self._judge_way(way, hand, space)
        if not flag:
            self._settle(rest, hand, space)
            self._best = np.maximum(self._best, space.measures)
        return flag, reason

    def braked(self, q_rest: Array, hand: Array) -> None:
        """The arm brakes to ``q_rest``, whatever that means: what comes next is compared with it."""
        if not (np.array_equal(q_rest, self._q) and np.array_equal(hand, self._hand)):
            self._settle(q_rest, hand, self._measure(q_rest, hand))

    def slide(self, q: Array, toward: Array, hand: Array, reach_rad: float) -> Array:
        """(7,) rad: a step of at most about ``reach_rad`` from ``q`` along ``toward``, turned so that no measure that
        hems the arm in shrinks. It is what is left of a motion that leads into a limit at a slant.

        The measures' gradients are differences: 7 configurations are measured, about 2 ms.
        """
        here = self._measure(q, hand).measures
        steps = q + _DIFFERENCE_RAD * np.eye(7)
        gradient = np.stack([self._measure(s, hand).measures - here for s in steps], -1) / _DIFFERENCE_RAD  # (6, 7)
        tight = gradient[here < self._needed() + _TIGHT_M]
        tight = tight[(tight * tight).sum(-1) > 1e-8]
        step = toward.copy()
        for _ in range(2):
            for g in tight:
                step -= g * min(float(g @ step), 0.0) / float(g @ g)
        step *= min(1.0, reach_rad / max(float(np.abs(step).max()), 1e-9))
        # The surfaces are curved: stay off their tangents by what a lever of about 1 m makes of the step.
        lift = 0.6 * float(step @ step) + 1e-4
        for g in tight:
            step += g * max(lift - float(g @ step), 0.0) / float(g @ g)
        return step

    def _needed(self) -> Array:
        """(6,) m: what each measure must at least be."""
        return np.where(self._best < self._margins, self._best - _DIP_M, self._margins)

    def _settle(self, q: Array, hand: Array, space: _Space) -> None:
        self._q, self._hand, self._space = q, hand.copy(), space

    def _judge_way(self, way: Array, hand: Array, at_rest: _Space) -> tuple[Safety, str]:
        """The way to the rest, from its end backwards: each clearance covers the part of the way on which no point of
        the robot moves further than that."""
        at, space = len(way) - 1, at_rest
        while True:
            spare = float((space.measures - self._margins)[3:].min()) + _WAY_SLACK_M
            covered = self._model.sweep_m(way[: at + 1], way[at]) <= max(spare, _SAMPLE_M)
            first = int(np.argmax(covered))
            if covered[0] or at == 0:
                return Safety.NONE, ""
            at = min(first, at - 1)
            space = self._measure(way[at], hand)
            flag, reason = self._compare(space, _WAY_SLACK_M)
            if flag:
                return flag, reason

    def _measure(self, q: Array, hand: Array) -> _Space:
        palm = self._model.world_T_palm(q)[:3, 3]
        inside = np.minimum(palm - self._box[:, 0], self._box[:, 1] - palm)
        clearance = self._model.distances(q, hand)
        measures = np.array([*inside, clearance.self_m, clearance.table_m, clearance.finger_m])
        return _Space(measures, (clearance.self_pair, clearance.table_pair, clearance.finger_pair))

    def _compare(self, new: _Space, slack_m: float) -> tuple[Safety, str]:
        """The first measure that is not admissible."""
        needed = self._needed() - slack_m
        fails = (new.measures < needed - _ROUNDING_M) & (new.measures < self._space.measures)
        if not fails.any():
            return Safety.NONE, ""
        k = int(np.argmax(fails))
        value, margin = 1e3 * new.measures[k], 1e3 * self._margins[k]
        if k < 3:
            return _FLAGS[k], f"the palm would be {-value:.0f} mm outside the workspace along {'xyz'[k]}"
        one, other = new.pairs[k - 3]
        return _FLAGS[k], f"{one} would come to {value:.0f} mm from {other} (margin {margin:.0f} mm)"
