"""The action transformer: RDT's block (2410.07864), as DexGraspVLA uses it (2502.20900, appendix).

Action tokens attend to each other and to the observation; the diffusion time is one more observation token, the last.
Parameter names and shapes are the published checkpoint's, so that its weights load as they are.

What does not depend on the noisy chunk is computed once: :meth:`ActionTransformer.observe` makes every block's keys of
the observation, :meth:`ActionTransformer.at_times` its values too, and both of all time tokens of a sampling. Learning
looks once only: there each head averages the observation's tokens first and projects the few averages to values, which
is the same and cheaper while there are fewer queries than channels (heads x T < W).

Shapes: B batch, T action tokens, D numbers in one, C observation tokens, W width, H heads, d = W / H, S steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...hardware.errors import BadInput
from .config import NetworkConfig

FREQUENCIES = 256
"""Length of the sinusoidal embedding of the time, as published."""

KeysValues = tuple[Tensor, Tensor]  # (B, H, C, d) each


@dataclass(frozen=True)
class Observed:
    """The observation's tokens and, for each block, their normalised keys."""

    tokens: Tensor  # (B, C, W), positions added
    keys: tuple[Tensor, ...]  # (B, H, C, d)
    present: Tensor | None  # (B, C) bool: tokens that may be looked at; None = all


class RmsNorm(nn.Module):
    """x / rms(x) * weight, over the last axis. ``centred``: x / std(x) * weight with the unbiased, mean-centred
    deviation (x itself is not centred): timm 1.0.12's class of this name, which the published weights grew up with."""

    def __init__(self, width: int, centred: bool, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self._centred = centred
        self._eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if not self._centred:
            return F.rms_norm(x, self.weight.shape, self.weight, self._eps)
        wide = x.float()  # a variance in bf16 is off by a percent
        # The same as var(), which takes six times as long on a CPU.
        variance = (wide - wide.mean(-1, keepdim=True)).square().sum(-1, keepdim=True) / (x.shape[-1] - 1)
        return (wide * torch.rsqrt(variance + self._eps)).to(x.dtype) * self.weight


class SelfAttention(nn.Module):
    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self._heads = config.heads
        self._dropout = config.dropout
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.q_norm = _head_norm(config)
        self.k_norm = _head_norm(config)
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self._heads, -1)).unbind(2)  # (B, T, H, d)
        q, k, v = (t.transpose(1, 2) for t in (self.q_norm(q), self.k_norm(k), v))
        dropout = self._dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        return F.dropout(self.proj(out.transpose(1, 2).flatten(2)), self._dropout, self.training)


class CrossAttention(nn.Module):
    """Attention to an observation whose keys, and for sampling its values, were made before."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self._heads = config.heads
        self._dropout = config.dropout
        self.q = nn.Linear(config.width, config.width)
        self.kv = KeyValueLinear(config.width)
        self.q_norm = _head_norm(config)
        self.k_norm = _head_norm(config)
        self.proj = nn.Linear(config.width, config.width)

    def keys(self, tokens: Tensor) -> Tensor:
        """(B, C, W), positions added -> normalised keys (B, H, C, d)."""
        return self.k_norm(self.kv.keys(tokens).unflatten(-1, (self._heads, -1))).transpose(1, 2)

    def values(self, tokens: Tensor) -> Tensor:
        """(B, C, W), positions added -> values (B, H, C, d)."""
        return self.kv.values(tokens).unflatten(-1, (self._heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, T, W), keys and values (B, H, C, d), mask (B, 1, 1, C) bool -> (B, T, W)."""
        dropout = self._dropout if self.training else 0.0
        return self._out(F.scaled_dot_product_attention(self._queries(x), keys, values, mask, dropout))

    def learn(
        self, x: Tensor, keys: Tensor, tokens: Tensor, mask: Tensor | None, attention: list[Tensor] | None
    ) -> Tensor:
        """The same from keys and the tokens (B, C, W) themselves: sum_c a_c (V t_c + b) = V (sum_c a_c t_c) + b sum_c
        a_c, where the weights a need not add up to 1 after dropout. ``attention`` receives a (B, H, T, C) float32."""
        q = self._queries(x)
        scores = q @ keys.mT / math.sqrt(q.shape[-1])
        weights = (scores if mask is None else scores.masked_fill(~mask, float("-inf"))).softmax(-1)
        if attention is not None:
            attention.append(weights.detach().float())
        weights = F.dropout(weights, self._dropout, self.training)
        average = (weights.flatten(1, 2) @ tokens).unflatten(1, weights.shape[1:3])  # (B, H, T, W)
        matrix, bias = (part.unflatten(0, (self._heads, -1)) for part in self.kv.of_values())  # (H, d, W), (H, d)
        # Heads outermost: a matrix that is broadcast over the batch would be copied for each row of it.
        values = (average.transpose(0, 1).flatten(1, 2) @ matrix.mT).unflatten(1, (len(x), -1)).transpose(0, 1)
        return self._out(values + weights.sum(-1, keepdim=True) * bias[:, None])

    def _queries(self, x: Tensor) -> Tensor:
        return self.q_norm(self.q(x).unflatten(-1, (self._heads, -1))).transpose(1, 2)

    def _out(self, values: Tensor) -> Tensor:
        return F.dropout(self.proj(values.transpose(1, 2).flatten(2)), self._dropout, self.training)


class KeyValueLinear(nn.Linear):
    """The projections to keys and to values in one weight, keys first, as published. In bfloat16 it multiplies so and
    answers in the precision that it was asked in."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 2 * width)

    def keys(self, x: Tensor) -> Tensor:
        return self._project(x, 0)

    def values(self, x: Tensor) -> Tensor:
        return self._project(x, 1)

    def of_values(self) -> tuple[Tensor, Tensor]:
        """Weight (W, W) and bias (W,)."""
        return self.weight.chunk(2)[1], self.bias.chunk(2)[1]

    def _project(self, x: Tensor, part: int) -> Tensor:
        out = F.linear(x.to(self.weight.dtype), self.weight.chunk(2)[part], self.bias.chunk(2)[part])
        return out.to(x.dtype) if self.weight.dtype == torch.bfloat16 else out


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.norm1 = _norm(config)
        self.attn = SelfAttention(config)
        self.norm2 = _norm(config)
        self.cross_attn = CrossAttention(config)
        self.norm3 = _norm(config)
        self.ffn = FeedForward(config.width)

    def forward(self, x: Tensor, look: Callable[[Tensor], Tensor]) -> Tensor:
        """``look``: what cross-attention answers to x (B, T, W)."""
        x = x + self.attn(self.norm1(x))
        x = x + look(self.norm2(x))
        return x + self.ffn(self.norm3(x))


class TimeEmbedding(nn.Module):
    """Sinusoids of the time, then two linear layers. (S,) -> (S, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, time: Tensor) -> Tensor:
        half = FREQUENCIES // 2
        # In float32 whatever the weights are: bf16 cannot tell step 45 from 45.1.
        steps = torch.arange(half, dtype=torch.float32, device=time.device)
        angles = time.float()[:, None] * torch.exp(-math.log(10000) * steps / half)
        waves = torch.cat([angles.cos(), angles.sin()], -1)
        return self.mlp(waves.to(next(self.mlp.parameters()).dtype))


class ActionTransformer(nn.Module):
    """Noisy action tokens, time and observation -> noise or velocity. ``tokens`` action tokens of ``dim`` numbers."""

    def __init__(self, config: NetworkConfig, tokens: int, dim: int, observation_tokens: int) -> None:
        super().__init__()
        self.config = config
        self.pos_emb = nn.Parameter(torch.empty(1, tokens, config.width))
        self.cond_pos_emb = nn.Parameter(torch.empty(1, observation_tokens + 1, config.width))
        self.input_emb = nn.Linear(dim, config.width)
        self.time_emb = TimeEmbedding(config.width)
        self.blocks: Any = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.ln_f = _norm(config)
        self.head = nn.Linear(config.width, dim)
        self._compiled: Any = None  # what compile_steps made of _through
        self._initialise()

    def _initialise(self) -> None:
        """As published (normal, 0.02), but the head starts at zero (DiT, 2212.09748): the first answers are zero, the
        mean of what is asked for, instead of noise."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.pos_emb, std=0.02)
        nn.init.normal_(self.cond_pos_emb, std=0.02)
        nn.init.zeros_(self.head.weight)

    def observe(self, tokens: Tensor, present: Tensor | None = None) -> Observed:
        """Keys and values of ``tokens`` (B, C, W) in every block. ``present`` (B, C) bool hides the others."""
        if tokens.shape[1] != self.cond_pos_emb.shape[1] - 1:
            raise BadInput(
                f"the encoder gave {tokens.shape[1]} observation tokens, the transformer was made for "
                f"{self.cond_pos_emb.shape[1] - 1}: build both from one configuration."
            )
        placed = tokens + self.cond_pos_emb[:, :-1]
        return Observed(placed, tuple(block.cross_attn.keys(placed) for block in self.blocks), present)

    def forward(self, x: Tensor, time: Tensor, observed: Observed, attention: list[Tensor] | None = None) -> Tensor:
        """x (B, T, D), time (B,) in steps of training -> (B, T, D). ``attention``: a list that receives, for each
        block, the cross-attention (B, H, T, C + 1) of every action token, the time last."""
        time_token = self._time_tokens(time)[:, None]  # (B, 1, W)
        tokens = torch.cat([observed.tokens, time_token], 1)
        mask = _mask(observed.present)
        wide, x = x.dtype, self._begin(x)
        for block, keys in zip(self.blocks, observed.keys, strict=True):
            cross = block.cross_attn
            known = torch.cat([keys, cross.keys(time_token)], 2)
            x = block(x, lambda x, cross=cross, known=known: cross.learn(x, known, tokens, mask, attention))
        return self._end(x).to(wide)

    def at_times(self, times: Tensor, observed: Observed) -> Callable[[Tensor, Tensor], Tensor]:
        """The network for a sampling that evaluates it at ``times`` (S,) only: (x, time) -> as :meth:`forward`, one
        time for the whole batch. For inference: nothing can be learnt through it. Calls share buffers, so they must
        not overlap. The returned function raises BadInput at a time that is not among ``times``."""
        device = self.pos_emb.device
        time_tokens = self._time_tokens(times.to(device))[None]  # (1, S, W)
        crosses = [block.cross_attn for block in self.blocks]
        of_times = [(cross.keys(time_tokens), cross.values(time_tokens)) for cross in crosses]  # (1, H, S, d)
        # One slot more than the observation has: each step writes its time there, and nothing is copied.
        buffers = [
            (F.pad(keys, (0, 0, 0, 1)), F.pad(cross.values(observed.tokens), (0, 0, 0, 1)))
            for cross, keys in zip(crosses, observed.keys, strict=True)
        ]
        mask = _mask(observed.present)
        slots = {float(time): step for step, time in enumerate(times.tolist())}

        def network(x: Tensor, time: Tensor) -> Tensor:
            step = slots.get(float(time[0]))
            if step is None:
                raise BadInput(f"sampling asked for time {float(time[0])}, prepared were {sorted(slots)}.")
            for (keys, values), (time_keys, time_values) in zip(buffers, of_times, strict=True):
                keys[:, :, -1] = time_keys[:, :, step]
                values[:, :, -1] = time_values[:, :, step]
            return (self._compiled or self._through)(x, buffers, mask)

        return network

    def compile_steps(self) -> None:
        """Compile what a sampling repeats, with CUDA graphs on a GPU: the first sampling takes half a minute or more
        for it, and again for each new size of a batch. For inference."""
        on_gpu = self.pos_emb.is_cuda
        compiled = torch.compile(self._through, dynamic=False, mode="reduce-overhead" if on_gpu else "default")

        def step(x: Tensor, known: list[KeysValues], mask: Tensor | None) -> Tensor:
            if on_gpu:  # a graph writes its answer where the one before stood
                torch.compiler.cudagraph_mark_step_begin()
            return compiled(x, known, mask).clone()

        self._compiled = step

    def _time_tokens(self, time: Tensor) -> Tensor:
        return self.time_emb(time) + self.cond_pos_emb[0, -1]

    def _through(self, x: Tensor, known: list[KeysValues], mask: Tensor | None) -> Tensor:
        wide, x = x.dtype, self._begin(x)
        for block, (keys, values) in zip(self.blocks, known, strict=True):
            x = block(x, lambda x, cross=block.cross_attn, k=keys, v=values: cross(x, k, v, mask))
        return self._end(x).to(wide)

    def _begin(self, x: Tensor) -> Tensor:
        return self.input_emb(x.to(self.pos_emb.dtype)) + self.pos_emb

    def _end(self, x: Tensor) -> Tensor:
        return self.head(self.ln_f(x))


def _mask(present: Tensor | None) -> Tensor | None:
    """(B, C) -> (B, 1, 1, C + 1): the time is always seen."""
    return None if present is None else F.pad(present, (0, 1), value=True)[:, None, None]


def _norm(config: NetworkConfig) -> RmsNorm:
    return RmsNorm(config.width, config.norm == "centred")


def _head_norm(config: NetworkConfig) -> RmsNorm:
    return RmsNorm(config.width // config.heads, config.norm == "centred")
