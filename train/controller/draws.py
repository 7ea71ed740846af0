"""Everything random of a training step, from (seed, step) alone.

Numbers are drawn for the whole batch and each process takes its rows of it, so that a resumed run and a run on more
processes see what the uninterrupted single one sees.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Draws:
    """Random numbers for rows ``rows`` of a batch of ``size``. The same calls in the same order give the same."""

    def __init__(self, seed: int, step: int, size: int, rows: slice | None = None) -> None:
        self._generator = torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)
        self._size = size
        self._rows = rows or slice(0, size)

    @property
    def rows(self) -> int:
        """How many rows each draw has."""
        return len(range(*self._rows.indices(self._size)))

    def normal(self, *shape: int) -> Tensor:
        """(rows, *shape) standard normal float32, on the CPU."""
        return torch.randn(self._size, *shape, generator=self._generator)[self._rows]

    def uniform(self, *shape: int) -> Tensor:
        """(rows, *shape) uniform in [0, 1) float32."""
        return torch.rand(self._size, *shape, generator=self._generator)[self._rows]

    def integers(self, high: int, *shape: int) -> Tensor:
        """(rows, *shape) int64 in [0, high)."""
        return torch.randint(high, (self._size, *shape), generator=self._generator)[self._rows]
