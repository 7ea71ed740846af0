"""Generated triangle meshes of household shapes: turned, swept, hollow and soft-cornered. Metres, object frame, z up.

Everything here is plain numpy, so that a shape is a pure function of its parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh with one texture coordinate per vertex."""

    vertices: Array  # (V, 3) m
    faces: NDArray[np.int32]  # (F, 3) counter-clockwise seen from outside
    uv: Array  # (V, 2) in [0, 1]: u to the right, v upwards
    aspect: float = 1.0  # width over height of what the whole texture covers

    @property
    def volume_m3(self) -> float:
        """Signed volume by the divergence theorem: right for closed meshes only."""
        a, b, c = (self.vertices[self.faces[:, k]] for k in range(3))
        return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6.0)


def lathe(profile: Array, segments: int = 28, twist: Array | None = None) -> Mesh:
    """Turn a profile (P, 2) of (radius, z), listed from the bottom outwards and up, about z.

    ``twist`` (segments,) scales the radius per direction: 1 everywhere is round, other values make facets or lobes.
    """
    profile = np.asarray(profile, float)
    angle = np.linspace(0.0, 2 * np.pi, segments + 1)
    scale = np.ones(segments + 1) if twist is None else np.append(twist, twist[0])
    radius, z = profile[:, 0], profile[:, 1]
    vertices = np.stack(
        [
            radius[:, None] * (np.cos(angle) * scale)[None],
            radius[:, None] * (np.sin(angle) * scale)[None],
            np.broadcast_to(z[:, None], (len(z), segments + 1)),
        ],
        -1,
    )
    low, span = z.min(), max(float(np.ptp(z)), 1e-9)
    uv = np.stack(np.broadcast_arrays((angle / (2 * np.pi))[None], ((z - low) / span)[:, None]), -1)
    around = 2 * np.pi * float(radius.max()) / float(span)
    return Mesh(vertices.reshape(-1, 3), _grid_faces(radius, segments), uv.reshape(-1, 2), around)


def _grid_faces(radius: Array, segments: int) -> NDArray[np.int32]:
    """Faces of a (P, segments + 1) grid of vertices; the triangles that a zero radius would collapse are left out."""
    faces = []
    for row in range(len(radius) - 1):
        for column in range(segments):
            a = row * (segments + 1) + column
            b, c, d = a + 1, a + segments + 1, a + segments + 2
            if radius[row] > 1e-9:
                faces.append((a, b, d))
            if radius[row + 1] > 1e-9:
                faces.append((a, d, c))
    return np.array(faces, np.int32)


def sweep(path: Array, radii: Array, segments: int = 10, flatten: float = 1.0) -> Mesh:
    """A round tube along ``path`` (N, 3) with a radius per point, closed at both ends.

    ``flatten`` scales the tube's thickness along the curve's binormal. The path must be planar (it is for handles,
    bananas and spoons), so that one fixed binormal serves the whole curve.
    """
    path = np.asarray(path, float)
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    binormal = plane_normal(path)
    normal = np.cross(binormal, tangent)
    angle = np.linspace(0.0, 2 * np.pi, segments + 1)
    ring = np.cos(angle)[None, :, None] * normal[:, None] + flatten * np.sin(angle)[None, :, None] * binormal
    body = path[:, None] + np.asarray(radii, float)[:, None, None] * ring
    ends = [np.repeat(path[k][None], segments + 1, 0) for k in (0, -1)]
    vertices = np.concatenate([ends[0][None], body, ends[1][None]])
    radius = np.concatenate([[0.0], radii, [0.0]])
    v = np.linspace(0.0, 1.0, len(radius))
    uv = np.stack(np.broadcast_arrays((angle / (2 * np.pi))[None], v[:, None]), -1)
    return Mesh(vertices.reshape(-1, 3), _grid_faces(radius, segments), uv.reshape(-1, 2))


def plane_normal(path: Array) -> Array:
    """Unit normal (3,) of a planar curve (N, 3); of a straight one, any direction across it."""
    along = path[-1] - path[0]
    middle = path[len(path) // 2] - path[0]
    normal = np.cross(middle, along)
    if np.linalg.norm(normal) < 1e-9:
        helper = np.eye(3)[np.argmin(np.abs(along))]
        normal = np.cross(along, helper)
    return normal / np.linalg.norm(normal)


def box_mesh(size_m: Array | tuple[float, float, float]) -> Mesh:
    """A box of full size (x, y, z) whose six faces each show the whole texture."""
    vertices: list[Array] = []
    faces: list[tuple[int, int, int]] = []
    uv: list[tuple[float, float]] = []
    half = np.asarray(size_m, float) / 2
    for axis in range(3):
        for sign in (-1.0, 1.0):
            across, up = ((1, 2), (0, 2), (0, 1))[axis]
            # Going round counter-clockwise as seen from outside; y faces are mirrored against x faces.
            flip = sign * (-1.0 if axis == 1 else 1.0)
            base = len(vertices)
            for s, t in ((0, 0), (1, 0), (1, 1), (0, 1)):
                corner = np.zeros(3)
                corner[axis] = sign * half[axis]
                corner[across] = flip * (2 * s - 1) * half[across]
                corner[up] = (2 * t - 1) * half[up]
                vertices.append(corner)
                uv.append((s, t))
            faces += [(base, base + 1, base + 2), (base, base + 2, base + 3)]
    return Mesh(np.array(vertices), np.array(faces, np.int32), np.array(uv, float), float(half[0] / half[2]))


def hull(points: Array) -> Mesh:
    """Convex hull of (N, 3) points, texture projected along y."""
    points = np.asarray(points, float)
    found = ConvexHull(points)
    order = found.vertices
    index = np.full(len(points), -1)
    index[order] = np.arange(len(order))
    vertices = points[order]
    faces = index[found.simplices]
    corners = vertices[faces]  # (F, 3, 3)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    inward = np.einsum("ij,ij->i", normal, found.equations[:, :3]) < 0
    faces[inward] = faces[inward][:, ::-1]
    return Mesh(vertices, faces.astype(np.int32), planar_uv(vertices), _planar_aspect(vertices))


def planar_uv(vertices: Array) -> Array:
    """(V, 2) texture coordinates from x and z: front and back both show the picture."""
    flat = vertices[:, [0, 2]]
    low, span = flat.min(0), np.maximum(np.ptp(flat, axis=0), 1e-9)
    return (flat - low) / span


def _planar_aspect(vertices: Array) -> float:
    across, _, up = np.ptp(vertices, axis=0)
    return float(across / max(up, 1e-9))


def superellipsoid(
    size_m: Array | tuple[float, float, float], roundness: tuple[float, float], rows: int = 14, columns: int = 24
) -> Mesh:
    """A rounded solid of full size (x, y, z); roundness (upright, across) of 1 is an ellipsoid, towards 0 a box."""

    def power(value: Array, exponent: float) -> Array:
        return np.sign(value) * np.abs(value) ** exponent

    latitude = np.linspace(-np.pi / 2, np.pi / 2, rows + 1)
    longitude = np.linspace(0.0, 2 * np.pi, columns + 1)
    half = np.asarray(size_m, float) / 2
    upright, across = roundness
    radius = power(np.cos(latitude), upright)
    radius[[0, -1]] = 0.0
    vertices = np.stack(
        [
            half[0] * radius[:, None] * power(np.cos(longitude), across)[None],
            half[1] * radius[:, None] * power(np.sin(longitude), across)[None],
            np.broadcast_to(half[2] * power(np.sin(latitude), upright)[:, None], (rows + 1, columns + 1)),
        ],
        -1,
    ).reshape(-1, 3)
    return Mesh(vertices, _grid_faces(radius, columns), planar_uv(vertices), _planar_aspect(vertices))


def ring_pieces(outer: Array, inner: Array, segments: int = 12) -> list[Mesh]:
    """Convex wedges that together fill the wall of a vessel.

    ``outer`` and ``inner`` (L, 2) list (radius, z) of the wall's two sides level by level; between two levels each
    wedge is the hull of its eight corners. Inner corners are pushed out by the polygon's sagitta, so that no wedge
    reaches into the round hollow.
    """
    pieces = []
    outer, inner = np.asarray(outer, float), np.asarray(inner, float)
    stretch = 1.0 / np.cos(np.pi / segments)
    edges = np.linspace(0.0, 2 * np.pi, segments + 1)
    for level in range(len(outer) - 1):
        for left, right in zip(edges[:-1], edges[1:], strict=True):
            corners = []
            for angle in (left, right):
                direction = np.array([np.cos(angle), np.sin(angle)])
                for k in (level, level + 1):
                    gap = outer[k, 0] - inner[k, 0]
                    near = min(inner[k, 0] * stretch, outer[k, 0] - 0.3 * gap)
                    corners.append([*(direction * near), inner[k, 1]])
                    corners.append([*(direction * outer[k, 0]), outer[k, 1]])
            pieces.append(hull(np.array(corners)))
    return pieces


def arc(center: tuple[float, float], radius: float, start_deg: float, end_deg: float, count: int) -> Array:
    """(count, 2) points of a circular arc in the (radius, z) plane of a profile."""
    angle = np.deg2rad(np.linspace(start_deg, end_deg, count))
    return np.stack([center[0] + radius * np.cos(angle), center[1] + radius * np.sin(angle)], -1)
