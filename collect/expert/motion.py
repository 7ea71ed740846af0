"""Band-limited noise on a demonstration's commands."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class SmoothNoise:
    """Band-limited noise: a sum of a few slow sines with random phases, zero at t = 0, unit standard deviation.

    A hand that trembles at 20 Hz would be filtered away by the arm; what demonstrations need is drift over tenths of
    a second.
    """

    def __init__(self, rng: np.random.Generator, size: int, low_hz: float = 0.15, high_hz: float = 1.2) -> None:
        self._rate = 2 * np.pi * rng.uniform(low_hz, high_hz, (4, size))
        self._phase = rng.uniform(0, 2 * np.pi, (4, size))
        self._ramp_s = 0.5

    def at(self, t_s: float) -> Array:
        """(size,)"""
        ramp = min(1.0, max(0.0, t_s / self._ramp_s))
        return ramp * np.sin(self._rate * t_s + self._phase).sum(0) / np.sqrt(2.0)
