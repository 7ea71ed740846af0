"""Wrist retargeting: the palm repeats the wrist's movement, without jumps, and saturates smoothly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from dexloop.hardware.description import RETURN_ARM_Q, START_ARM_Q
from dexloop.hardware.errors import BadInput
from dexloop.hardware.geometry import inverse, pose_error, rot_z, rotation_exp, rotation_log, transform
from dexloop.hardware.kinematics import ArmKinematics, IkStatus
from dexloop.hardware.rig import DEXGRASPVLA_RIG
from dexloop.retarget.wrist import WristRetargetConfig, WristRetargeter, soft_clip
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

RATE_HZ = 30.0
MOUNT = DEXGRASPVLA_RIG.arms[0]
ARM = ArmKinematics(MOUNT.arm)
EXACT = WristRetargetConfig(
    position_filter=None, rotation_filter=None, follower=None, speed_limit_m_s=10.0, turn_limit_rad_s=30.0, jump_rad=2.0
)
small = arrays(float, (3,), elements=st.floats(-1.0, 1.0))


def middle_q() -> np.ndarray:
    """Joint angles with the palm over the middle of the table."""
    retargeter = make()
    world_T_palm = retargeter.world_T_palm(np.array(RETURN_ARM_Q))
    world_T_palm[:3, 3] = [0.45, -0.1, 0.2]
    result = ARM.ik(inverse(MOUNT.world_T_base) @ world_T_palm @ inverse(MOUNT.flange_T_palm), RETURN_ARM_Q)
    assert result.ok
    return result.q


def make(config: WristRetargetConfig | None = None) -> WristRetargeter:
    return WristRetargeter(MOUNT, DEXGRASPVLA_RIG.workspace_m, config)


def engaged(config: WristRetargetConfig | None = None) -> WristRetargeter:
    retargeter = make(config)
    retargeter.reset(middle_q())
    retargeter.engage()
    return retargeter


@given(start=small, shift=small, turn=small)
@settings(max_examples=25)
def test_the_palm_repeats_the_movement_of_the_wrist(start: np.ndarray, shift: np.ndarray, turn: np.ndarray) -> None:
    """Wherever the operator's hand is and however it is turned when the clutch closes."""
    retargeter = engaged(EXACT)
    palm = retargeter.world_T_palm(middle_q())
    hand = transform(rotation_exp(start), 3 * start)
    retargeter.retarget(hand, 0.0)
    moved = transform(rotation_exp(0.2 * turn) @ hand[:3, :3], hand[:3, 3] + 0.04 * shift)
    result = retargeter.retarget(moved, 0.1)
    expected = transform(rotation_exp(0.2 * turn) @ palm[:3, :3], palm[:3, 3] + 0.04 * shift)
    assert result.status in (IkStatus.OK, IkStatus.SINGULAR)
    position, rotation = pose_error(retargeter.world_T_palm(result.arm_q), expected)
    assert position < 1e-6
    assert rotation < 1e-6


def test_scales_and_alignment() -> None:
    quarter = tuple(rot_z(np.pi / 2).ravel())
    config = replace(EXACT, translation_scale=0.5, rotation_scale=0.5, world_R_operator=quarter)
    retargeter = engaged(config)
    palm = retargeter.world_T_palm(middle_q())
    retargeter.retarget(np.eye(4), 0.0)
    result = retargeter.retarget(transform(rotation_exp(np.array([0.2, 0, 0])), np.array([0.1, 0, 0])), 0.1)
    reached = retargeter.world_T_palm(result.arm_q)
    assert np.allclose(reached[:3, 3] - palm[:3, 3], [0, 0.05, 0], atol=1e-6)
    assert np.allclose(rotation_log(reached[:3, :3] @ palm[:3, :3].T), [0, 0.1, 0], atol=1e-6)


def test_clutch_is_bumpless() -> None:
    retargeter = engaged()
    q = middle_q()
    first = retargeter.retarget(transform(None, np.array([1.0, 2.0, 3.0])), 0.0)
    assert np.allclose(first.arm_q, q)
    for i in range(30):
        moving = retargeter.retarget(transform(None, np.array([1.0 + 0.002 * i, 2.0, 3.0])), (i + 1) / RATE_HZ)
    assert np.abs(moving.arm_q - q).max() > 1e-3
    retargeter.release()
    for i in range(30):  # the operator goes elsewhere meanwhile
        held = retargeter.retarget(transform(None, np.array([0.0, 0.05 * i, 0.0])), 2 + i / RATE_HZ)
        assert not held.engaged
        assert np.array_equal(held.arm_q, moving.arm_q)
    retargeter.engage()
    again = retargeter.retarget(transform(None, np.array([0.0, 1.5, 0.0])), 4.0)
    assert np.allclose(again.arm_q, moving.arm_q)


def test_joints_go_on_between_samples() -> None:
    retargeter = engaged()
    retargeter.retarget(np.eye(4), 0.0)
    path = []
    for i in range(1, 30):
        path.append(retargeter.retarget(transform(None, np.array([-0.004 * i, 0, 0])), i / 30).arm_q)
        path.append(retargeter.advance((i + 0.5) / 30))
        assert np.array_equal(retargeter.advance((i + 0.5) / 30), path[-1]), "time that stands still moves nothing"
    steps = np.abs(np.diff(path[20:], axis=0)).max(axis=1)
    assert steps.max() < 2 * np.median(steps), "even steps, with samples and without"
    retargeter.release()
    assert np.array_equal(retargeter.advance(5.0), path[-1])


def test_a_lost_wrist_holds() -> None:
    retargeter = engaged()
    retargeter.retarget(np.eye(4), 0.0)
    before = retargeter.retarget(transform(None, np.array([0.01, 0, 0])), 0.1)
    lost = retargeter.retarget(np.full((4, 4), np.nan), 0.2)
    assert not lost.engaged
    assert np.array_equal(lost.arm_q, before.arm_q)


def path(amplitude_m: float, noise_m: float, seconds: float = 12.0) -> np.ndarray:
    """Wrist poses (N, 4, 4) of a person waving about."""
    rng = np.random.default_rng(0)
    t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    phase = np.array([0.0, 0.3, 1.0])
    hz = np.array([0.2, 0.13, 0.17])
    position = amplitude_m * (np.sin(2 * np.pi * hz * t[:, None] + phase) - np.sin(phase))
    position += noise_m * rng.normal(size=position.shape)
    rotation = rotation_exp(0.3 * np.stack([np.sin(t), np.sin(0.7 * t), np.sin(0.5 * t)], -1))
    return transform(rotation, position)


def follow(poses: np.ndarray, config: WristRetargetConfig | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Joint angles (N, 7) and palm positions (N, 3)."""
    retargeter = engaged(config)
    q = np.array([retargeter.retarget(pose, i / RATE_HZ).arm_q for i, pose in enumerate(poses)])
    return q, np.array([retargeter.world_T_palm(x)[:3, 3] for x in q])


def jerk_rms(q: np.ndarray) -> float:
    return float(np.sqrt((np.diff(q, 3, axis=0) ** 2).mean()) * RATE_HZ**3)


def test_noise_is_smoothed_and_lag_is_small() -> None:
    clean, noisy = path(0.05, 0.0), path(0.05, 0.002)
    q, palm = follow(noisy)
    start = palm[0] - clean[0, :3, 3]
    wanted = start + clean[:, :3, 3]
    assert jerk_rms(q) < 200  # differential IK alone: about 1400 on such input
    errors = [np.linalg.norm(palm[lag:] - wanted[: len(wanted) - lag], axis=-1).mean() for lag in range(8)]
    assert int(np.argmin(errors)) <= 3
    assert min(errors) < 0.004


def test_saturation_is_smooth_and_stays_inside() -> None:
    """Half a metre to every side: box, table and reach are all left behind."""
    q, palm = follow(path(0.5, 0.0))
    limits = MOUNT.arm.limits
    assert (q >= limits[:, 0]).all()
    assert (q <= limits[:, 1]).all()
    assert jerk_rms(q) < 300  # differential IK out of reach: about 3700
    assert (np.abs(np.diff(q, axis=0)) <= MOUNT.arm.speeds / RATE_HZ + 1e-9).all()
    x0, x1, y0, y1, z0, z1 = DEXGRASPVLA_RIG.workspace_m
    slack = 0.03  # joints that are smoothed one by one may cut a corner
    assert (palm >= np.array([x0, y0, z0]) - slack).all()
    assert (palm <= np.array([x1, y1, z1]) + slack).all()


def test_what_was_out_of_reach_comes_back_at_once() -> None:
    """Pulled 1 m away and returned: the palm is where it was, nothing wound up."""
    out = np.concatenate([np.linspace(0, 1, 60), np.ones(30), np.linspace(1, 0, 60), np.zeros(60)])
    poses = transform(None, out[:, None] * np.array([1.0, 0.0, 0.3]))
    retargeter = engaged()
    for i, pose in enumerate(poses):
        result = retargeter.retarget(pose, i / RATE_HZ)
    assert result.saturated_m < 1e-3
    position, _ = pose_error(retargeter.world_T_palm(result.arm_q), retargeter.world_T_palm(middle_q()))
    assert position < 0.01


@given(value=st.floats(-5, 5), margin=st.floats(0.01, 0.4))
def test_soft_clip(value: float, margin: float) -> None:
    low, high = np.array([-1.0]), np.array([1.0])
    clipped = float(soft_clip(np.array([value]), low, high, margin)[0])
    assert -1.0 <= clipped <= 1.0
    if abs(value) <= 1 - margin:
        assert clipped == value
    step = 1e-6
    slope = float(soft_clip(np.array([value + step]), low, high, margin)[0]) - clipped
    assert -1e-12 <= slope <= step * (1 + 1e-6), "rises, and never faster than the wish"


def test_bad_input() -> None:
    retargeter = make()
    with pytest.raises(BadInput, match="reset"):
        retargeter.engage()
    with pytest.raises(BadInput, match="reset"):
        retargeter.retarget(np.eye(4), 0.0)
    retargeter.reset(np.array(START_ARM_Q))
    with pytest.raises(BadInput, match=r"\(4, 4\)"):
        retargeter.retarget(np.eye(3), 0.0)
    with pytest.raises(BadInput, match="world_R_operator"):
        WristRetargetConfig(world_R_operator=(1.0,) * 9)
    with pytest.raises(BadInput, match="scales"):
        WristRetargetConfig(translation_scale=0.0)
