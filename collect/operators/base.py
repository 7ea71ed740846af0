"""The protocol between a recording session and whoever gives the commands.

A session calls :meth:`Operator.begin` when an episode may start, then :meth:`Operator.act` at its own rate (20 Hz
unless configured otherwise), sends the command through ``SafeRobot`` and journals the raw input. An operator never
talks to the robot and never waits: it answers at once with what is known now.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ...hardware.values import Command, RobotState


class Event(enum.Enum):
    """What an operator can ask of the session, beside moving the robot."""

    START = "start"  # begin to record
    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"  # end the episode and go to review
    KEEP = "keep"
    DISCARD = "discard"
    REDO = "redo"  # discard and record the same again
    SUCCESS = "success"  # label for the episode under review
    FAILURE = "failure"
    QUIT = "quit"


@dataclass(frozen=True, slots=True)
class OperatorInput:
    """One answer of an operator.

    ``command is None`` says that there is nothing to follow now (input lost, clutch open, nothing pressed yet): the
    session holds, arm and hand, and never opens the hand.
    """

    command: Command | None
    raw: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)  # device input to journal, e.g. hand_keypoints
    raw_captured_ns: int | None = None  # capture time of ``raw`` on the rig's clock; None: the time of the call
    events: tuple[Event, ...] = ()  # in the order in which they were given
    note: str = ""  # one line for the operator's display, empty when there is nothing to say
    remark: str | None = None  # what the operator wants written down with the episode
    done: bool = False  # a scripted or recorded episode has come to its end
    example: bool = True  # False: a policy moves the robot to where it gets by itself; not to be learnt from


@runtime_checkable
class Operator(Protocol):
    """A source of commands: a script, a recording, a keyboard, a headset."""

    name: str

    def begin(self, state: RobotState, now_ns: int) -> None:
        """A new episode: forget the last one and start from ``state`` without a jump."""
        ...

    def resume(self, state: RobotState, now_ns: int) -> None:
        """After a pause: go on with the same episode, from ``state`` and without a jump."""
        ...

    def act(self, state: RobotState, now_ns: int) -> OperatorInput:
        """What to do now, ``now_ns`` on the rig's clock. Raises BadInput or DeviceError when the device is gone."""
        ...

    def close(self) -> None:
        """Release the device (a terminal's mode, a listener's thread). Safe to call twice."""
        ...
