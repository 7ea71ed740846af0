"""Export of arm and hand for other tools: URDF of each or both, MJCF of the rig.

URDF knows only linear couplings (``mimic``): the distal joints' polynomials are written as their least-squares lines,
with the true polynomial and the line's largest error in a comment beside it. The thumb's coupling is linear by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..description import MM, ArmDescription, ArmMount, HandDescription, RigDescription
from ..geometry import Array, Transform, rot_x, transform
from ..hand_kinematics import HandKinematics
from .hand_spec import DISTAL_KG, PROXIMAL_KG, THUMB_BASE_KG
from .shapes import Vec, box_size
from .spec import add_default_lights, rig_spec


@dataclass
class _Robot:
    """Lines of a URDF under way."""

    name: str
    lines: list[str] = field(default_factory=list)

    def text(self) -> str:
        body = "\n".join(f"  {line}" for line in self.lines)
        return f'<?xml version="1.0"?>\n<robot name="{self.name}">\n{body}\n</robot>\n'


def arm_urdf(arm: ArmDescription) -> str:
    """URDF of the arm: links ``arm_base``, ``arm_link_1`` ..., ``flange``."""
    robot = _Robot(arm.name)
    _arm(robot, arm)
    return robot.text()


def hand_urdf(hand: HandDescription) -> str:
    """URDF of the hand with ``palm`` as root; joints are ``HAND_JOINTS``, fingertips links ``thumb_tip`` ..."""
    robot = _Robot(hand.name)
    _hand(robot, hand)
    return robot.text()


def arm_with_hand_urdf(mount: ArmMount) -> str:
    """URDF of an arm with its hand, from ``arm_base`` to the fingertips."""
    robot = _Robot(f"{mount.arm.name}_{mount.hand.name}")
    _arm(robot, mount.arm)
    _fixed(robot, "flange", "palm", mount.flange_T_palm)
    _hand(robot, mount.hand)
    return robot.text()


def rig_mjcf(rig: RigDescription) -> str:
    """MJCF of the whole rig, without objects."""
    spec = rig_spec(rig)
    add_default_lights(spec)
    spec.compile()
    return spec.to_xml()


def line_of(poly: tuple[float, ...], span: tuple[float, float]) -> tuple[float, float, float]:
    """(multiplier, offset, largest error rad) of the best line through max(poly(p), 0) over the span of p (rad)."""
    p = np.linspace(*span, 200)
    true = np.maximum(np.polynomial.polynomial.polyval(p, poly), 0.0)
    offset, slope = np.polynomial.polynomial.polyfit(p, true, 1)
    return float(slope), float(offset), float(np.abs(slope * p + offset - true).max())


def _numbers(values: Array | Vec) -> str:
    return " ".join(f"{value:.9g}" for value in values)


def _origin(pose: Transform) -> str:
    r = pose[:3, :3]
    pitch = np.arcsin(np.clip(-r[2, 0], -1.0, 1.0))
    if abs(r[2, 0]) < 1.0 - 1e-12:
        roll, yaw = np.arctan2(r[2, 1], r[2, 2]), np.arctan2(r[1, 0], r[0, 0])
    else:  # gimbal lock: roll and yaw turn about one axis, so that one of them is enough
        roll, yaw = 0.0, np.arctan2(-r[0, 1], r[1, 1])
    return f'<origin xyz="{_numbers(pose[:3, 3])}" rpy="{_numbers((roll, pitch, yaw))}"/>'


def _link(robot: _Robot, name: str, mass_kg: float, com_m: Array, inertia: Vec, shape: str = "") -> None:
    """``inertia`` about the centre of mass in the link's axes, kg m2: xx, xy, xz, yy, yz, zz."""
    keys = ("ixx", "ixy", "ixz", "iyy", "iyz", "izz")
    values = " ".join(f'{key}="{value:.9g}"' for key, value in zip(keys, inertia, strict=True))
    robot.lines += [
        f'<link name="{name}">',
        f'  <inertial><origin xyz="{_numbers(com_m)}"/><mass value="{mass_kg:.9g}"/><inertia {values}/></inertial>',
    ]
    if shape:
        robot.lines += [f"  <visual>{shape}</visual>", f"  <collision>{shape}</collision>"]
    robot.lines.append("</link>")


def _box(box_m: Vec) -> str:
    center, half = box_size(box_m)
    return f'{_origin(transform(translation=center))}<geometry><box size="{_numbers(2 * half)}"/></geometry>'


def _rod(length_m: float, radius_m: float, along: Array) -> str:
    """A cylinder from the link's origin along the unit vector ``along``."""
    side = np.cross(along, [0.0, 0.0, 1.0] if abs(along[2]) < 0.9 else [0.0, 1.0, 0.0])
    side = side / np.linalg.norm(side)
    pose = transform(np.stack([side, np.cross(along, side), along], -1), along * length_m / 2)
    return f'{_origin(pose)}<geometry><cylinder radius="{radius_m:.9g}" length="{length_m:.9g}"/></geometry>'


def _fixed(robot: _Robot, parent: str, child: str, pose: Transform) -> None:
    robot.lines += [
        f'<joint name="{child}_mount" type="fixed">',
        f'  <parent link="{parent}"/><child link="{child}"/>{_origin(pose)}',
        "</joint>",
    ]


def _revolute(
    robot: _Robot,
    name: str,
    parent: str,
    child: str,
    pose: Transform,
    axis: Array | Vec,
    limit: tuple[float, float, float, float],
    mimic: str = "",
) -> None:
    """``limit``: lower and upper rad, effort N m, speed rad/s."""
    lower, upper, effort, speed = limit
    robot.lines += [
        f'<joint name="{name}" type="revolute">',
        f'  <parent link="{parent}"/><child link="{child}"/>{_origin(pose)}<axis xyz="{_numbers(axis)}"/>',
        f'  <limit lower="{lower:.9g}" upper="{upper:.9g}" effort="{effort:.9g}" velocity="{speed:.9g}"/>',
    ]
    if mimic:
        robot.lines.append(f"  {mimic}")
    robot.lines.append("</joint>")


def _arm(robot: _Robot, arm: ArmDescription) -> None:
    scale = 1e-6
    inertia = tuple(scale * value for value in arm.base_inertia_kg_mm2)
    _link(robot, "arm_base", arm.base_mass_kg, MM * np.array(arm.base_com_mm), inertia, _box(_m(arm.base_box_mm)))
    parent = "arm_base"
    for number, link in enumerate(arm.links, 1):
        child = f"arm_link_{number}"
        inertia = tuple(scale * value for value in link.inertia_kg_mm2)
        _link(robot, child, link.mass_kg, MM * np.array(link.com_mm), inertia, _box(_m(link.box_mm)))
        pose = transform(rot_x(link.origin_roll_rad), np.array(link.origin_m))
        limit = (-link.limit_rad, link.limit_rad, link.effort_nm, link.speed_rad_s)
        _revolute(robot, link.joint, parent, child, pose, (0.0, 0.0, 1.0), limit)
        parent = child
    robot.lines.append('<link name="flange"/>')
    _fixed(robot, parent, "flange", np.eye(4))


def _m(box_mm: Vec) -> Vec:
    return tuple(MM * value for value in box_mm)


def _rod_inertia(mass_kg: float, length_m: float, radius_m: float) -> Vec:
    """Of a cylinder along x."""
    across = mass_kg * (3 * radius_m**2 + length_m**2) / 12
    return mass_kg * radius_m**2 / 2, 0.0, 0.0, across, 0.0, across


def _phalanx(robot: _Robot, name: str, mass_kg: float, length_m: float, radius_m: float) -> None:
    x = np.array([1.0, 0.0, 0.0])
    inertia = _rod_inertia(mass_kg, length_m, radius_m)
    _link(robot, name, mass_kg, x * length_m / 2, inertia, _rod(length_m, radius_m, x))


def _tip(robot: _Robot, parent: str, name: str, length_m: float) -> None:
    robot.lines.append(f'<link name="{name}"/>')
    _fixed(robot, parent, name, transform(translation=np.array([length_m, 0.0, 0.0])))


def _hand(robot: _Robot, hand: HandDescription) -> None:
    moving = (len(hand.fingers) + 1) * (PROXIMAL_KG + DISTAL_KG) + THUMB_BASE_KG
    box = _m(hand.palm_box_mm)
    center, half = box_size(box)
    mass = hand.mass_kg - moving
    x2, y2, z2 = (2 * half) ** 2
    inertia = (mass * (y2 + z2) / 12, 0.0, 0.0, mass * (x2 + z2) / 12, 0.0, mass * (x2 + y2) / 12)
    _link(robot, "palm", mass, center, inertia, _box(box))
    frames = _finger_frames(hand)
    radius, y = MM * hand.phalanx_width_mm / 2, (0.0, 1.0, 0.0)
    speed = hand.closing_speed_rad_s
    for finger in hand.fingers:
        name, (low, high) = finger.name, finger.mcp_range_rad
        first, second = MM * finger.proximal_mm, MM * finger.distal_mm
        _phalanx(robot, f"{name}_proximal", PROXIMAL_KG, first, radius)
        limit = (low, high, 2.0, speed)
        _revolute(robot, f"{name}_mcp", "palm", f"{name}_proximal", frames[name], y, limit)
        _phalanx(robot, f"{name}_distal", DISTAL_KG, second, radius)
        slope, offset, error = line_of(finger.pip_poly, finger.mcp_range_rad)
        c0, c1, c2 = finger.pip_poly
        robot.lines.append(
            f"<!-- true: {name}_pip = max(0, {c0:g} + {c1:g} p + {c2:g} p^2), p = {name}_mcp; line off by "
            f"{error:.3f} rad at most -->"
        )
        mimic = f'<mimic joint="{name}_mcp" multiplier="{slope:.6f}" offset="{offset:.6f}"/>'
        limit = (min(0.0, offset), slope * high + offset + 0.05, 2.0, 2 * speed)
        knuckle = transform(translation=np.array([first, 0.0, 0.0]))
        _revolute(robot, f"{name}_pip", f"{name}_proximal", f"{name}_distal", knuckle, y, limit, mimic)
        _tip(robot, f"{name}_distal", f"{name}_tip", second)
    _thumb(robot, hand, radius)


def _thumb(robot: _Robot, hand: HandDescription, radius_m: float) -> None:
    thumb, y = hand.thumb, (0.0, 1.0, 0.0)
    pivot, hinge = MM * np.array(thumb.rotation_pivot_mm), MM * np.array(thumb.bend_pivot_mm)
    first, second = MM * thumb.proximal_mm, MM * thumb.distal_mm
    to_hinge = hinge - pivot
    length = float(np.linalg.norm(to_hinge))
    spread = 2 / 5 * THUMB_BASE_KG * (length / 2) ** 2  # as a ball: it is as wide as long
    ball = (spread, 0.0, 0.0, spread, 0.0, spread)
    _link(robot, "thumb_base", THUMB_BASE_KG, to_hinge / 2, ball, _rod(length, radius_m, to_hinge / length))
    _phalanx(robot, "thumb_proximal", PROXIMAL_KG, first, radius_m)
    _phalanx(robot, "thumb_distal", DISTAL_KG, second, radius_m)
    axis = np.array(thumb.rotation_axis) / np.linalg.norm(thumb.rotation_axis)
    turn_speed = (thumb.rotation_range_rad[1] - thumb.rotation_range_rad[0]) / hand.stroke_s
    bend_speed = (thumb.bend_range_rad[1] - thumb.bend_range_rad[0]) / hand.stroke_s
    at_pivot = transform(translation=pivot)
    limit = (*thumb.rotation_range_rad, 1.0, turn_speed)
    _revolute(robot, "thumb_rotation", "palm", "thumb_base", at_pivot, axis, limit)
    frame = _frame(np.array(thumb.direction), np.array(thumb.bend_axis), to_hinge)
    limit = (*thumb.bend_range_rad, 2.0, bend_speed)
    _revolute(robot, "thumb_bend", "thumb_base", "thumb_proximal", frame, y, limit)
    mimic = f'<mimic joint="thumb_bend" multiplier="{thumb.distal_ratio:.6f}" offset="0"/>'
    limit = (0.0, thumb.distal_ratio * thumb.bend_range_rad[1] + 0.01, 2.0, 2 * bend_speed)
    knuckle = transform(translation=np.array([first, 0.0, 0.0]))
    _revolute(robot, "thumb_distal", "thumb_proximal", "thumb_distal", knuckle, y, limit, mimic)
    _tip(robot, "thumb_distal", "thumb_tip", second)


def _frame(toward: Array, axis: Array, position_m: Array) -> Transform:
    """y along ``axis``, x as near ``toward`` as that allows."""
    y = axis / np.linalg.norm(axis)
    x = toward - (toward @ y) * y
    x = x / np.linalg.norm(x)
    return transform(np.stack([x, y, np.cross(x, y)], -1), position_m)


def _finger_frames(hand: HandDescription) -> dict[str, Transform]:
    """palm_T_proximal of each finger when straight."""
    HandKinematics(hand)  # refuses a hand of another build
    distal = np.array([1.0, 0.0, 0.0])
    return {finger.name: _frame(distal, np.array(finger.axis), MM * np.array(finger.mcp_mm)) for finger in hand.fingers}
