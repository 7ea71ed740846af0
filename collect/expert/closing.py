"""Closing the hand by feel: all digits arrive at the object together, creep until they feel it, and then squeeze.

The motors are weak where a finger is stretched and strong where it is bent, and a light object gives way before they
feel anything. So no digit runs ahead: the preview says where each should touch, they travel there in the same time, and
none ever closes much further than that: a hand that has closed on nothing stays a hand that can be opened.
"""

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

    speed_per_s: float = 0.8  # openings per second on the way to the object; the full stroke takes 1 s
    creep_per_s: float = 0.4  # from there on, until the object is felt
    touch_n: float = 2.5  # motor force, referred to the fingertip, that counts as touch
    past_finger: float = 0.32  # openings a finger may close beyond the expected touch
    past_thumb: float = 0.30
    squeeze: float = 0.12  # commanded past the actual opening: enough for the motor's full force
    creep_s: float = 1.2  # at most
    squeeze_s: float = 0.35


class HandCloser:
    """One closing. Call :meth:`step` every tick until ``done``, then :meth:`hold` while lifting."""

    def __init__(self, grasp: Grasp, config: ClosingConfig, period_s: float) -> None:
        self._config = config
        self._period_s = period_s
        self._waits = grasp.thumb_waits
        self._start = grasp.preshape.copy()
        self._command = grasp.preshape.copy()
        self._expected = _expected(grasp)
        past = np.full(5, config.past_finger)
        past[0] = config.past_thumb
        self._floor = np.maximum(self._expected - past, 0.0)
        travel = self._start[:5] - self._expected
        if self._waits:
            travel[0] = 0.0
        self._travel = np.maximum(travel, 0.0)
        self._reach_s = max(float(self._travel.max()) / config.speed_per_s, period_s)
        self._touched = np.zeros(5, bool)
        self._elapsed_s = 0.0
        self._squeezed_s = 0.0
        self.done = False

    def step(self, hand: HandState) -> Array:
        """Openings (6,) for this tick."""
        config = self._config
        self._elapsed_s += self._period_s
        share = self._elapsed_s / self._reach_s
        if share <= 1.0:
            self._command[:5] = self._start[:5] - share * self._travel
            return self._command.copy()
        self._touched |= hand.force[:5] > config.touch_n
        fingers = int(self._touched[1:].sum())
        gripped = fingers >= 3 and (self._touched[0] or self._waits)
        ended = self._elapsed_s > self._reach_s + config.creep_s or bool(self._touched.all())
        if self._squeezed_s > 0 or gripped or ended:
            self._squeezed_s += self._period_s
            self._squeeze(hand)
            self.done = self._squeezed_s > config.squeeze_s
        else:
            moving = ~self._touched
            moving[0] &= not self._waits or fingers >= 2
            step = config.creep_per_s * self._period_s
            self._command[:5][moving] = np.maximum(self._command[:5][moving] - step, self._floor[moving])
        return self._command.copy()

    def hold(self, hand: HandState) -> Array:
        """Openings (6,) while the object is carried: the squeeze, following a digit that gives way inwards."""
        self._squeeze(hand)
        return self._command.copy()

    def _squeeze(self, hand: HandState) -> None:
        goal = np.maximum(hand.opening[:5] - self._config.squeeze, self._floor)
        self._command[:5] = np.clip(goal, 0.0, 1.0)


def _expected(grasp: Grasp) -> Array:
    """Openings (5,) at which the digits should touch. One that the preview closed on nothing goes with its fellows."""
    contact = grasp.contact.copy()
    known = contact[1:][contact[1:] > 0.0]
    contact[1:] = np.where(contact[1:] > 0.0, contact[1:], np.median(known) if len(known) else 0.5)
    if contact[0] == 0.0:
        contact[0] = max(grasp.preshape[0] - 0.2, 0.0)
    return np.minimum(contact, grasp.preshape[:5])
