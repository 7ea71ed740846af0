"""Writes LeRobot v3.0 data sets, one episode at a time, each all-or-nothing and final.

An append is one :class:`~.transaction.Transaction`: videos, rows and metadata are staged, flushed and *proved*
(frames in every video == rows in the parquet == packets that were recorded), then committed by one rename. Whatever
moment the process dies at, earlier episodes stay as they are and the new one is either absent or can be completed.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
import pyarrow.parquet as pq

from ..hardware.errors import BadInput, DatasetError
from . import stats as st
from . import transaction as tx
from . import video as vid
from .check import assert_appendable
from .episode import AlignedEpisode, EncodedVideo
from .layout import (
    OWN,
    STATS,
    TASKS,
    crc32,
    data_file,
    data_table,
    dump,
    episode_file,
    episode_row,
    info_json,
    is_dataset,
    read_json,
    read_tasks,
    tasks_table,
    video_file,
    write_table,
)
from .schema import ACTION, SUCCESS, Schema, features, validate
from .schema_file import read_schema
from .transaction import INFO

LABEL = {None: -1, False: 0, True: 1}


class DatasetWriter:
    """Appends episodes to the data set at ``root``, which is made with the first one.

    Holds the set's lock until :meth:`close`. Raises BadInput where the set has another schema, DatasetError where it
    is damaged or another process writes it.
    """

    def __init__(self, root: Path, schema: Schema, probe: tx.Probe = lambda step: None) -> None:
        self.root, self.schema, self._probe = root, schema, probe
        if root.exists() and not root.is_dir():
            raise BadInput(f"{root} is a file: give the name of a data set or a folder.")
        if not is_dataset(root) and (root / "meta").exists() and not (root / tx.COMMIT).exists():
            raise DatasetError(f"{root} has lost its {INFO}: run `dataset repair`.")
        if is_dataset(root) and not tx.pending(root):  # before anything is touched
            difference = read_schema(root).difference(schema)
            if difference:
                raise BadInput(f"{root} has another schema: {difference}. Record to another --dataset.")
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"{root} cannot be made ({error.strerror}): give a folder that can be written.") from error
        self._lock = tx.acquire(root)
        try:
            self._load()
        except BaseException:
            self.close()
            raise

    def _load(self) -> None:
        self._stale = False
        self._tasks: list[str] = []
        self._stats: st.Stats | None = None
        self._features: dict[str, Any] | None = None
        self.episodes, self._frames = 0, 0
        if tx.pending(self.root) or is_dataset(self.root):
            assert_appendable(self.root)
        if is_dataset(self.root):
            info = read_json(self.root, INFO)
            self._tasks = read_tasks(self.root)
            self._stats = st.from_json(read_json(self.root, STATS))
            self._features = info["features"]
            self.episodes, self._frames = info["total_episodes"], info["total_frames"]

    def append(self, episode: AlignedEpisode, source: str = "") -> int:
        """Add an episode; its index once it is safely on the disk.

        ``source`` names what it was made from (a journal's file name), so that a recovery never adds it twice.
        Raises DatasetError, with nothing added, where it does not fit the schema or cannot be written.
        """
        if self._lock < 0:
            raise DatasetError(f"the writer of {self.root} is closed: open another.")
        if self._stale:
            self._load()
        validate(self.schema, episode)
        if (np.asarray(episode.columns[SUCCESS]) != LABEL[episode.info.success]).any():
            raise DatasetError(f"{SUCCESS} does not say the same as the episode's label {episode.info.success}.")
        change = tx.Transaction(self.root, f"append of episode {self.episodes}", self._probe)
        self._stale = True  # until the end is reached: an interrupted append may have been committed
        try:
            totals = self._stage(change, episode, source)
            change.commit()
        except Exception as error:
            raise self._explain(change, error) from error
        index, self.episodes = self.episodes, self.episodes + 1
        self._frames, self._tasks, self._stats, self._features = totals
        self._stale = False
        return index

    def _stage(
        self, change: tx.Transaction, episode: AlignedEpisode, source: str
    ) -> tuple[int, list[str], st.Stats, dict[str, Any]]:
        index, rows, task = self.episodes, len(episode.columns[ACTION]), episode.info.task
        tasks = self._tasks if task in self._tasks else [*self._tasks, task]
        checksums = {}
        for key, video in episode.videos.items():
            path = change.stage(video_file(key, index))
            vid.mux(video, self.schema.rate_hz, path)
            prove_video(path, video, rows)
            checksums[key] = crc32(path)
            self._probe(f"staged {key}")
        table, columns = data_table(episode.columns, self.schema, index, self._frames, tasks.index(task))
        path = change.stage(data_file(index))
        write_table(table, path)
        if pq.read_metadata(path).num_rows != rows:
            raise DatasetError(f"{path.name} was written with fewer rows than the episode's {rows}: is the disk full?")
        checksums["data"] = crc32(path)
        stats = episode_stats(columns, episode.videos)
        meta = episode_row(self.schema, index, self._frames, rows, episode.info, source, stats, checksums)
        write_table(meta, change.stage(episode_file(index)))
        if len(tasks) != len(self._tasks):
            write_table(tasks_table(tasks), change.stage(TASKS))
        total = st.aggregate([self._stats, stats]) if self._stats else stats
        change.stage_text(STATS, dump(st.to_json(total)))
        described = self._features or features(self.schema, episode.videos)
        if not self.episodes:
            change.stage_text(OWN, dump(self.schema.to_json()))
        frames = self._frames + rows
        change.stage_text(INFO, dump(info_json(self.schema, described, index + 1, frames, len(tasks))))
        return frames, tasks, total, described

    def _explain(self, change: tx.Transaction, error: Exception) -> Exception:
        """Nothing was added, or it is in the redo log: say which."""
        if (self.root / tx.COMMIT).exists():
            return DatasetError(f"{change.what} was committed but not finished ({error}): run `dataset repair`.")
        change.abandon()
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        if full:
            return DatasetError(
                f"the disk of {self.root} is full: the episode was not added and its journal is kept; make room, then "
                "run `dataset repair`."
            )
        if isinstance(error, DatasetError | BadInput):
            return error
        if isinstance(error, OSError):
            return DatasetError(f"{change.what} failed ({error}): the data set is as it was, the journal is kept.")
        return error

    def close(self) -> None:
        """Release the lock. Safe to call twice."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def prove_video(path: Path, video: EncodedVideo, rows: int) -> None:
    """Raise DatasetError unless the file holds exactly ``rows`` frames and the first one decodes to its size."""
    found = vid.count_frames(path)
    if found != rows:
        raise DatasetError(f"{path.name} holds {found} frames for {rows} rows: the episode was not added.")
    try:
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
            size = (frame.width, frame.height)
    except (av.FFmpegError, StopIteration) as error:
        raise DatasetError(f"{path.name} does not decode ({error}): the episode was not added.") from error
    if size != (video.width, video.height):
        raise DatasetError(f"{path.name} decodes to {size}, expected {(video.width, video.height)}: it was not added.")


def episode_stats(columns: dict[str, np.ndarray], videos: dict[str, EncodedVideo]) -> st.Stats:
    """LeRobot's statistics of one episode: every number, and each video from its sampled frames (depth in mm)."""
    out = {key: st.column_stats(array) for key, array in columns.items() if array.dtype != object}
    for key, video in videos.items():
        frames = video.stats_frames
        if frames is None:
            chosen = st.sample_rows(len(video.packets))
            frames = vid.stack(list(vid.decode([video.packets[row] for row in chosen], video)))
        scale = video.depth_unit_m * 1e3 if video.is_depth else 1 / 255
        out[key] = st.image_stats(frames, scale)
    return out
