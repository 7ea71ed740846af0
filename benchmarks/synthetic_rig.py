"""A rig that needs no simulation: pictures drawn beforehand, an arm and a hand that follow what they are sent.

It implements the protocols of ``hardware.interfaces`` in both ways in which real sources behave: *stepped* (readings
are pushed from the loop's own thread while it sleeps) and *threaded* (each source has a thread, on the machine's
clock). Benchmarks and tests of the recorder use it; it measures nothing and simulates nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from dexloop.hardware.clock import NS, Clock, MachineClock, SteppedClock
from dexloop.hardware.description import ARM_JOINTS, HAND_MOTORS
from dexloop.hardware.errors import DeviceError
from dexloop.hardware.interfaces import FrameSink, RobotSink, Unsubscribe
from dexloop.hardware.values import (
    Applied,
    ArmState,
    Command,
    Frame,
    HandState,
    Intrinsics,
    RobotNames,
    RobotState,
)
from numpy.typing import NDArray

Jitter = Callable[[int], int]  # reading number -> ns by which it is captured later than its nominal time


def draw_frames(count: int, width: int = 640, height: int = 480, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Pictures of a table with objects and something that moves over it, with a sensor's noise, (H, W, 3) RGB."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(90, 170, (height // 40, width // 40, 3), dtype=np.uint8)
    table = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    grain = cv2.GaussianBlur(rng.normal(0, 30, (height, width)).astype(np.float32), (0, 0), 1.2)
    table = np.clip(table + grain[..., None], 0, 255).astype(np.uint8)
    for _ in range(6):
        centre = (int(rng.integers(width // 8, width * 7 // 8)), int(rng.integers(height // 3, height * 7 // 8)))
        colour = tuple(int(value) for value in rng.integers(30, 230, 3))
        cv2.ellipse(table, centre, (width // 16, height // 10), 0, 0, 360, colour, -1, cv2.LINE_AA)
    noise = rng.normal(0, 1.5, (4, height, width, 3)).astype(np.float32)
    frames = []
    for index in range(count):
        angle = 2 * np.pi * index / 150
        tip = (int(width * (0.5 + 0.3 * np.sin(angle))), int(height * (0.5 + 0.3 * np.cos(0.7 * angle))))
        picture = table.copy()
        cv2.line(picture, (width // 2, 0), tip, (200, 200, 205), width // 12, cv2.LINE_AA)
        cv2.circle(picture, tip, width // 20, (60, 60, 70), -1, cv2.LINE_AA)
        frames.append(np.clip(picture + noise[index % 4], 0, 255).astype(np.uint8))
    return frames


class _Source:
    """Something that gives readings at a rate."""

    def __init__(self, rate_hz: float, jitter: Jitter | None = None) -> None:
        self.rate_hz = rate_hz
        self._jitter = jitter or (lambda count: 0)
        self.start_ns = 0
        self.count = 0

    def due_ns(self) -> int:
        """Capture time of the next reading."""
        return self.start_ns + round(self.count * NS / self.rate_hz) + self._jitter(self.count)

    def push(self) -> None:
        """Give the next reading to the sinks."""
        time_ns, number = self.due_ns(), self.count
        self.count += 1
        self.emit(number, time_ns)

    def emit(self, number: int, time_ns: int) -> None:
        raise NotImplementedError


class SyntheticCamera(_Source):
    """Shows its pictures one after another. ``stops_after`` and ``drops`` make it fail as cameras do."""

    def __init__(
        self,
        name: str,
        pictures: Sequence[NDArray[np.uint8]],
        rate_hz: float = 30.0,
        *,
        jitter: Jitter | None = None,
        drops: Callable[[int], bool] = lambda number: False,
        stops_after: int | None = None,
        depth_m: Sequence[NDArray[np.float32]] | None = None,
        segmentation: Sequence[NDArray[np.int32]] | None = None,
    ) -> None:
        super().__init__(rate_hz, jitter)
        height, width = pictures[0].shape[:2]
        self.name = name
        self.intrinsics = Intrinsics(width, height, width * 0.95, width * 0.95, (width - 1) / 2, (height - 1) / 2)
        self.stops_after = stops_after
        self._pictures, self._depth_m, self._segmentation = pictures, depth_m, segmentation
        self._drops = drops
        self._sinks: list[FrameSink] = []
        self._latest: Frame | None = None

    def emit(self, number: int, time_ns: int) -> None:
        if self._drops(number) or (self.stops_after is not None and number >= self.stops_after):
            return
        frame = Frame(
            time_ns,
            number,
            self._pictures[number % len(self._pictures)],
            self._depth_m[number % len(self._depth_m)] if self._depth_m else None,
            self._segmentation[number % len(self._segmentation)] if self._segmentation else None,
        )
        self._latest = frame
        for sink in list(self._sinks):
            sink(frame)

    def latest(self) -> Frame:
        if self._latest is None:
            raise DeviceError(f"camera {self.name!r} gave no frame yet")
        return self._latest

    def pose(self) -> tuple[str, NDArray[np.float64]]:
        return ("flange" if self.name == "wrist" else "world"), np.eye(4)

    def subscribe(self, sink: FrameSink) -> Unsubscribe:
        self._sinks.append(sink)
        return lambda: self._sinks.remove(sink) if sink in self._sinks else None

    def close(self) -> None:
        self._sinks.clear()


class SyntheticRobot:
    """Is at once where it was told to be."""

    names = RobotNames(ARM_JOINTS, HAND_MOTORS)

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._sinks: list[RobotSink] = []
        self._command = Command(0, np.zeros(7), np.ones(6))
        self.arm = ArmState(0, np.zeros(7), np.zeros(7), np.zeros(7), np.zeros(6))
        self.hand = HandState(0, np.ones(6), np.zeros(6))

    def state(self) -> RobotState:
        return RobotState(self.arm, self.hand)

    def send(self, command: Command) -> Applied:
        self._command = command
        return Applied(command, self.clock.now_ns())

    def stop(self) -> None:
        return

    def subscribe(self, sink: RobotSink) -> Unsubscribe:
        self._sinks.append(sink)
        return lambda: self._sinks.remove(sink) if sink in self._sinks else None

    def close(self) -> None:
        self._sinks.clear()

    def push(self, reading: ArmState | HandState) -> None:
        """A reading of the controllers, to all sinks."""
        for sink in list(self._sinks):
            sink(reading)


class _Arm(_Source):
    def __init__(self, robot: SyntheticRobot, rate_hz: float, jitter: Jitter | None = None) -> None:
        super().__init__(rate_hz, jitter)
        self._robot = robot

    def emit(self, number: int, time_ns: int) -> None:
        robot = self._robot
        robot.arm = ArmState(time_ns, robot._command.arm_q.copy(), np.zeros(7), np.full(7, 0.5), np.arange(6.0))
        robot.push(robot.arm)


class _Hand(_Source):
    def __init__(self, robot: SyntheticRobot, rate_hz: float, jitter: Jitter | None = None) -> None:
        super().__init__(rate_hz, jitter)
        self._robot = robot

    def emit(self, number: int, time_ns: int) -> None:
        robot = self._robot
        robot.hand = HandState(time_ns, robot._command.hand.copy(), np.full(6, 0.1))
        robot.push(robot.hand)


class SteppedRig:
    """All sources on simulated time, pushed in the order of capture from the thread that sleeps."""

    def __init__(self, cameras: Sequence[SyntheticCamera], arm_hz: float = 100.0, hand_hz: float = 30.0) -> None:
        self.clock = SteppedClock(self._advance)
        self.robot = SyntheticRobot(self.clock)
        self.cameras = list(cameras)
        self._sources: list[_Source] = [*cameras, _Arm(self.robot, arm_hz), _Hand(self.robot, hand_hz)]

    def _advance(self, to_ns: int) -> None:
        while (source := min(self._sources, key=lambda each: each.due_ns())).due_ns() <= to_ns:
            source.push()


class ThreadedRig:
    """Every source in a thread of its own on the machine's clock, as drivers are. A context manager."""

    def __init__(self, cameras: Sequence[SyntheticCamera], arm_hz: float = 100.0, hand_hz: float = 30.0) -> None:
        self.clock = MachineClock()
        self.robot = SyntheticRobot(self.clock)
        self.cameras = list(cameras)
        self._sources: list[_Source] = [*cameras, _Arm(self.robot, arm_hz), _Hand(self.robot, hand_hz)]
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> ThreadedRig:
        start_ns = self.clock.now_ns() + NS // 100
        for source in self._sources:
            source.start_ns = start_ns
            self._threads.append(threading.Thread(target=self._drive, args=(source,), daemon=True))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _drive(self, source: _Source) -> None:
        while not self._stop.is_set():
            self.clock.sleep_until_ns(source.due_ns())
            source.push()
