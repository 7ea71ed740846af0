"""The hand as MuJoCo bodies: six motors, eleven joints, the true couplings, forces as the real hand's."""

from __future__ import annotations

from dataclasses import dataclass, replace

import mujoco
import numpy as np

from ..description import MM, ArmMount, Finger, HandDescription
from ..geometry import Array, inverse, matrix_to_quat, transform
from ..hand_kinematics import HandKinematics
from .shapes import ENVIRONMENT, FINGER, THUMB, UPPER_ARM, Paint, capsule_between

# Of the hand's 545 g; the palm with its six motors weighs the rest.
PROXIMAL_KG, DISTAL_KG, THUMB_BASE_KG = 0.020, 0.018, 0.014
MOTOR_STIFFNESS_NM_RAD, MOTOR_DAMPING = 40.0, 0.6
DAMPING = {"thumb": 0.05, "mcp": 0.03, "pip": 0.01}  # of a public model of this hand, N m s/rad
ROTOR_KG_M2, LINKAGE_KG_M2 = 0.002, 0.0002
TIP_FRICTION = (1.0, 0.01, 0.0003)  # silicone pads: sliding, torsional (m), rolling (m)
SHELL_FRICTION = (0.5, 0.005, 0.0001)
COUPLING_SOLREF, COUPLING_SOLIMP = (0.004, 1.0), (0.99, 0.999, 0.001, 0.5, 2.0)

STRETCHED_FORCE_N = 0.45 * 9.81  # at a stretched fingertip; description.tip_force_n is for a bent one
BENT_FRACTION = 0.5  # of a motor's travel, from where on a finger counts as bent


@dataclass(frozen=True)
class HandForces:
    """Torque limits of the six motors as functions of their joint angle, order HAND_MOTORS.

    The linkage makes a stretched finger weaker (0.45 kgf) than a bent one (1 kgf). ``lever`` is what turns a tip
    force into the motor's torque: the tip's speed per joint speed, coupled joints included.
    """

    upper_rad: Array  # (6,) end of travel
    lever_m: Array  # (6, 3) quadratic in the joint angle: c0 + c1 q + c2 q^2
    held_rad: Array  # (6,) below it the linkage holds the distal joint straight
    held_lever_m: Array  # (6,) lever there
    stretched_n: float
    bent_n: float

    def lever(self, q: Array) -> Array:
        """Joint angles (6,) rad -> m, (6,)."""
        c = self.lever_m
        return np.where(q < self.held_rad, self.held_lever_m, c[:, 0] + q * (c[:, 1] + q * c[:, 2]))

    def tip_force(self, q: Array) -> Array:
        """The largest force at each fingertip, N, (6,)."""
        bent = np.minimum(np.maximum(q / (BENT_FRACTION * self.upper_rad), 0.0), 1.0)  # clip takes three times as long
        force = self.stretched_n + (self.bent_n - self.stretched_n) * bent
        force[0] = force[5] = self.bent_n  # the thumb has no weak end
        return force

    def limit(self, q: Array) -> Array:
        """Torque limits (6,) N m at joint angles (6,) rad."""
        return self.tip_force(q) * self.lever(q)


def hand_forces(hand: HandDescription) -> HandForces:
    """Levers from the hand's exact Jacobian, fitted by a quadratic over each motor's travel (within 1 %).

    The force acts where a pad presses: at the centre of the fingertip's rounding, half a width before its end.
    """
    pad_mm = hand.phalanx_width_mm / 2
    fingers = tuple(replace(finger, distal_mm=finger.distal_mm - pad_mm) for finger in hand.fingers)
    thumb = replace(hand.thumb, distal_mm=hand.thumb.distal_mm - pad_mm)
    kinematics = HandKinematics(replace(hand, fingers=fingers, thumb=thumb))
    held_rad, held_lever = np.full(6, -np.inf), np.zeros(6)
    for motor, finger in enumerate(fingers, 1):
        held_rad[motor] = held_below_rad(finger)
        held_lever[motor] = MM * (finger.proximal_mm + finger.distal_mm)
    upper = np.abs(kinematics.actuated(np.zeros(6)) - kinematics.actuated(np.ones(6)))
    lever = np.zeros((6, 3))
    for motor, tip in enumerate((4, 8, 12, 16, 20, 4)):
        opening = np.ones((41, 6))
        opening[:, motor] = np.linspace(0.0, 1.0, 41)
        angle = kinematics.actuated(opening)[:, motor]
        speed = kinematics.keypoints_jacobian(opening)[:, tip, :, motor]  # (41, 3)
        moves = angle > held_rad[motor]
        per_rad = np.linalg.norm(speed, axis=-1) / upper[motor]
        lever[motor] = np.polynomial.polynomial.polyfit(angle[moves], per_rad[moves], 2)
    return HandForces(upper, lever, held_rad, held_lever, STRETCHED_FORCE_N, hand.tip_force_n)


def held_below_rad(finger: Finger) -> float:
    """The MCP angle below which the PIP's polynomial is negative and the linkage holds the finger straight."""
    c0, c1, c2 = finger.pip_poly
    return float((-c1 + np.sqrt(c1 * c1 - 4 * c0 * c2)) / (2 * c2))


def add_hand(spec: mujoco.MjSpec, flange: mujoco.MjsBody, mount: ArmMount, prefix: str) -> mujoco.MjsBody:
    """Hang the hand of ``mount`` on the flange; answers the palm's body."""
    hand = mount.hand
    palm = flange.add_body(
        name=f"{prefix}palm",
        pos=mount.flange_T_palm[:3, 3],
        quat=matrix_to_quat(mount.flange_T_palm[:3, :3]),
        gravcomp=1.0,
    )
    phalanges = 2 * len(hand.fingers) + 2
    moving = phalanges / 2 * (PROXIMAL_KG + DISTAL_KG) + THUMB_BASE_KG
    _palm(palm, hand, prefix, hand.mass_kg - moving)
    # The force sensor lies between flange and hand, and reads in the flange's axes.
    site_T = inverse(mount.flange_T_palm)
    palm.add_site(name=f"{prefix}wrench", pos=site_T[:3, 3], quat=matrix_to_quat(site_T[:3, :3]), group=4)
    for name, kind in (("force", mujoco.mjtSensor.mjSENS_FORCE), ("torque", mujoco.mjtSensor.mjSENS_TORQUE)):
        spec.add_sensor(
            name=f"{prefix}wrist_{name}", type=kind, objtype=mujoco.mjtObj.mjOBJ_SITE, objname=f"{prefix}wrench"
        )
    limits = hand_forces(hand)
    strongest = {
        motor: float(np.max([limits.limit(fraction * limits.upper_rad)[k] for fraction in np.linspace(0, 1, 21)]))
        for k, motor in enumerate(hand.motors)
    }
    for finger in hand.fingers:
        _finger(spec, palm, finger, hand, prefix)
        _motor(
            spec, f"{prefix}{finger.name}", f"{prefix}{finger.name}_mcp", finger.mcp_range_rad, strongest[finger.name]
        )
    _thumb(spec, palm, hand, prefix)
    thumb = hand.thumb
    for motor, span in (("thumb_bend", thumb.bend_range_rad), ("thumb_rotation", thumb.rotation_range_rad)):
        _motor(spec, f"{prefix}{motor}", f"{prefix}{motor}", span, strongest[motor])
    return palm


def _motor(spec: mujoco.MjSpec, name: str, joint: str, span: tuple[float, float], limit_nm: float) -> None:
    motor = spec.add_actuator(name=name, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    motor.set_to_position(kp=MOTOR_STIFFNESS_NM_RAD, kv=MOTOR_DAMPING)
    motor.ctrlrange = span
    motor.forcerange = (-limit_nm, limit_nm)


def _palm(palm: mujoco.MjsBody, hand: HandDescription, prefix: str, mass_kg: float) -> None:
    """Two boxes inside the published bounding box, whose full depth only the thumb's mount reaches."""
    x0, x1, y0, y1, z0, z1 = (MM * value for value in hand.palm_box_mm)
    plate = (x0, x1 - 0.016, y0, y1, z0 + 0.013, z1)
    mount = (0.015, 0.072, -0.004, y1, z0, z0 + 0.013)
    for name, box, share in (("palm", plate, 0.9), ("palm_thenar", mount, 0.1)):
        low, high = np.array(box[0::2]), np.array(box[1::2])
        palm.add_geom(
            name=f"{prefix}{name}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=(high - low) / 2,
            pos=(high + low) / 2,
            mass=share * mass_kg,
            material=Paint.HAND,
            contype=FINGER,
            conaffinity=ENVIRONMENT | UPPER_ARM,
            condim=4,
            friction=SHELL_FRICTION,
            group=2,
        )


def _frame(x: Array, y: Array, position: Array) -> Array:
    """(4, 4) with the given unit x and y axes."""
    return transform(np.stack([x, y, np.cross(x, y)], -1), position)


def _unit(vector: Array) -> Array:
    return vector / np.linalg.norm(vector)


def _phalanx(body: mujoco.MjsBody, name: str, length_m: float, radius_m: float, mass_kg: float, tip: bool) -> None:
    """A capsule along x from the joint; a last phalanx ends at ``length_m`` and has a rubber pad."""
    end = length_m - radius_m if tip else length_m
    size, pos, quat = capsule_between(np.zeros(3), np.array([end, 0.0, 0.0]), radius_m)
    body.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_CAPSULE,
        size=size,
        pos=pos,
        quat=quat,
        mass=mass_kg,
        material=Paint.RUBBER if tip else Paint.HAND,
        contype=THUMB if "thumb" in name else FINGER,
        conaffinity=ENVIRONMENT if "thumb" in name else ENVIRONMENT | THUMB | UPPER_ARM,
        condim=4,
        friction=TIP_FRICTION if tip else SHELL_FRICTION,
        solref=(0.008, 1.0),
        solimp=(0.95, 0.99, 0.001, 0.5, 2.0),
        group=2,
    )


def _body(parent: mujoco.MjsBody, name: str, pose: Array) -> mujoco.MjsBody:
    return parent.add_body(name=name, pos=pose[:3, 3], quat=matrix_to_quat(pose[:3, :3]), gravcomp=1.0)


def _hinge(
    body: mujoco.MjsBody, name: str, axis: Array, span: tuple[float, float], damping: float, rotor: float
) -> None:
    body.add_joint(
        name=name,
        type=mujoco.mjtJoint.mjJNT_HINGE,
        axis=axis,
        range=span,
        damping=damping,
        armature=rotor,
        solref_limit=(0.004, 1.0),
    )


def _couple(spec: mujoco.MjSpec, follower: str, leader: str, poly: tuple[float, ...]) -> None:
    coupling = spec.add_equality(
        name=follower, type=mujoco.mjtEq.mjEQ_JOINT, objtype=mujoco.mjtObj.mjOBJ_JOINT, name1=follower, name2=leader
    )
    coupling.data = np.concatenate([poly, np.zeros(len(coupling.data) - len(poly))])
    coupling.solref = COUPLING_SOLREF
    coupling.solimp = COUPLING_SOLIMP


def _finger(spec: mujoco.MjSpec, palm: mujoco.MjsBody, finger: Finger, hand: HandDescription, prefix: str) -> None:
    name, radius = f"{prefix}{finger.name}", MM * hand.phalanx_width_mm / 2
    axis = _unit(np.array(finger.axis))
    straight = _unit(np.array([1.0, 0.0, 0.0]) - axis[0] * axis)  # as HandKinematics: as distal as the axis allows
    y = np.array([0.0, 1.0, 0.0])
    proximal = _body(palm, f"{name}_proximal", _frame(straight, axis, MM * np.array(finger.mcp_mm)))
    _hinge(proximal, f"{name}_mcp", y, finger.mcp_range_rad, DAMPING["mcp"], ROTOR_KG_M2)
    length = MM * finger.proximal_mm
    _phalanx(proximal, f"{name}_proximal", length, radius, PROXIMAL_KG, tip=False)
    distal = _body(proximal, f"{name}_distal", transform(translation=np.array([length, 0.0, 0.0])))
    p = finger.mcp_range_rad[1]
    bent = finger.pip_poly[0] + p * (finger.pip_poly[1] + p * finger.pip_poly[2])
    # The stops are for a blow; within travel the coupling alone decides (world.py keeps it at 0 below its threshold).
    _hinge(distal, f"{name}_pip", y, (-0.05, bent + 0.1), DAMPING["pip"], LINKAGE_KG_M2)
    _phalanx(distal, f"{name}_distal", MM * finger.distal_mm, radius * 0.95, DISTAL_KG, tip=True)
    distal.add_site(name=f"{name}_tip", pos=(MM * finger.distal_mm, 0, 0), size=(0.003, 0.003, 0.003), group=4)
    _couple(spec, f"{name}_pip", f"{name}_mcp", finger.pip_poly)


def _thumb(spec: mujoco.MjSpec, palm: mujoco.MjsBody, hand: HandDescription, prefix: str) -> None:
    thumb, radius = hand.thumb, MM * hand.phalanx_width_mm / 2
    pivot, hinge = MM * np.array(thumb.rotation_pivot_mm), MM * np.array(thumb.bend_pivot_mm)
    y = np.array([0.0, 1.0, 0.0])
    base = _body(palm, f"{prefix}thumb_base", transform(translation=pivot))
    _hinge(
        base,
        f"{prefix}thumb_rotation",
        np.array(thumb.rotation_axis),
        thumb.rotation_range_rad,
        DAMPING["thumb"],
        0.002,
    )
    size, pos, quat = capsule_between(np.zeros(3), hinge - pivot, radius)
    base.add_geom(
        name=f"{prefix}thumb_base",
        type=mujoco.mjtGeom.mjGEOM_CAPSULE,
        size=size,
        pos=pos,
        quat=quat,
        mass=THUMB_BASE_KG,
        material=Paint.HAND,
        contype=THUMB,
        conaffinity=ENVIRONMENT,
        friction=SHELL_FRICTION,
        group=2,
    )
    axis = _unit(np.array(thumb.bend_axis))
    direction = np.array(thumb.direction)
    straight = _unit(direction - (direction @ axis) * axis)
    proximal = _body(base, f"{prefix}thumb_proximal", _frame(straight, axis, hinge - pivot))
    _hinge(proximal, f"{prefix}thumb_bend", y, thumb.bend_range_rad, DAMPING["thumb"], ROTOR_KG_M2)
    length = MM * thumb.proximal_mm
    _phalanx(proximal, f"{prefix}thumb_proximal", length, radius, PROXIMAL_KG, tip=False)
    distal = _body(proximal, f"{prefix}thumb_distal", transform(translation=np.array([length, 0.0, 0.0])))
    span = (-0.05, thumb.distal_ratio * thumb.bend_range_rad[1] + 0.1)
    _hinge(distal, f"{prefix}thumb_distal", y, span, DAMPING["pip"], LINKAGE_KG_M2)
    _phalanx(distal, f"{prefix}thumb_distal", MM * thumb.distal_mm, radius, DISTAL_KG, tip=True)
    distal.add_site(name=f"{prefix}thumb_tip", pos=(MM * thumb.distal_mm, 0, 0), size=(0.003, 0.003, 0.003), group=4)
    _couple(spec, f"{prefix}thumb_distal", f"{prefix}thumb_bend", (0.0, thumb.distal_ratio))
