"""Where trials run: here, in processes beside this one, or on a Ray cluster. The results are the same.

A job is a value, the function a module's own; its result depends on the job alone. Simulators in processes fail in
known ways, which are met here: processes are spawned, never forked (an OpenGL context does not survive a fork), each
makes its own renderer, has one BLAS thread, is given up after a time, and is replaced when it dies.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from ...hardware.errors import BadInput, DeviceError, DexLoopError

ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS")}
TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class Failure:
    """A job that gave no result: its process died, was given up, or the function raised."""

    message: str


class Executor(Protocol):
    """Runs jobs."""

    def run[Job, Result](
        self, function: Callable[[Job], Result], jobs: Sequence[Job]
    ) -> Iterator[tuple[int, Result | Failure]]:
        """(index of the job, its result) as results come. A request that is wrong (BadInput) is raised: it would be
        wrong for every job. Close the iterator to stop what is running."""
        ...


def attempt[Job, Result](function: Callable[[Job], Result], job: Job) -> Result | Failure:
    """The function's result. A failure of one job does not stop the others; BadInput is raised."""
    try:
        return function(job)
    except BadInput:
        raise
    except DexLoopError as error:
        return Failure(str(error))
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return Failure(f"{type(error).__name__}: {error} ({os.path.basename(where.filename)}:{where.lineno})")


class SerialExecutor:
    """One after another, in this process. No timeout: nobody is there to give a job up."""

    def run[Job, Result](
        self, function: Callable[[Job], Result], jobs: Sequence[Job]
    ) -> Iterator[tuple[int, Result | Failure]]:
        for index, job in enumerate(jobs):
            yield index, attempt(function, job)


# -- spawned processes ---------------------------------------------------------------------------------------------


_READY = "ready"
START_S = 300.0
"""A process that has not begun by then never will. Importing torch from a cold disk on a loaded machine is slow."""


def _serve(function: Callable[[Any], Any], link: Connection) -> None:
    """A worker's life: ready, then jobs in, results out, until the link is closed or nobody is at its other end."""
    with suppress(EOFError, BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        link.send(_READY)  # the function's module is imported by now
        while True:
            job = link.recv()
            answer: Any
            try:
                answer = attempt(function, job)
            except BadInput as error:
                answer = error
            link.send(answer)


@dataclass
class _Worker:
    process: BaseProcess
    link: Connection
    index: int  # of the job that it has, or will have
    deadline_s: float  # when it is given up, monotonic
    begun: bool = False  # it has had a job


@dataclass(frozen=True)
class ProcessExecutor:
    """So many spawned processes."""

    workers: int
    timeout_s: float = TIMEOUT_S
    """A job that takes longer is given up, its process replaced."""

    def __post_init__(self) -> None:
        if self.workers < 1 or self.timeout_s <= 0:
            raise BadInput(f"workers is {self.workers}, timeout_s {self.timeout_s}: expected 1 or more, and above 0.")

    def run[Job, Result](
        self, function: Callable[[Job], Result], jobs: Sequence[Job]
    ) -> Iterator[tuple[int, Result | Failure]]:
        waiting = list(reversed(range(len(jobs))))
        crew: list[_Worker] = []
        try:
            while waiting or crew:
                while waiting and len(crew) < self.workers:
                    crew.append(self._hire(function, waiting.pop()))
                for worker, result in self._finished(crew):
                    if isinstance(result, BadInput):
                        raise result
                    if isinstance(result, str) and result == _READY:
                        self._hand(worker, worker.index, jobs)
                        continue
                    index = worker.index
                    if result is None:
                        crew.remove(worker)
                        result = self._bury(worker)
                    elif waiting:
                        self._hand(worker, waiting.pop(), jobs)
                    else:
                        crew.remove(worker)
                        _dismiss(worker)
                    yield index, result
        finally:
            for worker in crew:
                worker.process.kill()
                _dismiss(worker)

    def _hire(self, function: Callable[[Any], Any], index: int) -> _Worker:
        """A new worker, for job ``index`` to begin with: it is handed over when the worker is ready."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(function, theirs), daemon=True)
        with _environment(ONE_THREAD):  # before the child imports NumPy
            process.start()
        theirs.close()
        return _Worker(process, ours, index, time.monotonic() + START_S)

    def _hand(self, worker: _Worker, index: int, jobs: Sequence[Any]) -> None:
        worker.index, worker.deadline_s, worker.begun = index, time.monotonic() + self.timeout_s, True
        with suppress(BrokenPipeError, ConnectionResetError):  # it died already: the link tells so next
            worker.link.send(jobs[index])

    def _finished(self, crew: list[_Worker]) -> list[tuple[_Worker, Any]]:
        """Workers with their results; None for one that died or took too long. Waits for the first."""
        soonest = min(worker.deadline_s for worker in crew)
        ready = wait([worker.link for worker in crew], max(0.0, soonest - time.monotonic()))
        out: list[tuple[_Worker, Any]] = []
        for worker in crew:
            if worker.link in ready:
                try:
                    out.append((worker, worker.link.recv()))
                except (EOFError, OSError):
                    out.append((worker, None))
            elif time.monotonic() >= worker.deadline_s:
                out.append((worker, None))
        return out

    def _bury(self, worker: _Worker) -> Failure:
        late = time.monotonic() >= worker.deadline_s
        if late:
            worker.process.kill()
        _dismiss(worker)
        if not worker.begun:
            raise DeviceError(
                f"a worker process ended before its first job (exit code {worker.process.exitcode}): look at what it "
                "printed, at free memory, and run with --workers 1."
            )
        if late:
            return Failure(f"given up after {self.timeout_s:g} s")
        return Failure(f"its process died with exit code {worker.process.exitcode}")


def _dismiss(worker: _Worker) -> None:
    """End a worker that has nothing to do, or was killed."""
    worker.link.close()
    worker.process.join(10)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


# -- Ray -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RayExecutor:
    """A Ray cluster. DexLoop must be installed on its machines, at the same version and the same place."""

    address: str = "local"
    """local: a cluster of this machine's cores, for as long as it takes; auto: the one that runs here; or
    ray://host:port."""
    timeout_s: float = TIMEOUT_S
    cpus: int | None = None
    """Of a local cluster. None: all."""

    def run[Job, Result](
        self, function: Callable[[Job], Result], jobs: Sequence[Job]
    ) -> Iterator[tuple[int, Result | Failure]]:
        ray = import_ray()
        local = self.address == "local"
        try:
            ray.init(
                address=self.address,
                log_to_driver=False,
                include_dashboard=False if local else None,
                configure_logging=False,
                runtime_env={"env_vars": ONE_THREAD},
                **({"num_cpus": self.cpus} if local else {}),
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise BadInput(
                f"no Ray cluster answers at {self.address!r} ({error}): give --ray local, or the address that "
                "`ray start --head` printed."
            ) from error
        try:
            yield from self._gather(ray, function, jobs)
        finally:
            ray.shutdown()

    def _gather(self, ray: Any, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        # A lost machine is not the job's fault: it is tried again elsewhere.
        remote = ray.remote(num_cpus=1, max_retries=2)(_ray_job)
        width = max(1, int(ray.cluster_resources().get("CPU", 1)))
        waiting = list(reversed(range(len(jobs))))
        running: dict[Any, tuple[int, float]] = {}  # answer -> job's index, when it is given up (s, monotonic)
        while waiting or running:
            while waiting and len(running) < width:  # handed out as they fit: what waits in Ray has no timeout
                index = waiting.pop()
                running[remote.remote(function, jobs[index])] = index, time.monotonic() + self.timeout_s
            soonest = min(deadline for _, deadline in running.values())
            done, _ = ray.wait(list(running), timeout=max(0.01, soonest - time.monotonic()))
            for answer in done:
                index, _ = running.pop(answer)
                try:
                    result = ray.get(answer)
                except ray.exceptions.RayError as error:
                    result = Failure(f"Ray: {str(error).splitlines()[0]}")
                if isinstance(result, BadInput):
                    raise result
                yield index, result
            late = [answer for answer, (_, deadline) in running.items() if time.monotonic() >= deadline]
            for answer in late:
                index, _ = running.pop(answer)
                ray.cancel(answer, force=True)
                yield index, Failure(f"given up after {self.timeout_s:g} s")


def _ray_job(function: Callable[[Any], Any], job: Any) -> Any:
    try:
        return attempt(function, job)
    except BadInput as error:
        return error


def import_ray() -> Any:
    """The ``ray`` module. Raises BadInput where it is not installed."""
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise BadInput(
            "--ray needs Ray, which is not installed: `uv sync --extra ray`, here and on the cluster's machines."
        ) from error
    return ray


def make_executor(workers: int, ray: str | None, timeout_s: float = TIMEOUT_S) -> Executor:
    """The one for a command's ``--workers`` and ``--ray``."""
    if workers < 1:
        raise BadInput(f"workers is {workers}: expected 1 or more.")
    if ray is not None:
        import_ray()
        return RayExecutor(ray, timeout_s)
    return SerialExecutor() if workers == 1 else ProcessExecutor(workers, timeout_s)
