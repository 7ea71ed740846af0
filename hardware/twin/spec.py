"""The rig as a ``mujoco.MjSpec``, written from the description's tables: arms, hands, column, table, bin, cameras.

Names (``prefix`` is empty for one arm, ``right_`` / ``left_`` for two):

- bodies ``{prefix}arm_base``, ``{prefix}arm_link_1`` ... ``_7``, ``{prefix}palm``, ``{prefix}index_proximal`` ...;
- joints and actuators of the arm ``{prefix}arm_joint_1`` ... ``_7``; joints of the hand ``{prefix}`` + ``HAND_JOINTS``,
  its actuators ``{prefix}`` + ``HAND_MOTORS``;
- sites ``{prefix}flange``, ``{prefix}thumb_tip`` ... ``{prefix}little_tip``; cameras by their own names;
- geoms and materials ``table``, ``floor``, ``bin``. A scene lays its own cover over table and floor.

Objects are put in by ``scenes.apply_scene``; lights too (:func:`add_default_lights` serves a rig without a scene).
"""

from __future__ import annotations

import mujoco
import numpy as np

from ..description import ArmMount, CameraDescription, RigDescription
from ..geometry import Array, Transform, matrix_to_quat, transform
from .arm_spec import add_arm
from .hand_spec import add_hand
from .shapes import ENVIRONMENT, PANEL_GROUP, Paint, add_paints, box_size, capsule_between

FLOOR_M = -0.755  # table height; a scene's own floor lies 5 mm above
BIN_WALL_M = 0.004
_ARENA_BYTES = 64 << 20  # MuJoCo's own choice, 16 MiB, is too little where a hand begins inside objects


def rig_spec(rig: RigDescription, timestep_s: float = 0.002) -> mujoco.MjSpec:
    """The rig without objects and lights. Compiles by itself; a scene adds to it first."""
    spec = mujoco.MjSpec()
    spec.modelname = rig.name
    spec.compiler.degree = False  # else radian ranges would silently be read as degrees
    spec.compiler.autolimits = True
    _options(spec, timestep_s)
    add_paints(spec)
    _surroundings(spec, rig)
    for mount in rig.arms:
        prefix = arm_prefix(rig, mount)
        flange = add_arm(spec, mount, prefix)
        add_hand(spec, flange, mount, prefix)
        _bracket(spec, rig, mount, prefix)
    for camera in rig.cameras:
        _camera(spec, rig, camera)
    return spec


def arm_prefix(rig: RigDescription, mount: ArmMount) -> str:
    """What the names of ``mount``'s bodies, joints and actuators begin with."""
    return f"{mount.side}_" if len(rig.arms) > 1 else ""


def add_default_lights(spec: mujoco.MjSpec) -> None:
    """A lamp above the table and a soft one from the side, for a rig without a scene."""
    spec.worldbody.add_light(
        name="lamp", pos=(0.2, 0.3, 1.6), dir=(0.15, -0.2, -1.0), diffuse=(0.65, 0.65, 0.62), castshadow=True
    )
    spec.worldbody.add_light(
        name="fill", pos=(1.2, -1.0, 1.4), dir=(-0.6, 0.6, -1.0), diffuse=(0.25, 0.26, 0.30), castshadow=False
    )


def _options(spec: mujoco.MjSpec, timestep_s: float) -> None:
    spec.memory = _ARENA_BYTES
    option = spec.option
    option.timestep = timestep_s
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    # Elliptic cones and two passes against slip: a held object does not creep (docs/decisions/12-contacts.md).
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    option.impratio = 3.0
    option.noslip_iterations = 2
    option.solver = mujoco.mjtSolver.mjSOL_NEWTON
    option.iterations = 50
    option.tolerance = 1e-8
    spec.stat.extent = 1.0  # the camera's near and far planes are multiples of it
    spec.stat.center = (0.4, 0.0, 0.2)
    visual = spec.visual
    visual.map.znear, visual.map.zfar = 0.01, 6.0
    visual.quality.shadowsize = 512
    visual.quality.numslices, visual.quality.numstacks, visual.quality.numquads = 16, 8, 2
    visual.quality.offsamples = 4
    visual.headlight.ambient = (0.28, 0.28, 0.28)
    visual.headlight.diffuse = (0.22, 0.22, 0.22)
    visual.headlight.specular = (0.05, 0.05, 0.05)


def _surroundings(spec: mujoco.MjSpec, rig: RigDescription) -> None:
    world = spec.worldbody
    world.add_geom(
        name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=(0, 0, 1), pos=(0, 0, FLOOR_M), material=Paint.FLOOR
    )
    _box(spec, "table", rig.table_box_m, Paint.TABLE)
    _box(spec, "column", rig.column_box_m, Paint.METAL)
    x, y, z = rig.bin_center_m
    length, width, depth = rig.bin_size_m
    x0, x1, y0, y1 = x - length / 2, x + length / 2, y - width / 2, y + width / 2
    t = BIN_WALL_M
    _box(spec, "bin", (x0 - t, x1 + t, y0 - t, y1 + t, z - t, z), Paint.BIN)
    _box(spec, "bin_back", (x0 - t, x0, y0 - t, y1 + t, z, z + depth), Paint.BIN)
    _box(spec, "bin_front", (x1, x1 + t, y0 - t, y1 + t, z, z + depth), Paint.BIN)
    _box(spec, "bin_right", (x0, x1, y0 - t, y0, z, z + depth), Paint.BIN)
    _box(spec, "bin_left", (x0, x1, y1, y1 + t, z, z + depth), Paint.BIN)
    _box(spec, "bin_stand", (x0 + 0.03, x1 - 0.03, y0 + 0.03, y1 - 0.03, FLOOR_M, z - t), Paint.METAL)


def _box(spec: mujoco.MjSpec, name: str, box_m: tuple[float, ...], material: str) -> mujoco.MjsGeom:
    center, half = box_size(box_m)
    return spec.worldbody.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=center,
        size=half,
        material=material,
        contype=ENVIRONMENT,
        conaffinity=ENVIRONMENT,
        condim=4,
        friction=(0.8, 0.005, 0.0001),
    )


def _bracket(spec: mujoco.MjSpec, rig: RigDescription, mount: ArmMount, prefix: str) -> None:
    """What carries the arm's base, from the column's front. For the eye: nothing can reach it before the column."""
    base = mount.world_T_base[:3, 3] - 0.02 * mount.world_T_base[:3, 2]
    x1, y0, y1 = rig.column_box_m[1], rig.column_box_m[2], rig.column_box_m[3]
    root = np.array([x1 - 0.02, np.clip(base[1], y0, y1), base[2] - 0.05])
    elbow = np.array([root[0] + 0.02, base[1], base[2] - 0.05])
    for name, a, b in ((f"{prefix}bracket_side", root, elbow), (f"{prefix}bracket", elbow, base)):
        size, pos, quat = capsule_between(a, b, 0.035)
        spec.worldbody.add_geom(
            name=name,
            type=mujoco.mjtGeom.mjGEOM_CAPSULE,
            size=size,
            pos=pos,
            quat=quat,
            material=Paint.METAL,
            contype=0,
            conaffinity=0,
            group=PANEL_GROUP,
        )


def _camera(spec: mujoco.MjSpec, rig: RigDescription, camera: CameraDescription) -> None:
    """A camera with the description's intrinsics, and its housing behind the lens."""
    if camera.parent == "world":
        body, body_T_parent = spec.worldbody, np.eye(4)
    else:  # "flange" of the first arm, or "left_flange" where there are two
        prefix = camera.parent.removesuffix("flange") or arm_prefix(rig, rig.arms[0])
        body, body_T_parent = spec.body(f"{prefix}arm_link_{len(rig.arms[0].arm.links)}"), np.eye(4)
    pose = body_T_parent @ camera.parent_T_camera
    k = camera.intrinsics
    body.add_camera(
        name=camera.name,
        pos=pose[:3, 3],
        quat=matrix_to_quat(opencv_to_mujoco(pose)[:3, :3]),
        resolution=(k.width, k.height),
        # A sensor of 1 m per pixel count: only ratios matter to the frustum.
        sensor_size=(1e-6 * k.width, 1e-6 * k.height),
        focal_pixel=(k.fx, k.fy),
        # MuJoCo measures the principal point from the image's centre, +x right, +y up.
        principal_pixel=((k.width - 1) / 2 - k.cx, k.cy - (k.height - 1) / 2),
    )
    size = (0.045, 0.0125, 0.0125) if camera.model == "D435" else (0.021, 0.021, 0.0115)
    housing = pose @ transform(translation=np.array([0.0, 0.0, -size[2] - 0.002]))
    body.add_geom(
        name=f"{camera.name}_housing",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=size,
        pos=housing[:3, 3],
        quat=matrix_to_quat(housing[:3, :3]),
        material=Paint.METAL,
        contype=0,
        conaffinity=0,
        mass=0,
        group=PANEL_GROUP,
    )


def opencv_to_mujoco(parent_T_camera: Transform) -> Transform:
    """The same camera in MuJoCo's axes: x right, y up, looking along -z. Its own inverse."""
    flip: Array = np.diag([1.0, -1.0, -1.0, 1.0])
    return parent_T_camera @ flip
