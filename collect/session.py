"""One episode from "may start" to "kept or not": an explicit state machine and the loop that drives it.

The loop reads the robot, asks the operator, sends through ``SafeRobot``, records, and waits for the next deadline of
the rig's clock. It knows neither which clock that is nor who operates.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from ..datasets.episode import LEARN_FROM, EpisodeInfo
from ..hardware.clock import NS
from ..hardware.errors import DeviceError
from ..hardware.interfaces import Robot
from ..hardware.values import Applied, Command, RobotState, Safety
from .operators.base import Event, Operator, OperatorInput


class Phase(enum.Enum):
    """Where an episode stands."""

    IDLE = "idle"  # waiting for the operator to start
    RECORDING = "recording"
    PAUSED = "paused"
    REVIEW = "review"  # recorded, not yet decided
    KEPT = "kept"
    DISCARDED = "discarded"
    REDO = "redo"  # discarded, and the same scene again
    QUIT = "quit"  # discarded if it was running, and no further episode


FINAL = (Phase.KEPT, Phase.DISCARDED, Phase.REDO, Phase.QUIT)

# What each event does in each phase. An event that is not listed for a phase is ignored, and the operator told so.
TRANSITIONS: dict[tuple[Phase, Event], Phase] = {
    (Phase.IDLE, Event.START): Phase.RECORDING,
    (Phase.IDLE, Event.QUIT): Phase.QUIT,
    (Phase.RECORDING, Event.PAUSE): Phase.PAUSED,
    (Phase.RECORDING, Event.STOP): Phase.REVIEW,
    (Phase.RECORDING, Event.DISCARD): Phase.DISCARDED,
    (Phase.RECORDING, Event.REDO): Phase.REDO,
    (Phase.RECORDING, Event.QUIT): Phase.QUIT,
    (Phase.PAUSED, Event.RESUME): Phase.RECORDING,
    (Phase.PAUSED, Event.START): Phase.RECORDING,
    (Phase.PAUSED, Event.STOP): Phase.REVIEW,
    (Phase.PAUSED, Event.DISCARD): Phase.DISCARDED,
    (Phase.PAUSED, Event.REDO): Phase.REDO,
    (Phase.PAUSED, Event.QUIT): Phase.QUIT,
    (Phase.REVIEW, Event.KEEP): Phase.KEPT,
    (Phase.REVIEW, Event.DISCARD): Phase.DISCARDED,
    (Phase.REVIEW, Event.REDO): Phase.REDO,
    (Phase.REVIEW, Event.QUIT): Phase.QUIT,
}


class EpisodeRecorder(Protocol):
    """What the session asks of the recorder (:class:`dexloop.datasets.recorder.Recorder`)."""

    def begin(self, info: EpisodeInfo) -> None: ...
    def command(self, requested: Command, applied: Applied) -> None: ...
    def raw(self, name: str, captured_ns: int, array: np.ndarray) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def check(self) -> None: ...
    def end(self, info: EpisodeInfo | None = None) -> Path: ...


@dataclass(frozen=True)
class SessionConfig:
    """How an episode is run."""

    rate_hz: float = 20.0
    automatic: bool = True  # start at once, stop when the operator is done; False: the operator's events decide
    keep_failures: bool = False  # automatic only: keep episodes that did not succeed, labelled as such
    clean: bool = False  # automatic only: keep only episodes that the verdict has no complaint about
    max_duration_s: float = 60.0
    not_finite_limit_s: float = 0.5  # commands that are not finite for this long end the episode


@dataclass
class Verdict:
    """What an operator wants to know before keeping an episode: counts over its ticks."""

    ticks: int = 0
    late_ticks: int = 0
    flags: Counter[str] = field(default_factory=Counter)
    latency_ns: list[int] = field(default_factory=list)

    def add(self, applied: Applied, late_ns: int, example: bool = True) -> None:
        """``example``: False for a policy's command, of which nobody expects that safety leaves it as it is."""
        self.ticks += 1
        self.late_ticks += late_ns > 0
        for flag in applied.flags if example else ():
            self.flags[str(flag.name).lower()] += 1
        self.latency_ns.append(applied.sent_ns - applied.command.captured_ns)

    @property
    def complaints(self) -> list[str]:
        """Reasons to record again, empty when the episode is clean."""
        if not self.ticks:
            return ["nothing was commanded"]
        found = []
        for name, count in sorted(self.flags.items()):
            share = count / self.ticks
            if share > (0.02 if name in ("stale", "not_finite") else 0.1):
                found.append(f"{name} in {share:.0%} of the commands")
        if self.late_ticks / self.ticks > 0.02:
            found.append(f"{self.late_ticks} of {self.ticks} ticks late")
        return found

    def __str__(self) -> str:
        latency_ms = float(np.percentile(self.latency_ns, 95)) / 1e6 if self.latency_ns else 0.0
        quality = "; ".join(self.complaints) or "clean"
        return f"{quality} (input-to-command latency p95 {latency_ms:.1f} ms)"


@dataclass(frozen=True)
class Outcome:
    """How an episode ended. ``journal`` is its file, whole whether kept or not."""

    phase: Phase  # one of FINAL
    journal: Path | None
    info: EpisodeInfo
    verdict: Verdict


class EpisodeSession:
    """Runs episodes on one robot with one operator.

    Args:
        robot: already wrapped in ``SafeRobot``.
        measure: whether the task is done, as far as the rig can tell (None = it cannot tell); asked every tick.
        tell: shows one line to the operator.
    """

    def __init__(
        self,
        robot: Robot,
        operator: Operator,
        config: SessionConfig,
        measure: Callable[[], bool | None] = lambda: None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._robot = robot
        self._operator = operator
        self._config = config
        self._measure = measure
        self._tell = tell
        self.phase = Phase.IDLE

    def run(self, recorder: EpisodeRecorder, info: EpisodeInfo) -> Outcome:
        """One episode. Raises what the operator, robot or recorder raise, after stopping the robot."""
        self.phase = Phase.IDLE
        episode = _Episode(self._robot, self._operator, recorder, self._config, info, self._measure)
        try:
            return self._loop(episode, recorder)
        except BaseException:
            self._robot.stop()
            episode.close()
            raise

    def _loop(self, episode: _Episode, recorder: EpisodeRecorder) -> Outcome:
        period_ns = round(NS / self._config.rate_hz)
        clock = self._robot.clock
        self._operator.begin(self._robot.state(), clock.now_ns())
        deadline_ns = clock.now_ns()
        while self.phase not in FINAL:
            deadline_ns += period_ns
            late_ns = clock.sleep_until_ns(deadline_ns)
            answer = self._operator.act(self._robot.state(), clock.now_ns())
            if answer.note:
                self._tell(answer.note)
            if answer.remark is not None:
                episode.note(answer.remark)
                self._tell(f"noted: {answer.remark}")
            for event in self._events(answer, episode):
                self._handle(event, episode)
            if self.phase is Phase.RECORDING:
                episode.step(answer, late_ns)
            elif self.phase is Phase.PAUSED:
                recorder.check()  # nothing else would tell of a camera that stops meanwhile
        return episode.outcome(self.phase)

    def _events(self, answer: OperatorInput, episode: _Episode) -> list[Event]:
        """The operator's events, and those that an automatic session gives itself."""
        events = list(answer.events)
        if self._config.automatic:
            if self.phase is Phase.IDLE:
                events.insert(0, Event.START)
            elif self.phase is Phase.RECORDING and answer.done:
                events.append(Event.STOP)
            elif self.phase is Phase.REVIEW:
                good = episode.info.success is not False
                good &= not (self._config.clean and episode.verdict.complaints)
                keep = self._config.keep_failures or good
                events.append(Event.KEEP if keep else Event.DISCARD)
        elif self.phase is Phase.RECORDING and answer.done:
            events.append(Event.STOP)
        if self.phase is Phase.RECORDING and episode.duration_s >= self._config.max_duration_s:
            self._tell(f"stopped: an episode lasts at most {self._config.max_duration_s:g} s")
            events.append(Event.STOP)
        return events

    def _handle(self, event: Event, episode: _Episode) -> None:
        if event in (Event.SUCCESS, Event.FAILURE):
            episode.label(event is Event.SUCCESS)
            self._tell(f"labelled {event.value}")
            return
        before, after = self.phase, TRANSITIONS.get((self.phase, event))
        if after is None:
            self._tell(f"{event.value} does nothing while {self.phase.value}")
            return
        self.phase = after
        if before is Phase.IDLE and after is Phase.RECORDING:
            episode.begin()
        elif after is Phase.PAUSED:
            episode.pause()
        elif before is Phase.PAUSED and after is Phase.RECORDING:
            episode.resume()
        elif before in (Phase.RECORDING, Phase.PAUSED):
            episode.end()
            if after is Phase.REVIEW:
                self._tell(f"recorded {episode.duration_s:.1f} s, {episode.verdict}")


class _Episode:
    """The recording part of one episode: what is known of it, and its recorder."""

    def __init__(
        self,
        robot: Robot,
        operator: Operator,
        recorder: EpisodeRecorder,
        config: SessionConfig,
        info: EpisodeInfo,
        measure: Callable[[], bool | None],
    ) -> None:
        self._robot = robot
        self._operator = operator
        self._recorder = recorder
        self._config = config
        self._measure = measure
        self._labelled = False
        self._open = False
        self._not_finite_ticks = 0
        self._journal: Path | None = None
        self.info = info
        self.verdict = Verdict()

    @property
    def duration_s(self) -> float:
        return self.verdict.ticks / self._config.rate_hz

    def begin(self) -> None:
        self._recorder.begin(self.info)
        self._open = True
        # A command in force from the first row on: hold where we are.
        self._hold(self._robot.state())

    def _hold(self, state: RobotState) -> None:
        hold = Command(self._robot.clock.now_ns(), state.arm.q, state.hand.opening)
        self._recorder.command(hold, self._robot.send(hold))

    def step(self, answer: OperatorInput, late_ns: int) -> None:
        """Send and record one tick's answer."""
        now_ns = self._robot.clock.now_ns()
        for name, array in answer.raw.items():
            self._recorder.raw(name, answer.raw_captured_ns or now_ns, np.asarray(array))
        if not answer.example:
            learn_from_s = (self.verdict.ticks + 1) / self._config.rate_hz
            self.info = replace(self.info, extra={**self.info.extra, LEARN_FROM: learn_from_s})
        if answer.command is not None:
            applied = self._robot.send(answer.command)
            self._recorder.command(answer.command, applied)
            self.verdict.add(applied, late_ns, answer.example)
            self._watch_finite(answer.command, applied)
        else:
            self._recorder.check()
            self.verdict.ticks += 1
        done = self._measure()
        if done is not None and not self._labelled:
            self.info = replace(self.info, success=done)

    def _watch_finite(self, command: Command, applied: Applied) -> None:
        self._not_finite_ticks = self._not_finite_ticks + 1 if Safety.NOT_FINITE in applied.flags else 0
        if self._not_finite_ticks > self._config.not_finite_limit_s * self._config.rate_hz:
            raise DeviceError(
                f"the {self._operator.name} operator gave commands that are not finite for "
                f"{self._config.not_finite_limit_s:g} s (last: arm {np.asarray(command.arm_q).tolist()}, hand "
                f"{np.asarray(command.hand).tolist()}). None of them moved the robot; check the input device, then "
                "record the episode again."
            )

    def note(self, text: str) -> None:
        self.info = replace(self.info, note=text)

    def label(self, success: bool) -> None:
        self._labelled = True
        self.info = replace(self.info, success=success)

    def pause(self) -> None:
        self._recorder.pause()

    def resume(self) -> None:
        self._recorder.resume()
        self._operator.resume(self._robot.state(), self._robot.clock.now_ns())

    def end(self) -> None:
        self._open = False
        self._journal = self._recorder.end(self.info)

    def close(self) -> None:
        """After a failure: leave the journal whole. Errors of the recorder itself were raised already."""
        if self._open:
            self._open = False
            self._journal = self._recorder.end(self.info)

    def outcome(self, phase: Phase) -> Outcome:
        return Outcome(phase, self._journal, self.info, self.verdict)
