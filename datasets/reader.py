"""Reads data sets back: rows as numpy arrays, frames decoded on demand, without torch or LeRobot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..hardware.errors import BadInput, DatasetError
from . import rle
from .episode import EpisodeInfo
from .layout import (
    CRC_COLUMN,
    DATA_PATTERN,
    INFO_COLUMN,
    PARQUET_ERRORS,
    SOURCE_COLUMN,
    VIDEO_PATTERN,
    episode_file,
    info_from_text,
    numpy_columns,
    open_table,
    read_json,
    read_tasks,
)
from .schema import INDEX_COLUMNS, SUCCESS, Column
from .schema_file import read_schema
from .transaction import INFO


@dataclass(frozen=True)
class EpisodeMeta:
    """What is known of an episode without reading its rows."""

    index: int
    rows: int
    start: int  # frames of the data set before it
    info: EpisodeInfo
    source: str
    data_path: Path
    videos: dict[str, tuple[Path, float]]  # by feature key: file, and the second in it at which the episode starts
    checksums: dict[str, int] = field(default_factory=dict)  # CRC-32 of the files, by "data" and feature key


@dataclass(frozen=True)
class EpisodeData:
    """An episode's rows. ``columns`` holds every non-video feature, (rows, ...) each, text as object arrays."""

    meta: EpisodeMeta
    columns: dict[str, Column]

    @property
    def info(self) -> EpisodeInfo:
        return self.meta.info

    @property
    def rows(self) -> int:
        return self.meta.rows


class DatasetReader:
    """The data set at ``root``. Raises BadInput where there is none or it has another schema."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.schema = read_schema(root)
        self.info = read_json(root, INFO)
        self.tasks = read_tasks(root)
        self._rows: dict[int, dict[str, Any]] = {}
        self._files: dict[int, Path] = {}

    def __len__(self) -> int:
        return int(self.info["total_episodes"])

    def episodes(self) -> list[EpisodeMeta]:
        """Every finished episode, in order."""
        return [self.meta(index) for index in range(len(self))]

    def meta(self, index: int) -> EpisodeMeta:
        """Raises BadInput where there is no such episode."""
        if not 0 <= index < len(self):
            have = f"has 0..{len(self) - 1}" if len(self) else "has no episodes"
            raise BadInput(f"episode {index} does not exist: {self.root.name} {have}.")
        row = self._row(index)
        text = row.get(INFO_COLUMN)
        videos = {}
        for key in self.schema.video_keys:
            place = {part: row[f"videos/{key}/{part}"] for part in ("chunk_index", "file_index")}
            path = self.root / VIDEO_PATTERN.format(video_key=key, **place)
            videos[key] = (path, float(row[f"videos/{key}/from_timestamp"]))
        place = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
        data = self.root / DATA_PATTERN.format(**place)
        start, stop = int(row["dataset_from_index"]), int(row["dataset_to_index"])
        info = info_from_text(text) if text else self._described(row, data)
        names = {key: CRC_COLUMN.format(key=key) for key in ("data", *self.schema.video_keys)}
        checksums = {key: int(row[name]) for key, name in names.items() if row.get(name) is not None}
        return EpisodeMeta(index, stop - start, start, info, row.get(SOURCE_COLUMN) or "", data, videos, checksums)

    def episode(self, index: int) -> EpisodeData:
        """The rows of one episode."""
        meta = self.meta(index)
        table = read_parquet(meta.data_path)
        specs = (*self.schema.columns, *INDEX_COLUMNS)
        missing = [spec.key for spec in specs if spec.key not in table.column_names]
        if missing:
            raise DatasetError(f"{meta.data_path} lacks {', '.join(missing)}: run `dataset check`.")
        columns = numpy_columns(table, specs)
        own = columns["episode_index"] == index  # another tool may have put several episodes into one file
        columns = {key: array[own] for key, array in columns.items()}
        if len(columns["index"]) != meta.rows:
            found = len(columns["index"])
            raise DatasetError(
                f"{meta.data_path} holds {found} rows for {meta.rows} of episode {index}: `dataset check`."
            )
        return EpisodeData(meta, columns)

    def frames(self, index: int, key: str, rows: Sequence[int] | None = None) -> NDArray[np.generic]:
        """Decoded frames of one video: (N, H, W, 3) uint8 RGB, or (N, H, W) uint16 depth counts.

        ``rows`` chooses rows in rising order; all of them when not given.
        """
        found = list(self.stream(index, key, rows))
        return np.stack(found) if found else np.zeros((0, 0, 0, 3), np.uint8)

    def stream(self, index: int, key: str, rows: Sequence[int] | None = None) -> Iterator[NDArray[np.generic]]:
        """As :meth:`frames`, one after another, so that no more than one need be in memory."""
        meta = self.meta(index)
        if key not in meta.videos:
            raise BadInput(f"there is no video {key!r}: the data set has {', '.join(meta.videos)}.")
        path, start_s = meta.videos[key]
        wanted = range(meta.rows) if rows is None else rows
        first = round(start_s * self.schema.rate_hz)
        depth = bool(self.schema.video_size(key)[2])
        return read_frames(path, [first + row for row in wanted], self.schema.rate_hz, depth)

    def masks(self, index: int) -> NDArray[np.bool_]:
        """(rows, H, W) target masks. Raises BadInput where a row has none (its camera gave no segmentation)."""
        texts = self.episode(index).columns[f"mask.{self.schema.mask_camera}"]
        if not all(texts):
            row = next(row for row, text in enumerate(texts) if not text)
            raise BadInput(
                f"episode {index} of {self.root.name} has no target mask at row {row}: it was recorded without "
                "segmentation; make masks for it first."
            )
        return np.stack([rle.decode(text) for text in texts])

    def row(self, index: int) -> dict[str, Any]:
        """The line of ``meta/episodes`` as it stands there, with its statistics."""
        if index not in self._files:
            self._find(index, _everything)
        if not any(name.startswith("stats/") for name in self._rows[index]):
            self._keep(self._files[index], _everything)
        return self._rows[index]

    def _described(self, row: dict[str, Any], data: Path) -> EpisodeInfo:
        """Another tool's edit dropped our columns: what the rows and the tasks say is all that is left."""
        table = read_parquet(data, ["episode_index", SUCCESS])
        labels = table.column(SUCCESS).to_numpy()[table.column("episode_index").to_numpy() == row["episode_index"]]
        success = {0: False, 1: True}.get(int(labels[0])) if len(labels) else None
        return EpisodeInfo(row["tasks"][0], success, robot_type=self.schema.robot_type)

    def _row(self, index: int) -> dict[str, Any]:
        if index not in self._rows:
            self._find(index, _no_statistics)
        return self._rows[index]

    def _find(self, index: int, wanted: Callable[[str], bool]) -> None:
        path = self.root / episode_file(index)
        if path.exists():
            self._keep(path, wanted)
        if index not in self._rows:  # a layout of another tool: look through all
            for other in sorted((self.root / "meta/episodes").glob("*/*.parquet")):
                self._keep(other, wanted)
        if index not in self._rows:
            raise DatasetError(f"episode {index} has no entry in meta/episodes: run `dataset check`.")

    def _keep(self, path: Path, wanted: Callable[[str], bool]) -> None:
        for row in read_rows(path, wanted):
            self._rows[int(row["episode_index"])] = row
            self._files[int(row["episode_index"])] = path


def _everything(name: str) -> bool:
    return True


def _no_statistics(name: str) -> bool:
    """Statistics are most of an entry's 250 columns, and few need them."""
    return not name.startswith("stats/")


def read_rows(path: Path, wanted: Callable[[str], bool] = _everything) -> list[dict[str, Any]]:
    """Lines of a ``meta/episodes`` file, the wanted columns of it. Raises DatasetError where it is damaged."""
    try:
        file = open_table(path)
        names = [name for name in file.schema_arrow.names if wanted(name)]
        return file.read(names, use_threads=False).to_pylist()
    except PARQUET_ERRORS as error:
        raise DatasetError(f"{path} cannot be read ({error}): run `dataset repair`.") from error


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Raises DatasetError where the file is missing or damaged."""
    try:
        return open_table(path).read(columns, use_threads=False)
    except PARQUET_ERRORS as error:
        raise DatasetError(f"{path} cannot be read ({error}): run `dataset repair`.") from error


def read_frames(path: Path, numbers: Sequence[int], rate_hz: int, depth: bool) -> Iterator[NDArray[np.generic]]:
    """Frames by their number in a file, rising. Raises DatasetError where one is missing or does not decode."""
    wanted = list(numbers)
    found = 0
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            time_base = stream.time_base or 1
            if wanted and wanted[0] > 0:
                container.seek(int(wanted[0] / rate_hz / time_base), stream=stream, backward=True)
            for frame in container.decode(stream):
                number = round(float((frame.pts or 0) * time_base) * rate_hz)
                while found < len(wanted) and wanted[found] == number:
                    found += 1
                    yield frame.to_ndarray(format="gray12le" if depth else "rgb24")
                if found == len(wanted):
                    break
    except (av.FFmpegError, AttributeError, IndexError, OSError, ValueError) as error:
        raise DatasetError(f"{path} is not a readable video ({error}): run `dataset repair`.") from error
    if found != len(wanted):
        raise DatasetError(f"{path} lacks frame {wanted[found]}: run `dataset check`.")
