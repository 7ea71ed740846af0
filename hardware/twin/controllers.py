"""Models of the two controllers between us and the motors: when a command takes effect, and how fast.

- A command travels for ``latency_s``; the controller looks for a new one at its own rate and takes the newest.
- The arm's moves its reference towards the target within the joints' speed and acceleration (``movej_canfd``).
- The hand's moves each motor's reference at the speed of its full stroke.

The servos then follow the reference with a lag of their own (``arm_spec.SERVO_LAG_S``). Numbers and their sources:
``docs/decisions/11-controllers.md``.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from ..clock import NS
from ..description import ArmDescription, HandDescription
from ..errors import BadInput
from ..geometry import Array


@dataclass(frozen=True)
class ControllerConfig:
    """Timing of the controllers."""

    arm_latency_s: float = 0.012
    """From send() to the arm controller: UDP, its parser, its CAN bus."""
    hand_latency_s: float = 0.015
    """From send() to the hand: the arm's Modbus bridge."""
    arm_follow_s: float = 0.010
    """Time constant of the arm's reference filter."""

    def __post_init__(self) -> None:
        for name in ("arm_latency_s", "hand_latency_s"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise BadInput(f"{name} is {getattr(self, name)}: expected seconds from 0 to 1")
        if not 0.001 <= self.arm_follow_s <= 1.0:
            raise BadInput(f"arm_follow_s is {self.arm_follow_s}: expected seconds from 0.001 to 1")


class Inbox:
    """Commands under way. ``take`` answers with the newest that has arrived, at the controller's own ticks."""

    def __init__(self, rate_hz: float, latency_s: float) -> None:
        self._rate_hz = rate_hz
        self._latency_ns = round(latency_s * NS)
        self._under_way: deque[tuple[int, Array]] = deque()
        self._next_tick = 0

    def drop(self) -> None:
        """Forget the commands under way."""
        self._under_way.clear()

    def clear(self, now_ns: int) -> None:
        """Forget the commands under way and look at the next tick from ``now_ns``."""
        self.drop()
        self._next_tick = int(now_ns * self._rate_hz) // NS

    def put(self, sent_ns: int, target: Array) -> None:
        self._under_way.append((sent_ns + self._latency_ns, target))

    def take(self, now_ns: int) -> Array | None:
        if now_ns * self._rate_hz < self._next_tick * NS:
            return None
        self._next_tick = int(now_ns * self._rate_hz) // NS + 1
        newest = None
        while self._under_way and self._under_way[0][0] <= now_ns:
            newest = self._under_way.popleft()[1]
        return newest


class ArmController:
    """Joint references (7,) rad for the servos, one physics step at a time."""

    def __init__(self, arm: ArmDescription, config: ControllerConfig, step_s: float) -> None:
        self._inbox = Inbox(arm.command_rate_hz, config.arm_latency_s)
        self._speed = arm.speeds
        self._acceleration = arm.acceleration_rad_s2
        self._follow_s = config.arm_follow_s
        self._step_s = step_s
        self.reference: Array = np.zeros(len(arm.links))
        self._velocity: Array = np.zeros(len(arm.links))
        self._target: Array = np.zeros(len(arm.links))
        self._at_rest = True

    def reset(self, q: Array, now_ns: int) -> None:
        """Stand still at ``q`` (7,) and forget commands under way."""
        self._inbox.clear(now_ns)
        self.reference = np.array(q, float)
        self._target = self.reference.copy()
        self._velocity = np.zeros_like(self.reference)
        self._at_rest = True

    def send(self, sent_ns: int, q: Array) -> None:
        self._inbox.put(sent_ns, np.array(q, float))

    def stop(self) -> None:
        """Come to rest as fast as the acceleration limit allows; commands under way are dropped."""
        self._inbox.drop()
        braking = self._velocity * np.abs(self._velocity) / (2.0 * self._acceleration)
        self._target = self.reference + braking

    def step(self, now_ns: int) -> Array:
        """The reference (7,) after one more physics step. The array stays the controller's."""
        newest = self._inbox.take(now_ns)
        if newest is not None:
            self._target = newest
        error = self._target - self.reference
        if self._at_rest and not error.any():
            return self.reference
        distance = np.abs(error)
        # Straight line near the target, braking parabola further off: the two meet with equal slope, so that braking
        # never asks for more than the acceleration limit. ``change`` is for the step that goes by before braking acts.
        change = self._acceleration * self._step_s
        near = self._acceleration * self._follow_s**2
        wanted = np.where(
            distance <= near,
            distance / self._follow_s,
            np.sqrt(change**2 + 2.0 * self._acceleration * np.maximum(distance - near / 2.0, 0.0)) - change,
        )
        wanted = np.copysign(np.minimum(wanted, self._speed), error)
        self._velocity += np.minimum(np.maximum(wanted - self._velocity, -change), change)
        step = self._velocity * self._step_s
        arrived = (np.abs(step) >= distance) & (distance < 1e-9)
        self.reference = np.where(arrived, self._target, self.reference + step)
        self._velocity[arrived] = 0.0
        self._at_rest = bool(arrived.all())
        return self.reference


class HandController:
    """Opening references (6,) for the motors, one physics step at a time."""

    def __init__(self, hand: HandDescription, config: ControllerConfig, step_s: float) -> None:
        self._inbox = Inbox(hand.command_rate_hz, config.hand_latency_s)
        self._change = step_s / hand.stroke_s
        self.reference: Array = np.ones(len(hand.motors))
        self._target: Array = np.ones(len(hand.motors))

    def reset(self, opening: Array, now_ns: int) -> None:
        """Stand still at ``opening`` (6,) and forget commands under way."""
        self._inbox.clear(now_ns)
        self.reference = np.array(opening, float)
        self._target = self.reference.copy()

    def send(self, sent_ns: int, opening: Array) -> None:
        self._inbox.put(sent_ns, np.array(opening, float))

    def stop(self) -> None:
        """Hold: the targets stay, so that what is held stays held."""
        self._inbox.drop()

    def step(self, now_ns: int, actual: Array, slack: Array) -> Array:
        """The reference (6,) after one more physics step.

        It never runs further ahead of the ``actual`` openings (6,) than ``slack`` (6,), at which the motor already
        pulls with full force: a blocked motor's position does not wind up, so it reverses at once.
        """
        newest = self._inbox.take(now_ns)
        if newest is not None:
            self._target = newest
        step = self._target - self.reference
        np.minimum(np.maximum(step, -self._change, out=step), self._change, out=step)
        step += self.reference
        self.reference = np.minimum(np.maximum(step, actual - slack, out=step), actual + slack, out=step)
        return self.reference
