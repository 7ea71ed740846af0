"""Contacts of the twin: still at rest, no creep in the hand, the same every time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import mujoco
import numpy as np
import pytest
from dexloop.hardware.clock import NS
from dexloop.hardware.description import PLACE_ARM_Q, RIG_LIMITS_RAD, START_ARM_Q
from dexloop.hardware.geometry import Array, Transform, inverse, transform
from dexloop.hardware.kinematics import ArmKinematics
from dexloop.hardware.rig import DEXGRASPVLA_RIG
from dexloop.hardware.twin.success import LiftConfig, LiftSuccess
from dexloop.hardware.twin.world import TwinConfig, TwinWorld
from dexloop.hardware.values import Command

MOUNT = DEXGRASPVLA_RIG.arms[0]
ARM = ArmKinematics()
NO_CAMERAS = TwinConfig(cameras=(), sensor_noise=False)
OPEN, CLOSED = np.ones(6), np.array([0.0, 0, 0, 0, 0, 1.0])  # the thumb stays opposed
RADIUS_M, CENTER = 0.03, np.array([0.42, 0.0, 0.07])


def cylinder(mass_kg: float = 0.3) -> Callable[[mujoco.MjSpec], None]:
    def build(spec: mujoco.MjSpec) -> None:
        body = spec.worldbody.add_body(name="object_0", pos=CENTER)
        body.add_freejoint()
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CYLINDER,
            size=(RADIUS_M, CENTER[2], 0),
            mass=mass_kg,
            condim=6,
            friction=(0.8, 0.005, 0.0002),
            priority=1,  # with the contact parameters of the generated objects
            solref=(0.01, 1.0),
            solimp=(0.95, 0.99, 0.001, 0.5, 2.0),
        )

    return build


def side_grasp(lift_m: float = 0.0) -> Transform:
    """world_T_palm with the palm facing left and the cylinder between fingers and thumb."""
    tilt = np.deg2rad(75)
    x, z = np.array([np.sin(tilt), 0, -np.cos(tilt)]), np.array([0, -1.0, 0])
    rotation = np.stack([x, np.cross(z, x), z], -1)
    at = CENTER + [0, 0, 0.015] - rotation @ np.array([0.125, 0.0, -0.021 - RADIUS_M])
    return transform(rotation, at + [0, 0, lift_m])


def reach(world_T_palm: Transform, near: Array) -> Array:
    """Joint angles for a palm pose, well inside the limits and with the elbow up."""
    base_T_flange = inverse(MOUNT.world_T_base) @ world_T_palm @ inverse(MOUNT.flange_T_palm)
    every = [q for angle in np.linspace(-3, 3, 40) for q in ARM.ik_all(base_T_flange, angle)]
    inside = [q for q in every if (np.abs(q) < np.array(RIG_LIMITS_RAD) - 0.15).all()]
    high = [q for q in inside if (MOUNT.world_T_base @ ARM.fk_links(q)[3])[2, 3] > 0.15]
    return min(high, key=lambda q: float(np.abs(q - near).max()))


GRASP_Q = reach(side_grasp(), np.array(START_ARM_Q))
LIFTED_Q = reach(side_grasp(0.15), GRASP_Q)


def go(world: TwinWorld, q_from: Array, q_to: Array, opening: Array, seconds: float) -> None:
    """Smoothly from one configuration to another, 50 commands a second."""
    begin = deadline = world.clock.now_ns()
    while deadline < begin + seconds * NS:
        part = min(1.0, 1.2 * (deadline - begin) / NS / seconds)
        q = q_from + (q_to - q_from) * part * part * (3 - 2 * part)
        world.robot.send(Command(world.clock.now_ns(), q, opening))
        deadline += NS // 50
        world.clock.sleep_until_ns(deadline)


def grasp_and_lift(config: TwinConfig, mass_kg: float = 0.3) -> TwinWorld:
    world = TwinWorld(config, cylinder(mass_kg))
    world.set_arm_and_hand(GRASP_Q, OPEN)
    go(world, GRASP_Q, GRASP_Q, CLOSED, 1.2)
    go(world, GRASP_Q, LIFTED_Q, CLOSED, 1.5)
    return world


def palm_T_object(world: TwinWorld) -> Transform:
    mujoco.mj_kinematics(world.model, world.data)
    palm = world.data.body("palm")
    return inverse(transform(palm.xmat.reshape(3, 3), palm.xpos)) @ world.object_pose(0)


@pytest.mark.parametrize("timestep_s", [0.002, 0.004])
def test_held_object_does_not_creep(timestep_s: float) -> None:
    """300 g held for 10 s stay within 0.1 mm and a tenth of a degree, once the grip has settled."""
    world = grasp_and_lift(TwinConfig(cameras=(), timestep_s=timestep_s))
    assert world.object_lift_m(0) > 0.10
    go(world, LIFTED_Q, LIFTED_Q, CLOSED, 1.0)
    before = palm_T_object(world)
    go(world, LIFTED_Q, LIFTED_Q, CLOSED, 10.0)
    after = palm_T_object(world)
    assert np.linalg.norm(after[:3, 3] - before[:3, 3]) < 1e-4
    turn = np.arccos(np.clip((np.trace(before[:3, :3].T @ after[:3, :3]) - 1) / 2, -1, 1))
    assert turn < np.deg2rad(0.1)
    assert {"thumb_distal", "index_distal"} <= set(world.hand_contacts(0))


def test_what_is_too_heavy_is_dropped() -> None:
    """The grip is the real hand's: 4 kg slip out of it."""
    world = grasp_and_lift(NO_CAMERAS, mass_kg=4.0)
    assert world.object_lift_m(0) < 0.10


def test_object_at_rest_stays_where_it_is() -> None:
    """Even while it is simulated."""
    world = TwinWorld(replace(NO_CAMERAS, sleep=False), cylinder())
    world.clock.sleep_until_ns(1 * NS)  # first contact settles by microns
    before, fastest = world.object_pose(0), 0.0
    for k in range(100):
        world.clock.sleep_until_ns(1 * NS + (k + 1) * NS // 20)
        fastest = max(fastest, world.object_speed_m_s(0))
    after = world.object_pose(0)
    np.testing.assert_allclose(after, before, atol=2e-5)
    assert fastest < 1e-4


def test_sleeping_objects_wake_when_they_are_touched_or_moved() -> None:
    """A grasp from sleep ends as one without it does; a sleeper put into the air falls."""
    asleep, awake = (replace(NO_CAMERAS, sleep=sleep) for sleep in (True, False))
    lifts = [grasp_and_lift(config).object_lift_m(0) for config in (asleep, awake)]
    assert lifts[0] == pytest.approx(lifts[1], abs=2e-3)
    world = TwinWorld(asleep, cylinder())
    world.clock.sleep_until_ns(NS // 2)
    assert world.data.ncon == 0  # nobody looks at a sleeper's contacts
    before = world.object_pose(0)
    pose = before.copy()
    pose[2, 3] += 0.1
    world.set_object_pose(0, pose)
    world.clock.sleep_until_ns(NS)
    assert world.object_pose(0)[2, 3] == pytest.approx(before[2, 3], abs=1e-3)


def test_wrench_is_what_the_environment_exerts() -> None:
    """The hand's own weight is taken off; the weight of what it holds is there, pulling down."""
    world = grasp_and_lift(NO_CAMERAS)
    go(world, LIFTED_Q, LIFTED_Q, CLOSED, 1.0)
    rotation = (MOUNT.world_T_base @ ARM.fk(LIFTED_Q))[:3, :3]
    force_world = rotation @ world.robot.state().arm.wrench[:3]
    np.testing.assert_allclose(force_world, [0, 0, -0.3 * 9.81], atol=0.1)
    empty = TwinWorld(NO_CAMERAS)
    for q in (START_ARM_Q, PLACE_ARM_Q):
        empty.set_arm_and_hand(np.array(q), OPEN)
        empty.clock.sleep_until_ns(empty.clock.now_ns() + NS // 5)
        wrench = empty.robot.state().arm.wrench
        assert np.abs(wrench[:3]).max() < 0.05
        assert np.abs(wrench[3:]).max() < 0.01


def test_lift_success_needs_height_and_time() -> None:
    world = TwinWorld(NO_CAMERAS, cylinder())
    success = LiftSuccess(world, 0, LiftConfig(height_m=0.10, hold_s=2.0))
    world.robot.subscribe(success)
    world.set_arm_and_hand(GRASP_Q, OPEN)
    go(world, GRASP_Q, GRASP_Q, CLOSED, 1.2)
    go(world, GRASP_Q, LIFTED_Q, CLOSED, 1.5)
    assert success.highest_m > 0.10
    assert not success.achieved
    go(world, LIFTED_Q, LIFTED_Q, CLOSED, 2.1)
    assert success.achieved


def test_a_thrown_object_is_no_success() -> None:
    """High but not in the hand does not count."""
    world = TwinWorld(NO_CAMERAS, cylinder())
    success = LiftSuccess(world, 0, LiftConfig(height_m=0.10, hold_s=0.0))
    world.data.joint(world.model.body("object_0").jntadr[0]).qvel[2] = 3.0
    for k in range(100):
        world.clock.sleep_until_ns((k + 1) * NS // 100)
        success.update(world.clock.now_ns())
    assert success.highest_m > 0.2
    assert not success.achieved


def test_two_stepped_runs_are_identical() -> None:
    """Bit for bit, sensor noise included, however the time is cut into sleeps."""

    def run(sleep_ns: int) -> tuple[Array, Array]:
        world = TwinWorld(TwinConfig(cameras=(), seed=5), cylinder())
        world.set_arm_and_hand(GRASP_Q, OPEN)
        wrenches: list[Array] = []
        world.robot.subscribe(lambda reading: wrenches.append(getattr(reading, "wrench", np.zeros(6))))
        deadline = 0
        while deadline < NS:
            if deadline % (100_000_000) == 0:
                world.robot.send(Command(deadline, GRASP_Q, CLOSED))
            deadline += sleep_ns
            world.clock.sleep_until_ns(deadline)
        return world.data.qpos.copy(), np.array(wrenches)

    first, second, coarse = run(10_000_000), run(10_000_000), run(50_000_000)
    for other in (second, coarse):
        np.testing.assert_array_equal(first[0], other[0])
        np.testing.assert_array_equal(first[1], other[1])
