"""Which grasps the arm can carry out: joint paths for coming in, lifting, and going to the bin."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...hardware.collision import CollisionModel
from ...hardware.description import RETURN_ARM_Q, START_ARM_Q, RigDescription
from ...hardware.geometry import Transform, interpolate, pose_error
from ...hardware.palm import PalmArm
from .grasps import Grasp
from .preview import HandPreview

Array = NDArray[np.float64]

NOTHING = np.empty((0, 3))
HAND_LENGTH_M = 0.24  # palm's origin to fingertip, with a margin
WRIST_LENGTH_M, WRIST_RADIUS_M = 0.22, 0.06  # the arm's last link with the camera, behind the palm


@dataclass(frozen=True)
class ReachConfig:
    """Distances of a grasp's straight parts."""

    retreat_m: float = 0.10  # pregrasp to grasp, along the approach
    lift_m: float = 0.14
    overhead_m: tuple[float, ...] = (0.22, 0.10, 0.0)  # how far above the pregrasp the hand arrives, best first
    step_m: float = 0.012  # between inverse kinematics solutions along a straight line
    largest_step_rad: float = 0.25  # of any joint between two of them: more is a jump, not a motion
    limit_margin_rad: float = 0.03
    # Kept from the robot itself, and from table, bin and column: a little more than SafeRobot asks for.
    obstacle_margin_m: float = 0.004
    self_margin_m: float = 0.014
    table_margin_m: float = 0.012


@dataclass(frozen=True)
class ReachPlan:
    """A grasp with the arm's way through it."""

    grasp: Grasp
    entry: Array  # (K, 7) rad, from where the arm was, over the neighbours, down to the pregrasp
    approach: Array  # (K, 7) rad, pregrasp to grasp
    lift: Array  # (K, 7) rad, grasp to lifted
    margin_rad: float  # smallest distance of a joint to its limit on the way
    lift_length_m: float


class Reach:
    """Inverse kinematics of whole grasps on one arm of a rig."""

    def __init__(self, rig: RigDescription, config: ReachConfig = ReachConfig()) -> None:
        mount = rig.arms[0]
        self._config = config
        self._arm = PalmArm(mount)
        self.kinematics = self._arm.kinematics
        self._collision = CollisionModel(rig)
        self._preview = HandPreview(mount.hand)

    def with_config(self, config: ReachConfig) -> Reach:
        """The same arm with other distances; nothing is built anew."""
        other = copy.copy(self)
        other._config = config
        return other

    def palm(self, q: Array) -> Transform:
        """world_T_palm of arm angles (..., 7) rad."""
        return self._arm.palm(q)

    def solve(self, world_T_palm: Transform, q_near: Array) -> Array | None:
        """Arm angles (7,) rad that put the palm there, near ``q_near``; None where the arm cannot."""
        return self._arm.solve(world_T_palm, q_near, self._config.limit_margin_rad)

    def roughly(self, world_T_palm: Transform) -> bool:
        """Whether the arm gets the palm there at all, from its start posture."""
        return self.solve(world_T_palm, np.array(START_ARM_Q)) is not None

    def line(self, start: Transform, end: Transform, q_near: Array) -> Array | None:
        """Joint waypoints (K, 7) rad of a straight palm motion, the first near ``q_near``; None where it breaks."""
        distance, turn = pose_error(start, end)
        count = max(2, 1 + int(np.ceil(max(distance / self._config.step_m, turn / 0.1))))
        waypoints: list[Array] = []
        for t in np.linspace(0, 1, count):
            q = self.solve(interpolate(start, end, float(t)), q_near)
            if q is None or (waypoints and np.abs(q - q_near).max() > self._config.largest_step_rad):
                return None
            waypoints.append(q)
            q_near = q
        return np.array(waypoints)

    def plan(self, grasp: Grasp, q_now: Array, obstacles: Array = NOTHING) -> ReachPlan | None:
        """The arm's way through ``grasp``; None where it has none. Tried from where the arm is and from its start.

        ``obstacles`` (N, 3) m are points of everything on the table, the target too: nothing may be swept away.
        """
        pregrasp = grasp.world_T_palm.copy()
        pregrasp[:3, 3] -= self._config.retreat_m * grasp.approach
        lifted = grasp.world_T_palm.copy()
        lifted[2, 3] += self._config.lift_m
        start = np.array(START_ARM_Q)
        for near in (q_now, start) if np.abs(q_now - start).max() > 0.05 else (q_now,):
            approach = self.line(pregrasp, grasp.world_T_palm, near)
            if approach is None or not self.clear(approach[[-1]], grasp.preshape):
                continue
            lift = self.line(grasp.world_T_palm, lifted, approach[-1])
            if lift is None or not self.clear(lift[[-1]], grasp.preshape):
                continue
            entry = self._enter(q_now, pregrasp, approach[0], grasp.preshape, obstacles)
            if entry is None:
                continue
            margin = self._arm.margin(np.concatenate([approach, lift]))
            return ReachPlan(grasp, entry, approach, lift, margin, self._config.lift_m)
        return None

    def transit(self, q_now: Array, goal: Array, hand: Array, obstacles: Array = NOTHING) -> Array | None:
        """Joint waypoints from ``q_now`` into the path ``goal`` (K, 7) that keep clear, by way of a known posture if
        need be; None where there are none."""
        for via in ([], [START_ARM_Q], [RETURN_ARM_Q]):
            way = np.concatenate([q_now[None], *[np.array(q)[None] for q in via], goal])
            dense = densely(way[: 2 + len(via)])
            # What is near already when the motion begins (after a failed attempt) cannot be helped.
            if self.clear(dense, hand) and not self.sweeps(densely(way[:-1])[2:], hand, obstacles):
                return way
        return None

    def clear(self, q: Array, hand: Array) -> bool:
        """Whether the arm keeps its distance from itself and the surroundings all along ``q`` (K, 7)."""
        for row in q:
            found = self._collision.distances(row, hand)
            if found.self_m < self._config.self_margin_m or found.table_m < self._config.table_margin_m:
                return False
        return True

    def _enter(self, q_now: Array, pregrasp: Transform, q: Array, hand: Array, obstacles: Array) -> Array | None:
        """From ``q_now`` to above the pregrasp, as high as the arm can, and down to it (``q``)."""
        for height_m in self._config.overhead_m:
            over = pregrasp.copy()
            over[2, 3] += height_m
            line = self.line(pregrasp, over, q)
            if line is None:
                continue
            way = self.transit(q_now, line[::-1], hand, obstacles)
            if way is not None:
                return way
        return None

    def sweeps(self, q: Array, hand: Array, obstacles: Array) -> bool:
        """Whether hand or wrist come too near ``obstacles`` (N, 3) m somewhere along ``q`` (K, 7)."""
        if not len(obstacles):
            return False
        palm = self.palm(q)  # (K, 4, 4)
        palm = palm[palm[:, 2, 3] < obstacles[:, 2].max() + HAND_LENGTH_M]  # the others are above everything
        if not len(palm):
            return False
        local = (obstacles[None] - palm[:, None, :3, 3]) @ palm[:, :3, :3]
        wrist = np.linalg.norm(local[..., 1:], axis=-1)
        behind = (local[..., 0] < 0.0) & (local[..., 0] > -WRIST_LENGTH_M)
        if (behind & (wrist < WRIST_RADIUS_M)).any():
            return True
        return bool((self._preview.clearance(hand, local) < self._config.obstacle_margin_m).any())


def densely(waypoints: Array, step_rad: float = 0.15) -> Array:
    """Joint-space polyline (K, 7) with no step of any joint above ``step_rad``, the ends included."""
    rows = [waypoints[:1]]
    for a, b in zip(waypoints[:-1], waypoints[1:], strict=True):
        count = max(1, int(np.ceil(np.abs(b - a).max() / step_rad)))
        rows.append(a + (b - a) * np.arange(1, count + 1)[:, None] / count)
    return np.concatenate(rows)
