"""Plays a file of recorded hand key points, and wrist poses where it has them, by its own times.

Every sample passes through the retargeters once and in order, also where the session asks less often than the file
has samples. Without wrist poses the arm stays where the episode began: no movement is made up.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...hardware.clock import NS
from ...hardware.description import RigDescription
from ...hardware.hand_kinematics import HandKinematics
from ...hardware.rig import DEXGRASPVLA_RIG
from ...hardware.values import Command, RobotState
from ...retarget.calibration import HandCalibration, calibrate
from ...retarget.hand import HandRetargetConfig, HandRetargeter
from ...retarget.keypoints import HandRecording, load_recording
from ...retarget.wrist import WristRetargetConfig, WristRetargeter
from .base import OperatorInput

Array = NDArray[np.float64]


class RecordedOperator:
    """An operator whose hand was recorded (``docs/hand_files.md``).

    ``calibration=None`` fits one to the recording itself. Raises BadInput for a file that is not a hand recording.
    """

    name = "recorded"

    def __init__(
        self,
        recording: HandRecording | Path,
        rig: RigDescription = DEXGRASPVLA_RIG,
        calibration: HandCalibration | None = None,
        hand_config: HandRetargetConfig | None = None,
        wrist_config: WristRetargetConfig | None = None,
    ) -> None:
        self.recording = load_recording(recording) if isinstance(recording, Path) else recording
        mount = rig.arms[0]
        kinematics = HandKinematics(mount.hand)
        self.calibration = calibration or calibrate(self.recording.keypoints_m, kinematics)
        self._hand = HandRetargeter(kinematics, self.calibration, hand_config)
        self._wrist = WristRetargeter(mount, rig.workspace_m, wrist_config)
        self._sample_ns = np.round((self.recording.time_s - self.recording.time_s[0]) * NS).astype(np.int64)  # (N,)
        self._next = len(self._sample_ns)
        self._start_ns = 0

    def begin(self, state: RobotState, now_ns: int) -> None:
        """From the first sample. The hand goes to the operator's at its own speed; the arm starts where it stands."""
        self._start_ns, self._next = now_ns, 0
        self._arm_q: Array = state.arm.q.copy()
        self._hand.reset(state.hand.opening, meet=False)
        self._wrist.reset(state.arm.q)

    def resume(self, state: RobotState, now_ns: int) -> None:
        """After a pause. The recording ran on meanwhile, as a person would have; hand and arm meet it without a jump.

        They go on from the last command, not from what was measured: a grasp presses with the difference.
        """
        self._hand.release()
        self._wrist.release()

    def act(self, state: RobotState, now_ns: int) -> OperatorInput:
        """The command of the newest sample that is due; None while none is new or the hand is lost."""
        due = int(np.searchsorted(self._sample_ns, now_ns - self._start_ns, side="right"))
        done = due >= len(self._sample_ns)
        if due <= self._next:
            return OperatorInput(None, done=done)
        tracked, hand = False, state.hand.opening
        for i in range(self._next, due):
            hand, tracked = self._follow(i)
        newest = due - 1
        self._next = due
        captured_ns = self._start_ns + int(self._sample_ns[newest])
        raw: dict[str, NDArray[np.generic]] = {"hand_keypoints": self.recording.keypoints_m[newest]}
        if self.recording.world_T_hand is not None:
            raw["wrist"] = self.recording.world_T_hand[newest]
        command = Command(captured_ns, self._arm_q.copy(), hand) if tracked else None
        note = "" if tracked else f"hand lost at {self._sample_ns[newest] / NS:.2f} s: holding"
        return OperatorInput(command, raw, captured_ns, note=note, done=done)

    def close(self) -> None:
        """Nothing to release."""

    def _follow(self, index: int) -> tuple[Array, bool]:
        """Retarget sample ``index``: the hand's opening (6,) and whether the hand was tracked."""
        time_s = float(self.recording.time_s[index])
        result = self._hand.retarget(self.recording.keypoints_m[index], time_s)
        if self.recording.world_T_hand is not None:
            if not result.tracked:
                self._wrist.release()
            elif not self._wrist.engaged:
                self._wrist.engage()
            self._arm_q = self._wrist.retarget(self.recording.world_T_hand[index], time_s).arm_q
        return result.opening, result.tracked
