"""Grasp candidates for one object among others, from geometry: where the palm goes and how the hand is preshaped.

Three families: *wrap* comes from above with the hand leaning off vertical, fingers down the object's far side and the
thumb opposed on the near one; *pinch* is the same nearly upright, for flat and small things; *side* comes from the
side with the index finger up, for tall and wide ones. Every candidate is slid along its approach direction as deep as
clearance allows, then closed on the object by :class:`.preview.HandPreview`; the contacts that this finds are scored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ...hardware.geometry import transform
from .preview import Closure, HandPreview
from .shape import Shape

Array = NDArray[np.float64]
UP = np.array([0.0, 0.0, 1.0])
NEIGHBOURHOOD_M = 0.20
LONG_M = 0.11
THUMB_SLICE_M = 0.012


@dataclass(frozen=True)
class Family:
    """One way to come at an object. Angles in degrees here: they are meant to be read."""

    name: str
    lean_deg: tuple[float, ...]  # wrap, pinch: off vertical; side: distal axis above the horizontal if negative
    roll_deg: float  # turn about the distal axis: 0 palm faces down and back, 90 index side up
    approach: str  # "down" or "distal"
    gap_x_m: float  # where the object's middle should lie in the palm frame
    gap_z_m: float
    finger: float  # preshape opening of the four fingers
    thumb: float  # preshape opening of the thumb's bend
    rotation: float = 1.0  # of the thumb
    prior: float = 0.0  # added to the score
    depth_steps: tuple[float, ...] = (0.0, 0.010, 0.022)  # m back from the deepest place
    widest_m: float = 0.095  # that thumb and fingers straddle with this preshape
    # The thumb stays put this far beside the object and the fingers bring the object to it; None: both close.
    thumb_gap_m: float | None = None
    min_height_m: float = 0.0  # objects lower than this are not tried

    @property
    def preshape(self) -> Array:
        """(6,) openings while coming in."""
        return np.array([self.thumb, *[self.finger] * 4, self.rotation])


FAMILIES = (
    Family("wrap", (18.0, 30.0, 42.0, 54.0), 0.0, "down", 0.135, -0.045, 0.85, 1.0),
    Family("tight", (25.0, 38.0), 0.0, "down", 0.145, -0.052, 0.70, 0.62, prior=-0.3, widest_m=0.04),
    Family("pinch", (44.0, 54.0, 64.0), 0.0, "down", 0.132, -0.070, 0.78, 0.95, thumb_gap_m=0.006),
    Family("side", (55.0, 70.0, 82.0), 90.0, "distal", 0.120, -0.045, 0.95, 1.0, min_height_m=0.07),
)
# One lean each, and nothing from the side: alike things are taken alike.
FEW_FAMILIES = (replace(FAMILIES[0], lean_deg=(42.0,)), replace(FAMILIES[2], lean_deg=(64.0,)))


@dataclass(frozen=True)
class GraspConfig:
    """How candidates are made and scored."""

    families: tuple[Family, ...] = FAMILIES
    headings: int = 20
    table_margin_m: float = 0.001  # lowest point of the hand above the table
    object_margin_m: float = 0.004  # of the open hand to the target while it comes in
    neighbour_margin_m: float = -0.003  # a neighbour may be nudged: rehearsal tells whether it works out
    along: tuple[float, ...] = (0.0, -0.03, 0.03)  # m from the centre of mass along something long
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
    thumb_waits: bool = False  # until the fingers have touched
    parts: dict[str, float] = field(default_factory=dict)  # of the score, to read


class GraspPlanner:
    """Proposes grasps, best first. Knows nothing of the arm: :mod:`.reach` sorts out what it cannot do."""

    def __init__(self, config: GraspConfig = GraspConfig(), preview: HandPreview | None = None) -> None:
        self._config = config
        self._preview = preview or HandPreview()

    def propose(
        self,
        target: Shape,
        neighbours: Array,
        reachable: Callable[[Array], bool] = lambda pose: True,
        turn_rad: float = 0.0,
    ) -> list[Grasp]:
        """Candidates for ``target`` (world frame) among ``neighbours`` (M, 3) m, best first.

        ``reachable`` is asked once for each orientation with a rough palm pose, so that what the arm cannot do anyway
        is not looked at closely. ``turn_rad`` turns the grid of headings: another episode, other grasps.
        """
        near = neighbours[np.linalg.norm(neighbours[:, :2] - target.com[:2], axis=1) < NEIGHBOURHOOD_M]
        found: list[Grasp] = []
        for family in self._config.families:
            if target.height_m < family.min_height_m:
                continue
            for lean in family.lean_deg:
                for heading in turn_rad + np.arange(self._config.headings) * (2 * np.pi / self._config.headings):
                    rotation = orientation(float(heading), np.deg2rad(lean), np.deg2rad(family.roll_deg))
                    rough = target.com - rotation @ np.array([family.gap_x_m, 0.008, family.gap_z_m])
                    rough[2] = max(rough[2], 0.005 - self._preview.lowest_m(family.preshape, rotation))
                    if reachable(transform(rotation, rough)):
                        found += self._place(family, rotation, target, near)
        return sorted(found, key=lambda grasp: -grasp.score)

    def _place(self, family: Family, rotation: Array, target: Shape, neighbours: Array) -> list[Grasp]:
        approach = -UP if family.approach == "down" else rotation[:, 0]
        closing = rotation[:, 2] - (rotation[:, 2] @ approach) * approach
        closing = closing / np.linalg.norm(closing)
        across = np.cross(approach, closing)
        middle = self._across(family, across, target)
        length = float(np.ptp(target.points @ across))
        offsets = self._config.along if family.approach == "down" and length > LONG_M else (0.0,)
        found = []
        for offset in offsets:
            found += self._straddle(family, rotation, approach, middle + offset, target, neighbours)
        return found

    def _straddle(
        self, family: Family, rotation: Array, approach: Array, middle: float, target: Shape, neighbours: Array
    ) -> list[Grasp]:
        """Thumb and fingers on both sides of the slice of the target at ``middle`` across the hand."""
        closing = rotation[:, 2] - (rotation[:, 2] @ approach) * approach
        closing = closing / np.linalg.norm(closing)
        across = np.cross(approach, closing)
        gap = rotation @ np.array([family.gap_x_m, 0.008, family.gap_z_m])
        slab = np.abs(target.points @ across - middle) < 0.035
        if slab.sum() < 4:
            return []
        depth = target.points @ approach
        slab &= depth < depth[slab].min() + 0.06
        along = target.points[slab] @ closing
        low, high = float(along.min()), float(along.max())
        if high - low > family.widest_m and not is_hollow(target):
            return []
        found = []
        for shift in self._config.shifts if high - low > 0.05 and is_hollow(target) else (0.0,):
            at = (low + high) / 2 + shift * ((high - low) / 2 - 0.006)
            place = at - gap @ closing
            if family.thumb_gap_m is not None:
                thumb = rotation @ self._preview.thumb_tip(family.preshape)
                beside = slab & (np.abs(target.points @ across - middle - (thumb - gap) @ across) < THUMB_SLICE_M)
                face = float((target.points[beside] @ closing).min()) if beside.any() else low
                place = face - self._preview.radius_m - family.thumb_gap_m - thumb @ closing
            origin = place * closing + (middle - gap @ across) * across
            found += self._descend(family, rotation, approach, origin, target, neighbours, high - low, shift)
        return found

    def _across(self, family: Family, across: Array, target: Shape) -> float:
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
        preshape = family.preshape
        front = float((target.points @ approach).min())
        reach = float(rotation[:, 0] @ approach) * 0.13 + float(-rotation[:, 2] @ approach) * 0.03
        depths = front - reach + np.arange(-0.09, 0.12, 0.007)
        lowest = origin[2] + self._preview.lowest_m(preshape, rotation) - self._config.table_margin_m
        if approach[2] < -0.2:
            # As deep as the table lets the fingers sweep, to the millimetre: low objects need it.
            bottom = -lowest / approach[2]
            depths = np.append(depths[depths < bottom], bottom)
        elif lowest < 0:
            return []
        origins = origin + depths[:, None] * approach  # (D, 3)
        free = np.ones(len(depths), bool)
        free &= self._clear(preshape, rotation, origins, target.points[::2]) >= self._config.object_margin_m
        if len(neighbours):
            free &= self._clear(preshape, rotation, origins, neighbours[::3]) >= self._config.neighbour_margin_m
        if not free[0]:
            return []
        deepest = depths[int(np.argmin(free)) - 1 if not free.all() else -1]
        found = []
        for back in family.depth_steps:
            pose = transform(rotation, origin + (deepest - back) * approach)
            grasp = self._score(family, pose, approach, preshape, target, neighbours, width, shift)
            if grasp is not None:
                found.append(grasp)
        return found

    def _clear(self, opening: Array, rotation: Array, origins: Array, points: Array) -> Array:
        """Clearance (D,) m of the hand with its palm at ``origins`` (D, 3)."""
        return self._preview.clearance(opening, (points[None] - origins[:, None]) @ rotation)

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
        closing = pose[:3, 2] - (pose[:3, 2] @ approach) * approach
        drag = -(family.thumb_gap_m or 0.0) * (closing / np.linalg.norm(closing)) @ pose[:3, :3]
        closure = self._preview.close(preshape, local[::2], (target.normals @ pose[:3, :3])[::2], drag)
        com = (target.com - pose[:3, 3]) @ pose[:3, :3]
        parts = contact_score(closure, com)
        if parts is None:
            return None
        clearance = 0.1
        if len(neighbours):
            clearance = float(self._clear(preshape, pose[:3, :3], pose[None, :3, 3], neighbours)[0])
        parts |= {
            "prior": family.prior,
            "hollow": -0.3 * abs(shift),
            "room": 0.5 * min(clearance, 0.02) / 0.02,
            "palm": -4.0 * max(0.0, float(self._preview.palm_distance(local).min()) - 0.02),
        }
        score = float(sum(parts.values()))
        return Grasp(
            family.name,
            pose,
            approach,
            preshape,
            closure.opening,
            width,
            clearance,
            score,
            family.thumb_gap_m is not None,
            parts,
        )


def orientation(heading: float, lean: float, roll: float) -> Array:
    """world_R_palm (3, 3): distal axis leaning ``lean`` rad off straight down towards ``heading``, then ``roll``."""
    forward = np.array([np.cos(heading), np.sin(heading), 0.0])
    x = np.sin(lean) * forward - np.cos(lean) * UP
    z = np.cos(lean) * forward + np.sin(lean) * UP
    y = np.cross(z, x)
    return np.stack([x, np.cos(roll) * y + np.sin(roll) * z, np.cos(roll) * z - np.sin(roll) * y], -1)


def is_hollow(shape: Shape) -> bool:
    """Whether much of the surface faces the middle: a cup or a bowl, which can be taken by its wall."""
    outward = shape.points - shape.center
    flat = outward[:, :2] * shape.normals[:, :2]
    return bool((flat.sum(1) < -0.005).mean() > 0.12)


def contact_score(closure: Closure, com: Array) -> dict[str, float] | None:
    """Terms of a hold's quality, or None where thumb and two fingers do not both touch. Palm frame."""
    fingers = closure.touched[1:]
    if fingers.sum() < 2:
        return None
    if not closure.touched[0]:
        # The fingers may still bring the object to the thumb: worth a try where nothing better is found.
        grip = closure.point[1:][fingers].mean(0)
        return {
            "fingers": 0.25 * float(fingers.sum()),
            "lever": -10.0 * float(np.linalg.norm(grip - com)),
            "thumb": -1.0,
        }
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
