"""The planner's four requests (DexGraspVLA, 2502.20900): propose, ground, verify, complete. Two answer them: a
vision-language model behind an OpenAI-compatible endpoint, and the offline planner, which needs no weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...hardware.errors import DexLoopError

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels of the head picture, corner to corner (x1, y1 excluded)."""


class PlannerError(DexLoopError):
    """The planner cannot answer: its server is gone, or answers what cannot be understood."""


@dataclass(frozen=True)
class Look:
    """One moment over the table. All of the same exposure; never anything that a real rig does not have."""

    captured_ns: int
    head: NDArray[np.uint8]  # (H, W, 3) RGB
    head_depth_m: NDArray[np.float32]  # (H, W), 0 = invalid
    state: NDArray[np.floating]  # (13,) 7 arm joints rad, 6 openings (1 = open)
    target: NDArray[np.bool_] | None = None  # (H, W) the tracked target's mask, where there is a target


@dataclass(frozen=True, kw_only=True)
class FullLook(Look):
    """And what the wrist camera sees, which shows what the hand holds."""

    wrist: NDArray[np.uint8]  # (h, w, 3) RGB
    wrist_depth_m: NDArray[np.float32]  # (h, w), 0 = invalid


@dataclass(frozen=True)
class Proposal:
    """What to grasp next. Exactly one of the three is set: an instruction, a question back, or nothing left."""

    instruction: str = ""  # "grasp the red cup on the right": one object, unmistakable
    question: str = ""  # what to ask the user when the prompt is ambiguous
    nothing_left: bool = False
    reason: str = ""

    def __post_init__(self) -> None:
        if bool(self.instruction) + bool(self.question) + self.nothing_left != 1:
            raise ValueError("a proposal is an instruction, a question, or that nothing is left")


@dataclass(frozen=True)
class Grounding:
    """Where the object of an instruction is. ``box`` None: it is not to be seen."""

    box: Box | None
    label: str = ""
    confidence: float = 1.0  # 0..1
    reason: str = ""


@dataclass(frozen=True)
class Verdict:
    """An answer to a yes-or-no question."""

    yes: bool
    reason: str = ""


class Planner(Protocol):
    """Raises PlannerError from any request that it cannot answer; BadInput for a prompt that it cannot read."""

    name: str

    def propose(self, prompt: str, first: Look, now: Look, failed: tuple[str, ...] = ()) -> Proposal:
        """The next grasp for the user's ``prompt``. ``first`` is the table as it was at the start; ``failed`` are
        instructions of which all attempts failed."""
        ...

    def ground(self, instruction: str, now: Look) -> Grounding:
        """The box of the one object that ``instruction`` names."""
        ...

    def verify(self, instruction: str, before: Look, now: FullLook) -> Verdict:
        """Whether the hand holds the object. ``before`` is the table before the attempt."""
        ...

    def complete(self, prompt: str, first: Look, now: Look) -> Verdict:
        """Whether the user's prompt is done."""
        ...
