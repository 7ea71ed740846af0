"""An MJCF file as one rigid object: checked, measured, attached."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput
from ..geometry import matrix_to_quat
from .mesh_files import SIZE_M
from .objects.meshes import hull
from .objects.parts import Part, Shape
from .objects.spec import Vec3

Array = NDArray[np.float64]

_KINDS = {
    int(mujoco.mjtGeom.mjGEOM_BOX): "box",
    int(mujoco.mjtGeom.mjGEOM_CYLINDER): "cylinder",
    int(mujoco.mjtGeom.mjGEOM_SPHERE): "sphere",
    int(mujoco.mjtGeom.mjGEOM_CAPSULE): "capsule",
    int(mujoco.mjtGeom.mjGEOM_ELLIPSOID): "ellipsoid",
}


@dataclass(frozen=True)
class MjcfObject:
    """A rigid body read from MJCF. Its object frame is the body's own frame, moved to the bounding box's centre."""

    path: Path
    key: str
    shape: Shape  # the colliding geoms of all its bodies
    center_m: Array  # (3,) bounding box centre in the body's frame
    mass_kg: float
    com_m: Array  # (3,) object frame
    inertia_kg_m2: Array  # (3, 3) about the centre of mass, object frame
    rgb: Vec3

    def set_inertia(self, body: mujoco.MjsBody, mass_kg: float) -> None:
        """Give ``body`` the file's own distribution of mass, scaled to ``mass_kg``."""
        body.explicitinertial = True
        body.mass, body.ipos = mass_kg, self.com_m
        i = self.inertia_kg_m2 * (mass_kg / self.mass_kg)
        body.fullinertia = (i[0, 0], i[1, 1], i[2, 2], i[0, 1], i[0, 2], i[1, 2])

    def attach_looks(self, body: mujoco.MjsBody, name: str) -> None:
        """Weld the file's bodies to ``body`` to be looked at only: with materials and textures, without mass."""
        child = _read(self.path)
        root = child.worldbody.first_body()
        for joint in list(root.joints):
            child.delete(joint)
        root.pos, root.quat = (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0)
        for part in _bodies(root):
            part.explicitinertial = False
            for geom in part.geoms:
                geom.contype = geom.conaffinity = 0
                geom.mass = 0.0
        body.add_frame(pos=-self.center_m).attach_body(root, f"{name}_", "")


def _read(path: Path) -> mujoco.MjSpec:
    try:
        return mujoco.MjSpec.from_file(str(path))
    except ValueError as error:
        raise BadInput(f"{path} is not MJCF that MuJoCo reads: {error}") from error


def _bodies(root: mujoco.MjsBody) -> list[mujoco.MjsBody]:
    out = [root]
    for child in root.bodies:
        out += _bodies(child)
    return out


def load_mjcf(path: Path) -> MjcfObject:
    """Read, check and measure one MJCF object. Raises BadInput when it is not one rigid body of table size."""
    return _load_mjcf(path, path.stat().st_mtime_ns, path.stat().st_size)


@lru_cache(maxsize=64)
def _load_mjcf(path: Path, _mtime_ns: int, _size: int) -> MjcfObject:
    spec = _read(path)
    roots = spec.worldbody.bodies
    if len(roots) != 1:
        raise BadInput(f"{path} has {len(roots)} bodies in the world: expected exactly one, the object")
    root = roots[0]
    loose = [joint.name or "unnamed" for part in _bodies(root)[1:] for joint in part.joints]
    bound = [j.name or "unnamed" for j in root.joints if j.type != mujoco.mjtJoint.mjJNT_FREE]
    if loose or bound:
        raise BadInput(f"{path} moves in itself (joints {', '.join(loose + bound)}): only rigid objects can be used")
    if spec.worldbody.geoms:
        raise BadInput(
            f"{path} has {len(spec.worldbody.geoms)} geoms fixed to the world: put them into the object's body"
        )
    for joint in list(root.joints):
        spec.delete(joint)
    root.pos, root.quat = (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0)
    root.add_freejoint()
    try:
        model = spec.compile()
    except ValueError as error:
        raise BadInput(f"{path} does not compile: {error}") from error
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    parts, rgb = _parts(path, model, data)
    shape = Shape(tuple(parts))
    points = shape.points()
    longest = float(np.ptp(points, axis=0).max())
    if not SIZE_M[0] <= longest <= SIZE_M[1]:
        raise BadInput(
            f"{path} is {longest:.4g} m long: expected {SIZE_M[0]} to {SIZE_M[1]} m; MJCF is in metres, so a mesh "
            'in it may need scale="0.001 0.001 0.001"'
        )
    middle = (points.max(0) + points.min(0)) / 2
    centred = Shape(tuple(part.moved(-middle) for part in parts))
    mass, com, inertia = _fused_inertia(model, data)
    return MjcfObject(path, _key(path, spec), centred, middle, mass, com - middle, inertia, rgb)


def _fused_inertia(model: mujoco.MjModel, data: mujoco.MjData) -> tuple[float, Array, Array]:
    """Mass, centre of mass (3,) and inertia about it (3, 3) of all bodies as one, in the root's frame."""
    weights = model.body_mass[1:]
    mass = float(weights.sum())
    places = data.xipos[1:]
    com = weights @ places / mass
    inertia = np.zeros((3, 3))
    for weight, place, axes, moments in zip(weights, places - com, data.ximat[1:], model.body_inertia[1:], strict=True):
        turn = axes.reshape(3, 3)
        inertia += turn @ np.diag(moments) @ turn.T + weight * (place @ place * np.eye(3) - np.outer(place, place))
    return mass, com, inertia


def _key(path: Path, spec: mujoco.MjSpec) -> str:
    """Digest of the file and of the mesh files that it names."""
    digest = hashlib.sha256(path.read_bytes())
    for mesh in sorted(spec.meshes, key=lambda mesh: mesh.name):
        file = path.parent / (spec.meshdir or "") / mesh.file
        if mesh.file and file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()[:32]


def _parts(path: Path, model: mujoco.MjModel, data: mujoco.MjData) -> tuple[list[Part], Vec3]:
    """The colliding geoms as parts, in the frame of the free body, and the colour of the largest geom."""
    parts: list[Part] = []
    largest, rgb = -1.0, (0.5, 0.5, 0.5)
    for geom in range(model.ngeom):
        size = float(model.geom_rbound[geom])
        if size > largest:
            largest = size
            material = int(model.geom_matid[geom])
            r, g, b, _ = (model.mat_rgba[material] if material >= 0 else model.geom_rgba[geom]).tolist()
            rgb = (r, g, b)
        if not (model.geom_contype[geom] or model.geom_conaffinity[geom]):
            continue
        parts.append(_part(path, model, data, geom))
    if not parts:
        raise BadInput(f"{path} has no geom that collides: give at least one a contype")
    return parts, rgb


def _part(path: Path, model: mujoco.MjModel, data: mujoco.MjData, geom: int) -> Part:
    position = data.geom_xpos[geom]
    rotation = data.geom_xmat[geom].reshape(3, 3)
    x, y, z = position.tolist()
    w, i, j, k = matrix_to_quat(rotation).tolist()
    kind = int(model.geom_type[geom])
    if kind == int(mujoco.mjtGeom.mjGEOM_MESH):
        mesh = model.geom_dataid[geom]
        start, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
        points = model.mesh_vert[start : start + count].astype(float)
        return Part("mesh", position_m=(x, y, z), quat=(w, i, j, k), mesh=hull(points), visible=False)
    if kind not in _KINDS:
        raise BadInput(f"{path} collides with a geom of type {mujoco.mjtGeom(kind).name}: expected a solid one")
    a, b, c = model.geom_size[geom].tolist()
    return Part(_KINDS[kind], (a, b, c), (x, y, z), (w, i, j, k), visible=False)
