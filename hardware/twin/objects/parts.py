"""A shape as parts: what collides and weighs, and what is seen. Independent of MuJoCo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...geometry import quat_to_matrix
from .meshes import Mesh, box_mesh, lathe

Array = NDArray[np.float64]
Vec3 = tuple[float, float, float]
IDENTITY = (1.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Part:
    """One piece of an object, in the object frame. A primitive or a mesh; solid, visible, or both."""

    kind: str  # box, cylinder, sphere, capsule, ellipsoid, mesh
    size_m: Vec3 = (0.0, 0.0, 0.0)  # MuJoCo's half sizes; unused for a mesh
    position_m: Vec3 = (0.0, 0.0, 0.0)
    quat: tuple[float, float, float, float] = IDENTITY
    mesh: Mesh | None = None
    paint: str = "main"  # main (textured), accent, dark, metal
    solid: bool = True
    visible: bool = True
    density: float = 1.0  # relative to the object's other solid parts

    @property
    def volume_m3(self) -> float:
        x, y, z = self.size_m
        if self.mesh is not None:
            return self.mesh.volume_m3
        ball = 4 / 3 * np.pi
        volumes = {
            "box": 8 * x * y * z,
            "cylinder": 2 * np.pi * x**2 * y,
            "sphere": ball * x**3,
            "capsule": ball * x**3 + 2 * np.pi * x**2 * y,
            "ellipsoid": ball * x * y * z,
        }
        return float(volumes[self.kind])

    def surface(self) -> Array:
        """(N, 3) points whose convex hull is (nearly) the part's, in the object frame."""
        local = self.mesh.vertices if self.mesh is not None else _primitive_points(self.kind, self.size_m)
        return local @ quat_to_matrix(np.array(self.quat)).T + np.array(self.position_m)

    def moved(self, offset: Array) -> Part:
        x, y, z = np.array(self.position_m) + offset
        return replace(self, position_m=(float(x), float(y), float(z)))


def _primitive_points(kind: str, size: Vec3) -> Array:
    x, y, z = size
    if kind == "box":
        return np.array([[i, j, k] for i in (-x, x) for j in (-y, y) for k in (-z, z)])
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], -1)
    if kind == "cylinder":
        return np.concatenate([np.column_stack([x * circle, np.full(24, h)]) for h in (-y, y)])
    latitude = np.deg2rad(np.linspace(-90, 90, 13))
    ball = np.concatenate([np.column_stack([np.cos(t) * circle, np.full(24, np.sin(t))]) for t in latitude])
    if kind == "sphere":
        return ball * x
    if kind == "ellipsoid":
        return ball * np.array([x, y, z])
    return np.concatenate([ball * x + np.array([0, 0, h]) for h in (-y, y)])


@dataclass(frozen=True)
class Shape:
    """All parts of an object, with the centre of its bounding box at the origin."""

    parts: tuple[Part, ...]

    @property
    def solids(self) -> tuple[Part, ...]:
        return tuple(part for part in self.parts if part.solid)

    @property
    def visibles(self) -> tuple[Part, ...]:
        return tuple(part for part in self.parts if part.visible)

    def points(self) -> Array:
        """(N, 3) points spanning the solid parts, in the object frame."""
        return np.concatenate([part.surface() for part in self.solids])

    @property
    def size_m(self) -> Vec3:
        """Full extents of the solid parts along the object's axes."""
        x, y, z = np.ptp(self.points(), axis=0)
        return float(x), float(y), float(z)

    @property
    def solid_volume_m3(self) -> float:
        return sum(part.volume_m3 for part in self.solids)


def centred(parts: Sequence[Part]) -> Shape:
    """Shift parts so that the solid bounding box is centred on the object's origin."""
    points = Shape(tuple(parts)).points()
    middle = (points.max(0) + points.min(0)) / 2
    return Shape(tuple(part.moved(-middle) for part in parts))


def box(
    size_m: Vec3, at: Vec3 = (0, 0, 0), paint: str = "main", density: float = 1.0, solid: bool = True
) -> list[Part]:
    """A box of full size: a primitive to collide, a textured mesh to look at."""
    x, y, z = size_m
    parts = [Part("mesh", position_m=at, mesh=box_mesh(size_m), paint=paint, solid=False)]
    if solid:
        parts.append(Part("box", (x / 2, y / 2, z / 2), at, paint=paint, density=density, visible=False))
    return parts


def cylinder(
    radius_m: float, height_m: float, at: Vec3 = (0, 0, 0), paint: str = "main", density: float = 1.0
) -> list[Part]:
    """An upright cylinder: a primitive to collide, a turned mesh with texture to look at."""
    half = height_m / 2
    bevel = min(0.12 * radius_m, 0.1 * height_m)
    profile = np.array(
        [
            [0, -half],
            [radius_m - bevel, -half],
            [radius_m, bevel - half],
            [radius_m, half - bevel],
            [radius_m - bevel, half],
            [0, half],
        ]
    )
    return [
        Part("mesh", position_m=at, mesh=lathe(profile), paint=paint, solid=False),
        Part("cylinder", (radius_m, half, 0.0), at, paint=paint, density=density, visible=False),
    ]


def solid_of(mesh: Mesh, at: Vec3 = (0, 0, 0), density: float = 1.0) -> Part:
    """An invisible convex mesh that collides and weighs."""
    return Part("mesh", position_m=at, mesh=mesh, density=density, visible=False)


def look_of(mesh: Mesh, paint: str = "main", at: Vec3 = (0, 0, 0)) -> Part:
    """A visible mesh that neither collides nor weighs."""
    return Part("mesh", position_m=at, mesh=mesh, paint=paint, solid=False)
