"""Smooth timed joint paths: a spline through waypoints, run with a minimum-jerk profile inside the arm's limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_PROFILE_STEPS = 480


@dataclass(frozen=True)
class SpeedLimits:
    """What a motion may ask of the arm."""

    speed_rad_s: Array  # (7,)
    acceleration_rad_s2: Array  # (7,)
    jerk_rad_s3: Array  # (7,)

    def scaled(self, pace: float) -> SpeedLimits:
        """Slower by ``pace`` < 1, with the same shape in time."""
        return SpeedLimits(self.speed_rad_s * pace, self.acceleration_rad_s2 * pace**2, self.jerk_rad_s3 * pace**3)


class JointPath:
    """Joint angles as a function of time, at rest at both ends.

    Args:
        waypoints: (K, 7) rad, K >= 1; neighbours that are equal are merged.
        limits: nowhere exceeded.
        shortest_s: the path takes at least this long.
    """

    def __init__(self, waypoints: Array, limits: SpeedLimits, shortest_s: float = 0.0) -> None:
        waypoints = np.atleast_2d(np.asarray(waypoints, float))
        steps = np.linalg.norm(np.diff(waypoints, axis=0), axis=1)
        keep = np.concatenate([[True], steps > 1e-6])
        self._waypoints = waypoints[keep]
        if len(self._waypoints) == 1:
            self.duration_s = shortest_s
            return
        knots = np.concatenate([[0.0], np.cumsum(steps[keep[1:]])])
        self._knots = knots / knots[-1]
        self._second = _natural_spline(self._knots, self._waypoints)
        self.duration_s = max(shortest_s, self._fastest(limits))

    def at(self, t_s: float) -> Array:
        """(7,) rad; holds the ends outside 0..duration_s."""
        if len(self._waypoints) == 1:
            return self._waypoints[0]
        tau = np.clip([t_s / self.duration_s], 0.0, 1.0)
        return self._spline(_minimum_jerk(tau))[0]

    @property
    def end(self) -> Array:
        """(7,) rad."""
        return self._waypoints[-1]

    def _fastest(self, limits: SpeedLimits) -> float:
        """Shortest duration for which speed, acceleration and jerk stay inside ``limits``: with time scaled by T
        they fall with T, T^2 and T^3."""
        tau = np.arange(_PROFILE_STEPS + 1, dtype=float) / _PROFILE_STEPS
        q = self._spline(_minimum_jerk(tau))
        step = 1.0 / _PROFILE_STEPS
        speed = np.abs(np.diff(q, axis=0) / step)
        acceleration = np.abs(np.diff(q, 2, axis=0) / step**2)
        # Over longer steps: at a knot the jerk jumps, and the arm feels its mean over some 10 ms.
        jerk = np.abs(np.diff(q[::4], 3, axis=0) / (4 * step) ** 3)
        return float(
            max(
                (speed / limits.speed_rad_s).max(),
                np.sqrt((acceleration / limits.acceleration_rad_s2).max()),
                np.cbrt((jerk / limits.jerk_rad_s3).max()),
            )
        )

    def _spline(self, u: Array) -> Array:
        """Natural cubic spline at u (N,) in 0..1 -> (N, 7)."""
        k = np.clip(np.searchsorted(self._knots, u, side="right") - 1, 0, len(self._knots) - 2)
        h = (self._knots[k + 1] - self._knots[k])[:, None]
        b = (u - self._knots[k])[:, None] / h
        a = 1.0 - b
        bend = ((a**3 - a) * self._second[k] + (b**3 - b) * self._second[k + 1]) * h**2 / 6.0
        return a * self._waypoints[k] + b * self._waypoints[k + 1] + bend


def _minimum_jerk(tau: Array) -> Array:
    return tau**3 * (10.0 - 15.0 * tau + 6.0 * tau * tau)


def _natural_spline(knots: Array, values: Array) -> Array:
    """Second derivatives (K, n) at the knots of the natural cubic spline."""
    count = len(knots)
    second = np.zeros_like(values)
    if count == 2:
        return second
    h = np.diff(knots)
    matrix = np.diag(2.0 * (h[:-1] + h[1:])) + np.diag(h[1:-1], 1) + np.diag(h[1:-1], -1)
    slopes = np.diff(values, axis=0) / h[:, None]
    second[1:-1] = np.linalg.solve(matrix, 6.0 * np.diff(slopes, axis=0))
    return second
