"""`collect` and `replay` end to end on the twin, small pictures, real parts throughout."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from dexloop.collect.command import Collect, parse_objects
from dexloop.collect.operators.base import OperatorInput
from dexloop.collect.replay import Replay, Track
from dexloop.datasets.check import run_check
from dexloop.datasets.edit import label
from dexloop.datasets.reader import DatasetReader
from dexloop.datasets.repair import repair
from dexloop.hardware.errors import BadInput, DeviceError
from dexloop.hardware.values import Command, Safety

ROOT = Path(__file__).parents[1]
HAND = ROOT.parent / "shared" / "data" / "human_hand_right.npz"
SMALL = {"objects": "1", "camera_size": (64, 48), "keep_failures": True}


def collect(dataset: Path, **options: object) -> DatasetReader:
    assert Collect(dataset=str(dataset), **(SMALL | options)).run() == 0  # type: ignore[arg-type]
    return DatasetReader(dataset)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("collect") / "grasp"
    collect(root, episodes=2, seed=3)
    return root


def test_recorded_episodes_are_whole_and_timed(recorded: Path) -> None:
    reader = DatasetReader(recorded)
    assert run_check(recorded, deep=True).ok
    assert len(reader) == 2
    for meta in reader.episodes():
        data = reader.episode(meta.index)
        row_ns = data.columns["timing.row_ns"]
        assert (np.diff(row_ns) == 50_000_000).all()
        assert np.percentile(data.columns["timing.skew_ns"], 95) < 20e6
        assert (data.columns["timing.sent_ns"] >= data.columns["timing.input_ns"]).all()
        assert meta.info.extra["scene"]
        assert meta.info.seed == 3
        assert reader.masks(meta.index)[0].any(), "the target is in the head camera's first picture"
        assert (recorded / "raw" / f"{meta.source.removesuffix('.journal.h5')}.h5").exists()
    assert not (recorded / "journals").exists()


def test_replay_does_the_same_again(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reader = DatasetReader(recorded)
    report = Replay("episode_0", str(recorded))._replay(reader, 0)
    assert report.error_rms[:7].max() < 0.01
    assert report.error_rms[7:].max() < 0.03
    assert report.lifted == reader.meta(0).info.success
    assert report.late_ticks == 0
    assert Replay("episode_1", str(recorded), speed=0.5).run() == 0
    assert "arm_joint_7" in capsys.readouterr().out


def test_replay_sends_each_command_once_at_its_time(recorded: Path) -> None:
    track = Track.of(DatasetReader(recorded).episode(0))
    assert (np.diff(track.sent_ns) > 0).all()
    times = [event[0] for event in track.events(2.0)]
    assert times == sorted(times)
    assert len(times) == len(track.row_ns) + len(track.sent_ns)


def test_more_episodes_are_other_scenes(recorded: Path, tmp_path: Path) -> None:
    import shutil

    root = tmp_path / "grasp"
    shutil.copytree(recorded, root)
    reader = collect(root, episodes=1, seed=3)
    scenes = [str(meta.info.extra["scene"]) for meta in reader.episodes()]
    assert len(set(scenes)) == 3


def test_workers_change_nothing(recorded: Path, tmp_path: Path) -> None:
    parallel = collect(tmp_path / "parallel", episodes=2, seed=3, workers=2)
    serial = DatasetReader(recorded)
    for index in range(2):
        one, other = serial.episode(index), parallel.episode(index)
        assert one.info.task == other.info.task
        for key in ("observation.state", "action", "timing.row_ns", "sensor.wrench", "mask.head"):
            assert np.array_equal(one.columns[key], other.columns[key]), f"{key} of episode {index}"
        for key in serial.schema.video_keys:
            assert np.array_equal(serial.frames(index, key, [0, 9]), parallel.frames(index, key, [0, 9]))


@pytest.mark.skipif(not HAND.exists(), reason="the recorded hand is not part of the project")
def test_a_recorded_hand_is_followed(tmp_path: Path) -> None:
    reader = collect(tmp_path / "hand", episodes=1, operator="recorded", input=HAND)
    opening = reader.episode(0).columns["observation.state"][:, 7:]
    assert reader.meta(0).rows > 250
    assert (np.ptp(opening, axis=0) > 0.2).all(), "every motor of the hand moved"
    assert run_check(tmp_path / "hand").ok


def test_another_schema_is_refused(recorded: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in recorded.rglob("*.parquet")}
    with pytest.raises(BadInput, match="camera"):
        collect(recorded, episodes=1, camera_size=(128, 96))
    assert before == {path: path.stat().st_mtime_ns for path in recorded.rglob("*.parquet")}


def test_a_damaged_set_is_refused(recorded: Path, tmp_path: Path) -> None:
    import shutil

    root = tmp_path / "grasp"
    shutil.copytree(recorded, root)
    next((root / "videos").rglob("file-001.mp4")).unlink()
    with pytest.raises(Exception, match="damaged"):
        collect(root, episodes=1)


def test_labels_survive(recorded: Path) -> None:
    label(recorded, 1, False, "dropped it")
    info = DatasetReader(recorded).meta(1).info
    assert info.success is False
    assert info.note == "dropped it"


def test_an_operator_that_gives_nan_leaves_a_whole_set(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dexloop.collect.operators import script

    act = script.ScriptOperator.act

    def broken(self: script.ScriptOperator, state: object, now_ns: int) -> OperatorInput:
        answer = act(self, state, now_ns)  # type: ignore[arg-type]
        if now_ns > 2_000_000_000 and answer.command is not None:
            nan = Command(now_ns, answer.command.arm_q * np.nan, answer.command.hand)
            return OperatorInput(nan)
        return answer

    root = tmp_path / "grasp"
    monkeypatch.setattr(script.ScriptOperator, "act", broken)
    with pytest.raises(DeviceError, match="not finite"):
        collect(root, episodes=1)
    assert repair(root, recover=True).check.ok  # type: ignore[union-attr]
    state = DatasetReader(root).episode(0).columns
    assert np.isfinite(state["action"]).all()
    assert (state["safety.flags"] & int(Safety.NOT_FINITE)).any()


def test_killed_while_recording(tmp_path: Path) -> None:
    """kill -9 of the whole command: what is left is mended, and the running episode comes back from its journal."""
    root = tmp_path / "grasp"
    command = [sys.executable, str(ROOT / "cli.py"), "collect", "--dataset", str(root), "--objects", "1"]
    process = subprocess.Popen(
        [*command, "--camera-size", "64", "48", "--episodes", "50", "--keep-failures"],
        env=os.environ | {"DEXLOOP_HOME": str(tmp_path)},
        stdout=subprocess.DEVNULL,
    )
    info = root / "meta" / "info.json"
    deadline = time.monotonic() + 120
    while not (info.exists() and list((root / "journals").glob("*.h5"))):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.7)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = len(DatasetReader(root))
    assert finished >= 1
    report = repair(root)
    assert report.check is not None
    assert report.check.ok
    assert len(DatasetReader(root)) >= finished
    again = repair(root, recover=True)
    assert again.check is not None
    assert again.check.ok


@pytest.mark.parametrize(("text", "expected"), [("1", (1, 1)), ("1..6", (1, 6)), ("4..6", (4, 6))])
def test_objects(text: str, expected: tuple[int, int]) -> None:
    assert parse_objects(text) == expected


@pytest.mark.parametrize("text", ["0", "7", "3..2", "1-3", "", "many"])
def test_objects_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--objects"):
        parse_objects(text)
