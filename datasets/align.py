"""From a journal's streams, each at its own rate and clock, to rows at the data set's rate.

Rows of one span between pauses lie at t_k = t_0 + k / rate. A row sees what a policy would have seen at t_k: of every
stream the newest reading captured at t_k or before, never one from the future. Its action is what the robot was then
told: the last command sent in [t_k, t_k+1), or the one in force where none was. Every row keeps the capture times of
all that it is made of. See ``docs/decisions/42-alignment.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..hardware.clock import NS
from ..hardware.errors import BadInput, DatasetError
from ..hardware.values import Safety
from .episode import AlignedEpisode, EncodedVideo, EpisodeInfo
from .journal import CameraStream, JournalReader
from .video import StreamFormat

Times = NDArray[np.int64]

_PHASES = 50  # places of t_0 that are tried within one row


@dataclass(frozen=True)
class _Frames:
    """A camera's exposures that are whole: journaled in all its heaps."""

    stream: CameraStream
    captured_ns: Times  # (N,) ascending
    rows: dict[str, NDArray[np.void]]  # index rows by kind (colour, depth, mask), (N,) each


@dataclass(frozen=True)
class _Streams:
    """All streams of a journal in the order of their times."""

    arm: NDArray[np.void]
    hand: NDArray[np.void]
    commands: NDArray[np.void]
    frames: tuple[_Frames, ...]

    def captures(self) -> dict[str, Times]:
        """Capture times by the stream's name in ``timing.<name>_ns``."""
        cameras = {frames.stream.name: frames.captured_ns for frames in self.frames}
        return {**cameras, "arm": self.arm["captured_ns"], "hand": self.hand["captured_ns"]}


def align(
    journal: Path,
    rate_hz: float,
    info: EpisodeInfo | None = None,
    statistics: Mapping[str, NDArray[np.generic]] | None = None,
) -> AlignedEpisode:
    """Rows at ``rate_hz`` from a journal, finished or cut off.

    Args:
        journal: file written by the recorder.
        rate_hz: rows per second of the data set.
        info: replaces the journal's, where a label or note came later.
        statistics: pictures from ``Recorder.statistics_pictures``; without them the writer decodes some packets.

    Raises:
        DatasetError: the journal cannot be read or holds too little for a row.
        BadInput: the rate is not positive.
    """
    if not rate_hz > 0:
        raise BadInput(f"the data set's rate is {rate_hz} Hz; expected a positive number such as 20")
    with closing(JournalReader(journal)) as reader:
        if not reader.has_images:
            raise DatasetError(f"{journal} was compacted and has no pictures: rows can be made of full journals only")
        streams = _load(reader)
        rows_ns = _grid(reader, streams, rate_hz)
        newest = {name: newest_at(times, rows_ns) for name, times in streams.captures().items()}
        columns = _columns(streams, rows_ns, newest, round(NS / rate_hz))
        episode_info = info or reader.info
        label = -1 if episode_info.success is None else int(episode_info.success)
        columns["label.success"] = np.full(len(rows_ns), label, np.int64)
        columns[f"mask.{reader.meta.config.get('mask_camera', 'head')}"] = _masks(reader, streams, newest, len(rows_ns))
        videos = _videos(reader, streams, newest, statistics or {})
    for key, video in videos.items():
        if len(video.packets) != len(rows_ns):
            raise DatasetError(f"{key} has {len(video.packets)} frames for {len(rows_ns)} rows: not saved")
    return AlignedEpisode(rate_hz, columns, videos, episode_info)


def newest_at(captured_ns: Times, at_ns: Times) -> Times:
    """For each time the index of the newest capture at or before it; -1 where there is none."""
    return np.searchsorted(captured_ns, at_ns, side="right").astype(np.int64) - 1


def recorded_spans(begin_ns: int, last_ns: int, events: list[tuple[int, dict[str, object]]]) -> list[tuple[int, int]]:
    """(start, end) of the stretches between pauses; an episode that was cut off ends at ``last_ns``."""
    spans, start = [], begin_ns
    running = True
    for time_ns, event in events:
        kind = event["kind"]
        if kind == "resume" and not running:
            start, running = time_ns, True
        elif kind in ("pause", "end", "stopped") and running:
            spans.append((start, time_ns))
            running = False
            if kind != "pause":
                return spans
    if running:
        spans.append((start, last_ns))
    return spans


def _load(reader: JournalReader) -> _Streams:
    tables = {name: _in_order(reader.table(name)) for name in ("arm", "hand", "commands")}
    frames = tuple(_frames(reader, camera) for camera in reader.meta.cameras)
    streams = _Streams(tables["arm"], tables["hand"], tables["commands"], frames)
    empty = [name for name, times in streams.captures().items() if not len(times)]
    empty += ["commands"] * (not len(streams.commands))
    if empty:
        raise DatasetError(f"{reader.path} holds nothing of {', '.join(empty)}: there is no row to make; discard it")
    return streams


def _frames(reader: JournalReader, camera: CameraStream) -> _Frames:
    kinds = {heap.rpartition("/")[2]: _in_order(reader.index(heap)) for heap in camera.heaps()}
    whole = kinds["colour"]["captured_ns"]
    for rows in kinds.values():
        # A crash may have taken an exposure's depth or mask and left its colour: then it does not count.
        whole = np.intersect1d(whole, rows["captured_ns"])
    chosen = {kind: rows[np.searchsorted(rows["captured_ns"], whole)] for kind, rows in kinds.items()}
    return _Frames(camera, whole.astype(np.int64), chosen)


def _in_order(rows: NDArray[np.void]) -> NDArray[np.void]:
    assert rows.dtype.names is not None
    return rows[np.argsort(rows[rows.dtype.names[0]], kind="stable")]


def _grid(reader: JournalReader, streams: _Streams, rate_hz: float) -> Times:
    """Times of all rows, the spans between pauses one after another."""
    newest_ns = max(int(times[-1]) for times in (*streams.captures().values(), streams.commands["sent_ns"]))
    spans = recorded_spans(reader.meta.begin_ns, newest_ns, reader.events())
    grids = [_span_grid(streams, start, end, rate_hz) for start, end in spans]
    rows_ns = np.concatenate(grids) if grids else np.empty(0, np.int64)
    if not len(rows_ns):
        raise DatasetError(
            f"{reader.path} has no moment at which every stream had a reading: too short for a row; discard it"
        )
    return rows_ns


def _span_grid(streams: _Streams, start_ns: int, end_ns: int, rate_hz: float) -> Times:
    period_ns = round(NS / rate_hz)
    sent = streams.commands["sent_ns"]
    # The action of the first row must exist: sent before the row ends.
    first_ns = max(start_ns, int(sent[0]) - period_ns + 1)
    last_ns = end_ns
    for name, times in streams.captures().items():
        # Frames are not journaled during a pause: the last before it would be a picture of another time.
        inside = times if name in ("arm", "hand") else times[(times >= start_ns) & (times <= end_ns)]
        if not len(inside):
            return np.empty(0, np.int64)
        first_ns = max(first_ns, int(inside[0]))
        # A stream that stopped before the end takes the rows with it.
        usual_ns = int(np.median(np.diff(inside))) if len(inside) > 1 else period_ns
        last_ns = min(last_ns, int(inside[-1]) + max(2 * usual_ns, period_ns))
    if first_ns > last_ns:
        return np.empty(0, np.int64)
    return _best_phase(streams, first_ns, last_ns, rate_hz)


def _best_phase(streams: _Streams, first_ns: int, last_ns: int, rate_hz: float) -> Times:
    """The grid whose rows lie best: just after what they are made of, just before the command that answers it.

    Any t_0 within one period is as true as any other. Rows that fall just short of a camera's exposures would all
    show the picture before; rows just after a loop's commands would all take the command of the next tick.
    """
    period_ns = NS / rate_hz
    captures, sent = streams.captures(), streams.commands["sent_ns"]
    best: tuple[float, Times] | None = None
    for start_ns in _starts([*captures.values(), sent], first_ns, last_ns, period_ns):
        count = int((last_ns - start_ns) / period_ns) + 1
        rows_ns = start_ns + np.rint(np.arange(count) * period_ns).astype(np.int64)
        answer = newest_at(sent, rows_ns + round(period_ns) - 1)
        delay_ns = np.abs(sent[answer] - rows_ns)
        cost = float(np.percentile(_skew(captures, rows_ns), 95) + 0.5 * np.percentile(delay_ns, 95))
        if best is None or cost < best[0]:
            best = cost, rows_ns
    assert best is not None
    return best[1]


def _starts(streams: list[Times], first_ns: int, last_ns: int, period_ns: float) -> list[int]:
    """Candidates for t_0: evenly spread over one row, and just at the readings and commands themselves."""
    offsets = {round(phase * period_ns / _PHASES) for phase in range(_PHASES)}
    for times in streams:
        early = times[times >= first_ns][:_PHASES]
        offsets |= {int(offset) for offset in np.unique(np.mod(early - first_ns, period_ns).astype(np.int64))[:5]}
    return sorted(first_ns + offset for offset in offsets if first_ns + offset <= last_ns)


def _skew(captures: Mapping[str, Times], rows_ns: Times) -> Times:
    """Largest |row - capture| over the streams, per row."""
    ages = [rows_ns - times[newest_at(times, rows_ns)] for times in captures.values()]
    return np.abs(np.stack(ages)).max(0)


def _columns(
    streams: _Streams, rows_ns: Times, newest: dict[str, Times], period_ns: int
) -> dict[str, NDArray[np.generic]]:
    arm, hand = streams.arm[newest["arm"]], streams.hand[newest["hand"]]
    answer = newest_at(streams.commands["sent_ns"], rows_ns + period_ns - 1)
    command = streams.commands[answer]
    columns: dict[str, NDArray[np.generic]] = {
        "observation.state": np.concatenate([arm["q"], hand["opening"]], 1).astype(np.float32),
        "action": command["applied"].astype(np.float32),
        "command.requested": _requested(command).astype(np.float32),
        "safety.flags": _flags(streams.commands, rows_ns, answer),
        "sensor.wrench": arm["wrench"].astype(np.float32),
        "sensor.arm_velocity": arm["dq"].astype(np.float32),
        "sensor.arm_effort": arm["effort"].astype(np.float32),
        "sensor.hand_force": hand["force"].astype(np.float32),
        "timing.row_ns": rows_ns,
    }
    for name, times in streams.captures().items():
        columns[f"timing.{name}_ns"] = times[newest[name]].astype(np.int64)
    columns["timing.sent_ns"] = command["sent_ns"].astype(np.int64)
    columns["timing.input_ns"] = command["input_ns"].astype(np.int64)
    columns["timing.skew_ns"] = _skew(streams.captures(), rows_ns)
    columns["timing.latency_ns"] = (command["sent_ns"] - command["input_ns"]).astype(np.int64)
    return columns


def _requested(command: NDArray[np.void]) -> NDArray[np.float64]:
    """What was asked for. Where that was not a number the row shows what was sent instead, and its NOT_FINITE flag
    says so: one NaN would spoil the statistics of a whole data set. The journal keeps the request itself."""
    finite = np.isfinite(command["requested"]).all(1)
    marked = (command["flags"] & int(Safety.NOT_FINITE)) != 0
    if (~finite & ~marked).any():
        time_ns = int(command["sent_ns"][np.argmax(~finite & ~marked)])
        raise DatasetError(
            f"a request that is not finite was sent at {time_ns} ns without safety's NOT_FINITE flag: record through "
            "SafeRobot"
        )
    return np.where(finite[:, None], command["requested"], command["applied"])


def _flags(commands: NDArray[np.void], rows_ns: Times, answer: Times) -> Times:
    """Everything that safety did within a row: flags of all commands sent in it, or of the one in force."""
    # The first command of a row follows the last one sent before it.
    before = newest_at(commands["sent_ns"], rows_ns - 1)
    flags = np.zeros(len(rows_ns), np.int64)
    for row, (first, last) in enumerate(zip(np.minimum(before + 1, answer), answer, strict=True)):
        flags[row] = np.bitwise_or.reduce(commands["flags"][first : last + 1])
    return flags


def _masks(reader: JournalReader, streams: _Streams, newest: dict[str, Times], rows: int) -> NDArray[np.generic]:
    """The target's mask in each row's picture; empty text where none was recorded."""
    texts = np.full(rows, "", dtype=object)
    for frames in streams.frames:
        if "mask" in frames.rows:
            found = _payloads(reader, frames, "mask", newest[frames.stream.name])
            texts[:] = [data.decode() for data in found]
    return texts


def _videos(
    reader: JournalReader,
    streams: _Streams,
    newest: dict[str, Times],
    statistics: Mapping[str, NDArray[np.generic]],
) -> dict[str, EncodedVideo]:
    videos = {}
    for frames in streams.frames:
        name = frames.stream.name
        formats: dict[str, StreamFormat | None] = {"colour": frames.stream.colour, "depth": frames.stream.depth}
        for kind, stream in formats.items():
            if stream is None:
                continue
            suffix = "_depth" if kind == "depth" else ""
            videos[f"observation.images.{name}{suffix}"] = EncodedVideo(
                codec=stream.codec,
                pix_fmt=stream.pix_fmt,
                width=stream.width,
                height=stream.height,
                extradata=stream.extradata,
                packets=tuple(_payloads(reader, frames, kind, newest[name])),
                is_depth=stream.is_depth,
                depth_unit_m=stream.depth_unit_m,
                stats_frames=statistics.get(f"{name}{suffix}"),
            )
    return videos


def _payloads(reader: JournalReader, frames: _Frames, kind: str, chosen: Times) -> list[bytes]:
    """Bytes of the chosen exposures, one per row; each is read once."""
    used, place = np.unique(chosen, return_inverse=True)
    found = reader.payloads(f"cameras/{frames.stream.name}/{kind}", frames.rows[kind][used])
    return [found[index] for index in place]
