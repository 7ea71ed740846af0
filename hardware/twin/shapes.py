"""What the model's bodies share: paints, collision bits, small geometry."""

from __future__ import annotations

import enum

import mujoco
import numpy as np

from ..geometry import Array, matrix_to_quat

# Collision bits. Two geoms meet where one's type is in the other's affinity: everything meets the environment and the
# objects (bit 1, MuJoCo's default), the thumb meets the fingers, the upper arm meets the hand. Fingers do not meet
# each other or their palm: their links would touch at rest and the real ones slide past.
ENVIRONMENT, FINGER, THUMB, UPPER_ARM, FOREARM = 1, 2, 4, 8, 16
PANEL_GROUP = 2  # drawn
Vec = tuple[float, ...]


class Paint(enum.StrEnum):
    """Material names."""

    TABLE = "table"
    FLOOR = "floor"
    BIN = "bin"
    METAL = "rig_metal"
    ARM = "rig_arm"
    JOINT = "rig_joint"
    HAND = "rig_hand"
    RUBBER = "rig_rubber"


_LOOKS: dict[Paint, tuple[Vec, float, float]] = {  # rgba, specular, shininess
    Paint.TABLE: ((0.72, 0.66, 0.58, 1), 0.1, 0.1),
    Paint.FLOOR: ((0.42, 0.42, 0.44, 1), 0.1, 0.1),
    Paint.BIN: ((0.18, 0.30, 0.46, 1), 0.2, 0.3),
    Paint.METAL: ((0.35, 0.36, 0.38, 1), 0.5, 0.5),
    Paint.ARM: ((0.93, 0.93, 0.92, 1), 0.4, 0.6),
    Paint.JOINT: ((0.30, 0.32, 0.35, 1), 0.4, 0.5),
    Paint.HAND: ((0.20, 0.21, 0.23, 1), 0.4, 0.5),
    Paint.RUBBER: ((0.42, 0.42, 0.43, 1), 0.05, 0.05),
}


def add_paints(spec: mujoco.MjSpec) -> None:
    for name, (rgba, specular, shininess) in _LOOKS.items():
        spec.add_material(name=name, rgba=rgba, specular=specular, shininess=shininess)


def box_size(box: Vec) -> tuple[Array, Array]:
    """(x0, x1, y0, y1, z0, z1) -> centre (3,), half sizes (3,), in the box's unit."""
    low, high = np.array(box[0::2], float), np.array(box[1::2], float)
    return (low + high) / 2, (high - low) / 2


def capsule_between(a: Array, b: Array, radius_m: float) -> tuple[Array, Array, Array]:
    """Size (3,), position (3,) m and quaternion (4,) of the capsule (or cylinder) whose axis runs from a to b."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    axis = (b - a) / np.linalg.norm(b - a)
    side = np.cross(axis, [1.0, 0.0, 0.0] if abs(axis[0]) < 0.9 else [0.0, 1.0, 0.0])
    side = side / np.linalg.norm(side)
    rotation = np.stack([side, np.cross(axis, side), axis], -1)
    half = np.linalg.norm(b - a) / 2
    return np.array([radius_m, half, 0.0]), (a + b) / 2, matrix_to_quat(rotation)
