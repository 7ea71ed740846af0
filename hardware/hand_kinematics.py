"""Forward kinematics of the coupled hand: six openings -> eleven joints -> 21 keypoints, with exact Jacobians.

This is the one place that knows what an opening means:

- the five bend motors: opening 1 = straight (0 rad), 0 = fully bent (upper end of the range);
- ``thumb_rotation``: opening 1 = the thumb turned under the palm, opposed to the fingers (1.57 rad), 0 = beside it.

Every finger is planar: with the unit axis ``a`` of its MCP and the direction ``d`` in which it points when straight,
a bend by t turns ``d`` into ``d cos t + (a x d) sin t``. The PIP follows the MCP by a polynomial that the linkage
stops at 0: below about 0.1 rad of MCP the finger stays straight. Palm frame throughout (``docs/conventions.md``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .description import GO_R, MM, HandDescription
from .errors import BadInput

Array = NDArray[np.float64]

HAND_JOINTS = (
    "thumb_rotation",
    "thumb_bend",
    "thumb_distal",
    "index_mcp",
    "index_pip",
    "middle_mcp",
    "middle_pip",
    "ring_mcp",
    "ring_pip",
    "little_mcp",
    "little_pip",
)
MOTOR_JOINTS = (1, 3, 5, 7, 9, 0)  # of HAND_JOINTS: the joint that each motor of HAND_MOTORS turns

KEYPOINTS = (
    "wrist",
    *(f"thumb_{part}" for part in ("cmc", "mcp", "ip", "tip")),
    *(f"{finger}_{part}" for finger in ("index", "middle", "ring", "little") for part in ("mcp", "pip", "dip", "tip")),
)
TIPS = (4, 8, 12, 16, 20)  # of KEYPOINTS
# The hand has no DIP joint. A human's lies here on the way from PIP to tip (bone and pulp of an adult's index,
# middle and ring finger: 0.53-0.57).
DIP_FRACTION = 0.55

_THUMB_BEND, _THUMB_ROTATION = 0, 5  # of HAND_MOTORS


class HandKinematics:
    """The hand's geometry as a function of its six openings. All methods are batched over leading axes."""

    def __init__(self, hand: HandDescription = GO_R) -> None:
        if len(hand.fingers) != 4 or len(hand.motors) != 6:
            raise BadInput(
                f"hand {hand.name!r} has {len(hand.fingers)} fingers and {len(hand.motors)} motors, but this model "
                "is for a thumb with 2 motors and four fingers with 1 each: describe such a hand"
            )
        self.hand = hand
        thumb = hand.thumb
        ranges = [thumb.bend_range_rad, *(finger.mcp_range_rad for finger in hand.fingers), thumb.rotation_range_rad]
        lower, upper = np.array(ranges).T
        # joint = offset + slope * opening, order HAND_MOTORS: bends run backwards, the rotation forwards.
        self._slope = lower - upper
        self._offset = upper.copy()
        self._slope[_THUMB_ROTATION] *= -1.0
        self._offset[_THUMB_ROTATION] = lower[_THUMB_ROTATION]

        self._mcp = MM * np.array([finger.mcp_mm for finger in hand.fingers])  # (4, 3)
        axes = _unit(np.array([finger.axis for finger in hand.fingers]))
        # Straight = as distal as the axis allows.
        self._straight = _unit(np.array([1.0, 0.0, 0.0]) - axes[:, :1] * axes)  # (4, 3)
        self._inward = np.cross(axes, self._straight)  # (4, 3)
        self._lengths = MM * np.array([[finger.proximal_mm, finger.distal_mm] for finger in hand.fingers])  # (4, 2)
        self._pip = np.array([finger.pip_poly for finger in hand.fingers])  # (4, 3) c0, c1, c2

        self._cmc = MM * np.array(thumb.rotation_pivot_mm)
        axis = _unit(np.array(thumb.rotation_axis))
        # Rodrigues' terms: a vector v turned by t is v @ (along + cos t * across + sin t * around).
        self._along = np.outer(axis, axis)
        self._across = np.eye(3) - self._along
        self._around = np.cross(axis, np.eye(3))
        self._hinge = MM * np.array(thumb.bend_pivot_mm)
        bend_axis = _unit(np.array(thumb.bend_axis))
        direction = np.array(thumb.direction)
        self._thumb_straight = _unit(direction - (direction @ bend_axis) * bend_axis)
        self._thumb_inward = np.cross(bend_axis, self._thumb_straight)

    def actuated(self, opening: ArrayLike) -> Array:
        """Openings (..., 6) -> angles (..., 6) rad of the joints that the motors turn, order HAND_MOTORS."""
        return self._offset + self._slope * _checked(opening, 6)

    def opening_of(self, joints: ArrayLike) -> Array:
        """Inverse of :meth:`actuated` and :meth:`joints`: (..., 6) rad in HAND_MOTORS' order, or (..., 11) rad in
        HAND_JOINTS' order (the coupled joints are then ignored) -> openings (..., 6). Not clipped to 0..1."""
        joints = np.asarray(joints, float)
        if joints.shape[-1:] == (len(HAND_JOINTS),):
            joints = joints[..., MOTOR_JOINTS]
        return (_checked(joints, 6) - self._offset) / self._slope

    def joints(self, opening: ArrayLike) -> Array:
        """Openings (..., 6) -> all joint angles (..., 11) rad, order HAND_JOINTS."""
        actuated = self.actuated(opening)
        mcp = actuated[..., 1:5]
        bend = actuated[..., _THUMB_BEND]
        out = np.empty((*actuated.shape[:-1], len(HAND_JOINTS)))
        out[..., 0] = actuated[..., _THUMB_ROTATION]
        out[..., 1] = bend
        out[..., 2] = self.hand.thumb.distal_ratio * bend
        out[..., 3::2] = mcp
        out[..., 4::2] = self.pip(mcp)
        return out

    def pip(self, mcp: Array) -> Array:
        """PIP angles (..., 4) rad of the MCP angles (..., 4) rad, index to little; never below 0."""
        c0, c1, c2 = self._pip.T
        return np.maximum(c0 + mcp * (c1 + c2 * mcp), 0.0)

    def keypoints(self, opening: ArrayLike) -> Array:
        """Openings (..., 6) -> (..., 21, 3) m in the palm frame, MediaPipe's order (``KEYPOINTS``).

        The thumb's CMC is its rotation pivot, its MCP the bend hinge; a finger's DIP lies ``DIP_FRACTION`` of the
        way from PIP to tip, since this hand bends there no more.
        """
        return self._evaluate(opening, with_jacobian=False)[0]

    def keypoints_jacobian(self, opening: ArrayLike) -> Array:
        """d keypoints / d opening, (..., 21, 3, 6) m. One-sided where a PIP leaves its stop."""
        return self._evaluate(opening, with_jacobian=True)[1]

    def keypoints_and_jacobian(self, opening: ArrayLike) -> tuple[Array, Array]:
        """Both of the above for little more than the price of one."""
        return self._evaluate(opening, with_jacobian=True)

    def tips(self, opening: ArrayLike) -> Array:
        """Openings (..., 6) -> fingertips (..., 5, 3) m in the palm frame, thumb to little."""
        return self.keypoints(opening)[..., TIPS, :]

    def _evaluate(self, opening: ArrayLike, with_jacobian: bool) -> tuple[Array, Array]:
        actuated = self.actuated(opening)
        batch = actuated.shape[:-1]
        points = np.zeros((*batch, 21, 3))
        jacobian = np.zeros((*batch, 21, 3, 6) if with_jacobian else 0)
        self._fingers(actuated[..., 1:5], points, jacobian if with_jacobian else None)
        self._thumb(actuated, points, jacobian if with_jacobian else None)
        if with_jacobian:
            jacobian *= self._slope
        return points, jacobian

    def _fingers(self, mcp: Array, points: Array, jacobian: Array | None) -> None:
        """Fill keypoints 5..20, and their derivatives by the MCP angles, from ``mcp`` (..., 4) rad."""
        total = mcp + self.pip(mcp)
        straight, inward = self._straight, self._inward
        first, second = self._lengths[:, :1], self._lengths[:, 1:]
        to_pip = first * (np.cos(mcp)[..., None] * straight + np.sin(mcp)[..., None] * inward)  # (..., 4, 3)
        to_tip = second * (np.cos(total)[..., None] * straight + np.sin(total)[..., None] * inward)
        at_pip = self._mcp + to_pip
        points[..., 5::4, :] = self._mcp
        points[..., 6::4, :] = at_pip
        points[..., 7::4, :] = at_pip + DIP_FRACTION * to_tip
        points[..., 8::4, :] = at_pip + to_tip
        if jacobian is None:
            return
        c0, c1, c2 = self._pip.T
        moves = c0 + mcp * (c1 + c2 * mcp) > 0.0
        rate = 1.0 + np.where(moves, c1 + 2.0 * c2 * mcp, 0.0)  # d total / d mcp
        d_pip = first * (np.cos(mcp)[..., None] * inward - np.sin(mcp)[..., None] * straight)
        d_tip = (rate[..., None] * second) * (
            np.cos(total)[..., None] * inward - np.sin(total)[..., None] * straight
        )  # (..., 4, 3)
        for k in range(4):
            row = 5 + 4 * k
            jacobian[..., row + 1, :, 1 + k] = d_pip[..., k, :]
            jacobian[..., row + 2, :, 1 + k] = d_pip[..., k, :] + DIP_FRACTION * d_tip[..., k, :]
            jacobian[..., row + 3, :, 1 + k] = d_pip[..., k, :] + d_tip[..., k, :]

    def _thumb(self, actuated: Array, points: Array, jacobian: Array | None) -> None:
        """Fill keypoints 1..4, and their derivatives by bend and rotation, from ``actuated`` (..., 6) rad."""
        thumb = self.hand.thumb
        bend, turn = actuated[..., _THUMB_BEND, None], actuated[..., _THUMB_ROTATION, None]
        fold = 1.0 + thumb.distal_ratio
        straight, inward = self._thumb_straight, self._thumb_inward
        proximal, distal = MM * thumb.proximal_mm, MM * thumb.distal_mm
        # Bend in the unturned frame, relative to the rotation pivot; then turn all of it about the pivot's axis.
        local = np.empty((*bend.shape[:-1], 3, 3))
        local[..., 0, :] = self._hinge - self._cmc
        local[..., 1, :] = local[..., 0, :] + proximal * (np.cos(bend) * straight + np.sin(bend) * inward)
        local[..., 2, :] = local[..., 1, :] + distal * (np.cos(fold * bend) * straight + np.sin(fold * bend) * inward)
        points[..., 1, :] = self._cmc
        c, s = np.cos(turn)[..., None], np.sin(turn)[..., None]
        rotation = self._along + c * self._across + s * self._around  # (..., 3, 3), for rows
        turned = local @ rotation
        points[..., 2:5, :] = self._cmc + turned
        if jacobian is None:
            return
        d_local = np.zeros((*bend.shape[:-1], 2, 3))
        d_local[..., 0, :] = proximal * (np.cos(bend) * inward - np.sin(bend) * straight)
        d_local[..., 1, :] = d_local[..., 0, :] + fold * distal * (
            np.cos(fold * bend) * inward - np.sin(fold * bend) * straight
        )
        jacobian[..., 3:5, :, _THUMB_BEND] = d_local @ rotation
        jacobian[..., 2:5, :, _THUMB_ROTATION] = turned @ self._around


def _unit(vectors: Array) -> Array:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _checked(values: ArrayLike, size: int) -> Array:
    values = np.asarray(values, float)
    if values.shape[-1:] != (size,):
        raise BadInput(f"got an array of shape {values.shape} for the hand, expected (..., {size}), order HAND_MOTORS")
    return values
