"""The views of every recorded row, decoded once and memory-mapped from then on.

One shard per episode and choice of views, under ``cache/packs/<views>/<episode>`` of :func:`~...datasets.home.home`.
Both names are hashes of what the content follows from (views, cameras, checksums of the recorded files), so a shard is
never out of date: a data set that grew or changed gets those that are missing, and merged sets share theirs. See
``docs/decisions/85-packed-views.md``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...datasets.home import home
from ...datasets.reader import DatasetReader
from ...datasets.schema import CameraSchema
from ...datasets.video import depth_counts
from ..views import Arrays, View, follow
from .moments import camera_of, identity, observations
from .shards import alone, check_rows, check_space, digest, open_shard, row_bytes, write_shard

Rows = NDArray[np.int64]

VERSION = 2


@dataclass(frozen=True)
class _Part:
    """How one array of the views is kept: depth in the recorded counts, masks as bits."""

    name: str
    shape: tuple[int, ...]  # of a row, as views give it
    dtype: str  # as views give it
    unit_m: float = 0.0  # depth only

    @property
    def stored(self) -> tuple[tuple[int, ...], str]:
        """Shape and dtype of a row on the disk."""
        if self.dtype == "bool":
            return (-(-self.shape[0] * self.shape[1] // 8),), "uint8"
        return self.shape, "uint16" if self.unit_m else self.dtype

    def pack(self, array: NDArray[Any]) -> NDArray[Any]:
        """One row as views give it -> as it is kept."""
        if self.dtype == "bool":
            return np.packbits(array)
        return depth_counts(array, self.unit_m)[0] if self.unit_m else array

    def unpack(self, rows: NDArray[Any]) -> NDArray[Any]:
        """(N, *stored) -> (N, *shape)."""
        if self.dtype == "bool":
            count = int(np.prod(self.shape))
            return np.unpackbits(rows, axis=1, count=count).view(bool).reshape(-1, *self.shape)
        return np.multiply(rows, np.float32(self.unit_m), dtype=np.float32) if self.unit_m else rows


class Pack:
    """Opened views of the rows of chosen episodes. Threads may share it."""

    def __init__(self, parts: tuple[_Part, ...], shards: Mapping[int, tuple[Path, int]]) -> None:
        self._parts = {part.name: part for part in parts}
        self._paths = {episode: path for episode, (path, _) in shards.items()}
        # Headers and lengths are checked here: damage is told now, not after an hour of training.
        self._shards = {episode: open_shard(path, rows, _spec(parts)) for episode, (path, rows) in shards.items()}
        self._checked = {episode: np.zeros(rows, bool) for episode, (_, rows) in shards.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """Of the arrays: ``<view>.<part>``."""
        return tuple(self._parts)

    def take(self, episodes: Rows, rows: Rows, names: Iterable[str] | None = None) -> Arrays:
        """(N, ...) arrays of row ``rows[i]`` of episode ``episodes[i]``, as :func:`...views.render` gives them.

        Raises DatasetError where a row is not as it was written, which is looked at when it is first read."""
        names = self.names if names is None else tuple(names)
        if not names:
            return {}
        places = list(zip(episodes.tolist(), rows.tolist(), strict=True))
        for episode, row in places:
            if not self._checked[episode][row]:
                check_rows(self._paths[episode], self._shards[episode], [row])
                self._checked[episode][row] = True
        out: Arrays = {}
        for name in names:
            part = self._parts[name]
            shape, dtype = part.stored
            taken = np.empty((len(places), *shape), dtype)
            for i, (episode, row) in enumerate(places):
                taken[i] = self._shards[episode][name][row]
            out[name] = part.unpack(taken)
        return out


def open_pack(
    reader: DatasetReader,
    views: Iterable[View],
    episodes: Sequence[int] | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Pack:
    """Decode what is not packed yet of ``episodes`` (default: all), then open everything.

    ``workers``: threads that decode, default one per core. Raises BadInput where the data set lacks what the views
    show, DatasetError where it or a packed file is damaged (which is left as it is), StorageError where the disk
    cannot hold it. Interrupted, the next call continues after the last whole episode.
    """
    views = tuple(dict.fromkeys(views))
    if not views:
        return Pack((), {})
    if len({view.name for view in views}) != len(views):
        raise ValueError(f"different views share a name: {[view.name for view in views]}")
    cameras = {view.camera: camera_of(reader, view) for view in views}
    parts = _parts(views, cameras)
    metas = [reader.meta(index) for index in (range(len(reader)) if episodes is None else episodes)]
    look = {"version": VERSION, "views": [[asdict(view), asdict(cameras[view.camera])] for view in views]}
    folder = home() / "cache" / "packs" / digest(look)
    about = {meta.index: {**look, "episode": identity(reader, meta, views)} for meta in metas}
    shards = {meta.index: (folder / f"{digest(about[meta.index])}.safetensors", meta.rows) for meta in metas}
    if any(not path.exists() for path, _ in shards.values()):
        with alone(folder):  # where another process was packing the same, nothing is missing any more
            # By path: episodes may have the same content.
            missing = {path: index for index, (path, _) in shards.items() if not path.exists()}
            rows = sum(shards[index][1] for index in missing.values())
            need = rows * row_bytes(_spec(parts))
            check_space(folder, need, "the packed pictures", "train on fewer episodes or on cached features")

            def build(index: int) -> int:
                path, count = shards[index]
                write_shard(path, count, _spec(parts), about[index], _packed(reader, index, views, parts))
                return count

            _run(build, list(missing.values()), rows, workers, progress and bool(missing))
    return Pack(parts, shards)


def _packed(
    reader: DatasetReader, episode: int, views: tuple[View, ...], parts: tuple[_Part, ...]
) -> Iterator[dict[str, NDArray[Any]]]:
    """An episode's rows, one after another, as they are kept."""
    centres: dict[str, tuple[float, float]] = {}
    for observation in observations(reader, episode, views):
        seen = follow(views, observation, centres)
        yield {part.name: part.pack(seen[part.name])[None] for part in parts}


def _parts(views: tuple[View, ...], cameras: dict[str, CameraSchema]) -> tuple[_Part, ...]:
    return tuple(
        _Part(name, shape, dtype, cameras[view.camera].depth_unit_m if dtype == "float32" else 0.0)
        for view in views
        for name, (shape, dtype) in view.parts.items()
    )


def _spec(parts: tuple[_Part, ...]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {part.name: part.stored for part in parts}


def _run(build: Any, episodes: list[int], rows: int, workers: int | None, progress: bool) -> None:
    """``build`` every episode on threads (decoding holds no lock of Python's), with a bar that counts rows."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("packing pictures"), BarColumn(), MofNCompleteColumn(), TextColumn("rows,"))
    bar = Progress(*columns, TimeRemainingColumn(), TextColumn("left"), disable=not progress)
    with bar, ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        task = bar.add_task("", total=rows)
        futures = [pool.submit(build, episode) for episode in episodes]
        try:
            for future in futures:
                bar.advance(task, future.result())
        finally:
            for future in futures:
                future.cancel()
