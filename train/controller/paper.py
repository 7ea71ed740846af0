"""DexGraspVLA's observation encoder (2502.20900): what two frozen DINOv2 see, the target's mask, the state.

Tokens in order: head view (colour and mask fused), wrist view, state. Parameter names are those of the published
checkpoint's ``obs_encoder``. Its pictures are BGR and swapped inside the encoder, ours are RGB: the same numbers.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ..views import View
from .actions import COMMAND_DIM, Normalizer
from .config import PaperEncoderConfig
from .corruption import corrupt_edges, corrupt_tracking
from .dino import VIEWS, FrozenVits, normal_picture
from .draws import Draws
from .mask_vit import MaskTransformer
from .parts import Batch


class PaperEncoder(nn.Module):
    """See :class:`.parts.Encoder`. A batch may hold ``head.features`` and ``wrist.features`` (B, patches, channels)
    in place of the pictures that they were computed from.

    The frozen ViTs are no part of the module's parameters, so that a checkpoint holds what was learnt, not 1.6 GB that
    are the same in each: they are loaded when a picture first asks for them (:mod:`.dino` says from where).
    """

    def __init__(self, config: PaperEncoderConfig, width: int, state_dim: int = COMMAND_DIM) -> None:
        super().__init__()
        self.config = config
        self.tokens = 2 * config.patches + 1
        self.mask_process_net = MaskTransformer(config.head_dim, config.mask_layers, config.mask_heads, config.patch)
        self.head_net: Any = _fusion(2 * config.head_dim, width, width, config.dropout)
        self.wrist_net = _fusion(config.wrist_dim, width, width, config.dropout)
        self.state_net = _fusion(state_dim, config.state_hidden, width, config.dropout)
        self.state_normalizer = Normalizer(state_dim, "limits")
        self._frozen: list[FrozenVits] = []  # in a list: not a part of this module

    @property
    def views(self) -> tuple[View, ...]:
        side = self.config.side
        return (View("head", "head", side, side, mask=True), View("wrist", "wrist", side, side))

    @property
    def reference_views(self) -> tuple[View, ...]:
        return ()

    @property
    def groups(self) -> dict[str, slice]:
        patches = self.config.patches
        return {
            "head": slice(0, patches),
            "wrist": slice(patches, 2 * patches),
            "state": slice(2 * patches, 2 * patches + 1),
        }

    @property
    def frozen(self) -> FrozenVits:
        """The frozen ViTs, on this module's device and in its precision; loaded now if they were not. Raises BadInput
        where their weights are missing."""
        if not self._frozen:
            self._frozen.append(FrozenVits.load(self.config))
        vits, like = self._frozen[0], self.head_net[0].weight
        here = vits.dino_head.cls_token
        if here.device != like.device or here.dtype != like.dtype:
            vits.to(device=like.device, dtype=like.dtype)
        return vits

    def use_frozen(self, vits: FrozenVits) -> None:
        """Take these ViTs instead of loading them."""
        self._frozen[:] = [vits]

    def halve(self) -> None:
        """Compute in bfloat16 from now on, with frozen ViTs of its own: copies of this encoder share theirs."""
        vits = self.frozen
        own = FrozenVits(self.config, copy.deepcopy(vits.dino_head), copy.deepcopy(vits.dino_wrist))
        self.to(torch.bfloat16)
        self.state_normalizer.float()  # joint angles of 3 rad would be off by half a degree
        self.use_frozen(own.to(torch.bfloat16))

    def fit(self, states: Tensor) -> None:
        """Learn the normaliser from (N, 13) states of the training episodes."""
        self.state_normalizer.fit(states)

    def prepare(self, batch: Batch, draws: Draws | None) -> Batch:
        out = {"state": batch["state"]}
        for view in VIEWS:
            if f"{view}.features" in batch:
                out[f"{view}.features"] = batch[f"{view}.features"]
            else:
                out[f"{view}.picture"] = normal_picture(batch[f"{view}.rgb"], self.config.jitter, draws)
        mask = batch["head.mask"]
        if draws is not None:
            mask = corrupt_tracking(mask, batch.get("lagged.head.mask"), self.config.noise, draws)
            mask = corrupt_edges(mask, self.config.noise, draws)
        out["head.mask"] = mask[:, None]
        return out

    def forward(self, prepared: Batch) -> Tensor:
        dtype = self.head_net[0].weight.dtype
        mask = self.mask_process_net(prepared["head.mask"].to(dtype))
        state = prepared["state"]
        if self.config.normalize_state:
            state = self.state_normalizer.normalize(state)
        head = self.head_net(torch.cat([self._features("head", prepared).to(dtype), mask], -1))
        wrist = self.wrist_net(self._features("wrist", prepared).to(dtype))
        return torch.cat([head, wrist, self.state_net(state.to(dtype))[:, None]], 1)

    def _features(self, view: str, prepared: Batch) -> Tensor:
        known = prepared.get(f"{view}.features")
        return self.frozen.look(view, prepared[f"{view}.picture"]) if known is None else known


def _fusion(inputs: int, hidden: int, width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.LayerNorm(hidden),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, width),
        nn.LayerNorm(width),
    )
