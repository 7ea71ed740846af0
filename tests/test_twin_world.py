"""The twin's time: latency, rates, late frames, restarts, and that paced mode holds real time."""

from __future__ import annotations

import time
from dataclasses import replace

import mujoco
import numpy as np
import pytest
from dexloop.hardware.clock import NS, MachineClock, PacedClock, SteppedClock
from dexloop.hardware.description import PLACE_ARM_Q, RM75_6F, START_ARM_Q
from dexloop.hardware.errors import BadInput, DeviceError
from dexloop.hardware.geometry import transform
from dexloop.hardware.rig import DEXGRASPVLA_RIG
from dexloop.hardware.twin.arm_spec import SERVO_LAG_S
from dexloop.hardware.twin.controllers import ArmController, ControllerConfig, HandController
from dexloop.hardware.twin.world import SceneBuilder, TwinConfig, TwinWorld
from dexloop.hardware.values import ArmState, Command, Frame, HandState
from hypothesis import given, settings
from hypothesis import strategies as st

START, PLACE, OPEN = np.array(START_ARM_Q), np.array(PLACE_ARM_Q), np.ones(6)
NO_CAMERAS = TwinConfig(cameras=(), sensor_noise=False)


def one_box(spec: mujoco.MjSpec) -> None:
    body = spec.worldbody.add_body(name="object_0", pos=(0.4, 0, 0.03))
    body.add_freejoint()
    body.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.03, 0.03, 0.03), mass=0.2)


def test_no_contact_is_dropped_where_many_things_overlap() -> None:
    """Rehearsed grasps begin with fingers inside objects, wherever those have a hundred faces."""

    def heap(spec: mujoco.MjSpec) -> None:
        for k in range(30):
            body = spec.worldbody.add_body(name=f"object_{k}", pos=(0.4 + 0.001 * k, 0, 0.03))
            body.add_freejoint()
            body.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.03, 0.03, 0.03), mass=0.2)

    world = TwinWorld(NO_CAMERAS, heap)
    assert world.data.ncon > 1000
    assert world.data.warning[mujoco.mjtWarning.mjWARN_CNSTRFULL].number == 0
    assert world.data.warning[mujoco.mjtWarning.mjWARN_CONTACTFULL].number == 0


# -- controllers ------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.integers(0, 10_000))
def test_arm_reference_keeps_speed_and_acceleration(seed: int) -> None:
    """Whatever targets come, at whatever times."""
    rng, step = np.random.default_rng(seed), 0.002
    controller = ArmController(RM75_6F, ControllerConfig(), step)
    controller.reset(START, 0)
    positions = [START]
    for k in range(400):
        if rng.random() < 0.1:
            controller.send(int(k * step * NS), START + rng.normal(0, 0.5, 7))
        positions.append(controller.step(int((k + 1) * step * NS)).copy())
    velocity = np.diff(positions, axis=0) / step
    assert (np.abs(velocity) <= RM75_6F.speeds + 1e-9).all()
    acceleration = np.diff(velocity, axis=0) / step
    assert np.abs(acceleration).max() <= RM75_6F.acceleration_rad_s2 * 1.001 + 1e-6


@settings(max_examples=30)
@given(st.lists(st.floats(-1.5, 1.5), min_size=7, max_size=7))
def test_arm_reference_arrives_without_overshoot(target: list[float]) -> None:
    controller = ArmController(RM75_6F, ControllerConfig(), 0.002)
    controller.reset(np.zeros(7), 0)
    controller.send(0, np.array(target))
    path = np.array([controller.step((k + 1) * 2_000_000).copy() for k in range(1000)])
    np.testing.assert_allclose(path[-1], target, atol=1e-6)
    beyond = path * np.sign(target) - np.abs(target)
    assert beyond.max() < 1e-3


def test_controllers_take_the_newest_command_at_their_ticks() -> None:
    config = ControllerConfig(arm_latency_s=0.0)
    controller = ArmController(RM75_6F, config, 0.001)
    controller.reset(np.zeros(7), 0)
    for k in range(10):
        controller.send(k * 1_000_000, np.full(7, 0.001 * k))
    for k in range(400):
        controller.step(k * 1_000_000)
    np.testing.assert_allclose(controller.reference, 0.009, atol=1e-9)


def test_hand_reference_moves_at_the_stroke_speed() -> None:
    from dexloop.hardware.description import GO_R

    controller = HandController(GO_R, ControllerConfig(), 0.002)
    controller.reset(OPEN, 0)
    controller.send(0, np.zeros(6))
    reference, slack = OPEN, np.full(6, 0.1)
    for k in range(300):
        reference = controller.step(k * 2_000_000, reference, slack).copy()
    waited = ControllerConfig().hand_latency_s + 1 / 60
    assert reference[0] == pytest.approx(1 - (0.6 - waited), abs=0.02)


def test_controller_config_refuses_nonsense() -> None:
    with pytest.raises(BadInput, match="arm_latency_s is -1"):
        ControllerConfig(arm_latency_s=-1)
    with pytest.raises(BadInput, match="camera_size"):
        TwinConfig(camera_size=(8, 8))
    with pytest.raises(BadInput, match="timestep_s"):
        TwinConfig(timestep_s=0.02)


# -- latency ----------------------------------------------------------------------------------------------------


def test_command_latency_is_the_configured_one() -> None:
    """From send to the first motion: transport, at most one tick of the controller, one physics step."""
    for latency_s in (0.0, 0.012, 0.05):
        world = TwinWorld(TwinConfig(cameras=(), controllers=ControllerConfig(arm_latency_s=latency_s)))
        world.clock.sleep_until_ns(123_000_000)
        sent = world.robot.send(Command(0, START + 0.1, OPEN)).sent_ns
        assert sent == 123_000_000
        while np.abs(world.data.qpos[:7] - START).max() < 1e-7:
            world.clock.sleep_until_ns(world.clock.now_ns() + 1_000_000)
        moved_s = (world.clock.now_ns() - sent) / NS
        assert latency_s <= moved_s <= latency_s + 0.010 + 0.004 + 0.001


def test_steady_motion_lags_by_latency_filter_and_servo() -> None:
    """A ramp sent at 100 Hz is followed within 42-72 ms by every joint alike, so that paths keep their shape."""
    world, speed = TwinWorld(NO_CAMERAS), np.full(7, 0.5)
    deadline = 0
    while deadline < NS:
        world.robot.send(Command(deadline, START + speed * deadline / NS, OPEN))
        deadline += NS // 100
        world.clock.sleep_until_ns(deadline)
    config = ControllerConfig()
    lag_s = deadline / NS - (world.robot.state().arm.q - START) / speed
    least = config.arm_latency_s + config.arm_follow_s + SERVO_LAG_S
    assert (lag_s > least - 0.004).all()
    # and at most a controller's tick, the age of the command in force, the age of the reading
    assert (lag_s < least + 0.030).all()
    assert np.ptp(lag_s) < 0.003


def test_moves_to_the_placement_pose_and_stops_when_told() -> None:
    world = TwinWorld(NO_CAMERAS)
    world.robot.send(Command(0, PLACE, OPEN))
    world.clock.sleep_until_ns(NS // 4)
    assert np.abs(world.robot.state().arm.dq).max() > 0.5
    world.robot.stop()
    world.clock.sleep_until_ns(NS)
    stopped = world.robot.state().arm.q
    assert np.abs(world.robot.state().arm.dq).max() < 1e-3
    world.clock.sleep_until_ns(2 * NS)
    np.testing.assert_allclose(world.robot.state().arm.q, stopped, atol=1e-4)
    world.robot.send(Command(0, PLACE, OPEN))
    world.clock.sleep_until_ns(4 * NS)
    np.testing.assert_allclose(world.robot.state().arm.q, PLACE, atol=1e-3)


# -- streams ----------------------------------------------------------------------------------------------------


def test_streams_come_at_their_rates_with_their_own_times() -> None:
    world = TwinWorld(TwinConfig(camera_size=(32, 24), depth=False))
    arm: list[int] = []
    hand: list[int] = []
    frames: list[Frame] = []
    seen_at: list[int] = []

    def sink(reading: ArmState | HandState) -> None:
        (arm if isinstance(reading, ArmState) else hand).append(reading.captured_ns)
        seen_at.append(world.clock.now_ns() - reading.captured_ns)

    world.robot.subscribe(sink)
    world.cameras["head"].subscribe(frames.append)
    world.clock.sleep_until_ns(NS)
    assert (len(arm), len(hand), len(frames)) == (101, 61, 31)
    assert set(seen_at) == {0}  # a sink reads the time of its reading from the clock
    step = 2_000_000
    for times, rate in ((arm, 100), (hand, 60), ([frame.captured_ns for frame in frames], 30)):
        late = np.array(times) - np.arange(len(times)) * NS / rate
        assert (late >= 0).all()
        assert (late < step).all()
    assert [frame.sequence for frame in frames] == list(range(31))


def test_reset_is_quick_and_begins_anew() -> None:
    """Subscriptions stay; time, counts and noise begin again, so that a scene is the same whatever came before."""
    world = TwinWorld(TwinConfig(camera_size=(64, 48)), one_box)
    frames: list[Frame] = []
    arm: list[ArmState] = []
    world.cameras["head"].subscribe(frames.append)
    world.robot.subscribe(lambda reading: arm.append(reading) if isinstance(reading, ArmState) else None)
    world.clock.sleep_until_ns(NS // 2)
    first, first_arm = list(frames), list(arm)
    world.set_object_pose(0, transform(translation=np.array([0.5, 0.1, 0.2])))
    assert world.object_lift_m(0) == 0.0
    world.robot.send(Command(0, PLACE, OPEN))
    begin = time.perf_counter()
    world.reset(one_box)
    assert time.perf_counter() - begin < 0.3
    assert world.clock.now_ns() == 0
    frames.clear()
    arm.clear()
    world.clock.sleep_until_ns(NS // 2)
    assert [(f.captured_ns, f.sequence) for f in frames] == [(f.captured_ns, f.sequence) for f in first]
    for old, new in zip(first, frames, strict=True):
        np.testing.assert_array_equal(old.depth_m, new.depth_m)
    for before, after in zip(first_arm, arm, strict=True):
        assert before.captured_ns == after.captured_ns
        np.testing.assert_array_equal(before.q, after.q)  # the command before the reset is gone
        np.testing.assert_array_equal(before.wrench, after.wrench)
    np.testing.assert_allclose(world.object_pose(0)[:2, 3], [0.4, 0.0], atol=1e-4)


def test_paced_reset_goes_on_in_time() -> None:
    world = TwinWorld(TwinConfig(mode="paced", camera_size=(32, 24), depth=False), one_box)
    frames: list[Frame] = []
    world.cameras["head"].subscribe(frames.append)
    world.clock.sleep_until_ns(world.clock.now_ns() + NS // 5)
    world.reset(one_box)
    world.clock.sleep_until_ns(world.clock.now_ns() + NS // 5)
    times = [frame.captured_ns for frame in frames]
    assert times == sorted(set(times))
    sequences = [frame.sequence for frame in frames]
    assert sequences == sorted(set(sequences))


def test_object_that_does_not_exist_is_named() -> None:
    world = TwinWorld(NO_CAMERAS, one_box)
    with pytest.raises(BadInput, match="no object 3: the scene has 1"):
        world.object_pose(3)


# -- real time --------------------------------------------------------------------------------------------------


def test_paced_mode_holds_real_time() -> None:
    world = TwinWorld(TwinConfig(mode="paced", cameras=()))
    times: list[int] = []
    world.robot.subscribe(lambda reading: times.append(reading.captured_ns) if isinstance(reading, ArmState) else None)
    begin = deadline = world.clock.now_ns()
    machine = time.monotonic_ns()
    errors = []
    while deadline < begin + NS:
        deadline += NS // 50
        world.clock.sleep_until_ns(deadline)
        errors.append(world.clock.now_ns() - deadline)
    elapsed = time.monotonic_ns() - machine
    assert elapsed == pytest.approx(NS, rel=0.05)
    assert abs(len(times) - 100) <= 3
    assert np.median(errors) < 3_000_000
    assert abs(times[-1] - time.monotonic_ns()) < 100_000_000  # stamps are the machine's monotonic time


def test_paced_mode_skips_pictures_never_physics() -> None:
    """A sink that takes longer than a frame costs frames, which are counted, and nothing else."""
    world = TwinWorld(TwinConfig(mode="paced", camera_size=(32, 24), depth=False))
    slow_frames: list[Frame] = []
    quick_frames: list[Frame] = []

    def slow(frame: Frame) -> None:
        slow_frames.append(frame)
        time.sleep(0.08)

    head, wrist = world.cameras["head"], world.cameras["wrist"]
    head.latest()  # textures are loaded with the first picture
    head.subscribe(slow)
    wrist.subscribe(quick_frames.append)
    arm: list[int] = []
    world.robot.subscribe(lambda reading: arm.append(reading.captured_ns) if isinstance(reading, ArmState) else None)
    begin = deadline = world.clock.now_ns()
    while deadline < begin + NS:
        deadline += NS // 20
        world.clock.sleep_until_ns(deadline)
    world.close()
    for camera, frames in ((head, slow_frames), (wrist, quick_frames)):
        assert len(frames) >= 5  # neither camera starves the other
        sequences = [frame.sequence for frame in frames]
        lost = sequences[-1] - sequences[0] + 1 - len(frames)
        assert 5 < lost <= camera.skipped_frames  # a gap says so
    assert np.abs(np.diff(arm) / NS - 0.01).max() < 0.003  # every arm reading is there


def run_for_a_second(world: TwinWorld) -> None:
    for _ in range(20):
        world.clock.sleep_until_ns(world.clock.now_ns() + NS // 20)


def test_what_a_sink_raises_reaches_the_loop() -> None:
    for mode in ("stepped", "paced"):
        world = TwinWorld(TwinConfig(mode=mode, camera_size=(32, 24), depth=False))

        def broken(frame: Frame) -> None:
            raise DeviceError("the disk is full")

        world.cameras["head"].subscribe(broken)
        with pytest.raises(DeviceError, match="disk"):
            run_for_a_second(world)
        world.close()


def test_paced_scenes_change_under_running_cameras() -> None:
    """No picture mixes two scenes, none fails, whatever is waiting to be drawn."""

    def box_and(extra: int) -> SceneBuilder:
        def build(spec: mujoco.MjSpec) -> None:
            for k in range(extra):
                body = spec.worldbody.add_body(name=f"object_{k}", pos=(0.3, 0.1 * k, 0.03))
                body.add_freejoint()
                body.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.02, 0.02, 0.02), mass=0.1)

        return build

    world = TwinWorld(TwinConfig(mode="paced", camera_size=(64, 48), segmentation=True), box_and(1))
    seen: list[int] = []
    world.cameras["head"].subscribe(lambda frame: seen.append(int(frame.segmentation.max())))
    for extra in (3, 1, 2, 3):
        world.clock.sleep_until_ns(world.clock.now_ns() + NS // 6)
        world.reset(box_and(extra))
        assert world.cameras["head"].latest().segmentation.max() == extra
    world.close()
    assert set(seen) <= {1, 2, 3}


def test_paced_world_stands_still_while_nobody_runs_it() -> None:
    world = TwinWorld(TwinConfig(mode="paced", cameras=()))
    world.robot.send(Command(0, START, OPEN))
    time.sleep(1.3)
    begin = time.perf_counter()
    world.clock.sleep_until_ns(world.clock.now_ns() + 10_000_000)
    assert time.perf_counter() - begin < 0.5
    assert world.frozen_ns > NS
    assert abs(world.robot.state().arm.captured_ns - world.clock.now_ns()) < 50_000_000


def test_machine_clock_is_monotonic_and_sleeps() -> None:
    clock = MachineClock()
    begin = clock.now_ns()
    assert clock.sleep_until_ns(begin + 20_000_000) == 0
    assert clock.now_ns() >= begin + 20_000_000
    assert clock.sleep_until_ns(begin) > 0
    assert clock.late_ticks == 1


def test_stepped_clock_runs_the_world_and_never_back() -> None:
    reached: list[int] = []
    clock = SteppedClock(reached.append)
    assert clock.sleep_until_ns(5) == 0
    assert clock.sleep_until_ns(3) == 0
    assert (clock.now_ns(), reached) == (5, [5])


def test_paced_clock_never_runs_ahead() -> None:
    targets: list[tuple[int, int]] = []
    begin = time.monotonic_ns()
    clock = PacedClock(lambda t: targets.append((t, time.monotonic_ns())), begin)
    clock.sleep_until_ns(begin + 50_000_000)
    assert all(target <= now for target, now in targets)
    assert targets[-1][0] >= begin + 50_000_000
    assert len(targets) > 4  # in slices, so that cameras expose when they are due


# -- a second arm -----------------------------------------------------------------------------------------------


def test_a_second_arm_obeys_by_itself() -> None:
    """Two mounts in the rig make two robots in one world, under one clock."""
    mount = DEXGRASPVLA_RIG.arms[0]
    shifted = mount.world_T_base.copy()
    shifted[1, 3] += 0.9
    rig = replace(DEXGRASPVLA_RIG, arms=(mount, replace(mount, side="left", world_T_base=shifted)))
    world = TwinWorld(NO_CAMERAS, one_box, rig)
    left, right = world.robots["left"], world.robots["right"]
    assert world.robot is right
    assert left.names.arm_joints[0] == "left_arm_joint_1"
    target, closed = START.copy(), np.array([1.0, 0.2, 0.2, 0.2, 0.2, 1.0])
    target[6] += 0.4
    left.send(Command(0, target, closed))
    world.clock.sleep_until_ns(2 * NS)
    np.testing.assert_allclose(left.state().arm.q, target, atol=1e-3)
    np.testing.assert_allclose(left.state().hand.opening, closed, atol=0.02)
    np.testing.assert_allclose(right.state().arm.q, START, atol=1e-3)
    np.testing.assert_allclose(right.state().hand.opening, OPEN, atol=0.02)
