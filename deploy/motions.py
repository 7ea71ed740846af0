"""Motions that are not learnt: to the start, over the bin, letting go, rising from the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from ..hardware.clock import NS
from ..hardware.description import OPEN_HAND, RETURN_ARM_Q, START_ARM_Q
from ..hardware.interfaces import Robot
from ..hardware.joint_path import JointPath, SpeedLimits
from ..hardware.palm import PalmArm, over_bin
from ..hardware.rig import DEXGRASPVLA_RIG
from ..hardware.values import Command, RobotState

Array = NDArray[np.float64]
JERK_RAD_S3 = 160.0
OPENED = 0.9  # a finger that opens farther than this is free
THUMB_ASIDE = (*OPEN_HAND[:5], 0.0)  # the last is the thumb's rotation
OPENING_S = 0.8
SETTLING_S = 0.5
SQUEEZE = 0.12  # fingers that hold something are stopped by it: their command must stay beyond where they are
FELT = 0.04  # a finger that stays so far from where it was told to go is held off by something
CALM = 0.65  # share of the pace while something is carried


class Motions:
    """Fixed motions of one robot, which is already wrapped in ``SafeRobot``. Each returns when it is done."""

    def __init__(
        self, robot: Robot, rate_hz: float, pace: float = 0.6, meanwhile: Callable[[], None] = lambda: None
    ) -> None:
        """``pace``: share of the arm's speed limits. ``meanwhile`` is called in every tick."""
        self._robot, self._meanwhile = robot, meanwhile
        self._period_ns = round(NS / rate_hz)
        arm = DEXGRASPVLA_RIG.arms[0].arm
        limits = SpeedLimits(arm.speeds, np.full(7, arm.acceleration_rad_s2), np.full(7, JERK_RAD_S3))
        self._limits = limits.scaled(pace)

    def to_start(self) -> None:
        """To the start pose, the hand open."""
        self._move(np.array([START_ARM_Q]), np.array(OPEN_HAND))
        self._free()

    def carry(self) -> bool:
        """High beside the table, on the way to the bin; what is held stays held. Whether the fingers feel it: it keeps
        them from closing."""
        told = self._move(np.array([RETURN_ARM_Q]), None)[:5]
        off = _opening(self._robot.state())[:5] - told
        return bool((off[told > 0] > FELT).any())  # one that is told to close as far as it goes may not get there

    def to_bin(self) -> None:
        """From there over the bin; what is held stays held."""
        self._move(over_bin(DEXGRASPVLA_RIG)[None], None)

    def let_go(self) -> None:
        """Open where the arm is."""
        self._turn(OPEN_HAND, OPENING_S)
        self._free()

    def rise(self, height_m: float) -> None:
        """Straight up until the palm is ``height_m`` above the table, the hand as it is; as far as the arm gets."""
        state = self._robot.state()
        self._move(np.array(upwards(state.arm.q, height_m)), _opening(state))

    def _free(self) -> None:
        """A bent thumb and a finger that hook each other do not open until the thumb turns aside."""
        for hand, seconds in ((OPEN_HAND, SETTLING_S), (THUMB_ASIDE, OPENING_S), (OPEN_HAND, OPENING_S)):
            if self._robot.state().hand.opening.min() >= OPENED:
                return
            self._turn(hand, seconds)

    def _turn(self, hand: tuple[float, ...], seconds: float) -> None:
        """The hand to ``hand``, evenly, the arm where it is."""
        state = self._robot.state()
        q, start, ticks = state.arm.q.copy(), _opening(state), round(seconds * NS / self._period_ns)
        self._follow((q, start + (np.array(hand) - start) * k / ticks) for k in range(1, ticks + 1))

    def _move(self, waypoints: Array, hand: Array | None) -> Array:
        """Through ``waypoints`` (K, 7) rad; the hand goes to ``hand`` in the first second. None: it holds what it
        holds, and the arm moves calmly. Returns the (6,) openings that the hand was told to begin with."""
        state = self._robot.state()
        limits = self._limits if hand is not None else self._limits.scaled(CALM)
        path = JointPath(np.concatenate([state.arm.q[None], waypoints]), limits)
        start = _opening(state) if hand is not None else _holding(_opening(state))
        ticks = int(np.ceil(path.duration_s * NS / self._period_ns))
        period_s = self._period_ns / NS

        def targets() -> Iterator[tuple[Array, Array]]:
            for k in range(1, ticks + 1):
                share = min(1.0, k * period_s)
                yield path.at(k * period_s), start if hand is None else start + share * (hand - start)

        self._follow(targets())
        return start

    def _follow(self, targets: Iterator[tuple[Array, Array]]) -> None:
        clock = self._robot.clock
        deadline_ns = clock.now_ns()
        for q, hand in targets:
            deadline_ns += self._period_ns
            clock.sleep_until_ns(deadline_ns)
            self._robot.send(Command(clock.now_ns(), q, hand))
            self._meanwhile()


def palm_height_m(state: NDArray[np.floating]) -> float:
    """Of the palm above the table, from a (13,) state: 7 arm angles rad, then openings."""
    return float(_ARM.palm(np.asarray(state[:7], float))[2, 3])


def upwards(q: Array, height_m: float) -> list[Array]:
    """Waypoints (7,) rad of a straight way up to a palm ``height_m`` above the table, from ``q``, which comes first;
    it ends where the arm cannot go on."""
    to_m = _ARM.palm(np.asarray(q, float))[:3, 3]
    to_m[2] = max(height_m, to_m[2])
    return _ARM.straight(q, to_m)


def _opening(state: RobotState) -> Array:
    """(6,) as it may be commanded: what is measured may lie beyond the limits by a hair."""
    return np.clip(state.hand.opening, 0.0, 1.0)


def _holding(opening: Array) -> Array:
    squeezed = np.clip(opening - SQUEEZE, 0.0, 1.0)
    squeezed[5] = opening[5]  # the thumb's rotation presses on nothing
    return squeezed


_ARM = PalmArm(DEXGRASPVLA_RIG.arms[0])
