"""Scripted episodes in several processes; what comes out does not depend on how many.

Each worker makes its own world and renderer (an OpenGL context cannot cross a fork) and writes journals; the parent
takes the attempts in their order and alone writes the data set.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..hardware.errors import DeviceError

if TYPE_CHECKING:
    from .studio import Studio, StudioConfig, Take

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS")

_studio: Studio | None = None  # this worker's


def _start(config: StudioConfig) -> None:
    from .studio import Studio

    global _studio
    _studio = Studio(config)


def _record(attempt: int, journal: Path) -> Take:
    assert _studio is not None
    return _studio.record(attempt, journal)


@contextlib.contextmanager
def processes(workers: int, start: Callable[..., None] | None = None, *arguments: Any) -> Iterator[ProcessPoolExecutor]:
    """A pool of spawned processes with one numerical thread each; ``start(*arguments)`` is called first in each. Ctrl-C
    is the parent's to handle. At the end what has not begun is cancelled.

    Raises DeviceError when a process dies.
    """
    # Workers times numerical threads would fight for the same cores.
    with contextlib.ExitStack() as stack:
        for name in THREADS:
            if name not in os.environ:
                os.environ[name] = "1"
                stack.callback(os.environ.pop, name, None)
        context = multiprocessing.get_context("spawn")  # an OpenGL context cannot cross a fork
        pool = ProcessPoolExecutor(workers, context, _begin, (start, arguments))
        try:
            yield pool
        except BrokenProcessPool as error:
            raise DeviceError(
                "a worker process died (out of memory, or its graphics driver failed): what was finished is safe; "
                "run again with fewer --workers."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _begin(start: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if start is not None:
        start(*arguments)


def _end_with_parent() -> None:
    """A pool's process waits for work for ever, also where a kill -9 left nobody to give any."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def record_in_parallel(
    config: StudioConfig, attempts: Sequence[int], workers: int, journal: Callable[[int], Path]
) -> Iterator[Take]:
    """Takes in the order of ``attempts``; a few are recorded ahead, and their journals removed if nobody wants them.

    Raises DeviceError when a worker dies, and whatever an attempt raised.
    """
    with processes(workers, _start, config) as pool:
        pending: deque[tuple[Path, Future[Take]]] = deque()
        remaining = iter(attempts)

        def submit() -> None:
            for attempt in remaining:
                path = journal(attempt)
                pending.append((path, pool.submit(_record, attempt, path)))
                return

        try:
            for _ in range(2 * workers):
                submit()
            while pending:
                _, future = pending[0]
                take = future.result()
                pending.popleft()
                submit()
                yield take
        finally:
            pool.shutdown(wait=True, cancel_futures=True)  # nobody writes a journal any more
            for path, _ in pending:
                path.unlink(missing_ok=True)
