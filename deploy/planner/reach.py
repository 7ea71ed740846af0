"""Whether the arm gets its hand around a thing, and whether what stands beside it leaves the fingers room.

Asked of the top grasp alone, by inverse kinematics at several headings: the palm leans over the thing, the fingers
come down on its far side and the thumb on its near one. What the policy does in the end is its own affair; what no
heading reaches, or every heading runs into a neighbour, is better left for later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...hardware.description import START_ARM_Q, RigDescription
from ...hardware.errors import BadInput
from ...hardware.geometry import transform
from ...hardware.palm import PalmArm
from .attributes import Thing

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ReachConfig:
    """The top grasp, and the room that it takes."""

    headings: int = 12
    """Directions, evenly around, that the fingers are tried to point to."""
    lean_rad: float = 0.73
    """Of the palm's distal axis off straight down, towards the heading."""
    held_m: tuple[float, float, float] = (0.135, 0.0, -0.045)
    """Where the thing's middle comes to lie in the palm frame (x distal, the palm faces -z)."""
    lift_m: float = 0.10
    """The arm must also get there so far above."""
    fingers_m: float = 0.04
    """Room that the fingers take on the far side."""
    thumb_m: float = 0.03
    """Room that the thumb takes on the near side."""
    half_width_m: float = 0.048
    """Of the hand, across the heading."""
    low_m: float = 0.02
    """What is lower than this beside it is in nobody's way."""
    points: int = 8
    """So many points of a neighbour in the hand's way are a neighbour in its way; fewer are noise."""

    def __post_init__(self) -> None:
        if self.headings < 1 or self.points < 1:
            raise BadInput(f"ReachConfig.headings is {self.headings}, points {self.points}: expected at least 1")
        for name in ("lift_m", "fingers_m", "thumb_m", "half_width_m", "low_m"):
            if not 0.0 < getattr(self, name) <= 0.5:
                raise BadInput(f"ReachConfig.{name} is {getattr(self, name)}: expected more than 0 and at most 0.5 m")


@dataclass(frozen=True)
class Access:
    """How a thing can be come at."""

    reachable: bool  # the arm gets there at one heading or more
    free: bool  # at one that it reaches no neighbour is in the way


class Reach:
    """Access with the rig's first arm."""

    def __init__(self, rig: RigDescription, config: ReachConfig | None = None) -> None:
        self.config = config or ReachConfig()
        self._arm = PalmArm(rig.arms[0])
        self._angles = np.arange(self.config.headings) * (2 * np.pi / self.config.headings)

    def access(self, thing: Thing, things: Sequence[Thing]) -> Access:
        """To ``thing`` among ``things``."""
        reached = self.reached(thing.centroid_m)
        clear = self.clear(thing, [other for other in things if other is not thing])
        return Access(bool(reached.any()), bool((reached & clear if reached.any() else clear).any()))

    def reached(self, point_m: Array) -> NDArray[np.bool_]:
        """(headings,): whether the arm brings the hand around (3,) m, world, and up from there."""
        poses = np.stack(
            [self._palm(point_m, angle, lift) for angle in self._angles for lift in (0, self.config.lift_m)]
        )
        found = self._arm.kinematics.ik_batch(self._arm.flange(poses), q_near=START_ARM_Q)
        return np.asarray(found.ok.reshape(-1, 2).all(1))

    def clear(self, thing: Thing, others: Sequence[Thing]) -> NDArray[np.bool_]:
        """(headings,): whether no neighbour stands where fingers and thumb come down."""
        config = self.config
        tall = [o.cluster.points[o.cluster.height_m > config.low_m, :2] for o in others]
        beside = np.concatenate([*tall, np.zeros((0, 2))]) - thing.centroid_m[:2]
        own = thing.cluster.points[:, :2] - thing.centroid_m[:2]
        out = np.ones(len(self._angles), bool)
        for k, angle in enumerate(self._angles):
            forward, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
            near, far = np.percentile(own @ forward, [3, 97])
            along = beside @ forward
            # Beside the thing itself nothing comes down: only before and behind it.
            in_way = ((along > far) & (along < far + config.fingers_m)) | (
                (along < near) & (along > near - config.thumb_m)
            )
            out[k] = (in_way & (np.abs(beside @ across) < config.half_width_m)).sum() < config.points
        return out

    def _palm(self, point_m: Array, heading_rad: float, lift_m: float) -> Array:
        """world_T_palm (4, 4) of the top grasp around a point."""
        lean = self.config.lean_rad
        forward, up = np.array([np.cos(heading_rad), np.sin(heading_rad), 0.0]), np.array([0.0, 0.0, 1.0])
        x = np.sin(lean) * forward - np.cos(lean) * up
        z = np.cos(lean) * forward + np.sin(lean) * up
        rotation = np.stack([x, np.cross(z, x), z], -1)
        return transform(rotation, point_m + lift_m * up - rotation @ np.array(self.config.held_m))
