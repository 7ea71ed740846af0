"""Online limiter of one joint's commands: position, velocity, acceleration and jerk, in discrete time.

Commands are absolute positions at the times at which they are sent. With x the last command sent, v and a its first
and second backward differences, and h the time since it was sent, the next command x' is

    a' = chosen,  v' = v + a' h,  x' = x + v' h,

so that bounds on a', v' and (a' - a) / h are bounds on the differences of what really goes out. Three rules choose a':

1. *Pass*: where the joint follows its target already and x' = target obeys every bound, it is taken as it is, bit for
   bit. Nothing is filtered while commands are within limits, so that no lag is added.
2. *Catch up*: otherwise x' is as near to the target as the bounds allow, with the added demand that the motion can
   still come to rest relative to the target (whose velocity is known from its last two values) without passing it.
3. *Viable*: the bounds on a' include those that later steps depend on. From a', a ramp of the acceleration to zero at
   full jerk must end within the velocity limit (solved exactly in discrete time), and a stop at full jerk and
   acceleration must end before the joint's limit (the S-curve's closed form, which is on the safe side of the discrete
   sum). By induction a lawful next step always exists.

Compare Kroeger 2011, "Opening the door to new sensor-based robot control: the Reflexxes motion libraries", for the
continuous time-optimal problem; we want pass-through and a guarantee on differences instead of optimal time.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace


class Bound(enum.Enum):
    """Which bound decided a step."""

    NONE = "none"
    POSITION = "position"
    VELOCITY = "velocity"
    ACCELERATION = "acceleration"
    JERK = "jerk"


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of one joint: rad, rad/s, rad/s2, rad/s3."""

    lower: float
    upper: float
    speed: float
    acceleration: float
    jerk: float


@dataclass(frozen=True, slots=True)
class Motion:
    """The last command of one joint and its backward differences."""

    x: float  # rad
    v: float = 0.0  # rad/s
    a: float = 0.0  # rad/s2

    @property
    def at_rest(self) -> bool:
        return self.v == 0.0 and self.a == 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """The next command of one joint, and why it is not the target."""

    motion: Motion
    bound: Bound


_SLACK = 1e-9  # rounding: a difference this much (relative) over its bound is within it
_TOUCH_RAD = 1e-9  # coming to rest this far outside the joint's range is rounding; the command itself is clipped
_BISECTIONS = 24


def rest_offset(v: float, a: float, limit: Bounds) -> float:
    """How far a joint moves until it rests, from velocity v and acceleration a, at full acceleration and jerk.

    Continuous time: |a| to the peak, hold, back to 0. Signed, rad.
    """
    effective = v + a * abs(a) / (2.0 * limit.jerk)  # velocity once the acceleration is ramped to zero
    if effective < 0.0:
        return -rest_offset(-v, -a, limit)
    start = v + a * a / (2.0 * limit.jerk)  # the S-curve that (v, a) lies on starts at this velocity with a = 0
    peak = math.sqrt(start * limit.jerk)
    if peak <= limit.acceleration:
        whole = start * math.sqrt(start / limit.jerk)
    else:
        whole = 0.5 * start * (start / limit.acceleration + limit.acceleration / limit.jerk)
    ramp = abs(a) / limit.jerk
    if a >= 0.0:
        return whole + v * ramp + a * ramp * ramp / 3.0
    return whole - (start * ramp - limit.jerk * ramp**3 / 6.0)


def step(now: Motion, target: float, target_v: float, following: bool, h: float, limit: Bounds) -> Step:
    """The next command, ``h`` s after ``now``. ``following``: the last command was the last target.

    ``target`` must lie within the position limits; ``target_v`` is its velocity in rad/s, used to catch up.
    """
    low, high, low_why, high_why = _viable(now, h, limit)
    wanted = ((target - now.x) / h - now.v) / h
    slack = _SLACK * limit.acceleration + 1e-12 / (h * h)
    if low - slack <= wanted <= high + slack and (following or _can_stay(now, target, target_v, wanted, h, limit)):
        # x' is the target itself: computing it from a' would round.
        return Step(_reached(now, target, h), Bound.NONE)
    chosen = _catch_up(now, target, target_v, low, high, h, limit)
    why = high_why if chosen >= high else low_why if chosen <= low else Bound.ACCELERATION
    return Step(_advance(now, chosen, h, limit), why)


def brake(now: Motion, h: float, limit: Bounds) -> Motion:
    """One step towards rest at full acceleration and jerk; rest itself is kept exactly."""
    if now.at_rest:
        return now
    low, high = max(now.a - limit.jerk * h, -limit.acceleration), min(now.a + limit.jerk * h, limit.acceleration)
    # Decelerate as hard as still lets the acceleration return to zero at zero velocity, no later.
    chosen = max(low, -_ramp_bound(-now.v, 0.0, limit.jerk, h)) if now.v > 0.0 else low
    if now.v <= 0.0:
        chosen = min(high, _ramp_bound(now.v, 0.0, limit.jerk, h))
    chosen = min(max(chosen, low), high)
    after = _advance(now, chosen, h, limit)
    if abs(after.v) < 1e-9 and abs(after.a) <= limit.jerk * h:
        return replace(after, v=0.0)
    return after


def _viable(now: Motion, h: float, limit: Bounds) -> tuple[float, float, Bound, Bound]:
    """Range of a' that keeps every bound now and later, and what decides its ends."""
    lows = [
        (now.a - limit.jerk * h, Bound.JERK),
        (-limit.acceleration, Bound.ACCELERATION),
        (-_ramp_bound(-now.v, limit.speed, limit.jerk, h), Bound.VELOCITY),
    ]
    highs = [
        (now.a + limit.jerk * h, Bound.JERK),
        (limit.acceleration, Bound.ACCELERATION),
        (_ramp_bound(now.v, limit.speed, limit.jerk, h), Bound.VELOCITY),
    ]
    low, low_why = max(lows, key=lambda pair: pair[0])
    high, high_why = min(highs, key=lambda pair: pair[0])
    if low > high:  # only where h changed: slowing down comes first
        low = high = max(min(high, limit.acceleration), -limit.acceleration)
    if _rest(now, high, h, limit) > limit.upper + _TOUCH_RAD:
        high, high_why = _last_below(now, low, high, h, limit, limit.upper, 0.0), Bound.POSITION
    if _rest(now, low, h, limit) < limit.lower - _TOUCH_RAD:
        low, low_why = _first_above(now, low, high, h, limit, limit.lower, 0.0), Bound.POSITION
    return low, high, low_why, high_why


def _catch_up(now: Motion, target: float, target_v: float, low: float, high: float, h: float, limit: Bounds) -> float:
    """The a' after which coming to rest relative to the target ends on it, or the nearest in range."""
    if _rest(now, high, h, limit, target_v) <= target:
        return high
    if _rest(now, low, h, limit, target_v) >= target:
        return low
    return _last_below(now, low, high, h, limit, target, target_v)


def _rest(now: Motion, a: float, h: float, limit: Bounds, drift: float = 0.0) -> float:
    """Where the joint comes to rest (relative to a target that drifts) after a step with acceleration ``a``."""
    v = now.v + a * h
    return now.x + v * h + rest_offset(v - drift, a, limit)


def _last_below(now: Motion, low: float, high: float, h: float, limit: Bounds, position: float, drift: float) -> float:
    """Largest a' in range that rests at or below ``position`` (``low`` where none does). Rest grows with a'."""
    if _rest(now, low, h, limit, drift) > position:
        return low
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        if _rest(now, middle, h, limit, drift) <= position:
            low = middle
        else:
            high = middle
    return low


def _first_above(now: Motion, low: float, high: float, h: float, limit: Bounds, position: float, drift: float) -> float:
    """Smallest a' in range that rests at or above ``position`` (``high`` where none does)."""
    if _rest(now, high, h, limit, drift) < position:
        return high
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        if _rest(now, middle, h, limit, drift) >= position:
            high = middle
        else:
            low = middle
    return high


def _can_stay(now: Motion, target: float, target_v: float, a: float, h: float, limit: Bounds) -> bool:
    """Having stepped onto the target with acceleration ``a``, the next step can stay on it."""
    v = (target - now.x) / h
    following = (target_v - v) / h
    reach = limit.jerk * h * (1.0 + _SLACK)
    return abs(following) <= min(limit.acceleration, reach) and abs(following - a) <= reach


def _ramp_bound(v: float, speed: float, jerk: float, h: float) -> float:
    """Largest a' from which the acceleration, lowered by jerk * h each later step, is zero at v <= speed.

    With n later steps of positive acceleration the final velocity is v + (n + 1) a' h - jerk h^2 n (n + 1) / 2,
    for n jerk h <= a' < (n + 1) jerk h.
    """
    room = speed - v
    if room <= 0.0:
        return room / h
    unit = jerk * h * h
    n = math.floor(0.5 * (math.sqrt(1.0 + 8.0 * room / unit) - 1.0))
    return (room + 0.5 * unit * n * (n + 1)) / ((n + 1) * h)


def _advance(now: Motion, a: float, h: float, limit: Bounds) -> Motion:
    v = now.v + a * h
    x = now.x + v * h
    inside = min(max(x, limit.lower), limit.upper)
    return Motion(x, v, a) if inside == x else _reached(now, inside, h)


def _reached(now: Motion, x: float, h: float) -> Motion:
    v = (x - now.x) / h
    return Motion(x, v, (v - now.v) / h)
