"""Chunk after chunk without a pause: the next one is planned while the last one moves the robot.

A chunk that is asked for at tick k begins with the commands of ticks k, k + 1, ...; the first ``late`` of them are
those of the last chunk, which the robot follows meanwhile (real-time chunking, 2512.05964, learnt in training). So the
answer may come any time within ``late`` ticks and nothing jumps. How many these are is what the slowest of the last few
chunks took (as in 2506.07339, algorithm 1). One that comes later still is taken from where the robot is by then.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..hardware.errors import BadInput
from ..train.views import Observation

Array = NDArray[np.float64]


class ChunkPolicy(Protocol):
    """What the loop asks of a policy (:class:`dexloop.train.controller.policy.ControllerPolicy`)."""

    @property
    def late_most(self) -> int:
        """The most that :meth:`chunk` takes for ``late``."""
        ...

    @property
    def cameras(self) -> frozenset[str]:
        """Whose pictures it looks at."""
        ...

    def start(self, observation: Observation) -> None:
        """An attempt begins."""
        ...

    def again(self, observation: Observation) -> None:
        """In the same attempt: the last grasp failed, the hand is open again."""
        ...

    def chunk(self, observation: Observation, left: Array | None = None, late: int = 0) -> Array:
        """(H, 13) commands from the observation's tick on."""
        ...


@dataclass(frozen=True)
class FollowConfig:
    """How chunks follow each other, in ticks."""

    execute: int = 16
    """Commands of a chunk that are followed before the next one takes over."""
    late: int = 1
    """A chunk is expected so many ticks after its observation, or more where the last ones took longer."""
    background: bool = True
    """Plan in a thread of its own, while the robot moves. False: plan at once and hand the answer out ``late`` ticks
    later, so that simulated time gives the same result on every machine."""

    def __post_init__(self) -> None:
        if self.late < 0 or self.execute <= self.late:
            raise BadInput(
                f"execute is {self.execute} and late {self.late}: expected late of 0 or more, and execute above it."
            )


class Delay:
    """How many ticks a chunk is expected to take: as many as the slowest of the last ``REMEMBERED``, but not more than
    a policy can go on from."""

    REMEMBERED = 16

    def __init__(self, policy: ChunkPolicy, config: FollowConfig) -> None:
        self._least, self._most = config.late, min(policy.late_most, config.execute - 1)
        self._took: deque[int] = deque(maxlen=self.REMEMBERED)

    @property
    def ticks(self) -> int:
        return min(max((self._least, *self._took)), self._most)

    def note(self, ticks: int) -> None:
        """A chunk came so many ticks after it had been asked for."""
        self._took.append(ticks)


@dataclass
class FollowCounts:
    """What a report wants to know of the planning."""

    chunks: int = 0
    overdue: int = 0  # chunks that came later than expected
    overdue_ticks: int = 0  # by how much, in all
    starved_ticks: int = 0  # ticks in which there was nothing left to follow
    chunk_ms: list[float] = field(default_factory=list)


class Follower:
    """Gives the command of each tick. One attempt; :meth:`close` it to wait for a chunk that is being planned."""

    def __init__(self, policy: ChunkPolicy, config: FollowConfig = FollowConfig(), delay: Delay | None = None) -> None:
        """``delay``: what was learnt in attempts before."""
        self._policy = policy
        self._config = config
        self._delay = delay or Delay(policy, config)
        self._executor = ThreadPoolExecutor(1, "chunk") if config.background else None
        self._chunk: Array = np.empty((0, 13))
        self._used = 0  # commands of the chunk that were followed
        self._planned: Future[tuple[Array, float]] | None = None
        self._asked = 0  # ``_used`` when the chunk was asked for
        self._late = 0  # and the ticks in which it was expected
        self._came: int | None = None  # the ticks after which it was seen to be there
        self.counts = FollowCounts()

    def start(self, observation: Observation) -> None:
        """Begin an attempt; plans its first chunk, the robot at rest."""
        self._policy.start(observation)
        self._begin(observation)

    def go_on(self, observation: Observation) -> None:
        """The hand came up empty and is open again, at rest: plan anew from where it is, in the same attempt."""
        if self._planned is not None:
            self._planned.exception()  # wait: a policy that failed fails again, and is told then
        self._policy.again(observation)
        self._begin(observation)

    def _begin(self, observation: Observation) -> None:
        self._take(*self._think(observation, np.empty((0, 13)), 0), used=0)

    def step(self, observe: Callable[[], Observation]) -> Array:
        """(13,) the command of this tick. ``observe`` is asked for the moment only when a chunk is to be planned.
        Raises what the policy raised."""
        if self._planned is None and self._used >= self._config.execute - self._delay.ticks:
            self._ask(observe())
        waited = self._used - self._asked
        if self._planned is not None:
            if self._came is None and self._planned.done():
                self._came = waited
            if self._came is not None and waited >= self._late:
                self._delay.note(self._came)
                self._take(*self._planned.result(), used=waited)
            elif waited >= self._late:
                self.counts.overdue += waited == self._late
                self.counts.overdue_ticks += 1
        if self._used >= len(self._chunk):
            self.counts.starved_ticks += 1
            self._used += 1
            return self._chunk[-1]
        self._used += 1
        return self._chunk[self._used - 1]

    def close(self) -> None:
        """Safe to call twice."""
        if self._executor is not None:
            self._executor.shutdown()

    def _ask(self, observation: Observation) -> None:
        left = self._chunk[min(self._used, len(self._chunk)) :]
        self._asked, self._came = self._used, None
        self._late = min(self._delay.ticks, len(left))
        if self._executor is not None:
            self._planned = self._executor.submit(self._think, observation, left, self._late)
            return
        self._planned = Future()
        self._planned.set_result(self._think(observation, left, self._late))

    def _think(self, observation: Observation, left: Array, late: int) -> tuple[Array, float]:
        begun = time.perf_counter()
        chunk = self._policy.chunk(observation, left, late)
        if not np.isfinite(chunk).all():
            raise BadInput(
                f"the policy planned {np.count_nonzero(~np.isfinite(chunk))} of {chunk.size} numbers that are not "
                "finite: its weights are damaged, load another checkpoint."
            )
        return chunk, 1e3 * (time.perf_counter() - begun)

    def _take(self, chunk: Array, ms: float, used: int) -> None:
        self._chunk, self._used, self._planned = chunk, min(used, len(chunk)), None
        self.counts.chunks += 1
        self.counts.chunk_ms.append(ms)
