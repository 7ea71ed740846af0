"""Roll-outs of a policy as LeRobot episodes: what was seen, asked for and sent, and whether the object was held.

One episode for each run of the policy. While the robot works only journals are written, which survive a kill; they
become episodes at the end, so that nothing waits for a codec with an object in the hand.
"""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..datasets.episode import EpisodeInfo
from ..datasets.home import journals_dir
from ..datasets.intake import take_in
from ..datasets.recorder import Recorder, RecorderConfig
from ..datasets.schema import CameraSchema, Schema
from ..datasets.writer import DatasetWriter
from ..hardware.errors import BadInput, DatasetError, DexLoopError
from ..hardware.interfaces import Camera, Robot, RobotSink, Unsubscribe
from ..hardware.values import Applied, Command, RobotState
from .attempt import AttemptResult, Ending
from .eyes import Sight
from .session import Attempts

OPERATOR = "policy"


@dataclass(frozen=True)
class _RollOut:
    """A finished journal."""

    journal: Path
    info: EpisodeInfo
    pictures: Mapping[str, NDArray[np.generic]]


class RollOuts:
    """Records every attempt on one rig into the data set at ``root``. :meth:`close` turns the journals into episodes.

    The mask of an episode is what the tracker saw of the target, not a simulator's segmentation.
    """

    def __init__(
        self,
        root: Path,
        robot: Robot,
        cameras: Iterable[Camera],
        rate_hz: float,
        about: Mapping[str, Any] | None = None,
        seed: int | None = None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        """``about``: kept with every episode, as JSON; ``seed``: of the scene. Raises BadInput where the rate is no
        whole number or the set at ``root`` is of another schema, DatasetError where another process writes it."""
        if rate_hz != round(rate_hz):
            raise BadInput(f"the policy acts at {rate_hz:g} Hz, a data set has a whole number of rows per second.")
        self.root, self._seed, self._tell = root, seed, tell
        self._about = json.loads(json.dumps(dict(about or {}), default=str))
        cameras = list(cameras)
        config = RecorderConfig(depth=True, given_masks=True)
        views = ((camera.name, camera.intrinsics) for camera in cameras)
        shown = (CameraSchema(name, v.width, v.height, config.depth_unit_m.get(name, 0.0)) for name, v in views)
        self._writer = DatasetWriter(root, Schema(round(rate_hz), tuple(shown)))
        self._journals = journals_dir(root)
        self._journals.mkdir(parents=True, exist_ok=True)
        self._session = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S%f")
        self._number = self._commands = 0
        self._recorder = Recorder(robot, cameras, self._journal(), config)
        self._info = EpisodeInfo("")
        self._waiting: list[_RollOut] = []
        self.saved = self.successes = 0

    def attempts(self, attempt: Attempts, robot: Robot) -> Attempts:
        """``attempt``, which moves the robot that :meth:`robot` gave, recorded. ``robot`` is stopped when it fails."""
        return _RecordedAttempts(attempt, self, robot)

    def robot(self, robot: Robot) -> Robot:
        """``robot``, whose commands during an attempt are recorded."""
        return _RecordedRobot(robot, self)

    # -- one attempt -----------------------------------------------------------------------------------------------

    def begin(self, instruction: str) -> None:
        """From now on what cameras and robot push belongs to an attempt. Raises what the recorder raises."""
        extra: dict[str, object] = {"roll_out": self._number, "deployed": self._about}
        # A failure until it is proved otherwise: training takes what has no label for a demonstration.
        self._info = EpisodeInfo(instruction, False, operator=OPERATOR, seed=self._seed, extra=extra)
        self._commands = 0
        self._recorder.begin(self._info, self._journal())
        self._number += 1

    def command(self, requested: Command, applied: Applied) -> None:
        """What the policy asked for and what was sent. Raises what stopped the recording."""
        if self._recorder.recording:
            self._commands += 1
            self._recorder.command(requested, applied)

    def see(self, sight: Sight) -> None:
        """The target's mask in the picture that the policy saw."""
        if self._recorder.recording and sight.mask is not None:
            self._recorder.mask(sight.look.captured_ns, sight.mask.visible)

    def end(self, result: AttemptResult | None, fault: str = "") -> None:
        """The attempt is over, ``result`` None where it was stopped by a ``fault``."""
        ending = "stopped" if result is None else result.ending.name.lower()
        extra = self._info.extra | {"ending": ending, "reason": fault if result is None else result.reason}
        success = result is not None and result.ending is Ending.HELD
        self._info = replace(self._info, success=success, note=fault, extra=extra)
        journal = self._recorder.end(self._info)
        if self._commands:
            self._waiting.append(_RollOut(journal, self._info, self._recorder.statistics_pictures()))
        else:
            journal.unlink(missing_ok=True)  # it never acted

    def _journal(self) -> Path:
        return self._journals / f"{self._session}-{self._number:06d}.journal.h5"

    # -- the data set ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Save what was recorded. Journals that cannot be saved stay, and are told of. Safe to call twice."""
        waiting, self._waiting = self._waiting, []
        try:
            for roll_out in waiting:
                self._save(roll_out)
        finally:
            self._writer.close()
            if self._journals.is_dir() and not any(self._journals.iterdir()):
                self._journals.rmdir()

    def _save(self, roll_out: _RollOut) -> None:
        try:
            index, episode = take_in(self._writer, roll_out.journal, roll_out.info, roll_out.pictures)
        except DatasetError as error:  # one that cannot be saved must not take the others with it
            self._tell(f"not saved: {error}")
            return
        self.saved += 1
        self.successes += roll_out.info.success is True
        label = "success" if roll_out.info.success else "failure"
        seconds = episode.rows / episode.rate_hz
        self._tell(f"episode_{index} of {self.root}: {roll_out.info.task!r}, {seconds:.1f} s, {label}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class _RecordedAttempts:
    """Begins and ends an episode around every attempt."""

    def __init__(self, attempts: Attempts, roll_outs: RollOuts, robot: Robot) -> None:
        self._attempts, self._roll_outs, self._robot = attempts, roll_outs, robot

    def run(self, instruction: str, first: Sight) -> AttemptResult:
        self._roll_outs.begin(instruction)
        try:
            result = self._attempts.run(instruction, first)
        except BaseException as error:
            self._robot.stop()  # before anything is written
            with contextlib.suppress(DexLoopError):  # what stopped the recording was raised already
                self._roll_outs.end(None, str(error) or type(error).__name__)
            raise
        self._roll_outs.end(result)
        return result


class _RecordedRobot:
    """A ``Robot`` that hands on everything, and tells of its commands."""

    def __init__(self, robot: Robot, roll_outs: RollOuts) -> None:
        self._robot, self._roll_outs = robot, roll_outs
        self.names, self.clock = robot.names, robot.clock

    def state(self) -> RobotState:
        return self._robot.state()

    def send(self, command: Command) -> Applied:
        applied = self._robot.send(command)
        self._roll_outs.command(command, applied)
        return applied

    def stop(self) -> None:
        self._robot.stop()

    def subscribe(self, sink: RobotSink) -> Unsubscribe:
        return self._robot.subscribe(sink)

    def close(self) -> None:
        self._robot.close()
