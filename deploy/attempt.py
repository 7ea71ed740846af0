"""One attempt: the policy moves the robot at its rate, a monitor beside it says whether the object is held.

The planner is asked only when the hand has closed and risen, in a thread of its own: a model that takes seconds does
not hold the arm up. What it says decides when it has said so for a while: that nothing is held twice in a row,
``check_every_s`` apart, that the object is held for ``held_s``. So a hand that closed on air and rose is noticed,
which the policy does not: to it the state looks like a finished grasp. It opens, rises a little more and lets the
policy grasp again, as demonstrators do; ``regrasps`` and the attempt's time put an end to that. The same happens to a
hand that has not risen in the time that a grasp takes: it is blocked, or goes in circles.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ..hardware.clock import NS
from ..hardware.errors import BadInput
from ..hardware.interfaces import Robot
from ..hardware.values import Command
from .chunks import ChunkPolicy, Delay, FollowConfig, FollowCounts, Follower
from .eyes import Eyes, Sight
from .motions import Motions, palm_height_m
from .planner.base import FullLook, Look, Planner, Verdict

ARM_DOF = 7


class Ending(enum.Enum):
    """How an attempt ended."""

    HELD = "the object is held"
    EMPTY = "the hand closed and rose without the object"
    STUCK = "the hand did not come to grasp and rise"
    LOST = "the target was lost from sight"
    TIMEOUT = "the time was up"


@dataclass(frozen=True)
class AttemptConfig:
    """When an attempt ends."""

    seconds: float = 25.0
    """Longest attempt."""
    check_every_s: float = 0.5
    """Between two questions to the planner whether the object is held."""
    held_s: float = 1.0
    """So long it must be held: what slips does so soon."""
    raised_m: float = 0.10
    """The planner is asked from so far above the place where the hand closed."""
    closed: float = 0.8
    """The hand counts as closed when its fingers' mean opening is below this."""
    lost_s: float = 1.5
    """A target that is lost for so long ends the attempt, until the hand has closed."""
    grasp_s: float = 10.0
    """A hand that has not closed and risen after so long is stuck. A grasp takes 5 to 8 s."""
    regrasps: int = 2
    """So often a hand that came up empty, or is stuck, may try again within the attempt, without going back to the
    start."""
    again_m: float = 0.30
    """It opens, and rises until the palm is so far above the table."""
    follow: FollowConfig = field(default_factory=FollowConfig)

    def __post_init__(self) -> None:
        if self.regrasps < 0:
            raise BadInput(f"attempt.regrasps is {self.regrasps}: expected 0 or more.")
        for name in ("seconds", "check_every_s", "held_s", "raised_m", "lost_s", "grasp_s", "again_m"):
            if not getattr(self, name) > 0:
                raise BadInput(f"attempt.{name} is {getattr(self, name)}: expected a number above 0.")


@dataclass(frozen=True)
class AttemptResult:
    """What happened, for reports and statistics."""

    ending: Ending
    reason: str
    seconds: float
    ticks: int
    late_ticks: int
    changed: int  # commands that SafeRobot changed
    counts: FollowCounts
    regrasps: int = 0


class Attempt:
    """Runs attempts on one robot. ``watch`` is called with every tick's sight, to record or to show it."""

    def __init__(
        self,
        robot: Robot,
        eyes: Eyes,
        policy: ChunkPolicy,
        planner: Planner,
        rate_hz: float,
        config: AttemptConfig = AttemptConfig(),
        watch: Callable[[Sight], None] = lambda sight: None,
    ) -> None:
        """``robot`` is already wrapped in ``SafeRobot``."""
        self._robot, self._eyes, self._policy, self._planner = robot, eyes, policy, planner
        self._period_ns = round(NS / rate_hz)
        # The tracker follows from picture to picture, whoever moves the robot.
        self._motions = Motions(robot, rate_hz, meanwhile=lambda: watch(eyes.see()))
        self._config = config
        self._delay = Delay(policy, config.follow)  # of chunks, from attempt to attempt
        self._watch = watch

    def run(self, instruction: str, first: Sight) -> AttemptResult:
        """From ``first``, the moment in which the target was aimed at. Raises what robot, cameras and policy raise,
        with the robot stopped."""
        clock, config = self._robot.clock, self._config
        follower = Follower(self._policy, config.follow, self._delay)
        monitor = Monitor(self._planner, instruction, first.look, self._eyes.whole, config)
        tally = _Tally()
        try:
            follower.start(self._eyes.observation(first, self._policy.cameras))
            begun_ns = clock.now_ns()  # the first chunk was planned at rest
            end_ns = begun_ns + round(config.seconds * NS)
            while True:
                ended = self._follow(follower, monitor, end_ns, tally)
                again = ended is not None and ended[0] in (Ending.EMPTY, Ending.STUCK)
                if not again or tally.regrasps == config.regrasps or clock.now_ns() >= end_ns:
                    break
                tally.regrasps += 1
                self._motions.let_go()
                self._motions.rise(config.again_m)
                monitor.forget()
                follower.go_on(self._eyes.see_past_robot(self._policy.cameras))
        except BaseException:
            self._robot.stop()  # before anything is waited for: a question to the planner may take long
            raise
        finally:
            follower.close()
            monitor.close()
        ending, reason = ended or (Ending.TIMEOUT, f"{config.seconds:g} s")
        seconds = (clock.now_ns() - begun_ns) / NS
        return AttemptResult(
            ending, reason, seconds, tally.ticks, tally.late, tally.changed, follower.counts, tally.regrasps
        )

    def _follow(self, follower: Follower, monitor: Monitor, end_ns: int, tally: _Tally) -> tuple[Ending, str] | None:
        """Move until the monitor has decided; None: the time was up before."""
        clock, cameras = self._robot.clock, self._policy.cameras
        deadline_ns = clock.now_ns()
        while clock.now_ns() < end_ns:
            sight = self._eyes.see()
            command = follower.step(partial(self._eyes.observation, sight, cameras))
            applied = self._robot.send(Command(sight.look.captured_ns, command[:ARM_DOF], command[ARM_DOF:]))
            tally.changed += bool(applied.flags)
            self._watch(sight)
            ended = monitor.judge(sight, clock.now_ns())
            tally.ticks += 1
            if ended is not None:
                return ended
            deadline_ns += self._period_ns
            tally.late += clock.sleep_until_ns(deadline_ns) > 0
        return None


@dataclass
class _Tally:
    """Counts of an attempt."""

    ticks: int = 0
    late: int = 0
    changed: int = 0
    regrasps: int = 0


class Monitor:
    """Decides when an attempt is over. ``whole`` adds to a tick's look what the wrist camera sees."""

    def __init__(
        self,
        planner: Planner,
        instruction: str,
        before: Look,
        whole: Callable[[Look], FullLook],
        config: AttemptConfig,
    ) -> None:
        self._planner, self._instruction, self._before, self._config = planner, instruction, before, config
        self._whole = whole
        self._executor = ThreadPoolExecutor(1, "monitor") if config.follow.background else None
        self._asked: Future[Verdict] | None = None
        self._asked_ns = -NS
        self._said: Verdict | None = None  # the newest answer
        self._same_ns = 0  # when what it says was first asked and answered so
        self._lowest_m: float | None = None  # of the palm since the hand closed
        self._lost_ns: int | None = None
        self._begun_ns: int | None = None  # when this grasp was first looked at

    def judge(self, sight: Sight, now_ns: int) -> tuple[Ending, str] | None:
        """How the attempt ended and why, None while it goes on. Raises PlannerError where the planner cannot answer."""
        lost = self._lost(sight, now_ns)
        if lost is not None:
            return lost
        if self._asked is not None and self._asked.done():
            answer = self._asked.result()
            self._asked = None
            if self._said is None or self._said.yes != answer.yes:
                self._same_ns = self._asked_ns
            self._said = answer
            lasts_s = self._config.held_s if answer.yes else self._config.check_every_s
            if self._asked_ns - self._same_ns >= lasts_s * NS:
                return (Ending.HELD if answer.yes else Ending.EMPTY), answer.reason
        due = now_ns - self._asked_ns >= self._config.check_every_s * NS
        self._begun_ns = now_ns if self._begun_ns is None else self._begun_ns
        if self._raised_m(sight.look) < self._config.raised_m:
            self._said = None
            if now_ns - self._begun_ns >= self._config.grasp_s * NS:
                return Ending.STUCK, f"not in {self._config.grasp_s:g} s"
        elif self._asked is None and due:
            self._asked_ns = now_ns
            self._ask(self._whole(sight.look))
        return None

    def forget(self) -> None:
        """The hand begins anew: what was asked about it counts no more."""
        if self._asked is not None:
            self._asked.exception()  # waits for it; a planner that fails now will fail again, and is told then
        self._asked = self._said = self._lowest_m = self._lost_ns = self._begun_ns = None

    def close(self) -> None:
        """Wait for a question that is being answered."""
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def _ask(self, now: FullLook) -> None:
        if self._executor is not None:
            self._asked = self._executor.submit(self._planner.verify, self._instruction, self._before, now)
            return
        self._asked = Future()
        self._asked.set_result(self._planner.verify(self._instruction, self._before, now))

    def _raised_m(self, look: Look) -> float:
        """How far the palm has risen since the hand closed; 0 while it is open."""
        if float(np.mean(look.state[ARM_DOF + 1 : ARM_DOF + 5])) > self._config.closed:
            self._lowest_m = None
            return 0.0
        height = palm_height_m(look.state)
        self._lowest_m = height if self._lowest_m is None else min(self._lowest_m, height)
        return height - self._lowest_m

    def _lost(self, sight: Sight, now_ns: int) -> tuple[Ending, str] | None:
        """A closed hand hides what it holds: only an open one loses its target."""
        if self._lowest_m is not None or sight.mask is None or not sight.mask.lost:
            self._lost_ns = None
            return None
        self._lost_ns = now_ns if self._lost_ns is None else self._lost_ns
        if now_ns - self._lost_ns < self._config.lost_s * NS:
            return None
        return Ending.LOST, f"not seen for {self._config.lost_s:g} s"
