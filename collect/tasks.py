"""What is demonstrated: which scene an episode has, its instruction, and when it is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..hardware.errors import BadInput

if TYPE_CHECKING:
    from ..hardware.twin.scenes import SceneSpec

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Task:
    """A kind of demonstration.

    ``hold_s``: how long the lifted object must be held to count. ``place``: whether it goes on to the bin; the
    controller learns to lift, and deployment carries what it lifted (as the paper does), so ``lift`` ends in the air.
    ``pace``: share of the arm's speed limits that the script works at, drawn per episode.
    """

    name: str
    description: str
    hold_s: float = 1.0
    place: bool = True
    pace: tuple[float, float] = (0.35, 0.6)

    def scene(self, seed: int, attempt: int, objects: tuple[int, int], split: str) -> SceneSpec:
        """The scene of one attempt: the same for the same numbers, whoever records it and in which process."""
        from ..hardware.twin.scenes import sample_scene

        draw = np.random.default_rng(np.random.SeedSequence([seed, attempt]))
        count = int(draw.integers(objects[0], objects[1] + 1))
        return sample_scene(int(draw.integers(2**31)), split, count)


TASKS = {
    task.name: task
    for task in (
        Task("grasp", "pick up the named object and put it in the bin"),
        Task("lift", "pick up the named object and hold it", place=False, pace=(0.5, 0.9)),
    )
}


def task(name: str) -> Task:
    """The task of that name. Raises BadInput, naming those that there are."""
    if name not in TASKS:
        raise BadInput(f"there is no task {name!r}: known tasks are {', '.join(TASKS)}.")
    return TASKS[name]
