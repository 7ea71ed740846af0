"""Corrections: a policy first, then the script from where it got, and what the policy did is no example."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dexloop.cli import main
from dexloop.collect.operators.base import Event, OperatorInput
from dexloop.collect.operators.correct import CorrectConfig, CorrectOperator
from dexloop.collect.operators.script import ScriptConfig, ScriptOperator
from dexloop.datasets.episode import LEARN_FROM
from dexloop.datasets.reader import DatasetReader
from dexloop.hardware.clock import NS
from dexloop.hardware.description import START_ARM_Q
from dexloop.hardware.errors import BadInput
from dexloop.hardware.safety import SafeRobot
from dexloop.hardware.twin.scenes import sample_scene
from dexloop.hardware.twin.success import LiftSuccess
from dexloop.hardware.twin.world import TwinConfig, TwinWorld
from dexloop.train.views import Observation
from numpy.typing import NDArray

PERIOD_NS = NS // 20
POLICY = Path(__file__).parents[1] / "deploy" / "policy"


class Drifting:
    """Lowers the arm a little from wherever it is; the hand does what it is told."""

    def __init__(self, hand: float) -> None:
        self.hand, self.started = hand, 0

    def start(self, observation: Observation) -> None:
        self.started += 1
        assert observation.mask.any()

    def chunk(self, observation: Observation, left: NDArray[np.float64]) -> NDArray[np.float64]:
        q = observation.state[:7] + np.linspace(0, 1, 32)[:, None] * np.array([0, 0.06, 0, 0, 0, 0, 0])
        return np.concatenate([q, np.full((32, 6), self.hand)], 1)


def play(policy: object, config: CorrectConfig, seconds: float = 40.0) -> tuple[bool, list[OperatorInput]]:
    """One episode through SafeRobot: lifted and held, and every answer."""
    scene = sample_scene(3, "train", 1)
    world = TwinWorld(TwinConfig(camera_size=(160, 120), camera_rate_hz=20, segmentation=True), scene)
    script = ScriptOperator(world, ScriptConfig(miss_rate=0.0, place=False, rehearsals=4), 3)
    operator = CorrectOperator(world, script, policy, config, 3)  # type: ignore[arg-type]
    success = LiftSuccess(world, scene.target)
    world.robot.subscribe(success)
    robot = SafeRobot(world.robot, world.rig)
    operator.begin(robot.state(), world.clock.now_ns())
    answers: list[OperatorInput] = []
    deadline_ns = world.clock.now_ns()
    while deadline_ns < seconds * NS and not (answers and answers[-1].done):
        deadline_ns += PERIOD_NS
        world.clock.sleep_until_ns(deadline_ns)
        answers.append(operator.act(robot.state(), world.clock.now_ns()))
        if answers[-1].events:
            break
        command = answers[-1].command
        assert command is not None
        robot.send(command)
    operator.close()
    world.close()
    return success.achieved, answers


@pytest.mark.parametrize("hand", [1.0, 0.4])
def test_the_script_goes_on_from_where_the_policy_got(hand: float) -> None:
    """Open: straight to a grasp. Closed: it lets go first."""
    lifted, answers = play(Drifting(hand), CorrectConfig(after_s=(1.0, 1.0)))
    driven = [answer for answer in answers if not answer.example]
    assert lifted
    first = len(driven)
    assert first == 19  # of 20 a second, the first one period after the start
    assert all(answer.example for answer in answers[first:])
    before, after = driven[-1].command, answers[first].command
    assert before is not None
    assert after is not None
    assert np.abs(before.arm_q - START_ARM_Q).max() > 0.02
    assert np.abs(before.arm_q - after.arm_q).max() < 0.1  # no jump
    opened = [answer.command.hand[1:5].mean() for answer in answers[first : first + 25] if answer.command is not None]
    assert max(opened) > 0.7


def test_what_was_lifted_without_help_is_discarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CorrectOperator, "_lift_m", lambda self: 0.2)
    _, answers = play(Drifting(1.0), CorrectConfig())
    assert [answer.events for answer in answers] == [(Event.DISCARD,)]


def test_recorded_corrections_say_from_when_on_they_are_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "set"
    words = f"collect --task lift --operator correct --policy {POLICY} --dataset {root} --episodes 1 --objects 1 "
    assert main([*words.split(), "--camera-size", "160", "120", "--cameras", "head", "--seed", "5"]) == 0
    reader = DatasetReader(root)
    meta = reader.meta(0)
    assert meta.info.operator == "correct"
    taught = float(str(meta.info.extra[LEARN_FROM]))
    assert 0.5 <= taught < meta.rows / 20
    assert [camera.name for camera in reader.schema.cameras] == ["head"]


def test_bad_requests(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="low <= high"):
        CorrectConfig(after_s=(3.0, 1.0))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--operator correct", "name its folder"),
        ("--operator correct --policy nowhere", "name its folder"),
        ("--operator script --policy {policy}", "goes with --operator correct"),
        ("--operator correct --policy {policy} --rate-hz 10", "record with --rate-hz 20"),
        ("--cameras wrist", "expected head, or head wrist"),
    ],
)
def test_bad_requests_are_one_sentence(
    flags: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"collect --task lift --episodes 1 --dataset {tmp_path / 'set'} {flags.format(policy=POLICY)}"
    assert main([*words.split(), "--camera-size", "160", "120"]) != 0
    assert said in " ".join(capsys.readouterr().err.split())
