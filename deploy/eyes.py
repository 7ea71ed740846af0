"""What the loop sees: pictures, the target's mask and the robot's state of one moment, never of two.

A policy that is shown this picture with the last one's mask takes the target for where it was. So everything of a
:class:`Sight` belongs to one moment: the head camera's newest picture, the state that was read with it, and the mask
computed on that very picture. The wrist camera is asked only by those who look at what it sees, within the same tick: a
planner about the hand, a policy that has learnt from it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from ..hardware.clock import NS
from ..hardware.errors import DeviceError
from ..hardware.interfaces import Camera, Robot
from ..hardware.rig import DEXGRASPVLA_RIG
from ..hardware.values import Frame
from ..train.views import Observation
from .masks.base import MaskTracker, TargetMask
from .masks.silhouette import Silhouette
from .planner.base import Box, FullLook, Look

_HEAD = DEXGRASPVLA_RIG.camera("head")
OLDEST_S = 0.25
"""A picture older than this is no picture of now: SafeRobot refuses commands that are made from it."""
ROBOT_PX = 7  # its silhouette grows by half of that: joints and calibration are not exact
WAIT_S = 1.0
"""How long a newer one is waited for."""


@dataclass(frozen=True)
class Sight:
    """One moment."""

    look: Look
    mask: TargetMask | None  # None while nothing is tracked


class Eyes:
    """Head and wrist camera, the robot, and a tracker. ``see`` once per tick: the tracker follows from picture to
    picture."""

    def __init__(self, robot: Robot, cameras: Mapping[str, Camera], tracker: MaskTracker) -> None:
        for name in ("head", "wrist"):
            if name not in cameras:
                raise DeviceError(f"there is no {name} camera, only {', '.join(cameras) or 'none'}: connect it.")
        self._robot = robot
        self._head, self._wrist = cameras["head"], cameras["wrist"]
        self._tracker = tracker
        self._silhouette = Silhouette()
        self._mask: TargetMask | None = None
        self._sight: Sight | None = None

    def look(self) -> FullLook:
        """This moment without a target. Raises DeviceError where a camera has stopped."""
        return self.whole(self._look())

    def whole(self, look: Look) -> FullLook:
        """``look``, which is of this tick, and what the wrist camera sees. Raises DeviceError where it has stopped."""
        wrist = self._fresh(self._wrist)
        return FullLook(
            look.captured_ns, look.head, look.head_depth_m, look.state, look.target,
            wrist=wrist.rgb, wrist_depth_m=_depth(wrist, "wrist"),
        )  # fmt: skip

    def observation(self, sight: Sight, cameras: Collection[str]) -> Observation:
        """What a policy that looks at ``cameras`` gets of ``sight``, which is of this tick: the visible mask, and the
        head camera's pictures at least. Raises DeviceError while nothing is tracked."""
        if sight.mask is None:
            raise DeviceError("the policy was asked to act while no target is tracked: ground an instruction first.")
        look = sight.look
        rgb, depth_m = {"head": look.head}, {"head": look.head_depth_m}
        if "wrist" in cameras:
            whole = self.whole(look)
            rgb["wrist"], depth_m["wrist"] = whole.wrist, whole.wrist_depth_m
        return Observation(np.asarray(look.state, np.float32), rgb, depth_m, sight.mask.visible)

    def _look(self) -> Look:
        head = self._fresh(self._head)
        state = self._robot.state()
        return Look(head.captured_ns, head.rgb, _depth(head, "head"), np.concatenate([state.arm.q, state.hand.opening]))

    def _fresh(self, camera: Camera) -> Frame:
        """The camera's newest picture; waits for one where the last is old, as after a pause."""
        clock = self._robot.clock
        begun_ns = clock.now_ns()
        while True:
            frame = camera.latest()
            now_ns = clock.now_ns()
            age_s = (now_ns - frame.captured_ns) / NS
            if age_s <= OLDEST_S:
                return frame
            if now_ns - begun_ns > WAIT_S * NS:
                raise DeviceError(
                    f"the {camera.name} camera's newest picture is {age_s:.2f} s old, expected at most {OLDEST_S} s: "
                    "look at its cable and the computer's load."
                )
            clock.sleep_until_ns(now_ns + NS // 50)

    def aim(self, box: Box) -> Sight:
        """Begin to track what is in ``box`` (pixels of the head picture of now)."""
        look = self._look()
        self._mask = self._tracker.start(look.head, look.head_depth_m, box, look.state)
        return self._remember(look)

    def see(self) -> Sight:
        """This moment with the target's mask, if one is tracked. The same picture gives the same sight."""
        look = self._look()
        if self._sight is not None and look.captured_ns == self._sight.look.captured_ns:
            return self._sight
        if self._mask is not None:
            self._mask = self._tracker.update(look.head, look.head_depth_m, look.state)
        return self._remember(look)

    def see_past_robot(self, cameras: Collection[str]) -> Observation:
        """This moment for a policy that looks at ``cameras`` and chooses a grasp with the hand in view: head depth is 0
        where the robot is."""
        observation = self.observation(self.see(), cameras)
        head = observation.depth_m["head"]
        height, width = head.shape
        covered = self._silhouette.covers(observation.state, _HEAD.intrinsics.scaled(width, height))
        robot = cv2.dilate(covered.astype(np.uint8), np.ones((ROBOT_PX, ROBOT_PX), np.uint8))
        return replace(observation, depth_m={**observation.depth_m, "head": np.where(robot, np.float32(0.0), head)})

    def drop(self) -> None:
        """Track nothing any more."""
        self._mask = self._sight = None

    def _remember(self, look: Look) -> Sight:
        mask = self._mask
        self._sight = Sight(look if mask is None else replace(look, target=mask.visible), mask)
        return self._sight


def _depth(frame: Frame, name: str) -> NDArray[np.float32]:
    depth = frame.depth_m
    if depth is None:
        raise DeviceError(f"the {name} camera gives no depth: switch it on, masks and the policy need it.")
    return depth
