"""Rows from streams: the newest reading that is not from the future, whatever the cameras, pauses and crashes do."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from dexloop.datasets.align import align, newest_at, recorded_spans
from dexloop.datasets.episode import AlignedEpisode, EpisodeInfo
from dexloop.datasets.journal import CameraStream, JournalMeta, compact
from dexloop.datasets.journal_writer import JournalConfig, JournalWriter
from dexloop.datasets.schema import schema_of, validate
from dexloop.datasets.video import StreamFormat
from dexloop.hardware.clock import NS
from dexloop.hardware.errors import BadInput, DatasetError
from dexloop.hardware.values import Safety
from hypothesis import given, settings
from hypothesis import strategies as st

COLOUR = StreamFormat("h264", "yuv420p", 64, 48, b"sps")
DEPTH = StreamFormat("hevc", "gray12le", 64, 48, b"vps", True, 0.001)
MS = NS // 1000


@dataclass(frozen=True)
class Story:
    """What happened in an episode, all times in ns."""

    end: int
    head: tuple[int, ...]
    wrist: tuple[int, ...]
    arm: tuple[int, ...]
    hand: tuple[int, ...]
    sent: tuple[int, ...]
    pauses: tuple[tuple[int, int], ...] = ()
    cut_off: bool = False
    depth: bool = False


def every(period_ms: float, end: int, start: int = 0) -> tuple[int, ...]:
    return tuple(range(start, end, round(period_ms * MS)))


def write(path: Path, story: Story, info: EpisodeInfo | None = None) -> Path:
    """A journal of the story: packet, state and command all say the time at which they were captured."""
    head = CameraStream("head", 30.0, COLOUR, DEPTH if story.depth else None, mask=True)
    meta = JournalMeta(
        info or EpisodeInfo("lift"), (head, CameraStream("wrist", 30.0, COLOUR)), 0, "now", ("a",), ("b",), {}
    )
    writer = JournalWriter(path, meta, JournalConfig(flush_s=0.25))
    paused = [(start, end) for start, end in story.pauses]
    for name, times in (("head", story.head), ("wrist", story.wrist)):
        for number, time_ns in enumerate(times):
            if any(start <= time_ns < end for start, end in paused):
                continue  # the recorder journals no frame during a pause
            for heap in head.heaps() if name == "head" else ("cameras/wrist/colour",):
                data = f"64x48 {name} {time_ns} {heap.rpartition('/')[2]}".encode()
                writer.put_bytes(heap, time_ns, number, data)
    for time_ns in story.arm:
        writer.put_row("arm", (time_ns, np.full(7, time_ns / NS), np.ones(7), np.ones(7), np.ones(6)))
    for time_ns in story.hand:
        writer.put_row("hand", (time_ns, np.full(6, time_ns / NS), np.ones(6)))
    for number, time_ns in enumerate(story.sent):
        row = (time_ns, time_ns - number, np.full(13, -time_ns / NS), np.full(13, time_ns / NS), 1 << (number % 5 + 1))
        writer.put_row("commands", row)
    events = [(0, {"kind": "begin"})]
    for start, end in paused:
        events += [(start, {"kind": "pause"}), (end, {"kind": "resume"})]
    if not story.cut_off:
        events.append((story.end, {"kind": "end"}))
    for time_ns, event in events:
        writer.put_bytes("events", time_ns, 0, json.dumps(event).encode())
    writer.close()
    return path


@st.composite
def stories(draw: st.DrawFn) -> Story:
    """Cameras slower and faster than the rows, with jitter and lost frames; one pause; a crash or an end."""
    end = draw(st.integers(600, 2500)) * MS

    def stream(low_ms: int, high_ms: int) -> tuple[int, ...]:
        period = draw(st.integers(low_ms * MS, high_ms * MS))
        start = draw(st.integers(0, 100 * MS))
        rng = np.random.default_rng(draw(st.integers(0, 2**32)))
        times = np.arange(start, end, period)
        times = times + rng.integers(0, max(1, period // 3), len(times))
        kept = times[rng.random(len(times)) > draw(st.sampled_from([0.0, 0.3]))]
        return tuple(int(time) for time in np.unique(kept[kept < end]))

    pause = draw(st.booleans())
    start = draw(st.integers(200, 300)) * MS
    return Story(
        end,
        stream(8, 200),
        stream(8, 200),
        stream(5, 20),
        stream(15, 60),
        stream(10, 120),
        ((start, start + draw(st.integers(1, 250)) * MS),) if pause else (),
        draw(st.booleans()),
        draw(st.booleans()),
    )


def made(story: Story, folder: Path, rate_hz: float = 20.0) -> AlignedEpisode | None:
    """The rows, or None where the story holds none."""
    try:
        return align(write(folder / "a.journal.h5", story), rate_hz)
    except DatasetError as error:
        if "discard" not in str(error):
            raise
        return None


@settings(max_examples=40)
@given(stories(), st.sampled_from([5.0, 20.0, 30.0, 50.0]))
def test_rows_are_honest(tmp_path_factory: pytest.TempPathFactory, story: Story, rate_hz: float) -> None:
    episode = made(story, tmp_path_factory.mktemp("align"), rate_hz)
    if episode is None:
        return
    columns, period = episode.columns, round(NS / rate_hz)
    rows = columns["timing.row_ns"]
    assert (np.diff(rows) > 0).all()
    ages = []
    for name in ("head", "wrist", "arm", "hand"):
        captured = columns[f"timing.{name}_ns"]
        times = np.array(getattr(story, name))
        for pause_start, pause_end in story.pauses if name in ("head", "wrist") else ():
            times = times[(times < pause_start) | (times >= pause_end)]
        assert (captured <= rows).all()  # never from the future
        for row, time_ns in zip(rows, captured, strict=True):
            assert time_ns == times[times <= row].max()  # the newest there was
        ages.append(rows - captured)
    np.testing.assert_array_equal(columns["timing.skew_ns"], np.max(ages, axis=0))
    for start, end in story.pauses:
        assert not ((rows > start) & (rows < end)).any()
        after = rows >= end
        for name in ("head", "wrist"):  # no picture from before the pause
            assert (columns[f"timing.{name}_ns"][after] >= end).all()
    edges = [0, *(time_ns for pause in story.pauses for time_ns in pause), story.end + 1]
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        inside = rows[(rows >= start) & (rows <= end)]
        assert np.abs(np.diff(inside) - NS / rate_hz).max(initial=0) <= 1  # evenly spaced between pauses
    np.testing.assert_array_equal(columns["observation.state"][:, 0], (columns["timing.arm_ns"] / NS).astype("f4"))
    np.testing.assert_array_equal(columns["observation.state"][:, 7], (columns["timing.hand_ns"] / NS).astype("f4"))
    check_actions(story, columns, period)
    check_videos(story, episode)
    validate(schema_of(episode), episode)


def check_actions(story: Story, columns: dict[str, np.ndarray], period: int) -> None:
    sent = np.array(story.sent)
    for k, row in enumerate(columns["timing.row_ns"]):
        in_force = int(np.flatnonzero(sent < row + period)[-1])
        assert columns["timing.sent_ns"][k] == sent[in_force]
        assert columns["action"][k, 0] == np.float32(sent[in_force] / NS)
        assert columns["command.requested"][k, 12] == np.float32(-sent[in_force] / NS)
        assert columns["timing.latency_ns"][k] == in_force
        within = np.flatnonzero((sent >= row) & (sent < row + period)).tolist() or [in_force]
        assert columns["safety.flags"][k] == int(np.bitwise_or.reduce([1 << (n % 5 + 1) for n in within]))


def check_videos(story: Story, episode: AlignedEpisode) -> None:
    assert set(episode.videos) == {"observation.images.head", "observation.images.wrist"} | (
        {"observation.images.head_depth"} if story.depth else set()
    )
    for key, video in episode.videos.items():
        name = key.rpartition(".")[2].removesuffix("_depth")
        kind = "depth" if video.is_depth else "colour"
        captured = episode.columns[f"timing.{name}_ns"]
        assert list(video.packets) == [f"64x48 {name} {time_ns} {kind}".encode() for time_ns in captured]
        assert video.depth_unit_m == (0.001 if video.is_depth else 0.0)
    expected = [f"64x48 head {time_ns} mask" for time_ns in episode.columns["timing.head_ns"]]
    assert episode.columns["mask.head"].tolist() == expected


def calm(**changes: object) -> Story:
    end = 3000 * MS
    third = tuple(round(k * NS / 30) for k in range(90))
    story = Story(end, third, third, every(10, end), tuple(round(k * NS / 60) for k in range(180)), every(50, end))
    return replace(story, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("timestep_ms", [1, 2, 4, 5])
def test_skew_is_small_for_30_hz_cameras_at_20_hz(tmp_path: Path, timestep_ms: int) -> None:
    step = timestep_ms * MS
    frames = tuple(-(-round(k * NS / 30) // step) * step for k in range(90))  # exposed at the next time step
    hand = tuple(-(-round(k * NS / 60) // step) * step for k in range(180))
    episode = align(write(tmp_path / "a.journal.h5", calm(head=frames, wrist=frames, hand=hand)), 20.0)
    assert episode.rows >= 58
    assert np.percentile(episode.columns["timing.skew_ns"], 95) < 20 * MS


def test_every_row_takes_the_command_of_its_own_tick(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sent = tuple(int(k * 50 * MS + rng.integers(0, 4 * MS)) for k in range(60))  # a loop that is a little late
    columns = align(write(tmp_path / "a.journal.h5", calm(sent=sent)), 20.0).columns
    assert (np.diff(columns["timing.sent_ns"]) > 0).mean() > 0.95  # none twice, none left out
    assert np.percentile(columns["timing.sent_ns"] - columns["timing.row_ns"], 95) < 10 * MS


def test_a_stream_that_stops_takes_the_rows_with_it(tmp_path: Path) -> None:
    story = calm(cut_off=True)
    short = replace(story, wrist=tuple(time_ns for time_ns in story.wrist if time_ns < 1000 * MS))
    rows = align(write(tmp_path / "a.journal.h5", short), 20.0).columns["timing.row_ns"]
    assert 950 * MS < rows[-1] < 1100 * MS


def test_label_and_task_follow_the_last_word(tmp_path: Path) -> None:
    path = write(tmp_path / "a.journal.h5", calm(), EpisodeInfo("lift"))
    assert (align(path, 20.0).columns["label.success"] == -1).all()
    episode = align(path, 20.0, EpisodeInfo("lift", success=True, note="good"))
    assert (episode.columns["label.success"] == 1).all()
    assert episode.info.note == "good"


def test_a_request_that_is_no_number_is_flagged_and_does_not_reach_the_rows(tmp_path: Path) -> None:
    for flags, good in ((int(Safety.NOT_FINITE), True), (0, False)):
        path = tmp_path / f"{flags}.journal.h5"
        meta = JournalMeta(EpisodeInfo("lift"), (CameraStream("head", 30.0, COLOUR),), 0, "now", ("a",), ("b",), {})
        writer = JournalWriter(path, meta)
        for k in range(10):
            writer.put_row("arm", (k * 10 * MS, np.zeros(7), np.zeros(7), np.zeros(7), np.zeros(6)))
            writer.put_row("hand", (k * 10 * MS, np.zeros(6), np.zeros(6)))
            writer.put_bytes("cameras/head/colour", k * 10 * MS, k, b"x")
            writer.put_row("commands", (k * 10 * MS, k, np.full(13, np.nan), np.full(13, 0.25), flags))
        writer.close()
        if good:
            columns = align(path, 20.0).columns
            assert (columns["command.requested"] == 0.25).all()
            assert (columns["safety.flags"] & int(Safety.NOT_FINITE)).all()
        else:
            with pytest.raises(DatasetError, match="NOT_FINITE"):
                align(path, 20.0)


def test_depth_that_the_crash_took_takes_its_exposure(tmp_path: Path) -> None:
    story = calm(depth=True, cut_off=True)
    path = tmp_path / "a.journal.h5"
    head = CameraStream("head", 30.0, COLOUR, DEPTH)
    meta = JournalMeta(EpisodeInfo("lift"), (head,), 0, "now", ("a",), ("b",), {})
    writer = JournalWriter(path, meta)
    for number, time_ns in enumerate(story.head):
        writer.put_bytes("cameras/head/colour", time_ns, number, b"c%d" % number)
        if number < 60:
            writer.put_bytes("cameras/head/depth", time_ns, number, b"d%d" % number)
    for time_ns in story.arm:
        writer.put_row("arm", (time_ns, np.zeros(7), np.zeros(7), np.zeros(7), np.zeros(6)))
        writer.put_row("hand", (time_ns, np.zeros(6), np.zeros(6)))
        writer.put_row("commands", (time_ns, time_ns, np.zeros(13), np.zeros(13), 0))
    writer.close()
    videos = align(path, 20.0).videos
    colour, depth = (videos[f"observation.images.head{end}"].packets for end in ("", "_depth"))
    assert [packet[1:] for packet in colour] == [packet[1:] for packet in depth]
    assert colour[-1] == b"c59"


def test_what_cannot_be_aligned_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="rate"):
        align(tmp_path / "none.h5", 0.0)
    with pytest.raises(DatasetError, match="wrist"):
        align(write(tmp_path / "a.journal.h5", calm(wrist=())), 20.0)
    with pytest.raises(DatasetError, match="commands"):
        align(write(tmp_path / "b.journal.h5", calm(sent=())), 20.0)
    paused = calm(pauses=((1 * MS, 2990 * MS),), head=(0,), wrist=(2995 * MS,))
    with pytest.raises(DatasetError, match="too short"):
        align(write(tmp_path / "c.journal.h5", paused), 20.0)
    kept = compact(write(tmp_path / "d.journal.h5", calm()), tmp_path / "kept.h5")
    with pytest.raises(DatasetError, match="compacted"):
        align(kept, 20.0)


@given(st.lists(st.integers(0, 1000), min_size=1).map(sorted), st.lists(st.integers(-10, 1010)))
def test_newest_at_is_the_last_not_after(times: list[int], asked: list[int]) -> None:
    found = newest_at(np.array(times), np.array(asked, np.int64))
    for time_ns, index in zip(asked, found, strict=True):
        assert index == sum(each <= time_ns for each in times) - 1


def test_spans_between_pauses() -> None:
    events = [(0, {"kind": "begin"}), (5, {"kind": "pause"}), (7, {"kind": "resume"}), (8, {"kind": "note"})]
    assert recorded_spans(0, 99, events) == [(0, 5), (7, 99)]
    assert recorded_spans(0, 99, [*events, (20, {"kind": "end"})]) == [(0, 5), (7, 20)]
    assert recorded_spans(0, 99, [*events, (20, {"kind": "stopped"})]) == [(0, 5), (7, 20)]
    assert recorded_spans(0, 99, [(5, {"kind": "pause"}), (9, {"kind": "end"})]) == [(0, 5)]
