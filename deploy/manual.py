"""The planner that is a person: draws the box around what is to be taken next, and says when it is enough.

Whether the hand holds the object is decided by the offline planner's ``verify``: it needs no words, the instruction
names the place where the marked object stood.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..hardware.errors import BadInput
from .eyes import Sight
from .masks.base import Mask, MaskTracker
from .masks.tracker import RigidTracker
from .page import Choice, Page
from .planner.base import Box, FullLook, Grounding, Look, Proposal, Verdict
from .planner.offline import OfflinePlanner, Scene
from .report import outlined

LEAST_SIDE = 1 / 64
"""Sides of a box are at least this share of the picture's width: anything smaller is a click."""
LARGEST_SHARE = 0.25
"""A box covers at most this share of the picture: anything larger is the table."""
SHOWN_EVERY = 4
"""Ticks of an attempt between two pictures on the page."""

GRASP, LOOK, SKIP, DONE = "grasp", "look", "skip", "done"
_GRASP = Choice(GRASP, "grasp this", main=True)
_LOOK = Choice(LOOK, "new picture")
_SKIP = Choice(SKIP, "give it up")
_DONE = Choice(DONE, "done")


@dataclass(frozen=True)
class _Marked:
    """What a box means."""

    box: Box
    mask: Mask  # (H, W) what would be tracked
    instruction: str


class ManualPlanner:
    """``Planner`` with a person in front of ``page``. ``look`` takes a new picture when the person asks for one."""

    name = "manual"

    def __init__(
        self,
        page: Page,
        look: Callable[[], Look] | None = None,
        offline: OfflinePlanner | None = None,
        probe: MaskTracker | None = None,
    ) -> None:
        """``probe``: a tracker of the session's kind, but not the session's own, to try boxes on."""
        self._page, self._look = page, look
        self._offline = offline or OfflinePlanner()
        self._probe = probe or RigidTracker()
        self._marked: _Marked | None = None  # proposed, its box not asked for yet
        self._tries = 0  # boxes that were asked for since the proposal
        self._ticks = 0

    # -- the four requests -----------------------------------------------------------------------------------------

    def propose(self, prompt: str, first: Look, now: Look, failed: tuple[str, ...] = ()) -> Proposal:
        """Ask for a box until it is a good one, or the person is done."""
        self._marked, self._tries = None, 0
        marked = self._ask(now, "Draw a box around what is to be taken.", (_DONE,))
        if marked is None:
            return Proposal(nothing_left=True, reason="the user is done")
        self._marked = marked
        return Proposal(marked.instruction)

    def ground(self, instruction: str, now: Look) -> Grounding:
        """The box that was drawn; after an attempt that failed the person is asked where the object is now."""
        marked, self._marked = self._marked, None
        self._tries += 1
        if marked is None:
            said = "It is not in the hand. Where is it now? Draw the box again."
            marked = self._ask(now, said, (_SKIP,), instruction)
        if marked is None:
            return Grounding(None, reason="the user gave it up")
        return Grounding(marked.box, f"marked by hand: {_object(instruction)}")

    def verify(self, instruction: str, before: Look, now: FullLook) -> Verdict:
        return self._offline.verify(instruction, before, now)

    def complete(self, prompt: str, first: Look, now: Look) -> Verdict:
        return Verdict(False, "the user says when it is enough")

    # -- what the person sees meanwhile ----------------------------------------------------------------------------

    def see(self, sight: Sight) -> None:
        """Show a moment of an attempt."""
        self._ticks += 1
        if self._ticks % SHOWN_EVERY == 1:
            mask = None if sight.mask is None else sight.mask.visible
            self._page.show(outlined(sight.look.head, mask), "The robot is at it.")

    def tell(self, line: str) -> None:
        """Show a line of the session."""
        self._page.tell(line)

    def end(self, sentence: str) -> None:
        """Show how it ended."""
        self._page.end(f"It has ended: {sentence}")

    # -- asking ----------------------------------------------------------------------------------------------------

    def _ask(self, now: Look, said: str, ways_out: tuple[Choice, ...], meant: str = "") -> _Marked | None:
        """A good box that the person agreed to, None for a way out. ``meant``: its instruction is known already."""
        sentence, bad, marked = said, False, None
        while True:
            choices = (*((_GRASP,) if marked else ()), *((_LOOK,) if self._look else ()), *ways_out)
            picture = outlined(now.head, None if marked is None else marked.mask)
            answer = self._page.ask(picture, sentence, choices, None if marked is None else marked.box, bad)
            if answer.choice == GRASP and marked is not None:
                self._page.show(picture, "The robot is at it.")
                return marked
            if answer.choice == LOOK and self._look is not None:
                now, sentence, bad, marked = self._look(), said, False, None
            elif answer.box is not None:
                try:
                    marked = self._mark(answer.box, now, meant)
                    what, bad = _object(marked.instruction), False
                    sentence = f'This is it: {what}. Press "grasp this", or draw again.'
                except BadInput as error:
                    sentence, bad, marked = str(error), True, None
            else:
                return None

    def _mark(self, box: Box, now: Look, meant: str) -> _Marked:
        """What is in ``box``. Raises BadInput, in words for the person who drew it."""
        height, width = now.head.shape[:2]
        wide, high = box[2] - box[0], box[3] - box[1]
        if box[0] < 0 or box[1] < 0 or box[2] > width or box[3] > height:
            raise BadInput("That box leaves the picture. Draw it inside.")
        if min(wide, high) < LEAST_SIDE * width:
            raise BadInput("That box is too small. Drag from one corner of the object to the opposite one.")
        if wide * high > LARGEST_SHARE * width * height:
            raise BadInput("That box is too large. Draw it closely around one object.")
        try:
            mask = self._probe.start(now.head, now.head_depth_m, box, now.state).visible
        except BadInput as error:
            raise BadInput("There is nothing in that box. Draw it around an object on the table.") from error
        return _Marked(box, mask, meant or self._instruction(mask, self._offline.see(now)))

    def _instruction(self, mask: Mask, scene: Scene) -> str:
        """Words that the offline planner takes for the object under ``mask``: its place."""
        shared = [float((thing.cluster.mask & mask).sum()) for thing in scene.things]
        if not shared or max(shared) < 0.3 * mask.sum():
            on = mask & scene.table.valid & scene.table.on_table
            if not on.any():
                raise BadInput("What is in that box does not stand on the table. Mark something within reach.")
            x, y, _ = np.median(scene.table.points[on], axis=0)
            return f"grasp the object at x {x:.2f} y {y:.2f} m"
        thing = scene.things[int(np.argmax(shared))]
        x, y, _ = thing.centroid_m
        return f"grasp the {thing.colour} object at x {x:.2f} y {y:.2f} m"


def _object(instruction: str) -> str:
    """For people, who see where it is."""
    return instruction.removeprefix("grasp ").split(" at x ")[0]
