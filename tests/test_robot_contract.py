"""What every robot and every camera must do, whoever makes it: twin, wrapper or driver.

A driver joins by adding a maker to ``ROBOTS`` or ``CAMERAS``: a function without arguments that answers a robot (or
camera) and the clock whose ``sleep_until_ns`` lets it work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from dexloop.hardware.clock import NS, Clock
from dexloop.hardware.errors import BadInput, DeviceError
from dexloop.hardware.interfaces import Camera, Robot
from dexloop.hardware.rig import DEXGRASPVLA_RIG
from dexloop.hardware.safety import SafeRobot, SafetyConfig
from dexloop.hardware.twin.world import TwinConfig, TwinWorld
from dexloop.hardware.values import Applied, ArmState, Command, Frame, HandState, RobotState, Safety

SMALL = TwinConfig(camera_size=(64, 48), sensor_noise=False)


def twin() -> Robot:
    return TwinWorld(TwinConfig(cameras=())).robot


def paced_twin() -> Robot:
    return TwinWorld(TwinConfig(cameras=(), mode="paced")).robot


def safe_twin() -> Robot:
    return SafeRobot(twin(), DEXGRASPVLA_RIG, SafetyConfig())


def twin_camera(name: str) -> Callable[[], tuple[Camera, Clock]]:
    def make() -> tuple[Camera, Clock]:
        world = TwinWorld(SMALL)
        return world.cameras[name], world.clock

    return make


ROBOTS: dict[str, Callable[[], Robot]] = {"twin": twin, "paced twin": paced_twin, "safe twin": safe_twin}
CAMERAS: dict[str, Callable[[], tuple[Camera, Clock]]] = {
    "twin head": twin_camera("head"),
    "twin wrist": twin_camera("wrist"),
}


@pytest.fixture(params=list(ROBOTS))
def robot(request: pytest.FixtureRequest) -> Iterator[Robot]:
    made = ROBOTS[request.param]()
    yield made
    made.close()


@pytest.fixture(params=list(CAMERAS))
def camera(request: pytest.FixtureRequest) -> Iterator[tuple[Camera, Clock]]:
    made, clock = CAMERAS[request.param]()
    yield made, clock
    made.close()


def hold(robot: Robot) -> Command:
    state = robot.state()
    return Command(robot.clock.now_ns(), state.arm.q, np.clip(state.hand.opening, 0, 1))


def run(robot: Robot, seconds: float, step: Callable[[], Command] | None = None) -> None:
    """Let it work, sending a command every 10 ms."""
    deadline = robot.clock.now_ns()
    end = deadline + seconds * NS
    while deadline < end:
        if step is not None:
            robot.send(step())
        deadline += NS // 100
        robot.clock.sleep_until_ns(deadline)


class TestRobot:
    def test_is_a_robot(self, robot: Robot) -> None:
        assert isinstance(robot, Robot)
        assert len(robot.names.arm_joints) == 7
        assert len(robot.names.hand_motors) == 6

    def test_state_has_the_right_shapes_and_a_recent_time(self, robot: Robot) -> None:
        run(robot, 0.1)
        state = robot.state()
        assert isinstance(state, RobotState)
        shapes = [a.shape for a in (state.arm.q, state.arm.dq, state.arm.effort, state.arm.wrench)]
        assert shapes == [(7,), (7,), (7,), (6,)]
        assert (state.hand.opening.shape, state.hand.force.shape) == ((6,), (6,))
        assert all(np.isfinite(a).all() for a in (state.arm.q, state.arm.effort, state.arm.wrench, state.hand.opening))
        assert 0 <= robot.clock.now_ns() - state.captured_ns < NS // 10
        assert (state.hand.force >= 0).all()

    def test_answers_with_what_was_applied_and_when(self, robot: Robot) -> None:
        command = hold(robot)
        before = robot.clock.now_ns()
        applied = robot.send(command)
        assert isinstance(applied, Applied)
        assert before <= applied.sent_ns <= robot.clock.now_ns()
        assert applied.command.captured_ns == command.captured_ns
        np.testing.assert_allclose(applied.command.arm_q, command.arm_q, atol=1e-3)
        np.testing.assert_allclose(applied.command.hand, command.hand, atol=1e-3)

    def test_follows_its_commands(self, robot: Robot) -> None:
        start = hold(robot)
        target = start.arm_q.copy()
        target[6] += 0.05
        hand = np.array([1.0, 0.8, 0.9, 1.0, 1.0, 1.0])
        run(robot, 1.2, lambda: Command(robot.clock.now_ns(), target, hand))
        state = robot.state()
        np.testing.assert_allclose(state.arm.q, target, atol=0.01)
        np.testing.assert_allclose(state.hand.opening, hand, atol=0.03)

    def test_a_target_that_is_not_finite_is_held_back_and_flagged(self, robot: Robot) -> None:
        run(robot, 0.1, lambda: hold(robot))
        good = hold(robot)
        bad = Command(robot.clock.now_ns(), np.full(7, np.nan), good.hand)
        applied = robot.send(bad)
        assert applied.flags & Safety.NOT_FINITE
        assert applied.reason
        assert np.isfinite(applied.command.arm_q).all()
        run(robot, 0.2)
        np.testing.assert_allclose(robot.state().arm.q, good.arm_q, atol=0.01)

    def test_a_target_out_of_range_is_clipped_and_flagged(self, robot: Robot) -> None:
        start = hold(robot)
        applied = robot.send(Command(start.captured_ns, start.arm_q, np.array([1.0, 1.4, 1, 1, 1, -0.2])))
        assert applied.flags & Safety.JOINT_LIMIT
        assert applied.reason
        assert applied.command.hand.max() <= 1.0
        assert applied.command.hand.min() >= 0.0

    def test_a_command_of_the_wrong_shape_is_refused(self, robot: Robot) -> None:
        with pytest.raises(BadInput, match="expected"):
            robot.send(Command(0, np.zeros(6), np.ones(6)))

    def test_stop_brings_it_to_rest_and_keeps_the_hand(self, robot: Robot) -> None:
        start = hold(robot)
        target = start.arm_q.copy()
        target[6] += 0.5
        run(robot, 0.4, lambda: Command(robot.clock.now_ns(), target, start.hand))
        robot.stop()
        run(robot, 0.8)
        at_rest = robot.state()
        assert np.abs(at_rest.arm.dq).max() < 0.01
        np.testing.assert_allclose(at_rest.hand.opening, start.hand, atol=0.02)

    def test_readings_are_pushed_in_order_at_their_rates(self, robot: Robot) -> None:
        arm: list[int] = []
        hand: list[int] = []

        def sink(reading: ArmState | HandState) -> None:
            (arm if isinstance(reading, ArmState) else hand).append(reading.captured_ns)

        unsubscribe = robot.subscribe(sink)
        run(robot, 0.5)
        unsubscribe()
        unsubscribe()  # twice is harmless
        count = len(arm)
        run(robot, 0.1)
        assert len(arm) == count
        assert arm == sorted(set(arm))
        assert hand == sorted(set(hand))
        assert len(arm) == pytest.approx(50, abs=4)
        assert 10 <= len(hand) <= 32

    def test_a_closed_robot_says_so(self, robot: Robot) -> None:
        command = hold(robot)
        robot.close()
        robot.close()
        robot.stop()  # never raises
        with pytest.raises(DeviceError, match="closed"):
            robot.send(command)


class TestCamera:
    def test_is_a_camera(self, camera: tuple[Camera, Clock]) -> None:
        made, _ = camera
        assert isinstance(made, Camera)
        parent, pose = made.pose()
        assert parent in ("world", "flange")
        np.testing.assert_allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3), atol=1e-9)

    def test_frames_have_the_cameras_size_and_a_recent_time(self, camera: tuple[Camera, Clock]) -> None:
        made, clock = camera
        clock.sleep_until_ns(clock.now_ns() + NS // 5)
        frame = made.latest()
        k = made.intrinsics
        assert frame.rgb.shape == (k.height, k.width, 3)
        assert frame.rgb.dtype == np.uint8
        assert frame.depth_m is None or (frame.depth_m.shape, frame.depth_m.dtype) == (frame.rgb.shape[:2], np.float32)
        assert 0 <= clock.now_ns() - frame.captured_ns <= 1.5 * NS / made.rate_hz

    def test_frames_are_pushed_in_order_and_counted(self, camera: tuple[Camera, Clock]) -> None:
        made, clock = camera
        frames: list[Frame] = []
        unsubscribe = made.subscribe(frames.append)
        clock.sleep_until_ns(clock.now_ns() + NS // 2)
        unsubscribe()
        unsubscribe()
        count = len(frames)
        clock.sleep_until_ns(clock.now_ns() + NS // 5)
        assert len(frames) == count
        assert count == pytest.approx(made.rate_hz / 2, abs=2)
        times = [frame.captured_ns for frame in frames]
        assert times == sorted(set(times))
        assert np.diff([frame.sequence for frame in frames]).tolist() == [1] * (count - 1)

    def test_a_frame_belongs_to_its_receiver(self, camera: tuple[Camera, Clock]) -> None:
        made, clock = camera
        clock.sleep_until_ns(clock.now_ns() + NS // 10)
        first = made.latest()
        copy = first.rgb.copy()
        first.rgb[:] = 0
        np.testing.assert_array_equal(made.latest().rgb, copy)

    def test_a_closed_camera_says_so(self, camera: tuple[Camera, Clock]) -> None:
        made, _ = camera
        made.close()
        made.close()
        with pytest.raises(DeviceError):
            made.latest()
