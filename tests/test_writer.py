"""Appending: what is written is what is read, and a kill at any step loses nothing that was finished."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dexloop.datasets import rle, video
from dexloop.datasets import transaction as tx
from dexloop.datasets import writer as writer_module
from dexloop.datasets.check import assert_appendable, run_check
from dexloop.datasets.reader import DatasetReader
from dexloop.datasets.repair import repair
from dexloop.datasets.writer import DatasetWriter
from dexloop.hardware.errors import BadInput, DatasetError
from dexloop.tests.dataset_fixtures import DEPTH_SCHEMA, SCHEMA, depth_counts, make_episode, masks


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def write(root: Path, count: int = 2, schema: object = SCHEMA, rows: int = 6) -> None:
    with DatasetWriter(root, schema) as writer:  # type: ignore[arg-type]
        for i in range(count):
            writer.append(make_episode(i, rows, schema, ["cup", "box"][i % 2], success=[True, False][i % 2]))  # type: ignore[arg-type]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write(tmp_path / "set", 3, DEPTH_SCHEMA)
    reader = DatasetReader(tmp_path / "set")
    assert len(reader) == 3
    assert reader.schema == DEPTH_SCHEMA
    for i in range(3):
        sent, got = make_episode(i, 6, DEPTH_SCHEMA, ["cup", "box"][i % 2], [True, False][i % 2]), reader.episode(i)
        assert got.info == sent.info
        for key, array in sent.columns.items():
            assert np.array_equal(got.columns[key], array), key
        assert got.columns["index"].tolist() == list(range(6 * i, 6 * i + 6))
        assert np.array_equal(reader.masks(i), masks(6, 48, 64))
        for camera, seed in (("head", 10 * i), ("wrist", 10 * i + 1)):
            key = f"observation.images.{camera}"
            assert np.array_equal(reader.frames(i, f"{key}_depth"), depth_counts(6, 48, 64, seed))  # exact
            decoded = np.stack(list(video.decode(sent.videos[key].packets, sent.videos[key])))
            assert np.array_equal(reader.frames(i, key), decoded)
            assert np.array_equal(reader.frames(i, key, [1, 4]), decoded[[1, 4]])
    assert run_check(tmp_path / "set", deep=True).ok
    with pytest.raises(BadInput, match=r"has 0\.\.2"):
        reader.episode(3)


def test_a_second_session_goes_on(tmp_path: Path) -> None:
    write(tmp_path / "set", 2)
    with DatasetWriter(tmp_path / "set", SCHEMA) as writer:
        assert writer.append(make_episode(7, 4, task="bowl")) == 2
    reader = DatasetReader(tmp_path / "set")
    assert reader.tasks == ["cup", "box", "bowl"]
    assert reader.episode(2).columns["index"].tolist() == [12, 13, 14, 15]
    assert run_check(tmp_path / "set").ok


def test_another_schema_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    write(tmp_path / "set", 1)
    before = sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "set").rglob("*.*"))
    with pytest.raises(BadInput, match="rate_hz is 30, not 20"):
        DatasetWriter(tmp_path / "set", replace(SCHEMA, rate_hz=30))
    assert sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "set").rglob("*.*")) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="is a file"):
        DatasetWriter(tmp_path / "file", SCHEMA)


def test_an_episode_that_does_not_fit_leaves_the_set_as_it_was(tmp_path: Path) -> None:
    write(tmp_path / "set", 1)
    episode = make_episode(1, 6)
    with DatasetWriter(tmp_path / "set", SCHEMA) as writer:
        with pytest.raises(DatasetError, match="label.success does not say"):
            writer.append(replace(episode, info=replace(episode.info, success=None)))
        broken = replace(episode.videos["observation.images.head"], packets=(b"no video",) * 6)
        with pytest.raises(DatasetError):
            writer.append(replace(episode, videos=episode.videos | {"observation.images.head": broken}))
        assert writer.append(episode) == 1
    assert run_check(tmp_path / "set").ok


def test_two_writers_cannot_append_at_once(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "set", SCHEMA) as writer:
        with pytest.raises(DatasetError, match="is being written by process"):
            DatasetWriter(tmp_path / "set", SCHEMA)
        writer.append(make_episode(rows=3))
    with pytest.raises(DatasetError, match="closed"):
        writer.append(make_episode(rows=3))
    (tmp_path / "set" / tx.LOCK).write_text("999999")  # a dead process's
    DatasetWriter(tmp_path / "set", SCHEMA).close()


def steps(root: Path) -> list[str]:
    """Every step of appending a second episode."""
    write(root, 1)
    seen: list[str] = []
    with DatasetWriter(root, SCHEMA, seen.append) as writer:
        writer.append(make_episode(1, 6, task="box"))
    return seen


def test_killed_at_every_step_nothing_finished_is_lost(tmp_path: Path) -> None:
    names = steps(tmp_path / "whole")
    assert "committed" in names
    assert len(names) > 12
    write(tmp_path / "one", 1)
    for number, name in enumerate(names):
        root = Path(shutil.copytree(tmp_path / "one", tmp_path / f"set{number}"))
        left = [number]

        def kill(step: str, left: list[int] = left) -> None:
            if not left[0]:
                raise Killed(step)
            left[0] -= 1

        writer = DatasetWriter(root, SCHEMA, kill)
        with pytest.raises(Killed, match=name.split(" ")[0]):
            writer.append(make_episode(1, 6, task="box"), source="b.journal.h5")
        writer.close()
        committed = names.index("committed") <= number
        if committed and name != "finished":
            assert not run_check(root).ok
            with pytest.raises(DatasetError, match="repair"):
                assert_appendable(root)
        report = repair(root)
        assert report.check is not None
        assert report.check.ok, str(report)
        assert report.check.findings == ()
        assert report.kept == (2 if committed else 1)
        reader = DatasetReader(root)
        assert np.array_equal(reader.episode(0).columns["action"], make_episode(0, 6).columns["action"])
        assert_appendable(root)


@pytest.mark.parametrize(("at", "count"), [("ready", 1), ("committed", 2), ("installed", 2)])
def test_ctrl_c_leaves_no_half_done_change(tmp_path: Path, at: str, count: int) -> None:
    def interrupt(step: str) -> None:
        if armed and step.startswith(at):
            armed.clear()
            raise KeyboardInterrupt

    armed = [True]
    write(tmp_path / "set", 1)
    with DatasetWriter(tmp_path / "set", SCHEMA, interrupt) as writer:
        with pytest.raises(KeyboardInterrupt):
            writer.append(make_episode(1, 6))
        report = run_check(tmp_path / "set")
        assert report.ok
        assert report.episodes == count
        assert writer.append(make_episode(2, 6)) == count
    assert run_check(tmp_path / "set").findings == ()


def test_a_full_disk_is_said_and_leaves_the_set_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "set", 1)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with DatasetWriter(tmp_path / "set", SCHEMA) as writer:
        with monkeypatch.context() as patch:
            patch.setattr(writer_module, "write_table", full)
            with pytest.raises(DatasetError, match=r"disk of .* is full"):
                writer.append(make_episode(1, 6))
        assert [finding.file for finding in run_check(tmp_path / "set").findings] == [tx.LOCK]
        writer.append(make_episode(1, 6))
    assert run_check(tmp_path / "set").ok


def test_a_video_with_too_few_frames_is_caught_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = video.mux
    monkeypatch.setattr(video, "mux", lambda v, rate, path: whole(replace(v, packets=v.packets[:-1]), rate, path))
    with DatasetWriter(tmp_path / "set", SCHEMA) as writer, pytest.raises(DatasetError, match="5 frames for 6 rows"):
        writer.append(make_episode(0, 6))
    assert not (tmp_path / "set/meta").exists()


KILLED_WRITER = """
import sys
from pathlib import Path
from dexloop.datasets.writer import DatasetWriter
from dexloop.tests.dataset_fixtures import SCHEMA, make_episode
episode = make_episode(0, 6)
with DatasetWriter(Path(sys.argv[1]), SCHEMA) as writer:
    while True:
        print(writer.append(episode), flush=True)
"""


@pytest.mark.slow
def test_kill_9_at_random_moments_of_appending(tmp_path: Path) -> None:
    root = tmp_path / "set"
    rng = np.random.default_rng(0)
    finished = 0
    for _ in range(40):
        process = subprocess.Popen([sys.executable, "-c", KILLED_WRITER, str(root)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline().strip() == str(finished)
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        finished = max([finished, *(int(line) for line in process.stdout.read().split())]) + 1
        process.wait()
        report = repair(root)
        assert report.check is not None
        assert report.check.ok, str(report)
        assert finished <= report.kept <= finished + 1
        finished = report.kept


def test_saving_300_rows_is_quick(tmp_path: Path) -> None:
    episode = make_episode(0, 300)
    with DatasetWriter(tmp_path / "set", SCHEMA) as writer:
        start = time.process_time()
        writer.append(episode)
        assert time.process_time() - start < 0.5


def test_the_files_are_where_lerobot_looks(tmp_path: Path) -> None:
    write(tmp_path / "set", 1)
    info = json.loads((tmp_path / "set/meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    for file in ("data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet", "meta/tasks.parquet"):
        assert (tmp_path / "set" / file).exists()
    assert (tmp_path / "set/videos/observation.images.head/chunk-000/file-000.mp4").exists()
    assert rle.area(DatasetReader(tmp_path / "set").episode(0).columns["mask.head"][0]) == 144


def test_a_place_where_nothing_can_be_made_is_said() -> None:
    with pytest.raises(BadInput, match="cannot be made"):
        DatasetWriter(Path("/proc/nothing/here"), SCHEMA)
