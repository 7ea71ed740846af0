"""What happens to a camera's frames between the camera and the journal: one thread per picture stream.

A lane has a bounded queue that blocks its source, a piece of work (encode colour, encode depth, cut out the target's
mask) and the journal's writer at its end.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Protocol

import numpy as np

from ..hardware.errors import DatasetError, DeviceError, DexLoopError
from ..hardware.values import Frame
from . import rle
from .journal_writer import JournalWriter
from .video import ColourConfig, ColourEncoder, DepthEncoder, StatsSampler, StreamFormat, depth_counts

_POLL_S = 0.1  # how often a blocked source looks whether the recording has failed


class Work(Protocol):
    """Turns a frame into the bytes that are journaled."""

    sampler: StatsSampler | None  # small pictures for the statistics, None where there are none

    def encode(self, frame: Frame) -> bytes: ...


class ColourWork:
    """The frame's H.264 packet."""

    def __init__(self, width: int, height: int, rate_hz: float, config: ColourConfig) -> None:
        self._encoder = ColourEncoder(width, height, rate_hz, config)
        self.format: StreamFormat = self._encoder.format
        self.sampler: StatsSampler | None = StatsSampler()

    def encode(self, frame: Frame) -> bytes:
        assert self.sampler is not None
        self.sampler.add(frame.rgb)
        return self._encoder.encode(frame.rgb)


class DepthWork:
    """The frame's lossless depth packet, in counts of the camera's unit."""

    def __init__(self, width: int, height: int, rate_hz: float, name: str, unit_m: float) -> None:
        self._encoder = DepthEncoder(width, height, rate_hz, unit_m)
        self._name, self._unit_m = name, unit_m
        self.format: StreamFormat = self._encoder.format
        self.sampler: StatsSampler | None = StatsSampler()

    def encode(self, frame: Frame) -> bytes:
        if frame.depth_m is None:
            raise DeviceError(
                f"camera {self._name!r} gave a frame without depth, but depth is to be recorded: "
                "record without depth, or choose a camera that has it"
            )
        counts, _ = depth_counts(frame.depth_m, self._unit_m)  # too far for 12 bits: stored as invalid
        assert self.sampler is not None
        self.sampler.add(counts)
        return self._encoder.encode(counts)


class MaskWork:
    """The target's exact mask as run lengths."""

    def __init__(self, name: str, target_id: int) -> None:
        self._name, self._target_id = name, target_id
        self.sampler: StatsSampler | None = None

    def encode(self, frame: Frame) -> bytes:
        if frame.segmentation is None:
            raise DeviceError(
                f"camera {self._name!r} gave a frame without segmentation, but the target's mask is to be recorded: "
                "switch the twin's segmentation on, or leave the target id out"
            )
        return rle.encode(np.equal(frame.segmentation, self._target_id)).encode()


class Lane:
    """A queue, a thread and the work that it does. Errors go to ``fail``; the source is then let go."""

    def __init__(self, heap: str, work: Work, queue_size: int) -> None:
        self.heap, self.work = heap, work
        self.largest_queue = 0
        self._queue: queue.Queue[Frame | None] = queue.Queue(queue_size)
        self._thread: threading.Thread | None = None
        self._failed = False

    def start(self, writer: JournalWriter, fail: Callable[[DexLoopError], None]) -> None:
        """Begin to work."""
        self._thread = threading.Thread(target=self._run, args=(writer, fail), name=self.heap, daemon=True)
        self._thread.start()

    def put(self, frame: Frame, let_go: Callable[[], bool]) -> None:
        """Hand over a frame; blocks while the queue is full, until ``let_go()`` says that the recording has failed."""
        while not self._failed and not let_go():
            with contextlib.suppress(queue.Full):
                self._queue.put(frame, timeout=_POLL_S)
                break
        self.largest_queue = max(self.largest_queue, self._queue.qsize())

    def close(self) -> None:
        """Work off what is queued and end the thread. Safe to call twice."""
        if self._thread is None:
            return
        while self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._queue.put(None, timeout=_POLL_S)
                break
        self._thread.join()
        self._thread = None

    def _run(self, writer: JournalWriter, fail: Callable[[DexLoopError], None]) -> None:
        try:
            while (frame := self._queue.get()) is not None:
                writer.put_bytes(self.heap, frame.captured_ns, frame.sequence, self.work.encode(frame))
        except DexLoopError as error:
            self._failed = True
            fail(error)
        except Exception as error:  # a codec's failure or a bug of ours: the loop must hear of it
            self._failed = True
            failure = DatasetError(f"recording {self.heap} failed: {error!r}; the journal is whole until then")
            failure.__cause__ = error
            fail(failure)
