"""The target as points that were seen once, and the search for the rigid motion that explains a later picture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ...hardware.errors import BadInput
from ...hardware.geometry import Array, Transform, rotation_exp, transform
from ...hardware.values import Intrinsics
from .appearance import Floats
from .base import Depth, Mask
from .silhouette import Window

_DENSE = 1.02  # points that came this much nearer leave gaps between their pixels


class ObjectPoints:
    """The target's surface as the first picture showed it: one point for each pixel, camera frame, m."""

    def __init__(self, mask: Mask, depth_m: Depth, plane_m: Floats | None, intrinsics: Intrinsics) -> None:
        self.intrinsics = intrinsics
        z = _filled(mask, depth_m, plane_m)
        rows, columns = np.nonzero(mask)
        z = z[rows, columns].astype(float)
        x = (columns - intrinsics.cx) / intrinsics.fx * z
        y = (rows - intrinsics.cy) / intrinsics.fy * z
        self.points = np.stack([x, y, z], -1)  # (N, 3)
        self.centre = self.points.mean(0)
        # Spread evenly over the surface: rows of pixels, every so many-th.
        self.sample = np.unique(np.linspace(0, len(z) - 1, min(len(z), 300)).astype(int))

    def project(self, moved: Array) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
        """Pixels (..., N) and depths (..., N) m of points (..., N, 3) in the camera frame."""
        z = np.maximum(moved[..., 2], 0.05)
        columns = np.rint(moved[..., 0] / z * self.intrinsics.fx + self.intrinsics.cx).astype(np.int64)
        rows = np.rint(moved[..., 1] / z * self.intrinsics.fy + self.intrinsics.cy).astype(np.int64)
        return columns, rows, z

    def box(self, pose: Transform) -> Window:
        """Pixels around the moved points: x0, y0, x1, y1, possibly outside of the picture."""
        columns, rows, _ = self.project(self.points[self.sample] @ pose[:3, :3].T + pose[:3, 3])
        return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1

    def draw(self, pose: Transform, window: Window) -> tuple[Mask, Floats]:
        """Amodal mask and its depth m (0 outside), both of ``window``, with the points moved by ``pose``."""
        x0, y0, x1, y1 = window
        columns, rows, z = self.project(self.points @ pose[:3, :3].T + pose[:3, 3])
        columns, rows = columns - x0, rows - y0
        inside = (columns >= 0) & (columns < x1 - x0) & (rows >= 0) & (rows < y1 - y0)
        columns, rows, z = columns[inside], rows[inside], z[inside]
        order = np.argsort(-z)
        depth = np.zeros((y1 - y0, x1 - x0), np.float32)
        depth[rows[order], columns[order]] = z[order]
        mask = (depth > 0).astype(np.uint8)
        if np.allclose(pose, np.eye(4)):
            return mask.astype(bool), depth
        nearer = len(z) and self.centre[2] / max(float(z.mean()), 0.05) > _DENSE
        side = 5 if nearer and self.centre[2] / float(z.mean()) > 1.5 else 3
        padded = cv2.copyMakeBorder(mask, side, side, side, side, cv2.BORDER_CONSTANT, value=0)
        closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))[side:-side, side:-side]
        return closed > 0, np.where((closed > 0) & (depth == 0), spread(depth, 1.5)[0], depth)


def spread(depth_m: Floats, sigma_px: float) -> tuple[Floats, Floats]:
    """Depth carried on to pixels without one, and the weight (0..1) of what was found near each."""
    weight = cv2.GaussianBlur((depth_m > 0).astype(np.float32), (0, 0), sigma_px)
    total = cv2.GaussianBlur(depth_m, (0, 0), sigma_px)
    return total / np.maximum(weight, 1e-6), weight


def _filled(mask: Mask, depth_m: Depth, plane_m: Floats | None) -> Floats:
    """Depth of the mask's pixels without noise and holes: the median of each one's valid neighbours of the object."""
    own = np.where(mask, depth_m, 0).astype(np.float32)
    valid = own[own > 0]
    if not len(valid):
        if plane_m is None:
            raise BadInput("the target has no depth at all: move the camera or the target, or ground again.")
        return plane_m - np.float32(0.02)  # a flat thing: its height hardly matters
    middle = np.median(valid)
    own[np.abs(own - middle) > 0.25] = 0  # a pixel of the floor behind an edge
    smooth, weight = spread(own, 1.5)
    smooth = np.where(weight > 0.05, smooth, np.float32(middle))
    return np.where(mask, smooth, 0).astype(np.float32)


@dataclass(frozen=True)
class Evidence:
    """What a picture says of each pixel of a window, before anything is assumed of the target's place."""

    window: Window
    depth_m: Floats  # (h, w) 0 = invalid
    colour_odds: Floats  # (h, w) log odds of the target's colours against all others
    robot: Floats  # (h, w) 0..1 that the robot covers the pixel
    noise_m: float  # standard deviation of depth at the target


@dataclass(frozen=True)
class Score:
    """How well a pose explains the picture."""

    total: float  # mean over all points, log odds; what cannot be checked counts 0
    checked: float  # 0..1 share of points that are not behind the robot

    @property
    def each(self) -> float:
        """Mean over the points that could be checked."""
        return self.total / max(self.checked, 1e-3)


@dataclass(frozen=True)
class SearchConfig:
    """The search around a predicted pose."""

    tries: int = 48
    """Poses tried in each of the rounds."""
    rounds: int = 2
    """The second looks at half the distance, and so on."""
    shift_m: float = 0.006
    """Standard deviation of the first round's shifts, per axis."""
    turn_rad: float = 0.06
    """The same of its rotation vectors."""
    cost: float = 0.02
    """Log odds that a motion of one deviation must gain, squared for more."""

    def __post_init__(self) -> None:
        if self.tries < 1 or self.rounds < 0 or self.shift_m <= 0 or self.turn_rad <= 0 or self.cost < 0:
            raise BadInput(
                f"search tries {self.tries}, rounds {self.rounds}, shift_m {self.shift_m}, turn_rad {self.turn_rad}, "
                f"cost {self.cost}: expected 1 or more, 0 or more, above 0, above 0, 0 or more."
            )


class PoseSearch:
    """Scores poses of an object and improves one. Poses are camera-now from camera-at-start, (4, 4)."""

    def __init__(self, points: ObjectPoints, config: SearchConfig | None = None) -> None:
        self.points = points
        self.config = config or SearchConfig()
        # Drawn once: the same picture gets the same answer. Each with its opposite, so that none leans to a side.
        half = np.random.default_rng(0).standard_normal((self.config.tries // 2 + 1, 6))
        self._draws = np.concatenate([half, -half])[: self.config.tries]

    def score(self, poses: Transform, evidence: Evidence) -> list[Score]:
        """Of poses (K, 4, 4)."""
        total, checked = self._scores(poses, evidence)
        return [Score(float(a), float(b)) for a, b in zip(total, checked, strict=True)]

    def improve(self, pose: Transform, evidence: Evidence) -> tuple[Transform, Score]:
        """The best of the poses tried around ``pose``, which is one of them."""
        config, centre = self.config, self.points.centre
        best = pose
        gained, checked = (v[0] for v in self._scores(pose[None], evidence))
        for k in range(config.rounds):
            scale = 0.5**k
            shifts = scale * config.shift_m * self._draws[:, :3]
            turns = rotation_exp(scale * config.turn_rad * self._draws[:, 3:])
            middle = best[:3, :3] @ centre + best[:3, 3]
            tried = transform(turns, middle + shifts - turns @ middle) @ best  # about the object's middle
            total, share = self._scores(tried, evidence)
            # The cost is for leaving the present best, so that noise alone does not walk the object away.
            value = total - config.cost * np.square(scale * self._draws).mean(-1)
            i = int(np.argmax(value))
            if value[i] > gained:
                best, gained, checked = tried[i], float(total[i]), share[i]
        return best, Score(float(gained), float(checked))

    def _scores(self, poses: Transform, evidence: Evidence) -> tuple[Array, Array]:
        points = self.points.points[self.points.sample]
        moved = points @ np.swapaxes(poses[:, :3, :3], -1, -2) + poses[:, None, :3, 3]  # (K, n, 3)
        columns, rows, z = self.points.project(moved)
        x0, y0, x1, y1 = evidence.window
        columns, rows = columns - x0, rows - y0
        inside = (columns >= 0) & (columns < x1 - x0) & (rows >= 0) & (rows < y1 - y0)
        flat = np.where(inside, rows * (x1 - x0) + columns, 0)
        measured = evidence.depth_m.ravel()[flat]
        behind = measured - z  # > 0: the camera sees through where the object should be
        sigma = np.hypot(evidence.noise_m, 0.005)
        agree = np.log((np.exp(-0.5 * np.square(behind / sigma)) + 0.03) / 0.2)  # -1.9 .. 1.6
        depth = np.where(behind > 2.5 * sigma, -2.5, np.where(behind < -2.5 * sigma, -0.7, agree))
        odds = np.clip(evidence.colour_odds.ravel()[flat], -2.5, 2.5)
        each = np.where(measured > 0, depth + odds, 0.7 * odds)
        free = np.where(inside, 1.0 - evidence.robot.ravel()[flat], 0.0)
        return (each * free).mean(-1), free.mean(-1)
