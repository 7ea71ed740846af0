"""Distances of the arm and hand to themselves and to the table, column and bin.

Links, phalanges and the wrist camera are capsules, the palm is two side by side, the surroundings are boxes. A link's
capsule has the axis of its bounding box's longest side and the larger half-width of the other two as radius: it
contains the link (the housings are round), not the empty corners of the box. Phalanges may touch each other and the
thumb: that is grasping, so no distance among the hand's own parts is taken. Neighbouring links, and links that meet
in the shoulder, elbow or wrist, are kept apart by the joint limits alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .description import MM, ArmMount, RigDescription
from .errors import BadInput
from .geometry import Transform
from .hand_kinematics import HandKinematics
from .kinematics import ArmKinematics

Array = NDArray[np.float64]

_BIN_WALL_M = 0.01
_CAMERA_RADIUS_M = 0.021  # a D405 is 42 mm wide
_PALM = 8  # frame index after base and links 1-7
# (from, to) of KEYPOINTS: every phalanx.
_PHALANGES = ((2, 3), (3, 4), (5, 6), (6, 8), (9, 10), (10, 12), (13, 14), (14, 16), (17, 18), (18, 20))
_PHALANX_NAMES = tuple(
    f"{finger} {part}"
    for finger in ("thumb", "index", "middle", "ring", "little")
    for part in ("proximal phalanx", "distal phalanx")
)


@dataclass(frozen=True, slots=True)
class Clearance:
    """Smallest distances, m; negative where bodies overlap. ``table`` stands for table, column and bin alike."""

    self_m: float  # between parts of the robot
    table_m: float  # of arm links, palm and wrist camera to the surroundings
    finger_m: float  # of the phalanges to the surroundings: 0 when a fingertip lies on the table
    self_pair: tuple[str, str]
    table_pair: tuple[str, str]
    finger_pair: tuple[str, str]


class CollisionModel:
    """Distances of one arm with its hand, from the rig's tables alone. About 0.2 ms a call."""

    def __init__(self, rig: RigDescription, arm: int = 0) -> None:
        if not 0 <= arm < len(rig.arms):
            raise BadInput(f"rig {rig.name!r} has no arm {arm}: it has 0..{len(rig.arms) - 1}")
        mount = rig.arms[arm]
        self.rig = rig
        self.arm = ArmKinematics(mount.arm)
        self.hand = HandKinematics(mount.hand)
        self._world_T_base, self._flange_T_palm = mount.world_T_base, mount.flange_T_palm
        self._finger_radius = 0.5 * MM * mount.hand.phalanx_width_mm
        self._add_bodies(mount, rig)
        self._pair_bodies()
        self._add_surroundings(rig)

    def distances(self, arm_q: ArrayLike, hand_opening: ArrayLike) -> Clearance:
        """Clearance at joint angles (7,) rad and openings (6,)."""
        start, end = self._segments(np.asarray(arm_q, float), np.asarray(hand_opening, float))
        first, second = self._pairs
        between = _segment_distance(start[first], end[first], start[second], end[second])
        apart = between - self._pair_radius
        i = int(np.argmin(apart))
        own = (self._names[first[i]], self._names[second[i]])
        (table_m, table_pair), (finger_m, finger_pair) = self._to_surroundings(start, end)
        return Clearance(float(apart[i]), table_m, finger_m, own, table_pair, finger_pair)

    def _to_surroundings(self, start: Array, end: Array) -> list[tuple[float, tuple[str, str]]]:
        """Smallest distance to the boxes, and whose it is: of links, palm and camera, then of the phalanges."""
        middle = 0.5 * (start + end)[:, None]
        outside = np.maximum(np.maximum(self._box_low - middle, middle - self._box_high), 0.0)  # (bodies, boxes, 3)
        rough = np.sqrt(np.einsum("nbi,nbi->nb", outside, outside)) - self._clear_of
        # The nearest point lies within half a length of the middle: few pairs can hold the minimum.
        n = self._n_hard
        near = rough - self._half_length
        near[:n] -= rough[:n].min()
        near[n:] -= rough[n:].min()
        body, box = np.nonzero(near <= 0.0)
        exact = _box_distance(start[body], end[body], self._box_low[box], self._box_high[box]) - self._radius[body]
        split = int(np.searchsorted(body, n))
        best = [int(np.argmin(exact[:split])), split + int(np.argmin(exact[split:]))]
        return [(float(exact[k]), (self._names[body[k]], self._box_names[box[k]])) for k in best]

    def sweep_m(self, q_from: Array, q_to: Array) -> Array:
        """(...,) m: no point of the robot moves further while the joints go from one (..., 7) to the other."""
        return np.abs(q_to - q_from) @ self._lever

    def world_T_palm(self, arm_q: ArrayLike) -> Transform:
        """(4, 4) at joint angles (7,) rad."""
        return self._world_T_base @ self.arm.fk(arm_q) @ self._flange_T_palm

    def capsules(self, arm_q: ArrayLike, hand_opening: ArrayLike) -> tuple[Array, Array, tuple[str, ...]]:
        """Ends (bodies, 2, 3) m in the world, radii (bodies,) m and names: for drawing and for checks."""
        start, end = self._segments(np.asarray(arm_q, float), np.asarray(hand_opening, float))
        return np.stack([start, end], 1), self._radius.copy(), self._names

    def _segments(self, arm_q: Array, opening: Array) -> tuple[Array, Array]:
        """Ends of all capsules' axes in the world, two (bodies, 3)."""
        frames = self._world_T_base @ self.arm.fk_links(arm_q)  # (8, 4, 4)
        world_T_palm = frames[7] @ self._flange_T_palm
        owner = np.concatenate([frames, world_T_palm[None]])[self._frame]  # (hard bodies, 4, 4)
        fixed = np.einsum("nij,nkj->nki", owner[:, :3, :3], self._ends) + owner[:, None, :3, 3]  # (hard bodies, 2, 3)
        points = self.hand.keypoints(opening) @ world_T_palm[:3, :3].T + world_T_palm[:3, 3]
        fingers = points[self._phalanges]  # (10, 2, 3)
        both = np.concatenate([fixed, fingers])
        return both[:, 0], both[:, 1]

    def _add_bodies(self, mount: ArmMount, rig: RigDescription) -> None:
        boxes = [mount.arm.base_box_mm, *(link.box_mm for link in mount.arm.links)]
        names = ["base", *(f"link {i}" for i in range(1, 8))]
        capsules = [capsule_of_box(np.array(box) * MM) for box in boxes]
        frames = list(range(8))
        for part, capsule in zip(("palm index side", "palm little side"), _palm(mount), strict=True):
            names.append(part)
            capsules.append(capsule)
            frames.append(_PALM)
        for camera in rig.cameras:
            if camera.parent == "flange":
                point = camera.parent_T_camera[:3, 3]
                names.append(f"{camera.name} camera")
                capsules.append((np.stack([point, point]), _CAMERA_RADIUS_M))
                frames.append(7)
        self._n_hard = len(names)
        self._frame = np.array(frames)
        self._ends = np.stack([ends for ends, _ in capsules])  # (hard bodies, 2, 3)
        self._phalanges = np.array(_PHALANGES)
        radii = [radius for _, radius in capsules] + [self._finger_radius] * len(_PHALANGES)
        self._radius = np.array(radii)
        lengths = [float(np.linalg.norm(ends[1] - ends[0])) for ends, _ in capsules]
        points = self.hand.keypoints(np.ones(6))[self._phalanges]  # (10, 2, 3): phalanges keep their lengths
        lengths += np.linalg.norm(points[:, 1] - points[:, 0], axis=-1).tolist()
        self._half_length = 0.5 * np.array(lengths)[:, None]
        self._lever = self._levers(mount)
        self._names = (*names, *_PHALANX_NAMES)

    def _levers(self, mount: ArmMount) -> Array:
        """(7,) m: the furthest that a point of the robot can be from each joint's axis."""
        palm = np.concatenate([self.hand.keypoints(np.full(6, opening)) for opening in (0.0, 0.5, 1.0)])
        in_flange = palm @ mount.flange_T_palm[:3, :3].T + mount.flange_T_palm[:3, 3]
        in_flange = np.concatenate([in_flange, self._ends[self._frame == 7].reshape(-1, 3)])
        beside = float(np.linalg.norm(in_flange[:, :2], axis=-1).max()) + self._finger_radius
        beyond = float(np.linalg.norm(in_flange, axis=-1).max()) + self._finger_radius
        lengths = [float(np.linalg.norm(link.origin_m)) for link in mount.arm.links]
        wrist = lengths[6] + beyond
        elbow, shoulder = wrist + lengths[4], wrist + lengths[4] + lengths[2]
        return np.array([shoulder, shoulder, elbow, elbow, wrist, wrist, beside])

    def _pair_bodies(self) -> None:
        """Body pairs whose distance means something: three or more joints apart."""
        frame = [*self._frame.tolist(), *[_PALM] * len(_PHALANGES)]
        joints = [min(f, 7) for f in frame]  # palm, camera and fingers are fixed to link 7
        pairs = [
            (i, j)
            for i in range(len(frame))
            for j in range(i + 1, len(frame))
            if joints[j] - joints[i] >= (3 if j < 8 else 2)
        ]
        first, second = (np.array(side) for side in zip(*pairs, strict=True))
        self._pairs = first, second
        self._pair_radius = self._radius[first] + self._radius[second]

    def _add_surroundings(self, rig: RigDescription) -> None:
        boxes = {"table": rig.table_box_m, "column": rig.column_box_m, **_bin_boxes(rig)}
        self._box_names = tuple(boxes)
        sides = np.array(list(boxes.values())).reshape(-1, 3, 2)
        self._box_low, self._box_high = sides[..., 0], sides[..., 1]
        # The base is bolted to the column's head, and nothing moves link 1 relative to it but its own turn.
        self._clear_of = np.repeat(self._radius[:, None], len(boxes), 1)
        self._clear_of[:2] = -np.inf


def capsule_of_box(box: Array, width: Callable[[Array], Any] = np.max) -> tuple[Array, float]:
    """(6,) m x0, x1, y0, y1, z0, z1 -> ends (2, 3) of an axis along the longest side, and radius. ``width`` makes it of
    the two other half sides: the larger one to keep clear, see the module's first paragraph; the mean to draw."""
    low, high = box[::2], box[1::2]
    centre, half = 0.5 * (low + high), 0.5 * (high - low)
    long = int(np.argmax(half))
    radius = float(width(np.delete(half, long)))
    axis = np.zeros(3)
    axis[long] = max(half[long] - radius, 0.0)
    return np.stack([centre - axis, centre + axis]), radius


def _palm(mount: ArmMount) -> list[tuple[Array, float]]:
    """Two capsules along x, as thick as the palm and together as wide."""
    x0, x1, y0, y1, z0, z1 = np.array(mount.hand.palm_box_mm) * MM
    radius, z = 0.5 * (z1 - z0), 0.5 * (z0 + z1)
    ends = [np.array([[x0 + radius, y, z], [x1 - radius, y, z]]) for y in (y1 - radius, y0 + radius)]
    return [(pair, float(radius)) for pair in ends]


def _bin_boxes(rig: RigDescription) -> dict[str, tuple[float, ...]]:
    """Floor and four walls around the inner size."""
    x, y, z = rig.bin_center_m
    length, width, depth = rig.bin_size_m
    x0, x1, y0, y1, top, w = x - length / 2, x + length / 2, y - width / 2, y + width / 2, z + depth, _BIN_WALL_M
    return {
        "bin floor": (x0 - w, x1 + w, y0 - w, y1 + w, z - w, z),
        "bin wall -x": (x0 - w, x0, y0 - w, y1 + w, z, top),
        "bin wall +x": (x1, x1 + w, y0 - w, y1 + w, z, top),
        "bin wall -y": (x0 - w, x1 + w, y0 - w, y0, z, top),
        "bin wall +y": (x0 - w, x1 + w, y1, y1 + w, z, top),
    }


def _segment_distance(p1: Array, q1: Array, p2: Array, q2: Array) -> Array:
    """(N,) m between the segments p1 q1 and p2 q2, each end (N, 3); points are segments of length 0.

    Ericson 2005, Real-Time Collision Detection, section 5.1.9, on arrays.
    """
    d1, d2, r = q1 - p1, q2 - p2, p1 - p2
    a, e, b = (np.einsum("ni,ni->n", u, v) for u, v in ((d1, d1), (d2, d2), (d1, d2)))
    c, f = np.einsum("ni,ni->n", d1, r), np.einsum("ni,ni->n", d2, r)
    a, e = np.maximum(a, 1e-18), np.maximum(e, 1e-18)
    denominator = a * e - b * b
    # What rounding leaves of parallel ones, whatever their lengths.
    s = np.clip((b * f - c * e) / np.maximum(denominator, 1e-14 * a * e), 0.0, 1.0)
    t = np.clip((b * s + f) / e, 0.0, 1.0)
    s = np.clip((b * t - c) / a, 0.0, 1.0)
    gap = r + s[:, None] * d1 - t[:, None] * d2
    return np.sqrt(np.einsum("ni,ni->n", gap, gap))


def _box_distance(start: Array, end: Array, low: Array, high: Array) -> Array:
    """(N,) m between segments and axis-aligned boxes, each corner (N, 3); minus the depth of a segment inside.

    The squared distance along a segment is convex, and its derivative linear between the six parameters at which a
    coordinate passes a face: the zero is found exactly between two of them.
    """
    d = end - start
    safe = np.where(np.abs(d) < 1e-12, 1e-12, d)
    knots = np.zeros((len(start), 8))
    knots[:, 7] = 1.0
    knots[:, 1:4], knots[:, 4:7] = (low - start) / safe, (high - start) / safe
    knots[:] = np.sort(np.clip(knots, 0.0, 1.0), -1)
    at = start[:, None] + knots[..., None] * d[:, None]  # (N, 8, 3)
    slope = np.einsum("nki,ni->nk", at - np.clip(at, low[:, None], high[:, None]), d)  # rising with the knots
    rows = np.arange(len(start))
    after = np.clip((slope < 0.0).sum(-1), 1, 7)  # first knot with slope >= 0
    t0, t1, s0, s1 = knots[rows, after - 1], knots[rows, after], slope[rows, after - 1], slope[rows, after]
    rise = s1 - s0
    t = t0 + (t1 - t0) * np.clip(-s0 / np.where(rise > 1e-18, rise, 1.0), 0.0, 1.0)
    point = start + t[:, None] * d
    outside = np.maximum(np.maximum(low - point, point - high), 0.0)
    distance = np.sqrt(np.einsum("ni,ni->n", outside, outside))
    if (distance > 0.0).all():
        return distance
    depth = (np.abs(at - 0.5 * (low + high)[:, None]) - 0.5 * (high - low)[:, None]).max(-1).min(-1)
    return np.where(distance > 0.0, distance, np.minimum(depth, 0.0))
