"""What benchmarks of success share: scenes run in processes, and how sure a share is."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol


class Trial(Protocol):
    """The result of one scene."""

    @property
    def family(self) -> str: ...
    @property
    def success(self) -> bool: ...


def wilson(successes: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927)."""
    if count == 0:
        return 0.0, 1.0
    share, square = successes / count, z * z / count
    middle = (share + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(share * (1 - share) / count + square / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def in_order[Job, Result](run: Callable[[Job], Result], jobs: Iterable[Job], workers: int) -> Iterator[Result]:
    """Results of ``jobs`` in their order, from so many processes. ``run`` is a function of a module."""
    if workers == 1:
        yield from map(run, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(run, jobs, chunksize=1)


def by_category(results: Sequence[Trial]) -> dict[str, list[int]]:
    """Successes and trials of each family of objects."""
    families = sorted({result.family for result in results})
    return {
        family: [sum(r.success for r in results if r.family == family), sum(r.family == family for r in results)]
        for family in families
    }
