"""``cli.py collect``: what to record, with whom, on what, into which data set."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..hardware.errors import BadInput

OPERATORS = ("script", "recorded", "keyboard")


def parse_objects(text: str) -> tuple[int, int]:
    """``"3"`` -> (3, 3), ``"1..6"`` -> (1, 6). Raises BadInput outside 1..6."""
    match = re.fullmatch(r"([1-6])(?:\.\.([1-6]))?", text.strip())
    if match is None:
        raise BadInput(f"--objects is {text!r}: expected a number from 1 to 6 or a range such as 1..6.")
    low, high = int(match[1]), int(match[2] or match[1])
    if low > high:
        raise BadInput(f"--objects is {text!r}: the range runs backwards; write {high}..{low}.")
    return low, high


@dataclass(frozen=True)
class Collect:
    """Record demonstrations into a LeRobot data set."""

    task: str = "grasp"
    """What is demonstrated. Known: grasp (pick up the named object and put it in the bin)."""
    episodes: int = 5
    """How many episodes to keep."""
    operator: str = "script"
    """Who demonstrates: script (an expert on the twin), recorded (a file of hand key points), keyboard."""
    input: Path | None = None
    """File that the recorded operator plays (see docs/hand_files.md)."""
    dataset: str | None = None
    """Name under recordings/ or a path; the task's name if not given."""
    robot: Literal["twin"] = "twin"
    """What moves: twin is the MuJoCo model of the rig."""
    seed: int = 0
    """Scenes and demonstrator noise follow from it; episode i is the same whatever --workers is."""
    objects: str = "1..6"
    """Objects per scene: a number, or a range to draw from."""
    workers: int = 1
    """Processes that record scripted episodes side by side."""
    rate_hz: float = 20.0
    """Rows per second of the data set."""

    def run(self) -> int:
        return 0
