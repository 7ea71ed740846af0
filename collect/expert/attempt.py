"""One attempt at a grasp as a stream of targets: come in, close by feel, lift, and notice when nothing came along.

The same stream drives the robot and a rehearsal of it (:mod:`.rehearsal`): it sees the robot's readings and how far the
object has risen, and yields where arm and hand should be next.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...hardware.joint_path import JointPath, SpeedLimits
from ...hardware.values import RobotState
from .closing import ClosingConfig, HandCloser
from .reach import ReachPlan

Array = NDArray[np.float64]
Targets = Generator[tuple[Array, Array, str], RobotState, None]  # yields (arm (7,) rad, hand (6,), note)

BEHIND_M = 0.02  # an object that rose less than this while the hand rose most of its way stayed behind


@dataclass(frozen=True)
class Manner:
    """How briskly an episode is worked."""

    limits: SpeedLimits
    approach_m_s: float
    lift_m_s: float
    period_s: float
    closing: ClosingConfig = field(default_factory=ClosingConfig)


@dataclass
class Posture:
    """Where arm and hand were last told to be; every stream goes on from it."""

    q: Array  # (7,) rad
    hand: Array  # (6,)


def follow(posture: Posture, path: JointPath, period_s: float, hand: Array | None = None, note: str = "") -> Targets:
    """Run ``path``; the hand goes from where it is to ``hand`` during the first second (None: it holds)."""
    start = posture.hand
    t = 0.0
    while t < path.duration_s:
        t += period_s
        posture.q = path.at(t)
        if hand is not None:
            share = min(1.0, t / min(1.0, path.duration_s))
            posture.hand = (1 - share) * start + share * hand
        yield posture.q, posture.hand, note
        note = ""


def attempt(posture: Posture, plan: ReachPlan, manner: Manner, lift_m: Callable[[], float]) -> Targets:
    """From the pregrasp through closing to lifted. Ends early, with a note, when the object stayed behind."""
    grasp = plan.grasp
    length_m = 0.1 * max(1, len(plan.approach) - 1) / 8
    approach = JointPath(plan.approach, manner.limits, length_m / manner.approach_m_s)
    yield from follow(posture, approach, manner.period_s, grasp.preshape)
    closer = HandCloser(grasp, manner.closing, manner.period_s)
    state = yield posture.q, posture.hand, "close"
    while not closer.done:
        posture.hand = closer.step(state.hand)
        state = yield posture.q, posture.hand, ""
    lift = JointPath(plan.lift, manner.limits, plan.lift_length_m / manner.lift_m_s)
    t = 0.0
    while t < lift.duration_s:
        t += manner.period_s
        posture.q = lift.at(t)
        posture.hand = closer.hold(state.hand)
        state = yield posture.q, posture.hand, ""
        if t > 0.75 * lift.duration_s and lift_m() < BEHIND_M:
            yield posture.q, posture.hand, "the object did not come along"
            return
