"""The journal: everything of one episode as it came in, on disk while it is recorded.

An HDF5 file in SWMR mode: its layout is made before the first reading and only data are appended, flushed several
times a second, so that a process killed at any moment leaves a file that opens and holds all but the last flush.
Each stream has its own rate and its own capture times, int64 ns of the rig's clock:

=========================  ===========================================================================
``meta``                   JSON (utf-8 bytes): schema, episode, cameras with codec parameters, robot names
``arm`` ``hand``           tables, one compound row per reading (:data:`TABLES`)
``commands``               table: requested and applied command, safety flags, times of input and of sending
``raw`` ``events``         heaps: operator input before retargeting (named arrays); pause, resume, notes (JSON)
``cameras/<name>/colour``  heap of H.264 packets; ``depth`` HEVC packets, ``mask`` run-length text, where recorded
=========================  ===========================================================================

A heap is ``bytes`` (uint8) and ``index`` (:data:`INDEX`), whose rows carry a checksum. This module reads; the
writing half is :mod:`.journal_writer`.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..hardware.errors import DatasetError
from .episode import EpisodeInfo
from .video import StreamFormat

SCHEMA = "dexloop-journal-1"

# The first field of every table is the time of its row; -1 there marks a row that never reached the disk.
TABLES: dict[str, np.dtype[np.void]] = {
    "arm": np.dtype(
        [
            ("captured_ns", "<i8"),
            ("q", "<f8", (7,)),  # rad
            ("dq", "<f8", (7,)),  # rad/s
            ("effort", "<f8", (7,)),  # N m
            ("wrench", "<f8", (6,)),  # N and N m, flange frame
        ]
    ),
    "hand": np.dtype([("captured_ns", "<i8"), ("opening", "<f8", (6,)), ("force", "<f8", (6,))]),  # 1 = open; N
    "commands": np.dtype(
        [
            ("sent_ns", "<i8"),
            ("input_ns", "<i8"),  # capture time of the input that the command was made from
            ("requested", "<f8", (13,)),  # 7 rad + 6 openings, as the operator asked
            ("applied", "<f8", (13,)),  # after safety, as it was sent
            ("flags", "<i8"),  # hardware.values.Safety
        ]
    ),
}
INDEX: np.dtype[np.void] = np.dtype(
    [("captured_ns", "<i8"), ("sequence", "<i8"), ("offset", "<i8"), ("size", "<i8"), ("crc32", "<u4")]
)
COMMON_HEAPS = ("raw", "events")
_TAIL = 64  # newest rows of a heap whose checksums are proved on reading
_READ_BLOCK = 1 << 22


@dataclass(frozen=True)
class CameraStream:
    """A camera as the journal knows it."""

    name: str
    rate_hz: float
    colour: StreamFormat
    depth: StreamFormat | None = None
    mask: bool = False
    intrinsics: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)  # fx, fy, cx, cy in pixels
    pose_parent: str = "world"
    pose: tuple[tuple[float, ...], ...] = ()  # (4, 4) parent_T_camera when the episode began

    def heaps(self) -> tuple[str, ...]:
        """Names of this camera's heaps."""
        kinds = ["colour"] + ["depth"] * (self.depth is not None) + ["mask"] * self.mask
        return tuple(f"cameras/{self.name}/{kind}" for kind in kinds)


@dataclass(frozen=True)
class JournalMeta:
    """What is fixed when an episode begins."""

    info: EpisodeInfo
    cameras: tuple[CameraStream, ...]
    begin_ns: int  # on the rig's clock
    created: str  # wall time, ISO 8601, for people
    arm_joints: tuple[str, ...]
    hand_motors: tuple[str, ...]
    config: dict[str, object]  # the recorder's resolved configuration

    def to_json(self) -> str:
        """As it is stored; codec parameters in hexadecimal."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, default=lambda value: bytes(value).hex())

    @staticmethod
    def from_json(text: str) -> JournalMeta:
        """Inverse of :meth:`to_json`. Raises DatasetError where the text is of another schema."""
        values = json.loads(text)
        if values.pop("schema", None) != SCHEMA:
            raise DatasetError(f"the journal is not of schema {SCHEMA}: read it with the version that wrote it")
        cameras = []
        for camera in values.pop("cameras"):
            for kind in ("colour", "depth"):
                if camera[kind] is not None:
                    camera[kind] = StreamFormat(
                        **{**camera[kind], "extradata": bytes.fromhex(camera[kind]["extradata"])}
                    )
            camera["intrinsics"] = tuple(camera["intrinsics"])
            camera["pose"] = tuple(tuple(row) for row in camera["pose"])
            cameras.append(CameraStream(**camera))
        return JournalMeta(
            info=EpisodeInfo(**values["info"]),
            cameras=tuple(cameras),
            begin_ns=values["begin_ns"],
            created=values["created"],
            arm_joints=tuple(values["arm_joints"]),
            hand_motors=tuple(values["hand_motors"]),
            config=values["config"],
        )


class JournalReader:
    """What a journal holds, finished or cut off. A context manager.

    Opens while the journal is being written, too. Raises DatasetError where the file is no journal.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DatasetError(f"there is no journal {self.path}")
        try:
            # swmr: also opens what a killed writer left behind, whose "being written" mark was never taken back.
            self._file = h5py.File(self.path, "r", libver="latest", swmr=True)
        except OSError as error:
            raise DatasetError(
                f"{self.path} cannot be read as a journal ({error}): nothing can be recovered"
            ) from error
        try:
            self.meta = JournalMeta.from_json(bytes(self._file["meta"][:]).decode())
        except (KeyError, ValueError, TypeError) as error:
            self._file.close()
            raise DatasetError(f"{self.path} is HDF5 but not a journal ({error!r})") from error
        self.has_images = all(f"{name}/bytes" in self._file for camera in self.meta.cameras for name in camera.heaps())

    def __enter__(self) -> JournalReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        self._file.close()

    def table(self, name: str) -> NDArray[np.void]:
        """Rows of ``arm``, ``hand`` or ``commands`` that reached the disk whole, in the order of arrival."""
        rows = self._file[name][:]
        written = rows[_time_field(rows)] >= 0
        return rows[: int(np.argmin(written)) if not written.all() else len(rows)]

    def index(self, heap: str) -> NDArray[np.void]:
        """Rows of :data:`INDEX` whose bytes are on disk, up to the first that is not."""
        rows = self._file[f"{heap}/index"][:]
        good = rows["captured_ns"] >= 0
        if f"{heap}/bytes" not in self._file:  # compacted: times only
            return rows[good]
        good &= rows["offset"] + rows["size"] <= self._file[f"{heap}/bytes"].shape[0]
        rows = rows[: int(np.argmin(good)) if not good.all() else len(rows)]
        # Only the newest rows can be torn, all those of one flush at most; damage further back is named when read.
        while len(rows):
            newest = rows[-_TAIL:]
            sums = np.array([zlib.crc32(data) for data in self._read(heap, newest)], np.uint32)
            torn = sums != newest["crc32"]
            if not torn.any():
                break
            rows = rows[: len(rows) - len(newest) + int(np.argmax(torn))]
        return rows

    def payloads(self, heap: str, rows: NDArray[np.void]) -> list[bytes]:
        """The bytes of rows of :meth:`index`. Raises DatasetError where they are not what was written."""
        result = self._read(heap, rows)
        for row, data in zip(rows, result, strict=True):
            if zlib.crc32(data) != row["crc32"]:
                raise DatasetError(f"{self.path}: {heap} is damaged at {int(row['captured_ns'])} ns; restore a copy")
        return result

    def _read(self, heap: str, rows: NDArray[np.void]) -> list[bytes]:
        """Bytes of rows in any order; neighbours are read in one go, since a read costs more than a packet."""
        result = [b""] * len(rows)
        starts, ends = rows["offset"].tolist(), (rows["offset"] + rows["size"]).tolist()
        dataset = self._file[f"{heap}/bytes"]
        block, block_start, block_end = b"", 0, 0
        for place in np.argsort(rows["offset"], kind="stable").tolist():
            start, end = starts[place], ends[place]
            if end > block_end:
                block_start, block_end = start, max(end, min(start + _READ_BLOCK, dataset.shape[0]))
                block = dataset[block_start:block_end].tobytes()
            result[place] = block[start - block_start : end - block_start]
        return result

    def events(self) -> list[tuple[int, dict[str, Any]]]:
        """(time ns, event) in order; an event has ``kind``: begin, pause, resume, note, end."""
        rows = self.index("events")
        return [
            (int(row["captured_ns"]), json.loads(data))
            for row, data in zip(rows, self.payloads("events", rows), strict=True)
        ]

    def raw(self) -> dict[str, tuple[NDArray[np.int64], list[NDArray[np.generic]]]]:
        """Operator input by name: capture times (N,) and the N arrays as they came."""
        rows = self.index("raw")
        result: dict[str, tuple[list[int], list[NDArray[np.generic]]]] = {}
        for row, data in zip(rows, self.payloads("raw", rows), strict=True):
            name, value = unpack_array(data)
            times, values = result.setdefault(name, ([], []))
            times.append(int(row["captured_ns"]))
            values.append(value)
        return {name: (np.array(times, np.int64), values) for name, (times, values) in result.items()}

    @property
    def finished(self) -> bool:
        """Whether the recorder ended this episode itself, without an error."""
        return any(event["kind"] == "end" for _, event in self.events())

    @property
    def info(self) -> EpisodeInfo:
        """The episode as it was last described: at its end, else when it began."""
        known = [event["info"] for _, event in self.events() if event.get("info")]
        return EpisodeInfo(**known[-1]) if known else self.meta.info

    def last_ns(self) -> int:
        """Time of the newest thing in the journal."""
        newest = [int(rows[_time_field(rows)].max()) for rows in self._all_rows() if len(rows)]
        return max(newest, default=self.meta.begin_ns)

    def _all_rows(self) -> Iterator[NDArray[np.void]]:
        yield from (self.table(name) for name in TABLES)
        yield from (self.index(name) for camera in self.meta.cameras for name in camera.heaps())


def _time_field(rows: NDArray[np.void]) -> str:
    assert rows.dtype.names is not None
    return rows.dtype.names[0]


def pack_array(name: str, value: NDArray[np.generic]) -> bytes:
    """A named array as bytes that say their own type and shape."""
    head = json.dumps({"name": name, "dtype": value.dtype.str, "shape": value.shape})
    return head.encode() + b"\n" + np.ascontiguousarray(value).tobytes()


def unpack_array(data: bytes) -> tuple[str, NDArray[np.generic]]:
    """Inverse of :func:`pack_array`."""
    head, _, body = data.partition(b"\n")
    values = json.loads(head)
    return values["name"], np.frombuffer(body, np.dtype(values["dtype"])).reshape(values["shape"])


def compact(journal: Path, target: Path, info: EpisodeInfo | None = None) -> Path:
    """Keep of a journal what a data set's rows do not: every stream at its own rate and clock, without the images.

    Capture times and sequence numbers of all frames stay, so that an old episode can be retargeted or aligned anew.
    ``info`` replaces what was known when the episode began (the label and note come later). The target is written
    beside its place and moved there whole.
    """
    with JournalReader(journal) as reader:
        meta = replace(reader.meta, info=info or reader.info)
        partial = target.with_name(target.name + ".part")
        with h5py.File(partial, "w", libver="latest") as file:
            file["meta"] = np.frombuffer(meta.to_json().encode(), np.uint8)
            for name in TABLES:
                _store(file, name, reader.table(name))
            for heap in COMMON_HEAPS:
                rows = reader.index(heap)
                payloads = reader.payloads(heap, rows)
                rows["offset"] = np.cumsum([0, *(len(data) for data in payloads)])[: len(rows)]
                _store(file, f"{heap}/index", rows)
                _store(file, f"{heap}/bytes", np.frombuffer(b"".join(payloads), np.uint8))
            for heap in (name for camera in reader.meta.cameras for name in camera.heaps()):
                _store(file, f"{heap}/index", reader.index(heap))
        partial.replace(target)
    return target


def _store(file: h5py.File, name: str, rows: NDArray[np.generic]) -> None:
    options = {"compression": "gzip", "compression_opts": 4, "shuffle": True} if len(rows) else {}
    file.create_dataset(name, data=rows, **options)


def journals(folder: Path) -> Sequence[Path]:
    """Journals in a folder, oldest name first."""
    return sorted(folder.glob("*.journal.h5"))
