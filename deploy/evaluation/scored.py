"""A planner whose every answer is held against the truth. It asks, notes and hands on: it changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ..planner.base import FullLook, Grounding, Look, Planner, Proposal, Verdict
from .oracle import Truth, aimed_at
from .values import PlannerScore

RIGHT_IOU = 0.5


@dataclass(frozen=True)
class Aim:
    """A box that was asked for: an attempt begins with it."""

    number: int  # of this instruction or this object, whichever is more, from 1
    instruction: str
    found: bool
    index: int  # of the object that the box means; -1 none
    iou: float


@dataclass
class ScoredPlanner:
    """``Planner``. ``begin`` is told the object that each attempt aims at, -1 for none."""

    planner: Planner
    truth: Truth
    wanted: Sequence[int]
    begin: Callable[[int], None]
    aims: list[Aim] = field(default_factory=list)
    score: PlannerScore = field(default_factory=PlannerScore)
    said: str = ""  # its last reason or question
    _proposed: bool = False  # an instruction was given, its box not asked for yet

    def __post_init__(self) -> None:
        self.name = self.planner.name

    @property
    def aimed(self) -> int:
        """The object of the attempt that goes on; -1 none."""
        return self.aims[-1].index if self.aims else -1

    def propose(self, prompt: str, first: Look, now: Look, failed: tuple[str, ...] = ()) -> Proposal:
        proposal = self.planner.propose(prompt, first, now, failed)
        self.said = proposal.question or proposal.reason
        if proposal.question:
            self.score = replace(self.score, questions=self.score.questions + 1)
            return proposal
        right = proposal.nothing_left and not self._left()  # that of an instruction shows in its first box
        self._count("proposals", right)
        self._proposed = not proposal.nothing_left
        return proposal

    def ground(self, instruction: str, now: Look) -> Grounding:
        grounding = self.planner.ground(instruction, now)
        index, share = aimed_at(grounding.box, self.truth.boxes()) if grounding.box is not None else (-1, 0.0)
        # Neither other words for the same object nor another object for the same words make a new start.
        said = sum(aim.instruction == instruction for aim in self.aims)
        number = max(said, sum(aim.index == index >= 0 for aim in self.aims)) + 1
        self.aims.append(Aim(number, instruction, grounding.box is not None, index, share))
        wanted = index in self._left()
        self._count("boxes", wanted and share > RIGHT_IOU)
        if self._proposed:
            self.score = replace(self.score, proposals_right=self.score.proposals_right + wanted)
            self._proposed = False
        self.begin(index)
        return grounding

    def verify(self, instruction: str, before: Look, now: FullLook) -> Verdict:
        verdict = self.planner.verify(instruction, before, now)
        self.said = verdict.reason
        self._count("verdicts", verdict.yes == (self.aimed >= 0 and self.truth.held(self.aimed)))
        return verdict

    def complete(self, prompt: str, first: Look, now: Look) -> Verdict:
        verdict = self.planner.complete(prompt, first, now)
        self._count("completions", verdict.yes == (not self._left()))
        return verdict

    def _left(self) -> list[int]:
        return [index for index in self.wanted if self.truth.on_table(index)]

    def _count(self, what: str, right: bool) -> None:
        before, rightly = getattr(self.score, what), getattr(self.score, f"{what}_right")
        self.score = replace(self.score, **{what: before + 1, f"{what}_right": rightly + right})
