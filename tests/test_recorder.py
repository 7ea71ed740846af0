"""The recorder: all that is pushed is journaled, whoever pushes it; what fails is told and leaves a whole journal."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from dexloop.benchmarks.synthetic_rig import SteppedRig, SyntheticCamera, ThreadedRig, draw_frames
from dexloop.datasets import lanes, rle
from dexloop.datasets.align import align
from dexloop.datasets.episode import EpisodeInfo
from dexloop.datasets.journal import JournalReader
from dexloop.datasets.journal_writer import JournalConfig
from dexloop.datasets.recorder import TARGET_KEY, Recorder, RecorderConfig
from dexloop.datasets.schema import schema_of, validate
from dexloop.datasets.video import decode
from dexloop.hardware.clock import NS
from dexloop.hardware.errors import BadInput, DatasetError, DeviceError, StorageError
from dexloop.hardware.values import Applied, Command, Safety

WIDTH, HEIGHT = 64, 48
PICTURES = draw_frames(40, WIDTH, HEIGHT)
INFO = EpisodeInfo("pick up the red cup")


def cameras(**changes: object) -> list[SyntheticCamera]:
    head = SyntheticCamera("head", PICTURES, **changes)  # type: ignore[arg-type]
    return [head, SyntheticCamera("wrist", PICTURES[::-1])]


def stepped(tmp_path: Path, config: RecorderConfig | None = None, **changes: object) -> tuple[SteppedRig, Recorder]:
    rig = SteppedRig(cameras(**changes))
    return rig, Recorder(rig.robot, rig.cameras, tmp_path / "a.journal.h5", config)


def drive(rig: SteppedRig | ThreadedRig, recorder: Recorder, ticks: int, start_ns: int | None = None) -> None:
    """A loop at 20 Hz that sends and records."""
    start_ns = rig.clock.now_ns() if start_ns is None else start_ns
    for tick in range(ticks):
        rig.clock.sleep_until_ns(start_ns + (tick + 1) * NS // 20)
        command = Command(rig.clock.now_ns() - 3_000_000, np.full(7, tick / 100), np.full(6, 0.5))
        recorder.command(command, rig.robot.send(command))


def journaled(path: Path, heap: str = "cameras/head/colour") -> np.ndarray:
    with JournalReader(path) as reader:
        return reader.index(heap)["sequence"]


def test_everything_pushed_is_journaled_with_its_own_time(tmp_path: Path) -> None:
    rig, recorder = stepped(tmp_path)
    recorder.begin(INFO)
    drive(rig, recorder, 40)
    recorder.raw("keys", 123, np.array([1, 2], np.uint8))
    recorder.note("a remark")
    path = recorder.end(EpisodeInfo("pick up the red cup", success=True))
    with JournalReader(path) as reader:
        np.testing.assert_array_equal(reader.table("arm")["captured_ns"], np.arange(201) * 10_000_000)
        np.testing.assert_array_equal(reader.table("hand")["captured_ns"], np.rint(np.arange(61) * NS / 30))
        for name, pictures in (("head", PICTURES), ("wrist", PICTURES[::-1])):
            rows = reader.index(f"cameras/{name}/colour")
            np.testing.assert_array_equal(rows["sequence"], np.arange(61))
            np.testing.assert_array_equal(rows["captured_ns"], np.rint(np.arange(61) * NS / 30))
            stream = next(camera.colour for camera in reader.meta.cameras if camera.name == name)
            for number, shown in enumerate(decode(reader.payloads(f"cameras/{name}/colour", rows), stream)):
                distance = [np.abs(shown.astype(int) - picture).mean() for picture in pictures]
                assert int(np.argmin(distance)) == number % len(pictures)
        commands = reader.table("commands")
        assert len(commands) == 40
        np.testing.assert_array_equal(commands["sent_ns"] - commands["input_ns"], 3_000_000)
        np.testing.assert_array_equal(commands["applied"][:, 0], np.arange(40) / 100)
        assert reader.raw()["keys"][0].tolist() == [123]
        assert [event["kind"] for _, event in reader.events()] == ["begin", "note", "end"]
        assert reader.finished
        assert reader.info.success is True
        assert reader.meta.cameras[1].pose_parent == "flange"
        assert reader.meta.cameras[0].intrinsics[0] == pytest.approx(WIDTH * 0.95)
    episode = align(path, 20.0, statistics=recorder.statistics_pictures())
    assert episode.rows == 40
    validate(schema_of(episode), episode)
    pictures = episode.videos["observation.images.head"].stats_frames
    assert pictures is not None
    assert len(pictures) == 61


def test_threads_and_steps_are_recorded_alike(tmp_path: Path) -> None:
    views = cameras()
    with ThreadedRig(views) as rig:
        recorder = Recorder(rig.robot, views, tmp_path / "a.journal.h5")
        recorder.begin(INFO)
        drive(rig, recorder, 20)
        path = recorder.end()
    for name in ("head", "wrist"):
        sequence = journaled(path, f"cameras/{name}/colour")
        np.testing.assert_array_equal(np.diff(sequence), 1)  # none lost, none twice
        assert 28 <= len(sequence) <= 33
        assert recorder.counts[name].lost_before_us == 0
    episode = align(path, 20.0)
    assert episode.rows >= 18
    validate(schema_of(episode), episode)
    assert np.percentile(episode.columns["timing.latency_ns"], 50) < 5_000_000


def test_a_pause_leaves_frames_out(tmp_path: Path) -> None:
    rig, recorder = stepped(tmp_path)
    recorder.begin(INFO)
    drive(rig, recorder, 10)
    recorder.pause()
    recorder.pause()  # twice is once
    assert recorder.paused
    drive(rig, recorder, 20)
    recorder.resume()
    drive(rig, recorder, 10)
    path = recorder.end()
    sequence = journaled(path)
    assert not set(range(16, 45)) & set(sequence.tolist())
    assert recorder.counts["head"].paused == 30
    assert recorder.counts["head"].received == recorder.counts["head"].paused + len(sequence)
    rows = align(path, 20.0).columns["timing.row_ns"]
    assert not ((rows > NS // 2) & (rows < 3 * NS // 2)).any()
    assert (rows >= 3 * NS // 2).any()


def test_a_slow_encoder_holds_its_source_back_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = lanes.ColourWork.encode

    def slow(self: lanes.ColourWork, frame: lanes.Frame) -> bytes:
        time.sleep(0.03)
        return encode(self, frame)

    monkeypatch.setattr(lanes.ColourWork, "encode", slow)
    rig, recorder = stepped(tmp_path, RecorderConfig(frame_queue=2, camera_timeout_s=0.2, robot_timeout_s=0.2))
    recorder.begin(INFO)
    drive(rig, recorder, 20)
    path = recorder.end()
    np.testing.assert_array_equal(journaled(path), np.arange(31))
    assert recorder.counts["head"].blocked_s > 0.2
    assert recorder.counts["head"].largest_queue <= 2


def test_a_source_held_back_in_its_own_thread_is_not_called_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = lanes.ColourWork.encode

    def stuck(self: lanes.ColourWork, frame: lanes.Frame) -> bytes:
        if frame.sequence == 5:
            time.sleep(0.6)
        return encode(self, frame)

    monkeypatch.setattr(lanes.ColourWork, "encode", stuck)
    views = cameras()
    with ThreadedRig(views) as rig:
        config = RecorderConfig(frame_queue=1, camera_timeout_s=0.25)
        recorder = Recorder(rig.robot, views, tmp_path / "a.journal.h5", config)
        recorder.begin(INFO)
        drive(rig, recorder, 24)
        path = recorder.end()
    np.testing.assert_array_equal(np.diff(journaled(path)), 1)
    assert recorder.counts["head"].blocked_s > 0.2


def test_frames_lost_before_us_are_counted(tmp_path: Path) -> None:
    rig, recorder = stepped(tmp_path, drops=lambda number: number % 10 == 3)
    recorder.begin(INFO)
    drive(rig, recorder, 20)
    recorder.end()
    assert recorder.counts["head"].lost_before_us == 3
    assert recorder.counts["wrist"].lost_before_us == 0


def test_a_camera_that_stops_is_named_and_the_episode_is_whole(tmp_path: Path) -> None:
    rig, recorder = stepped(tmp_path, stops_after=15)
    recorder.begin(INFO)
    with pytest.raises(DeviceError, match="camera 'head' gave its last reading at 466666667 ns"):
        drive(rig, recorder, 60)
    assert rig.clock.now_ns() == pytest.approx(1.5 * NS, abs=0.06 * NS)
    path = recorder.end(INFO)  # cleaning up raises nothing again
    assert not recorder.recording
    np.testing.assert_array_equal(journaled(path), np.arange(15))
    with JournalReader(path) as reader:
        assert not reader.finished
        assert "head" in reader.events()[-1][1]["reason"]
    rows = align(path, 20.0).columns["timing.row_ns"]
    assert rows[-1] < 0.6 * NS  # no row shows a picture that had long been old


@pytest.mark.parametrize("which", ["camera 'head' never gave", "the arm never gave"])
def test_a_source_that_never_starts_is_named(tmp_path: Path, which: str) -> None:
    rig = SteppedRig(cameras(stops_after=0 if "head" in which else None), arm_hz=100.0 if "head" in which else 0.001)
    rig._sources[2].count = 1  # the first reading of the arm would come at once
    recorder = Recorder(rig.robot, rig.cameras, tmp_path / "a.journal.h5")
    recorder.begin(INFO)
    with pytest.raises(DeviceError, match=which):
        drive(rig, recorder, 60)


def test_a_failing_encoder_surfaces_in_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: lanes.ColourWork, frame: lanes.Frame) -> bytes:
        if frame.sequence == 12:
            raise RuntimeError("codec gone")
        return b"packet"

    monkeypatch.setattr(lanes.ColourWork, "encode", broken)
    rig, recorder = stepped(tmp_path)
    recorder.begin(INFO)
    with pytest.raises(DatasetError, match=r"cameras/(head|wrist)/colour failed.*codec gone"):
        drive(rig, recorder, 60)
    path = recorder.end()
    np.testing.assert_array_equal(journaled(path), np.arange(12))


def test_a_failure_that_nobody_has_seen_is_raised_by_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: lanes.ColourWork, frame: lanes.Frame) -> bytes:
        time.sleep(0.05)
        raise RuntimeError("codec gone")

    monkeypatch.setattr(lanes.ColourWork, "encode", broken)
    rig, recorder = stepped(tmp_path)
    recorder.begin(INFO)
    rig.clock.sleep_until_ns(NS // 100)
    with pytest.raises(DatasetError, match="codec gone"):
        recorder.end()
    assert not recorder.recording


def test_a_full_disk_ends_in_a_clear_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = SimpleNamespace(f_bavail=10**9, f_frsize=1)
    monkeypatch.setattr(os, "statvfs", lambda path: free)
    rig, recorder = stepped(tmp_path, RecorderConfig(journal=JournalConfig(flush_s=0.01)))
    recorder.begin(INFO)
    drive(rig, recorder, 10)
    time.sleep(0.3)
    free.f_bavail = 1_000_000
    with pytest.raises(StorageError, match="1 MB are free"):
        drive(rig, recorder, 4000)
    path = recorder.end()
    assert len(journaled(path)) >= 14
    assert align(path, 20.0).rows >= 8


def test_the_targets_mask_is_exact(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    segmentation = [rng.integers(-1, 4, (HEIGHT, WIDTH)).astype(np.int32) for _ in range(7)]
    rig, recorder = stepped(tmp_path, segmentation=segmentation)
    recorder.begin(EpisodeInfo("pick", extra={TARGET_KEY: 2}))
    drive(rig, recorder, 20)
    path = recorder.end()
    episode = align(path, 20.0)
    with JournalReader(path) as reader:
        rows = reader.index("cameras/head/colour")
    number = dict(zip(rows["captured_ns"].tolist(), rows["sequence"].tolist(), strict=True))
    for text, captured_ns in zip(episode.columns["mask.head"], episode.columns["timing.head_ns"], strict=True):
        expected = segmentation[number[int(captured_ns)] % 7] == 2
        np.testing.assert_array_equal(rle.decode(text), expected)


def test_depth_is_recorded_exactly(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).integers(0, 4096, (5, HEIGHT, WIDTH)).astype(np.uint16)
    depth_m = [(frame * np.float32(0.001)).astype(np.float32) for frame in counts]
    views = [
        SyntheticCamera("head", PICTURES, depth_m=depth_m),
        SyntheticCamera("wrist", PICTURES, depth_m=[frame / np.float32(10) for frame in depth_m]),
    ]
    rig = SteppedRig(views)
    recorder = Recorder(rig.robot, views, tmp_path / "a.journal.h5", RecorderConfig(depth=True))
    recorder.begin(INFO)
    drive(rig, recorder, 10)
    path = recorder.end()
    with JournalReader(path) as reader:
        for camera in reader.meta.cameras:
            assert camera.depth is not None
            rows = reader.index(f"cameras/{camera.name}/depth")
            shown = decode(reader.payloads(f"cameras/{camera.name}/depth", rows), camera.depth)
            for number, frame in enumerate(shown):
                np.testing.assert_array_equal(frame, counts[number % 5])
    episode = align(path, 20.0, statistics=recorder.statistics_pictures())
    assert episode.videos["observation.images.wrist_depth"].depth_unit_m == 0.0001
    assert episode.videos["observation.images.head_depth"].stats_frames is not None
    validate(schema_of(episode), episode)


@pytest.mark.parametrize(
    ("extra", "config", "message"),
    [({}, RecorderConfig(depth=True), "without depth"), ({TARGET_KEY: 1}, RecorderConfig(), "without segmentation")],
)
def test_frames_that_lack_what_is_asked_are_refused(
    tmp_path: Path, extra: dict[str, object], config: RecorderConfig, message: str
) -> None:
    rig, recorder = stepped(tmp_path, config)
    recorder.begin(EpisodeInfo("pick", extra=extra))
    with pytest.raises(DeviceError, match=message):
        drive(rig, recorder, 40)
    recorder.end()


def test_what_safety_refused_is_journaled_as_asked(tmp_path: Path) -> None:
    rig, recorder = stepped(tmp_path)
    recorder.begin(INFO)
    drive(rig, recorder, 5)
    asked, sent = Command(0, np.full(7, np.nan), np.ones(6)), Command(0, np.zeros(7), np.ones(6))
    recorder.command(asked, Applied(sent, rig.clock.now_ns(), Safety.NOT_FINITE, "not a number"))
    path = recorder.end()
    with JournalReader(path) as reader:
        last = reader.table("commands")[-1]
    assert np.isnan(last["requested"][:7]).all()
    assert Safety(int(last["flags"])) is Safety.NOT_FINITE


def test_no_thread_and_no_subscription_is_left(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    rig, recorder = stepped(tmp_path)
    for number in range(3):
        recorder.begin(INFO, tmp_path / f"{number}.journal.h5")
        drive(rig, recorder, 4)
        recorder.end()
    assert set(threading.enumerate()) == before
    assert not rig.robot._sinks
    assert not any(camera._sinks for camera in rig.cameras)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_camera_that_cannot_be_subscribed_leaves_nothing_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: SyntheticCamera, sink: Callable[..., None]) -> None:
        raise DeviceError("camera 'wrist' is unplugged")

    rig, recorder = stepped(tmp_path)
    before = set(threading.enumerate())
    monkeypatch.setattr(rig.cameras[1], "subscribe", refuse.__get__(rig.cameras[1]))
    with pytest.raises(DeviceError, match="unplugged"):
        recorder.begin(INFO)
    assert not recorder.recording
    assert set(threading.enumerate()) == before
    assert not rig.robot._sinks


def test_wrong_use_is_told(tmp_path: Path) -> None:
    rig, recorder = stepped(tmp_path)
    command = Command(0, np.zeros(7), np.ones(6))
    for call in (recorder.end, recorder.pause, recorder.check, lambda: recorder.command(command, Applied(command, 0))):
        with pytest.raises(BadInput, match=r"begin\(\)"):
            call()
    recorder.begin(INFO)
    with pytest.raises(BadInput, match="being recorded"):
        recorder.begin(INFO)
    drive(rig, recorder, 2)
    recorder.end()
    with pytest.raises(BadInput, match="journal_path"):
        recorder.begin(INFO)
    twice = [SyntheticCamera("head", PICTURES), SyntheticCamera("head", PICTURES)]
    with pytest.raises(BadInput, match="different names"):
        Recorder(rig.robot, twice, tmp_path / "b.journal.h5")
    with pytest.raises(BadInput, match="depth unit"):
        Recorder(
            rig.robot, [SyntheticCamera("side", PICTURES)], tmp_path / "b.journal.h5", RecorderConfig(depth=True)
        ).begin(INFO)
    with pytest.raises(BadInput, match="integer id"):
        Recorder(rig.robot, rig.cameras, tmp_path / "b.journal.h5").begin(EpisodeInfo("x", extra={TARGET_KEY: "cup"}))
    with pytest.raises(BadInput, match="frame_queue"):
        RecorderConfig(frame_queue=0)


@pytest.mark.parametrize("camera_hz", [20.0, 30.0])
def test_skew_on_the_twin_is_below_20_ms(tmp_path: Path, camera_hz: float) -> None:
    pytest.importorskip("mujoco")
    from dexloop.hardware.twin.world import TwinConfig, TwinWorld

    world = TwinWorld(TwinConfig(camera_size=(64, 48), camera_rate_hz=camera_hz, depth=False))
    try:
        recorder = Recorder(world.robot, list(world.cameras.values()), tmp_path / "a.journal.h5")
        recorder.begin(INFO)
        start_ns, state = world.clock.now_ns(), world.robot.state()
        for tick in range(60):
            world.clock.sleep_until_ns(start_ns + (tick + 1) * NS // 20)
            command = Command(world.clock.now_ns(), state.arm.q, state.hand.opening)
            recorder.command(command, world.robot.send(command))
        path = recorder.end()
    finally:
        world.close()
    assert all(count.lost_before_us == 0 for count in recorder.counts.values())
    columns = align(path, 20.0).columns
    assert len(columns["timing.row_ns"]) >= 57
    assert np.percentile(columns["timing.skew_ns"], 95) < 20_000_000
