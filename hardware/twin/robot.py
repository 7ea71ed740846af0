"""The twin's robot: commands in through the controllers' models, readings out at the real rates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..clock import Clock
from ..description import ArmMount
from ..errors import BadInput, DeviceError
from ..geometry import Array
from ..interfaces import RobotSink, Unsubscribe
from ..values import Applied, ArmState, Command, HandState, RobotNames, RobotState, Safety
from .camera import _once

if TYPE_CHECKING:
    from .world import TwinWorld

ARM_STATE_RATE_HZ = 100.0


class TwinRobot:
    """One arm with its hand in a :class:`TwinWorld` (``Robot`` protocol)."""

    def __init__(self, world: TwinWorld, mount: ArmMount, prefix: str) -> None:
        self.clock: Clock = world.clock
        self.mount = mount
        self.names = RobotNames(
            tuple(prefix + joint for joint in mount.arm.joints), tuple(prefix + motor for motor in mount.hand.motors)
        )
        self._world = world
        self._limits = mount.arm.limits
        self._sinks: list[RobotSink] = []
        self._arm: ArmState | None = None
        self._hand: HandState | None = None
        self._last: Command | None = None
        self._closed = False

    def state(self) -> RobotState:
        self._check_open()
        assert self._arm is not None
        assert self._hand is not None
        return RobotState(self._arm, self._hand)

    def send(self, command: Command) -> Applied:
        """The controller clips to joint ranges and openings to 0..1; a target that is not finite is not passed on.

        Raises BadInput for a command of the wrong shape, DeviceError after ``close``.
        """
        self._check_open()
        arm_q, hand = np.asarray(command.arm_q, float), np.asarray(command.hand, float)
        shapes = ((len(self.names.arm_joints),), (len(self.names.hand_motors),))
        if (arm_q.shape, hand.shape) != shapes:
            raise BadInput(
                f"command of shapes {arm_q.shape} and {hand.shape}: expected arm {shapes[0]}, hand {shapes[1]}"
            )
        sent_ns = self.clock.now_ns()
        if not (np.isfinite(arm_q).all() and np.isfinite(hand).all()):
            held = self._last or self._holding(sent_ns)
            reason = "the target is not finite: held the last one; look at what made it"
            return Applied(held, sent_ns, Safety.NOT_FINITE, reason)
        clipped_q = np.clip(arm_q, self._limits[:, 0], self._limits[:, 1])
        clipped_hand = np.clip(hand, 0.0, 1.0)
        flags, reason = Safety.NONE, ""
        if (clipped_q != arm_q).any() or (clipped_hand != hand).any():
            flags, reason = Safety.JOINT_LIMIT, "the target is outside the joints' range: clipped to it"
        applied = Command(command.captured_ns, clipped_q, clipped_hand)
        self._last = applied
        self._world.receive(self, sent_ns, applied)
        return Applied(applied, sent_ns, flags, reason)

    def stop(self) -> None:
        if not self._closed:
            self._last = None
            self._world.halt(self)

    def subscribe(self, sink: RobotSink) -> Unsubscribe:
        self._check_open()
        self._sinks.append(sink)
        return _once(lambda: self._sinks.remove(sink))

    def close(self) -> None:
        self._closed = True
        self._sinks.clear()

    def take(self, reading: ArmState | HandState, push: bool = True) -> None:
        """A new reading from the world: kept as the newest, and pushed to the sinks."""
        if isinstance(reading, ArmState):
            self._arm = reading
        else:
            self._hand = reading
        if push:
            for sink in tuple(self._sinks):
                sink(reading)

    def forget(self) -> None:
        """The world starts anew: the last target no longer holds."""
        self._last = None

    def _holding(self, now_ns: int) -> Command:
        """What holds the robot where it is, for when nothing has been sent yet."""
        state = self.state()
        hold: Array = np.clip(state.hand.opening, 0.0, 1.0)
        return Command(now_ns, state.arm.q, hold)

    def _check_open(self) -> None:
        if self._closed:
            raise DeviceError("the twin's robot is closed: make a new TwinWorld")
