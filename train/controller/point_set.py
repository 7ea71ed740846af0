"""One token of a set of points, whatever their order (PointNet, 1612.00593)."""

from __future__ import annotations

from torch import Tensor, nn


class PointSet(nn.Module):
    """(B, N, features) -> (B, 1, width)."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.each = nn.Sequential(nn.Linear(features, 64), nn.GELU(), nn.Linear(64, 128))
        self.all = nn.Sequential(nn.Linear(128, width), nn.GELU(), nn.Linear(width, width), nn.LayerNorm(width))

    def forward(self, points: Tensor) -> Tensor:
        return self.all(self.each(points).amax(1))[:, None]
