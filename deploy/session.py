"""From the user's prompt to objects in the bin: propose, ground, attempt, verify, place, until the planner is content.

One object after another, each in up to ``attempts`` attempts from the start pose (the paper's three, after which the
robot is reset); an object that was failed as often is named to the planner, which chooses another.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..hardware.clock import NS
from ..hardware.description import OPEN_HAND, PLACE_ARM_Q, RETURN_ARM_Q, START_ARM_Q
from ..hardware.errors import BadInput, DexLoopError
from ..hardware.interfaces import Robot
from ..hardware.joint_path import JointPath, SpeedLimits
from ..hardware.rig import DEXGRASPVLA_RIG
from ..hardware.values import Command
from .attempt import Attempt, AttemptResult, Ending
from .eyes import Eyes
from .planner.base import Box, Look, Planner

Array = NDArray[np.float64]
JERK_RAD_S3 = 160.0


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
    kind: str  # proposal, grounding, attempt, placed, question, end, error
    text: str
    box: Box | None = None
    look: Look | None = None  # what was seen
    attempt: AttemptResult | None = None


@dataclass
class SessionResult:
    """What happened."""

    prompt: str
    end: End | None = None  # None: stopped by an error, which the last event names
    events: list[Event] = field(default_factory=list)
    grasped: list[str] = field(default_factory=list)  # instructions that ended with the object held
    failed: list[str] = field(default_factory=list)


class Session:
    """Runs prompts on one robot. ``robot`` is already wrapped in ``SafeRobot``; ``tell`` shows one line to the user;
    ``answer`` puts the planner's question to the user, whose answer is the new prompt ("" = no answer)."""

    def __init__(
        self,
        robot: Robot,
        eyes: Eyes,
        planner: Planner,
        attempt: Attempt,
        rate_hz: float,
        config: SessionConfig = SessionConfig(),
        tell: Callable[[str], None] = lambda line: None,
        answer: Callable[[str], str] = lambda question: "",
    ) -> None:
        self._robot, self._eyes, self._planner, self._attempt = robot, eyes, planner, attempt
        self._period_ns = round(NS / rate_hz)
        self._config, self._tell, self._answer = config, tell, answer
        arm = DEXGRASPVLA_RIG.arms[0].arm
        limits = SpeedLimits(arm.speeds, np.full(7, arm.acceleration_rad_s2), np.full(7, JERK_RAD_S3))
        self._limits = limits.scaled(config.pace)

    def run(self, prompt: str) -> SessionResult:
        """Until the prompt is done, or cannot be. Whatever goes wrong, the robot is stopped first; errors of devices,
        planner and policy end the session with an event, anything else is raised."""
        result = SessionResult(prompt)
        self._begun_ns = self._robot.clock.now_ns()
        with self._stopping(result):
            result.end = self._loop(result)
            self._note(result, "end", result.end.value)
        return result

    @contextmanager
    def _stopping(self, result: SessionResult) -> Iterator[None]:
        try:
            yield
        except DexLoopError as error:
            self._robot.stop()
            self._note(result, "error", str(error))
        except BaseException:
            self._robot.stop()
            raise

    def _loop(self, result: SessionResult) -> End:
        self._go_to_start()
        first = self._eyes.look()
        for _ in range(self._config.objects):
            proposal = self._planner.propose(result.prompt, first, self._eyes.look(), tuple(result.failed))
            if proposal.question:
                self._note(result, "question", proposal.question)
                answer = self._answer(proposal.question)
                if not answer:
                    return End.ASKED
                result.prompt = answer
                continue
            if proposal.nothing_left:
                if result.failed:
                    return End.FAILED
                return End.DONE if result.grasped else End.NOTHING
            self._note(result, "proposal", proposal.instruction)
            self._grasp(proposal.instruction, result)
            if not self._config.place and result.grasped:
                return End.DONE
            verdict = self._planner.complete(result.prompt, first, self._eyes.look())
            if verdict.yes:
                return End.DONE
        return End.FULL

    def _grasp(self, instruction: str, result: SessionResult) -> None:
        """One object, in as many attempts as it takes."""
        for number in range(1, self._config.attempts + 1):
            look = self._eyes.look()
            grounding = self._planner.ground(instruction, look)
            self._note(result, "grounding", grounding.label or grounding.reason, box=grounding.box, look=look)
            if grounding.box is None:
                break
            try:
                sight = self._eyes.aim(grounding.box)
            except BadInput as error:  # a box around nothing: looking again may tell
                self._note(result, "grounding", str(error))
                continue
            ended = self._attempt.run(instruction, sight)
            text = f"attempt {number}: {ended.ending.value} ({ended.reason}), {ended.seconds:.1f} s"
            self._note(result, "attempt", text, look=self._eyes.look(), attempt=ended)
            self._eyes.drop()
            if ended.ending is Ending.HELD:
                result.grasped.append(instruction)
                if self._config.place:
                    self._place()
                    self._note(result, "placed", "let go over the bin")
                return
            self._let_go()
            self._go_to_start()
        result.failed.append(instruction)

    # -- fixed motions ---------------------------------------------------------------------------------------------

    def _place(self) -> None:
        self._move([np.array(RETURN_ARM_Q), np.array(PLACE_ARM_Q)], None)
        self._let_go()
        self._go_to_start()

    def _go_to_start(self) -> None:
        self._move([np.array(START_ARM_Q)], np.array(OPEN_HAND))

    def _let_go(self, seconds: float = 0.8) -> None:
        """Open where the arm is."""
        state = self._robot.state()
        q, hand, ticks = state.arm.q.copy(), state.hand.opening.copy(), round(seconds * NS / self._period_ns)
        self._follow((q, hand + (np.array(OPEN_HAND) - hand) * k / ticks) for k in range(1, ticks + 1))

    def _move(self, waypoints: list[Array], hand: Array | None) -> None:
        """Through ``waypoints`` (7,) rad; the hand goes to ``hand`` in the first second, None holds its commands."""
        state = self._robot.state()
        path = JointPath(np.array([state.arm.q, *waypoints]), self._limits)
        start = state.hand.opening if hand is not None else self._holding(state.hand.opening)
        ticks = int(np.ceil(path.duration_s * NS / self._period_ns))
        period_s = self._period_ns / NS

        def targets() -> Iterator[tuple[Array, Array]]:
            for k in range(1, ticks + 1):
                share = min(1.0, k * period_s)
                yield path.at(k * period_s), start if hand is None else start + share * (hand - start)

        self._follow(targets())

    @staticmethod
    def _holding(opening: Array) -> Array:
        """Fingers that hold something are stopped by it: the command must stay beyond where they are."""
        squeezed = np.clip(opening - 0.12, 0.0, 1.0)
        squeezed[5] = opening[5]  # the thumb's rotation presses on nothing
        return squeezed

    def _follow(self, targets: Iterator[tuple[Array, Array]]) -> None:
        clock = self._robot.clock
        deadline_ns = clock.now_ns()
        for q, hand in targets:
            deadline_ns += self._period_ns
            clock.sleep_until_ns(deadline_ns)
            self._robot.send(Command(clock.now_ns(), q, hand))

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
