"""Where the robot is in a camera's picture, by forward kinematics alone: a coarse depth picture of arm, palm, fingers.

Long links are capsules in the vendor's bounding boxes, short ones drums, the palm two boxes, each phalanx a capsule.
Long parts are cut into pieces of a few centimetres; a piece is filled as a convex polygon at the depth of its front,
from far to near. A calibration that is off by some milliradians shifts the outline by as many pixels, so who uses it
must look at the depth as well.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...hardware.collision import capsule_of_box
from ...hardware.description import MM, RigDescription
from ...hardware.errors import BadInput
from ...hardware.geometry import Array, Transform, inverse
from ...hardware.hand_kinematics import HandKinematics
from ...hardware.kinematics import ArmKinematics
from ...hardware.rig import DEXGRASPVLA_RIG
from ...hardware.values import Intrinsics

Window = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, x1 and y1 excluded

_PIECE_M = 0.03  # longest piece: the depth of a slanted link is right to about half of it
_NEAR_M = 0.05  # pieces nearer to the camera than this are not drawn
_CAMERA_RADIUS_M = 0.021  # a D405 is 42 mm wide
_CORNERS = 12  # of a drawn circle
_STUBBY = 1.25  # a link that is not this much longer than wide is a drum
_PALM = 8  # frame index after base and links 1-7
_SUBPIXEL_BITS = 4
# (from, to, is last) of KEYPOINTS. The thumb's first one is its rotating base.
_PHALANGES = ((1, 2, False), (2, 3, False), (3, 4, True), (5, 6, False), (6, 8, True), (9, 10, False), (10, 12, True),
              (13, 14, False), (14, 16, True), (17, 18, False), (18, 20, True))  # fmt: skip
# The palm's full depth is reached only at the thumb's mount: from here (palm x, y) inwards it is 13 mm thinner.
_MOUNT_MM = (15.0, 72.0, -4.0)
_PLATE_MM = 13.0
_KNUCKLES_MM = 16.0  # the plate ends this much before the published box: there the fingers begin


class Silhouette:
    """The robot as one camera that stands in the world sees it. Raises BadInput for a camera that the arm carries."""

    def __init__(self, rig: RigDescription = DEXGRASPVLA_RIG, camera: str = "head", arm: int = 0) -> None:
        description = rig.camera(camera)
        if description.parent != "world":
            raise BadInput(f"camera {camera!r} moves with the {description.parent}: expected one fixed to the world.")
        mount = rig.arms[arm]
        self.camera_T_world = inverse(description.parent_T_camera)
        self._world_T_base, self._flange_T_palm = mount.world_T_base, mount.flange_T_palm
        self._arm, self._hand = ArmKinematics(mount.arm), HandKinematics(mount.hand)
        self._finger_radius_m = 0.5 * MM * mount.hand.phalanx_width_mm
        boxes = [mount.arm.base_box_mm, *(link.box_mm for link in mount.arm.links)]
        hulls = [(cell, _PALM) for cell in _palm_cells(mount.hand.palm_box_mm)]
        parts = []
        for frame, box in enumerate(boxes):
            drum = _drum(MM * np.array(box))
            if drum is None:
                parts.append(_pieces(*capsule_of_box(MM * np.array(box), np.mean), frame))
            else:
                hulls.append((drum, frame))
        parts += [
            _pieces(np.stack([c.parent_T_camera[:3, 3]] * 2), _CAMERA_RADIUS_M, 7)
            for c in rig.cameras
            if c.parent == "flange"
        ]
        self._ends = np.concatenate([ends for ends, _, _ in parts])  # (pieces, 2, 3) m in the frame of their link
        self._radius = np.concatenate([radius for _, radius, _ in parts])
        self._frame = np.concatenate([frame for _, _, frame in parts])
        self._hulls = np.stack([corners for corners, _ in hulls])  # (hulls, 24, 3) m in the frame of their link
        self._hull_frame = np.array([frame for _, frame in hulls])
        angle = 2 * np.pi * np.arange(_CORNERS) / _CORNERS
        self._circle = np.stack([np.cos(angle), np.sin(angle)], -1)

    def world_T_palm(self, state: ArrayLike) -> Transform:
        """(4, 4) at a state of (13,)."""
        return self._world_T_base @ self._arm.fk(np.asarray(state, float)[:7]) @ self._flange_T_palm

    def draw(self, state: ArrayLike, intrinsics: Intrinsics, window: Window | None = None) -> NDArray[np.float32]:
        """(h, w) z depth m of the robot's front in the camera, inf where it is not: of the whole picture, or of a
        window of it."""
        x0, y0, x1, y1 = window or (0, 0, intrinsics.width, intrinsics.height)
        picture = np.full((max(y1 - y0, 0), max(x1 - x0, 0)), np.inf, np.float32)
        ends, radius, hulls = self._posed(np.asarray(state, float))
        outlines, depths = self._project(ends, radius, hulls, intrinsics)
        outlines = outlines - np.array([x0, y0])
        low, high = outlines.min(1), outlines.max(1)
        inside = (high > -1).all(-1) & (low[:, 0] < x1 - x0 + 1) & (low[:, 1] < y1 - y0 + 1) & (depths > _NEAR_M)
        order = np.flatnonzero(inside)[np.argsort(-depths[inside])]
        corners = np.rint(outlines * (1 << _SUBPIXEL_BITS)).astype(np.int32)
        for k in order:
            hull = cv2.convexHull(corners[k])
            cv2.fillConvexPoly(picture, hull, float(depths[k]), cv2.LINE_8, _SUBPIXEL_BITS)
        return picture

    def covers(self, state: ArrayLike, intrinsics: Intrinsics) -> NDArray[np.bool_]:
        """(h, w): where the robot is in the whole picture."""
        return np.isfinite(self.draw(state, intrinsics))

    def _posed(self, state: Array) -> tuple[Array, Array, Array]:
        """Capsule pieces (N, 2, 3) m, their radii (N,), and corners of hulls (M, 24, 3) m, all in the camera frame."""
        camera_T_links = self.camera_T_world @ self._world_T_base @ self._arm.fk_links(state[:7])  # (8, 4, 4)
        camera_T_palm = camera_T_links[7] @ self._flange_T_palm
        owner = camera_T_links[self._frame]
        fixed = np.einsum("nij,nkj->nki", owner[:, :3, :3], self._ends) + owner[:, None, :3, 3]
        points = self._hand.keypoints(np.clip(state[7:], 0.0, 1.0))
        fingers = []
        for first, last, is_tip in _PHALANGES:
            a, b = points[first], points[last]
            if is_tip:  # the fingertip is the end of the rounding
                b = b - self._finger_radius_m * (b - a) / np.linalg.norm(b - a)
            middle = 0.5 * (a + b)
            fingers += [(a, middle), (middle, b)]
        rotation, shift = camera_T_palm[:3, :3], camera_T_palm[:3, 3]
        moving = np.array(fingers) @ rotation.T + shift
        radius = np.concatenate([self._radius, np.full(len(moving), self._finger_radius_m)])
        owner = np.concatenate([camera_T_links, camera_T_palm[None]])[self._hull_frame]
        hulls = np.einsum("nij,nkj->nki", owner[:, :3, :3], self._hulls) + owner[:, None, :3, 3]
        return np.concatenate([fixed, moving]), radius, hulls

    def _project(self, ends: Array, radius: Array, hulls: Array, camera: Intrinsics) -> tuple[Array, Array]:
        """Outlines (N + M, 2 corners of circles, 2) px and depths (N + M,) m of the fronts."""
        focal, centre = np.array([camera.fx, camera.fy]), np.array([camera.cx, camera.cy])
        z = np.maximum(ends[..., 2], _NEAR_M)
        middle = ends[..., :2] / z[..., None] * focal + centre  # (N, 2, 2)
        size = focal * (radius[:, None] / z)[..., None]
        circles = middle[:, :, None] + size[:, :, None] * self._circle  # (N, 2, corners, 2)
        # A ball's front half is on average 2/3 of its radius before its middle.
        depth = ends[..., 2].mean(-1) - 0.67 * radius
        z = np.maximum(hulls[..., 2], _NEAR_M)
        corners = hulls[..., :2] / z[..., None] * focal + centre  # (M, 24, 2)
        front = np.sort(hulls[..., 2], -1)[:, :_CORNERS].mean(-1)
        return np.concatenate([circles.reshape(len(ends), -1, 2), corners]), np.concatenate([depth, front])


def _drum(box: Array) -> Array | None:
    """(6,) m x0, x1, y0, y1, z0, z1 -> the rims (24, 3) m of a short link; None for a long one, which is rounded."""
    low, high = box[::2], box[1::2]
    centre, half = 0.5 * (low + high), 0.5 * (high - low)
    axis = int(np.argmax(half))
    sides = [k for k in range(3) if k != axis]
    radius = float(half[sides].mean())
    if half[axis] >= _STUBBY * radius:
        return None
    angle = 2 * np.pi * np.arange(_CORNERS) / _CORNERS
    rims = np.zeros((2, _CORNERS, 3))
    rims[..., sides] = radius * np.stack([np.cos(angle), np.sin(angle)], -1)
    rims[..., axis] = half[axis] * np.array([[-1.0], [1.0]])
    return rims.reshape(-1, 3) + centre


def _pieces(ends: Array, radius: float, frame: int) -> tuple[Array, Array, NDArray[np.int64]]:
    """A capsule cut along its axis: ends (n, 2, 3), radii (n,), frames (n,)."""
    count = max(1, int(np.ceil(np.linalg.norm(ends[1] - ends[0]) / _PIECE_M)))
    at = ends[0] + np.linspace(0, 1, count + 1)[:, None] * (ends[1] - ends[0])
    return np.stack([at[:-1], at[1:]], 1), np.full(count, radius), np.full(count, frame)


def _palm_cells(box_mm: tuple[float, ...]) -> Array:
    """Corners (cells, 24, 3) m of the palm's plate and of the thumb's mount, cut into cells of a few centimetres; the
    eight of each thrice."""
    x0, x1, y0, y1, z0, z1 = box_mm
    plate = (x0, x1 - _KNUCKLES_MM, y0, y1, z0 + _PLATE_MM, z1)
    mount = (_MOUNT_MM[0], _MOUNT_MM[1], _MOUNT_MM[2], y1, z0, z0 + _PLATE_MM)
    cells = []
    for box in (plate, mount):
        sides = [MM * np.linspace(box[k], box[k + 1], max(2, round((box[k + 1] - box[k]) / 30) + 1)) for k in (0, 2)]
        height = MM * np.array(box[4:6])
        for xs in zip(sides[0][:-1], sides[0][1:], strict=True):
            for ys in zip(sides[1][:-1], sides[1][1:], strict=True):
                cells.append([(x, y, z) for x in xs for y in ys for z in height])
    return np.repeat(np.array(cells), 2 * _CORNERS // 8, 1)
