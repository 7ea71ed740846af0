"""What a privileged expert may know of an object as it lies: extents, grasp width, whether the hand can take it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from ...geometry import Transform, apply
from .catalogue import shape_of
from .spec import ObjectSpec

Array = NDArray[np.float64]

# What the GO-R can take from above or from the side: its opposed thumb clears about 9 cm, a finger is 1.6 cm thick,
# and a thing lower than a finger's thickness and a margin leaves nothing to close on above the table.
GRASP_WIDTH_M = (0.02, 0.085)
GRASP_HEIGHT_M = 0.024
TIP_FORCE_N = 10.0
_GRAVITY = 9.81


@dataclass(frozen=True)
class Placement:
    """An object as it lies on the table, world frame."""

    height_m: float  # of its top above its lowest point
    top_m: float  # z of its top
    center_m: tuple[float, float, float]  # of its bounding box turned with the footprint
    width_m: float  # across the grasp: shorter side of the smallest rectangle around the footprint
    length_m: float
    closing_yaw_rad: float  # direction of the shorter side in the table plane, in (-pi/2, pi/2]
    awkward: str  # why the hand cannot take it as it lies; empty when it can

    @property
    def graspable(self) -> bool:
        return not self.awkward


@lru_cache(maxsize=128)
def hull_points(obj: ObjectSpec) -> Array:
    """(N, 3) corners of the convex hull of an object, object frame, m."""
    points = shape_of(obj).points()
    return points[ConvexHull(points).vertices]


def placement(obj: ObjectSpec, world_T_object: Transform) -> Placement:
    """How an object lies: its footprint's smallest rectangle, its height, and whether the hand can take it."""
    points = apply(world_T_object, hull_points(obj))
    low, high = float(points[:, 2].min()), float(points[:, 2].max())
    width, length, yaw, middle = smallest_rectangle(points[:, :2])
    height = high - low
    center = (float(middle[0]), float(middle[1]), 0.5 * (low + high))
    return Placement(height, high, center, width, length, yaw, _awkward(obj, width, height))


def smallest_rectangle(points: Array) -> tuple[float, float, float, Array]:
    """Smallest rectangle around (N, 2) points: shorter side, longer side, yaw of the shorter side, centre (2,).

    One side of it lies along an edge of the hull (Freeman and Shapira 1975).
    """
    corners = points[ConvexHull(points).vertices]
    edges = np.diff(np.append(corners, corners[:1], axis=0), axis=0)
    angles = np.unique(np.round(np.arctan2(edges[:, 1], edges[:, 0]) % (np.pi / 2), 6))
    axes = np.stack([np.cos(angles), np.sin(angles)], -1)  # (A, 2)
    sides = np.stack([-axes[:, 1], axes[:, 0]], -1)
    u, v = corners @ axes.T, corners @ sides.T  # (N, A)
    du, dv = np.ptp(u, axis=0), np.ptp(v, axis=0)
    best = int(np.argmin(du * dv))
    middle = (
        axes[best] * (u[:, best].max() + u[:, best].min()) / 2 + sides[best] * (v[:, best].max() + v[:, best].min()) / 2
    )
    short_is_u = du[best] <= dv[best]
    yaw = angles[best] if short_is_u else angles[best] + np.pi / 2
    yaw = yaw - np.pi if yaw > np.pi / 2 else yaw
    return float(min(du[best], dv[best])), float(max(du[best], dv[best])), float(yaw), middle


def _awkward(obj: ObjectSpec, width_m: float, height_m: float) -> str:
    if height_m < GRASP_HEIGHT_M:
        return f"flat: {100 * height_m:.1f} cm high"
    if width_m > GRASP_WIDTH_M[1]:
        return f"wide: {100 * width_m:.1f} cm across"
    if width_m < GRASP_WIDTH_M[0]:
        return f"thin: {100 * width_m:.1f} cm across"
    # Thumb against fingers: two contacts' friction must carry the weight with a third to spare.
    if 2 * obj.friction[0] * TIP_FORCE_N < 1.33 * obj.mass_kg * _GRAVITY:
        return f"heavy for its surface: {1000 * obj.mass_kg:.0f} g at friction {obj.friction[0]:.2f}"
    return ""


def surface_points(obj: ObjectSpec, count: int, seed: int = 0) -> tuple[Array, Array]:
    """``count`` points spread evenly over the solid surface and their outward normals, object frame, (N, 3) each.

    Faces between touching parts count too: a cup's inside is included, and so is where a cap sits on its bottle.
    """
    from .surface import part_triangles

    triangles = np.concatenate([part_triangles(part) for part in shape_of(obj).solids])  # (F, 3, 3)
    normal = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    area = np.linalg.norm(normal, axis=1)
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(triangles), count, p=area / area.sum())
    s, t = rng.random(count), rng.random(count)
    over = s + t > 1
    s[over], t[over] = 1 - s[over], 1 - t[over]
    a, b, c = (triangles[chosen, k] for k in range(3))
    return a + s[:, None] * (b - a) + t[:, None] * (c - a), normal[chosen] / area[chosen, None]
