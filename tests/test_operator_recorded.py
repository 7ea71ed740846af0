"""The recorded operator: plays by the file's own times, loses nothing, invents nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dexloop.collect.operators.base import Operator
from dexloop.collect.operators.recorded import RecordedOperator
from dexloop.hardware.clock import NS
from dexloop.hardware.description import OPEN_HAND, RETURN_ARM_Q
from dexloop.hardware.errors import BadInput
from dexloop.hardware.geometry import transform
from dexloop.hardware.hand_kinematics import HandKinematics
from dexloop.hardware.values import ArmState, HandState, RobotState
from dexloop.retarget.calibration import HandCalibration
from dexloop.retarget.keypoints import HandRecording, load_recording

SHARED = Path(__file__).parents[1].parent / "shared" / "data" / "human_hand_right.npz"
HAND = HandKinematics()
START_NS = 7 * NS


def state(arm_q: np.ndarray | None = None) -> RobotState:
    q = np.array(RETURN_ARM_Q) if arm_q is None else arm_q
    arm = ArmState(0, q, np.zeros(7), np.zeros(7), np.zeros(6))
    return RobotState(arm, HandState(0, np.array(OPEN_HAND), np.zeros(6)))


def hand_points(count: int = 60) -> np.ndarray:
    t = np.arange(count)[:, None] / 30
    return HAND.keypoints(np.tile(0.65 + 0.25 * np.cos(2 * np.pi * 0.5 * t), 6))


def recording(count: int = 60, poses: bool = False, lost: slice | None = None) -> HandRecording:
    points = hand_points(count)
    world_T_hand = None
    if poses:
        shift = np.linspace(0, 0.06, count)[:, None] * np.array([0.0, 0.0, 1.0])
        world_T_hand = transform(None, shift + np.array([0.3, 0.2, 1.1]))
    if lost is not None:
        points[lost] = np.nan
        if world_T_hand is not None:
            world_T_hand[lost] = np.nan
    return HandRecording(points, 100.0 + np.arange(count) / 30, world_T_hand)


def play(operator: RecordedOperator, rate_hz: float = 20.0, limit_s: float = 10.0) -> list:
    operator.begin(state(), START_NS)
    answers = []
    for i in range(int(limit_s * rate_hz)):
        now_ns = START_NS + round(i * NS / rate_hz)
        answers.append((now_ns, operator.act(state(), now_ns)))
        if answers[-1][1].done:
            break
    return answers


def test_follows_the_protocol() -> None:
    assert isinstance(RecordedOperator(recording(), calibration=HandCalibration()), Operator)


@pytest.mark.parametrize("rate_hz", [10.0, 20.0, 60.0])
def test_plays_by_its_own_times(rate_hz: float) -> None:
    answers = play(RecordedOperator(recording()), rate_hz)
    assert answers[-1][1].done
    assert answers[-1][0] - START_NS == pytest.approx(59 / 30 * NS, abs=NS / rate_hz + 1)
    captured = [a.command.captured_ns for _, a in answers if a.command is not None]
    assert (np.diff(captured) >= 0).all()
    assert len(captured) == len(answers), "a command at every tick, also between samples"
    for now_ns, answer in answers:
        if answer.command is None:
            continue
        age_ns = now_ns - answer.command.captured_ns
        assert 0 <= age_ns < NS / 30 + 2, "the newest sample that is due, never one from the future"
        assert answer.raw_captured_ns == answer.command.captured_ns
        index = round((answer.command.captured_ns - START_NS) * 30 / NS)
        if answer.raw:
            assert np.array_equal(answer.raw["hand_keypoints"], hand_points()[index])
    journalled = [a.raw_captured_ns for _, a in answers if a.raw]
    assert (np.diff(journalled) > 0).all(), "a sample is journalled once"
    assert len(journalled) == min(60, len(answers))


def test_slow_sessions_skip_no_sample() -> None:
    """At 10 Hz and 60 Hz every sample went through the filter: the hand ends at the same place, near enough."""
    slow = play(RecordedOperator(recording()), 10.0)[-1][1].command
    fast = [a.command for _, a in play(RecordedOperator(recording()), 60.0) if a.command is not None][-1]
    assert np.allclose(slow.hand, fast.hand, atol=0.02)


def test_without_wrist_poses_the_arm_stays() -> None:
    for _, answer in play(RecordedOperator(recording())):
        if answer.command is not None:
            assert np.array_equal(answer.command.arm_q, RETURN_ARM_Q)
            assert "wrist" not in answer.raw


def test_with_wrist_poses_the_arm_follows_from_where_it_stands() -> None:
    operator = RecordedOperator(recording(poses=True))
    commands = [a.command for _, a in play(operator) if a.command is not None]
    assert np.allclose(commands[0].arm_q, RETURN_ARM_Q)
    before = operator._wrist.world_T_palm(commands[0].arm_q)
    after = operator._wrist.world_T_palm(commands[-1].arm_q)
    assert np.allclose(after[:3, 3] - before[:3, 3], [0, 0, 0.06], atol=0.01)


def test_a_lost_hand_holds_and_says_so() -> None:
    operator = RecordedOperator(recording(poses=True, lost=slice(20, 40)))
    answers = play(operator)
    during = [a for t, a in answers if 20 / 30 * NS + NS / 30 < t - START_NS < 39 / 30 * NS]
    assert during
    assert all(a.command is None for a in during)
    assert any("lost" in a.note for a in during)
    commands = [a.command for _, a in answers if a.command is not None]
    steps = np.abs(np.diff([c.hand for c in commands], axis=0)).max(axis=1)
    assert steps.max() < 0.15, "nothing jumps when it comes back"
    arm_steps = np.abs(np.diff([c.arm_q for c in commands], axis=0)).max()
    assert arm_steps < 0.1


def test_starts_at_the_robots_opening() -> None:
    first = play(RecordedOperator(recording()))[0][1].command
    assert np.allclose(first.hand, OPEN_HAND)


def test_resume_goes_on_without_a_jump() -> None:
    operator = RecordedOperator(recording(120))
    operator.begin(state(), START_NS)
    last = None
    for i in range(40):
        answer = operator.act(state(), START_NS + i * NS // 20)
        last = answer.command or last
    operator.resume(state(), START_NS + 2 * NS)
    after = operator.act(state(), START_NS + 2 * NS + NS // 20).command
    assert np.abs(after.hand - last.hand).max() < 0.01
    operator.close()
    operator.close()


def test_bad_file() -> None:
    with pytest.raises(BadInput, match="No hand file"):
        RecordedOperator(Path("/nowhere/hand.npz"))


@pytest.mark.skipif(not SHARED.is_file(), reason="no shared recording beside the repository")
def test_the_real_recording_plays() -> None:
    operator = RecordedOperator(load_recording(SHARED))
    answers = play(operator, 60.0, 15.0)
    assert answers[-1][1].done
    commands = np.array([a.command.hand for _, a in answers if a.command is not None])
    assert len(commands) == len(answers)
    assert sum(bool(a.raw) for _, a in answers) == 420
    assert commands.min() >= 0.0
    assert commands.max() <= 1.0
    assert (commands.max(axis=0) - commands.min(axis=0) > 0.5).all(), "every motor moves"
