"""The hand of the twin does what the real one does, and no more: couplings, speed, forces."""

from __future__ import annotations

from dataclasses import replace

import mujoco
import numpy as np
import pytest
from dexloop.hardware.clock import NS
from dexloop.hardware.description import GO_R, HAND_MOTORS, MM, START_ARM_Q
from dexloop.hardware.geometry import Array, matrix_to_quat
from dexloop.hardware.hand_kinematics import HAND_JOINTS, HandKinematics
from dexloop.hardware.kinematics import ArmKinematics
from dexloop.hardware.rig import DEXGRASPVLA_RIG
from dexloop.hardware.twin.hand_spec import hand_forces
from dexloop.hardware.twin.world import TwinConfig, TwinWorld
from dexloop.hardware.values import Command

NO_CAMERAS = TwinConfig(cameras=(), sensor_noise=False)
MOUNT = DEXGRASPVLA_RIG.arms[0]
START = np.array(START_ARM_Q)
KINEMATICS = HandKinematics()
TIPS = {"thumb_bend": "thumb", "index": "index", "middle": "middle", "ring": "ring", "little": "little"}


def command_hand(world: TwinWorld, opening: Array, seconds: float) -> list[tuple[float, Array]]:
    """Send one opening at 60 Hz; (s, measured opening) on the way."""
    begin = deadline = world.clock.now_ns()
    out = []
    while deadline < begin + seconds * NS:
        world.robot.send(Command(world.clock.now_ns(), START, opening))
        deadline += NS // 60
        world.clock.sleep_until_ns(deadline)
        hand = world.robot.state().hand
        out.append(((hand.captured_ns - begin) / NS, hand.opening))
    return out


def hand_angles(world: TwinWorld) -> Array:
    return np.array([world.data.joint(name).qpos[0] for name in HAND_JOINTS])


@pytest.mark.parametrize("level", [1.0, 0.97, 0.8, 0.5, 0.2, 0.0])
def test_joints_settle_on_the_couplings(level: float) -> None:
    """With the thumb out of the way every joint rests within half a degree of the true polynomials."""
    world = TwinWorld(NO_CAMERAS)
    opening = np.array([1.0, level, level, level, level, 1.0 - level])
    command_hand(world, opening, 1.6)
    np.testing.assert_allclose(hand_angles(world), KINEMATICS.joints(opening), atol=np.deg2rad(0.5))


def test_fingertips_are_where_the_hand_model_has_them() -> None:
    world = TwinWorld(NO_CAMERAS)
    for opening in np.random.default_rng(3).uniform(0, 1, (20, 6)):
        world.set_arm_and_hand(START, opening)
        palm = world.data.body("palm")
        tips = (
            np.array([world.data.site(f"{tip}_tip").xpos for tip in TIPS.values()]) - palm.xpos
        ) @ palm.xmat.reshape(3, 3)
        np.testing.assert_allclose(tips, KINEMATICS.tips(opening), atol=1e-9)


def test_full_stroke_takes_a_second() -> None:
    world = TwinWorld(NO_CAMERAS)
    target = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    target[0] = 1.0  # the thumb would meet the fingers
    travel = [(t, opening[1]) for t, opening in command_hand(world, target, 1.5)]
    arrived = next(t for t, opening in travel if opening < 0.01)
    assert 0.95 < arrived < 1.15
    middle = [(t, opening) for t, opening in travel if 0.2 < opening < 0.8]
    rate = np.polyfit([t for t, _ in middle], [1.44 * opening for _, opening in middle], 1)[0]
    assert -rate == pytest.approx(GO_R.closing_speed_rad_s, rel=0.03)


def pressed_plate(motor: str, at: float):
    """A scene with a fixed plate square to the fingertip's way, in front of the pad when the motor is at ``at``."""
    index = HAND_MOTORS.index(motor)
    opening = np.ones(6)
    if motor != "thumb_bend":
        opening[HAND_MOTORS.index("thumb_rotation")] = 0.0  # out of the fingers' way
    opening[index] = at
    tip = list(TIPS).index(motor)
    points, jacobian = KINEMATICS.keypoints_and_jacobian(opening)
    row = (4, 8, 12, 16, 20)[tip]
    way = -jacobian[row, :, index] / np.linalg.norm(jacobian[row, :, index])
    along = points[row] - points[row - 1]
    radius = MM * GO_R.phalanx_width_mm / 2
    pad = points[row] - radius * along / np.linalg.norm(along)
    world_T_palm = MOUNT.world_T_base @ ArmKinematics().fk(START) @ MOUNT.flange_T_palm
    center = world_T_palm[:3, :3] @ (pad + way * (radius + 0.01)) + world_T_palm[:3, 3]
    normal = world_T_palm[:3, :3] @ way
    side = np.cross(normal, [0, 0, 1])
    side /= np.linalg.norm(side)

    def build(spec: mujoco.MjSpec) -> None:
        spec.worldbody.add_geom(
            name="plate",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=(0.008, 0.008, 0.01),
            pos=center,
            quat=matrix_to_quat(np.stack([side, np.cross(normal, side), normal], -1)),
            friction=(0.01, 0, 0),
        )

    return build, opening


def force_on_plate(world: TwinWorld) -> float:
    plate, total, force = world.model.geom("plate").id, 0.0, np.zeros(6)
    for k, contact in enumerate(world.data.contact):
        if plate in contact.geom:
            mujoco.mj_contactForce(world.model, world.data, k, force)
            total += force[0]
    return total


@pytest.mark.parametrize("motor", list(TIPS))
def test_bent_fingertip_presses_with_ten_newtons(motor: str) -> None:
    build, opening = pressed_plate(motor, 0.35)
    world = TwinWorld(NO_CAMERAS, build)
    world.set_arm_and_hand(START, opening + 0.1 * np.eye(6)[HAND_MOTORS.index(motor)])
    opening[HAND_MOTORS.index(motor)] = 0.0
    command_hand(world, opening, 1.0)
    assert force_on_plate(world) == pytest.approx(10.0, abs=1.0)
    reported = world.robot.state().hand.force[HAND_MOTORS.index(motor)]
    assert reported == pytest.approx(10.0, abs=0.5)


def test_stretched_finger_is_weaker() -> None:
    """0.45 kgf stretched against 1 kgf bent, as the data sheet has it."""
    build, opening = pressed_plate("middle", 0.93)
    world = TwinWorld(NO_CAMERAS, build)
    world.set_arm_and_hand(START, np.array([1.0, 1, 1, 1, 1, 0]))
    opening[HAND_MOTORS.index("middle")] = 0.0
    command_hand(world, opening, 0.8)
    assert 4.0 < force_on_plate(world) < 6.5


def test_levers_are_the_jacobians() -> None:
    """The fitted levers are within 1 % of the speed of the fingertips' pads, so that the force limit is too."""
    pad = GO_R.phalanx_width_mm / 2
    hand = replace(
        GO_R,
        fingers=tuple(replace(finger, distal_mm=finger.distal_mm - pad) for finger in GO_R.fingers),
        thumb=replace(GO_R.thumb, distal_mm=GO_R.thumb.distal_mm - pad),
    )
    pads, forces, step = HandKinematics(hand), hand_forces(GO_R), 1e-6
    for motor, tip in enumerate((0, 1, 2, 3, 4)):
        for at in (0.1, 0.4, 0.7, 0.9, 0.999):
            opening = np.ones(6)
            opening[motor] = at
            moved = opening - step * np.eye(6)[motor]
            turn = pads.actuated(moved)[motor] - pads.actuated(opening)[motor]
            speed = np.linalg.norm(pads.tips(moved)[tip] - pads.tips(opening)[tip]) / turn
            q = pads.actuated(opening)[motor]
            assert forces.lever(np.full(6, q))[motor] == pytest.approx(speed, rel=0.01)


def test_blocked_motor_turns_round_at_once() -> None:
    """Its position does not run ahead of a finger that something holds."""
    build, opening = pressed_plate("index", 0.6)
    world = TwinWorld(NO_CAMERAS, build)
    closed = opening.copy()
    closed[1] = 0.0
    world.set_arm_and_hand(START, np.where(np.arange(6) == 1, 0.7, opening))
    command_hand(world, closed, 1.5)
    blocked = world.robot.state().hand.opening[1]
    assert blocked == pytest.approx(0.6, abs=0.05)
    opening[1] = 1.0
    travel = command_hand(world, opening, 0.2)
    assert travel[-1][1][1] > blocked + 0.08


def test_forces_never_exceed_the_limit() -> None:
    """Whatever closes on whatever: no motor pulls more than 10 N at its tip."""
    world = TwinWorld(NO_CAMERAS)
    strongest = 0.0
    for opening in ([0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0.5]):
        command_hand(world, np.array(opening, float), 1.2)
        strongest = max(strongest, float(world.robot.state().hand.force.max()))
    assert 9.0 < strongest < 10.1
