"""Hand retargeting: known postures are recovered, pinches close, nothing jumps, a lost hand holds."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from dexloop.benchmarks.hand_peers import PeerRun
from dexloop.benchmarks.hand_retargeting import Judge, Method, lag_frames
from dexloop.hardware.errors import BadInput
from dexloop.hardware.geometry import apply, rotation_exp, transform
from dexloop.hardware.hand_kinematics import HandKinematics
from dexloop.retarget.calibration import HandCalibration, calibrate, contact_distance_m, hand_length_scale
from dexloop.retarget.hand import HandRetargetConfig, HandRetargeter
from dexloop.retarget.hand_objective import (
    HandObjective,
    HandTarget,
    ObjectiveConfig,
    nearest_on_segments,
    phalanx_distances_m,
)
from dexloop.retarget.keypoints import HandRecording, in_palm_axes, load_recording
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

SHARED = Path(__file__).parents[1].parent / "shared" / "data" / "human_hand_right.npz"
HAND = HandKinematics()
UNFILTERED = HandRetargetConfig(follower=None, speed_limit_per_s=1e3)
openings = arrays(float, (6,), elements=st.floats(0.05, 0.95))
DT_S = 1 / 30


def own_frame_calibration() -> HandCalibration:
    """Calibration for key points that *are* the robot's: only the landmarks' frame differs from the palm's."""
    points = HAND.keypoints(np.ones(6))
    palm_axes = in_palm_axes(points)
    # Rigid fit of the landmark frame to the palm: wrist, index and middle MCP fix it.
    a, b = palm_axes[[5, 9, 13]], points[[5, 9, 13]]
    u, _, vt = np.linalg.svd(a.T @ b)
    rotation = vt.T @ np.diag([1, 1, np.sign(np.linalg.det(vt.T @ u.T))]) @ u.T
    return HandCalibration(np.ones(5), transform(rotation, None))


CALIBRATION = own_frame_calibration()


def pinching(opening: np.ndarray) -> bool:
    tips = HAND.tips(opening)
    return bool((np.linalg.norm(tips[1:] - tips[0], axis=-1) < 0.055).any())


def inside(opening: np.ndarray) -> bool:
    return bool(phalanx_distances_m(HAND.keypoints(opening)).min() < 0.015)


@given(opening=openings)
def test_the_robots_own_postures_are_recovered(opening: np.ndarray) -> None:
    """Ground truth made by the hand model, well away from pinches, where the target is another on purpose."""
    if pinching(opening) or inside(opening):
        return
    found = HandRetargeter(HAND, CALIBRATION, UNFILTERED).retarget(HAND.keypoints(opening), 0.0)
    assert found.tip_error_m < 1e-3
    assert np.abs(HAND.tips(found.solved) - HAND.tips(opening)).max() < 2e-3


@given(opening=openings, turn=arrays(float, (3,), elements=st.floats(-3, 3)))
@settings(max_examples=20)
def test_where_the_operators_hand_is_does_not_matter(opening: np.ndarray, turn: np.ndarray) -> None:
    points = HAND.keypoints(opening)
    moved = apply(transform(rotation_exp(turn), np.array([0.5, -1.0, 2.0])), points)
    here = HandRetargeter(HAND, CALIBRATION, UNFILTERED).retarget(points, 0.0)
    there = HandRetargeter(HAND, CALIBRATION, UNFILTERED).retarget(moved, 0.0)
    assert np.allclose(here.opening, there.opening, atol=1e-4)


@given(opening=openings, last=openings, target=openings, pinch=arrays(float, (4,), elements=st.floats(0, 1)))
def test_gradient_against_finite_differences(
    opening: np.ndarray, last: np.ndarray, target: np.ndarray, pinch: np.ndarray
) -> None:
    bends = HAND.actuated(opening)[1:5]
    if (np.abs(HAND.pip(bends)) < 2e-3).any():
        return  # the PIP leaves its stop here: the derivative is one-sided
    objective = HandObjective(HAND, ObjectiveConfig(clearance_weight=0.0))
    wanted = HandTarget(HAND.tips(target), np.full(4, 0.02), pinch)
    analytic = objective.evaluate(opening, wanted, last)
    step = 1e-6
    for i in range(6):
        e = np.zeros(6)
        e[i] = step
        high, low = objective.evaluate(opening + e, wanted, last), objective.evaluate(opening - e, wanted, last)
        numeric = (high.cost - low.cost) / (2 * step)
        assert numeric == pytest.approx(analytic.gradient[i], rel=1e-4, abs=1e-3)


def test_gradient_of_the_clearance() -> None:
    """The thumb inside the bent index."""
    objective = HandObjective(HAND, ObjectiveConfig(tip_weight=0.0, pinch_weight=0.0, step_weight=0.0))
    rng = np.random.default_rng(0)
    wanted = HandTarget(np.zeros((5, 3)), np.zeros(4), np.zeros(4))
    checked = 0
    while checked < 10:
        opening = rng.uniform(0.1, 0.9, 6)
        if phalanx_distances_m(HAND.keypoints(opening)).min() > 0.01:
            continue
        checked += 1
        analytic = objective.evaluate(opening, wanted, opening)
        assert analytic.cost > 0
        for i in range(6):
            e = np.eye(6)[i] * 1e-6
            numeric = (
                objective.evaluate(opening + e, wanted, opening).cost
                - objective.evaluate(opening - e, wanted, opening).cost
            ) / 2e-6
            assert numeric == pytest.approx(analytic.gradient[i], rel=2e-3, abs=1e-2)


@given(
    a=arrays(float, (2, 3), elements=st.floats(-1, 1)),
    b=arrays(float, (2, 3), elements=st.floats(-1, 1)),
)
def test_nearest_points_of_segments(a: np.ndarray, b: np.ndarray) -> None:
    if min(np.linalg.norm(a[1] - a[0]), np.linalg.norm(b[1] - b[0])) < 0.05:
        return
    s, t = nearest_on_segments(a, b)
    grid = np.linspace(0, 1, 41)
    on_a = a[0] + grid[:, None] * (a[1] - a[0])
    on_b = b[0] + grid[:, None] * (b[1] - b[0])
    least = np.linalg.norm(on_a[:, None] - on_b, axis=-1).min()
    found = np.linalg.norm(a[0] + s * (a[1] - a[0]) - b[0] - t * (b[1] - b[0]))
    assert found <= least + 1e-6


@given(start=openings, target=openings, last=openings)
def test_the_solver_never_gets_worse_nor_leaves_the_box(
    start: np.ndarray, target: np.ndarray, last: np.ndarray
) -> None:
    objective = HandObjective(HAND)
    wanted = HandTarget(HAND.tips(target) * 1.3, np.full(4, 0.01), np.array([1.0, 0.5, 0.0, 0.0]))
    found = objective.solve(wanted, start, last)
    assert found.cost <= objective.evaluate(start, wanted, last).cost
    assert found.opening.min() >= 0.0
    assert found.opening.max() <= 1.0


@pytest.mark.parametrize("finger", range(4))
def test_a_pinch_closes(finger: int) -> None:
    """The operator's thumb and finger meet: so do the robot's, as near as its joints let them."""
    retargeter = HandRetargeter(HAND, HandCalibration(), UNFILTERED)
    points = np.array(HAND.keypoints(np.full(6, 0.7)))
    middle = 0.5 * (points[4] + points[8 + 4 * finger])
    points[4] = points[8 + 4 * finger] = middle
    found = retargeter.retarget(points / 1.15, 0.0)
    tips = HAND.tips(found.solved)
    rng = np.random.default_rng(0)
    every = HAND.tips(rng.uniform(0, 1, (20000, 6)))
    nearest = np.linalg.norm(every[:, 1 + finger] - every[:, 0], axis=-1).min()
    gap = np.linalg.norm(tips[1 + finger] - tips[0])
    assert gap < max(0.016, nearest + 0.006), "the tips touch where they can"


def test_thumb_and_fingers_do_not_pass_through_each_other() -> None:
    """A fist with the thumb across it: where the operator's flesh gives way, the robot's does not."""
    retargeter = HandRetargeter(HAND, CALIBRATION, UNFILTERED)
    rng = np.random.default_rng(3)
    width = HAND.hand.phalanx_width_mm * 1e-3
    for i in range(40):
        target = rng.uniform(0, 1, 6)
        found = retargeter.retarget(HAND.keypoints(target), i * DT_S)
        apart = phalanx_distances_m(HAND.keypoints(found.solved))
        apart[1, 1::2] = np.inf  # fingertip on fingertip is a pinch
        assert apart.min() > width - 0.005


def wave(count: int = 90) -> np.ndarray:
    """Key points (N, 21, 3) of a hand that opens and closes, by the robot's model."""
    t = np.arange(count)[:, None] * DT_S
    phase = np.array([0.0, 0.2, 0.4, 0.6, 0.8, 0.5])
    return HAND.keypoints(0.65 + 0.25 * np.cos(2 * np.pi * 0.4 * t + phase))


def test_speed_is_limited_to_the_hands() -> None:
    retargeter = HandRetargeter(HAND, CALIBRATION)
    retargeter.reset(np.ones(6), meet=False)
    rng = np.random.default_rng(0)
    outputs = [np.ones(6)]
    for i in range(60):
        points = HAND.keypoints(rng.uniform(0, 1, 6))
        outputs.append(retargeter.retarget(points, i * DT_S).opening)
    assert np.abs(np.diff(outputs, axis=0)).max() <= DT_S / HAND.hand.stroke_s + 1e-9


def test_a_lost_hand_holds_and_never_opens() -> None:
    retargeter = HandRetargeter(HAND, CALIBRATION)
    points = wave()
    for i in range(30):
        before = retargeter.retarget(points[i], i * DT_S)
    for i in range(30, 60):
        lost = retargeter.retarget(np.full((21, 3), np.nan), i * DT_S)
        assert not lost.tracked
        assert np.array_equal(lost.opening, before.opening)
    # It comes back wide open: the fingers are met where they are, and follow as the operator moves.
    back = retargeter.retarget(HAND.keypoints(np.full(6, 0.95)), 60 * DT_S)
    assert back.tracked
    assert not back.following
    assert np.array_equal(back.opening, before.opening)


def test_partly_lost_is_lost() -> None:
    retargeter = HandRetargeter(HAND, CALIBRATION)
    points = wave()
    retargeter.retarget(points[0], 0.0)
    points[1, 12, 1] = np.nan
    assert not retargeter.retarget(points[1], DT_S).tracked


def test_bumpless_start_and_re_engagement() -> None:
    held = np.array([0.5, 0.3, 0.3, 0.35, 0.4, 0.9])
    retargeter = HandRetargeter(HAND, CALIBRATION)
    retargeter.reset(held)
    still = HAND.keypoints(np.full(6, 0.8))
    for i in range(60):
        result = retargeter.retarget(still, i * DT_S)
        assert np.allclose(result.opening, held, atol=1e-3), "an operator who does not move moves nothing"
        assert not result.following
    points = wave(240)
    path = [result.opening]
    for i in range(240):
        result = retargeter.retarget(points[i], (60 + i) * DT_S)
        path.append(result.opening)
    assert result.following, "moving the fingers to and fro catches up"
    assert np.abs(np.diff(path, axis=0)).max() <= DT_S + 1e-9
    retargeter.release()
    again = retargeter.retarget(HAND.keypoints(np.full(6, 0.9)), 400 * DT_S)
    assert np.array_equal(again.opening, result.opening)


def test_catching_up_never_moves_against_the_operator() -> None:
    retargeter = HandRetargeter(HAND, CALIBRATION, UNFILTERED)
    retargeter.reset(np.full(6, 0.3))
    openings_ = np.linspace(0.9, 0.6, 40)
    results = [retargeter.retarget(HAND.keypoints(np.full(6, o)), i * DT_S) for i, o in enumerate(openings_)]
    moved = np.diff([r.opening for r in results], axis=0)
    asked = np.diff([r.solved for r in results], axis=0)
    assert (moved * asked >= -1e-6).all()


def test_a_fast_pinch_survives_the_filter() -> None:
    """Closed within 0.1 s, kept 0.2 s, opened again: the robot's tips touch, without its own speed limit."""
    open_, closed = np.full(6, 0.8), np.array([0.66, 0.37, 0.8, 0.8, 0.8, 0.66])
    shares = np.concatenate([np.zeros(10), np.linspace(0, 1, 4), np.ones(6), np.linspace(1, 0, 4), np.zeros(10)])
    config = HandRetargetConfig(speed_limit_per_s=10.0)
    retargeter = HandRetargeter(HAND, CALIBRATION, config)
    gaps = []
    for i, share in enumerate(shares):
        result = retargeter.retarget(HAND.keypoints(open_ + share * (closed - open_)), i * DT_S)
        tips = HAND.tips(result.opening)
        gaps.append(np.linalg.norm(tips[1] - tips[0]))
    assert min(gaps) < 0.016


def test_warm_start_takes_few_iterations() -> None:
    retargeter = HandRetargeter(HAND, CALIBRATION)
    iterations = [retargeter.retarget(points, i * DT_S).iterations for i, points in enumerate(wave())]
    assert np.mean(iterations[1:]) < 5
    begin = time.process_time()
    for i, points in enumerate(wave()):
        retargeter.retarget(points, 10 + i * DT_S)
    assert (time.process_time() - begin) / 90 < 0.02  # ten times what it takes: slow machines pass


def test_calibration_recovers_a_hand_of_another_size() -> None:
    """An operator whose hand is the robot's, smaller, seen in a tilted frame."""
    rng = np.random.default_rng(0)
    truth = HAND.keypoints(rng.uniform(0.2, 1.0, (60, 6)))
    seen = apply(transform(rotation_exp(np.array([0.3, -1.0, 0.5])), np.array([0.1, 0.2, 1.0])), truth / 1.2)
    found = calibrate(seen, HAND)
    assert np.allclose(found.scale, 1.2, atol=0.04)
    target = found.tips_m(in_palm_axes(seen))
    error = np.linalg.norm(target - truth[:, [4, 8, 12, 16, 20]], axis=-1)
    default = HandCalibration().tips_m(in_palm_axes(seen))
    assert error.mean() < 0.005
    assert error.mean() < 0.3 * np.linalg.norm(default - truth[:, [4, 8, 12, 16, 20]], axis=-1).mean()


def test_calibration_scale_and_contact() -> None:
    points = HAND.keypoints(np.random.default_rng(1).uniform(0, 1, (50, 6)))
    assert hand_length_scale(points / 1.1, HAND) == pytest.approx(1.1)
    wide = HAND.keypoints(np.full((5, 6), 0.9))
    assert contact_distance_m(wide) == HandCalibration().contact_m, "who never pinched keeps the default"


def test_calibration_ignores_lost_frames_and_needs_one(tmp_path: Path) -> None:
    points = HAND.keypoints(np.random.default_rng(2).uniform(0.2, 1, (30, 6)))
    with_gaps = points.copy()
    with_gaps[::3] = np.nan
    assert np.isfinite(calibrate(with_gaps, HAND).palm_T_hand).all()
    with pytest.raises(BadInput, match="No tracked hand"):
        calibrate(np.full((3, 21, 3), np.nan), HAND)
    found = calibrate(points, HAND)
    found.save(tmp_path / "me.json")
    back = HandCalibration.load(tmp_path / "me.json")
    assert np.array_equal(back.scale, found.scale)
    assert np.array_equal(back.palm_T_hand, found.palm_T_hand)
    (tmp_path / "me.json").write_text("{}")
    with pytest.raises(BadInput, match="not a hand calibration"):
        HandCalibration.load(tmp_path / "me.json")


def test_bad_input() -> None:
    retargeter = HandRetargeter(HAND)
    with pytest.raises(BadInput, match=r"expected \(21, 3\)"):
        retargeter.retarget(np.zeros((20, 3)), 0.0)
    with pytest.raises(BadInput, match="never seen"):
        retargeter.retarget(np.full((21, 3), np.nan), 0.0)
    with pytest.raises(BadInput, match="scale"):
        HandCalibration(scale=np.full(5, np.nan))
    with pytest.raises(BadInput, match="Pinch distances"):
        HandRetargetConfig(pinch_full_m=0.03, pinch_far_m=0.02)


@pytest.mark.skipif(not SHARED.is_file(), reason="no shared recording beside the repository")
def test_figures_on_the_real_recording() -> None:
    """Coarse bounds on what the benchmark measures: tip error, pinches, steps."""
    recording: HandRecording = load_recording(SHARED)
    calibration = calibrate(recording.keypoints_m, HAND)
    retargeter = HandRetargeter(HAND, calibration, UNFILTERED)
    solved = np.array(
        [retargeter.retarget(p, t).opening for p, t in zip(recording.keypoints_m, recording.time_s, strict=True)]
    )
    palm_axes = in_palm_axes(recording.keypoints_m)
    tips = HAND.tips(solved)
    assert np.linalg.norm(tips - calibration.tips_m(palm_axes), axis=-1).mean() < 0.019
    pinched = np.linalg.norm(palm_axes[:, 8] - palm_axes[:, 4], axis=-1) < 0.03
    gap = np.linalg.norm(tips[pinched, 1] - tips[pinched, 0], axis=-1)
    assert gap.max() < 0.0165


@pytest.mark.parametrize("shift", [0, 1, 3, 7])
def test_the_benchmark_measures_lag(shift: int) -> None:
    rng = np.random.default_rng(0)
    signal = np.cumsum(rng.normal(size=(200, 6)), axis=0)
    late = np.concatenate([np.repeat(signal[:1], shift, axis=0), signal[: 200 - shift]])
    assert lag_frames(late, signal) == pytest.approx(shift, abs=0.35)


def test_the_benchmark_measures_what_it_says() -> None:
    """A hand that stands still in a pinch: no velocity, no jerk, closed; its own target is met exactly."""
    opening = np.tile([0.66, 0.37, 1.0, 1.0, 1.0, 0.66], (80, 1))
    points = HAND.keypoints(opening) / 1.15
    judge = Judge(points, 30.0, HAND)
    method = Method("still", PeerRun(opening, np.arange(80.0)), HAND.tips(opening), opening)
    row = judge.row(method, opening, opening)
    assert judge.pinched.all()
    assert row.tip_mm == pytest.approx(0.0, abs=1e-9)
    assert row.own_tip_mm == pytest.approx(0.0, abs=1e-9)
    assert row.pinch_closed == 1.0
    assert row.velocity_p99 == row.jerk_rms == row.lag_frames == row.collision == 0.0
    jump = opening.copy()
    jump[40:, 1] = 1.0
    moved = judge.moved(jump)
    assert np.abs(np.diff(moved, axis=0)).max() <= 1 / 30 + 1e-9
    assert moved[-1, 1] == pytest.approx(1.0)
