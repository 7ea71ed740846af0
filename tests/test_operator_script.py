"""The scripted expert: what it knows, how it moves, and that it picks things up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from dexloop.collect.expert.closing import ClosingConfig, HandCloser
from dexloop.collect.expert.grasps import Grasp, GraspPlanner, orientation
from dexloop.collect.expert.motion import SmoothNoise
from dexloop.collect.expert.preview import HandPreview
from dexloop.collect.expert.reach import densely
from dexloop.collect.expert.shape import Shape, body_shape
from dexloop.collect.operators.script import ScriptConfig, ScriptOperator, ScriptReport
from dexloop.hardware.clock import NS
from dexloop.hardware.description import OPEN_HAND, RM75_6F, START_ARM_Q
from dexloop.hardware.errors import BadInput
from dexloop.hardware.hand_kinematics import HandKinematics
from dexloop.hardware.joint_path import JointPath, SpeedLimits
from dexloop.hardware.safety import SafeRobot
from dexloop.hardware.twin.scenes import sample_scene
from dexloop.hardware.twin.success import LiftSuccess
from dexloop.hardware.twin.world import TwinConfig, TwinWorld
from dexloop.hardware.values import Command, HandState
from hypothesis import given, settings
from hypothesis import strategies as st

PERIOD_NS = NS // 20


def play(
    seed: int, objects: int = 1, config: ScriptConfig | None = None
) -> tuple[bool, ScriptReport, list[Command], list[str]]:
    """One episode through SafeRobot: (lifted and held, report, commands, notes)."""
    scene = sample_scene(seed, "train", objects)
    world = TwinWorld(TwinConfig(cameras=(), timestep_s=0.004), scene)
    operator = ScriptOperator(world, config or ScriptConfig(miss_rate=0.0, place=False), seed)
    success = LiftSuccess(world, scene.target)
    world.robot.subscribe(success)
    robot = SafeRobot(world.robot, world.rig)
    operator.begin(robot.state(), world.clock.now_ns())
    commands: list[Command] = []
    notes: list[str] = []
    deadline_ns = world.clock.now_ns()
    while deadline_ns < 60 * NS:
        deadline_ns += PERIOD_NS
        world.clock.sleep_until_ns(deadline_ns)
        answer = operator.act(robot.state(), world.clock.now_ns())
        assert answer.command is not None
        commands.append(answer.command)
        notes += [answer.note] if answer.note else []
        robot.send(answer.command)
        if answer.done:
            break
    operator.close()
    world.close()
    return success.achieved, operator.report, commands, notes


@pytest.mark.parametrize("seed", [3, 7, 9])
def test_it_lifts_one_object(seed: int) -> None:
    lifted, report, _, _ = play(seed)
    assert lifted
    assert report.lifted


def test_it_lifts_among_others_and_puts_in_the_bin() -> None:
    lifted, report, commands, notes = play(3, 4, ScriptConfig(miss_rate=0.0))
    assert lifted
    assert report.placed
    assert "release" in notes
    assert np.abs(commands[-1].arm_q - START_ARM_Q).max() < 0.1


def test_every_command_can_be_carried_out() -> None:
    _, _, commands, _ = play(7)
    arm = np.stack([command.arm_q for command in commands])
    hand = np.stack([command.hand for command in commands])
    assert np.isfinite(arm).all()
    assert np.isfinite(hand).all()
    assert (np.abs(arm) <= RM75_6F.limits[:, 1]).all()
    assert hand.min() >= 0
    assert hand.max() <= 1
    assert (np.abs(np.diff(arm, axis=0)) * 20 < RM75_6F.speeds).all()  # no jump


def test_an_episode_follows_from_its_seed() -> None:
    first, second = play(9)[2], play(9)[2]
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.arm_q, b.arm_q)
        np.testing.assert_array_equal(a.hand, b.hand)


def test_a_deliberate_miss_is_noticed_and_made_good() -> None:
    lifted, report, _, notes = play(7, config=ScriptConfig(miss_rate=1.0, place=False))
    assert report.misses == 1
    assert notes.index("the object did not come along") < notes.index("open to try again")
    assert lifted
    assert report.lifted_at_attempt == 1  # the miss is not counted as an attempt


@pytest.mark.slow
def test_it_lifts_most_things() -> None:
    results = [play(seed, 1 + seed % 6) for seed in range(9000, 9040)]
    assert sum(lifted for lifted, *_ in results) >= 34


def test_it_refuses_a_twin_without_objects_and_bad_numbers() -> None:
    world = TwinWorld(TwinConfig(cameras=(), timestep_s=0.004))
    operator = ScriptOperator(world)
    with pytest.raises(BadInput, match="no scene with objects"):
        operator.begin(world.robot.state(), 0)
    with pytest.raises(BadInput, match="begin"):
        operator.act(world.robot.state(), 0)
    world.close()
    with pytest.raises(BadInput, match="miss_rate"):
        ScriptConfig(miss_rate=1.5)


LIMITS = SpeedLimits(RM75_6F.speeds, np.full(7, RM75_6F.acceleration_rad_s2), np.full(7, 160.0))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.floats(0.2, 1.0))
def test_a_path_meets_its_ends_and_its_limits(seed: int, count: int, pace: float) -> None:
    rng = np.random.default_rng(seed)
    waypoints = np.cumsum(rng.normal(0, 0.3, (count, 7)), axis=0)
    limits = LIMITS.scaled(pace)
    path = JointPath(waypoints, limits)
    np.testing.assert_allclose(path.at(0.0), waypoints[0], atol=1e-12)
    np.testing.assert_allclose(path.at(path.duration_s), waypoints[-1], atol=1e-12)
    t = np.linspace(0, path.duration_s, 400)
    q = np.stack([path.at(float(x)) for x in t])
    speed = np.abs(np.diff(q, axis=0)) / (t[1] - t[0])
    assert (speed <= 1.02 * limits.speed_rad_s).all()
    acceleration = np.abs(np.diff(q, 2, axis=0)) / (t[1] - t[0]) ** 2
    assert (acceleration <= 1.05 * limits.acceleration_rad_s2).all()


def test_a_path_that_goes_nowhere_stays() -> None:
    path = JointPath(np.ones((3, 7)), LIMITS, 0.5)
    np.testing.assert_array_equal(path.at(0.2), np.ones(7))


def test_noise_starts_at_nothing_and_has_the_promised_size() -> None:
    noise = SmoothNoise(np.random.default_rng(0), 200)
    np.testing.assert_array_equal(noise.at(0.0), np.zeros(200))
    values = np.stack([noise.at(t) for t in np.arange(1.0, 30.0, 0.3)])
    assert values.std() == pytest.approx(1.0, abs=0.1)
    assert np.abs(noise.at(3.05) - noise.at(3.0)).max() < 1.0  # slow


def test_dense_paths_keep_their_corners() -> None:
    corners = np.array([[0.0] * 7, [1.0] * 7, [1.0] * 6 + [0.5]])
    dense = densely(corners, 0.2)
    assert np.abs(np.diff(dense, axis=0)).max() <= 0.2 + 1e-12
    for corner in corners:
        assert (np.abs(dense - corner).max(1) < 1e-12).any()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_clearance_is_the_distance_to_the_bones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    preview = HandPreview()
    opening = rng.uniform(0, 1, 6)
    points = rng.uniform((0.2, -0.1, -0.3), (0.4, 0.1, 0.3), (20, 3))  # ahead of the palm's box
    keypoints = HandKinematics().keypoints(opening)
    chains = ((2, 3, 4), (5, 6, 8), (9, 10, 12), (13, 14, 16), (17, 18, 20))
    bones = [(keypoints[a], keypoints[b]) for chain in chains for a, b in zip(chain[:-1], chain[1:], strict=True)]
    along = np.linspace(0, 1, 400)[:, None]
    dense = np.concatenate([(1 - along) * a + along * b for a, b in bones])
    to_bones = np.linalg.norm(points[:, None] - dense, axis=-1).min() - preview.radius_m
    expected = min(to_bones, preview.palm_distance(points).min())
    assert preview.clearance(opening, points) == pytest.approx(expected, abs=2e-4)


def test_orientations_are_rotations_and_lean_as_told() -> None:
    for heading in (0.0, 1.0, 4.0):
        rotation = orientation(heading, 0.6, -0.8)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) == pytest.approx(1.0)
        assert -rotation[2, 0] == pytest.approx(np.cos(0.6))


def cylinder(radius: float, height: float) -> Shape:
    """A standing cylinder at (0.4, 0)."""
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle), 0 * angle], -1)
    levels = np.linspace(0, height, 12)
    points = np.concatenate([radius * ring + (0.4, 0.0, z) for z in levels])
    return Shape(points, np.tile(ring, (len(levels), 1)), np.array([0.4, 0.0, height / 2]))


def test_grasps_touch_the_object_and_spare_the_table_and_neighbours() -> None:
    target = cylinder(0.03, 0.10)
    neighbour = cylinder(0.03, 0.12).points + (0.0, 0.09, 0.0)
    preview = HandPreview()
    grasps = GraspPlanner(preview=preview).propose(target, neighbour)
    assert grasps
    assert [grasp.score for grasp in grasps] == sorted((grasp.score for grasp in grasps), reverse=True)
    for grasp in grasps:
        pose = grasp.world_T_palm
        local = (target.points - pose[:3, 3]) @ pose[:3, :3]
        assert preview.clearance(grasp.preshape, local[::2]) > 0.0
        assert grasp.clearance_m > -0.01
        tips = HandKinematics().tips(grasp.preshape) @ pose[:3, :3].T + pose[:3, 3]
        assert tips[:, 2].min() > 0.0
        assert (grasp.contact > 0).sum() >= 2


def closing_grasp() -> Grasp:
    preshape = np.array([1.0, 0.85, 0.85, 0.85, 0.85, 1.0])
    contact = np.array([0.7, 0.5, 0.5, 0.55, 0.0])
    return Grasp("wrap", np.eye(4), np.array([0.0, 0.0, -1.0]), preshape, contact, 0.05, 0.1, 1.0)


def test_digits_arrive_together_and_never_close_far_on_nothing() -> None:
    closer = HandCloser(closing_grasp(), ClosingConfig(), 0.05)
    opening = np.array(OPEN_HAND)
    openings = []
    while not closer.done:
        opening = closer.step(HandState(0, opening, np.zeros(6)))
        openings.append(opening)
        assert len(openings) < 100
    reached = np.array(openings)
    at_thumb = int(np.argmax(reached[:, 0] <= 0.7 + 1e-9))
    at_index = int(np.argmax(reached[:, 1] <= 0.5 + 1e-9))
    assert abs(at_thumb - at_index) <= 1
    assert reached[-1, 0] >= 0.7 - ClosingConfig().past_thumb - 1e-9
    assert reached[-1, 1] >= 0.5 - ClosingConfig().past_finger - 1e-9


def test_a_digit_that_feels_the_object_stops_and_then_squeezes() -> None:
    config = ClosingConfig()
    closer = HandCloser(closing_grasp(), config, 0.05)
    block = np.array([0.65, 0.48, 0.48, 0.5, 0.5])
    opening = np.array(OPEN_HAND)
    while not closer.done:
        command = closer.step(HandState(0, opening, np.where(opening <= np.append(block, 0) + 1e-9, 5.0, 0.0)))
        opening = np.append(np.maximum(command[:5], block), 1.0)
    np.testing.assert_allclose(opening[:5], block)
    assert (block - command[:5] == pytest.approx(config.squeeze)) or (command[:5] < block).all()


def test_a_shape_is_the_objects_surface() -> None:
    scene = sample_scene(3, "train", 1)
    world = TwinWorld(TwinConfig(cameras=()), scene)
    shape = body_shape(world.model, world.model.body("object_0").id).moved(world.object_pose(0))
    assert shape.height_m == pytest.approx(scene.objects[0].height_m, abs=0.004)
    assert shape.points[:, 2].min() == pytest.approx(0.0, abs=0.004)
    np.testing.assert_allclose(np.linalg.norm(shape.normals, axis=1), 1.0, atol=1e-6)
    world.close()


def test_a_config_is_a_value() -> None:
    assert replace(ScriptConfig(), retries=0).retries == 0
