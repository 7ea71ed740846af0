"""What benchmarks of success share: scenes run in processes, and how they are counted."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol


class Trial(Protocol):
    """The result of one scene."""

    @property
    def family(self) -> str: ...
    @property
    def success(self) -> bool: ...


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
