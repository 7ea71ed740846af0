"""Triangles of a part's surface."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...geometry import quat_to_matrix
from .meshes import hull
from .parts import Part

Array = NDArray[np.float64]


def part_triangles(part: Part) -> Array:
    """(F, 3, 3) corner points, counter-clockwise from outside, object frame."""
    if part.mesh is None:
        mesh = hull(part.surface())
        return mesh.vertices[mesh.faces]
    turned = part.mesh.vertices @ quat_to_matrix(np.array(part.quat)).T + np.array(part.position_m)
    return turned[part.mesh.faces]
