"""Files that hold rows of arrays for memory-mapped reading, in the layout of safetensors.

A shard is written row block by row block beside its place and renamed when it is whole, so a process that is killed
leaves no half one under a real name. Its header has a checksum, and so has each row: the array ``crc32`` at its end.
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
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...datasets.transaction import sync
from ...hardware.errors import DatasetError, StorageError

_HEADER = 4096  # bytes before the arrays: length, JSON, spaces
_KINDS = {"bool": "BOOL", "uint8": "U8", "uint16": "U16", "uint32": "U32", "int32": "I32", "float16": "F16"}
_CRC = "crc32"
Spec = Mapping[str, tuple[tuple[int, ...], str]]
"""Array name -> shape of one row, NumPy dtype."""


def digest(what: Any) -> str:
    """Name for what can be told in JSON: the same for the same content."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:24]


def row_bytes(spec: Spec) -> int:
    """What a row needs on disk."""
    return 4 + sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in spec.values())


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other process writes into ``folder``; what a killed one left half done is removed."""
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


def check_space(folder: Path, need: int, what: str, instead: str) -> None:
    """Raises StorageError where ``need`` bytes do not fit. ``instead``: what else the user can do."""
    free = shutil.disk_usage(folder).free
    if need > 0.95 * free:
        raise StorageError(
            f"{what} need {need / 1e9:.1f} GB, the disk of {folder} has {free / 1e9:.1f} GB: free some, set "
            f"DEXLOOP_HOME to another disk, or {instead}."
        )


def write_shard(path: Path, rows: int, spec: Spec, about: Any, blocks: Iterable[Mapping[str, NDArray[Any]]]) -> None:
    """Write ``rows`` rows that come in ``blocks`` of (n, *shape) arrays. ``about``: JSON that is kept in the header.

    Raises StorageError where the disk does not take it; nothing is left behind then.
    """
    header, starts = _header(rows, spec, about)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(header)
            done = 0
            for block in blocks:
                count = len(next(iter(block.values())))
                block = {name: np.ascontiguousarray(block[name], dtype) for name, (_, dtype) in spec.items()}
                for name, array in (*block.items(), (_CRC, _checksums(block, count))):
                    file.seek(starts[name] + done * (array.nbytes // count))
                    file.write(array.data)
                done += count
            if done != rows:
                raise ValueError(f"{path} was given {done} rows, expected {rows}")
        sync(temporary)
        temporary.replace(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written ({error}): free some space and start again.") from error
    finally:
        temporary.unlink(missing_ok=True)


def open_shard(path: Path, rows: int, spec: Spec) -> dict[str, NDArray[Any]]:
    """The arrays of a shard, mapped, ``crc32`` (rows,) among them. Header and length are checked, the rows by
    :func:`check_rows`. Raises DatasetError where the file is missing, damaged or of another shape."""
    expected, starts = _header(rows, spec, None)
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        header = _parsed(data[:_HEADER])
        wanted = _parsed(expected)
        for name in wanted:
            if name != "__metadata__" and header.get(name) != wanted[name]:
                raise ValueError(f"{name} is {header.get(name)}, expected {wanted[name]}")
        whole = max(wanted[name]["data_offsets"][1] for name in starts) + _HEADER
        if len(data) != whole:
            raise ValueError(f"it has {len(data)} bytes, expected {whole}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(path, str(error)) from error
    out = {}
    for name, (shape, dtype) in (*spec.items(), (_CRC, ((), "uint32"))):
        array = np.frombuffer(data, dtype, rows * int(np.prod(shape)), starts[name])
        out[name] = array.reshape(rows, *shape)
    return out


def check_rows(path: Path, arrays: Mapping[str, NDArray[Any]], rows: Iterable[int]) -> None:
    """Raises DatasetError where a row of an opened shard is not as it was written."""
    for row in rows:
        one = {name: array[row : row + 1] for name, array in arrays.items() if name != _CRC}
        if _checksums(one, 1)[0] != arrays[_CRC][row]:
            raise damaged(path, f"row {row} has another checksum than was written")


def damaged(path: Path, why: str) -> DatasetError:
    return DatasetError(f"the cached file {path} is damaged ({why}): delete that file, it will be made anew.")


def _checksums(block: Mapping[str, NDArray[Any]], count: int) -> NDArray[np.uint32]:
    values = np.zeros(count, np.uint32)
    for row in range(count):
        value = 0
        for name in sorted(block):
            value = zlib.crc32(np.ascontiguousarray(block[name][row]).reshape(-1).view(np.uint8), value)
        values[row] = value
    return values


def _header(rows: int, spec: Spec, about: Any) -> tuple[bytes, dict[str, int]]:
    """The bytes before the arrays, and where each array starts in the file."""
    entries: dict[str, Any] = {}
    start = 0
    for name, (shape, dtype) in (*spec.items(), (_CRC, ((), "uint32"))):
        size = rows * int(np.prod(shape)) * np.dtype(dtype).itemsize
        entries[name] = {"dtype": _KINDS[dtype], "shape": [rows, *shape], "data_offsets": [start, start + size]}
        start += size
    text = json.dumps(about)
    metadata = {"dexloop": text, "check": digest([entries, text])}
    encoded = json.dumps({**entries, "__metadata__": metadata}).encode()
    if len(encoded) > _HEADER - 8:
        raise ValueError(f"{len(spec)} arrays do not fit into a header of {_HEADER} bytes")
    starts = {name: _HEADER + entry["data_offsets"][0] for name, entry in entries.items()}
    return (_HEADER - 8).to_bytes(8, "little") + encoded.ljust(_HEADER - 8), starts


def _parsed(header: bytes) -> dict[str, Any]:
    """Raises ValueError, KeyError or TypeError where it is not a header that was written here."""
    if int.from_bytes(header[:8], "little") != _HEADER - 8:
        raise ValueError("its header has another length")
    parsed = json.loads(header[8:])
    metadata = parsed["__metadata__"]
    entries = {name: entry for name, entry in parsed.items() if name != "__metadata__"}
    if digest([entries, metadata["dexloop"]]) != metadata["check"]:
        raise ValueError("its header has another checksum than was written")
    return parsed
