"""SafeRobot: the one layer between every operator, policy or replay and the arm. Nothing bypasses it.

It has the robot's own interface. A command that keeps every rule is passed on as it is, the very object; any other is
changed to keep the rules, and the answer says which rule and why. The rules, in the order in which they are
applied (``docs/decisions/22-safety.md``):

1. *Fresh and finite*: an input older than ``max_age_s``, or a number that is not finite, brakes the arm to rest; the
   hand holds what it holds. A silent caller is noticed by the robot's own state readings, on which a watchdog runs.
2. *Ranges*: joints inside the rig's and the arm's limits, openings in 0..1.
3. *Motion*: velocity, acceleration and jerk of each joint's command sequence (:mod:`dexloop.hardware.limiter`).
4. *Space*: the configuration in which the arm would come to rest after this step must keep the palm in the workspace
   and all clearances, or at least not worsen what is violated already. Otherwise a short step is tried, then one along
   what is in the way, or else the arm brakes: to the rest that the step before had found admissible. So a limit in
   space never needs more deceleration than the limits in motion allow, and moving away is always possible.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, fields, replace

import numpy as np

from .clock import NS, Clock
from .description import RIG_LIMITS_RAD, RigDescription
from .errors import BadInput, DeviceError
from .interfaces import Robot, RobotSink, Unsubscribe
from .limiter import Bound, Bounds, Motion, brake, step
from .space_guard import Margins, SpaceGuard
from .values import Applied, ArmState, Array, Command, HandState, RobotNames, RobotState, Safety

_FLAG_OF = {
    Bound.POSITION: Safety.JOINT_LIMIT,
    Bound.VELOCITY: Safety.VELOCITY,
    Bound.ACCELERATION: Safety.ACCELERATION,
    Bound.JERK: Safety.JERK,
}
_WORD_OF = {
    Safety.JOINT_LIMIT: "at a joint limit",
    Safety.VELOCITY: "faster than the velocity limit",
    Safety.ACCELERATION: "beyond the acceleration limit",
    Safety.JERK: "beyond the jerk limit",
}
_CREEP_RAD_S = 0.6  # fastest motion along what is in the way
_LONGEST_BRAKING = 400  # steps; braking from full speed takes 40 at 100 Hz
_MOVED_RAD = 0.1  # a resting arm this far from its last command was moved by something else
_MOVING_RAD_S = 0.05  # measured speed above which a silent caller's arm is braked and not just held


@dataclass(frozen=True)
class SafetyConfig:
    """What SafeRobot allows. The defaults are for a supervised rig at full speed; lower ``speed_factor`` at first."""

    speed_factor: float = 0.8  # of each joint's top speed
    speed_cap_rad_s: float = 3.1  # the controller's follow mode refuses 180 deg/s and more
    acceleration_factor: float = 0.9  # of the arm's 600 deg/s2
    jerk_rad_s3: float = 500.0
    limit_margin_rad: float = 0.0  # kept from each joint's limit
    self_margin_m: float = 0.01
    table_margin_m: float = 0.008  # of links, palm and wrist camera to table, bin and column
    finger_margin_m: float = -0.004  # of the phalanges: fingertips may press a little on what they grasp from
    max_age_s: float = 0.25  # of the input a command was made from, and of the last command
    nominal_period_s: float = 0.05  # the caller's: given to a first command, which has no predecessor
    min_period_s: float = 0.002  # a command that follows sooner replaces the one before
    reengage_speed_factor: float = 0.3  # of the speed limit, right after a stop or stale input
    reengage_s: float = 1.0  # until full speed is allowed again
    reengage_hand_1_s: float = 1.0  # openings per second while the fingers catch up

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not math.isfinite(value):
                raise BadInput(f"safety {item.name} is {value}, expected a finite number")
            if value <= 0.0 and item.name not in ("limit_margin_rad", "finger_margin_m", "self_margin_m"):
                raise BadInput(f"safety {item.name} is {value:g}, expected a number above 0")
        for name in ("speed_factor", "acceleration_factor", "reengage_speed_factor"):
            if getattr(self, name) > 1.0:
                raise BadInput(f"safety {name} is {getattr(self, name):g}, expected at most 1: the arm can do no more")
        if not 0.0 <= self.limit_margin_rad < 1.0:
            raise BadInput(f"safety limit_margin_rad is {self.limit_margin_rad:g}, expected 0 to 1 rad")
        if self.min_period_s >= self.nominal_period_s or self.nominal_period_s > self.max_age_s:
            raise BadInput(
                "safety periods must rise: min_period_s < nominal_period_s <= max_age_s, got "
                f"{self.min_period_s:g}, {self.nominal_period_s:g}, {self.max_age_s:g}"
            )


@dataclass(frozen=True, slots=True)
class _Plan:
    """One step of all joints."""

    motions: tuple[Motion, ...]  # 7
    flags: Safety

    @property
    def q(self) -> Array:
        return np.array([motion.x for motion in self.motions])


class SafeRobot:
    """A robot that lets only safe commands through. Implements ``Robot``; ``resume`` ends a ``stop``.

    Thread-safe. The watchdog runs inside the robot's state readings, so on the twin it acts in simulated time, from the
    loop's own thread, and on a driver from the reader's thread, whether or not anybody calls ``send``.
    """

    names: RobotNames
    clock: Clock

    def __init__(self, robot: Robot, rig: RigDescription, config: SafetyConfig | None = None, arm: int = 0) -> None:
        self._robot = robot
        self.config = config or SafetyConfig()
        self.names = robot.names
        self.clock = robot.clock
        self._bounds = _joint_bounds(rig, arm, self.config)
        self._limits = np.array([[b.lower for b in self._bounds], [b.upper for b in self._bounds]])
        margins = Margins(self.config.self_margin_m, self.config.table_margin_m, self.config.finger_margin_m)
        self._guard = SpaceGuard(rig, margins, arm)
        self._lock = threading.RLock()
        self._stopped = self._closed = self._released = False
        self._sent_ns: int | None = None  # last command; None: nothing sent, or the arm at rest since
        self._watched_ns: int | None = None  # last step of the watchdog, while it acts
        self._slow_since_ns: int | None = None  # re-engaging since then
        self._hand_catching_up = False
        state = robot.state()
        self._hand: Array = np.clip(state.hand.opening, 0.0, 1.0)  # last command; before it, what the hand does
        self._start_from(state)
        self._unsubscribe = robot.subscribe(self._watch)

    # -- the robot's interface -------------------------------------------------------------------------------------

    def state(self) -> RobotState:
        """Newest reading of the robot."""
        return self._robot.state()

    def subscribe(self, sink: RobotSink) -> Unsubscribe:
        """Every reading of the robot, as it pushes them."""
        return self._robot.subscribe(sink)

    def send(self, command: Command) -> Applied:
        """Let ``command`` through as far as it is safe. With flags == 0 the robot was given ``command`` itself; in any
        case the answer's command is what the robot says that it applied. Raises BadInput for arrays of the wrong
        shape, DeviceError when the link is gone."""
        if np.shape(command.arm_q) != (7,) or np.shape(command.hand) != (6,):
            raise BadInput(
                f"got a command of shapes {np.shape(command.arm_q)} and {np.shape(command.hand)}, expected (7,) joint "
                "angles and (6,) openings"
            )
        with self._lock:
            if self._closed:
                raise DeviceError("the robot was closed: open it again before sending commands")
            now_ns = self.clock.now_ns()
            if self._stopped:
                held = Command(command.captured_ns, self._q(), self._hand.copy())
                return Applied(held, now_ns, Safety.STOPPED, "stopped: nothing moves until resume")
            safe, flags, reason = self._judge(command, now_ns)
            answer = self._robot.send(safe)
            self._sent_ns, self._watched_ns = now_ns, None
            return Applied(
                answer.command, answer.sent_ns, flags | answer.flags, "; ".join(r for r in (reason, answer.reason) if r)
            )

    def stop(self) -> None:
        """Arm slows to a stop, hand holds; nothing moves until :meth:`resume`. Never raises."""
        with self._lock:
            self._stopped = True
            self._robot.stop()

    def resume(self) -> None:
        """End a stop: the next command is approached from where the robot is now, slowly at first."""
        with self._lock:
            self._start_from(self._robot.state())
            self._stopped = False
            self._reengage(self.clock.now_ns())

    def detach(self) -> None:
        """Stop watching and send nothing more; the robot stays open for its owner. Safe to call twice."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._unsubscribe()

    def close(self) -> None:
        """Release the robot. Safe to call twice."""
        self.detach()
        with self._lock:
            released, self._released = self._released, True
        if not released:
            self._robot.close()

    # -- judgement -------------------------------------------------------------------------------------------------

    def _judge(self, command: Command, now_ns: int) -> tuple[Command, Safety, str]:
        """What to send instead, why, and in words. Moves the limiter's state on."""
        h = self._period(now_ns)
        age_s = (now_ns - command.captured_ns) / NS
        if not (np.isfinite(command.arm_q).all() and np.isfinite(command.hand).all()):
            return self._brake(command, h, Safety.NOT_FINITE, "the command has numbers that are not finite")
        if age_s > self.config.max_age_s:
            self._reengage(now_ns)
            text = f"the input is {age_s:.2f} s old (at most {self.config.max_age_s:g} s): slowing to a stop"
            return self._brake(command, h, Safety.STALE, text)
        bounds = self._bounds_now(now_ns)
        lower, upper = self._limits
        target = np.clip(command.arm_q, lower, upper)
        hand, flags = self._hand_step(command.hand, h)
        if (target != command.arm_q).any():
            flags |= Safety.JOINT_LIMIT
        plan = self._plan(target, h, bounds)
        plan, blocked, reason = self._fit(plan, target, hand, h, bounds)
        flags |= plan.flags | blocked
        self._target = target
        self._motions, self._hand = plan.motions, hand
        caught_up = (plan.q == target).all() and not self._hand_catching_up
        if caught_up and self._slow_since_ns is not None and not plan.flags:
            self._slow_since_ns = None
        if flags == Safety.NONE:
            return command, flags, ""
        return Command(command.captured_ns, plan.q, hand.copy()), flags, reason or _in_words(flags)

    def _plan(self, target: Array, h: float, bounds: list[Bounds]) -> _Plan:
        """Every joint's next step towards ``target``, from the base that the last command started from or made."""
        flags = Safety.NONE
        motions = []
        for i, limit in enumerate(bounds):
            now, goal, before = self._base[i], float(target[i]), float(self._base_target[i])
            drift = (goal - before) / h
            if abs(drift) > limit.speed:
                drift = 0.0  # a jump, not a motion
            taken = step(now, goal, drift, now.x == before, h, limit)
            flags |= _FLAG_OF.get(taken.bound, Safety.NONE)
            motions.append(taken.motion)
        return _Plan(tuple(motions), flags)

    def _fit(
        self, plan: _Plan, target: Array, hand: Array, h: float, bounds: list[Bounds]
    ) -> tuple[_Plan, Safety, str]:
        """The plan, a shorter one, one along what is in the way, or braking: the first that is admissible."""
        flag, reason = self._check(plan, hand, h)
        if not flag:
            return plan, Safety.NONE, ""
        here = np.array([motion.x for motion in self._base])
        # A step to which no joint is limited on its own: all move in proportion, straight towards where they should.
        speed = max(abs(motion.v) for motion in self._base)
        reach = min(0.5 * bounds[0].acceleration * h + speed, _CREEP_RAD_S) * h
        way = target - here
        steps = [way * min(reach / max(float(np.abs(way).max()), 1e-9), 1.0)]
        steps.append(self._guard.slide(here, way, hand, reach))
        for step_rad in steps:
            short = self._plan(np.clip(here + step_rad, *self._limits), h, bounds)
            if not self._check(short, hand, h)[0]:
                return short, flag, reason
        still = _Plan(tuple(brake(m, h, b) for m, b in zip(self._base, bounds, strict=True)), Safety.NONE)
        self._guard.braked(self._way(still, h)[-1], hand)
        return still, flag, reason

    def _check(self, plan: _Plan, hand: Array, h: float) -> tuple[Safety, str]:
        """Whether the configuration in which the plan comes to rest is admissible."""
        return self._guard.judge(self._way(plan, h), hand)

    def _way(self, plan: _Plan, h: float) -> Array:
        """(n, 7) rad: the plan's configuration, and those through which the arm brakes from it to rest."""
        paths = []
        for motion, bound in zip(plan.motions, self._bounds, strict=True):
            path = [motion.x]
            while not (motion := brake(motion, h, bound)).at_rest and len(path) < _LONGEST_BRAKING:
                path.append(motion.x)
            paths.append([*path, motion.x])
        n = max(len(path) for path in paths)
        return np.array([path + path[-1:] * (n - len(path)) for path in paths]).T

    def _hand_step(self, asked: Array, h: float) -> tuple[Array, Safety]:
        """Openings in range; after a stop the fingers approach what is asked at a limited rate."""
        hand = np.clip(asked, 0.0, 1.0)
        flags = Safety.JOINT_LIMIT if (hand != asked).any() else Safety.NONE
        if self._hand_catching_up:
            reach = self.config.reengage_hand_1_s * h
            limited = np.clip(hand, self._base_hand - reach, self._base_hand + reach)
            if (limited == hand).all():
                self._hand_catching_up = False
            else:
                hand, flags = limited, flags | Safety.VELOCITY
        return hand, flags

    def _brake(self, command: Command, h: float, flag: Safety, reason: str) -> tuple[Command, Safety, str]:
        """A step towards rest; the hand holds."""
        self._motions = tuple(brake(m, h, b) for m, b in zip(self._base, self._bounds, strict=True))
        self._hand = self._base_hand
        self._target = self._q()
        return Command(command.captured_ns, self._q(), self._hand.copy()), flag, reason

    # -- time ------------------------------------------------------------------------------------------------------

    def _start_from(self, state: RobotState) -> None:
        """At rest where the robot is. The hand's last command stands: what it holds is held by a command that the
        object keeps it from reaching, and the measured opening in its place would let go."""
        self._motions = tuple(Motion(x) for x in state.arm.q.tolist())
        self._target = self._q()
        self._guard.start_from(self._q(), self._hand)
        self._sent_ns = self._watched_ns = None
        self._rebase()

    def _period(self, now_ns: int) -> float:
        """Time since the command that the next one follows, s; takes that command as the new base."""
        config = self.config
        if self._sent_ns is not None and not 0 <= now_ns - self._sent_ns <= config.max_age_s * NS:
            # Fallen silent, or a new world whose time starts anew: at rest meanwhile.
            self._rest(now_ns)
        if self._sent_ns is None:
            self._rebase()
            return config.nominal_period_s
        if now_ns - self._sent_ns >= config.min_period_s * NS:
            self._rebase()
        if self._base_ns is None:
            return config.nominal_period_s
        return (now_ns - self._base_ns) / NS

    def _rebase(self) -> None:
        """The last command becomes what the next ones start from."""
        self._base, self._base_hand, self._base_ns = self._motions, self._hand, self._sent_ns
        self._base_target = self._target

    def _rest(self, now_ns: int) -> None:
        """Take the arm as resting at its last command, or where it is if something else has moved it."""
        state = self._robot.state()
        if np.abs(state.arm.q - self._q()).max() > _MOVED_RAD:
            self._start_from(state)
        else:
            self._motions = tuple(Motion(m.x) for m in self._motions)
            self._sent_ns = self._watched_ns = None
        self._reengage(now_ns)

    def _bounds_now(self, now_ns: int) -> list[Bounds]:
        """The joints' bounds; slower for a while after a stop or stale input."""
        if self._slow_since_ns is None:
            return self._bounds
        passed = max(now_ns - self._slow_since_ns, 0) / NS / self.config.reengage_s
        if passed >= 1.0:
            self._slow_since_ns = None
            return self._bounds
        factor = self.config.reengage_speed_factor
        factor += (1.0 - factor) * passed
        return [
            replace(b, speed=max(factor * b.speed, abs(m.v))) for b, m in zip(self._bounds, self._base, strict=True)
        ]

    def _reengage(self, now_ns: int) -> None:
        self._slow_since_ns = now_ns
        self._hand_catching_up = True

    def _watch(self, reading: ArmState | HandState) -> None:
        """On every reading of the arm: brake it where the caller has fallen silent."""
        if not isinstance(reading, ArmState):
            return
        # A send is in progress where the lock is taken, so the caller is not silent; and waiting here could be waiting
        # for this very thread, when a driver's send needs its reader.
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._sent_ns is None or self._stopped or self._closed:
                return
            # On the stepped clock "now" stands still while the world advances: the reading's own time does not.
            now_ns = max(reading.captured_ns, self.clock.now_ns())
            if now_ns - self._sent_ns > self.config.max_age_s * NS:
                self._brake_silent(reading, now_ns)
        finally:
            self._lock.release()

    def _brake_silent(self, reading: ArmState, now_ns: int) -> None:
        """One step of the watchdog. The arm has reached the last command meanwhile, unless it lags behind: what it is
        measured to move still is what there is to brake."""
        if self._watched_ns is None:
            self._watched_ns = now_ns
            self._motions = tuple(
                Motion(m.x, min(max(v, -b.speed), b.speed) if abs(v) > _MOVING_RAD_S else 0.0)
                for m, v, b in zip(self._motions, reading.dq.tolist(), self._bounds, strict=True)
            )
            return
        h = (now_ns - self._watched_ns) / NS
        if h < self.config.min_period_s or all(m.at_rest for m in self._motions):
            return
        self._motions = tuple(brake(m, h, b) for m, b in zip(self._motions, self._bounds, strict=True))
        self._watched_ns = now_ns
        try:
            self._robot.send(Command(now_ns, self._q(), self._hand.copy()))
        except DeviceError:
            return  # nobody to tell in the reader's thread: the caller's next send fails in the same way

    def _q(self) -> Array:
        return np.array([motion.x for motion in self._motions])


def _joint_bounds(rig: RigDescription, arm: int, config: SafetyConfig) -> list[Bounds]:
    """The rig's own limits within the arm's, and the configured shares of its speed and acceleration."""
    description = rig.arms[arm].arm
    acceleration = config.acceleration_factor * description.acceleration_rad_s2
    bounds = []
    for link, rig_limit in zip(description.links, RIG_LIMITS_RAD, strict=True):
        limit = min(link.limit_rad, rig_limit) - config.limit_margin_rad
        speed = min(config.speed_factor * link.speed_rad_s, config.speed_cap_rad_s)
        bounds.append(Bounds(-limit, limit, speed, acceleration, config.jerk_rad_s3))
    return bounds


def _in_words(flags: Safety) -> str:
    """One sentence for flags of ranges and motion."""
    return "slowed: " + ", ".join(word for flag, word in _WORD_OF.items() if flag in flags)
