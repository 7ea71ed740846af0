"""Put an object into a MuJoCo model."""

from __future__ import annotations

import mujoco
import numpy as np

from ...geometry import Transform, matrix_to_quat
from ..textures import paint, shade
from .catalogue import shape_of
from .family import MATERIALS, Material
from .parts import Part
from .spec import ObjectSpec

COLLISION_GROUP = 3  # hidden by default, as in the menagerie's models
VISUAL_GROUP = 2
TEXTURE_PX = 128

_GEOMS = {
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
    "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
    "ellipsoid": mujoco.mjtGeom.mjGEOM_ELLIPSOID,
    "mesh": mujoco.mjtGeom.mjGEOM_MESH,
}
# Paints that are the same for every object.
_PLAIN_PAINTS = {
    "dark": (0.13, 0.13, 0.14),
    "metal": (0.70, 0.71, 0.73),
    "stem": (0.30, 0.21, 0.10),
    "leaf": (0.22, 0.47, 0.16),
    "pages": (0.90, 0.88, 0.80),
}


def add_object(
    spec: mujoco.MjSpec, obj: ObjectSpec, pose: Transform, name: str = "object_0", visuals: bool = True
) -> mujoco.MjsBody:
    """Add ``obj`` as a free body called ``name`` at world_T_object (4, 4); answers the body.

    Collision parts carry the mass (inertia follows from their real volumes) and the object's own friction; they have
    priority 1, so that table and fingers do not overrule it. With ``visuals`` False only they are added, for physics
    without pictures.
    """
    shape = shape_of(obj)
    body = spec.worldbody.add_body(name=name, pos=pose[:3, 3], quat=matrix_to_quat(pose[:3, :3]))
    body.add_freejoint(name=f"{name}_free")
    weight = sum(part.volume_m3 * part.density for part in shape.solids)
    for index, part in enumerate(shape.solids):
        geom = _add_geom(spec, body, part, f"{name}_solid_{index}")
        geom.mass = obj.mass_kg * part.volume_m3 * part.density / weight
        geom.group = COLLISION_GROUP
        geom.priority = 1
        geom.condim = 6
        geom.friction = obj.friction
        # 10 ms, critically damped: as stiff as steps of 4 ms can carry without jitter.
        geom.solref = (0.01, 1.0)
        geom.solimp = (0.95, 0.99, 0.001, 0.5, 2.0)
        geom.rgba = (*obj.rgb, 1.0)
    foreign = None
    if obj.source:
        from ..third_party import mjcf_of

        foreign = mjcf_of(obj)
    if foreign is not None:
        foreign.set_inertia(body, obj.mass_kg)
    if visuals and foreign is not None:
        foreign.attach_looks(body, name)
    elif visuals:
        _add_looks(spec, body, obj, name)
    return body


def _add_looks(spec: mujoco.MjSpec, body: mujoco.MjsBody, obj: ObjectSpec, name: str) -> None:
    """What is seen of an object: skins with their paints, without mass or contact."""
    materials: dict[str, str] = {}
    for index, part in enumerate(shape_of(obj).visibles):
        if part.paint not in materials:
            materials[part.paint] = _add_material(spec, obj, part.paint, name)
        geom = _add_geom(spec, body, part, f"{name}_look_{index}")
        geom.mass = 0.0
        geom.group = VISUAL_GROUP
        geom.contype = geom.conaffinity = 0
        geom.material = materials[part.paint]


def _add_geom(spec: mujoco.MjSpec, body: mujoco.MjsBody, part: Part, name: str) -> mujoco.MjsGeom:
    if part.mesh is None:
        size: tuple[float, ...] = part.size_m
    else:
        size = (0.0, 0.0, 0.0)
        mesh = spec.add_mesh(name=name)
        mesh.uservert = part.mesh.vertices.ravel()
        mesh.userface = part.mesh.faces.ravel()
        if not part.solid:
            mesh.usertexcoord = np.stack([part.mesh.uv[:, 0], 1.0 - part.mesh.uv[:, 1]], -1).ravel()
            mesh.userfacetexcoord = part.mesh.faces.ravel()
            # Open skins have no volume; they weigh nothing either way.
            mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL
    return body.add_geom(
        name=name,
        type=_GEOMS[part.kind],
        size=size,
        pos=part.position_m,
        quat=part.quat,
        meshname=name if part.mesh is not None else "",
    )


def _add_material(spec: mujoco.MjSpec, obj: ObjectSpec, paint_name: str, name: str) -> str:
    label = f"{name}_{paint_name}"
    look = MATERIALS.get(obj.material, Material((0.5, 0.5), 0.4, 0.3))
    material = spec.add_material(name=label, specular=look.specular, shininess=look.shininess)
    if paint_name == "main":
        aspect = next((part.mesh.aspect for part in shape_of(obj).visibles if part.paint == "main" and part.mesh), 1.0)
        picture = paint(obj.pattern, obj.rgb, obj.accent_rgb, obj.seed, TEXTURE_PX, aspect)
        add_picture(spec, label, picture)
        textures = list(material.textures)
        textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = label
        material.textures = textures
    elif paint_name == "accent":
        material.rgba = (*(shade(obj.rgb, 0.8) if obj.pattern == "plain" else obj.accent_rgb), 1.0)
    elif paint_name == "inside":  # of a vessel: glazed paler than its outside
        r, g, b = (0.45 * channel + 0.5 for channel in obj.rgb)
        material.rgba = (r, g, b, 1.0)
    else:
        material.rgba = (*_PLAIN_PAINTS[paint_name], 1.0)
        if paint_name == "metal":
            material.specular, material.shininess = 0.8, 0.8
    return label


def add_picture(spec: mujoco.MjSpec, name: str, picture: np.ndarray) -> None:
    """Add a picture (H, W, 3) uint8, first row at the top, as a 2-D texture."""
    height, width = picture.shape[:2]
    texture = spec.add_texture(name=name, type=mujoco.mjtTexture.mjTEXTURE_2D, width=width, height=height, nchannel=3)
    texture.data = np.ascontiguousarray(picture).tobytes()
