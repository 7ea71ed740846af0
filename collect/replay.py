"""``cli.py replay``: move safely to an episode's first state, then play its commands by their recorded times."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro
from numpy.typing import NDArray

from ..hardware.clock import NS
from ..hardware.errors import BadInput, DeviceError
from ..hardware.interfaces import Robot
from ..hardware.values import Command, RobotState

if TYPE_CHECKING:
    from ..datasets.reader import DatasetReader, EpisodeData
    from ..hardware.twin.scene_spec import SceneSpec

Array = NDArray[np.float64]
APPROACH_RAD_S = 0.5  # fastest joint on the way to the first state
ARRIVED_RAD, ARRIVED_OPENING = 0.03, 0.05


@dataclass(frozen=True)
class ReplayReport:
    """How closely the robot did again what it did then."""

    names: tuple[str, ...]  # (13,)
    error_rms: Array  # (13,) rad or opening: measured now against measured then, at the rows' times
    error_max: Array  # (13,)
    late_ticks: int
    flags: Counter[str]
    lifted: bool | None  # None where the episode has no scene to look at
    recorded: bool | None  # its label


@dataclass(frozen=True)
class Track:
    """What an episode tells the robot, and where it was: times from the first row, ns."""

    row_ns: NDArray[np.int64]  # (N,)
    state: Array  # (N, 13)
    sent_ns: NDArray[np.int64]  # (M,)
    action: Array  # (M, 13)

    @staticmethod
    def of(data: EpisodeData) -> Track:
        """Each command once, at the time at which it was sent. Raises BadInput for a set without times."""
        columns = data.columns
        if "timing.row_ns" not in columns:
            raise BadInput("this data set was imported and has no times: only recorded episodes can be replayed.")
        row_ns, sent_ns = columns["timing.row_ns"].astype(np.int64), columns["timing.sent_ns"].astype(np.int64)
        action = columns["action"].astype(float)
        new = np.concatenate([[True], np.diff(sent_ns) > 0])
        zero_ns = min(row_ns[0], sent_ns[0])
        return Track(row_ns - zero_ns, columns["observation.state"].astype(float), sent_ns[new] - zero_ns, action[new])

    def events(self, speed: float) -> list[tuple[int, int, bool]]:
        """(time ns, index, is a command) in order; a row is looked at before a command of the same moment."""
        rows = [(round(int(t) / speed), i, False) for i, t in enumerate(self.row_ns)]
        commands = [(round(int(t) / speed), i, True) for i, t in enumerate(self.sent_ns)]
        return sorted([*rows, *commands], key=lambda event: (event[0], event[2]))


def approach(robot: Robot, target: Array, rate_hz: float = 50.0) -> None:
    """Bring the robot to ``target`` (13,) along a smooth joint path. Raises DeviceError when it does not get there."""
    state = robot.state()
    start = _numbers(state)
    distance = float(np.abs(target[:7] - start[:7]).max())
    duration_s = max(1.0, 1.875 * distance / APPROACH_RAD_S)  # a quintic's peak speed is 1.875 of its mean
    steps = int(np.ceil(duration_s * rate_hz))
    deadline_ns = robot.clock.now_ns()
    for step in range(1, steps + round(rate_hz) + 1):  # the last second waits for the controllers to settle
        deadline_ns += round(NS / rate_hz)
        robot.clock.sleep_until_ns(deadline_ns)
        t = min(1.0, step / steps)
        robot.send(_command(robot, start + (target - start) * (10 * t**3 - 15 * t**4 + 6 * t**5)))
    error = np.abs(_numbers(robot.state()) - target)
    if error[:7].max() > ARRIVED_RAD or error[7:].max() > ARRIVED_OPENING:
        worst = int(np.argmax(error / np.r_[np.full(7, ARRIVED_RAD), np.full(6, ARRIVED_OPENING)]))
        robot.stop()
        raise DeviceError(
            f"the robot did not reach the episode's first state: {_names(robot)[worst]} is off by {error[worst]:.3f}. "
            "Something is in its way, or the episode starts in a place that safety does not allow."
        )


def play(robot: Robot, track: Track, speed: float) -> tuple[Array, Counter[str], int]:
    """Send each command at its own time on absolute deadlines. Returns states at the rows (N, 13), flags, lateness."""
    states = np.empty_like(track.state)
    flags: Counter[str] = Counter()
    late_before = robot.clock.late_ticks
    start_ns = robot.clock.now_ns()
    for time_ns, index, is_command in track.events(speed):
        robot.clock.sleep_until_ns(start_ns + time_ns)
        if is_command:
            applied = robot.send(_command(robot, track.action[index]))
            flags.update(str(flag.name).lower() for flag in applied.flags)
        else:
            states[index] = _numbers(robot.state())
    return states, flags, robot.clock.late_ticks - late_before


def _command(robot: Robot, numbers: Array) -> Command:
    return Command(robot.clock.now_ns(), numbers[:7], numbers[7:])


def _numbers(state: RobotState) -> Array:
    return np.concatenate([state.arm.q, state.hand.opening])


def _names(robot: Robot) -> tuple[str, ...]:
    return (*robot.names.arm_joints, *robot.names.hand_motors)


@dataclass(frozen=True)
class Replay:
    """Play a recorded episode on the robot again."""

    episode: tyro.conf.Positional[str]
    """Which one: episode_42, or 42."""
    dataset: str = "grasp"
    """Name under recordings/, or a path."""
    robot: str = "twin"
    """What moves: twin, the MuJoCo model of the rig, with the episode's own scene."""
    speed: float = 1.0
    """1 = as recorded, 0.5 = half as fast. Safety limits what is too fast."""
    real_time: bool = False
    """Hold the twin to real time instead of running as fast as it goes."""

    def run(self) -> int:
        """Replay, print the report, return the exit code."""
        if self.robot != "twin":
            raise BadInput(f"--robot is {self.robot!r}: expected twin.")
        if not 0.05 <= self.speed <= 5.0:
            raise BadInput(f"--speed is {self.speed}: expected 0.05 to 5.")
        from ..datasets.home import parse_episode, resolve_existing
        from ..datasets.reader import DatasetReader

        reader = DatasetReader(resolve_existing(self.dataset))
        index = parse_episode(self.episode, len(reader))
        report = self._replay(reader, index)
        self._print(index, report)
        return 0

    def _replay(self, reader: DatasetReader, index: int) -> ReplayReport:
        from ..hardware.safety import SafeRobot
        from ..hardware.twin.success import LiftSuccess
        from ..hardware.twin.world import TwinConfig, TwinWorld

        data = reader.episode(index)
        track, scene = Track.of(data), _scene(data.info.extra)
        world = TwinWorld(TwinConfig(mode="paced" if self.real_time else "stepped", cameras=()), scene)
        robot = SafeRobot(world.robot, world.rig)
        try:
            approach(robot, track.state[0])
            success = LiftSuccess(world, scene.target) if scene is not None else None
            unsubscribe = world.robot.subscribe(success) if success is not None else lambda: None
            states, flags, late_ticks = play(robot, track, self.speed)
            unsubscribe()
        except BaseException:
            robot.stop()
            raise
        finally:
            robot.close()
            world.close()
        error = np.abs(states - track.state)
        return ReplayReport(
            _names(robot),
            np.sqrt((error**2).mean(0)),
            error.max(0),
            late_ticks,
            flags,
            success.achieved if success is not None else None,
            data.info.success,
        )

    def _print(self, index: int, report: ReplayReport) -> None:
        from rich.console import Console
        from rich.table import Table

        console = Console(highlight=False)
        table = Table(title=f"episode_{index}: tracking error against the recording")
        for heading in ("joint", "RMS", "largest"):
            table.add_column(heading, justify="left" if heading == "joint" else "right")
        for i, name in enumerate(report.names):
            unit = "rad" if i < 7 else "opening"
            table.add_row(name, f"{report.error_rms[i]:.4f} {unit}", f"{report.error_max[i]:.4f} {unit}")
        console.print(table)
        changed = ", ".join(f"{name} {count}" for name, count in sorted(report.flags.items())) or "none"
        console.print(f"commands changed by safety: {changed}; late ticks: {report.late_ticks}")
        if report.lifted is None:
            console.print("the episode has no scene: whether the object was lifted cannot be told.")
        else:
            then = {True: "was lifted", False: "was not lifted", None: "is not labelled"}[report.recorded]
            console.print(
                f"object lifted 10 cm and held: {'yes' if report.lifted else 'no'} (in the recording it {then})"
            )


def _scene(extra: dict[str, Any]) -> SceneSpec | None:
    from ..hardware.twin.scene_spec import SceneSpec

    return SceneSpec.from_json(str(extra["scene"])) if "scene" in extra else None
