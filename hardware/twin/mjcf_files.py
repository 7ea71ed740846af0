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
from ..geometry import Transform, matrix_to_quat
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
    shape: Shape
    center_m: Array  # (3,) bounding box centre in the body's frame
    mass_kg: float
    rgb: Vec3

    def attach(self, spec: mujoco.MjSpec, pose: Transform, name: str, mass_kg: float, friction: Vec3) -> mujoco.MjsBody:
        """Add it as the free body ``name`` at world_T_object."""
        child = _read(self.path)
        body = spec.worldbody.add_body(name=name, pos=pose[:3, 3], quat=matrix_to_quat(pose[:3, :3]))
        body.add_freejoint(name=f"{name}_free")
        root = child.worldbody.first_body()
        for joint in list(root.joints):
            child.delete(joint)
        frame = body.add_frame(pos=-self.center_m)
        root.pos, root.quat = (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0)
        scale = mass_kg / self.mass_kg
        for part in _bodies(root):
            part.mass, part.fullinertia = part.mass * scale, np.array(part.fullinertia) * scale
            part.inertia = np.array(part.inertia) * scale
            for geom in part.geoms:
                geom.density *= scale
                geom.mass *= scale  # nan where the density counts: it stays nan
                if geom.contype or geom.conaffinity:
                    geom.priority, geom.condim, geom.friction = 1, 6, friction
        frame.attach_body(root, f"{name}_", "")
        return body


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
    parts, rgb = _parts(path, model)
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
    return MjcfObject(path, _key(path, spec), centred, middle, float(model.body_mass.sum()), rgb)


def _key(path: Path, spec: mujoco.MjSpec) -> str:
    """Digest of the file and of the mesh files that it names."""
    digest = hashlib.sha256(path.read_bytes())
    for mesh in sorted(spec.meshes, key=lambda mesh: mesh.name):
        file = path.parent / (spec.meshdir or "") / mesh.file
        if mesh.file and file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()[:32]


def _parts(path: Path, model: mujoco.MjModel) -> tuple[list[Part], Vec3]:
    """The colliding geoms as parts, in the frame of the free body, and the colour of the largest geom."""
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
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
