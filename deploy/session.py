"""From the user's prompt to objects in the bin: propose, ground, attempt, verify, place, until the planner is content.

One object after another, each in up to ``attempts`` attempts from the start pose (the paper's three, after which the
robot is reset); an object that was failed as often is named to the planner, which chooses another. A target that is
lost from sight before the hand has closed (somebody moved it) is looked for once more before that costs an attempt.
What slips from the hand on the way to the bin is tried again, too.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

from ..hardware.clock import NS
from ..hardware.errors import BadInput, DeviceError, DexLoopError
from ..hardware.interfaces import Robot
from .attempt import AttemptResult, Ending
from .eyes import Eyes, Sight
from .motions import Motions
from .planner.base import Box, Look, Planner


class End(enum.Enum):
    """How a session ended."""

    DONE = "done"
    NOTHING = "nothing on the table fits the prompt"
    ASKED = "the prompt is ambiguous"
    FAILED = "what is left could not be grasped"
    FULL = "as many objects as were allowed"


@dataclass(frozen=True)
class SessionConfig:
    """How long it goes on."""

    attempts: int = 3
    """Per object."""
    objects: int = 20
    """At most so many objects are tried."""
    place: bool = True
    """Carry what was lifted to the bin. False: put the session to its end with the object in the hand."""
    pace: float = 0.6
    """Share of the arm's speed limits for the fixed motions: to the start and to the bin."""

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.objects < 1 or not 0 < self.pace <= 1:
            raise BadInput(
                f"attempts is {self.attempts}, objects {self.objects}, pace {self.pace}: expected at least 1, at least "
                "1, and above 0 to 1."
            )


@dataclass(frozen=True)
class Event:
    """A line of the session's timeline."""

    at_s: float  # since the session began
    kind: str  # proposal, grounding, attempt, placed, dropped, question, end, error
    text: str
    box: Box | None = None
    look: Look | None = None  # what was seen
    attempt: AttemptResult | None = None


@dataclass
class SessionResult:
    """What happened."""

    prompt: str
    end: End | None = None  # None: stopped by an error, which the last event names
    reason: str = ""  # why it ended so
    events: list[Event] = field(default_factory=list)
    grasped: list[str] = field(default_factory=list)  # instructions that ended with the object held
    failed: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """On the rig's clock, until the last event."""
        return self.events[-1].at_s if self.events else 0.0

    @property
    def why(self) -> str:
        """How it ended and why, in one sentence."""
        end = self.end.value if self.end is not None else "stopped"
        return f"{end}: {self.reason}" if self.reason else end


class Attempts(Protocol):
    """What makes attempts (:class:`.attempt.Attempt`)."""

    def run(self, instruction: str, first: Sight) -> AttemptResult: ...


class Session:
    """Runs prompts on one robot. ``robot`` is already wrapped in ``SafeRobot``; ``tell`` shows one line to the user;
    ``answer`` puts the planner's question to the user, whose answer is the new prompt ("" = no answer)."""

    def __init__(
        self,
        robot: Robot,
        eyes: Eyes,
        planner: Planner,
        attempt: Attempts,
        rate_hz: float,
        config: SessionConfig = SessionConfig(),
        tell: Callable[[str], None] = lambda line: None,
        answer: Callable[[str], str] = lambda question: "",
    ) -> None:
        self._robot, self._eyes, self._planner, self._attempt = robot, eyes, planner, attempt
        self._motions = Motions(robot, rate_hz, config.pace)
        self._config, self._tell, self._answer = config, tell, answer
        self.result = SessionResult("")  # of the last run, also of one that was broken off
        self._begun_ns = 0

    def run(self, prompt: str) -> SessionResult:
        """Until the prompt is done, or cannot be. Whatever goes wrong, the robot is stopped first; errors of devices,
        planner and policy end the session with an event, anything else is raised, with :attr:`result` told so far."""
        result = self.result = SessionResult(prompt)
        self._begun_ns = self._robot.clock.now_ns()
        with self._stopping(result):
            result.end, result.reason = self._loop(result)
            self._note(result, "end", result.why)
        return result

    @contextmanager
    def _stopping(self, result: SessionResult) -> Iterator[None]:
        try:
            yield
        except DexLoopError as error:
            self._robot.stop()
            look = None
            if not isinstance(error, DeviceError):  # then the cameras can be asked what it looks like now
                with suppress(DexLoopError):
                    look = self._eyes.look()
            self._fail(result, str(error), look)
        except KeyboardInterrupt:
            self._robot.stop()
            self._fail(result, "the user stopped it (Ctrl-C)")
            raise
        except BaseException as error:
            self._robot.stop()
            self._fail(result, f"a fault of the program: {error!r}")
            raise

    def _fail(self, result: SessionResult, reason: str, look: Look | None = None) -> None:
        result.end, result.reason = None, reason
        self._note(result, "error", reason, look=look)

    def _loop(self, result: SessionResult) -> tuple[End, str]:
        self._motions.to_start()
        first = self._eyes.look()
        missed: dict[str, str] = {}  # why an instruction failed
        for _ in range(self._config.objects):
            proposal = self._planner.propose(result.prompt, first, self._eyes.look(), tuple(result.failed))
            if proposal.question:
                self._note(result, "question", proposal.question)
                answer = self._answer(proposal.question)
                if not answer:
                    return End.ASKED, proposal.question
                result.prompt = answer
                continue
            if proposal.nothing_left:
                if missed:
                    return End.FAILED, _listed(missed)
                return (End.DONE if result.grasped else End.NOTHING), proposal.reason
            self._note(result, "proposal", proposal.instruction)
            why = self._grasp(proposal.instruction, result)
            if why:
                missed[proposal.instruction] = why
            else:
                missed.pop(proposal.instruction, None)
                if not self._config.place:
                    return End.DONE, "it is in the hand"
            verdict = self._planner.complete(result.prompt, first, self._eyes.look())
            if verdict.yes:  # nothing is left to do; of what was given up that is not the robot's merit
                return (End.FAILED, _listed(missed)) if missed else (End.DONE, verdict.reason)
        return (End.FULL, "") if result.grasped or not missed else (End.FAILED, _listed(missed))

    def _grasp(self, instruction: str, result: SessionResult) -> str:
        """One object, in as many attempts as it takes. Why it failed, empty where it did not."""
        number, again, why = 1, False, ""  # again: this attempt has lost its target once already
        while number <= self._config.attempts:
            look = self._eyes.look()
            grounding = self._planner.ground(instruction, look)
            self._note(result, "grounding", grounding.label or grounding.reason, box=grounding.box, look=look)
            if grounding.box is None:
                why = grounding.reason or "it is not to be seen"
                break
            ending, why = self._attempt_in(grounding.box, instruction, number, result)
            if not why:
                result.grasped.append(instruction)
                return ""
            again = ending is Ending.LOST and not again
            number += not again
        result.failed.append(instruction)
        return why

    def _attempt_in(self, box: Box, instruction: str, number: int, result: SessionResult) -> tuple[Ending | None, str]:
        """How the attempt at what is in ``box`` ended, None where nothing is in it, and why it failed, empty where it
        did not."""
        try:
            sight = self._eyes.aim(box)
        except BadInput as error:  # a box around nothing: looking again may tell
            self._note(result, "grounding", str(error))
            return None, str(error)
        ended = self._attempt.run(instruction, sight)
        text = f"attempt {number}: {ended.ending.value} ({ended.reason}), {ended.seconds:.1f} s"
        self._note(result, "attempt", text, look=self._eyes.look(), attempt=ended)
        self._eyes.drop()
        if ended.ending is Ending.HELD:
            return ended.ending, self._place(instruction, sight.look, result) if self._config.place else ""
        self._motions.let_go()
        self._motions.to_start()
        return ended.ending, f"{ended.ending.value} ({ended.reason})"

    def _place(self, instruction: str, before: Look, result: SessionResult) -> str:
        """Carry to the bin and let go. Why it is not there, empty where it is: what was held may slip on the way. A
        hand that feels nothing any more, high beside the table, may hold something thin: then the planner is asked."""
        why = ""
        if not self._motions.carry():
            verdict = self._planner.verify(instruction, before, self._eyes.look())
            why = "" if verdict.yes else f"dropped on the way to the bin ({verdict.reason})"
        self._motions.to_bin()  # also with a hand that is said to be empty: it may not be
        self._motions.let_go()
        self._motions.to_start()
        self._note(result, "dropped" if why else "placed", why or "let go over the bin")
        return why

    def _note(
        self,
        result: SessionResult,
        kind: str,
        text: str,
        box: Box | None = None,
        look: Look | None = None,
        attempt: AttemptResult | None = None,
    ) -> None:
        at_s = (self._robot.clock.now_ns() - self._begun_ns) / NS
        result.events.append(Event(at_s, kind, text, box, look, attempt))
        self._tell(f"{at_s:6.1f} s  {text}")


def _listed(missed: dict[str, str]) -> str:
    """Every instruction that failed, with why."""
    return "; ".join(f"{instruction}: {why}" for instruction, why in missed.items())
