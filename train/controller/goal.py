"""Where the hand is going to close: proposed once as an attempt begins, from the scene alone, and then held on to.

A policy that plans each chunk anew also chooses anew, and half way between two grasps there is none. Worse, it learns
to read from the hand's own motion where that motion leads, which a robot that came off the way does too. So the choice
is made first, without looking at the hand: samples of the palm's pose as the fingers begin to close, by flow matching
(2210.02747), of which the one is taken that is most likely to lift the target (:mod:`.judge`; without a judge, the
densest); chunks are then conditioned on it (``docs/decisions/100-grasp-goal.md``).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...datasets.rehearsals import GOAL_DIM
from .config import REFINED, GoalConfig
from .geometry import six_to_rotation
from .judge import GraspJudge
from .parts import Batch
from .point_set import PointSet

SCENE_FEATURES = 19
_UNIT_M, _SIX = 0.05, 2.0  # what becomes 1
_COMPANY = 0.25  # power of the density beside the judge's probability (docs/decisions/101-rehearsed-grasps.md)
# What is judged best is put a little elsewhere and judged again: so many rounds, each in so many ways.
_ROUNDS, _WAYS = 2, 8
_ELSEWHERE = (0.1,) * 3 + (0.14,) * 6 + (0.0,) * 6  # deviation of an encoded goal: 5 mm, 4 degrees
_ALIKE_M, _ALIKE_RAD = 0.02, 0.25  # grasps that differ by this are neighbours


class GraspGoal(nn.Module):
    """Samples goals for what the encoder's ``scene`` describes."""

    def __init__(self, config: GoalConfig, around: bool) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.points = PointSet(3, width)
        self.around = PointSet(3, width) if around else None
        self.scene = nn.Sequential(nn.Linear(SCENE_FEATURES, width), nn.GELU(), nn.Linear(width, width))
        parts = 3 if around else 2
        self.condition = nn.Sequential(
            nn.Linear(parts * width, width), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(width, width)
        )
        self.velocity = nn.Sequential(
            nn.Linear(GOAL_DIM + 1 + width, width), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(width, width),
            nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, GOAL_DIM),
        )  # fmt: skip
        self.judge = GraspJudge(config.judge, SCENE_FEATURES, around) if config.judge else None

    def loss(self, prepared: Batch, goal: Tensor, noise: Tensor, uniform: Tensor) -> Tensor:
        """goal, noise (B, 15), uniform (B,) in [0, 1) -> (B,) mean squared error of the velocity."""
        clean = encode(goal, prepared["anchor"])
        time = uniform[:, None]
        answer = self._velocity((1 - time) * noise + time * clean, time, self._condition(prepared))
        return ((answer - (clean - noise)) ** 2).mean(-1)

    @property
    def draws(self) -> int:
        """How many rows of noise :meth:`propose` takes for as many samples as the configuration says."""
        return self.config.samples + self._refined

    @property
    def _refined(self) -> int:
        return _ROUNDS * REFINED * _WAYS if self.judge is not None else 0

    @torch.no_grad()
    def propose(self, prepared: Batch, noise: Tensor, tried: Tensor | None = None) -> Tensor:
        """noise (B, K, 15) -> goals (B, K, 15), the best first: likely to lift, and not alone among the samples (a
        judge errs most where it saw least). With a judge the last rows of noise are for refining the best samples
        (cross-entropy method). ``tried`` (B, T, 15): goals that failed, whose neighbours come last."""
        count, anchor = noise.shape[1] - self._refined, prepared["anchor"][:, None]
        samples = self.sample(prepared, noise[:, :count])
        goals, worth = samples, self._worth(prepared, samples, samples, tried)
        for more in noise[:, count:].unflatten(1, (-1, REFINED * _WAYS)).unbind(1) if self._refined else ():
            best = encode(_taken(goals, worth.topk(REFINED).indices), anchor).repeat_interleave(_WAYS, 1)
            refined = decode(best + more * more.new_tensor(_ELSEWHERE), anchor)
            goals = torch.cat([goals, refined], 1)
            worth = torch.cat([worth, self._worth(prepared, refined, samples, tried)], 1)
        return _taken(goals, worth.argsort(1, descending=True))

    def _worth(self, prepared: Batch, goals: Tensor, samples: Tensor, tried: Tensor | None) -> Tensor:
        """(B, K) of goals (B, K, 15)."""
        worth = alike(goals, samples).mean(-1)
        if self.judge is not None:
            worth = worth**_COMPANY * self.judge(prepared, goals).sigmoid()
        if tried is not None and tried.shape[1]:
            worth = worth * (1 - alike(goals, tried)).prod(-1)
        return worth

    @torch.no_grad()
    def sample(self, prepared: Batch, noise: Tensor) -> Tensor:
        """noise (B, K, 15) -> goals (B, K, 15)."""
        condition = self._condition(prepared)[:, None].expand(-1, noise.shape[1], -1)
        x = noise
        for step in range(self.config.steps):
            time = torch.full((*noise.shape[:2], 1), step / self.config.steps, device=x.device)
            x = x + self._velocity(x, time, condition) / self.config.steps
        return decode(x, prepared["anchor"][:, None])

    def _condition(self, prepared: Batch) -> Tensor:
        parts = [self.scene(prepared["scene"]), self.points(prepared["scene.points"])]
        if self.around is not None:
            parts.append(self.around(prepared["scene.around"]))
        return self.condition(torch.cat(parts, -1))

    def _velocity(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        return self.velocity(torch.cat([x, time, condition], -1))


def _taken(goals: Tensor, order: Tensor) -> Tensor:
    """(B, K, 15), (B, L) -> (B, L, 15)."""
    return goals[torch.arange(len(goals), device=goals.device)[:, None], order]


def encode(goal: Tensor, anchor: Tensor) -> Tensor:
    """(..., 15), anchor (..., 3) m -> (..., 15) numbers of about deviation 1."""
    position = (goal[..., :3] - anchor) / _UNIT_M
    return torch.cat([position, _SIX * goal[..., 3:9], 4 * goal[..., 9:] - 3], -1)


def decode(encoded: Tensor, anchor: Tensor) -> Tensor:
    """The inverse of :func:`encode` with a proper rotation and openings in 0..1."""
    rotation = six_to_rotation(encoded[..., 3:9] / _SIX)
    six = torch.cat([rotation[..., 0], rotation[..., 1]], -1)
    return torch.cat([encoded[..., :3] * _UNIT_M + anchor, six, ((encoded[..., 9:] + 3) / 4).clamp(0, 1)], -1)


def alike(a: Tensor, b: Tensor) -> Tensor:
    """(B, K, 15), (B, L, 15) -> (B, K, L), 1 for the same palm pose, 0 for another."""
    off = (torch.cdist(a[..., :3], b[..., :3]) / _ALIKE_M) ** 2
    # Columns of two rotations by a small angle apart differ by about that angle.
    turn = (torch.cdist(a[..., 3:9], b[..., 3:9]) / _ALIKE_RAD) ** 2
    return torch.exp(-(off + turn) / 2)
