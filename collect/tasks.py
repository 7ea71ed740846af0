"""What is demonstrated: which scene an episode has, its instruction, and when it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..hardware.errors import BadInput
from .expert.grasps import FAMILIES, FEW_FAMILIES, GraspConfig

if TYPE_CHECKING:
    from ..hardware.twin.scenes import SceneSpec

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Task:
    """A kind of demonstration.

    ``hold_s``: how long the lifted object must be held to count. ``script``: settings of the scripted operator
    (:class:`.operators.script.ScriptConfig`) that differ from its defaults. ``clean``: keep only episodes in which the
    robot did what it was asked to, without more than a little help from safety.
    """

    name: str
    description: str
    hold_s: float = 1.0
    script: Mapping[str, Any] = field(default_factory=dict)
    clean: bool = False

    def scene(self, seed: int, attempt: int, objects: tuple[int, int], split: str) -> SceneSpec:
        """The scene of one attempt: the same for the same numbers, whoever records it and in which process."""
        from ..hardware.twin.scenes import sample_scene

        draw = np.random.default_rng(np.random.SeedSequence([seed, attempt]))
        count = int(draw.integers(objects[0], objects[1] + 1))
        return sample_scene(int(draw.integers(2**31)), split, count)


# The controller learns to lift; deployment carries what it lifted, as in the paper. Demonstrations to learn from are
# brisk, end in the air, show no mistake on purpose, and do alike what is alike: nothing is drawn that nobody can see.
LIFT: dict[str, Any] = {
    "place": False,
    "pace": (0.8, 0.8),
    "approach_m_s": (0.15, 0.15),
    "lift_m_s": (0.14, 0.14),
    "miss_rate": 0.0,
    "spread": 0.0,
    "habit": 0.8,
    "rehearsals": 8,
    "grasps": GraspConfig(families=FEW_FAMILIES),
}
# For a controller that chooses a grasp first: every way from above, so that there is one where others are blocked.
LIFT_VARIED: dict[str, Any] = LIFT | {
    "habit": 0.3,
    "spread": 0.15,
    "rehearsals": 14,
    "grasps": GraspConfig(families=FAMILIES[:3]),
}
TASKS = {
    task.name: task
    for task in (
        Task("grasp", "pick up the named object and put it in the bin"),
        Task("lift", "pick up the named object and hold it", script=LIFT, clean=True),
        Task("lift-varied", "pick up the named object and hold it, in any way", script=LIFT_VARIED, clean=True),
    )
}


def task(name: str) -> Task:
    """The task of that name. Raises BadInput, naming those that there are."""
    if name not in TASKS:
        raise BadInput(f"there is no task {name!r}: known tasks are {', '.join(TASKS)}.")
    return TASKS[name]
