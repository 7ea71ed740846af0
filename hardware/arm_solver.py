"""Choice among the closed form's solutions: branch, arm angle and turn, inside the joint limits.

One pose is solved on floats (:meth:`ArmSolver.nearest`, for control loops), many on arrays
(:meth:`ArmSolver.candidates`). Both use the formulas of :mod:`dexloop.hardware.arm_ik`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from .arm_ik import (
    ARBITRARY,
    SINGULAR,
    TWO_PI,
    ArmLengths,
    Array,
    Swivel,
    limit_roots,
    principal,
    swivel,
    swivel_rates,
    wrapped,
)

Floats = Sequence[float]

# An angle this far outside its range is rounding, not a violation: it is clipped, and the pose is still exact to 1e-9.
LIMIT_SLACK_RAD = 1e-10
# The self-motion keeps away from the ends of the joints' ranges: within this margin the goal posture is moved inwards.
_PULL_MARGIN_RAD = 0.35
_PULL_GAIN = 0.15
# A solution on the near branch that is further than this from the near configuration is compared with the others.
_JUMP_RAD = 0.7
_CAREFUL = 0.12  # sine of joint 2 or 6 below which the arm angle is scanned instead of descended along
_RAVINE = np.concatenate([-np.logspace(-0.3, -6.0, 16), [0.0], np.logspace(-6.0, -0.3, 16)])
_GRID = np.linspace(-math.pi, math.pi, 24, endpoint=False)
_FLIPS = ((False, False), (True, False), (False, True), (True, True))  # (shoulder, wrist)
_ROOT_SIDE_RAD = 1e-9
_SWIVEL_FIELDS = tuple(field.name for field in fields(Swivel))
_TURNING = (0, 2, 4, 6)  # joints whose angle the closed form gives up to whole turns


@dataclass(frozen=True, slots=True)
class Target:
    """A pose within reach as plain floats: the wrist seen from the shoulder, and the flange's x, y, z axes."""

    wrist: tuple[float, float, float]  # m, base frame
    axes: tuple[tuple[float, float, float], ...]  # base frame


class ArmSolver:
    """All solutions of one arm, and the choice among them."""

    def __init__(self, size: ArmLengths, limits: Array) -> None:
        self.size = size
        self.upper = [float(limit) for limit in limits[:, 1]]  # rad, symmetric
        self._limit = np.array(self.upper)

    # -- one pose, floats ------------------------------------------------------------------------------------------

    def nearest(self, target: Target, near: Floats) -> list[float] | None:
        """The solution that a control loop wants next after ``near``; None where no arm angle obeys the limits.

        First the near branch, by descent on the arm angle. Where that breaks a limit or jumps, every branch and
        every feasible interval of arm angles is searched for the solution nearest to ``near``.
        """
        at = self._swivel(target, near[3])
        goal = self._pulled(near)
        psi = _plane_angle(at, near)
        if min(abs(math.sin(near[1])), abs(math.sin(near[5]))) < _CAREFUL:
            settled = self._scan(at, near, goal, psi)
        else:
            settled = self.settled(self._descend(at, near, goal, psi), near)
        if settled is not None and max(abs(a - b) for a, b in zip(settled, near, strict=True)) < _JUMP_RAD:
            return settled
        q, inside, _ = self.candidates(_batch_of_one(target), np.array(near))
        cost = np.where(inside, ((q - near) ** 2).sum(-1), math.inf).ravel()
        best = int(np.argmin(cost))
        if not math.isfinite(cost[best]):
            return settled
        found: list[float] = q.reshape(-1, 7)[best].tolist()
        # From the best grid point to the bottom of its valley.
        at = self._swivel(target, found[3])
        refined = self.settled(self._descend(at, found, goal, _plane_angle(at, found)), near)
        options = [o for o in (settled, refined, found) if o is not None]
        return min(options, key=lambda o: sum((a - b) ** 2 for a, b in zip(o, near, strict=True)))

    def at_arm_angle(self, target: Target, psi: float, near: Floats) -> list[list[float]]:
        """Every solution inside the limits at one arm angle (at most 8), turns nearest to ``near``."""
        found = []
        for elbow in (1.0, -1.0):
            base = principal(math, self._swivel(target, elbow), psi)
            found += [self.settled(_flipped(base, *flip), near) for flip in _FLIPS]
        return [q for q in found if q is not None]

    def nearest_arm_angle(self, target: Target, psi: float, near: Floats) -> list[float] | None:
        """The solution whose arm angle is nearest to ``psi``; None where no arm angle obeys the limits."""
        q, inside, angles = self.candidates(_batch_of_one(target), np.array(near))
        cost = np.where(inside, np.abs(wrapped(angles - psi))[..., None], math.inf)
        # Equally near angles (of several branches) are told apart by the distance to near.
        cost = (cost + 1e-6 * ((q - near) ** 2).sum(-1)).ravel()
        best = int(np.argmin(cost))
        return q.reshape(-1, 7)[best].tolist() if math.isfinite(cost[best]) else None

    def settled(self, q: Floats, near: Floats) -> list[float] | None:
        """``q`` with whole turns and arbitrary splits chosen near ``near``; None where it breaks a limit."""
        out = list(q)
        if abs(math.sin(out[1])) < ARBITRARY:
            self._split(out, 0, 2, 1.0 if abs(out[1]) < 1.0 else -1.0, near)
        if abs(math.sin(out[5])) < ARBITRARY:
            self._split(out, 4, 6, 1.0 if abs(out[5]) < 1.0 else -1.0, near)
        for i in _TURNING:
            out[i] = _turn_inside(out[i], near[i], self.upper[i])
        for i, (angle, limit) in enumerate(zip(out, self.upper, strict=True)):
            if abs(angle) > limit:
                if abs(angle) > limit + LIMIT_SLACK_RAD:
                    return None
                out[i] = math.copysign(limit, angle)
        return out

    def _split(self, q: list[float], first: int, last: int, sign: float, near: Floats) -> None:
        """Two axes in line: only first + sign * last matters. ``first`` stays near, unless ``last`` then cannot."""
        total = q[first] + sign * q[last]
        last_value = _turn_inside(sign * (total - near[first]), near[last], self.upper[last])
        q[last] = max(-self.upper[last], min(self.upper[last], last_value))
        q[first] = total - sign * q[last]

    def _swivel(self, target: Target, elbow: float) -> Swivel:
        return swivel(math, self.size, target.wrist, target.axes, -1.0 if elbow < 0.0 else 1.0)

    def _pulled(self, near: Floats) -> list[float]:
        """``near``, moved inwards where a joint is close to its limit."""
        goal = list(near)
        for i, (angle, limit) in enumerate(zip(near, self.upper, strict=True)):
            inside = _PULL_MARGIN_RAD - (limit - abs(angle))
            if inside > 0.0:
                goal[i] -= math.copysign(_PULL_GAIN * inside * inside / _PULL_MARGIN_RAD, angle)
        return goal

    def _descend(self, at: Swivel, start: Floats, goal: Floats, psi: float) -> list[float]:
        """Gauss-Newton on the arm angle for the least |q - goal|, on the branch that continues ``start``.

        That is the branch whose joints 1 and 5 are within a quarter turn of it: so joints 2 and 6 may change sign.
        """
        q: list[float] = []
        for _ in range(6):
            q = list(principal(math, at, psi))
            if abs(math.remainder(q[0] - start[0], TWO_PI)) > 0.5 * math.pi:
                _flip(q, 0)
            if abs(math.remainder(q[4] - start[4], TWO_PI)) > 0.5 * math.pi:
                _flip(q, 4)
            for i in _TURNING:
                q[i] = start[i] + math.remainder(q[i] - start[i], TWO_PI)
            if min(abs(math.sin(q[1])), abs(math.sin(q[5]))) < SINGULAR:
                break  # the self-motion has no rate there; settled() splits what is arbitrary
            rates = swivel_rates(at, q)
            slope = sum(d * (a - b) for d, a, b in zip(rates, q, goal, strict=True))
            step = -slope / sum(d * d for d in rates)
            if abs(step) < 1e-4:
                break
            psi += max(-0.5, min(0.5, step))
        return q

    def _scan(self, at: Swivel, near: Floats, goal: Floats, psi: float) -> list[float] | None:
        """As :meth:`_descend` for a shoulder or wrist close to its singularity. There the valley to descend is a
        ravine, at an arm angle close to one of those at which the singularity is nearest; those are known."""
        wrist = math.atan2(at.z[1], at.z[0])
        centres = np.array([psi, 0.0, math.pi, wrist, wrist + math.pi])
        exact = [self.settled(_flipped(principal(math, at, c), *flip), near) for c in centres for flip in _FLIPS]
        options = [q for q in exact if q is not None]
        psis = np.sort((centres[:, None] + _RAVINE).ravel())
        for _ in range(3):
            q, inside = self.branches(at, psis, np.array(near))
            cost = np.where(inside, ((q - goal) ** 2).sum(-1), math.inf)
            k, branch = divmod(int(np.argmin(cost)), len(_FLIPS))
            if not math.isfinite(cost[k, branch]):
                break
            options.append(q[k, branch].tolist())
            psis = np.linspace(psis[max(k - 1, 0)], psis[min(k + 1, len(psis) - 1)], 17)
        return min(options, key=lambda o: math.dist(o, goal)) if options else None

    # -- many poses, arrays ----------------------------------------------------------------------------------------

    def branches(self, at: Swivel, psi: Array, near: Array) -> tuple[Array, Array]:
        """Solutions (..., 4, 7) rad of the four shoulder and wrist branches, and whether they are inside (..., 4).

        ``at`` and ``psi`` hold (...) arrays; whole turns are chosen near ``near``, which broadcasts to (..., 7).
        """
        base = np.stack(np.broadcast_arrays(*principal(np, at, psi)), -1)
        q = np.repeat(base[..., None, :], 4, -2)
        near = np.broadcast_to(near, base.shape)[..., None, :]
        for k, (shoulder, wrist) in enumerate(_FLIPS):
            if shoulder:
                q[..., k, :3] = q[..., k, :3] * (1.0, -1.0, 1.0) + (math.pi, 0.0, math.pi)
            if wrist:
                q[..., k, 4:] = q[..., k, 4:] * (1.0, -1.0, 1.0) + (math.pi, 0.0, math.pi)
        turning, about, limit = q[..., ::2], near[..., ::2], self._limit[::2] + LIMIT_SLACK_RAD  # joints 1, 3, 5, 7
        turning[...] = about + np.remainder(turning - about + math.pi, TWO_PI) - math.pi
        turning -= np.where(np.abs(turning) > limit, np.copysign(TWO_PI, turning), 0.0)
        inside = (np.abs(q) <= self._limit + LIMIT_SLACK_RAD).all(-1)
        return np.where(inside[..., None], np.clip(q, -self._limit, self._limit), q), inside

    def candidates(
        self, wrist_and_axes: tuple[tuple[Array, ...], list[tuple[Array, ...]]], near: Array
    ) -> tuple[Array, Array, Array]:
        """Solutions that meet every feasible interval of arm angles: q (N, 2, K, 4, 7), inside (N, 2, K, 4) and the
        arm angles (N, 2, K), for both elbows and all branches.

        Limits are met at the roots of :func:`limit_roots` only, so that the intervals between neighbouring roots are
        feasible as a whole or not at all: their middles, their ends and a grid are tried.
        """
        wrist, axes = wrist_and_axes
        elbow = np.array([1.0, -1.0])
        at = swivel(
            np, self.size, tuple(x[:, None] for x in wrist), [tuple(x[:, None] for x in a) for a in axes], elbow
        )
        roots = np.sort(limit_roots(at, self._limit), -1)  # (N, 2, 20), NaN last
        following = np.roll(roots, -1, -1)
        first = roots[..., :1]
        following = np.where(np.isnan(following), first, following)
        following = np.where(following <= roots, following + TWO_PI, following)
        middles = 0.5 * (roots + following)
        grid = np.broadcast_to(_GRID, (*roots.shape[:-1], len(_GRID)))
        psi = np.concatenate([grid, middles, roots - _ROOT_SIDE_RAD, roots + _ROOT_SIDE_RAD], -1)
        psi = np.where(np.isnan(psi), 0.0, psi)  # the grid's own value once more
        spread = _spread(at)
        near = np.broadcast_to(near, (len(wrist[0]), 7))[:, None, None, :]
        q, inside = self.branches(spread, psi, np.broadcast_to(near, (*psi.shape, 7)))
        return q, inside, psi


def singular(q: Floats) -> bool:
    """Shoulder, elbow or wrist stretched out: a joint's value is arbitrary or ill-conditioned."""
    return min(abs(math.sin(q[i])) for i in (1, 3, 5)) < SINGULAR


def _plane_angle(at: Swivel, q: Floats) -> float:
    """The arm angle at which the axis of joint 4 points as nearly as possible where it does in ``q`` now. Unlike
    the arm angle itself this has no singularity where the shoulder-wrist line is upright."""
    c1, s1, c2, s2, c3, s3 = (f(x) for x in q[:3] for f in (math.cos, math.sin))
    ax, ay, az = -c1 * c2 * s3 - s1 * c3, -s1 * c2 * s3 + c1 * c3, s2 * s3
    cf, sf = math.cos(at.azimuth), math.sin(at.azimuth)
    along_v = at.sin_g * az - at.cos_g * (cf * ax + sf * ay)
    along_u = sf * ax - cf * ay
    return math.atan2(along_v, -along_u)


def _flip(q: list[float], first: int) -> None:
    """To the other shoulder (first = 0) or wrist (4) branch of the same pose."""
    q[first] += math.pi
    q[first + 1] *= -1.0
    q[first + 2] += math.pi


def _flipped(q: Floats, shoulder: bool, wrist: bool) -> list[float]:
    """The same pose on another branch."""
    out = list(q)
    if shoulder:
        _flip(out, 0)
    if wrist:
        _flip(out, 4)
    return out


def _turn_inside(angle: float, near: float, limit: float) -> float:
    """The turn of ``angle`` nearest to ``near``, or the next one where that is past the limit."""
    turned = near + math.remainder(angle - near, TWO_PI)
    if abs(turned) > limit + LIMIT_SLACK_RAD:
        other = turned - math.copysign(TWO_PI, turned)
        return other if abs(other) < abs(turned) else turned
    return turned


def _batch_of_one(target: Target) -> tuple[tuple[Array, ...], list[tuple[Array, ...]]]:
    return tuple(np.array([x]) for x in target.wrist), [tuple(np.array([x]) for x in axis) for axis in target.axes]


def _spread(at: Swivel) -> Swivel:
    """One more axis at the end of every array, for the arm angles."""
    wide: list[Any] = []
    for name in _SWIVEL_FIELDS:
        value = getattr(at, name)
        wide.append(tuple(x[..., None] for x in value) if isinstance(value, tuple) else value[..., None])
    return Swivel(*wide)
