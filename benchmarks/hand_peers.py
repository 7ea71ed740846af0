"""dex-retargeting (AnyTeleop, Qin et al. 2023) on our hand: a URDF of the hand, and the peer's two methods run on it.

A URDF can couple joints linearly only (``mimic``), so each finger's PIP polynomial enters as its least-squares line;
what the peer answers is then judged on the true coupled hand, as the real one would move.
"""

from __future__ import annotations

import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from dexloop.hardware.errors import BadInput
from dexloop.hardware.hand_kinematics import HandKinematics
from numpy.typing import NDArray

Array = NDArray[np.float64]

MOTOR_JOINT_NAMES = ("thumb_bend", "index_mcp", "middle_mcp", "ring_mcp", "little_mcp", "thumb_rotation")
TIP_LINKS = tuple(f"{finger}_tip" for finger in ("thumb", "index", "middle", "ring", "little"))
SCALE = 1.15  # the peer's own for a hand of this size (its Inspire configuration)
LOW_PASS_ALPHA = 0.2  # the peer's default filter for teleoperation


def hand_urdf(kinematics: HandKinematics) -> str:
    """URDF of the hand: every frame parallel to the palm's at angle 0, PIPs and thumb distal as mimic joints."""
    hand = kinematics.hand
    at_zero = kinematics.keypoints(kinematics.opening_of(np.zeros(6)))  # (21, 3)
    robot = ElementTree.Element("robot", name=hand.name)
    ElementTree.SubElement(robot, "link", name="palm")
    thumb = hand.thumb
    bend = np.array(thumb.bend_axis)
    _joint(robot, "palm", "thumb_rotation", at_zero[1], thumb.rotation_axis, thumb.rotation_range_rad)
    _joint(robot, "thumb_rotation", "thumb_bend", at_zero[2] - at_zero[1], bend, thumb.bend_range_rad)
    distal_range = (0.0, thumb.distal_ratio * thumb.bend_range_rad[1])
    _joint(
        robot, "thumb_bend", "thumb_distal", at_zero[3] - at_zero[2], bend, distal_range,
        ("thumb_bend", thumb.distal_ratio, 0.0),
    )  # fmt: skip
    _joint(robot, "thumb_distal", "thumb_tip", at_zero[4] - at_zero[3])
    for k, finger in enumerate(hand.fingers):
        mcp, pip, _, tip = at_zero[5 + 4 * k : 9 + 4 * k]
        angles = np.linspace(*finger.mcp_range_rad, 100)
        slope, offset = np.polyfit(angles, kinematics.pip(np.repeat(angles[:, None], 4, 1))[:, k], 1)
        _joint(robot, "palm", f"{finger.name}_mcp", mcp, finger.axis, finger.mcp_range_rad)
        _joint(
            robot, f"{finger.name}_mcp", f"{finger.name}_pip", pip - mcp, finger.axis, (-0.5, 2.5),
            (f"{finger.name}_mcp", float(slope), float(offset)),
        )  # fmt: skip
        _joint(robot, f"{finger.name}_pip", f"{finger.name}_tip", tip - pip)
    return ElementTree.tostring(robot, encoding="unicode")


def _joint(
    robot: ElementTree.Element,
    parent: str,
    name: str,
    origin_m: Array,
    axis: object = None,
    limits_rad: tuple[float, float] = (0.0, 0.0),
    mimic: tuple[str, float, float] | None = None,
) -> None:
    """Add link ``name`` and the joint of the same name that carries it; without an axis the joint is fixed."""
    ElementTree.SubElement(robot, "link", name=name)
    kind = "fixed" if axis is None else "revolute"
    joint = ElementTree.SubElement(robot, "joint", name=name if axis is not None else f"{name}_fixed", type=kind)
    ElementTree.SubElement(joint, "parent", link=parent)
    ElementTree.SubElement(joint, "child", link=name)
    ElementTree.SubElement(joint, "origin", xyz=_numbers(origin_m), rpy="0 0 0")
    if axis is None:
        return
    unit = np.asarray(axis, float) / np.linalg.norm(np.asarray(axis, float))
    ElementTree.SubElement(joint, "axis", xyz=_numbers(unit))
    lower, upper = (f"{limit:.9f}" for limit in limits_rad)
    ElementTree.SubElement(joint, "limit", lower=lower, upper=upper, effort="10", velocity="10")
    if mimic:
        source, multiplier, offset = mimic
        ElementTree.SubElement(joint, "mimic", joint=source, multiplier=f"{multiplier:.9f}", offset=f"{offset:.9f}")


def _numbers(vector: Array) -> str:
    return " ".join(f"{value:.9f}" for value in vector)


@dataclass(frozen=True)
class PeerRun:
    """What a method answered over a recording."""

    opening: Array  # (N, 6)
    ms: Array  # (N,) CPU time per frame


def run_peer(method: str, filtered: bool, points_m: Array, kinematics: HandKinematics, folder: Path) -> PeerRun:
    """Run ``vector`` or ``dexpilot`` over key points (N, 21, 3) along the palm's axes, wrist at 0."""
    import torch

    try:
        from dex_retargeting.retargeting_config import RetargetingConfig
    except ImportError as error:
        raise BadInput(
            f"dex-retargeting cannot be imported ({error}): install the group of peers, `uv sync --group bench`."
        ) from error
    torch.set_num_threads(1)
    urdf = folder / "hand.urdf"
    urdf.write_text(hand_urdf(kinematics))
    config = RetargetingConfig(
        type=method,
        urdf_path=str(urdf),
        target_joint_names=list(MOTOR_JOINT_NAMES),
        target_link_human_indices=np.array([[0] * 5, [4, 8, 12, 16, 20]]) if method == "vector" else None,
        wrist_link_name="palm",
        target_origin_link_names=["palm"] * 5,
        target_task_link_names=list(TIP_LINKS),
        finger_tip_link_names=list(TIP_LINKS),
        scaling_factor=SCALE,
        low_pass_alpha=LOW_PASS_ALPHA if filtered else 1.0,
    )
    retargeting = config.build()
    origin, task = retargeting.optimizer.target_link_human_indices
    order = [retargeting.joint_names.index(name) for name in MOTOR_JOINT_NAMES]
    angles, ms = [], []
    for points in points_m:
        begin = time.process_time()
        answer = retargeting.retarget(points[task] - points[origin])
        ms.append((time.process_time() - begin) * 1e3)
        angles.append(np.asarray(answer, float)[order])
    return PeerRun(np.clip(kinematics.opening_of(np.array(angles)), 0.0, 1.0), np.array(ms))
