"""Motions that are not learnt, on the twin."""

from __future__ import annotations

import numpy as np
import pytest
from dexloop.deploy.motions import OPENED, Motions
from dexloop.hardware.clock import NS
from dexloop.hardware.description import OPEN_HAND, START_ARM_Q
from dexloop.hardware.geometry import apply
from dexloop.hardware.palm import HELD_M, PalmArm
from dexloop.hardware.safety import SafeRobot
from dexloop.hardware.twin.world import TwinConfig, TwinWorld
from dexloop.hardware.values import Applied, Command, RobotState

RATE_HZ = 20.0
# Openings after so many commands each, in which the bent thumb and the ring finger hook each other.
HOOKING = (((1.0, 0.82, 0.82, 0.82, 0.82, 1.0), 1), ((0.46, 0.34, 0.41, 0.1, 0.41, 0.93), 14),
           ((0.05, 0.73, 0.11, 0.36, 0.46, 0.99), 22), ((0.05, 0.73, 0.11, 0.36, 0.46, 0.99), 5))  # fmt: skip


@pytest.fixture
def hooked() -> TwinWorld:
    """A free hand whose thumb and ring finger do not open when they are told to."""
    world = TwinWorld(TwinConfig(cameras=(), sensor_noise=False, timestep_s=0.004))
    before = np.array(OPEN_HAND)
    for hand, count in (*HOOKING, (OPEN_HAND, 16), (OPEN_HAND, 10)):
        for k in range(1, count + 1):
            world.clock.sleep_until_ns(world.clock.now_ns() + round(NS / RATE_HZ))
            opening = before + (np.array(hand) - before) * k / count
            world.robot.send(Command(world.clock.now_ns(), np.array(START_ARM_Q), opening))
        before = np.array(hand)
    opening = world.robot.state().hand.opening
    assert opening[[0, 3]].max() < 0.5
    assert opening[[1, 2, 4]].min() > OPENED
    return world


@pytest.mark.parametrize("motion", ["let_go", "to_start"])
def test_a_thumb_and_a_finger_that_hook_each_other_come_free(hooked: TwinWorld, motion: str) -> None:
    motions = Motions(hooked.robot, RATE_HZ)
    getattr(motions, motion)()
    assert hooked.robot.state().hand.opening[:5].min() > OPENED
    motions.let_go()
    assert hooked.robot.state().hand.opening.min() > OPENED


def test_letting_go_takes_no_longer_where_nothing_is_hooked() -> None:
    world = TwinWorld(TwinConfig(cameras=(), sensor_noise=False, timestep_s=0.004))
    Motions(world.robot, RATE_HZ).let_go()
    assert world.clock.now_ns() <= 0.9 * NS


class Noting:
    """A robot that notes whether safety changed what it was told."""

    def __init__(self, robot: SafeRobot) -> None:
        self._robot, self.flags = robot, 0
        self.clock = robot.clock

    def state(self) -> RobotState:
        return self._robot.state()

    def send(self, command: Command) -> Applied:
        applied = self._robot.send(command)
        self.flags |= applied.flags
        return applied


def test_the_way_over_the_bin_and_back_is_free() -> None:
    world = TwinWorld(TwinConfig(cameras=(), sensor_noise=False, timestep_s=0.004))
    robot = Noting(SafeRobot(world.robot, world.rig))
    motions = Motions(robot, RATE_HZ)
    motions.to_start()
    motions.carry()
    motions.to_bin()
    arm = PalmArm(world.rig.arms[0])
    held = apply(arm.palm(robot.state().arm.q), np.array([HELD_M]))[0]
    assert np.abs(held[:2] - np.array(world.rig.bin_center_m)[:2]).max() < 0.02
    motions.let_go()
    motions.to_start()
    assert np.abs(robot.state().arm.q - np.array(START_ARM_Q)).max() < 0.02
    assert robot.flags == 0, "the way leads through nothing that SafeRobot keeps away from"
