"""Every kind of damage is found, named and comes with what to do; nothing that is whole is blamed."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dexloop.datasets import transaction as tx
from dexloop.datasets.check import assert_appendable, run_check
from dexloop.datasets.layout import data_file, episode_file, read_tasks, tasks_table, video_file, write_table
from dexloop.datasets.reader import DatasetReader
from dexloop.datasets.video import mux
from dexloop.datasets.view import contact_sheet, save_rrd
from dexloop.datasets.writer import DatasetWriter
from dexloop.hardware.errors import BadInput, DatasetError
from dexloop.tests.dataset_fixtures import SCHEMA, encode_colour, make_episode, pictures

HEAD = "observation.images.head"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "set"
    with DatasetWriter(root, SCHEMA) as writer:
        for i in range(3):
            writer.append(make_episode(i, 6, task=["cup", "box", "cup"][i]))
    return root


@pytest.fixture
def root(tmp_path: Path, made: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "set"))


def edit_column(key: str, row: int, value: object) -> Callable[[Path], None]:
    """Change one number of episode 1, as a careless script would."""

    def damage(root: Path) -> None:
        path = root / data_file(1)
        table = pq.read_table(path)
        values = table.column(key).to_pylist()
        values[row] = value
        column = pa.array(values, table.schema.field(key).type)
        pq.write_table(table.set_column(table.column_names.index(key), key, column), path)

    return damage


def edit_json(file: str, change: Callable[[dict], None]) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        data = json.loads((root / file).read_text())
        change(data)
        (root / file).write_text(json.dumps(data))

    return damage


def truncate(file: str) -> Callable[[Path], None]:
    return lambda root: (root / file).write_bytes((root / file).read_bytes()[:-200])


def flip_bit(file: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        data = bytearray((root / file).read_bytes())
        data[len(data) // 2] ^= 1
        (root / file).write_bytes(data)

    return damage


def other_video(frames: int, height: int = 48, width: int = 64) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        mux(encode_colour(pictures(frames, height, width, 5)), 20, root / video_file(HEAD, 1))

    return damage


def remove(file: str) -> Callable[[Path], None]:
    return lambda root: (root / file).unlink()


def copy(source: str, target: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        (root / target).write_bytes((root / source).read_bytes())

    return damage


def swap_entries(root: Path) -> None:
    one, two = root / episode_file(0), root / episode_file(2)
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def forget_task(root: Path) -> None:
    write_table(tasks_table(read_tasks(root)[:1]), root / "meta/tasks.parquet")


def half_done(root: Path) -> None:
    (root / tx.COMMIT).mkdir()
    (root / tx.COMMIT / tx.PLAN).write_text(json.dumps({"what": "append of episode 3", "install": [], "remove": []}))


NAN13 = [float("nan")] + [0.0] * 12
FAR13 = [9.0] + [0.0] * 12
DAMAGE = {
    "data missing": (remove(data_file(1)), r"episode 1, data/chunk-000/file-001.parquet: is missing"),
    "data truncated": (truncate(data_file(1)), r"file-001.parquet: cannot be read"),
    "data flipped": (flip_bit(data_file(1)), r"file-001.parquet"),
    "video missing": (remove(video_file(HEAD, 1)), r"head/chunk-000/file-001.mp4: is missing"),
    "video truncated": (truncate(video_file(HEAD, 1)), r"file-001.mp4: is not a readable video"),
    "video flipped": (flip_bit(video_file(HEAD, 1)), r"bytes are not those that were written"),
    "video too short": (other_video(5), r"holds 5 frames for 6 rows"),
    "video too long": (other_video(7), r"holds 7 frames for 6 rows"),
    "video of another size": (other_video(6, 32, 32), r"is 32x32, expected 64x48"),
    "entry missing": (remove(episode_file(1)), r"has no entry"),
    "entry truncated": (truncate(episode_file(1)), r"meta/episodes.*cannot be read"),
    "entry of another": (copy(episode_file(0), episode_file(1)), r"describes episode 0"),
    "entries swapped": (swap_entries, r"expected meta/episodes/chunk-000/file-002.parquet"),
    "info missing": (remove("meta/info.json"), r"meta/info.json: is missing"),
    "info cut": (truncate("meta/info.json"), r"meta/info.json: cannot be used"),
    "too many episodes": (edit_json("meta/info.json", lambda d: d.update(total_episodes=4)), r"episode 3.*no entry"),
    "too few episodes": (edit_json("meta/info.json", lambda d: d.update(total_episodes=2)), r"belongs to none of"),
    "frames wrong": (edit_json("meta/info.json", lambda d: d.update(total_frames=17)), r"total_frames is 17"),
    "stats missing": (remove("meta/stats.json"), r"meta/stats.json: cannot be used"),
    "stats wrong": (
        edit_json("meta/stats.json", lambda d: d["action"]["mean"].__setitem__(0, 5.0)),
        r"mean of action does not follow",
    ),
    "stats of too few": (edit_json("meta/stats.json", lambda d: d.pop("action")), r"lacks action"),
    "tasks missing": (remove("meta/tasks.parquet"), r"tasks.parquet"),
    "task lost": (forget_task, r"task 'box' is not in"),
    "schema cut": (truncate("meta/dexloop.json"), r"dexloop.json: cannot be used"),
    "orphan data": (copy(data_file(0), data_file(3)), r"file-003.parquet: belongs to none of the 3"),
    "orphan video": (copy(video_file(HEAD, 0), video_file(HEAD, 9)), r"file-009.mp4: belongs to none"),
    "NaN": (edit_column("action", 2, NAN13), r"action is not finite at row 2"),
    "action out of limits": (edit_column("action", 2, FAR13), r"arm_joint_1.pos is 9.0000 at row 2, outside"),
    "index gap": (edit_column("index", 2, 99), r"index is 99 at row 2, expected 8"),
    "frame gap": (edit_column("frame_index", 2, 3), r"frame_index is 3 at row 2"),
    "row of another": (edit_column("episode_index", 2, 0), r"holds 5 rows"),
    "time backwards": (edit_column("timing.row_ns", 3, 0), r"row_ns does not rise"),
    "made-up time": (edit_column("timestamp", 3, 0.5), r"timestamp is 0.5 at row 3"),
    "image from the future": (edit_column("timing.head_ns", 3, 10**15), r"head_ns"),
    "mask of another size": (edit_column("mask.head", 1, "2x2 I"), r"mask.head is 2x2 at row 1"),
    "mask cut": (edit_column("mask.head", 1, "64x48 E"), r"mask.head at row 1"),
    "half-done change": (half_done, r"half done \(append of episode 3\)"),
}


def test_a_whole_set_is_found_whole(root: Path) -> None:
    report = run_check(root, deep=True)
    assert report.findings == ()
    assert str(report).endswith("whole, 3 episodes, 18 frames")


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named_with_what_to_do(root: Path, kind: str) -> None:
    damage, words = DAMAGE[kind]
    damage(root)
    report = run_check(root)
    assert not report.ok
    assert "damaged" in str(report)
    assert re.search(words, str(report)), str(report)
    assert all("`" in finding.remedy for finding in report.findings), "every finding says what to do"


QUICKLY_FOUND = ["data missing", "video missing", "entry missing", "too many episodes", "too few episodes"]
QUICKLY_FOUND += ["frames wrong", "orphan data", "orphan video", "half-done change", "schema cut", "tasks missing"]


@pytest.mark.parametrize("kind", QUICKLY_FOUND)
def test_recording_to_a_damaged_set_is_refused(root: Path, kind: str) -> None:
    DAMAGE[kind][0](root)
    with pytest.raises(DatasetError, match="repair"):
        DatasetWriter(root, SCHEMA)


def test_leftovers_are_warnings(root: Path) -> None:
    (root / tx.STAGING).mkdir()
    (root / "journals").mkdir()
    (root / "journals/a.journal.h5").write_bytes(b"")
    report = run_check(root)
    assert report.ok
    assert len(report.findings) == 2
    assert "recover" in str(report)
    assert_appendable(root)


def test_a_set_that_is_being_written_is_said_to_be(root: Path) -> None:
    with DatasetWriter(root, SCHEMA):
        assert "is writing the set" in str(run_check(root))
    assert run_check(root).findings == ()


def test_what_is_no_data_set_is_bad_input(tmp_path: Path, root: Path) -> None:
    with pytest.raises(BadInput, match="no data set"):
        run_check(tmp_path / "nothing")
    edit_json("meta/info.json", lambda d: d["features"].pop("safety.flags"))(root)
    with pytest.raises(BadInput, match=r"another schema: safety.flags is missing"):
        run_check(root)


def test_the_quick_check_is_quick(root: Path) -> None:
    """A thousand episodes: the files of one, linked."""
    for i in range(3, 1000):
        for name in (
            data_file,
            episode_file,
            lambda e: video_file(HEAD, e),
            lambda e: video_file(HEAD[:-4] + "wrist", e),
        ):
            target = root / name(i)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(root / name(2), target)
    row = pq.read_table(root / episode_file(2))
    row = row.set_column(row.column_names.index("episode_index"), "episode_index", pa.array([999]))
    (root / episode_file(999)).unlink()
    pq.write_table(row, root / episode_file(999))
    edit_json("meta/info.json", lambda d: d.update(total_episodes=1000))(root)
    start = time.process_time()
    assert_appendable(root)
    assert time.process_time() - start < 1.0


def test_rows_without_a_mask_are_whole_but_have_none(tmp_path: Path) -> None:
    """A camera that gives no segmentation, as on the rig: the column is empty text, never an invented mask."""
    episode = make_episode(0)
    episode.columns["mask.head"] = np.full(episode.rows, "", object)
    with DatasetWriter(tmp_path, SCHEMA) as writer:
        writer.append(episode)
    assert run_check(tmp_path).ok
    reader = DatasetReader(tmp_path)
    with pytest.raises(BadInput, match="no target mask at row 0"):
        reader.masks(0)
    assert contact_sheet(reader, 0, tmp_path / "sheet.png").exists()
    assert save_rrd(reader, 0, tmp_path / "episode.rrd").exists()
