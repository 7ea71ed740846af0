"""Where things are: the palm from the joints, and the target from masked depth, in the world frame of the rig.

Torch in, torch out, batched over the leading axis, without gradients. Lengths in m. What a mask without valid depth
gives is zeros with ``seen`` False, never NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...hardware.kinematics import ArmKinematics
from ...hardware.rig import DEXGRASPVLA_RIG

ARM_DOF = 7
_ARM = DEXGRASPVLA_RIG.arms[0]
_KINEMATICS = ArmKinematics(_ARM.arm)

# -- the palm ----------------------------------------------------------------------------------------------------------


def world_T_palm(arm_q: Tensor) -> Tensor:
    """(..., 7) rad -> (..., 4, 4) float64, by forward kinematics."""
    base_T_flange = _KINEMATICS.fk(arm_q.detach().cpu().double().numpy())
    return torch.from_numpy(_ARM.world_T_base @ base_T_flange @ _ARM.flange_T_palm).to(arm_q.device)


def rotation_to_six(rotation: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 6): the first column, then the second (1812.07035)."""
    return torch.cat([rotation[..., 0], rotation[..., 1]], -1)


def six_to_rotation(six: Tensor) -> Tensor:
    """(..., 6), any numbers -> (..., 3, 3) orthonormal, by Gram-Schmidt (1812.07035, eq. 15). Where the two columns
    do not span a plane, an axis of the frame stands in for the missing one."""
    first = _unit(six[..., :3], six.new_tensor([1.0, 0.0, 0.0]))
    least = torch.nn.functional.one_hot(first.abs().argmin(-1), 3).to(six)  # surely not along ``first``
    spare = least - (least * first).sum(-1, keepdim=True) * first
    second = _unit(six[..., 3:] - (six[..., 3:] * first).sum(-1, keepdim=True) * first, spare)
    # Once more: what rounding left of the first column in a short second one.
    second = _unit(second - (second * first).sum(-1, keepdim=True) * first, spare)
    return torch.stack([first, second, torch.linalg.cross(first, second)], -1)


def _unit(vector: Tensor, otherwise: Tensor) -> Tensor:
    length = vector.norm(dim=-1, keepdim=True)
    safe = length > 1e-9
    other = otherwise / otherwise.norm(dim=-1, keepdim=True)
    return torch.where(safe, vector / length.clamp_min(1e-9), other)
