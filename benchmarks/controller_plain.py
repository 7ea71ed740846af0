"""The DexGraspVLA controller computed the way its published code computes it: the peer of ``controller_speed.py``.

Written from the description of the architecture; it shares the very parameters of one of our controllers, so that
outputs, losses and gradients can be compared. What is plain about it: every diffusion step projects all 2740
conditioning tokens, the time token among them, to keys and values in every block; the mask transformer attends over
all patches; both frozen DINOv2 run in every prediction and every training step. Attention is PyTorch's fused one, as
in the published code.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from dexloop.train.controller.objective import squared_cosine
from torch import Tensor, nn
from torch.nn import functional as F

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FREQUENCIES = 256
Batch = dict[str, Tensor]


class PlainNorm(nn.Module):
    """``centred``: x / sqrt(var(x)), the variance unbiased and about the mean (timm 1.0.12's RmsNorm); ``rms``: true
    root mean square."""

    def __init__(self, dim: int, kind: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        power = x.var(-1, keepdim=True) if self.kind == "centred" else x.square().mean(-1, keepdim=True)
        return x * torch.rsqrt(power + 1e-6) * self.weight


def heads_first(x: Tensor, heads: int) -> Tensor:
    """(B, N, W) -> (B, heads, N, W / heads)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class PlainAttention(nn.Module):
    """Self-attention over (B, T, W)."""

    def __init__(self, width: int, heads: int, norm: str, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.q_norm, self.k_norm = PlainNorm(width // heads, norm), PlainNorm(width // heads, norm)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (heads_first(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        p = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v, dropout_p=p)
        return F.dropout(self.proj(out.transpose(1, 2).flatten(2)), p)


class PlainCrossAttention(nn.Module):
    """From (B, T, W) to all conditioning tokens (B, C, W), projected anew in each call."""

    def __init__(self, width: int, heads: int, norm: str, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.q, self.kv, self.proj = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.q_norm, self.k_norm = PlainNorm(width // heads, norm), PlainNorm(width // heads, norm)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        q = heads_first(self.q(x), self.heads)
        k, v = (heads_first(part, self.heads) for part in self.kv(c).chunk(2, -1))
        p = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v, dropout_p=p)
        return F.dropout(self.proj(out.transpose(1, 2).flatten(2)), p)


class PlainBlock(nn.Module):
    """Self-attention, cross-attention, feed-forward of ratio 1; each before its norm and added."""

    def __init__(self, width: int, heads: int, norm: str, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (PlainNorm(width, norm) for _ in range(3))
        self.attn = PlainAttention(width, heads, norm, dropout)
        self.cross_attn = PlainCrossAttention(width, heads, norm, dropout)
        self.ffn = nn.ModuleDict({"fc1": nn.Linear(width, width), "fc2": nn.Linear(width, width)})

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        x = x + self.cross_attn(self.norm2(x), c)
        return x + self.ffn["fc2"](F.gelu(self.ffn["fc1"](self.norm3(x)), approximate="tanh"))


class PlainTransformer(nn.Module):
    """(noisy chunk, time, observation tokens) -> noise."""

    def __init__(self, config: Any, tokens: int, dim: int, observation_tokens: int, dropout: float) -> None:
        super().__init__()
        width = config.width
        self.pos_emb = nn.Parameter(torch.zeros(1, tokens, width))
        self.cond_pos_emb = nn.Parameter(torch.zeros(1, observation_tokens + 1, width))
        self.input_emb = nn.Linear(dim, width)
        self.time_emb = nn.ModuleDict(
            {"mlp": nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))}
        )
        self.blocks = nn.ModuleList(PlainBlock(width, config.heads, config.norm, dropout) for _ in range(config.layers))
        self.ln_f = PlainNorm(width, config.norm)
        self.head = nn.Linear(width, dim)

    def forward(self, x: Tensor, time: Tensor, tokens: Tensor) -> Tensor:
        half = FREQUENCIES // 2
        rates = torch.exp(-math.log(10000) * torch.arange(half, device=x.device) / half)
        angles = time[:, None].float() * rates
        embedded = self.time_emb["mlp"](torch.cat([angles.cos(), angles.sin()], -1).to(tokens.dtype))
        c = torch.cat([tokens, embedded[:, None]], 1) + self.cond_pos_emb
        h = self.input_emb(x) + self.pos_emb
        for block in self.blocks:
            h = block(h, c)
        return self.head(self.ln_f(h))


class PlainController(nn.Module):
    """The whole published controller over the parameters of ``controller``, one of ours with the paper encoder."""

    def __init__(self, controller: Any) -> None:
        super().__init__()
        config = controller.config
        ours, network = controller.encoder, config.network
        head_dim = config.encoder.head_dim
        layer = nn.TransformerEncoderLayer(
            head_dim, config.encoder.mask_heads, 4 * head_dim, 0.0, nn.GELU(), batch_first=True, norm_first=True
        )
        embed = nn.Conv2d(1, head_dim, config.encoder.patch, config.encoder.patch)
        self.mask_process_net = nn.ModuleDict(
            {
                # Places 1 and 2 of the published list only reshape.
                "patch_embed": nn.ModuleDict({"0": embed, "3": nn.LayerNorm(head_dim)}),
                "transformer": nn.TransformerEncoder(layer, config.encoder.mask_layers, enable_nested_tensor=False),
            }
        )
        self.head_net = fusion(ours.head_net)
        self.wrist_net = fusion(ours.wrist_net)
        self.state_net = fusion(ours.state_net)
        self.model = PlainTransformer(
            network, controller.basis.tokens, controller.basis.dim, ours.tokens, network.dropout
        )
        shared = {f"model.{name}": value for name, value in controller.model.state_dict(keep_vars=True).items()}
        shared |= {name: value for name, value in ours.state_dict(keep_vars=True).items() if name in self.state_dict()}
        self.load_state_dict(shared, assign=True)
        # In lists: no parts of this module.
        self._vits, self._space = [ours.frozen.dino_head, ours.frozen.dino_wrist], [controller.space]
        self._objective = config.objective

    def observe(self, batch: Batch) -> Tensor:
        """Raw batch (``head.rgb``, ``head.mask``, ``wrist.rgb`` of uint8 / bool, ``state``) -> (B, C, W) tokens."""
        mask = batch["head.mask"][:, None].to(self.model.pos_emb.dtype)
        patches = self.mask_process_net["patch_embed"]["3"](
            self.mask_process_net["patch_embed"]["0"](mask).flatten(2).transpose(1, 2)
        )
        mask_tokens = self.mask_process_net["transformer"](patches)
        head = self.head_net(torch.cat([self._frozen(self._vits[0], batch["head.rgb"]), mask_tokens], -1))
        wrist = self.wrist_net(self._frozen(self._vits[1], batch["wrist.rgb"]))
        return torch.cat([head, wrist, self.state_net(batch["state"])[:, None]], 1)

    @torch.no_grad()
    def sample(self, tokens: Tensor, noise: Tensor, steps: int) -> Tensor:
        """(B, C, W), (B, T, 13) -> normalised chunk; DDIM, each step through the whole network."""
        whole = self._objective.train_steps
        alphas = squared_cosine(whole).to(noise)
        times = [step * (whole // steps) for step in reversed(range(steps))]  # "leading"
        x = noise
        for time, following in zip(times, [*times[1:], -1], strict=True):
            now = alphas[time]
            then = alphas[following] if following >= 0 else torch.ones_like(now)
            eps = self.model(x, torch.full((len(x),), time, device=x.device), tokens)
            clean = ((x - (1 - now).sqrt() * eps) / now.sqrt()).clamp(-1, 1)
            x = then.sqrt() * clean + (1 - then).sqrt() * eps
        return x

    @torch.no_grad()
    def predict(self, batch: Batch, noise: Tensor, steps: int) -> Tensor:
        """(B, T, 13) commands."""
        chunk = self.sample(self.observe(batch), noise, steps)
        return self._space[0].decode(chunk, {"state": batch["state"]})

    def loss(self, batch: Batch, noise: Tensor, uniform: Tensor) -> Tensor:
        """Mean squared error of the noise over every step of the chunk, as published (padding is learnt too)."""
        with torch.no_grad():
            clean = self._space[0].encode(batch["action"], {"state": batch["state"]})
            time = (uniform * self._objective.train_steps).long()
            alpha = squared_cosine(self._objective.train_steps).to(clean)[time][:, None, None]
            noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        return F.mse_loss(self.model(noisy, time, self.observe(batch)), noise)

    def _frozen(self, dino: Any, rgb: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 -> (B, patches, C) of the last layer after the final norm, without gradients."""
        with torch.no_grad():
            picture = rgb.permute(0, 3, 1, 2).to(self.model.pos_emb.dtype) / 255
            mean, std = (picture.new_tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
            return dino.forward_features((picture - mean) / std)[:, 1:]


def fusion(like: nn.Sequential) -> nn.Sequential:
    """Linear, LayerNorm, GELU, Dropout, Linear, LayerNorm of the widths of ``like``."""
    first, last = like[0], like[4]
    return nn.Sequential(
        nn.Linear(first.in_features, first.out_features),
        nn.LayerNorm(first.out_features),
        nn.GELU(),
        nn.Dropout(0.1),
        nn.Linear(last.in_features, last.out_features),
        nn.LayerNorm(last.out_features),
    )
