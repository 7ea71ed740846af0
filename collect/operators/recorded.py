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
        self._tracked = False

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
        """Where hand and arm are now on their way to the newest sample that is due; None while the hand is lost."""
        due = int(np.searchsorted(self._sample_ns, now_ns - self._start_ns, side="right"))
        done, fresh = due >= len(self._sample_ns), due > self._next
        for i in range(self._next, due):
            self._follow(i)
        self._next = due
        if due == 0:
            return OperatorInput(None)
        captured_ns = self._start_ns + int(self._sample_ns[due - 1])
        raw: dict[str, NDArray[np.generic]] = {}
        if fresh:
            raw["hand_keypoints"] = self.recording.keypoints_m[due - 1]
            if self.recording.world_T_hand is not None:
                raw["wrist"] = self.recording.world_T_hand[due - 1]
        if not self._tracked:
            note = f"hand lost at {self._sample_ns[due - 1] / NS:.2f} s: holding" if fresh else ""
            return OperatorInput(None, raw, captured_ns, note=note, done=done)
        now_s = float(self.recording.time_s[0]) + (now_ns - self._start_ns) / NS
        if self.recording.world_T_hand is not None:
            self._arm_q = self._wrist.advance(now_s)
        command = Command(captured_ns, self._arm_q.copy(), self._hand.advance(now_s))
        return OperatorInput(command, raw, captured_ns, done=done)

    def close(self) -> None:
        """Nothing to release."""

    def _follow(self, index: int) -> None:
        """Retarget sample ``index``."""
        time_s = float(self.recording.time_s[index])
        result = self._hand.retarget(self.recording.keypoints_m[index], time_s)
        if self.recording.world_T_hand is not None:
            if not result.tracked:
                self._wrist.release()
            elif not self._wrist.engaged:
                self._wrist.engage()
            self._wrist.retarget(self.recording.world_T_hand[index], time_s)
        self._tracked = result.tracked
