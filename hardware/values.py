"""What the rig reads and is told: frozen values, each with the monotonic time of its capture.

Times are int64 nanoseconds of the rig's clock (:mod:`dexloop.hardware.clock`); joint orders, frames and units
are those of ``docs/conventions.md``.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ArmState:
    """One reading of the arm controller (100 Hz) and of the wrist force sensor that it carries."""

    captured_ns: int
    q: Array  # (7,) rad, order ARM_JOINTS
    dq: Array  # (7,) rad/s
    effort: Array  # (7,) N m, motor torque at the joint
    wrench: Array  # (6,) N and N m: force then torque that the environment exerts on the hand, in the flange frame


@dataclass(frozen=True, slots=True)
class HandState:
    """One reading of the hand controller (20-60 Hz)."""

    captured_ns: int
    opening: Array  # (6,) 1 = open, 0 = closed, order HAND_MOTORS
    force: Array  # (6,) N, motor force referred to the fingertip, >= 0 when it closes


@dataclass(frozen=True, slots=True)
class RobotState:
    """The newest reading of arm and hand. Each part keeps its own capture time."""

    arm: ArmState
    hand: HandState

    @property
    def captured_ns(self) -> int:
        """Capture time of the older of the two parts: nothing in this state is older."""
        return min(self.arm.captured_ns, self.hand.captured_ns)


@dataclass(frozen=True, slots=True)
class Command:
    """Absolute target of the whole robot.

    ``captured_ns`` is the capture time of the input that the command was made from (an operator's hand sample, the
    observation of a policy), so that ``Applied.sent_ns - command.captured_ns`` is the input-to-command latency.
    """

    captured_ns: int
    arm_q: Array  # (7,) rad, order ARM_JOINTS
    hand: Array  # (6,) opening: 1 = open, 0 = closed, order HAND_MOTORS


class Safety(enum.IntFlag):
    """Why the command that was sent differs from the one that was asked for. 0 = it does not."""

    NONE = 0
    NOT_FINITE = enum.auto()  # rejected: held the last command
    JOINT_LIMIT = enum.auto()  # clamped to the joint range or the 0..1 opening
    VELOCITY = enum.auto()
    ACCELERATION = enum.auto()
    JERK = enum.auto()
    WORKSPACE = enum.auto()  # palm would leave the workspace box
    TABLE = enum.auto()  # a link would come too near the table, bin or column
    SELF_COLLISION = enum.auto()
    STALE = enum.auto()  # the input is too old: arm slows to a stop, hand holds
    STOPPED = enum.auto()  # stop() was called: nothing moves until resume


@dataclass(frozen=True, slots=True)
class Applied:
    """A robot's answer to a command: what was really sent, when, and why it differs."""

    command: Command
    sent_ns: int
    flags: Safety = Safety.NONE
    reason: str = ""  # one sentence for the operator, empty when flags == 0


@dataclass(frozen=True, slots=True)
class Frame:
    """One exposure of a camera. The arrays belong to the receiver: no driver buffer is ever handed out."""

    captured_ns: int
    sequence: int  # counts exposures: a gap says that frames were lost before they reached us
    rgb: NDArray[np.uint8]  # (H, W, 3)
    depth_m: NDArray[np.float32] | None = None  # (H, W) metric z depth aligned to rgb, 0 = invalid
    segmentation: NDArray[np.int32] | None = None  # (H, W) twin only: scene body id (0 = nothing of the scene)


@dataclass(frozen=True, slots=True)
class Intrinsics:
    """Pinhole camera, OpenCV frame: +x right, +y down, +z forward; pixel centres at integers."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    def scaled(self, width: int, height: int) -> Intrinsics:
        """The same view at another resolution (same aspect ratio, or squashed)."""
        sx, sy = width / self.width, height / self.height
        return Intrinsics(
            width, height, self.fx * sx, self.fy * sy, (self.cx + 0.5) * sx - 0.5, (self.cy + 0.5) * sy - 0.5
        )

    @property
    def matrix(self) -> Array:
        """K, (3, 3)."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])


@dataclass(frozen=True, slots=True)
class RobotNames:
    """Names of the numbers in a state and command, in their order."""

    arm_joints: tuple[str, ...]
    hand_motors: tuple[str, ...]
    robot_type: str = field(default="rm75_gor")
