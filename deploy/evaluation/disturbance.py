"""Somebody moves the target while the hand reaches for it: does the loop follow?

The hand of that person is not drawn: the object slides 5 to 8 cm over the table within half a second, as if pushed from
where no camera sees it. It never slides into another object, nor off the area in which objects may stand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...hardware.clock import NS
from ...hardware.errors import BadInput
from ...hardware.geometry import apply
from ...hardware.palm import PalmArm
from ...hardware.rig import DEXGRASPVLA_RIG
from ...hardware.twin.objects.grasp_info import hull_points
from ...hardware.twin.scene_spec import SceneSpec
from ...hardware.twin.world import TwinWorld
from ...hardware.values import ArmState, HandState
from ..eyes import Sight

Array = NDArray[np.float64]
ARM_DOF = 7


@dataclass(frozen=True)
class DisturbanceConfig:
    """When the target is moved, how far and how fast."""

    near_m: float = 0.25
    """It is moved when the open palm has come so near to where it stood ..."""
    after_s: float = 4.0
    """... or so long after the attempt began, whichever is first."""
    distance_m: tuple[float, float] = (0.05, 0.08)
    seconds: float = 0.5
    open: float = 0.8
    """The hand is open while its fingers' mean opening is above this."""
    gap_m: float = 0.008
    """To every other object, on the whole way."""
    palm_m: float = 0.08
    """From the palm, across the table, where the way ends: nobody puts a thing into the hand."""

    def __post_init__(self) -> None:
        low, high = self.distance_m
        if not 0 < low <= high or min(self.near_m, self.after_s, self.seconds) <= 0:
            raise BadInput(
                f"the disturbance goes {low} to {high} m in {self.seconds} s, from {self.near_m} m or after "
                f"{self.after_s} s: expected numbers above 0, the nearer distance first."
            )


class Disturbance:
    """Moves object ``target`` of a stepped world once. ``watch`` each tick's sight; subscribe the object itself to the
    robot's readings, between which physics stand still."""

    def __init__(
        self, world: TwinWorld, scene: SceneSpec, seed: int, config: DisturbanceConfig = DisturbanceConfig()
    ) -> None:
        if world.config.mode != "stepped":
            raise BadInput("the target can be moved in simulated time only: expected TwinConfig(mode='stepped').")
        self._world, self._scene, self._target, self._config = world, scene, scene.target, config
        self._rng = np.random.default_rng([seed, 40_404])
        self._hulls = [hull_points(placed.object) for placed in scene.objects]
        self._begun_ns: int | None = None  # of the attempt
        self._from: Array | None = None  # world_T_object when the way began
        self._way: Array = np.zeros(3)
        self._moving_ns: int | None = None  # when the way began
        self._over = False
        self.moved_m = 0.0  # how far it was moved, or is to be

    def watch(self, sight: Sight) -> None:
        """Begin the way when it is time. Only in the first attempt: a hand that has closed ends the waiting."""
        now_ns, config, state = self._world.now_ns, self._config, sight.look.state
        if self._over or self._moving_ns is not None:
            return
        if float(np.mean(state[ARM_DOF + 1 : ARM_DOF + 5])) < config.open:
            self._over = True
            return
        self._begun_ns = now_ns if self._begun_ns is None else self._begun_ns
        palm = _palm_m(state)
        near = float(np.linalg.norm(palm - self._now_m())) < config.near_m
        if not near and now_ns - self._begun_ns < config.after_s * NS:
            return
        way = self._choose(palm)
        if way is None or self._world.hand_contacts(self._target):
            self._over = True
            return
        self._from, self._way, self._moving_ns = self._world.object_pose(self._target), way, now_ns
        self.moved_m = float(np.linalg.norm(way))

    def __call__(self, reading: ArmState | HandState) -> None:
        """A step on the way: slow, fast, slow (minimum jerk), without a turn."""
        if self._over or self._moving_ns is None or self._from is None:
            return
        share = min((self._world.now_ns - self._moving_ns) / (self._config.seconds * NS), 1.0)
        if self._world.hand_contacts(self._target):  # the robot was quicker: people do not pull a thing from a hand
            self._over, self.moved_m = True, float(np.linalg.norm(self._now_m() - self._from[:3, 3]))
            return
        pose = self._from.copy()
        pose[:3, 3] += (10 * share**3 - 15 * share**4 + 6 * share**5) * self._way
        self._world.set_object_pose(self._target, pose)
        self._over = share >= 1.0

    def _now_m(self) -> Array:
        return np.asarray(self._world.object_pose(self._target)[:3, 3])

    def _choose(self, palm: Array) -> Array | None:
        """(3,) m, a free way over the table; None where there is none among 200."""
        feet = [apply(self._world.object_pose(index), hull)[:, :2] for index, hull in enumerate(self._hulls)]
        mine, others = feet[self._target], [foot for k, foot in enumerate(feet) if k != self._target]
        x0, x1, y0, y1 = self._world.rig.object_area_m
        start = [gap(mine, other) for other in others]
        for _ in range(200):
            angle, length = self._rng.uniform(-np.pi, np.pi), self._rng.uniform(*self._config.distance_m)
            step = length * np.array([np.cos(angle), np.sin(angle)])
            end = mine + step
            if (end.min(0) < (x0, y0)).any() or (end.max(0) > (x1, y1)).any():
                continue
            if np.linalg.norm(end.mean(0) - palm[:2]) < self._config.palm_m:
                continue
            if all(
                gap(mine + part * step, other) >= min(self._config.gap_m, before)
                for other, before in zip(others, start, strict=True)
                for part in (0.25, 0.5, 0.75, 1.0)
            ):
                return np.array([*step, 0.0])
        return None


_ANGLES = np.linspace(0, 2 * np.pi, 48, endpoint=False)
_DIRECTIONS = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)])  # (2, 48)


def gap(a: Array, b: Array) -> float:
    """Distance of the convex hulls of two sets of points (N, 2), at most 0.2 % too small (48 directions); negative
    where they overlap."""
    return float(((b @ _DIRECTIONS).min(0) - (a @ _DIRECTIONS).max(0)).max())


def _palm_m(state: NDArray[np.floating]) -> Array:
    """(3,) world position of the palm of a (13,) state."""
    return np.asarray(_ARM.palm(np.asarray(state[:ARM_DOF], float))[:3, 3])


_ARM = PalmArm(DEXGRASPVLA_RIG.arms[0])
