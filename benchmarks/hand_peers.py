"""dex-retargeting (AnyTeleop, Qin et al. 2023) on our hand: its two methods run on the URDF that the twin exports.

A URDF can couple joints linearly only (``mimic``), so each finger's PIP polynomial enters as its least-squares line;
what the peer answers is then judged on the true coupled hand, as the real one would move.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from dexloop.hardware.errors import BadInput
from dexloop.hardware.hand_kinematics import HAND_JOINTS, MOTOR_JOINTS, HandKinematics
from dexloop.hardware.twin.urdf import hand_urdf
from numpy.typing import NDArray

Array = NDArray[np.float64]

MOTOR_JOINT_NAMES = tuple(HAND_JOINTS[i] for i in MOTOR_JOINTS)  # order HAND_MOTORS
TIP_LINKS = tuple(f"{finger}_tip" for finger in ("thumb", "index", "middle", "ring", "little"))
SCALE = 1.15  # the peer's own for a hand of this size (its Inspire configuration)
LOW_PASS_ALPHA = 0.2  # the peer's default filter for teleoperation


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
    urdf.write_text(hand_urdf(kinematics.hand))
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
