"""An operator's hand to the six openings of the robot's hand.

Each sample of 21 key points goes through: palm axes -> calibration -> optimisation over the openings
(:mod:`.hand_objective`) -> bumpless offset -> follower (:mod:`.filters`). A lost hand holds: the last opening is
repeated for as long as the hand is away, and what comes back is met without a jump.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..hardware.errors import BadInput
from ..hardware.hand_kinematics import HandKinematics
from .calibration import HandCalibration
from .filters import Follower, FollowerConfig
from .hand_objective import HandObjective, HandTarget, ObjectiveConfig, Solution
from .keypoints import N_LANDMARKS, THUMB_TIP, TIPS, in_palm_axes, is_tracked

Array = NDArray[np.float64]

LONG_GAP_S = 0.5  # after a longer pause between samples the follower starts anew instead of integrating through it


@dataclass(frozen=True)
class HandRetargetConfig:
    """How a hand is followed."""

    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    follower: FollowerConfig | None = field(default_factory=FollowerConfig)
    """None = unfiltered."""
    speed_limit_per_s: float | None = None
    """Strokes per second of a motor. None = the hand's own speed: a faster command would only run away from it."""
    pinch_full_m: float = 0.005
    """A pinch counts fully when the operator's tips are nearer than contact + this ..."""
    pinch_far_m: float = 0.025
    """... and not at all when they are farther apart than contact + this."""
    retry_m: float = 0.005
    """A pinch that stays open by more than this is tried again with the thumb elsewhere."""
    catch_up: float = 0.5
    """After a bumpless start: share of the operator's own movement by which the offset shrinks."""
    still: float = 0.004
    """Change of opening per sample below which the operator's hand counts as still."""

    def __post_init__(self) -> None:
        if not 0 <= self.pinch_full_m < self.pinch_far_m:
            raise BadInput(
                f"Pinch distances must rise from full to far, got {self.pinch_full_m} and {self.pinch_far_m}."
            )
        if not 0 < self.catch_up <= 1 or self.still < 0:
            raise BadInput(f"catch_up must lie in (0, 1] and still must not be negative, got {self}.")
        if self.speed_limit_per_s is not None and self.speed_limit_per_s <= 0:
            raise BadInput(f"speed_limit_per_s must be positive, got {self.speed_limit_per_s}.")


@dataclass(frozen=True, slots=True)
class HandResult:
    """What one sample came to."""

    opening: Array  # (6,) command, order HAND_MOTORS
    solved: Array  # (6,) optimum before offset and follower
    tracked: bool  # False: the hand was lost and ``opening`` is held
    following: bool  # False while a bumpless start has not been caught up with
    tip_error_m: float  # mean over the tips, of the optimum; NaN when lost
    iterations: int


class HandRetargeter:
    """Key points in, openings out, one call per sample. Not thread-safe."""

    def __init__(
        self,
        kinematics: HandKinematics | None = None,
        calibration: HandCalibration | None = None,
        config: HandRetargetConfig | None = None,
    ) -> None:
        self.kinematics = kinematics or HandKinematics()
        self.calibration = calibration or HandCalibration()
        self.config = config or HandRetargetConfig()
        self.objective = HandObjective(self.kinematics, self.config.objective)
        hand = self.kinematics.hand
        self._speed_limit = self.config.speed_limit_per_s or 1.0 / hand.stroke_s
        follower = self.config.follower
        self._follower = Follower(replace(follower, speed_limit=self._speed_limit)) if follower else None
        self._grid, self._grid_tips = _posture_grid(self.kinematics)
        self.reset()

    def reset(self, opening: Array | None = None, meet: bool = True) -> None:
        """New episode, from the robot's present ``opening`` (6,), or from the first sample if there is none.

        With ``meet`` the fingers stay until the operator moves (bumpless); without it they go to the operator's
        posture by themselves, at the speed limit: right for a recording, wrong while something is held.
        """
        self._solved: Array | None = None
        self._offset: Array = np.zeros(6)
        self._output = None if opening is None else np.clip(np.asarray(opening, float), 0.0, 1.0)
        self._time_s: float | None = None
        self._meet = meet and opening is not None
        if self._follower:
            self._follower.reset(self._output)

    def release(self) -> None:
        """The operator let go (clutch open): hold, and meet the hand again without a jump at the next sample."""
        self._meet = self._output is not None
        self._time_s = None

    def advance(self, time_s: float) -> Array:
        """The opening (6,) at ``time_s``, with no new sample: the follower goes on. For control faster than samples.

        Raises BadInput before the first sample where no opening is known.
        """
        if self._output is None:
            raise BadInput("The hand was never seen and there is no opening to hold: call reset(opening) first.")
        if self._follower and self._time_s is not None and 0 < time_s - self._time_s <= LONG_GAP_S:
            self._output = np.clip(self._follower.coast(time_s - self._time_s), 0.0, 1.0)
            self._time_s = time_s
        return self._output.copy()

    def hold(self) -> Array | None:
        """The opening that is held, (6,), or None before the first sample."""
        return None if self._output is None else self._output.copy()

    def retarget(self, keypoints_m: Array, time_s: float) -> HandResult:
        """One sample: key points (21, 3) m in any frame, NaN when lost, and its capture time.

        Raises BadInput for another shape, or when the hand was lost before it was ever seen.
        """
        points = np.asarray(keypoints_m, float)
        if points.shape != (N_LANDMARKS, 3):
            raise BadInput(
                f"Hand key points have shape {points.shape}: expected (21, 3), MediaPipe's order, in metres."
            )
        if not is_tracked(points):
            return self._lost()
        target = self.target(points)
        solution = self.objective.solve(target, self._start(target), self._solved)
        if self.objective.unclosed_m(solution.tips_m, target) > self.config.retry_m:
            solution = self._retry(target, solution)
        moved = np.zeros(6) if self._solved is None else solution.opening - self._solved
        self._solved = solution.opening
        opening = self._follow(solution.opening, moved, time_s, target.pinch)
        error_m = float(np.linalg.norm(solution.tips_m - target.tips_m, axis=-1).mean())
        following = bool(np.abs(self._offset).max() < 1e-3)
        return HandResult(opening, solution.opening, True, following, error_m, solution.iterations)

    def target(self, keypoints_m: Array) -> HandTarget:
        """What key points (21, 3) m ask of the robot's hand."""
        palm_axes = in_palm_axes(keypoints_m)
        gaps = np.linalg.norm(palm_axes[TIPS[1:], :] - palm_axes[THUMB_TIP], axis=-1) - self.calibration.contact_m
        full, far = self.config.pinch_full_m, self.config.pinch_far_m
        near = np.clip((far - gaps) / (far - full), 0.0, 1.0)
        scale = float(self.calibration.scale.mean())
        wanted = self.objective.pinch_m + scale * np.maximum(gaps, 0.0)
        return HandTarget(self.calibration.tips_m(palm_axes), wanted, near * near * (3.0 - 2.0 * near))

    def _lost(self) -> HandResult:
        if self._output is None:
            raise BadInput("The hand was never seen and there is no opening to hold: call reset(opening) first.")
        self.release()
        if self._follower:
            self._follower.reset(self._output)
        return HandResult(self._output.copy(), self._output.copy(), False, False, float("nan"), 0)

    def _start(self, target: HandTarget) -> Array:
        """Warm start; at the first sample the nearest of a coarse grid, finger by finger."""
        if self._solved is not None and self._time_s is not None:
            return self._solved
        error = np.linalg.norm(self._grid_tips - target.tips_m, axis=-1)  # (G, 5)
        best = self._grid[error.argmin(axis=0), :]  # (5, 6): row f is right for finger f only
        return np.array([best[0, 0], best[1, 1], best[2, 2], best[3, 3], best[4, 4], best[0, 5]])

    def _retry(self, target: HandTarget, found: Solution) -> Solution:
        """A better solution with the thumb started elsewhere, or ``found``.

        The thumb can stand on the wrong side of a finger: from there no small step closes a pinch.
        """
        thumb = self._grid_tips[:, 0]  # (G, 3)
        excess = np.linalg.norm(found.tips_m[1:] - thumb[:, None], axis=-1) - target.gaps_m  # (G, 4)
        weights = self.objective.config
        cost = (weights.tip_weight**2) * np.sum((thumb - target.tips_m[0]) ** 2, axis=-1)
        cost += np.sum((weights.pinch_weight * target.pinch * excess) ** 2, axis=-1)
        start = found.opening.copy()
        start[[0, 5]] = self._grid[cost.argmin()][[0, 5]]
        last = found.opening if self._solved is None else self._solved
        other = self.objective.solve(target, start, last)
        return other if other.cost < 0.9 * found.cost else found

    def _follow(self, solved: Array, moved: Array, time_s: float, pinch: Array) -> Array:
        """Bumpless offset, then follower or plain speed limit."""
        dt_s = 0.0 if self._time_s is None else time_s - self._time_s
        self._time_s = time_s
        if self._meet and self._output is not None:
            self._offset = self._output - solved
            self._meet = False
            if self._follower:
                self._follower.reset(self._output)
            return self._output.copy()
        motion = np.where(np.abs(moved) > self.config.still, np.abs(moved), 0.0)
        shrink = np.minimum(np.abs(self._offset), self.config.catch_up * motion)
        self._offset = self._offset - np.sign(self._offset) * shrink
        wanted = np.clip(solved + self._offset, 0.0, 1.0)
        if self._output is None:
            self._output = wanted
            if self._follower:
                self._follower.reset(wanted)
        elif self._follower and dt_s <= LONG_GAP_S:
            closing = pinch.max()
            urgency = np.array([closing, *pinch, closing])  # order HAND_MOTORS: the thumb takes part in every pinch
            self._output = np.clip(self._follower(wanted, dt_s, urgency), 0.0, 1.0)
        else:
            step = self._speed_limit * min(max(dt_s, 0.0), LONG_GAP_S)
            self._output = self._output + np.clip(wanted - self._output, -step, step)
            if self._follower:
                self._follower.reset(self._output)
        return self._output.copy()


def _posture_grid(kinematics: HandKinematics) -> tuple[Array, Array]:
    """Openings (G, 6) that sweep all fingers together and the thumb over both motors, and their tips (G, 5, 3)."""
    bend, rotation = np.meshgrid(np.linspace(0, 1, 8), np.linspace(0, 1, 16), indexing="ij")
    sweep = np.linspace(0, 1, bend.size)
    grid = np.stack([bend.ravel(), sweep, sweep, sweep, sweep, rotation.ravel()], -1)
    return grid, kinematics.tips(grid)
