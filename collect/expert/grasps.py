"""Grasp candidates for one object among others, from geometry: where the palm goes and how the hand is preshaped.

Three families: *wrap* comes from above with the hand leaning off vertical, fingers down the object's far side and the
thumb opposed on the near one; *pinch* is the same nearly upright, for flat and small things; *side* comes from the
side with the index finger up, for tall and wide ones. Every candidate is slid along its approach direction as deep as
clearance allows, then closed on the object by :class:`.preview.HandPreview`; the contacts that this finds are scored.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...hardware.geometry import transform
from .preview import Closure, HandPreview
from .shape import Shape

Array = NDArray[np.float64]
UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class Family:
    """One way to come at an object. Angles in degrees here: they are meant to be read."""

    name: str
    lean_deg: tuple[float, ...]  # wrap, pinch: off vertical; side: distal axis above the horizontal if negative
    roll_deg: float  # turn about the distal axis: 0 palm faces down and back, -90 index side up
    approach: str  # "down" or "distal"
    gap_x_m: float  # where the object's middle should lie in the palm frame
    gap_z_m: float
    finger: float  # preshape opening of the four fingers
    thumb: float  # preshape opening of the thumb's bend
    rotation: float = 1.0  # of the thumb
    prior: float = 0.0  # added to the score
    depth_steps: tuple[float, ...] = (0.0, 0.012)  # m back from the deepest place
    min_height_m: float = 0.0  # objects lower than this are not tried


FAMILIES = (
    Family("wrap", (25.0, 40.0, 52.0), 0.0, "down", 0.135, -0.045, 0.85, 1.0),
    Family("pinch", (8.0,), 0.0, "down", 0.145, -0.050, 0.80, 1.0, prior=-0.3),
    Family("side", (55.0, 70.0, 82.0), -90.0, "distal", 0.120, -0.045, 0.95, 1.0, min_height_m=0.07, prior=-0.2),
)


@dataclass(frozen=True)
class GraspConfig:
    """How candidates are made and scored."""

    families: tuple[Family, ...] = FAMILIES
    headings: int = 24
    table_margin_m: float = 0.006  # lowest point of the hand above the table
    object_margin_m: float = 0.004  # of the open hand to the target while it comes in
    neighbour_margin_m: float = 0.006
    shifts: tuple[float, ...] = (-1.0, 0.0, 1.0)  # along the closing axis: 0 middle, -1 / 1 walls of something hollow

    def __post_init__(self) -> None:
        if self.headings < 1 or not self.families:
            raise ValueError("GraspConfig needs at least one heading and one family")


@dataclass(frozen=True)
class Grasp:
    """A candidate. The palm moves along ``approach`` into ``world_T_palm`` with the hand at ``preshape``."""

    family: str
    world_T_palm: Array  # (4, 4)
    approach: Array  # (3,) unit, world
    preshape: Array  # (6,) openings
    contact: Array  # (5,) openings at which the digits should touch, thumb to little
    width_m: float  # of the object along the closing axis
    clearance_m: float  # to neighbours, hand open at the grasp
    score: float
    parts: dict[str, float] = field(default_factory=dict)  # of the score, to read


class GraspPlanner:
    """Proposes grasps, best first. Knows nothing of the arm: :mod:`.reach` sorts out what it cannot do."""

    def __init__(self, config: GraspConfig = GraspConfig(), preview: HandPreview | None = None) -> None:
        self._config = config
        self._preview = preview or HandPreview()

    def propose(self, target: Shape, neighbours: Array) -> list[Grasp]:
        """Candidates for ``target`` (world frame) among ``neighbours`` (M, 3) m, all with a positive score."""
        found: list[Grasp] = []
        for family in self._config.families:
            if target.height_m < family.min_height_m:
                continue
            for lean in family.lean_deg:
                for heading in np.arange(self._config.headings) * (2 * np.pi / self._config.headings):
                    rotation = orientation(float(heading), np.deg2rad(lean), np.deg2rad(family.roll_deg))
                    found += self._place(family, rotation, target, neighbours)
        return sorted((grasp for grasp in found if grasp.score > 0), key=lambda grasp: -grasp.score)

    def _place(self, family: Family, rotation: Array, target: Shape, neighbours: Array) -> list[Grasp]:
        approach = -UP if family.approach == "down" else rotation[:, 0]
        closing = rotation[:, 2] - (rotation[:, 2] @ approach) * approach
        closing = closing / np.linalg.norm(closing)
        across = np.cross(approach, closing)
        gap = rotation @ np.array([family.gap_x_m, 0.008, family.gap_z_m])
        middle = self._across(family, across, gap, target)
        if middle is None:
            return []
        slab = np.abs(target.points @ across - middle) < 0.035
        depth = target.points @ approach
        slab &= depth < depth[slab].min() + 0.06 if slab.any() else slab
        if slab.sum() < 4:
            return []
        along = target.points[slab] @ closing
        low, high = float(along.min()), float(along.max())
        found = []
        for shift in self._config.shifts:
            at = (low + high) / 2 + shift * max(0.0, (high - low) / 2 - 0.006)
            if shift and high - low < 0.05:
                continue
            origin = (at - gap @ closing) * closing + (middle - gap @ across) * across
            found += self._descend(family, rotation, approach, origin, target, neighbours, high - low, shift)
        return found

    def _across(self, family: Family, across: Array, gap: Array, target: Shape) -> float | None:
        """Where the hand's middle goes along ``across``: over the centre of mass, or at a height for a side grasp."""
        if family.approach == "down":
            return float(target.com @ across)
        sign = 1.0 if across[2] > 0 else -1.0
        height = min(max(target.com[2], 0.055), target.height_m - 0.03)
        return float(sign * height * abs(across[2]) + target.com[:2] @ across[:2])

    def _descend(
        self,
        family: Family,
        rotation: Array,
        approach: Array,
        origin: Array,
        target: Shape,
        neighbours: Array,
        width: float,
        shift: float,
    ) -> list[Grasp]:
        """Slide along the approach as deep as clearance allows, then score a few depths."""
        preshape = np.array([family.thumb, *[family.finger] * 4, family.rotation])
        front = float((target.points @ approach).min())
        deepest = None
        reach = float(rotation[:, 0] @ approach) * 0.13 + float(-rotation[:, 2] @ approach) * 0.03
        for into in np.arange(-0.03, 0.12, 0.006):
            pose = transform(rotation, origin + (front + into - reach) * approach)
            if self._preview.lowest_m(preshape, pose) < self._config.table_margin_m:
                break
            if self._clear(preshape, pose, target.points) < self._config.object_margin_m:
                break
            if len(neighbours) and self._clear(preshape, pose, neighbours) < self._config.neighbour_margin_m:
                break
            deepest = into
        if deepest is None:
            return []
        found = []
        for back in family.depth_steps:
            pose = transform(rotation, origin + (front + deepest - back - reach) * approach)
            grasp = self._score(family, pose, approach, preshape, target, neighbours, width, shift)
            if grasp is not None:
                found.append(grasp)
        return found

    def _clear(self, opening: Array, world_T_palm: Array, points: Array) -> float:
        local = (points - world_T_palm[:3, 3]) @ world_T_palm[:3, :3]
        return self._preview.clearance(opening, local)

    def _score(
        self,
        family: Family,
        pose: Array,
        approach: Array,
        preshape: Array,
        target: Shape,
        neighbours: Array,
        width: float,
        shift: float,
    ) -> Grasp | None:
        local = (target.points - pose[:3, 3]) @ pose[:3, :3]
        closure = self._preview.close(preshape, local, target.normals @ pose[:3, :3])
        com = (target.com - pose[:3, 3]) @ pose[:3, :3]
        parts = contact_score(closure, com)
        if parts is None:
            return None
        clearance = self._clear(preshape, pose, neighbours) if len(neighbours) else 0.1
        parts |= {
            "prior": family.prior,
            "hollow": -0.3 * abs(shift),
            "room": 0.3 * min(clearance, 0.03) / 0.03,
            "palm": -4.0 * max(0.0, float(self._preview.palm_distance(local).min()) - 0.02),
        }
        score = float(sum(parts.values()))
        return Grasp(family.name, pose, approach, preshape, closure.opening, width, clearance, score, parts)


def orientation(heading: float, lean: float, roll: float) -> Array:
    """world_R_palm (3, 3): distal axis leaning ``lean`` rad off straight down towards ``heading``, then ``roll``."""
    forward = np.array([np.cos(heading), np.sin(heading), 0.0])
    x = np.sin(lean) * forward - np.cos(lean) * UP
    z = np.cos(lean) * forward + np.sin(lean) * UP
    y = np.cross(z, x)
    return np.stack([x, np.cos(roll) * y + np.sin(roll) * z, np.cos(roll) * z - np.sin(roll) * y], -1)


def contact_score(closure: Closure, com: Array) -> dict[str, float] | None:
    """Terms of a hold's quality, or None where thumb and two fingers do not both touch. Palm frame."""
    fingers = closure.touched[1:]
    if not closure.touched[0] or fingers.sum() < 2:
        return None
    thumb_n = closure.normal[0]
    finger_n = closure.normal[1:][fingers].mean(0)
    opposed = float(-thumb_n @ finger_n / max(np.linalg.norm(finger_n), 1e-6))
    grip = 0.5 * (closure.point[0] + closure.point[1:][fingers].mean(0))
    return {
        "fingers": 0.25 * float(fingers.sum()),
        "opposed": opposed,
        "lever": -10.0 * float(np.linalg.norm(grip - com)),
        "curl": 0.3 * float(np.mean(1.0 - closure.opening[1:][fingers])),
    }
