"""Filters: constants pass, steps do not overshoot, limits hold, fast motion lags little."""

from __future__ import annotations

import numpy as np
import pytest
from dexloop.hardware.errors import BadInput
from dexloop.hardware.geometry import pose_error, rotation_exp, transform
from dexloop.retarget.filters import (
    Follower,
    FollowerConfig,
    OneEuro,
    OneEuroConfig,
    OneEuroPose,
    smoothing,
)
from hypothesis import given, settings
from hypothesis import strategies as st

values = st.floats(-2.0, 2.0)
rates_hz = st.sampled_from([20.0, 30.0, 60.0, 90.0])


@given(value=values, rate_hz=rates_hz, cutoff=st.floats(0.2, 20.0), beta=st.floats(0.0, 50.0))
def test_one_euro_keeps_a_constant(value: float, rate_hz: float, cutoff: float, beta: float) -> None:
    one_euro = OneEuro(OneEuroConfig(cutoff, beta))
    for _ in range(20):
        assert one_euro(np.array([value]), 1 / rate_hz) == pytest.approx(value, abs=1e-12)


@given(start=values, end=values, rate_hz=rates_hz, cutoff=st.floats(0.2, 20.0), beta=st.floats(0.0, 50.0))
def test_one_euro_approaches_a_step_without_overshoot(
    start: float, end: float, rate_hz: float, cutoff: float, beta: float
) -> None:
    one_euro = OneEuro(OneEuroConfig(cutoff, beta))
    one_euro(np.array([start]), 1 / rate_hz)
    path = np.array([one_euro(np.array([end]), 1 / rate_hz)[0] for _ in range(50)])
    left = np.abs(end - path)
    assert (np.diff(left) <= 1e-12).all()
    assert ((path - start) * (end - start) >= 0).all()
    assert ((end - path) * (end - start) >= -1e-12).all()


def test_one_euro_is_calm_at_rest_and_prompt_in_motion() -> None:
    rng = np.random.default_rng(0)
    dt_s = 1 / 30
    still = OneEuro(OneEuroConfig(1.0, 30.0))
    noise = rng.normal(0, 0.002, (300, 1))
    calm = np.array([still(x, dt_s) for x in noise])[30:]
    assert calm.std() < 0.55 * noise.std()
    speed = 1.0
    moving, fixed = OneEuro(OneEuroConfig(1.0, 30.0)), OneEuro(OneEuroConfig(1.0, 0.0))
    for i in range(60):
        target = np.array([speed * i * dt_s])
        adaptive, slow = moving(target, dt_s)[0], fixed(target, dt_s)[0]
    assert target[0] - adaptive < 0.012 * speed
    assert target[0] - slow > 0.1 * speed


@given(
    axis=st.tuples(values, values, values).filter(lambda v: np.linalg.norm(v) > 0.1),
    angle=st.floats(0.0, 3.0),
    shift=st.tuples(values, values, values),
)
def test_pose_filter_stays_rigid_and_arrives(axis: tuple[float, ...], angle: float, shift: tuple[float, ...]) -> None:
    goal = transform(rotation_exp(np.array(axis) / np.linalg.norm(axis) * angle), np.array(shift))
    one_euro = OneEuroPose()
    one_euro(np.eye(4), 1 / 30)
    for _ in range(120):
        pose = one_euro(goal, 1 / 30)
        assert np.abs(pose[:3, :3] @ pose[:3, :3].T - np.eye(3)).max() < 1e-9
    move, turn = pose_error(pose, goal)
    assert move < 1e-3
    assert turn < 1e-3


@settings(max_examples=60)
@given(
    start=st.floats(0.0, 1.0),
    end=st.floats(0.0, 1.0),
    rate_hz=rates_hz,
    speed=st.floats(0.3, 3.0),
    acceleration=st.floats(3.0, 100.0),
)
def test_follower_keeps_its_limits_and_arrives(
    start: float, end: float, rate_hz: float, speed: float, acceleration: float
) -> None:
    follower = Follower(FollowerConfig(speed_limit=speed, acceleration_limit=acceleration))
    follower.reset(np.array([start]))
    path = np.array([start] + [follower(np.array([end]), 1 / rate_hz)[0] for _ in range(int(6 * rate_hz))])
    velocity = np.diff(path) * rate_hz
    assert np.abs(velocity).max() <= speed * (1 + 1e-9)
    assert np.abs(path[-1] - end) < 1e-4
    beyond = (path - end) * np.sign(end - start)
    assert beyond.max() <= 0.15 * abs(end - start) + 1e-9


def test_follower_lags_little_behind_a_steady_motion() -> None:
    rate_hz, speed = 30.0, 0.8
    follower = Follower(FollowerConfig(speed_limit=2.0))
    for i in range(90):
        target = np.array([speed * i / rate_hz])
        at = follower(target, 1 / rate_hz)
    assert (target - at)[0] / speed < 0.1


def test_follower_hurries_where_it_is_urgent() -> None:
    def taken_s(urgency: float) -> float:
        follower = Follower(FollowerConfig(speed_limit=10.0))
        follower.reset(np.zeros(2))
        for i in range(60):
            at = follower(np.ones(2), 1 / 60, np.array([urgency, 0.0]))
            if at[0] > 0.9:
                return i / 60
        return np.inf

    assert taken_s(1.0) < taken_s(0.0) - 0.03


def test_follower_has_no_corners() -> None:
    """Acceleration is bounded, also where the target jumps to and fro."""
    config = FollowerConfig(acceleration_limit=20.0, speed_limit=5.0)
    follower = Follower(config)
    rng = np.random.default_rng(1)
    path = np.array([follower(rng.uniform(0, 1, 1), 0.01)[0] for _ in range(400)])
    acceleration = np.diff(path[1:], 2) / 0.01**2
    # The brake before the target may take more than the limit within one step; the mean stays inside.
    assert np.sqrt((acceleration**2).mean()) <= config.acceleration_limit


@given(cutoff=st.floats(0.01, 1000.0), dt_s=st.floats(1e-4, 1.0))
def test_smoothing_is_a_weight(cutoff: float, dt_s: float) -> None:
    assert 0.0 < smoothing(cutoff, dt_s) < 1.0


@pytest.mark.parametrize("rate_hz", [30.0, 100.0])
def test_follower_with_a_jerk_limit(rate_hz: float) -> None:
    config = FollowerConfig(15.0, 0.0, acceleration_limit=2.0, jerk_limit=40.0, speed_limit=0.8)
    follower = Follower(config)
    follower.reset(np.zeros(1))
    path = np.array([0.0, 0.0, 0.0] + [follower(np.array([0.6]), 1 / rate_hz)[0] for _ in range(int(4 * rate_hz))])
    # Differences over a tick see two of its inner steps.
    assert np.abs(np.diff(path, 3)).max() * rate_hz**3 <= 2.5 * config.jerk_limit
    assert path.max() <= 0.6 * 1.02
    assert path[-1] == pytest.approx(0.6, abs=1e-3)


def test_coasting_between_inputs_changes_little() -> None:
    """Outputs at 60 Hz from inputs at 30 Hz lie on the way that 30 Hz alone would take, and lag no more."""
    plain, coasting = Follower(FollowerConfig(speed_limit=3.0)), Follower(FollowerConfig(speed_limit=3.0))
    worst = 0.0
    for i in range(120):
        target = np.array([0.3 * np.sin(2 * np.pi * 0.5 * i / 30)])
        a = plain(target, 1 / 30)
        b = coasting(target, 1 / 60)
        coasting.coast(1 / 60)
        worst = max(worst, float(np.abs(a - b).max()))
    assert worst < 0.04


def test_time_that_stands_still_changes_nothing() -> None:
    follower, one_euro = Follower(), OneEuro()
    for f in (follower, one_euro):
        first = f(np.array([0.3]), 0.0)
        assert f(np.array([0.9]), 0.0) == first


def test_bad_configs_are_refused() -> None:
    with pytest.raises(BadInput, match="cut-offs"):
        OneEuroConfig(min_cutoff_hz=0.0)
    with pytest.raises(BadInput, match="follower"):
        FollowerConfig(lead=2.0)
