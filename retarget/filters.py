"""Low-pass filters whose cut-off follows the speed: calm when still, prompt when fast.

The One-Euro filter (Casiez, Roussel, Vogel, CHI 2012): an exponential smoother whose cut-off frequency is
``min_cutoff_hz + beta * |speed|``. A fixed smoother strong enough to calm a tracked hand lags by 100 ms and more and
rubs out a brief pinch; this one lags only while nothing moves, when nobody sees it.

:class:`Follower` is for what a motor must follow: a second-order tracker whose stiffness follows the speed, with
bounded speed and acceleration, so that its output has no corners (``docs/decisions/61-hand-filter.md``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..hardware.errors import BadInput
from ..hardware.geometry import Transform, rotation_exp, rotation_log, transform

Array = NDArray[np.float64]


@dataclass(frozen=True)
class OneEuroConfig:
    """Cut-offs of a One-Euro filter. ``beta_hz`` is in Hz per unit of speed of whatever is filtered."""

    min_cutoff_hz: float = 1.5
    beta_hz: float = 4.0
    speed_cutoff_hz: float = 3.0

    def __post_init__(self) -> None:
        if not (self.min_cutoff_hz > 0 and self.speed_cutoff_hz > 0 and self.beta_hz >= 0):
            raise BadInput(f"Filter cut-offs must be positive and beta not negative, got {self}.")


def smoothing(cutoff_hz: Array | float, dt_s: float) -> Array:
    """Weight of the new sample in a first-order low-pass of this cut-off, sampled at ``dt_s`` (eq. 6 of the paper)."""
    ratio = 2.0 * np.pi * np.asarray(cutoff_hz, float) * dt_s
    return np.asarray(ratio / (1.0 + ratio))


class OneEuro:
    """Speed-adaptive low-pass of a vector, each component with its own speed."""

    def __init__(self, config: OneEuroConfig | None = None) -> None:
        self.config = config or OneEuroConfig()
        self._value: Array | None = None
        self._speed: Array | None = None

    def reset(self, value: Array | None = None) -> None:
        """Forget the past; with ``value`` the next output starts from it, at rest."""
        self._value = None if value is None else np.array(value, float)
        self._speed = None if value is None else np.zeros_like(self._value)

    def __call__(self, value: Array, dt_s: float) -> Array:
        """Filtered value, shape of ``value``; ``dt_s`` since the last call. The first value passes unchanged."""
        value = np.asarray(value, float)
        if self._value is None or self._speed is None:
            self.reset(value)
            return value.copy()
        if dt_s <= 0:
            return self._value.copy()
        config = self.config
        speed = (value - self._value) / dt_s
        # The paper differentiates the raw input; against the filtered value the speed keeps its sign for as long as
        # there is a way to go, so that a fast move is caught up with and not left half-way.
        self._speed = self._speed + smoothing(config.speed_cutoff_hz, dt_s) * (speed - self._speed)
        weight = smoothing(config.min_cutoff_hz + config.beta_hz * np.abs(self._speed), dt_s)
        self._value = self._value + weight * (value - self._value)
        return self._value.copy()


@dataclass(frozen=True)
class FollowerConfig:
    """A critically damped tracker. Defaults are for hand openings (1 = a full stroke)."""

    stiffness_rad_s: float = 9.0
    """Natural frequency at rest."""
    stiffness_per_speed: float = 1.0
    """Rise of the natural frequency (rad/s) per unit/s of input speed."""
    urgent_stiffness_rad_s: float = 18.0
    """Natural frequency where the caller says that it is urgent."""
    lead: float = 0.6
    """Share of the input's speed that is fed forward: 0 = none, 1 = no lag behind a steady motion."""
    speed_cutoff_hz: float = 2.0
    """Cut-off of the estimate of the input's speed."""
    acceleration_limit: float = 60.0
    """Per s^2."""
    jerk_limit: float = np.inf
    """Per s^3."""
    speed_limit: float = 1.0
    """Per s."""

    def __post_init__(self) -> None:
        limits = (self.acceleration_limit, self.jerk_limit, self.speed_limit)
        positive = (self.stiffness_rad_s, self.urgent_stiffness_rad_s, self.speed_cutoff_hz, *limits)
        if min(positive) <= 0 or self.stiffness_per_speed < 0 or not 0 <= self.lead <= 1:
            raise BadInput(f"A follower needs positive stiffness and limits and a lead from 0 to 1, got {self}.")


class Follower:
    """Tracks a vector smoothly: continuous speed, bounded acceleration, each component by itself."""

    _STEP_S = 0.010  # of the integration; the natural frequency is kept below half of its inverse

    def __init__(self, config: FollowerConfig | None = None) -> None:
        self.config = config or FollowerConfig()
        self.reset()

    def reset(self, value: Array | None = None) -> None:
        """Forget the past; with ``value`` the next output starts from it, at rest."""
        self._value: Array | None = None if value is None else np.array(value, float)
        self._input = np.zeros(0) if value is None else np.array(value, float)
        self._speed = np.zeros_like(self._input)
        self._acceleration = np.zeros_like(self._input)
        self._input_speed = np.zeros_like(self._input)
        self._stiffness: Array = np.full_like(self._input, self.config.stiffness_rad_s)
        self._coasted_s = 0.0

    def __call__(self, value: Array, dt_s: float, urgency: Array | float = 0.0) -> Array:
        """A new input, and the output at the end of ``dt_s``. The first value passes unchanged.

        ``urgency`` 0..1, by component or for all: stiffens up to ``urgent_stiffness_rad_s``.
        """
        value = np.asarray(value, float)
        if self._value is None:
            self.reset(value)
            return value.copy()
        if dt_s <= 0:
            return self._value.copy()
        config = self.config
        since_s = dt_s + self._coasted_s
        seen = (value - self._input) / since_s
        self._input = value.copy()
        self._input_speed = self._input_speed + smoothing(config.speed_cutoff_hz, since_s) * (seen - self._input_speed)
        stiffness = config.stiffness_rad_s + config.stiffness_per_speed * np.abs(self._input_speed)
        self._stiffness = stiffness + urgency * np.maximum(config.urgent_stiffness_rad_s - stiffness, 0.0)
        out = self.coast(dt_s)
        self._coasted_s = 0.0
        return out

    def coast(self, dt_s: float) -> Array:
        """The output ``dt_s`` later with no new input, for outputs that are wanted more often than inputs come."""
        assert self._value is not None, "nothing to go on from: no input yet"
        if dt_s <= 0:
            return self._value.copy()
        self._coasted_s += dt_s
        config = self.config
        steps = max(1, int(np.ceil(dt_s / self._STEP_S)))
        h = dt_s / steps
        stiffness = np.minimum(self._stiffness, 0.5 / h)
        pull, damping = stiffness * stiffness, 2.0 * stiffness
        limit, top = config.acceleration_limit, config.speed_limit
        lead = np.abs(self._input_speed)
        for _ in range(steps):
            away = self._input - self._value
            wanted = pull * away + damping * (config.lead * self._input_speed - self._speed)
            speed = self._speed + np.minimum(np.maximum(wanted, -limit), limit) * h
            # Never faster than it can brake before the input, beside what the input itself moves.
            bound = np.minimum(np.sqrt(2.0 * limit * np.abs(away)) + lead, top)
            speed = np.minimum(np.maximum(speed, -bound), bound)
            if config.jerk_limit < np.inf:
                speed = self._gently(speed, h)
            self._speed = speed
            self._value = self._value + self._speed * h
        return self._value.copy()

    def _gently(self, speed: Array, h: float) -> Array:
        """The speed nearest to ``speed`` after ``h`` seconds that the jerk limit allows, never beyond the top speed."""
        jerk, top = self.config.jerk_limit, self.config.speed_limit
        # So that a ramp of the acceleration to zero ends at the top speed.
        up = np.sqrt(2.0 * jerk * np.maximum(top - self._speed, 0.0))
        down = np.sqrt(2.0 * jerk * np.maximum(top + self._speed, 0.0))
        wanted = np.minimum(np.maximum((speed - self._speed) / h, -down), up)
        change = jerk * h
        self._acceleration = np.minimum(np.maximum(wanted, self._acceleration - change), self._acceleration + change)
        return np.minimum(np.maximum(self._speed + self._acceleration * h, -top), top)


class OneEuroPose:
    """Speed-adaptive low-pass of a rigid pose: position by its speed (m/s), rotation by its own (rad/s)."""

    def __init__(self, position: OneEuroConfig | None = None, rotation: OneEuroConfig | None = None) -> None:
        self.position = position or OneEuroConfig(1.5, 30.0)
        self.rotation = rotation or OneEuroConfig(1.5, 6.0)
        self._pose: Transform | None = None
        self._speed: Array = np.zeros(2)  # m/s, rad/s

    def reset(self, pose: Transform | None = None) -> None:
        """Forget the past; with ``pose`` (4, 4) the next output starts from it, at rest."""
        self._pose = None if pose is None else np.array(pose, float)
        self._speed = np.zeros(2)

    def __call__(self, pose: Transform, dt_s: float) -> Transform:
        """Filtered pose (4, 4). The first pose passes unchanged."""
        if self._pose is None:
            self.reset(pose)
            return np.array(pose, float)
        if dt_s <= 0:
            return self._pose.copy()
        move = pose[:3, 3] - self._pose[:3, 3]
        turn = rotation_log(self._pose[:3, :3].T @ pose[:3, :3])
        speed = np.array([np.linalg.norm(move), np.linalg.norm(turn)]) / dt_s
        cutoffs = np.array([self.position.speed_cutoff_hz, self.rotation.speed_cutoff_hz])
        self._speed = self._speed + smoothing(cutoffs, dt_s) * (speed - self._speed)
        base = np.array([self.position.min_cutoff_hz, self.rotation.min_cutoff_hz])
        beta = np.array([self.position.beta_hz, self.rotation.beta_hz])
        weight = smoothing(base + beta * self._speed, dt_s)
        self._pose = transform(
            self._pose[:3, :3] @ rotation_exp(weight[1] * turn), self._pose[:3, 3] + weight[0] * move
        )
        return self._pose.copy()
