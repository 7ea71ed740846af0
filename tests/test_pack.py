"""Packed views: equal to live rendering, whole or absent after a kill, damage named and left alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dexloop.datasets import rle
from dexloop.datasets.edit import label
from dexloop.datasets.reader import DatasetReader
from dexloop.datasets.writer import DatasetWriter
from dexloop.hardware.errors import BadInput, DatasetError, StorageError
from dexloop.tests.dataset_fixtures import DEPTH_SCHEMA, SCHEMA, make_episode, masks
from dexloop.train.data import shards
from dexloop.train.data.moments import observations
from dexloop.train.data.pack import open_pack
from dexloop.train.views import Arrays, Observation, View, follow
from safetensors.numpy import load_file

WINDOW = View("window", "head", 48, 36, window=20, depth=True, mask=True)
WRIST = View("wrist", "wrist", 16, 12, depth=True)
WHOLE = View("head", "head", 28, 28, mask=True)
VIEWS = (WINDOW, WRIST, WHOLE)


def episode(seed: int, rows: int = 8) -> object:
    """The target is not seen in the first row nor in rows 3 to 5."""
    out = make_episode(seed, rows, DEPTH_SCHEMA)
    seen = masks(rows, 48, 64)
    seen[[0, 3, 4, 5]] = False
    columns = {**out.columns, "mask.head": np.array([rle.encode(mask) for mask in seen], object)}
    return replace(out, columns=columns)


def record(root: Path, seeds: list[int]) -> DatasetReader:
    with DatasetWriter(root, DEPTH_SCHEMA) as writer:
        for seed in seeds:
            writer.append(episode(seed))  # type: ignore[arg-type]
    return DatasetReader(root)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> DatasetReader:
    return record(tmp_path_factory.mktemp("recorded") / "set", [0, 1, 2])


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEXLOOP_HOME", str(tmp_path / "home"))


def packed(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "home" / "cache" / "packs").rglob("*.safetensors"))


def live(reader: DatasetReader, index: int) -> list[Arrays]:
    """What a robot that gives these frames would show a policy."""
    rgb = {name: reader.frames(index, f"observation.images.{name}") for name in ("head", "wrist")}
    counts = {name: reader.frames(index, f"observation.images.{name}_depth") for name in ("head", "wrist")}
    unit = {"head": np.float32(0.001), "wrist": np.float32(0.0001)}
    states = reader.episode(index).columns["observation.state"]
    centres: dict[str, tuple[float, float]] = {}
    out = []
    for row, mask in enumerate(reader.masks(index)):
        depth = {name: counts[name][row].astype(np.float32) * unit[name] for name in counts}
        pictures = {name: rgb[name][row] for name in rgb}
        out.append(follow(VIEWS, Observation(states[row], pictures, depth, mask), centres))
    return out


def test_a_packed_row_is_the_live_view(recorded: DatasetReader) -> None:
    pack = open_pack(recorded, VIEWS, workers=2, progress=False)
    expected = {index: live(recorded, index) for index in range(3)}
    assert set(pack.names) == set(expected[0][0])
    pairs = np.random.default_rng(0).permutation([(index, row) for index in range(3) for row in range(8)])
    taken = pack.take(pairs[:, 0], pairs[:, 1])
    for i, (index, row) in enumerate(pairs):
        for name, array in expected[index][row].items():
            assert taken[name].dtype == array.dtype
            assert np.array_equal(taken[name][i], array), (name, index, row)
    again = open_pack(recorded, VIEWS, progress=False).take(pairs[:, 0], pairs[:, 1], ["window.mask"])
    assert again.keys() == {"window.mask"}
    assert np.array_equal(again["window.mask"], taken["window.mask"])


def test_a_lost_target_leaves_the_window_where_it_was(recorded: DatasetReader) -> None:
    pack = open_pack(recorded, [WINDOW], episodes=[1], progress=False)
    rows = np.arange(8)
    arrays = pack.take(np.ones(8, np.int64), rows)
    origin = arrays["window.origin"]
    assert np.array_equal(origin[3], origin[2])
    assert np.array_equal(origin[5], origin[2])
    assert origin[0].tolist() == [48 // 2 - 10, 36 // 2 - 10]
    assert not arrays["window.mask"][[0, 3, 4, 5]].any()
    assert arrays["window.mask"][[1, 2, 6, 7]].reshape(4, -1).any(1).all()


def test_only_what_is_shown_is_decoded(recorded: DatasetReader, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    stream = DatasetReader.stream
    monkeypatch.setattr(DatasetReader, "stream", lambda self, i, key: (decoded.append(key), stream(self, i, key))[1])
    seen = list(observations(recorded, 0, [replace(WHOLE, rgb=False)]))
    assert not decoded
    assert np.array_equal(np.stack([moment.mask for moment in seen]), recorded.masks(0))
    assert not any(moment.rgb["head"].any() for moment in seen)
    list(observations(recorded, 0, [replace(WRIST, rgb=False)]))
    assert decoded == ["observation.images.wrist_depth"]


def test_files_are_safetensors(recorded: DatasetReader, tmp_path: Path) -> None:
    pack = open_pack(recorded, [WRIST], episodes=[0], progress=False)
    arrays = load_file(packed(tmp_path)[0])
    assert np.array_equal(arrays["wrist.rgb"], pack.take(np.zeros(8, np.int64), np.arange(8))["wrist.rgb"])


def test_a_set_that_grows_or_changes_gets_what_is_missing(tmp_path: Path) -> None:
    reader = record(tmp_path / "set", [0])
    open_pack(reader, VIEWS, progress=False)
    (first,) = packed(tmp_path)
    before = first.stat().st_mtime_ns
    reader = record(tmp_path / "set", [1])
    open_pack(reader, VIEWS, progress=False)
    assert len(packed(tmp_path)) == 2
    assert first.stat().st_mtime_ns == before
    copied = shutil.copytree(tmp_path / "set", tmp_path / "copy")
    open_pack(DatasetReader(copied), VIEWS, progress=False)  # the same content elsewhere
    assert len(packed(tmp_path)) == 2
    label(tmp_path / "set", 0, success=False)  # rewrites the rows that hold the masks
    open_pack(DatasetReader(tmp_path / "set"), VIEWS, progress=False)
    assert len(packed(tmp_path)) == 3


def damage_tail(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def damage_header(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(b"rows")] ^= 1
    path.write_bytes(bytes(data))


def damage_start(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [damage_tail, damage_header, damage_start])
def test_damage_is_named_and_left_alone(recorded: DatasetReader, tmp_path: Path, damage: object) -> None:
    open_pack(recorded, [WRIST, WINDOW], episodes=[0, 1], progress=False)
    path = packed(tmp_path)[1]
    damage(path)  # type: ignore[operator]
    found = path.read_bytes()
    with pytest.raises(DatasetError, match="delete that file, it will be made anew") as error:
        open_pack(recorded, [WRIST, WINDOW], episodes=[0, 1], progress=False)
    assert str(path) in str(error.value)
    assert path.read_bytes() == found
    path.unlink()
    open_pack(recorded, [WRIST, WINDOW], episodes=[0, 1], progress=False)


def test_a_flipped_bit_is_found_when_its_row_is_read(recorded: DatasetReader, tmp_path: Path) -> None:
    open_pack(recorded, [WRIST], episodes=[0], progress=False)
    path = packed(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[data.rindex(recorded_counts(recorded, row=6))] ^= 4
    path.write_bytes(bytes(data))
    pack = open_pack(recorded, [WRIST], episodes=[0], progress=False)
    pack.take(np.zeros(7, np.int64), np.array([0, 1, 2, 3, 4, 5, 7]))
    with pytest.raises(DatasetError, match="row 6 has another checksum"):
        pack.take(np.zeros(1, np.int64), np.array([6]))


def recorded_counts(reader: DatasetReader, row: int) -> bytes:
    """The packed wrist depth of a row, as it lies in the file."""
    metres = live(reader, 0)[row]["wrist.depth"]
    return np.rint(metres / np.float32(0.0001)).astype(np.uint16).tobytes()


def test_episodes_of_the_same_content_share_a_file(tmp_path: Path) -> None:
    reader = record(tmp_path / "set", [3, 3])
    pack = open_pack(reader, [WRIST], workers=2, progress=False)
    assert len(packed(tmp_path)) == 1
    taken = pack.take(np.array([0, 1]), np.array([2, 2]))["wrist.depth"]
    assert np.array_equal(taken[0], taken[1])


def test_damaged_recording_leaves_no_pack(tmp_path: Path) -> None:
    reader = record(tmp_path / "set", [0])
    video = reader.meta(0).videos["observation.images.wrist"][0]
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    with pytest.raises(DatasetError, match="dataset"):
        open_pack(reader, [WRIST], progress=False)
    assert not packed(tmp_path)
    assert not list((tmp_path / "home").rglob("*.tmp"))


def test_what_the_views_need_and_the_set_lacks(recorded: DatasetReader, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="needs camera 'side'"):
        open_pack(recorded, [replace(WRIST, camera="side")], progress=False)
    with pytest.raises(BadInput, match="needs masks of camera 'wrist'"):
        open_pack(recorded, [replace(WRIST, mask=True)], progress=False)
    plain = tmp_path / "plain"
    bare = make_episode(0, 5)
    bare = replace(bare, columns={**bare.columns, "mask.head": np.array([""] * 5, object)})
    with DatasetWriter(plain, SCHEMA) as writer:
        writer.append(bare)
    with pytest.raises(BadInput, match="needs the depth"):
        open_pack(DatasetReader(plain), [WRIST], progress=False)
    with pytest.raises(BadInput, match="no target mask at row 0"):
        open_pack(DatasetReader(plain), [WHOLE], progress=False)
    assert not packed(tmp_path)


def test_a_full_disk_is_told_before_anything_is_written(
    recorded: DatasetReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shards.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StorageError, match=r"need .* GB, the disk of .* has 0\.0 GB"):
        open_pack(recorded, VIEWS, progress=False)
    assert not packed(tmp_path)


KILLED = """
import sys
from pathlib import Path
from dexloop.datasets.reader import DatasetReader
from dexloop.tests.test_pack import VIEWS
from dexloop.train.data.pack import open_pack
print("ready", flush=True)
open_pack(DatasetReader(Path(sys.argv[1])), VIEWS, workers=2, progress=False)
"""


def test_kill_9_leaves_whole_files_only(tmp_path: Path) -> None:
    reader = record(tmp_path / "set", list(range(12)))
    folder = tmp_path / "home" / "cache" / "packs"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "set")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    while process.poll() is None and not (packed(tmp_path) and list(folder.rglob("*.tmp"))):
        time.sleep(0.001)
    process.kill()
    process.wait()
    process.stdout.close()
    left = packed(tmp_path)
    assert left
    whole = {path: path.stat().st_mtime_ns for path in left}
    pack = open_pack(reader, VIEWS, progress=False)
    assert {path: path.stat().st_mtime_ns for path in left} == whole  # resumed, not begun anew
    assert not list(folder.rglob("*.tmp"))
    for index in range(12):
        taken = pack.take(np.full(8, index), np.arange(8))
        for row, arrays in enumerate(live(reader, index)):
            assert all(np.array_equal(taken[name][row], array) for name, array in arrays.items())
