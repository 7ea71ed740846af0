"""A roll-out as LeRobot episodes: what the policy saw and sent, the tracker's masks, and the verdict as label."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dexloop.datasets.check import run_check
from dexloop.datasets.reader import DatasetReader
from dexloop.datasets.repair import pending_journals
from dexloop.datasets.schema import ACTION, FLAGS, STATE
from dexloop.deploy.attempt import Attempt, AttemptConfig
from dexloop.deploy.chunks import FollowConfig
from dexloop.deploy.eyes import Eyes, Sight
from dexloop.deploy.masks.base import TargetMask
from dexloop.deploy.planner.base import Grounding, Proposal, Verdict
from dexloop.deploy.recording import RollOuts
from dexloop.deploy.rig import Rig, twin_rig
from dexloop.deploy.session import SessionConfig, SessionResult
from dexloop.hardware.errors import BadInput
from dexloop.hardware.twin.scenes import sample_scene
from dexloop.train.controller.config import ActionConfig
from dexloop.train.data.chunks import Chunks, usable_episodes
from dexloop.train.views import View

BOX = (60.0, 40.0, 80.0, 60.0)
SECONDS = 0.8
TARGET = View("target", "head", 64, 48, window=16, depth=True, mask=True)
RATE_HZ = 20.0


class Moving:
    """A tracker whose mask says in which picture it was made: its height is the update's number."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def start(self, rgb: Any, depth_m: Any, box: Any, state: Any) -> TargetMask:
        self.shape, self.number = rgb.shape[:2], 0
        return self.update(rgb, depth_m, state)

    def update(self, rgb: Any, depth_m: Any, state: Any) -> TargetMask:
        self.number += 1
        mask = np.zeros(self.shape, bool)
        mask[10 : 10 + self.number, 20:30] = True
        return TargetMask(mask, mask, 0.0, 1.0)


class Waving:
    """A chunk policy: a slow wave of the last joint about the pose at the attempt's start."""

    late_most = 4
    cameras = frozenset({"head"})

    def again(self, observation: Any) -> None:
        pass

    def start(self, observation: Any) -> None:
        self.state, self.tick = np.asarray(observation.state, float), 0

    def chunk(self, observation: Any, left: Any = None, late: int = 0) -> Any:
        wave = np.repeat(self.state[None], 32, 0)
        wave[:, 6] += 0.05 * np.sin(2 * np.pi * (np.arange(32) / 40))
        return wave


class Script:
    """A planner of given answers: two objects, the first verified as held once the attempt is over."""

    name = "script"

    def __init__(self) -> None:
        self.proposals = [Proposal("grasp the cup"), Proposal("grasp the box"), Proposal(nothing_left=True)]

    def propose(self, *_: Any) -> Proposal:
        return self.proposals.pop(0)

    def ground(self, instruction: str, now: Any) -> Grounding:
        return Grounding(BOX, instruction)

    def verify(self, *_: Any) -> Verdict:
        return Verdict(True, "held")

    def complete(self, *_: Any) -> Verdict:
        return Verdict(False)


@pytest.fixture
def rig() -> Iterator[Rig]:
    with twin_rig(sample_scene(0, "train", 1), (160, 120), RATE_HZ, real_time=False) as (rig, _):
        yield replace(rig, tracker=Moving())


def held_the_first_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first attempt's monitor says held at its end, the others nothing."""
    judged: list[int] = []

    def judge(self: Any, sight: Sight, now_ns: int) -> Any:
        from dexloop.deploy.attempt import Ending

        judged.append(1)
        return (Ending.HELD, "it is in the hand") if len(judged) == round(SECONDS * RATE_HZ) else None

    monkeypatch.setattr("dexloop.deploy.attempt.Monitor.judge", judge)


def roll_out(rig: Rig, kept: RollOuts, policy: Any = None) -> SessionResult:
    settings = AttemptConfig(SECONDS, follow=FollowConfig(background=False))
    robot = kept.robot(rig.robot)
    eyes = Eyes(rig.robot, rig.cameras, rig.tracker)
    from dexloop.deploy.session import Session

    planner = Script()
    attempt = Attempt(robot, eyes, policy or Waving(), planner, RATE_HZ, settings, kept.see)
    attempts = kept.attempts(attempt, rig.robot)
    return Session(rig.robot, eyes, planner, attempts, RATE_HZ, SessionConfig(1)).run("clear the table")


def test_a_roll_out_is_a_data_set(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held_the_first_time(monkeypatch)
    monkeypatch.setenv("DEXLOOP_HOME", str(tmp_path))
    root, lines = tmp_path / "set", []
    with RollOuts(root, rig.robot, rig.cameras.values(), RATE_HZ, {"planner": "script"}, 7, lines.append) as kept:
        result = roll_out(rig, kept)
        assert len(pending_journals(root)) == 2, "nothing is encoded into the set while the robot works"
    assert result.grasped == ["grasp the cup"]
    assert (kept.saved, kept.successes) == (2, 1)
    assert lines[0].endswith("'grasp the cup', 0.8 s, success")
    assert run_check(root).ok, str(run_check(root))
    assert not pending_journals(root)

    reader = DatasetReader(root)
    infos = [meta.info for meta in reader.episodes()]
    assert [(info.task, info.success, info.operator, info.seed) for info in infos] == [
        ("grasp the cup", True, "policy", 7),
        ("grasp the box", False, "policy", 7),
    ]
    assert [info.extra["ending"] for info in infos] == ["held", "timeout"]
    assert infos[0].extra["deployed"] == {"planner": "script"}
    assert usable_episodes(reader, failures=False) == [0]

    data, masks = reader.episode(0), reader.masks(0)
    numbers = [int(mask.sum()) // 10 for mask in masks]
    assert numbers == list(range(numbers[0], numbers[0] + len(masks))), "each picture its own mask"
    assert numbers[0] <= 2
    learnt = Chunks(
        reader, [TARGET], [TARGET], ActionConfig(horizon=6, tokens=3), episodes=[0], workers=1, progress=False
    )
    assert len(learnt) == data.rows, "training reads it like any other set"
    sent, state = data.columns[ACTION], data.columns[STATE]
    assert np.abs(sent[:, 6] - state[0, 6]).max() == pytest.approx(0.05, abs=0.01), "the wave was recorded"
    assert (data.columns[FLAGS] == 0).mean() > 0.8
    assert (data.columns["timing.latency_ns"] < 60e6).all()


def test_an_attempt_that_breaks_is_kept_as_a_failure(rig: Rig, tmp_path: Path) -> None:
    class Breaks(Waving):
        def chunk(self, observation: Any, left: Any = None, late: int = 0) -> Any:
            if left is not None and len(left) and late:
                raise BadInput("the policy's file is damaged")
            return super().chunk(observation)

    root = tmp_path / "set"
    with RollOuts(root, rig.robot, rig.cameras.values(), RATE_HZ) as kept:
        result = roll_out(rig, kept, Breaks())
    assert result.why == "stopped: the policy's file is damaged"
    (meta,) = DatasetReader(root).episodes()
    assert (meta.info.success, meta.info.extra["ending"], meta.info.note) == (False, "stopped", result.reason)
    assert run_check(root).ok


def test_an_attempt_that_never_acted_is_no_episode(rig: Rig, tmp_path: Path) -> None:
    class Dead(Waving):
        def start(self, observation: Any) -> None:
            raise BadInput("no")

    with RollOuts(tmp_path / "set", rig.robot, rig.cameras.values(), RATE_HZ) as kept:
        roll_out(rig, kept, Dead())
    assert kept.saved == 0
    assert not pending_journals(tmp_path / "set")


def test_sets_that_do_not_fit_are_refused(rig: Rig, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="acts at 12.5 Hz"):
        RollOuts(tmp_path / "set", rig.robot, rig.cameras.values(), 12.5)


def test_the_rig_records_a_session(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held_the_first_time(monkeypatch)
    seen: list[Sight] = []
    with RollOuts(tmp_path / "set", rig.robot, rig.cameras.values(), RATE_HZ) as kept:
        session = rig.session(Waving(), Script(), SessionConfig(1, place=False), seen.append, record=kept)
        assert session.run("x").grasped == ["grasp the cup"]
    (meta,) = DatasetReader(tmp_path / "set").episodes()
    assert meta.info.success is True
    assert len(seen) == round(SECONDS * RATE_HZ)
