"""Closing the hand by feel: each digit runs to its touch, waits for the others, and then all squeeze."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...hardware.values import HandState
from .grasps import Grasp

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ClosingConfig:
    """How the hand closes. Openings are 1 = open, 0 = closed."""

    speed_per_s: float = 0.9  # openings per second; the hand's full stroke takes 1 s
    touch_n: float = 2.0  # motor force, referred to the fingertip, that counts as touch
    lag: float = 0.10  # or a digit this far behind its command
    squeeze: float = 0.35  # commanded past the touch, so that the motor's force limit decides
    squeeze_s: float = 0.35
    timeout_s: float = 2.2


class HandCloser:
    """One closing. Call :meth:`step` every tick until ``done``, then :meth:`hold` while lifting."""

    def __init__(self, grasp: Grasp, config: ClosingConfig, period_s: float) -> None:
        self._config = config
        self._period_s = period_s
        self._command = grasp.preshape.copy()
        # Digits that have further to go start first: all should meet the object at about the same time.
        travel = grasp.preshape[:5] - np.minimum(grasp.contact, grasp.preshape[:5])
        self._rate = np.maximum(travel / max(float(travel.max()), 1e-3), 0.35) * config.speed_per_s
        self._thumb_waits = grasp.thumb_waits
        self._touched = np.zeros(5, bool)
        self._elapsed_s = 0.0
        self._squeezed_s = 0.0
        self.done = False

    def step(self, hand: HandState) -> Array:
        """Openings (6,) for this tick."""
        config = self._config
        self._elapsed_s += self._period_s
        behind = hand.opening[:5] - self._command[:5] > config.lag
        felt = (hand.force[:5] > config.touch_n) & (self._elapsed_s > 0.2)
        self._touched |= behind | felt
        gripped = self._touched[0] and self._touched[1:].sum() >= 2
        ended = bool((self._touched | (self._command[:5] <= 0.0)).all()) or self._elapsed_s > config.timeout_s
        if self._squeezed_s > 0 or ended or (gripped and self._touched.sum() >= 4):
            self._squeezed_s += self._period_s
            self._squeeze(hand)
            self.done = self._squeezed_s > config.squeeze_s
        else:
            moving = ~self._touched
            moving[0] &= not self._thumb_waits or self._touched[1:].sum() >= 2
            self._command[:5][moving] -= self._rate[moving] * self._period_s
        self._command = np.clip(self._command, 0.0, 1.0)
        return self._command.copy()

    def hold(self, hand: HandState) -> Array:
        """Openings (6,) while the object is carried: the squeeze, following a digit that gives way inwards."""
        self._squeeze(hand)
        return self._command.copy()

    def _squeeze(self, hand: HandState) -> None:
        goal = np.maximum(hand.opening[:5] - self._config.squeeze, 0.0)
        step = 1.5 * self._config.speed_per_s * self._period_s
        self._command[:5] = np.maximum(np.minimum(self._command[:5], np.maximum(goal, self._command[:5] - step)), 0.0)
