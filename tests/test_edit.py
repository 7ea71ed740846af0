"""Label, delete, merge: right, refused in words where they cannot be, and all-or-nothing at every step."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dexloop.datasets import edit
from dexloop.datasets import transaction as tx
from dexloop.datasets.check import run_check
from dexloop.datasets.layout import OWN, video_file
from dexloop.datasets.reader import DatasetReader
from dexloop.datasets.repair import repair
from dexloop.datasets.writer import DatasetWriter
from dexloop.hardware.errors import BadInput, DatasetError
from dexloop.tests.dataset_fixtures import SCHEMA, make_episode

HEAD = "observation.images.head"


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def write(root: Path, seeds: list[int]) -> Path:
    with DatasetWriter(root, SCHEMA) as writer:
        for seed in seeds:
            writer.append(make_episode(seed, 4 + seed, task=["cup", "box"][seed % 2]), source=f"{seed}.journal.h5")
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("made") / "set", [0, 1, 2, 3])


@pytest.fixture
def root(tmp_path: Path, made: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "set"))


def assert_holds(root: Path, seeds: list[int]) -> None:
    """Exactly these episodes, in this order, with their own pictures, and whole."""
    report = run_check(root, deep=True)
    assert report.findings == (), str(report)
    reader = DatasetReader(root)
    assert [meta.info.seed for meta in reader.episodes()] == seeds
    assert sum(meta.rows for meta in reader.episodes()) == reader.info["total_frames"]
    for index, seed in enumerate(seeds):
        sent, got = make_episode(seed, 4 + seed), reader.episode(index)
        for key, array in sent.columns.items():
            if key != "label.success":
                assert np.array_equal(got.columns[key], array), key
        assert got.meta.source == f"{seed}.journal.h5"
        picture = reader.frames(index, HEAD, [1])[0].astype(int)
        shown = sent.videos[HEAD].stats_frames
        assert shown is not None
        assert np.abs(picture - shown[1]).mean() < 8


def test_label(root: Path) -> None:
    edit.label(root, 2, False, "slipped")
    reader = DatasetReader(root)
    assert (reader.meta(2).info.success, reader.meta(2).info.note) == (False, "slipped")
    assert set(reader.episode(2).columns["label.success"]) == {0}
    edit.label(root, 2, None)
    assert (DatasetReader(root).meta(2).info.success, DatasetReader(root).meta(2).info.note) == (None, "slipped")
    assert set(DatasetReader(root).episode(2).columns["label.success"]) == {-1}
    assert_holds(root, [0, 1, 2, 3])


def test_label_touches_one_episode_only(root: Path) -> None:
    before = (root / video_file(HEAD, 1)).stat()
    edit.label(root, 2, False)
    after = (root / video_file(HEAD, 1)).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@pytest.mark.parametrize(("gone", "left"), [([0], [1, 2, 3]), ([3], [0, 1, 2]), ([1, 2], [0, 3]), ([2, 0, 2], [1, 3])])
def test_delete(root: Path, gone: list[int], left: list[int]) -> None:
    assert edit.delete(root, gone) == len(left)
    assert_holds(root, left)
    assert not list(root.rglob(f"file-{len(left):03d}.*"))
    with DatasetWriter(root, SCHEMA) as writer:
        writer.append(make_episode(5, 9), source="5.journal.h5")
    assert_holds(root, [*left, 5])


def test_merge(root: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other", [5, 6])
    assert edit.merge([other, root], tmp_path / "both") == 6
    assert_holds(tmp_path / "both", [5, 6, 0, 1, 2, 3])
    assert_holds(root, [0, 1, 2, 3])
    # A merged set stands on its own, also where its files are links.
    edit.delete(root, [0, 1, 2])
    shutil.rmtree(other)
    assert_holds(tmp_path / "both", [5, 6, 0, 1, 2, 3])


def test_merge_keeps_the_cameras_that_sets_have_in_common(tmp_path: Path) -> None:
    alone = SCHEMA.only(["head"])
    for name, schema, seed in (("two", SCHEMA, 0), ("one", alone, 1)):
        with DatasetWriter(tmp_path / name, schema) as writer:
            writer.append(make_episode(seed, 6, schema), source=f"{seed}.journal.h5")
    sources = [tmp_path / "two", tmp_path / "one"]
    with pytest.raises(BadInput, match="--cameras"):
        edit.merge(sources, tmp_path / "both")
    with pytest.raises(BadInput, match="there is no camera wrist"):
        edit.merge(sources, tmp_path / "both", ["head", "wrist"])
    assert edit.merge(sources, tmp_path / "both", ["head"]) == 2
    both = DatasetReader(tmp_path / "both")
    assert both.schema == alone
    assert run_check(tmp_path / "both").ok
    two = DatasetReader(tmp_path / "two")
    assert np.array_equal(both.episode(0).columns["action"], two.episode(0).columns["action"])
    assert np.array_equal(both.frames(0, HEAD, [2]), two.frames(0, HEAD, [2]))


def test_what_cannot_be_is_bad_input_and_changes_nothing(root: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"has 0\.\.3"):
        edit.label(root, 4, True)
    with pytest.raises(BadInput, match=r"has 0\.\.3"):
        edit.delete(root, [1, 9])
    with pytest.raises(BadInput, match="all episodes"):
        edit.delete(root, [0, 1, 2, 3])
    with pytest.raises(BadInput, match="exists already"):
        edit.merge([root], root)
    with pytest.raises(BadInput, match="given twice"):
        edit.merge([root, root], tmp_path / "both")
    with pytest.raises(BadInput, match="no data set at"):
        edit.merge([root, tmp_path / "none"], tmp_path / "both")
    with DatasetWriter(tmp_path / "fast", replace(SCHEMA, rate_hz=30)) as writer:
        writer.append(make_episode(1, 4, replace(SCHEMA, rate_hz=30)))
    with pytest.raises(BadInput, match="rate_hz is 30, not 20"):
        edit.merge([root, tmp_path / "fast"], tmp_path / "both")
    assert not (tmp_path / "both").exists()
    assert_holds(root, [0, 1, 2, 3])


def test_a_damaged_set_is_not_edited(root: Path, tmp_path: Path) -> None:
    (root / video_file(HEAD, 1)).unlink()
    with pytest.raises(DatasetError, match="damaged"):
        edit.delete(root, [0])
    with pytest.raises(DatasetError, match="damaged"):
        edit.merge([root], tmp_path / "both")


EDITS: dict[str, tuple[Callable[[Path, tx.Probe], object], list[int]]] = {
    "label": (lambda root, probe: edit.label(root, 1, False, "x", probe), [0, 1, 2, 3]),
    "delete": (lambda root, probe: edit.delete(root, [1], probe), [0, 2, 3]),
}


@pytest.mark.parametrize("kind", EDITS)
def test_killed_at_every_step_it_is_done_or_not_begun(made: Path, tmp_path: Path, kind: str) -> None:
    change, after = EDITS[kind]
    names: list[str] = []
    change(Path(shutil.copytree(made, tmp_path / "whole")), names.append)
    # Every step around the commit point, and a spread of the many renames.
    chosen = sorted({*range(0, len(names), 12), *(i for i, name in enumerate(names) if "installed" not in name)})
    for number in chosen:
        root = Path(shutil.copytree(made, tmp_path / f"set{number}"))
        left = [number]

        def kill(step: str, left: list[int] = left) -> None:
            if not left[0]:
                raise Killed(step)
            left[0] -= 1

        with pytest.raises(Killed):
            change(root, kill)
        committed = names.index("committed") <= number
        report = repair(root)
        assert report.lost == [], names[number]
        assert report.check is not None
        assert report.check.findings == ()
        reader = DatasetReader(root)
        assert [meta.info.seed for meta in reader.episodes()] == (after if committed else [0, 1, 2, 3])
        if kind == "label":
            assert reader.meta(1).info.success is (not committed)


def test_killed_merge_can_be_asked_for_again(made: Path, tmp_path: Path) -> None:
    def kill(step: str) -> None:
        if step == "ready":
            raise Killed(step)

    with pytest.raises(Killed):
        edit.merge([made], tmp_path / "both", probe=kill)
    assert edit.merge([made], tmp_path / "both") == 4
    assert_holds(tmp_path / "both", [0, 1, 2, 3])


def test_a_set_without_our_own_file_gets_it_back(root: Path) -> None:
    (root / OWN).unlink()
    report = run_check(root)
    assert report.ok
    assert "another tool rewrote the set" in str(report)
    repair(root)
    assert_holds(root, [0, 1, 2, 3])


def test_raw_streams_follow_their_episodes(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for root, seeds in ((one, (0, 1)), (two, (2,))):
        with DatasetWriter(root, SCHEMA) as writer:
            for seed in seeds:
                writer.append(make_episode(seed), source=f"take-{seed}.journal.h5")
        (root / "raw").mkdir()
        for seed in seeds:
            (root / "raw" / f"take-{seed}.h5").write_text(str(seed))
    edit.merge([one, two], tmp_path / "both")
    raw = tmp_path / "both" / "raw"
    assert [path.read_text() for path in sorted(raw.iterdir())] == ["0", "1", "2"]
    edit.delete(tmp_path / "both", [1])
    assert sorted(path.name for path in raw.iterdir()) == ["take-0.h5", "take-2.h5"]
    assert (one / "raw" / "take-1.h5").exists()
