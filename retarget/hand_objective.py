"""What a robot hand posture costs against an operator's hand, and the solver that makes it small.

Variables: the six openings u in [0, 1]^6, so that every joint moves as the coupled hand moves. Residuals, each divided
by ``UNIT_M`` and weighted:

- tips: wrist-to-tip vector of each finger against the operator's (calibrated);
- pinch: distance of each fingertip to the thumb tip, against the operator's, with a weight that rises as the
  operator's gap closes (the idea of DexPilot, Handa et al. 2020, eq. 3, here smooth instead of switched);
- clearance: one-sided, thumb phalanges against finger phalanges as capsules;
- step: distance to the posture of the last sample, which settles what the rest leaves open.

Solved by a box-constrained Levenberg-Marquardt method with analytic Jacobians and a warm start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..hardware.errors import BadInput
from ..hardware.hand_kinematics import HandKinematics
from .keypoints import THUMB_TIP, TIPS

Array = NDArray[np.float64]

UNIT_M = 0.01  # residuals are in cm: weights then compare with 1 per cm of one tip
N_MOTORS = 6
FINGER_TIPS = np.array(TIPS[1:])
TIP_ROWS = np.array(TIPS)
# Segments (from, to) by landmark. Distal phalanges are straight: PIP to tip, and thumb IP to tip.
THUMB_SEGMENTS = np.array([[2, 3], [3, 4]])
FINGER_SEGMENTS = np.array([[5, 6], [6, 8], [9, 10], [10, 12], [13, 14], [14, 16], [17, 18], [18, 20]])
_EYE = np.eye(N_MOTORS)
_NO_DEPTH, _NO_JACOBIAN = np.empty(0), np.empty((0, N_MOTORS))


@dataclass(frozen=True)
class ObjectiveConfig:
    """Weights of the objective and limits of the solver."""

    tip_weight: float = 1.0
    """Weight of one tip's position."""
    pinch_weight: float = 5.0
    """Weight of a closed pinch; 0 leaves the pinch to the tips."""
    clearance_weight: float = 10.0
    """Weight of thumb and fingers passing through each other."""
    step_weight: float = 0.3
    """Weight of a change of one full stroke from the last sample."""
    overlap_m: float = 0.002
    """Overlap of two phalanges' capsules that soft pads allow."""
    press_m: float = 0.008
    """How far the tips of a closed pinch are asked to go into each other: a position-controlled hand presses only
    with what its target lies inside of the contact."""
    max_iterations: int = 12
    tolerance: float = 2e-4
    """The solver stops when no opening changes by more than this ..."""
    cost_tolerance: float = 1e-3
    """... or when a step gains less than this share of the cost."""

    def __post_init__(self) -> None:
        if min(self.tip_weight, self.pinch_weight, self.clearance_weight, self.step_weight) < 0:
            raise BadInput(f"Weights of hand retargeting must not be negative, got {self}.")
        if self.max_iterations < 1 or min(self.tolerance, self.cost_tolerance) <= 0:
            raise BadInput(f"Hand retargeting needs max_iterations >= 1 and tolerances > 0, got {self}.")


@dataclass(frozen=True, slots=True)
class HandTarget:
    """What the operator's hand asks of the robot's, in the palm frame."""

    tips_m: Array  # (5, 3) order FINGERS
    gaps_m: Array  # (4,) wanted distance of index..little tip to the thumb tip
    pinch: Array  # (4,) 0..1: how much that distance matters


class Evaluation(NamedTuple):
    """The objective at one opening."""

    cost: float
    gradient: Array  # (6,)
    hessian: Array  # (6, 6)
    tips_m: Array  # (5, 3)


@dataclass(frozen=True, slots=True)
class Solution:
    """A posture and how the solver came to it."""

    opening: Array  # (6,)
    cost: float
    iterations: int
    tips_m: Array  # (5, 3)


class HandObjective:
    """The cost of an opening, its residuals' Jacobian, and the solver."""

    def __init__(self, kinematics: HandKinematics, config: ObjectiveConfig | None = None) -> None:
        self.kinematics = kinematics
        self.config = config or ObjectiveConfig()
        hand = kinematics.hand
        self._width_m = hand.phalanx_width_mm * 1e-3
        # Middles of two phalanges that are farther apart than this cannot touch.
        thumb = max(hand.thumb.proximal_mm, hand.thumb.distal_mm)
        finger = max(max(f.proximal_mm, f.distal_mm) for f in hand.fingers)
        self._reach_m = 0.5e-3 * (thumb + finger) + self._width_m

    @property
    def pinch_m(self) -> float:
        """Distance of two fingertips' centre lines that a closed pinch asks for."""
        return self._width_m - self.config.press_m

    def evaluate(self, opening: Array, target: HandTarget, last: Array) -> Evaluation:
        """Cost, gradient and Gauss-Newton Hessian at ``opening`` (6,); ``last`` (6,): the posture before.

        The pinch terms carry their exact positive curvature: a distance has no linear residual, and without it the
        steps of two tips that close on each other overshoot.
        """
        config = self.config
        points, jacobian = self.kinematics.keypoints_and_jacobian(opening)  # (21, 3), (21, 3, 6)
        tips = jacobian[TIP_ROWS].reshape(15, N_MOTORS)
        misfit = (points[TIP_ROWS] - target.tips_m).reshape(15)
        weight = (config.tip_weight / UNIT_M) ** 2
        moved = opening - last
        cost = weight * float(misfit @ misfit) + config.step_weight**2 * float(moved @ moved)
        gradient = weight * (misfit @ tips) + config.step_weight**2 * moved
        hessian = weight * (tips.T @ tips) + config.step_weight**2 * _EYE
        if config.pinch_weight:
            for finger in np.flatnonzero(target.pinch):
                more = self._pinch(points, jacobian, int(finger), target)
                cost, gradient, hessian = cost + more[0], gradient + more[1], hessian + more[2]
        if config.clearance_weight:
            depth, depth_j = self._overlap(points, jacobian, target.pinch)
            if len(depth):
                weight = (config.clearance_weight / UNIT_M) ** 2
                cost += weight * float(depth @ depth)
                gradient = gradient + weight * (depth @ depth_j)
                hessian = hessian + weight * (depth_j.T @ depth_j)
        return Evaluation(0.5 * cost, gradient, hessian, points[TIP_ROWS])

    def solve(self, target: HandTarget, start: Array, last: Array | None = None) -> Solution:
        """Least cost near ``start`` (6,); ``last`` is what the step term refers to (default: ``start``)."""
        last = start if last is None else last
        config = self.config
        opening = np.clip(start, 0.0, 1.0)
        here = self.evaluate(opening, target, last)
        damping, growth, iterations = 1e-3, 4.0, 0
        while iterations < config.max_iterations:
            iterations += 1
            step = _bounded_step(opening, here.gradient, here.hessian, damping)
            trial = np.clip(opening + step, 0.0, 1.0)
            step = trial - opening
            if np.abs(step).max() < config.tolerance:
                break
            there = self.evaluate(trial, target, last)
            promised = -float(here.gradient @ step) - 0.5 * float(step @ here.hessian @ step)
            gained = here.cost - there.cost
            if gained <= 0:
                damping, growth = damping * growth, growth * 2.0
                continue
            # Nielsen's damping: trust grows with the share of the promise that was kept.
            ratio = gained / promised if promised > 0 else 0.0
            damping = max(damping * max(0.1, 1.0 - (2.0 * ratio - 1.0) ** 3), 1e-4)
            growth = 4.0
            opening, here = trial, there
            if gained < config.cost_tolerance * here.cost:
                break
        return Solution(opening, here.cost, iterations, here.tips_m)

    def unclosed_m(self, tips: Array, target: HandTarget) -> float:
        """How far the worst of the wanted pinches is from being closed as asked, with tips (5, 3); 0 without one."""
        excess = np.linalg.norm(tips[1:] - tips[0], axis=-1) - target.gaps_m
        return float(max((excess * target.pinch).max(), 0.0))

    def _pinch(self, points: Array, jacobian: Array, finger: int, target: HandTarget) -> tuple[float, Array, Array]:
        """Cost, gradient and Hessian of one finger's distance to the thumb tip."""
        row = FINGER_TIPS[finger]
        gap = points[row] - points[THUMB_TIP]
        length = float(np.sqrt(gap @ gap)) + 1e-9
        moves = jacobian[row] - jacobian[THUMB_TIP]  # (3, 6)
        along = (gap / length) @ moves  # (6,)
        excess = length - target.gaps_m[finger]
        weight = (self.config.pinch_weight / UNIT_M * target.pinch[finger]) ** 2
        bend = max(excess / length, 0.0)
        hessian = bend * (moves.T @ moves) + (1.0 - bend) * np.outer(along, along)
        return float(weight * excess * excess), weight * excess * along, weight * hessian

    def _near(self, points: Array) -> bool:
        """Whether any thumb phalanx can touch any finger phalanx, by the distance of their middles."""
        a = points[THUMB_SEGMENTS].sum(axis=1)
        b = points[FINGER_SEGMENTS].sum(axis=1)
        between = 0.5 * (a[:, None] - b)  # (2, 8, 3)
        return bool((np.einsum("abi,abi->ab", between, between) < self._reach_m**2).any())

    def _overlap(self, points: Array, jacobian: Array, pinch: Array) -> tuple[Array, Array]:
        """Overlap depth (m,) and its Jacobian (m, 6) of the thumb-finger pairs nearer than allowed."""
        if not self._near(points):
            return _NO_DEPTH, _NO_JACOBIAN
        a, b = points[THUMB_SEGMENTS], points[FINGER_SEGMENTS]  # (2, 2, 3), (8, 2, 3)
        allowed = np.full((2, 8), self._width_m - self.config.overlap_m)
        allowed[1, 1::2] -= pinch * (allowed[1, 1::2] - self.pinch_m)  # tips that pinch press on each other
        s, t = nearest_on_segments(a[:, None], b[None])  # (2, 8)
        on_a = a[:, None, 0] + s[..., None] * (a[:, 1] - a[:, 0])[:, None]
        on_b = b[None, :, 0] + t[..., None] * (b[:, 1] - b[:, 0])[None]
        apart = on_a - on_b
        distance = np.sqrt(np.einsum("abi,abi->ab", apart, apart))
        i, k = np.nonzero(distance < allowed)
        if not len(i):
            return _NO_DEPTH, _NO_JACOBIAN
        # The nearest points slide along their segments, but at the minimum that changes nothing to first order.
        normal = apart[i, k] / (distance[i, k, None] + 1e-12)
        sa, tb = s[i, k, None, None], t[i, k, None, None]
        ja = (1 - sa) * jacobian[THUMB_SEGMENTS[i, 0]] + sa * jacobian[THUMB_SEGMENTS[i, 1]]
        jb = (1 - tb) * jacobian[FINGER_SEGMENTS[k, 0]] + tb * jacobian[FINGER_SEGMENTS[k, 1]]
        return allowed[i, k] - distance[i, k], -np.einsum("ni,nij->nj", normal, ja - jb)


def _bounded_step(opening: Array, gradient: Array, hessian: Array, damping: float) -> Array:
    """Damped Gauss-Newton step over the openings that are not pushed against their stops."""
    held = ((opening <= 0.0) & (gradient > 0)) | ((opening >= 1.0) & (gradient < 0))
    damped = hessian + np.diag(damping * (np.diagonal(hessian) + 1e-6))
    right = -gradient
    if held.any():
        damped[held, :] = 0.0
        damped[:, held] = 0.0
        damped[held, held] = 1.0
        right[held] = 0.0
    step: Array = np.linalg.solve(damped, right).astype(np.float64, copy=False)
    return step


def nearest_on_segments(a: Array, b: Array) -> tuple[Array, Array]:
    """Parameters (s, t) in [0, 1] of the nearest points of segments a and b (..., 2, 3), broadcast together.

    Ericson, Real-Time Collision Detection (2005), section 5.1.9.
    """
    d1, d2 = a[..., 1, :] - a[..., 0, :], b[..., 1, :] - b[..., 0, :]
    r = a[..., 0, :] - b[..., 0, :]
    aa, ee, f = np.sum(d1 * d1, -1), np.sum(d2 * d2, -1), np.sum(d2 * r, -1)
    c, bb = np.sum(d1 * r, -1), np.sum(d1 * d2, -1)
    denominator = aa * ee - bb * bb
    with np.errstate(divide="ignore", invalid="ignore"):
        s = np.where(denominator > 1e-14, np.clip((bb * f - c * ee) / denominator, 0.0, 1.0), 0.0)
        t = np.where(ee > 0, (bb * s + f) / ee, 0.0)
        low, high = t < 0, t > 1
        s = np.where(low, np.clip(-c / aa, 0.0, 1.0), np.where(high, np.clip((bb - c) / aa, 0.0, 1.0), s))
    return np.where(aa > 0, s, 0.0), np.clip(t, 0.0, 1.0)


def phalanx_distances_m(points: Array) -> Array:
    """Distance (..., 2, 8) of the centre lines of thumb and finger phalanges, for key points (..., 21, 3)."""
    a = points[..., THUMB_SEGMENTS, :][..., :, None, :, :]  # (..., 2, 1, 2, 3)
    b = points[..., FINGER_SEGMENTS, :][..., None, :, :, :]  # (..., 1, 8, 2, 3)
    s, t = nearest_on_segments(a, b)
    on_a = a[..., 0, :] + s[..., None] * (a[..., 1, :] - a[..., 0, :])
    on_b = b[..., 0, :] + t[..., None] * (b[..., 1, :] - b[..., 0, :])
    return np.asarray(np.linalg.norm(on_a - on_b, axis=-1))
