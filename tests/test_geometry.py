"""Rigid transforms: round trips and agreements, over random rotations including the awkward angles."""

import numpy as np
from dexloop.hardware.geometry import (
    apply,
    interpolate,
    inverse,
    matrix_to_quat,
    pose_error,
    quat_slerp,
    quat_to_matrix,
    rot_x,
    rot_y,
    rot_z,
    rotation_exp,
    rotation_log,
    transform,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

VECTORS = arrays(float, (3,), elements=st.floats(-1.0, 1.0))
# Rotation vectors with angles up to pi, the ends included.
ANGLES = st.one_of(st.floats(0.0, np.pi), st.sampled_from([0.0, 1e-12, 1e-7, np.pi / 2, np.pi - 1e-7, np.pi]))


def _rotvec(axis: np.ndarray, angle: float) -> np.ndarray:
    norm = np.linalg.norm(axis)
    return (axis / norm if norm > 1e-3 else np.array([0.0, 0.0, 1.0])) * angle


@given(VECTORS, ANGLES)
def test_exp_is_a_rotation_and_log_inverts_it(axis: np.ndarray, angle: float) -> None:
    rotvec = _rotvec(axis, angle)
    rotation = rotation_exp(rotvec)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) > 0.0
    back = rotation_log(rotation)
    if angle > np.pi - 1e-6:  # at pi an axis and its opposite are one rotation
        assert min(np.abs(back - rotvec).max(), np.abs(back + rotvec).max()) < 1e-6
    else:
        np.testing.assert_allclose(back, rotvec, atol=1e-9)


@given(VECTORS, ANGLES)
def test_quaternions_invert_matrices(axis: np.ndarray, angle: float) -> None:
    rotation = rotation_exp(_rotvec(axis, angle))
    quat = matrix_to_quat(rotation)
    assert quat[0] >= 0.0
    np.testing.assert_allclose(np.linalg.norm(quat), 1.0, atol=1e-12)
    np.testing.assert_allclose(quat_to_matrix(quat), rotation, atol=1e-12)


@given(VECTORS, ANGLES, VECTORS, arrays(float, (5, 3), elements=st.floats(-10.0, 10.0)))
def test_inverse_undoes_apply(axis: np.ndarray, angle: float, offset: np.ndarray, points: np.ndarray) -> None:
    a_T_b = transform(rotation_exp(_rotvec(axis, angle)), offset)
    np.testing.assert_allclose(apply(inverse(a_T_b), apply(a_T_b, points)), points, atol=1e-9)
    np.testing.assert_allclose(a_T_b @ inverse(a_T_b), np.eye(4), atol=1e-12)


@given(VECTORS, st.floats(0.0, 3.0), st.floats(0.0, 1.0))
def test_slerp_turns_evenly(axis: np.ndarray, angle: float, t: float) -> None:
    start = matrix_to_quat(rotation_exp(_rotvec(axis, 0.7)))
    end = matrix_to_quat(rotation_exp(_rotvec(axis, 0.7)) @ rotation_exp(_rotvec(axis, angle)))
    turned = rotation_log(quat_to_matrix(start).T @ quat_to_matrix(quat_slerp(start, end, t)))
    np.testing.assert_allclose(turned, _rotvec(axis, t * angle), atol=1e-9)


def test_elementary_rotations_turn_right_handed() -> None:
    np.testing.assert_allclose(rot_x(np.pi / 2) @ [0, 1, 0], [0, 0, 1], atol=1e-15)
    np.testing.assert_allclose(rot_y(np.pi / 2) @ [0, 0, 1], [1, 0, 0], atol=1e-15)
    np.testing.assert_allclose(rot_z(np.pi / 2) @ [1, 0, 0], [0, 1, 0], atol=1e-15)
    np.testing.assert_allclose(rotation_exp(np.array([0.3, 0.0, 0.0])), rot_x(0.3), atol=1e-15)


def test_interpolation_ends_at_its_ends_and_errors_measure_it() -> None:
    a = transform(rot_z(0.2), np.array([1.0, 0.0, 0.0]))
    b = transform(rot_z(1.2), np.array([0.0, 0.0, 2.0]))
    np.testing.assert_allclose(interpolate(a, b, 0.0), a, atol=1e-12)
    np.testing.assert_allclose(interpolate(a, b, 1.0), b, atol=1e-12)
    position, rotation = pose_error(a, interpolate(a, b, 0.5))
    np.testing.assert_allclose(position, np.sqrt(5.0) / 2, atol=1e-12)
    np.testing.assert_allclose(rotation, 0.5, atol=1e-12)


def test_batches_equal_single_evaluations() -> None:
    rotvecs = np.random.default_rng(0).normal(size=(4, 5, 3))
    rotations = rotation_exp(rotvecs)
    np.testing.assert_allclose(rotations[2, 3], rotation_exp(rotvecs[2, 3]), atol=1e-15)
    np.testing.assert_allclose(matrix_to_quat(rotations)[1, 1], matrix_to_quat(rotations[1, 1]), atol=1e-15)
    np.testing.assert_allclose(rotation_log(rotations)[3, 0], rotation_log(rotations[3, 0]), atol=1e-15)
