"""Rigid transforms and rotations, batched over leading axes.

A ``Transform`` is a (..., 4, 4) homogeneous matrix named target first: ``world_T_palm @ palm_T_tip``. Quaternions
are (w, x, y, z), w >= 0 on output. Angles in rad, lengths in m.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Transform = NDArray[np.float64]  # (..., 4, 4)


def transform(rotation: Array | None = None, translation: Array | None = None) -> Transform:
    """(..., 3, 3) and (..., 3) -> (..., 4, 4); a missing part is identity / zero."""
    rotation = np.eye(3) if rotation is None else np.asarray(rotation, float)
    translation = np.zeros(3) if translation is None else np.asarray(translation, float)
    batch = np.broadcast_shapes(rotation.shape[:-2], translation.shape[:-1])
    out = np.zeros((*batch, 4, 4))
    out[..., :3, :3] = rotation
    out[..., :3, 3] = translation
    out[..., 3, 3] = 1.0
    return out


def inverse(a_T_b: Transform) -> Transform:
    """b_T_a of (..., 4, 4) rigid transforms."""
    rotation = np.swapaxes(a_T_b[..., :3, :3], -1, -2)
    return transform(rotation, -np.einsum("...ij,...j->...i", rotation, a_T_b[..., :3, 3]))


def apply(a_T_b: Transform, points_b: Array) -> Array:
    """Points (..., N, 3) in frame b -> the same points in frame a."""
    return points_b @ np.swapaxes(a_T_b[..., :3, :3], -1, -2) + a_T_b[..., None, :3, 3]


def rot_x(angle: float) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def rot_y(angle: float) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def rot_z(angle: float) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def rotation_exp(rotvec: Array) -> Array:
    """Rotation vector (..., 3) rad -> matrix (..., 3, 3) (Rodrigues)."""
    rotvec = np.asarray(rotvec, float)
    angle = np.linalg.norm(rotvec, axis=-1)[..., None, None]
    k = np.zeros((*rotvec.shape[:-1], 3, 3))
    x, y, z = rotvec[..., 0], rotvec[..., 1], rotvec[..., 2]
    k[..., 0, 1], k[..., 0, 2], k[..., 1, 2] = -z, y, -x
    k[..., 1, 0], k[..., 2, 0], k[..., 2, 1] = z, -y, x
    a = np.sinc(angle / np.pi)
    b = 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    return np.eye(3) + a * k + b * (k @ k)


def rotation_log(rotation: Array) -> Array:
    """Matrix (..., 3, 3) -> rotation vector (..., 3), angle in [0, pi]. Through the quaternion: exact near 0 and pi."""
    q = matrix_to_quat(rotation)
    vector = q[..., 1:]
    sine = np.linalg.norm(vector, axis=-1)
    half = np.arctan2(sine, q[..., 0])
    scale = np.where(sine > 1e-12, 2.0 * half / np.where(sine > 1e-12, sine, 1.0), 2.0)
    return vector * scale[..., None]


def matrix_to_quat(rotation: Array) -> Array:
    """(..., 3, 3) -> (..., 4) w x y z, w >= 0 (Shepperd: the largest component is the divisor)."""
    m = np.asarray(rotation, float)
    d0, d1, d2 = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    w, x, y, z = 1 + d0 + d1 + d2, 1 + d0 - d1 - d2, 1 - d0 + d1 - d2, 1 - d0 - d1 + d2
    yz, zx, xy = m[..., 2, 1], m[..., 0, 2], m[..., 1, 0]
    zy, xz, yx = m[..., 1, 2], m[..., 2, 0], m[..., 0, 1]
    rows = np.stack(
        [
            np.stack([w, yz - zy, zx - xz, xy - yx], -1),
            np.stack([yz - zy, x, xy + yx, zx + xz], -1),
            np.stack([zx - xz, xy + yx, y, yz + zy], -1),
            np.stack([xy - yx, zx + xz, yz + zy, z], -1),
        ],
        -2,
    )
    best = np.argmax(np.stack([w, x, y, z], -1), -1)
    q = np.take_along_axis(rows, best[..., None, None], -2)[..., 0, :]
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    return np.where(q[..., :1] < 0, -q, q)


def quat_to_matrix(quat: Array) -> Array:
    """(..., 4) w x y z -> (..., 3, 3)."""
    q = np.asarray(quat, float)
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    w, x, y, z = np.moveaxis(q, -1, 0)
    return np.stack(
        [
            np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)], -1),
            np.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)], -1),
            np.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], -1),
        ],
        -2,
    )


def quat_slerp(a: Array, b: Array, t: Array | float) -> Array:
    """Spherical interpolation of (..., 4) quaternions, shortest way."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    delta = quat_to_matrix(a).swapaxes(-1, -2) @ quat_to_matrix(b)
    step = rotation_exp(rotation_log(delta) * np.asarray(t, float)[..., None])
    return matrix_to_quat(quat_to_matrix(a) @ step)


def interpolate(a: Transform, b: Transform, t: float) -> Transform:
    """Straight line in position, shortest turn in rotation; t in [0, 1]."""
    step = rotation_exp(rotation_log(a[..., :3, :3].swapaxes(-1, -2) @ b[..., :3, :3]) * t)
    return transform(a[..., :3, :3] @ step, (1 - t) * a[..., :3, 3] + t * b[..., :3, 3])


def pose_error(a: Transform, b: Transform) -> tuple[Array, Array]:
    """(position distance m, rotation angle rad) between (..., 4, 4) poses."""
    position = np.linalg.norm(a[..., :3, 3] - b[..., :3, 3], axis=-1)
    turn = rotation_log(a[..., :3, :3].swapaxes(-1, -2) @ b[..., :3, :3])
    return position, np.linalg.norm(turn, axis=-1)
