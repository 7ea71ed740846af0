"""The checks of one episode: its entry, its rows, its videos."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np

from ..hardware.description import RM75_6F
from ..hardware.errors import DatasetError
from . import rle
from .layout import (
    CRC_COLUMN,
    DATA_PATTERN,
    INFO_COLUMN,
    VIDEO_PATTERN,
    crc32,
    data_file,
    episode_file,
    info_from_text,
    numpy_columns,
    stats_of_row,
    video_file,
)
from .reader import read_parquet
from .schema import ACTION, INDEX_COLUMNS, Column, Schema, column_problems, timing_problems

Severity = Literal["error", "warning"]
REPAIR = "run `dataset repair`"
DELETE = "look at it with `view`, then remove it with `dataset delete`"

_ARM_LIMITS = dict(zip(RM75_6F.joints, RM75_6F.limits.tolist(), strict=True))
# What PyAV raises on damaged files; a stream whose codec it cannot tell has no codec context (AttributeError).
UNREADABLE = (av.FFmpegError, AttributeError, IndexError, OSError, ValueError)
_LIMIT_SLACK = 1e-5  # float32 rounding of a command on its limit


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, where, and what to do."""

    severity: Severity
    file: str  # relative to the data set
    message: str
    remedy: str
    episode: int | None = None

    def __str__(self) -> str:
        where = f"episode {self.episode}, {self.file}" if self.episode is not None else self.file
        return f"{self.severity}: {where}: {self.message.rstrip('.')}; {self.remedy}."


@dataclass(frozen=True)
class EpisodeCheck:
    """Everything that the checks of one episode need to know."""

    root: Path
    schema: Schema
    features: dict[str, Any]
    tasks: list[str]
    index: int
    start: int  # frames of the episodes before it
    row: dict[str, Any]  # its line of meta/episodes
    ours: bool = True  # False: another tool rewrote the set; its files may hold several episodes

    @property
    def rows(self) -> int:
        return int(self.row["length"])

    @property
    def data_file(self) -> str:
        return DATA_PATTERN.format(chunk_index=self.row["data/chunk_index"], file_index=self.row["data/file_index"])

    def video_file(self, key: str) -> str:
        place = {part: self.row[f"videos/{key}/{part}"] for part in ("chunk_index", "file_index")}
        return VIDEO_PATTERN.format(video_key=key, **place)

    def bad(self, file: str, message: str, remedy: str = REPAIR, severity: Severity = "error") -> Finding:
        return Finding(severity, file, message, remedy, self.index)


def check_entry(episode: EpisodeCheck, file: str) -> Iterator[Finding]:
    """Its line of ``meta/episodes``."""
    row = episode.row
    if episode.ours:  # LeRobot reads entries and rows in the order of their files
        places = {file: episode_file(episode.index), episode.data_file: data_file(episode.index)}
        places |= {episode.video_file(key): video_file(key, episode.index) for key in episode.schema.video_keys}
        for found, wanted in places.items():
            if found != wanted:
                yield episode.bad(file, f"has {found} for its own, expected {wanted}")
    if (row["dataset_from_index"], row["dataset_to_index"]) != (episode.start, episode.start + episode.rows):
        found = f"{row['dataset_from_index']}..{row['dataset_to_index']}"
        yield episode.bad(file, f"spans frames {found}, expected {episode.start}..{episode.start + episode.rows}")
    for task in row["tasks"]:
        if task not in episode.tasks:
            yield episode.bad(file, f"its task {task!r} is not in meta/tasks.parquet")
    try:
        if row.get(INFO_COLUMN):
            info_from_text(row[INFO_COLUMN])
    except (ValueError, TypeError) as error:
        yield episode.bad(file, f"its description cannot be read ({error})")
    numeric = {spec.key for spec in (*episode.schema.columns, *INDEX_COLUMNS) if spec.dtype != "string"}
    missing = sorted((numeric | set(episode.schema.video_keys)) - set(stats_of_row(row)))
    if missing:
        yield episode.bad(file, f"lacks the statistics of {', '.join(missing)}")


def check_rows(episode: EpisodeCheck) -> Iterator[Finding]:
    """Its data parquet."""
    file = episode.data_file
    if not (episode.root / file).exists():
        yield episode.bad(file, "is missing")
        return
    try:
        table = read_parquet(episode.root / file)
        specs = (*episode.schema.columns, *INDEX_COLUMNS)
        absent = [spec.key for spec in specs if spec.key not in table.column_names]
        if absent:
            yield episode.bad(file, f"lacks the columns {', '.join(absent)}")
            return
        columns = numpy_columns(table, specs)
    except (DatasetError, ValueError, TypeError) as error:
        yield episode.bad(file, f"cannot be read ({str(error).splitlines()[0]})")
        return
    yield from _checksum(episode, file, "data")
    own = columns["episode_index"] == episode.index
    columns = {key: array[own] for key, array in columns.items()}
    found = len(columns["index"])
    if found != episode.rows:
        yield episode.bad(file, f"holds {found} rows of this episode, its entry says {episode.rows}")
        return
    for problem in _index_problems(episode, columns):
        yield episode.bad(file, problem)
    broken = [text for spec in episode.schema.columns for text in column_problems(spec, columns[spec.key], found)]
    if not broken and episode.schema.measured:
        broken = timing_problems(episode.schema, columns)
    broken += _limit_problems(episode.schema, columns[ACTION])
    broken += _mask_problems(episode.schema, columns)
    for problem in broken:
        yield episode.bad(file, problem, DELETE)


def _index_problems(episode: EpisodeCheck, columns: dict[str, Column]) -> list[str]:
    frame = np.arange(episode.rows)
    task = episode.row["tasks"][0]
    expected = {
        "frame_index": frame,
        "index": frame + episode.start,
        "task_index": np.full(episode.rows, episode.tasks.index(task) if task in episode.tasks else -1),
    }
    problems = []
    for key, values in expected.items():
        wrong = columns[key] != values
        if wrong.any():
            at = int(np.argmax(wrong))
            problems.append(f"{key} is {columns[key][at]} at row {at}, expected {values[at]}")
    late = np.abs(columns["timestamp"].astype(float) - frame / episode.schema.rate_hz) > 1e-4  # LeRobot's tolerance
    if late.any():
        at = int(np.argmax(late))
        problems.append(f"timestamp is {columns['timestamp'][at]} at row {at}, expected frame / rate")
    return problems


def _limit_problems(schema: Schema, action: Column) -> list[str]:
    """Actions that the robot cannot take: after safety there are none."""
    unknown = (-np.inf, np.inf)
    limits = [_ARM_LIMITS.get(name, unknown) for name in schema.arm_joints] + [(0.0, 1.0)] * len(schema.hand_motors)
    low, high = np.array(limits).T
    values = action.astype(np.float64)
    outside = (values < low - _LIMIT_SLACK) | (values > high + _LIMIT_SLACK)
    if not outside.any():
        return []
    row, joint = np.argwhere(outside)[0]
    name, value = schema.joints[joint], values[row, joint]
    return [f"action {name} is {value:.4f} at row {row}, outside {low[joint]:.4f}..{high[joint]:.4f}"]


def _mask_problems(schema: Schema, columns: dict[str, Column]) -> list[str]:
    key = f"mask.{schema.mask_camera}"
    camera = next(camera for camera in schema.cameras if camera.name == schema.mask_camera)
    for row, text in enumerate(columns[key]):
        if not text:  # no mask known: a camera that gives no segmentation
            continue
        try:
            height, width = rle.check(text)
        except DatasetError as error:
            return [f"{key} at row {row}: {error}"]
        if (height, width) != (camera.height, camera.width):
            return [f"{key} is {width}x{height} at row {row}, its camera is {camera.width}x{camera.height}"]
    return []


def check_video(episode: EpisodeCheck, key: str, deep: bool) -> Iterator[Finding]:
    """One of its videos: size, codec, one self-contained frame per row at the right time; decoded when ``deep``."""
    file = episode.video_file(key)
    path = episode.root / file
    if not path.exists():
        yield episode.bad(file, "is missing")
        return
    width, height, unit_m = episode.schema.video_size(key)
    start_s = float(episode.row[f"videos/{key}/from_timestamp"])
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            size = (stream.codec_context.width, stream.codec_context.height)
            codec = stream.codec_context.codec.canonical_name
            times, intra = [], True
            for packet in container.demux(stream):
                if packet.size and packet.pts is not None:
                    times.append(float(packet.pts * stream.time_base))
                    intra = intra and packet.is_keyframe
    except UNREADABLE as error:
        yield episode.bad(file, f"is not a readable video ({getattr(error, 'strerror', None) or error})")
        return
    yield from _checksum(episode, file, key)
    if size != (width, height):
        yield episode.bad(file, f"is {size[0]}x{size[1]}, expected {width}x{height}", DELETE)
    declared = episode.features[key]["info"].get("video.codec")
    if codec != declared:
        yield episode.bad(file, f"is {codec}, meta/info.json says {declared}", DELETE)
    if not intra:
        yield episode.bad(
            file, "is not all-intra", "reading at random is slow; another tool encoded it anew", severity="warning"
        )
    stop_s = start_s + (episode.rows - 0.5) / episode.schema.rate_hz
    own = [time for time in times if start_s - 0.5 / episode.schema.rate_hz < time < stop_s]
    if len(own) != episode.rows or (episode.ours and len(times) != episode.rows):
        yield episode.bad(file, f"holds {len(times)} frames for {episode.rows} rows")
        return
    drift = np.abs(np.sort(own) - start_s - np.arange(episode.rows) / episode.schema.rate_hz)
    if drift.max() > 1e-4:
        at = int(np.argmax(drift > 1e-4))
        yield episode.bad(file, f"frame {at} lies {drift[at] * 1e3:.2f} ms from its row's time", DELETE)
    if deep:
        yield from _decode(episode, file, path, len(times))


def _decode(episode: EpisodeCheck, file: str, path: Path, frames: int) -> Iterator[Finding]:
    decoded = 0
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.options = {"err_detect": "explode"}
            for frame in container.decode(stream):
                decoded += 1
                if frame.is_corrupt:
                    yield episode.bad(file, f"frame {decoded - 1} is corrupt")
                    return
    except UNREADABLE as error:
        yield episode.bad(file, f"does not decode after frame {decoded} ({error})")
        return
    if decoded != frames:
        yield episode.bad(file, f"decodes to {decoded} frames of {frames}")


def _checksum(episode: EpisodeCheck, file: str, key: str) -> Iterator[Finding]:
    # Other tools carry our columns over to files that they wrote anew.
    wanted = episode.row.get(CRC_COLUMN.format(key=key)) if episode.ours else None
    if wanted is not None and crc32(episode.root / file) != wanted:
        yield episode.bad(file, "its bytes are not those that were written (checksum)")
