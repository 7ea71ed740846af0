"""The endless stream of training batches: what comes at a step follows from (seed, step) alone."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import numpy as np

from ..controller.draws import Draws
from ..controller.parts import Batch
from .chunks import Chunks
from .pack import Rows


class Batches:
    """Iterates (step, batch, draws) from ``start_step`` on, made ahead on a thread of its own.

    Every epoch is another permutation of the rows; a batch may reach from one into the next, so that all have ``size``
    rows. Each process gets its share of every batch. Use as a context manager, or :meth:`close`, to end the thread.
    """

    def __init__(
        self,
        chunks: Chunks,
        size: int,
        seed: int,
        start_step: int = 0,
        process_index: int = 0,
        process_count: int = 1,
        ahead: int = 4,
    ) -> None:
        """``size``: rows of a batch over all processes; ``ahead``: batches kept ready."""
        if not 0 <= process_index < process_count <= size:
            raise ValueError(f"process {process_index} of {process_count} for batches of {size}")
        self._chunks, self._size, self._seed = chunks, size, seed
        self._share = slice(size * process_index // process_count, size * (process_index + 1) // process_count)
        self._epochs: dict[int, Rows] = {}
        self._ready: queue.Queue[Any] = queue.Queue(ahead)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(start_step,), name="batches", daemon=True)
        self._thread.start()

    def positions(self, step: int) -> Rows:
        """(size,) rows of the step's batch over all processes."""
        whole = len(self._chunks)
        place = np.arange(step * self._size, (step + 1) * self._size)
        epochs = place // whole
        out = np.empty(self._size, np.int64)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            out[here] = self._order(epoch)[place[here] % whole]
        return out

    def __iter__(self) -> Iterator[tuple[int, Batch, Draws]]:
        while True:
            item = self._ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """End the thread; what it made ahead is forgotten."""
        self._ended.set()
        self._thread.join()

    def __enter__(self) -> Batches:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _order(self, epoch: int) -> Rows:
        if epoch not in self._epochs:
            for old in [known for known in self._epochs if known < epoch - 1]:
                del self._epochs[old]
            self._epochs[epoch] = np.random.default_rng([self._seed, epoch]).permutation(len(self._chunks))
        return self._epochs[epoch]

    def _work(self, step: int) -> None:
        try:
            while not self._ended.is_set():
                draws = Draws(self._seed, step, self._size, self._share)
                batch = self._chunks.batch(self.positions(step)[self._share], draws)
                self._put((step, batch, draws))
                step += 1
        except BaseException as error:  # raised where the batch is asked for
            self._put(error)

    def _put(self, item: Any) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(queue.Full):
                self._ready.put(item, timeout=0.05)  # looks up now and then whether it should end
                return
