"""A hand closing on points, by geometry alone: where each digit would stop, and how good a hold that would be.

The hand is its keypoints' bones as capsules and the palm as a box. Digits are independent of each other, so each is
swept over a fixed list of openings and stops at the first that touches the object.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...hardware.description import GO_R, MM, HandDescription
from ...hardware.hand_kinematics import HandKinematics

Array = NDArray[np.float64]

# Keypoint rows of each digit's chain, thumb to little. A finger's DIP is a point on its distal bone: left out.
_CHAINS = ((2, 3, 4), (5, 6, 8), (9, 10, 12), (13, 14, 16), (17, 18, 20))
_BONES = tuple((digit, a, b) for digit, chain in enumerate(_CHAINS) for a, b in zip(chain[:-1], chain[1:], strict=True))
_BONE_DIGIT = np.array([digit for digit, _, _ in _BONES])
_START, _END = np.array([a for _, a, _ in _BONES]), np.array([b for _, _, b in _BONES])
DIGIT_MOTOR = (0, 1, 2, 3, 4)  # of HAND_MOTORS: the bend motor of each digit, thumb to little

PALM_TIP_M, PALM_MOUNT_M = 0.016, 0.013  # the plate ends this much before the box distally and on the palm's side


@dataclass(frozen=True)
class Closure:
    """What a preview closing found, digits thumb to little."""

    opening: Array  # (5,) at first touch; 0 where the digit closed on nothing
    touched: NDArray[np.bool_]  # (5,)
    point: Array  # (5, 3) m, touched surface point, palm frame (nan where not touched)
    normal: Array  # (5, 3) outward normal of the object there


class HandPreview:
    """Distances between a hand in a given posture and points, palm frame throughout."""

    def __init__(self, hand: HandDescription = GO_R, levels: int = 15) -> None:
        self._kinematics = HandKinematics(hand)
        self.radius_m = 0.5 * MM * hand.phalanx_width_mm
        box = MM * np.array(hand.palm_box_mm)
        # Of the published box only the thumb's mount, which no object gets to, reaches the full depth and length.
        box += np.array([0.0, -PALM_TIP_M, 0.0, 0.0, PALM_MOUNT_M, 0.0])
        self._low, self._high = box[0::2], box[1::2]
        self.levels = np.linspace(1.0, 0.0, levels)
        self._sweeps: dict[float, tuple[Array, Array]] = {}

    def bones(self, opening: Array) -> tuple[Array, Array]:
        """Openings (..., 6) -> bone ends (..., 10, 3), (..., 10, 3) m."""
        keypoints = self._kinematics.keypoints(opening)
        return keypoints[..., _START, :], keypoints[..., _END, :]

    def lowest_m(self, opening: Array, rotation: Array) -> float:
        """Height of the hand's lowest point over its palm's origin, while the fingers close by half from ``opening``.

        ``rotation`` (3, 3) is world_R_palm.
        """
        sweep = np.repeat(opening[None], 4, 0)
        sweep[:, 1:5] = np.maximum(opening[1:5] - np.array([0.0, 0.12, 0.25, 0.4])[:, None], 0.0)
        start, end = self.bones(sweep)
        bones = np.concatenate([start, end], 1) @ rotation[2] - self.radius_m
        corners = np.stack(np.meshgrid(*zip(self._low, self._high, strict=True)), -1).reshape(-1, 3)
        return float(min(bones.min(), (corners @ rotation[2]).min()))

    def palm_distance(self, points: Array) -> Array:
        """Signed distance (...,) m of points (..., 3) from the palm box; negative inside."""
        outside = np.maximum(self._low - points, points - self._high)
        return np.linalg.norm(np.maximum(outside, 0), axis=-1) + np.minimum(outside.max(-1), 0)

    def clearance(self, opening: Array, points: Array) -> Array:
        """Smallest signed distance (...,) m between the hand at ``opening`` (6,) and point sets (..., N, 3)."""
        start, end = self.bones(opening)
        bones = _to_bones(points, start, end).min((-1, -2)) - self.radius_m
        return np.minimum(bones, self.palm_distance(points).min(-1))

    def thumb_tip(self, opening: Array) -> Array:
        """(3,) m, the centre of the thumb's pad."""
        start, end = self.bones(opening)
        return end[1] - self.radius_m * (end[1] - start[1]) / np.linalg.norm(end[1] - start[1])

    def close(self, start: Array, points: Array, normals: Array, drag_m: Array | float = 0.0) -> Closure:
        """Close every bend motor from ``start`` (6,) over ``points`` (N, 3) m until it touches.

        The thumb meets the points moved by ``drag_m`` (3,): the fingers may have brought them along.
        """
        bone_start, bone_end = self._sweep(float(start[5]))  # (L, 10, 3)
        distance = _to_bones(points, bone_start, bone_end)  # (L, 10, N)
        if np.any(drag_m):
            distance[:, :2] = _to_bones(points + drag_m, bone_start[:, :2], bone_end[:, :2])
        opening, touched = np.zeros(5), np.zeros(5, bool)
        point, normal = np.full((5, 3), np.nan), np.full((5, 3), np.nan)
        for digit in range(5):
            near = distance[:, digit == _BONE_DIGIT].min(1)  # (L, N)
            hit = (near.min(1) < self.radius_m) & (self.levels <= start[DIGIT_MOTOR[digit]] + 0.04)
            if hit.any():
                level = int(np.argmax(hit))
                which = int(np.argmin(near[level]))
                opening[digit], touched[digit] = self.levels[level], True
                point[digit], normal[digit] = points[which], normals[which]
        return Closure(opening, touched, point, normal)

    def _sweep(self, rotation: float) -> tuple[Array, Array]:
        if rotation not in self._sweeps:
            openings = np.repeat(self.levels[:, None], 6, 1)
            openings[:, 5] = rotation
            self._sweeps[rotation] = self.bones(openings)
        return self._sweeps[rotation]


def _to_bones(points: Array, start: Array, end: Array) -> Array:
    """Distances (P..., S..., B, N) m from point sets (P..., N, 3) to segments (S..., B, 3).

    Squared distances by products of sums: no (..., N, 3) offsets are made, which is what takes the time.
    """
    shape = start.shape[:-1]
    begin, along = start.reshape(-1, 3), (end - start).reshape(-1, 3)  # (K, 3)
    length2 = np.maximum((along * along).sum(-1), 1e-12)[:, None]
    turned = np.swapaxes(points, -1, -2)  # (P..., 3, N)
    to_begin = (turned**2).sum(-2)[..., None, :] - 2.0 * (begin @ turned) + (begin * begin).sum(-1)[:, None]
    projected = along @ turned - (begin * along).sum(-1)[:, None]  # (P..., K, N)
    t = np.clip(projected / length2, 0.0, 1.0)
    squared = to_begin + t * (t * length2 - 2.0 * projected)
    distance = np.sqrt(np.maximum(squared, 0.0))
    return distance.reshape(*points.shape[:-2], *shape, points.shape[-2])
