"""The arm as MuJoCo bodies: the table's masses and inertias, own collision shapes, position servos."""

from __future__ import annotations

import mujoco
import numpy as np

from ..description import MM, ArmLink, ArmMount
from ..geometry import matrix_to_quat, rot_x
from .shapes import ENVIRONMENT, FOREARM, UPPER_ARM, Paint, Vec, box_size

ARMATURE_KG_M2 = (0.1, 0.1, 0.05, 0.05, 0.01, 0.01, 0.01)  # rotor inertia seen at the joint
# Servo stiffness. Damping follows from the lag: every joint trails its reference by the same time, so that a path keeps
# its shape (docs/decisions/11-controllers.md).
STIFFNESS_NM_RAD = (6000.0, 6000.0, 3000.0, 3000.0, 800.0, 800.0, 800.0)
SERVO_LAG_S = 0.020
UPPER_LINKS = 4  # links 1..4 and the base can be hit by the hand


def add_arm(spec: mujoco.MjSpec, mount: ArmMount, prefix: str) -> mujoco.MjsBody:
    """Add the arm of ``mount`` to the world; answers the last link, whose frame is the flange."""
    arm = mount.arm
    base = spec.worldbody.add_body(
        name=f"{prefix}arm_base",
        pos=mount.world_T_base[:3, 3],
        quat=matrix_to_quat(mount.world_T_base[:3, :3]),
    )
    _inertia(base, arm.base_mass_kg, arm.base_com_mm, arm.base_inertia_kg_mm2)
    _shape(base, f"{prefix}arm_base", arm.base_box_mm, UPPER_ARM)
    body = base
    for number, link in enumerate(arm.links, 1):
        body = body.add_body(
            name=f"{prefix}arm_link_{number}",
            pos=link.origin_m,
            quat=matrix_to_quat(rot_x(link.origin_roll_rad)),
            gravcomp=1.0,
        )
        _inertia(body, link.mass_kg, link.com_mm, link.inertia_kg_mm2)
        _joint(spec, body, prefix, link, number - 1)
        _shape(body, f"{prefix}arm_link_{number}", link.box_mm, UPPER_ARM if number <= UPPER_LINKS else FOREARM)
        _joint_ring(body, f"{prefix}arm_ring_{number}", link)
    body.add_site(name=f"{prefix}flange", size=(0.005, 0.005, 0.005), group=4)
    return body


def _inertia(body: mujoco.MjsBody, mass_kg: float, com_mm: Vec, inertia_kg_mm2: Vec) -> None:
    xx, xy, xz, yy, yz, zz = (1e-6 * value for value in inertia_kg_mm2)
    body.mass = mass_kg
    body.ipos = MM * np.array(com_mm)
    body.fullinertia = (xx, yy, zz, xy, xz, yz)  # MuJoCo's order
    body.explicitinertial = True


def _joint(spec: mujoco.MjSpec, body: mujoco.MjsBody, prefix: str, link: ArmLink, index: int) -> None:
    name = f"{prefix}{link.joint}"
    stiffness = STIFFNESS_NM_RAD[index]
    body.add_joint(
        name=name,
        type=mujoco.mjtJoint.mjJNT_HINGE,
        axis=(0, 0, 1),
        range=(-link.limit_rad, link.limit_rad),
        armature=ARMATURE_KG_M2[index],
        # The motor carries gravity too: servo and compensation together stay within the effort limit.
        actgravcomp=True,
        actfrcrange=(-link.effort_nm, link.effort_nm),
    )
    servo = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    servo.set_to_position(kp=stiffness, kv=stiffness * SERVO_LAG_S)
    servo.ctrlrange = (-link.limit_rad, link.limit_rad)
    servo.forcerange = (-link.effort_nm, link.effort_nm)


def _shape(body: mujoco.MjsBody, name: str, box_mm: Vec, contype: int) -> None:
    """A capsule (long links) or cylinder (short ones) along the bounding box's longest side."""
    center, half = box_size(tuple(MM * value for value in box_mm))
    axis = int(np.argmax(half))
    radius = float(np.delete(half, axis).mean())
    stubby = half[axis] < 1.25 * radius
    to_axis = {0: (0.5**0.5, 0.0, 0.5**0.5, 0.0), 1: (0.5**0.5, -(0.5**0.5), 0.0, 0.0), 2: (1.0, 0.0, 0.0, 0.0)}
    body.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_CYLINDER if stubby else mujoco.mjtGeom.mjGEOM_CAPSULE,
        size=(radius, half[axis] if stubby else half[axis] - radius, 0),
        pos=center,
        quat=to_axis[axis],
        material=Paint.ARM,
        contype=contype,
        conaffinity=ENVIRONMENT,
        condim=3,
        friction=(0.4, 0.005, 0.0001),
        group=2,
    )


def _joint_ring(body: mujoco.MjsBody, name: str, link: ArmLink) -> None:
    """The dark ring around a joint's axis. For the eye only."""
    half = (link.box_mm[1] - link.box_mm[0]) / 2
    body.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=(MM * (half + 1.0), MM * 9, 0),
        pos=(0, 0, MM * (link.box_mm[5] - 8)),
        material=Paint.JOINT,
        contype=0,
        conaffinity=0,
        mass=0,
        group=2,
    )
