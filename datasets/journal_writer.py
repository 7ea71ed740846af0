"""The writing half of the journal: one thread, bounded queue, flushed by wall clock and by the rig's clock."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..hardware.clock import NS
from ..hardware.errors import BadInput, DatasetError, DexLoopError, StorageError
from .journal import COMMON_HEAPS, INDEX, TABLES, JournalMeta

_HEAP_CHUNK = 1 << 18  # bytes: about 20 colour packets
_MB = 1_000_000


@dataclass(frozen=True)
class JournalConfig:
    """How the journal is written."""

    flush_s: float = 0.15
    """Longest time, of the machine's or the rig's clock, that a reading waits before it is flushed."""
    queue_size: int = 256
    """Readings that may wait for the disk; a full queue blocks its sources and never drops."""
    min_free_mb: float = 64.0
    """Recording stops, whole, while this much of the disk is still free."""

    def __post_init__(self) -> None:
        if not 0.005 <= self.flush_s <= 0.25:
            raise BadInput(
                f"flush_s is {self.flush_s} s; choose 0.005 to 0.25, so that a crash loses half a second at most"
            )
        if self.queue_size < 1 or self.min_free_mb < 0:
            raise BadInput("queue_size must be at least 1 and min_free_mb at least 0")


class JournalWriter:
    """Appends readings to a journal from any thread.

    A failure of the disk is kept and raised by the next ``put`` and by ``close``: nothing is swallowed.
    """

    def __init__(self, path: Path, meta: JournalMeta, config: JournalConfig | None = None) -> None:
        self.path = Path(path)
        self.config = config or JournalConfig()
        self._tables = dict(TABLES)
        self._heaps = (*COMMON_HEAPS, *(name for camera in meta.cameras for name in camera.heaps()))
        self._heap_ends = dict.fromkeys(self._heaps, 0)
        # Sources append under the lock and do not wake the thread: it comes by itself when a flush is due.
        self._lock = threading.Condition()
        self._pending: dict[str, list[Any]] = {}
        self._waiting = 0
        self._oldest_ns: int | None = None
        self._urgent = self._closing = False
        self.largest_queue = 0
        self.blocked_s = 0.0
        self.failure: DexLoopError | None = None
        self._file = self._create(meta)
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def _create(self, meta: JournalMeta) -> h5py.File:
        if self.path.exists():
            raise DatasetError(f"{self.path} exists: a journal is never written over; move or delete it")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._check_space()
        partial = self.path.with_name(self.path.name + ".part")
        try:
            file = h5py.File(partial, "w", libver="latest")
            file["meta"] = np.frombuffer(meta.to_json().encode(), np.uint8)
            # Held open: a data set that is let go writes its buffer then, where h5py swallows the error.
            self._sets = {name: _create_rows(file, name, dtype) for name, dtype in self._tables.items()}
            for name in self._heaps:
                self._sets[f"{name}/index"] = _create_rows(file, f"{name}/index", INDEX)
                self._sets[f"{name}/bytes"] = file.create_dataset(
                    f"{name}/bytes", (0,), np.uint8, maxshape=(None,), chunks=(_HEAP_CHUNK,)
                )
            file.swmr_mode = True
            file.flush()
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise StorageError(f"cannot write a journal at {self.path} ({error}): check the folder and disk") from error
        # A journal has its name only from the moment at which it can be read.
        partial.rename(self.path)
        return file

    def put_row(self, table: str, values: tuple[Any, ...]) -> None:
        """One row of a table, fields in the order of its dtype. Blocks while the queue is full."""
        self._put(table, int(values[0]), values)

    def put_bytes(self, heap: str, captured_ns: int, sequence: int, data: bytes) -> None:
        """One record of a heap. Blocks while the queue is full."""
        self._put(heap, captured_ns, (sequence, data))

    def _put(self, name: str, time_ns: int, values: Any) -> None:
        with self._lock:
            self.raise_failure()
            if self._waiting >= self.config.queue_size:
                started = time.monotonic()
                while self._waiting >= self.config.queue_size:
                    self._urgent = True
                    self._lock.notify_all()
                    self._lock.wait()
                    self.raise_failure()
                self.blocked_s += time.monotonic() - started
            self._pending.setdefault(name, []).append((time_ns, values))
            self._waiting += 1
            self.largest_queue = max(self.largest_queue, self._waiting)
            self._oldest_ns = time_ns if self._oldest_ns is None else min(self._oldest_ns, time_ns)
            # A stepped clock runs faster than the wall: half a second of the episode must not wait either.
            if not self._urgent and time_ns - self._oldest_ns >= self.config.flush_s * NS:
                self._urgent = True
                self._lock.notify_all()

    def raise_failure(self) -> None:
        """Raise what stopped the writing thread, if anything did."""
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        """Write what is queued and close. Raises the failure that left the journal shorter, if there was one."""
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        self._thread.join()
        self.raise_failure()

    def _run(self) -> None:
        try:
            self._write_until_closed()
        except StorageError as error:
            self.failure = error
        except (OSError, RuntimeError, ValueError) as error:
            reason = str(error).partition("(")[0].strip()  # HDF5 goes on with addresses and buffers
            self.failure = StorageError(
                f"writing {self.path} failed ({reason}): recording stopped; what was recorded until then is whole. "
                f"Free space in {self.path.parent} or choose another disk, then record again"
            )
            self._detach()
        except BaseException as error:  # a bug of ours: surfaces in the loop instead of dying with this thread
            self.failure = DatasetError(f"writing {self.path.name} failed: {error!r}")
            self.failure.__cause__ = error
        finally:
            with self._lock:
                self._lock.notify_all()
            # Closing rewrites the superblock; on a full disk it may fail, and the flushed part is readable anyway.
            with contextlib.suppress(OSError, RuntimeError, ValueError):
                self._file.close()

    def _write_until_closed(self) -> None:
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._urgent or self._closing, self.config.flush_s)
                batch, self._pending = self._pending, {}
                closing, self._urgent, self._oldest_ns, self._waiting = self._closing, False, None, 0
                self._lock.notify_all()
            if batch:
                self._flush(batch)
            if closing:
                return

    def _flush(self, batch: dict[str, list[Any]]) -> None:
        for name, items in batch.items():
            if name in self._tables:
                _append(self._sets[name], np.array([values for _, values in items], self._tables[name]))
            else:
                self._append_heap(name, items)
        self._file.flush()
        # After the flush: the reserve is there to take what had come in.
        self._check_space()

    def _detach(self) -> None:
        """Let HDF5 go on with a copy in memory after the disk refused a write.

        HDF5 cannot close a file that it cannot write: it would raise, then crash the process when its objects are
        collected. What is on the disk is not touched again.
        """
        descriptor = self._file.id.get_vfd_handle()
        copy = os.memfd_create("journal")
        with open(self.path, "rb") as source, open(copy, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
            target.flush()
            os.dup2(copy, descriptor)

    def _append_heap(self, name: str, items: list[tuple[int, tuple[int, bytes]]]) -> None:
        rows = np.zeros(len(items), INDEX)
        end = self._heap_ends[name]
        for row, (captured_ns, (sequence, data)) in zip(rows, items, strict=True):
            row["captured_ns"], row["sequence"], row["offset"], row["size"] = captured_ns, sequence, end, len(data)
            row["crc32"] = zlib.crc32(data)
            end += len(data)
        # Bytes before the index that points to them.
        _append(self._sets[f"{name}/bytes"], np.frombuffer(b"".join(data for _, (_, data) in items), np.uint8))
        _append(self._sets[f"{name}/index"], rows)
        self._heap_ends[name] = end

    def _check_space(self) -> None:
        disk = os.statvfs(self.path.parent)
        free = disk.f_bavail * disk.f_frsize
        if free < self.config.min_free_mb * _MB:
            raise StorageError(
                f"recording stopped: {free / _MB:.0f} MB are free in {self.path.parent} and "
                f"{self.config.min_free_mb:.0f} MB are kept in reserve. What was recorded until then is whole; free "
                "some space and record again"
            )


def _create_rows(file: h5py.File, name: str, dtype: np.dtype[np.void]) -> h5py.Dataset:
    unwritten = np.zeros((), dtype)
    unwritten[dtype.names[0]] = -1  # type: ignore[index]
    return file.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(256,), fillvalue=unwritten)


def _append(dataset: h5py.Dataset, rows: NDArray[Any]) -> None:
    start = dataset.shape[0]
    dataset.resize(start + len(rows), axis=0)
    dataset[start:] = rows
