"""Trying a grasp in the mind's eye: the same attempt on a private copy of the scene, before the robot does it.

The copy has no cameras, the coarser of the two validated time steps, and starts from the objects' poses of this
moment with the arm at the pregrasp. It gets its own noise, so a grasp that only works to the millimetre fails here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...hardware.clock import NS
from ...hardware.values import Command
from .attempt import Manner, Posture, attempt
from .motion import SmoothNoise
from .reach import ReachPlan

if TYPE_CHECKING:
    from ...hardware.twin.world import TwinWorld

Array = NDArray[np.float64]

TIMESTEP_S = 0.004
OUT_OF_THE_WAY_M = -20.0
HELD_S = 0.4  # at the top, before it is looked at


class Rehearsal:
    """A private copy of ``world``'s scene, made on first use. ``within_m``: objects that are farther from the target
    than this are left out, which is quicker; None: all are there."""

    def __init__(self, world: TwinWorld, within_m: float | None = None) -> None:
        self._world = world
        self._within_m = within_m
        self._copy: TwinWorld | None = None
        self._scene: object = None

    def lifts(self, plan: ReachPlan, manner: Manner, target: int, noise: SmoothNoise, scale: Array) -> float:
        """How far (m) the attempt raises object ``target``, with ``noise`` times ``scale`` (13,) on its commands."""
        import mujoco

        try:
            return self._lifts(self._ready(), plan, manner, target, noise, scale)
        except mujoco.FatalError:
            # The hand begins in the midst of things: more contacts than the copy has room for. No way to grasp.
            self.close()
            return 0.0

    def _lifts(
        self, copy: TwinWorld, plan: ReachPlan, manner: Manner, target: int, noise: SmoothNoise, scale: Array
    ) -> float:
        poses = [self._world.object_pose(index) for index in range(copy.object_count)]
        for index, pose in enumerate(poses):
            copy.set_object_pose(index, _out_of_the_way(pose))
        copy.set_arm_and_hand(plan.approach[0], plan.grasp.preshape)
        for index, pose in enumerate(poses):
            away_m = float(np.linalg.norm((pose - poses[target])[:2, 3]))
            if self._within_m is None or away_m <= self._within_m:
                copy.set_object_pose(index, pose)
        clock, robot = copy.clock, copy.robot
        begun_ns = deadline_ns = clock.now_ns()
        posture = Posture(plan.approach[0], plan.grasp.preshape.copy())
        run = attempt(posture, plan, manner, lambda: copy.object_lift_m(target))
        period_ns = round(manner.period_s * NS)
        target_q, hand, _ = next(run)
        left = round(HELD_S / manner.period_s)
        while left > 0:
            wobble = scale * noise.at((clock.now_ns() - begun_ns) / NS + 1.0)
            now_ns = clock.now_ns()
            robot.send(Command(now_ns, target_q + wobble[:7], np.clip(hand + wobble[7:], 0, 1)))
            deadline_ns += period_ns
            clock.sleep_until_ns(deadline_ns)
            try:
                target_q, hand, note = run.send(robot.state())
                if note.startswith("the object"):
                    break
            except StopIteration:
                left -= 1
        return copy.object_lift_m(target)

    def _ready(self) -> TwinWorld:
        from ...hardware.twin.world import TwinConfig, TwinWorld

        if self._copy is None:
            config = TwinConfig(timestep_s=TIMESTEP_S, cameras=(), sensor_noise=False)
            self._copy = TwinWorld(config, self._world.scene, self._world.rig)
        elif self._scene is not self._world.scene:
            self._copy.reset(self._world.scene)
        self._scene = self._world.scene
        return self._copy

    def close(self) -> None:
        """Give the copy back. Safe to call twice."""
        if self._copy is not None:
            self._copy.close()
            self._copy = None


def _out_of_the_way(pose: Array) -> Array:
    """Under the table, where nothing is met."""
    away = pose.copy()
    away[2, 3] = OUT_OF_THE_WAY_M
    return away
