"""One feature vector of a set of points, whatever their order (PointNet, 1612.00593)."""

from __future__ import annotations

from torch import Tensor, nn


class PointSet(nn.Module):
    """(..., N, features) -> (..., width). ``normed``: with one more layer, and normalised, as a token is."""

    def __init__(self, features: int, width: int, normed: bool = True) -> None:
        super().__init__()
        self.each = nn.Sequential(nn.Linear(features, 64), nn.GELU(), nn.Linear(64, 128))
        token = (nn.Linear(width, width), nn.LayerNorm(width)) if normed else ()
        self.all = nn.Sequential(nn.Linear(128, width), nn.GELU(), *token)

    def forward(self, points: Tensor) -> Tensor:
        return self.all(self.each(points).amax(-2))
