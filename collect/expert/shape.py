"""Surface points of a body of a MuJoCo model: what the expert, who may look inside the twin, knows of an object.

Points come from the collision geoms, area-weighted and from a fixed seed, so any object is known alike: generated
primitives, soft-cornered meshes and third-party convex pieces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """An object's surface in some frame, with outward normals."""

    points: Array  # (N, 3) m
    normals: Array  # (N, 3) unit, outward
    com: Array  # (3,) m

    def moved(self, a_T_b: Array) -> Shape:
        """The same shape, known in frame b, in frame a."""
        rotation, origin = a_T_b[:3, :3], a_T_b[:3, 3]
        return Shape(self.points @ rotation.T + origin, self.normals @ rotation.T, rotation @ self.com + origin)

    @property
    def height_m(self) -> float:
        """Top of the object above the world's z = 0 (world frame)."""
        return float(self.points[:, 2].max())

    @property
    def center(self) -> Array:
        """(3,) m: middle of the bounding box."""
        return 0.5 * (self.points.min(0) + self.points.max(0))


def body_shape(model: Any, body: int, count: int = 400) -> Shape:
    """Shape of ``body`` (mujoco.MjModel id) in the body frame, about ``count`` points."""
    rng = np.random.default_rng(0)
    geoms = [g for g in range(model.ngeom) if model.geom_bodyid[g] == body and model.geom_contype[g] != 0]
    if not geoms:
        raise ValueError(f"body {body} has no colliding geom: the expert cannot know its shape")
    dense = [_geom_surface(model, geom, rng) for geom in geoms]
    areas = np.array([area for _, _, area in dense])
    points, normals = [], []
    for (p, n, _), share in zip(dense, areas / areas.sum(), strict=True):
        keep = rng.choice(len(p), size=max(24, round(count * share)), replace=False)
        points.append(p[keep])
        normals.append(n[keep])
    return Shape(np.concatenate(points), np.concatenate(normals), np.array(model.body_ipos[body], float))


_DENSE = 1500  # points per geom before thinning


def _geom_surface(model: Any, geom: int, rng: np.random.Generator) -> tuple[Array, Array, float]:
    """(points, normals, area) of one geom in its body's frame."""
    import mujoco

    size, kind = np.array(model.geom_size[geom], float), mujoco.mjtGeom(int(model.geom_type[geom]))
    if kind == mujoco.mjtGeom.mjGEOM_MESH:
        points, normals, area = _mesh(model, model.geom_dataid[geom], rng)
    elif kind == mujoco.mjtGeom.mjGEOM_BOX:
        points, normals, area = _box(size, rng)
    elif kind in (mujoco.mjtGeom.mjGEOM_SPHERE, mujoco.mjtGeom.mjGEOM_ELLIPSOID):
        half = np.full(3, size[0]) if kind == mujoco.mjtGeom.mjGEOM_SPHERE else size
        points, normals, area = _ellipsoid(half, rng)
    elif kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
        points, normals, area = _cylinder(size[0], size[1], rng)
    elif kind == mujoco.mjtGeom.mjGEOM_CAPSULE:
        points, normals, area = _capsule(size[0], size[1], rng)
    else:
        raise ValueError(f"geom {geom} has MuJoCo type {int(kind)}: expected a mesh or a bounded primitive")
    flat = np.empty(9)
    mujoco.mju_quat2Mat(flat, model.geom_quat[geom])
    rotation = flat.reshape(3, 3)
    return points @ rotation.T + model.geom_pos[geom], normals @ rotation.T, area


def _sphere(rng: np.random.Generator, count: int) -> Array:
    points = rng.normal(size=(count, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def _ellipsoid(half: Array, rng: np.random.Generator) -> tuple[Array, Array, float]:
    unit = _sphere(rng, _DENSE)
    normals = unit / half
    p = 1.6075  # Thomsen's approximation of the area
    a, b, c = half
    area = 4 * np.pi * (((a * b) ** p + (a * c) ** p + (b * c) ** p) / 3) ** (1 / p)
    return unit * half, normals / np.linalg.norm(normals, axis=1, keepdims=True), float(area)


def _box(half: Array, rng: np.random.Generator) -> tuple[Array, Array, float]:
    areas = 4 * np.array([half[1] * half[2], half[0] * half[2], half[0] * half[1]])
    axis = rng.choice(3, size=_DENSE, p=areas / areas.sum())
    sign = rng.choice([-1.0, 1.0], size=_DENSE)
    points = rng.uniform(-1, 1, (_DENSE, 3))
    normals = np.zeros((_DENSE, 3))
    rows = np.arange(_DENSE)
    points[rows, axis] = sign
    normals[rows, axis] = sign
    return points * half, normals, float(2 * areas.sum())


def _cylinder(radius: float, half: float, rng: np.random.Generator) -> tuple[Array, Array, float]:
    side, cap = 4 * np.pi * radius * half, np.pi * radius**2
    kind = rng.choice(3, size=_DENSE, p=np.array([side, cap, cap]) / (side + 2 * cap))
    angle = rng.uniform(-np.pi, np.pi, _DENSE)
    ring = np.stack([np.cos(angle), np.sin(angle), np.zeros(_DENSE)], -1)
    reach = np.where(kind == 0, radius, radius * np.sqrt(rng.uniform(size=_DENSE)))
    height = np.where(kind == 0, rng.uniform(-half, half, _DENSE), np.where(kind == 1, half, -half))
    up = np.array([0.0, 0.0, 1.0])
    normals = np.where((kind == 0)[:, None], ring, np.where((kind == 1)[:, None], up, -up))
    return ring * reach[:, None] + height[:, None] * up, normals, float(side + 2 * cap)


def _capsule(radius: float, half: float, rng: np.random.Generator) -> tuple[Array, Array, float]:
    unit = _sphere(rng, _DENSE)
    body = rng.uniform(size=_DENSE) < half / (half + radius)
    angle = rng.uniform(-np.pi, np.pi, _DENSE)
    ring = np.stack([np.cos(angle), np.sin(angle), np.zeros(_DENSE)], -1)
    normals = np.where(body[:, None], ring, unit)
    middle = np.where(body, rng.uniform(-half, half, _DENSE), np.sign(unit[:, 2]) * half)
    points = normals * radius
    points[:, 2] += middle
    return points, normals, float(4 * np.pi * radius * (radius + half))


def _mesh(model: Any, mesh: int, rng: np.random.Generator) -> tuple[Array, Array, float]:
    """The convex hull of the mesh: it is what collides."""
    from scipy.spatial import ConvexHull

    first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
    vertices = np.array(model.mesh_vert[first : first + count], float)
    hull = ConvexHull(vertices)
    corners = vertices[hull.simplices]  # (F, 3, 3)
    areas = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    face = rng.choice(len(areas), size=_DENSE, p=areas / areas.sum())
    weights = rng.dirichlet(np.ones(3), _DENSE)
    return (weights[:, :, None] * corners[face]).sum(1), hull.equations[face, :3], float(areas.sum())
