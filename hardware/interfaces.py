"""The seams: what every robot and camera, twin or real, can do.

Sources *push*: a sink that was subscribed is called once for every reading, in the order of capture, from the
thread that the source lives in (the loop's own thread on the stepped twin, a driver's thread on the rig; the paced
twin draws its cameras in a thread of their own). A sink must
return quickly or block on purpose; what it is given is its own to keep.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from .clock import Clock
from .geometry import Transform
from .values import Applied, ArmState, Command, Frame, HandState, Intrinsics, RobotNames, RobotState

Unsubscribe = Callable[[], None]
RobotSink = Callable[[ArmState | HandState], None]
FrameSink = Callable[[Frame], None]


@runtime_checkable
class Robot(Protocol):
    """An arm with a hand. The twin, a driver, or a wrapper such as ``SafeRobot``."""

    names: RobotNames
    clock: Clock

    def state(self) -> RobotState:
        """Newest reading. Raises DeviceError when the robot stopped answering."""
        ...

    def send(self, command: Command) -> Applied:
        """Send an absolute target; answers with what was applied. Raises DeviceError when the link is gone."""
        ...

    def stop(self) -> None:
        """Arm slows to a stop, hand holds what it holds. Never raises."""
        ...

    def subscribe(self, sink: RobotSink) -> Unsubscribe:
        """Call ``sink`` with every arm and every hand reading, each at its own rate."""
        ...

    def close(self) -> None:
        """Release the robot. Safe to call twice."""
        ...


@runtime_checkable
class Camera(Protocol):
    """A colour camera, with depth aligned to colour where it has it."""

    name: str
    intrinsics: Intrinsics
    rate_hz: float

    def latest(self) -> Frame:
        """Newest frame. Raises DeviceError when none came for 1 s."""
        ...

    def pose(self) -> tuple[str, Transform]:
        """(parent, parent_T_camera): parent is ``world`` for the head camera, ``flange`` for the wrist's."""
        ...

    def subscribe(self, sink: FrameSink) -> Unsubscribe:
        """Call ``sink`` with every frame."""
        ...

    def close(self) -> None:
        """Release the camera. Safe to call twice."""
        ...
