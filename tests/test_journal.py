"""The journal: what goes in comes out, also while it is written, after a crash, and when the disk is full."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from dexloop.datasets.episode import EpisodeInfo
from dexloop.datasets.journal import (
    CameraStream,
    JournalMeta,
    JournalReader,
    compact,
    journals,
    pack_array,
    unpack_array,
)
from dexloop.datasets.journal_writer import JournalConfig, JournalWriter
from dexloop.datasets.video import StreamFormat
from dexloop.hardware.errors import BadInput, DatasetError, StorageError
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

COLOUR = StreamFormat("h264", "yuv420p", 64, 48, bytes(range(40)))
DEPTH = StreamFormat("hevc", "gray12le", 64, 48, b"\0\1\2", True, 0.001)
HEAD = CameraStream("head", 30.0, COLOUR, DEPTH, True, (1.0, 2.0, 3.0, 4.0), "world", ((1.0, 0.0), (0.0, 1.0)))
META = JournalMeta(
    info=EpisodeInfo("pick up the cup", None, "a note", "script", "rm75_gor", 7, {"scene": {"seed": 7}}),
    cameras=(HEAD, CameraStream("wrist", 30.0, COLOUR)),
    begin_ns=0,
    created="2026-01-01T00:00:00.000+00:00",
    arm_joints=("a", "b"),
    hand_motors=("c",),
    config={"depth": True},
)


def arm_row(time_ns: int) -> tuple[object, ...]:
    return time_ns, np.arange(7.0) + time_ns, np.ones(7), np.zeros(7), np.arange(6.0)


def fill(writer: JournalWriter, count: int) -> None:
    """``count`` of everything, 10 ms apart; packet k is k times the byte k."""
    for k in range(count):
        time_ns = k * 10_000_000
        writer.put_row("arm", arm_row(time_ns))
        writer.put_row("hand", (time_ns, np.full(6, 0.5), np.zeros(6)))
        writer.put_row("commands", (time_ns, time_ns - 5, np.full(13, np.nan), np.full(13, 2.0), 3))
        for heap in (*HEAD.heaps(), "cameras/wrist/colour"):
            writer.put_bytes(heap, time_ns, k, bytes([k % 256]) * k)
        writer.put_bytes("raw", time_ns, 0, pack_array("keys", np.array([k, k + 1], np.int16)))


def written(path: Path, count: int = 40) -> Path:
    writer = JournalWriter(path, META)
    fill(writer, count)
    writer.close()
    return path


def test_everything_comes_back(tmp_path: Path) -> None:
    path = written(tmp_path / "a.journal.h5")
    with JournalReader(path) as reader:
        assert reader.meta == META
        arm = reader.table("arm")
        np.testing.assert_array_equal(arm["captured_ns"], np.arange(40) * 10_000_000)
        np.testing.assert_array_equal(arm["q"][3], np.arange(7.0) + 30_000_000)
        commands = reader.table("commands")
        assert np.isnan(commands["requested"]).all()
        assert (commands["flags"] == 3).all()
        for heap in HEAD.heaps():
            rows = reader.index(heap)
            np.testing.assert_array_equal(rows["sequence"], np.arange(40))
            chosen = np.array([5, 39, 0, 5])
            assert reader.payloads(heap, rows[chosen]) == [bytes([k]) * k for k in chosen]
        times, values = reader.raw()["keys"]
        assert times[2] == 20_000_000
        np.testing.assert_array_equal(values[2], np.array([2, 3], np.int16))
        assert values[2].dtype == np.int16
        assert not reader.finished
        assert reader.last_ns() == 390_000_000
    assert journals(tmp_path) == [path]


@given(arrays(st.sampled_from([np.float32, np.uint8, np.int64]), array_shapes(min_dims=0, max_dims=4, min_side=0)))
def test_arrays_keep_type_and_shape(value: np.ndarray) -> None:
    name, back = unpack_array(pack_array("hand\nkeypoints", value))
    assert name == "hand\nkeypoints"
    assert (back.dtype, back.shape) == (value.dtype, value.shape)
    np.testing.assert_array_equal(back, value)


def test_reads_while_it_is_written_and_as_a_crash_leaves_it(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path / "a.journal.h5", META, JournalConfig(flush_s=0.02))
    fill(writer, 30)
    time.sleep(0.3)
    with JournalReader(writer.path) as reader:
        assert len(reader.table("arm")) == 30
    crashed = tmp_path / "crashed.journal.h5"
    shutil.copy(writer.path, crashed)  # the file as it is on disk, never closed
    fill(writer, 10)
    writer.close()
    with JournalReader(crashed) as reader:
        assert len(reader.table("arm")) == 30
        rows = reader.index("cameras/head/colour")
        assert reader.payloads("cameras/head/colour", rows[-1:]) == [bytes([29]) * 29]


def test_flushed_by_the_rigs_clock_too(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path / "a.journal.h5", META, JournalConfig(flush_s=0.2))
    started = time.monotonic()
    fill(writer, 100)  # one second of a stepped clock at once
    while time.monotonic() - started < 0.15:
        with JournalReader(writer.path) as reader:
            if len(reader.table("arm")) >= 50:
                break
    else:
        pytest.fail("half a second of the episode waited for the wall clock")
    writer.close()


def test_ragged_tail_is_cut_and_damage_inside_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.journal.h5", 100)
    heap = "cameras/head/colour"
    with h5py.File(path, "r+") as file:
        index = file[f"{heap}/index"]
        whole = index[:]
        index[99] = (990_000_000, 99, whole[99]["offset"], whole[99]["size"], whole[99]["crc32"] ^ 1)  # torn
        file["arm"].resize(105, axis=0)  # rows that were allotted and never filled
        file["cameras/head/mask/bytes"].resize(int(whole[50]["offset"]) + 10, axis=0)  # index ahead of its bytes
        file[f"{heap}/bytes"][int(whole[20]["offset"])] ^= 1
    with JournalReader(path) as reader:
        assert len(reader.index(heap)) == 99
        assert len(reader.table("arm")) == 100
        assert len(reader.index("cameras/head/mask")) == 50
        with pytest.raises(DatasetError, match=heap):
            reader.payloads(heap, reader.index(heap))


@settings(max_examples=15)
@given(st.integers(1, 5), st.integers(1, 40))
def test_a_full_queue_blocks_and_drops_nothing(
    tmp_path_factory: pytest.TempPathFactory, queue_size: int, count: int
) -> None:
    path = tmp_path_factory.mktemp("queue") / "a.journal.h5"
    writer = JournalWriter(path, META, JournalConfig(queue_size=queue_size))
    fill(writer, count)
    writer.close()
    assert writer.largest_queue <= queue_size
    with JournalReader(path) as reader:
        assert len(reader.table("arm")) == len(reader.index("cameras/wrist/colour")) == count


def test_never_writes_over_a_journal(tmp_path: Path) -> None:
    path = written(tmp_path / "a.journal.h5", 3)
    with pytest.raises(DatasetError, match="exists"):
        JournalWriter(path, META)
    with JournalReader(path) as reader:
        assert len(reader.table("arm")) == 3


def test_stops_whole_before_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = SimpleNamespace(f_bavail=10**9, f_frsize=1)
    monkeypatch.setattr(os, "statvfs", lambda path: free)
    writer = JournalWriter(tmp_path / "a.journal.h5", META, JournalConfig(flush_s=0.01, min_free_mb=64))
    fill(writer, 20)
    time.sleep(0.2)
    free.f_bavail = 63_000_000
    fill(writer, 1)
    time.sleep(0.2)
    with pytest.raises(StorageError, match=r"63 MB are free"):
        fill(writer, 1)
    with pytest.raises(StorageError, match="whole"):
        writer.close()
    with JournalReader(writer.path) as reader:
        assert len(reader.table("arm")) == 21  # the reserve takes what had come in
        rows = reader.index("cameras/head/depth")
        assert len(reader.payloads("cameras/head/depth", rows)) == len(rows) == 21
    with pytest.raises(StorageError):
        JournalWriter(tmp_path / "b.journal.h5", META)
    assert journals(tmp_path) == [writer.path]


FULL_DISK = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from dexloop.datasets.journal import JournalReader
from dexloop.datasets.journal_writer import JournalConfig, JournalWriter
from dexloop.hardware.errors import StorageError
from test_journal import META
# Nothing kept in reserve: the disk is really full when the kernel says so.
writer = JournalWriter(Path(sys.argv[2]) / "a.journal.h5", META, JournalConfig(flush_s=0.01, min_free_mb=0))
writer._check_space = lambda: None
try:
    for k in range(100_000):
        writer.put_bytes("cameras/head/colour", k * 10**7, k, bytes([k % 256]) * 5000)
except StorageError as error:
    print("TOLD", error)
try:
    writer.close()
except StorageError as error:
    print("TOLD AGAIN")
with JournalReader(writer.path) as reader:
    rows = reader.index("cameras/head/colour")
    payloads = reader.payloads("cameras/head/colour", rows)
    assert payloads == [bytes([k % 256]) * 5000 for k in range(len(rows))]
    print("WHOLE", len(rows))
"""


def test_a_disk_that_is_really_full_is_told_and_leaves_what_was_flushed(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=3m tmpfs {tmp_path}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    script = tmp_path.with_name("full_disk.py")
    script.write_text(FULL_DISK)
    command = f"{mount} && exec {sys.executable} {script} {Path(__file__).parent} {tmp_path}"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    told, again, whole = done.stdout.splitlines()
    assert told.startswith("TOLD writing")
    assert "a.journal.h5" in told
    assert again == "TOLD AGAIN"
    assert int(whole.split()[1]) > 200  # of the 600 that fit


def test_compact_keeps_all_but_the_pictures(tmp_path: Path) -> None:
    path = written(tmp_path / "a.journal.h5", 200)
    info = replace(META.info, success=True, note="kept")
    kept = compact(path, tmp_path / "kept.h5", info)
    assert kept.stat().st_size < path.stat().st_size / 3
    with JournalReader(path) as full, JournalReader(kept) as small:
        assert full.has_images
        assert not small.has_images
        assert small.info == info
        assert replace(small.meta, info=META.info) == META
        for table in ("arm", "hand", "commands"):
            assert full.table(table).tobytes() == small.table(table).tobytes()
        for heap in HEAD.heaps():
            for field in ("captured_ns", "sequence"):
                np.testing.assert_array_equal(full.index(heap)[field], small.index(heap)[field])
        for times, values in (full.raw()["keys"], small.raw()["keys"]):
            assert times[-1] == 1_990_000_000
            np.testing.assert_array_equal(values[-1], [199, 200])
    assert not list(tmp_path.glob("*.part"))


def test_what_is_no_journal_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no journal"):
        JournalReader(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(DatasetError, match="text.h5"):
        JournalReader(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(DatasetError, match="not a journal"):
        JournalReader(tmp_path / "other.h5")
    with h5py.File(tmp_path / "newer.h5", "w") as file:
        file["meta"] = np.frombuffer(b'{"schema": "dexloop-journal-9"}', np.uint8)
    with pytest.raises(DatasetError, match="schema"):
        JournalReader(tmp_path / "newer.h5")
    with pytest.raises(BadInput, match="flush_s"):
        JournalConfig(flush_s=2.0)
