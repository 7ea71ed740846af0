"""The mask's transformer (DexGraspVLA, 2502.20900): 14 x 14 patches of the target's mask -> one token each.

It has no positional embedding, so patches that look alike stay alike through all layers: nearly all patches of a mask
are empty or full, and those two classes are computed once each, weighted in the attention by how many they stand for
(+ log count). The result is the same, without approximation, at a few percent of the work.

Shapes: B batch, P patches, U distinct patches, C width. Parameter names are the published checkpoint's.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Swap(nn.Module):
    """(B, C, P) -> (B, P, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.unflatten(-1, (3, self._heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        out = F.scaled_dot_product_attention(q, k, v, bias)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class _Layer(nn.Module):
    """``nn.TransformerEncoderLayer`` (pre-norm, exact GELU), which does not take a bias for each key."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attn = _Attention(width, heads)
        self.linear1 = nn.Linear(width, 4 * width)
        self.linear2 = nn.Linear(4 * width, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        x = x + self.self_attn(self.norm1(x), bias)
        return x + self.linear2(F.gelu(self.linear1(self.norm2(x))))


class _Layers(nn.Module):
    def __init__(self, layers: int, width: int, heads: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(layers))

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            x = layer(x, bias)
        return x


class MaskTransformer(nn.Module):
    """(B, 1, side, side) float mask, 0 or 1 -> (B, P, width) tokens, row by row.

    ``unique=False`` computes every patch, as the published code does: for comparison.
    """

    def __init__(self, width: int, layers: int = 4, heads: int = 8, patch: int = 14, unique: bool = True) -> None:
        super().__init__()
        self.unique = unique
        self._patch = patch
        self.patch_embed: Any = nn.Sequential(
            nn.Conv2d(1, width, patch, patch), nn.Flatten(2), _Swap(), nn.LayerNorm(width)
        )
        self.transformer = _Layers(layers, width, heads)

    def forward(self, mask: Tensor) -> Tensor:
        if not self.unique:
            return self.transformer(self.patch_embed(mask))
        patches = F.unfold(mask, self._patch, stride=self._patch).transpose(1, 2)  # (B, P, patch * patch)
        distinct, counts, which = distinct_patches(patches)
        convolution, norm = self.patch_embed[0], self.patch_embed[3]
        x = norm(F.linear(distinct, convolution.weight.flatten(1), convolution.bias))
        x = self.transformer(x, counts.log().to(x.dtype)[:, None, None])
        return x.gather(1, which[..., None].expand(-1, -1, x.shape[-1]))


def distinct_patches(patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, P, n) -> distinct (B, U, n), counts (B, U) float32, which (B, P): ``distinct[which]`` is ``patches``.

    The empty patch stands first and the full one second, also where a mask has none of them (count 0); every other
    patch stands for itself. U is that of the mask with the longest border.
    """
    empty = (patches == 0).all(-1)
    full = (patches == 1).all(-1)
    border = ~(empty | full)
    which = torch.where(border, border.cumsum(1) + 1, full.long())
    size = int(border.sum(1).max()) + 2
    distinct = patches.new_zeros(len(patches), size, patches.shape[-1])
    distinct.scatter_(1, which[..., None].expand_as(patches), patches)
    distinct[:, 1] = 1
    counts = torch.zeros(len(patches), size, device=patches.device)
    return distinct, counts.scatter_add_(1, which, torch.ones_like(which, dtype=counts.dtype)), which
