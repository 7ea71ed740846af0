"""How likely a grasp is to lift the target: what the best of many proposed goals is chosen by.

The scene is looked at from the hand: points of the target and of what stands around it are put into the frame of the
palm as it will close, so that alike grasps look alike wherever they are. Learnt from grasps that were tried out on the
twin (``cli.py rehearse``, ``cli.py train grasps``; GraspNet's evaluator, 1905.10520, learns likewise).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .geometry import FAR_M, NEAR_M, NOWHERE, six_to_rotation
from .parts import Batch
from .point_set import PointSet

_END = 6.0  # coordinates end there, in NEAR_M
_WAVES_M = (0.16, 0.08, 0.04)  # of the sines in which coordinates are given as well (2006.10739): millimetres count
_POINT_FEATURES = 4 + 2 * 3 * len(_WAVES_M)
_GOAL_FEATURES = 15
_DROPOUT = 0.3


class GraspJudge(nn.Module):
    """Logits of success for goals in what the encoder's ``scene`` describes."""

    def __init__(self, width: int, scene_features: int, around: bool) -> None:
        super().__init__()
        self.target = PointSet(_POINT_FEATURES, width, normed=False)
        self.around = PointSet(_POINT_FEATURES, width, normed=False) if around else None
        parts = 2 if around else 1
        self.head = nn.Sequential(
            nn.Linear(parts * width + _GOAL_FEATURES + scene_features, width), nn.GELU(), nn.Dropout(_DROPOUT),
            nn.Linear(width, width), nn.GELU(), nn.Dropout(_DROPOUT), nn.Linear(width, 1),
        )  # fmt: skip

    def forward(self, prepared: Batch, goals: Tensor) -> Tensor:
        """goals (B, K, 15) -> (B, K)."""
        rotation, anchor = six_to_rotation(goals[..., 3:9]), prepared["anchor"]
        seen = [self._seen(self.target, prepared["scene.points"], NEAR_M, anchor, goals, rotation)]
        if self.around is not None:
            seen.append(self._seen(self.around, prepared["scene.around"], FAR_M / 2, anchor, goals, rotation))
        scene = prepared["scene"][:, None].expand(-1, goals.shape[1], -1)
        return self.head(torch.cat([*seen, _goal(goals, rotation), scene], -1))[..., 0]

    @staticmethod
    def _seen(net: PointSet, points: Tensor, unit_m: float, anchor: Tensor, goals: Tensor, rotation: Tensor) -> Tensor:
        """points (B, N, 3) in units from the anchor -> (B, K, width) of them as each goal's palm sees them."""
        there = points.abs().sum(-1) > 0  # what is not there is at the anchor itself
        world = points * unit_m + anchor[:, None]
        local = (world[:, None] - goals[:, :, None, :3]) @ rotation  # (B, K, N, 3)
        height = world[:, None, :, 2:].expand(-1, goals.shape[1], -1, -1)
        features = (torch.cat([local, height], -1) / NEAR_M).clamp(-_END, _END)
        features = torch.where(there[:, None, :, None], features, _END)
        turns = torch.cat([features[..., :3] * (2 * math.pi * NEAR_M / wave) for wave in _WAVES_M], -1)
        return net(torch.cat([features, turns.sin(), turns.cos()], -1))


def _goal(goals: Tensor, rotation: Tensor) -> Tensor:
    """(B, K, 15): which way is up and forward for the palm, where it is, its preshape."""
    place = (goals[..., :3] - goals.new_tensor(NOWHERE)) / FAR_M
    return torch.cat(
        [rotation[..., 2, :], rotation[..., :2, 0], place, goals[..., 2:3] / NEAR_M, 4 * goals[..., 9:] - 3], -1
    )
