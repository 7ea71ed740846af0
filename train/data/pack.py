"""The views of every recorded row, decoded once and memory-mapped from then on.

One file per episode and choice of views, in the layout of safetensors, under ``cache/packs/<views>/<episode>`` of
:func:`~...datasets.home.home`. Its name is a hash of what its content follows from (views, checksums of the recorded
files), so it is never out of date: a data set that grew or changed gets the files that are missing, and merged sets
share theirs. A file is written beside and renamed when it is whole. See ``docs/decisions/85-packed-views.md``.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import mmap
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...datasets.home import home
from ...datasets.reader import DatasetReader
from ...datasets.schema import CameraSchema
from ...datasets.transaction import sync
from ...datasets.video import depth_counts
from ...hardware.errors import DatasetError, StorageError
from ..views import Arrays, View, follow
from .moments import camera_of, identity, observations

Rows = NDArray[np.int64]

VERSION = 1
_HEADER = 4096  # bytes before the arrays: length, JSON, spaces
_KINDS = {"U8": np.uint8, "U16": np.uint16, "I32": np.int32}


@dataclass(frozen=True)
class _Part:
    """How one array of the views is kept: depth in the recorded counts, masks as bits."""

    name: str
    shape: tuple[int, ...]  # of a row, as views give it
    dtype: str  # as views give it
    unit_m: float = 0.0  # depth only

    @property
    def kind(self) -> str:
        return {"float32": "U16", "int32": "I32"}.get(self.dtype, "U8")

    @property
    def stored(self) -> tuple[int, ...]:
        return (-(-self.shape[0] * self.shape[1] // 8),) if self.dtype == "bool" else self.shape

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.stored)) * np.dtype(_KINDS[self.kind]).itemsize

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
    """Views of the rows of chosen episodes. Threads may share it."""

    def __init__(self, parts: tuple[_Part, ...], shards: dict[int, dict[str, NDArray[Any]]]) -> None:
        self._parts = {part.name: part for part in parts}
        self._shards = shards

    @property
    def names(self) -> tuple[str, ...]:
        """Of the arrays: ``<view>.<part>``."""
        return tuple(self._parts)

    def take(self, episodes: Rows, rows: Rows, names: Iterable[str] | None = None) -> Arrays:
        """(N, ...) arrays of row ``rows[i]`` of episode ``episodes[i]``, as :func:`..views.render` gives them."""
        places = list(zip(episodes.tolist(), rows.tolist(), strict=True))
        out: Arrays = {}
        for name in self.names if names is None else names:
            part = self._parts[name]
            taken = np.empty((len(rows), *part.stored), _KINDS[part.kind])
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
    if len({view.name for view in views}) != len(views):
        raise ValueError(f"different views share a name: {[view.name for view in views]}")
    cameras = {view.camera: camera_of(reader, view) for view in views}
    parts = _parts(views, cameras)
    metas = [reader.meta(index) for index in (range(len(reader)) if episodes is None else episodes)]
    look = {
        "version": VERSION,
        "views": [asdict(view) for view in views],
        "cameras": [asdict(c) for c in cameras.values()],
    }
    folder = home() / "cache" / "packs" / _hash(look)
    about = {meta.index: {**look, "episode": identity(reader, meta, views)} for meta in metas}
    paths = {index: folder / f"{_hash(what)}.safetensors" for index, what in about.items()}
    if any(not path.exists() for path in paths.values()):
        with _alone(folder):  # where another process was packing the same, nothing is missing any more
            missing = [meta for meta in metas if not paths[meta.index].exists()]
            _check_space(folder, sum(meta.rows for meta in missing) * sum(part.row_bytes for part in parts))

            def build(index: int) -> int:
                _write(reader, index, views, parts, paths[index], about[index])
                return reader.meta(index).rows

            _run(build, [meta.index for meta in missing], sum(meta.rows for meta in missing), workers, progress)
    return Pack(parts, {meta.index: _open(paths[meta.index], parts, meta.rows) for meta in metas})


def verify(pack_file: Path) -> None:
    """Read a packed file through. Raises DatasetError where an array is not as it was written."""
    header, data = _read(pack_file)
    checksums = json.loads(header["__metadata__"]["dexloop"])["crc32"]
    for name, checksum in checksums.items():
        start, stop = header[name]["data_offsets"]
        if zlib.crc32(data[_HEADER + start : _HEADER + stop]) != checksum:
            raise _damaged(pack_file, f"{name} has another checksum than was written")


def _parts(views: tuple[View, ...], cameras: dict[str, CameraSchema]) -> tuple[_Part, ...]:
    return tuple(
        _Part(name, shape, dtype, cameras[view.camera].depth_unit_m if dtype == "float32" else 0.0)
        for view in views
        for name, (shape, dtype) in view.parts.items()
    )


def _hash(what: Any) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:24]


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process packs into ``folder``; what a killed one left half done is removed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StorageError(f"{folder} cannot be written ({error}): set DEXLOOP_HOME to a folder that can.") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        for left in folder.glob(".*.tmp"):
            left.unlink()
        yield
    finally:
        os.close(handle)


def _check_space(folder: Path, need: int) -> None:
    free = shutil.disk_usage(folder).free
    if need > 0.95 * free:
        raise StorageError(
            f"the packed pictures need {need / 1e9:.1f} GB, the disk of {folder} has {free / 1e9:.1f} GB: free some, "
            "set DEXLOOP_HOME to another disk, or train on fewer episodes or cached features."
        )


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


def _write(
    reader: DatasetReader,
    episode: int,
    views: tuple[View, ...],
    parts: tuple[_Part, ...],
    path: Path,
    about: dict[str, Any],
) -> None:
    rows = reader.meta(episode).rows
    stops = np.cumsum([rows * part.row_bytes for part in parts]).tolist()
    starts = [0, *stops[:-1]]
    header: dict[str, Any] = {
        part.name: {"dtype": part.kind, "shape": [rows, *part.stored], "data_offsets": [start, stop]}
        for part, start, stop in zip(parts, starts, stops, strict=True)
    }
    crc32 = {part.name: 0 for part in parts}
    centres: dict[str, tuple[float, float]] = {}
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            for row, observation in enumerate(observations(reader, episode, views)):
                seen = follow(views, observation, centres)
                for part, start in zip(parts, starts, strict=True):
                    packed = part.pack(seen[part.name]).tobytes()
                    crc32[part.name] = zlib.crc32(packed, crc32[part.name])
                    file.seek(_HEADER + start + row * part.row_bytes)
                    file.write(packed)
            text = json.dumps({**about, "crc32": crc32})
            header["__metadata__"] = {"dexloop": text, "check": _hash([header, text])}
            file.seek(0)
            file.write(_head(header))
        sync(temporary)
        temporary.replace(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written ({error}): free some space and start again.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _head(header: dict[str, Any]) -> bytes:
    text = json.dumps(header).encode()
    if len(text) > _HEADER - 8:
        raise ValueError(f"{len(header)} arrays do not fit into a header of {_HEADER} bytes")
    return (_HEADER - 8).to_bytes(8, "little") + text.ljust(_HEADER - 8)


def _open(path: Path, parts: tuple[_Part, ...], rows: int) -> dict[str, NDArray[Any]]:
    """The arrays of a file, mapped. Its header and length are checked, its content by :func:`verify`."""
    header, data = _read(path)
    out: dict[str, NDArray[Any]] = {}
    for part in parts:
        shape = (rows, *part.stored)
        entry = header.get(part.name, {})
        if tuple(entry.get("shape", ())) != shape or entry.get("dtype") != part.kind:
            raise _damaged(path, f"{part.name} is not {part.kind} {shape}")
        offset = _HEADER + entry["data_offsets"][0]
        out[part.name] = np.frombuffer(data, _KINDS[part.kind], rows * int(np.prod(part.stored)), offset).reshape(shape)
    return out


def _read(path: Path) -> tuple[dict[str, Any], mmap.mmap]:
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if int.from_bytes(data[:8], "little") != _HEADER - 8:
            raise ValueError("its header has another length")
        header = json.loads(data[8:_HEADER])
        metadata = header["__metadata__"]
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        if _hash([entries, metadata["dexloop"]]) != metadata["check"]:
            raise ValueError("its header has another checksum than was written")
        whole = _HEADER + max(entry["data_offsets"][1] for entry in entries.values())
        if len(data) != whole:
            raise ValueError(f"it has {len(data)} bytes, expected {whole}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, str(error)) from error
    return header, data


def _damaged(path: Path, why: str) -> DatasetError:
    return DatasetError(f"the packed pictures {path} are damaged ({why}): delete that file, it will be made anew.")
