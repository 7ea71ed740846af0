"""The coupled hand: openings, couplings, keypoints, and Jacobians against finite differences."""

import numpy as np
import pytest
from dexloop.hardware.description import GO_R, HAND_MOTORS, MM
from dexloop.hardware.errors import BadInput
from dexloop.hardware.hand_kinematics import HAND_JOINTS, KEYPOINTS, MOTOR_JOINTS, TIPS, HandKinematics
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

HAND = HandKinematics()
OPENINGS = arrays(float, (6,), elements=st.floats(0.0, 1.0))
OPEN, CLOSED = np.ones(6), np.zeros(6)


def test_orders_name_the_same_motors() -> None:
    assert [HAND_JOINTS[i].removesuffix("_mcp") for i in MOTOR_JOINTS] == list(HAND_MOTORS)
    assert len(KEYPOINTS) == 21
    assert [KEYPOINTS[i] for i in TIPS] == [f"{f}_tip" for f in ("thumb", "index", "middle", "ring", "little")]


def test_open_hand_is_straight_with_the_thumb_opposed() -> None:
    joints = dict(zip(HAND_JOINTS, HAND.joints(OPEN), strict=True))
    assert joints.pop("thumb_rotation") == pytest.approx(1.57)
    assert all(angle == 0.0 for angle in joints.values())


def test_closed_hand_is_at_the_ends_of_its_ranges() -> None:
    joints = dict(zip(HAND_JOINTS, HAND.joints(CLOSED), strict=True))
    assert joints["thumb_rotation"] == 0.0
    assert joints["thumb_bend"] == pytest.approx(np.deg2rad(30.7))
    assert joints["thumb_distal"] == pytest.approx(1.29 * np.deg2rad(30.7))
    assert joints["index_mcp"] == pytest.approx(1.44)
    assert joints["index_pip"] == pytest.approx(-0.122 + 1.264 * 1.44 - 0.086 * 1.44**2)
    assert joints["little_pip"] == pytest.approx(-0.142 + 1.456 * 1.44 - 0.200 * 1.44**2)


def test_straight_tips_lie_where_the_table_says() -> None:
    """The table's rounded tip positions and its pivots and lengths differ by up to 3 mm among themselves."""
    x = HAND.tips(OPEN)[1:, 0]
    np.testing.assert_allclose(x, [0.200, 0.208, 0.200, 0.178], atol=0.0035)


@given(OPENINGS)
def test_pip_never_bends_backwards_and_grows_with_closing(opening: np.ndarray) -> None:
    pip = HAND.joints(opening)[4::2]
    tighter = HAND.joints(np.maximum(opening - 0.05, 0.0))[4::2]
    assert (pip >= 0.0).all()
    assert (tighter >= pip - 1e-12).all()


@given(OPENINGS)
def test_opening_of_inverts_both_forms(opening: np.ndarray) -> None:
    np.testing.assert_allclose(HAND.opening_of(HAND.joints(opening)), opening, atol=1e-12)
    np.testing.assert_allclose(HAND.opening_of(HAND.actuated(opening)), opening, atol=1e-12)


@given(OPENINGS)
def test_phalanges_keep_their_lengths(opening: np.ndarray) -> None:
    points = HAND.keypoints(opening)
    for k, finger in enumerate(GO_R.fingers):
        mcp, pip, dip, tip = points[5 + 4 * k : 9 + 4 * k]
        assert np.linalg.norm(pip - mcp) == pytest.approx(finger.proximal_mm * MM)
        assert np.linalg.norm(tip - pip) == pytest.approx(finger.distal_mm * MM)
        np.testing.assert_allclose(np.cross(dip - pip, tip - pip), 0.0, atol=1e-12)
    assert np.linalg.norm(points[3] - points[2]) == pytest.approx(GO_R.thumb.proximal_mm * MM)
    assert np.linalg.norm(points[4] - points[3]) == pytest.approx(GO_R.thumb.distal_mm * MM)
    # The angle between the phalanges is the coupled joint.
    for k in range(4):
        mcp, pip, tip = points[5 + 4 * k], points[6 + 4 * k], points[8 + 4 * k]
        u, v = pip - mcp, tip - pip
        angle = np.arctan2(np.linalg.norm(np.cross(u, v)), u @ v)
        assert angle == pytest.approx(HAND.joints(opening)[4 + 2 * k], abs=1e-7)


def test_bending_moves_tips_to_the_palm_side() -> None:
    half = np.array([1.0, 0.5, 0.5, 0.5, 0.5, 1.0])
    assert (HAND.tips(half)[1:, 2] < HAND.tips(OPEN)[1:, 2] - 0.03).all()


def test_thumb_opposes_the_fingers() -> None:
    """Turned under the palm the thumb can meet the bent index and middle finger; turned out it lies beside them."""
    beside = HAND.tips([1, 1, 1, 1, 1, 0])[0]
    opposed = HAND.tips([1, 1, 1, 1, 1, 1])[0]
    assert beside[1] > 0.06
    assert opposed[2] < -0.06
    assert abs(opposed[1]) < 0.05
    grid = np.linspace(0, 1, 21)
    bend, finger = np.meshgrid(grid, grid, indexing="ij")
    opening = np.ones((21, 21, 6))
    opening[..., 0], opening[..., 1], opening[..., 2] = bend, finger, finger
    tips = HAND.tips(opening)
    gap = np.linalg.norm(tips[..., 1:3, :] - tips[..., :1, :], axis=-1).min((0, 1))
    assert (gap < 0.03).all()  # centre lines: 16 mm wide phalanges touch at about 16 mm


@settings(max_examples=50)
@given(OPENINGS)
def test_jacobian_equals_finite_differences(opening: np.ndarray) -> None:
    step = 1e-6
    mcp = HAND.actuated(opening)[1:5]
    c0, c1, c2 = HAND._pip.T
    if (np.abs(c0 + c1 * mcp + c2 * mcp**2) < 1e-4).any():
        return  # at its stop a PIP has two one-sided derivatives
    steps = step * np.eye(6)
    numeric = (HAND.keypoints(opening + steps) - HAND.keypoints(opening - steps)) / (2 * step)  # (6, 21, 3)
    np.testing.assert_allclose(HAND.keypoints_jacobian(opening), np.moveaxis(numeric, 0, -1), atol=1e-8)


def test_batches_equal_single_evaluations() -> None:
    openings = np.random.default_rng(0).uniform(size=(3, 4, 6))
    points, jacobian = HAND.keypoints_and_jacobian(openings)
    assert points.shape == (3, 4, 21, 3)
    assert jacobian.shape == (3, 4, 21, 3, 6)
    np.testing.assert_allclose(points[1, 2], HAND.keypoints(openings[1, 2]), atol=1e-15)
    np.testing.assert_allclose(jacobian[1, 2], HAND.keypoints_jacobian(openings[1, 2]), atol=1e-15)
    np.testing.assert_allclose(HAND.joints(openings)[2, 3], HAND.joints(openings[2, 3]), atol=1e-15)


def test_wrong_shape_is_bad_input() -> None:
    with pytest.raises(BadInput, match=r"shape \(5,\)"):
        HAND.keypoints(np.ones(5))
