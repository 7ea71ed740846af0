"""The episode session: every phase and event, and that a failure stops the robot and leaves a whole journal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dexloop.collect.operators.base import Event, OperatorInput
from dexloop.collect.session import FINAL, TRANSITIONS, EpisodeSession, Phase, SessionConfig, Verdict
from dexloop.datasets.episode import EpisodeInfo
from dexloop.hardware.clock import SteppedClock
from dexloop.hardware.errors import DeviceError
from dexloop.hardware.values import Applied, ArmState, Command, HandState, RobotState, Safety
from hypothesis import given
from hypothesis import strategies as st


class FakeRobot:
    """Goes at once where it is told; rejects what is not finite, as SafeRobot does."""

    def __init__(self) -> None:
        self.clock = SteppedClock(lambda t_ns: None)
        self.q, self.hand, self.stopped = np.zeros(7), np.ones(6), False

    def state(self) -> RobotState:
        now = self.clock.now_ns()
        arm = ArmState(now, self.q, np.zeros(7), np.zeros(7), np.zeros(6))
        return RobotState(arm, HandState(now, self.hand, np.zeros(6)))

    def send(self, command: Command) -> Applied:
        if not np.isfinite([*command.arm_q, *command.hand]).all():
            held = Command(command.captured_ns, self.q, self.hand)
            return Applied(held, self.clock.now_ns(), Safety.NOT_FINITE, "not finite")
        self.q, self.hand = command.arm_q, command.hand
        return Applied(command, self.clock.now_ns())

    def stop(self) -> None:
        self.stopped = True


class FakeRecorder:
    """Remembers the calls in their order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.applied: list[Applied] = []
        self.info: EpisodeInfo | None = None

    def begin(self, info: EpisodeInfo) -> None:
        self.calls.append("begin")

    def command(self, requested: Command, applied: Applied) -> None:
        self.applied.append(applied)

    def raw(self, name: str, captured_ns: int, array: np.ndarray) -> None:
        self.calls.append(f"raw {name}")

    def pause(self) -> None:
        self.calls.append("pause")

    def resume(self) -> None:
        self.calls.append("resume")

    def check(self) -> None:
        pass

    def end(self, info: EpisodeInfo | None = None) -> Path:
        self.calls.append("end")
        self.info = info
        return Path("journal.h5")


class Scripted:
    """Gives the listed events, one tick each, then says that it is done."""

    name = "scripted"

    def __init__(self, ticks: list[tuple[Event, ...]], value: float = 0.1) -> None:
        self.ticks, self.value, self.begun = list(ticks), value, 0

    def begin(self, state: RobotState, now_ns: int) -> None:
        self.begun += 1

    def resume(self, state: RobotState, now_ns: int) -> None:
        self.begun += 1

    def act(self, state: RobotState, now_ns: int) -> OperatorInput:
        command = Command(now_ns, np.full(7, self.value), np.ones(6))
        if not self.ticks:
            return OperatorInput(command, done=True)
        return OperatorInput(command, raw={"keys": np.zeros(1)}, events=self.ticks.pop(0))

    def close(self) -> None:
        pass


def run(ticks: list[tuple[Event, ...]], **config: object) -> tuple[Phase, FakeRecorder, EpisodeInfo]:
    recorder = FakeRecorder()
    session = EpisodeSession(FakeRobot(), Scripted(ticks), SessionConfig(**config))  # type: ignore[arg-type]
    outcome = session.run(recorder, EpisodeInfo(task="test"))
    return outcome.phase, recorder, outcome.info


def test_automatic_episode_is_recorded_and_kept() -> None:
    phase, recorder, _ = run([()] * 5)
    assert phase is Phase.KEPT
    assert [call for call in recorder.calls if not call.startswith("raw")] == ["begin", "end"]
    assert len(recorder.applied) == 1 + 5  # the hold at the start, five ticks; the tick that says done ends it


def test_automatic_failure_is_discarded_unless_failures_are_kept() -> None:
    for keep, expected in ((False, Phase.DISCARDED), (True, Phase.KEPT)):
        session = EpisodeSession(FakeRobot(), Scripted([()] * 3), SessionConfig(keep_failures=keep), lambda: False)
        outcome = session.run(FakeRecorder(), EpisodeInfo(task="test"))
        assert outcome.phase is expected
        assert outcome.info.success is False


def test_where_clean_episodes_are_wanted_one_that_safety_changed_is_discarded() -> None:
    class Clamped(FakeRobot):
        def send(self, command: Command) -> Applied:
            return Applied(command, self.clock.now_ns(), Safety.TABLE, "too low")

    for robot, clean, expected in (
        (Clamped(), True, Phase.DISCARDED),
        (Clamped(), False, Phase.KEPT),
        (FakeRobot(), True, Phase.KEPT),
    ):
        session = EpisodeSession(robot, Scripted([()] * 20), SessionConfig(clean=clean))
        assert session.run(FakeRecorder(), EpisodeInfo(task="test")).phase is expected


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([Event.START, Event.STOP, Event.KEEP], Phase.KEPT),
        ([Event.START, Event.STOP, Event.DISCARD], Phase.DISCARDED),
        ([Event.START, Event.STOP, Event.REDO], Phase.REDO),
        ([Event.START, Event.PAUSE, Event.RESUME, Event.STOP, Event.KEEP], Phase.KEPT),
        ([Event.START, Event.PAUSE, Event.REDO], Phase.REDO),
        ([Event.QUIT], Phase.QUIT),
        ([Event.START, Event.QUIT], Phase.QUIT),
        ([Event.KEEP, Event.START, Event.KEEP, Event.STOP, Event.KEEP], Phase.KEPT),  # KEEP too early is ignored
    ],
)
def test_operator_decides(events: list[Event], expected: Phase) -> None:
    phase, recorder, _ = run([(event,) for event in events], automatic=False)
    assert phase is expected
    assert recorder.calls.count("begin") == recorder.calls.count("end") == (Event.START in events)
    assert recorder.calls.count("pause") == events.count(Event.PAUSE)


def test_the_operators_label_wins_over_the_measured_one() -> None:
    session = EpisodeSession(
        FakeRobot(),
        Scripted([(Event.START,), (), (Event.STOP,), (Event.FAILURE,), (Event.KEEP,)]),
        SessionConfig(automatic=False),
        lambda: True,
    )
    assert session.run(FakeRecorder(), EpisodeInfo(task="test")).info.success is False


def test_a_note_is_kept_with_the_episode() -> None:
    class Noting(Scripted):
        def act(self, state: RobotState, now_ns: int) -> OperatorInput:
            return replace(super().act(state, now_ns), remark="slipped once" if len(self.ticks) == 1 else None)

    operator = Noting([(Event.START,), (Event.STOP,), (), (Event.KEEP,)])
    outcome = EpisodeSession(FakeRobot(), operator, SessionConfig(automatic=False)).run(
        FakeRecorder(), EpisodeInfo(task="test")
    )
    assert outcome.info.note == "slipped once"


def test_paused_moves_nothing() -> None:
    recorder = FakeRecorder()
    ticks: list[tuple[Event, ...]] = [(Event.START,), (Event.PAUSE,), (), (), (Event.STOP,), (Event.KEEP,)]
    EpisodeSession(FakeRobot(), Scripted(ticks), SessionConfig(automatic=False)).run(recorder, EpisodeInfo(task="t"))
    assert len(recorder.applied) == 2  # the hold and the tick of START


def test_not_finite_ends_with_a_clear_message_and_a_closed_journal() -> None:
    robot, recorder = FakeRobot(), FakeRecorder()
    session = EpisodeSession(robot, Scripted([()] * 100, value=float("nan")), SessionConfig())
    with pytest.raises(DeviceError, match="not finite"):
        session.run(recorder, EpisodeInfo(task="test"))
    assert robot.stopped
    assert recorder.calls[-1] == "end"
    assert np.isfinite(robot.q).all()


def test_an_endless_episode_is_stopped() -> None:
    phase, recorder, _ = run([()] * 1000, max_duration_s=1.0)
    assert phase is Phase.KEPT
    assert len(recorder.applied) <= 22


@given(st.lists(st.sampled_from(list(Event)), max_size=30))
def test_any_events_end_with_a_balanced_recorder(events: list[Event]) -> None:
    ticks: list[tuple[Event, ...]] = [(event,) for event in events]
    _, recorder, _ = run([*ticks, (Event.STOP,), (Event.QUIT,), (Event.QUIT,)], automatic=False)
    assert recorder.calls.count("begin") == recorder.calls.count("end") <= 1


def test_every_transition_leads_somewhere_and_final_phases_are_left_by_none() -> None:
    assert not [phase for phase, _ in TRANSITIONS if phase in FINAL]
    assert {phase for phase, _ in TRANSITIONS} == set(Phase) - set(FINAL)


def test_verdict_names_what_was_wrong() -> None:
    verdict = Verdict()
    command = Command(0, np.zeros(7), np.zeros(6))
    for tick in range(100):
        flags = Safety.VELOCITY | Safety.TABLE if tick < 20 else Safety.NONE
        verdict.add(Applied(command, 5_000_000, flags), late_ns=0)
    assert "velocity in 20%" in str(verdict)
    assert "table in 20%" in str(verdict)
    assert "p95 5.0 ms" in str(verdict)
