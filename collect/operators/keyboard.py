"""A person at the keyboard: keys move the palm, open and close the hand, and run the episode."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...hardware.clock import NS
from ...hardware.description import RigDescription
from ...hardware.errors import BadInput
from ...hardware.geometry import Transform, interpolate, pose_error, rotation_exp, transform
from ...hardware.hand_kinematics import HandKinematics
from ...hardware.rig import DEXGRASPVLA_RIG
from ...hardware.values import Command, RobotState
from ...retarget.hand_objective import HandObjective, HandTarget, ObjectiveConfig
from ...retarget.wrist import WristRetargetConfig, WristRetargeter
from .base import Event, OperatorInput
from .keys import KeySource, open_keys

Array = NDArray[np.float64]

# Palm velocity by key: world axes (x away from the column, y left, z up), then turns about the palm's own axes.
TWIST: dict[str, tuple[int, float]] = {
    "w": (0, 1.0), "s": (0, -1.0), "up": (0, 1.0), "down": (0, -1.0),
    "a": (1, 1.0), "d": (1, -1.0), "left": (1, 1.0), "right": (1, -1.0),
    "r": (2, 1.0), "f": (2, -1.0),
    "u": (3, 1.0), "o": (3, -1.0), "i": (4, 1.0), "k": (4, -1.0), "j": (5, 1.0), "l": (5, -1.0),
}  # fmt: skip
OPEN, CLOSE, PINCH, THUMB_IN, THUMB_OUT = "h", "g", "p", "t", "b"
NOTE = "m"
FASTER, SLOWER = ("+", "="), ("-", "_")
HELP = (
    "move w/s away/near, a/d left/right, r/f up/down · turn u/o roll, i/k pitch, j/l yaw · "
    "hand g close, h open, p pinch, t/b thumb in/out · +/- speed\n"
    "space start or pause · enter end, then keep · backspace discard · z redo · y/n success/failure · m note · q quit"
)
BENDS = slice(0, 5)  # of HAND_MOTORS
THUMB_ROTATION = 5
PINCH_MOTORS = (0, 1, 5)  # thumb bend, index, thumb rotation


@dataclass(frozen=True)
class KeyboardConfig:
    """Speeds at the middle setting."""

    speed_m_s: float = 0.12
    turn_rad_s: float = 0.6
    hand_speed_per_s: float = 0.8
    """Strokes per second."""
    speed_steps: tuple[float, ...] = (0.25, 0.5, 1.0, 1.5, 2.0)
    """Factors that + and - go through."""
    ramp_s: float = 0.15
    """Time in which a key's speed builds up and dies away."""
    leash_m: float = 0.02
    """How far the wish may run ahead of what the arm reaches."""
    leash_rad: float = 0.1

    def __post_init__(self) -> None:
        speeds = (self.speed_m_s, self.turn_rad_s, self.hand_speed_per_s, self.ramp_s, self.leash_m, self.leash_rad)
        if min(speeds) <= 0 or not self.speed_steps or min(self.speed_steps) <= 0:
            raise BadInput(f"The keyboard's speeds must be positive, got {self}.")


class KeyboardOperator:
    """Keys to commands. ``keys`` is opened on the display or terminal if it is not given; ``tell`` shows a line."""

    name = "keyboard"

    def __init__(
        self,
        rig: RigDescription = DEXGRASPVLA_RIG,
        config: KeyboardConfig | None = None,
        keys: KeySource | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        mount = rig.arms[0]
        self.config = config or KeyboardConfig()
        # Keys have no jitter to filter.
        wrist = WristRetargetConfig(position_filter=None, rotation_filter=None)
        self._wrist = WristRetargeter(mount, rig.workspace_m, wrist)
        self._pinch = pinch_opening(HandKinematics(mount.hand))
        self._hand_limit = 1.0 / mount.hand.stroke_s
        self._keys = keys or open_keys()
        self._speed_step = len(self.config.speed_steps) // 2
        self._remark: str | None = None  # being typed
        self._stage = "idle"  # as far as this operator knows: idle, recording, paused, review
        self._rates: Array = np.zeros(12)  # palm m/s (3) in the world, rad/s (3) in the palm, openings 1/s (6)
        self._start_ns = self._now_ns = 0
        tell = tell or (lambda line: print(line, file=sys.stderr, flush=True))
        tell(HELP)

    def begin(self, state: RobotState, now_ns: int) -> None:
        """Start from where the robot is."""
        self._stage, self._remark = "idle", None
        self._keys.taps()  # what was typed before does not count
        self._start(state.arm.q, state.hand.opening, now_ns)

    def resume(self, state: RobotState, now_ns: int) -> None:
        """Go on from the last command: a grasp presses with what its command lies beyond the measured opening."""
        self._stage = "recording"
        self._start(state.arm.q, self._opening, now_ns)

    def act(self, state: RobotState, now_ns: int) -> OperatorInput:
        """Integrate what is pressed over the time since the last call."""
        dt_s = min(max((now_ns - self._now_ns) / NS, 0.0), 0.2)
        self._now_ns = now_ns
        taps, remark, typing = self._type_remark(self._keys.taps())
        events, note = self._session_keys(taps)
        wanted = self._wanted()
        # Speeds build up and die away: neither a tap nor a release is a corner.
        self._rates = self._rates + min(1.0, dt_s / self.config.ramp_s) * (wanted - self._rates)
        self._move(dt_s)
        arm = self._wrist.retarget(self._wish, self._time_s(now_ns))
        self._hold_on_leash(arm.world_T_palm)
        command = Command(now_ns, arm.arm_q, self._opening.copy())
        raw: dict[str, NDArray[np.generic]] = {"keyboard": self._rates.copy()}
        return OperatorInput(command, raw, now_ns, tuple(events), note or typing, remark)

    def close(self) -> None:
        """Give the keyboard back."""
        self._keys.close()

    def _start(self, arm_q: Array, opening: Array, now_ns: int) -> None:
        self._wrist.reset(arm_q)
        self._wrist.engage()
        self._wish: Transform = self._wrist.world_T_palm(arm_q)
        self._opening: Array = np.clip(np.asarray(opening, float), 0.0, 1.0)
        self._rates = np.zeros(12)
        self._start_ns = self._now_ns = now_ns
        self._wrist.retarget(self._wish, 0.0)  # the wish's zero is where the palm is

    def _time_s(self, now_ns: int) -> float:
        return (now_ns - self._start_ns) / NS

    def _wanted(self) -> Array:
        """Rates (12,) that the keys ask for."""
        config, keys = self.config, self._keys
        factor = config.speed_steps[self._speed_step]
        rates: Array = np.zeros(12)
        for key, (axis, sign) in TWIST.items():
            rates[axis] += sign * keys.strength(key)
        rates[:6] = np.clip(rates[:6], -1.0, 1.0)
        rates[:3] *= factor * config.speed_m_s
        rates[3:6] *= factor * config.turn_rad_s
        hand = rates[6:]
        hand[BENDS] = keys.strength(OPEN) - keys.strength(CLOSE)
        hand[THUMB_ROTATION] = keys.strength(THUMB_IN) - keys.strength(THUMB_OUT)
        pinch = keys.strength(PINCH)
        if pinch > 0:
            motors = list(PINCH_MOTORS)
            gap = self._pinch[motors] - self._opening[motors]
            hand[motors] = pinch * np.clip(gap / 0.1, -1.0, 1.0)
        hand *= min(factor * config.hand_speed_per_s, self._hand_limit)
        return rates

    def _move(self, dt_s: float) -> None:
        rotation = self._wish[:3, :3] @ rotation_exp(self._rates[3:6] * dt_s)
        self._wish = transform(rotation, self._wish[:3, 3] + self._rates[:3] * dt_s)
        self._opening = np.clip(self._opening + self._rates[6:] * dt_s, 0.0, 1.0)

    def _hold_on_leash(self, reached: Transform) -> None:
        """Pull the wish back to what is reached, so that turning round at a limit answers at once."""
        move, turn = pose_error(reached, self._wish)
        share = min(1.0, self.config.leash_m / max(float(move), 1e-9), self.config.leash_rad / max(float(turn), 1e-9))
        if share < 1.0:
            self._wish = interpolate(reached, self._wish, share)

    def _type_remark(self, taps: list[str]) -> tuple[list[str], str | None, str]:
        """Keys that are left for the session, a remark that was finished with enter, and what to show of it.

        Only while nothing moves, paused or in review: the letters are the same that drive the palm.
        """
        rest: list[str] = []
        finished, shown = None, ""
        for key in taps:
            if self._remark is None:
                if key == NOTE and self._stage in ("paused", "review"):
                    self._remark, shown = "", "type a note, enter ends it"
                else:
                    rest.append(key)
            elif key == "enter":
                finished, self._remark = self._remark, None
            elif key == "backspace":
                self._remark = self._remark[:-1]
            elif key == "space" or len(key) == 1:
                self._remark += " " if key == "space" else key
        return rest, finished, shown

    def _session_keys(self, taps: list[str]) -> tuple[list[Event], str]:
        events: list[Event] = []
        note = ""
        for key in taps:
            if key in FASTER or key in SLOWER:
                change = 1 if key in FASTER else -1
                self._speed_step = min(max(self._speed_step + change, 0), len(self.config.speed_steps) - 1)
                note = f"speed x{self.config.speed_steps[self._speed_step]:g}"
            elif key == "?":
                note = HELP
            else:
                event = self._event(key)
                if event is not None:
                    events.append(event)
        return events, note

    def _event(self, key: str) -> Event | None:
        """What a session key asks for at this stage."""
        simple = {"backspace": Event.DISCARD, "z": Event.REDO, "y": Event.SUCCESS, "n": Event.FAILURE, "q": Event.QUIT}
        if key in simple:
            return simple[key]
        if key == "space":
            event, self._stage = {
                "idle": (Event.START, "recording"),
                "recording": (Event.PAUSE, "paused"),
                "paused": (Event.RESUME, "recording"),
            }.get(self._stage, (None, self._stage))
            return event
        if key == "enter":
            if self._stage in ("recording", "paused"):
                self._stage = "review"
                return Event.STOP
            return Event.KEEP
        return None


def pinch_opening(kinematics: HandKinematics) -> Array:
    """The opening (6,) of a closed index pinch, other fingers straight."""
    objective = HandObjective(kinematics, ObjectiveConfig(tip_weight=0.1, max_iterations=60, cost_tolerance=1e-7))
    start = np.array([0.7, 0.4, 1.0, 1.0, 1.0, 0.65])
    target = HandTarget(kinematics.tips(start), np.full(4, objective.pinch_m), np.array([1.0, 0.0, 0.0, 0.0]))
    return objective.solve(target, start).opening
