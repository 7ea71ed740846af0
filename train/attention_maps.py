"""Where a controller looks: its cross-attention, averaged over all action tokens, heads, blocks and sampling steps.

DexGraspVLA (2502.20900, fig. 4) shows such maps over the head view; its released code keeps the first action token
alone and cannot make them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..hardware.errors import BadInput
from .controller.parts import Batch, Encoder
from .controller.policy import Controller
from .views import View


@dataclass(frozen=True)
class Grid:
    """Tokens that lie over a view's picture, row by row."""

    view: View
    rows: int
    columns: int


@dataclass(frozen=True)
class Attended:
    """Attention to each observation token. Shapes: B batch, C tokens of the encoder."""

    weights: Tensor  # (B, C + 1 or 2), adds to 1: the encoder's tokens, those of committed commands, the time
    groups: dict[str, slice]
    grids: dict[str, Grid]  # groups that are pictures

    def shares(self) -> dict[str, Tensor]:
        """(B,) of each group; they add to 1."""
        return {name: self.weights[:, place].sum(1) for name, place in self.groups.items()}

    def maps(self) -> dict[str, Tensor]:
        """(B, rows, columns) of each picture: the attention to each of its places."""
        return {
            name: self.weights[:, self.groups[name]].unflatten(1, (grid.rows, grid.columns))
            for name, grid in self.grids.items()
        }

    def on_target(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """For each picture with a mask: the target's share (B,) of the attention to that picture, and of its area.
        Both at the resolution of the tokens: a place that the target half covers counts half."""
        out = {}
        for name, attention in self.maps().items():
            mask = batch.get(f"{self.grids[name].view.name}.mask")
            if mask is None:
                continue
            covered = F.adaptive_avg_pool2d(mask[:, None].float(), (self.grids[name].rows, self.grids[name].columns))[
                :, 0
            ].to(attention)
            whole = attention.sum((1, 2)).clamp_min(1e-12)
            out[name] = ((attention * covered).sum((1, 2)) / whole, covered.mean((1, 2)))
        return out


@torch.no_grad()
def attend(
    controller: Controller, batch: Batch, noise: Tensor, steps: int | None = None, block: int | None = None
) -> Attended:
    """Sample a chunk for ``batch`` from ``noise`` (B, T, E), as :meth:`.Controller.sample` does without committed
    commands, and average the attention on the way. ``block``: of that block alone. Raises BadInput where there is no
    such block."""
    layers = len(controller.model.blocks)
    if block is not None and not 0 <= block < layers:
        raise BadInput(f"the controller has no block {block}: expected 0 to {layers - 1}.")
    prepared = controller.encoder.prepare(batch, None)
    observed = controller.observe(prepared, None, torch.zeros(len(noise), device=noise.device))
    seen: list[Tensor] = []

    def network(x: Tensor, time: Tensor) -> Tensor:
        collected: list[Tensor] = []
        answer = controller.model(x, time, observed, collected)
        chosen = collected if block is None else [collected[block]]
        seen.append(torch.stack([weights.mean((1, 2)) for weights in chosen]).mean(0))  # (B, C + 1)
        return answer

    controller.draw(network, noise, steps or controller.config.objective.sample_steps)
    groups = dict(controller.encoder.groups)
    used, end = controller.encoder.tokens, seen[0].shape[1] - 1
    if end > used:
        groups["committed"] = slice(used, end)
    groups["time"] = slice(end, end + 1)
    return Attended(torch.stack(seen).mean(0), groups, grids(controller.encoder))


def attention_maps(controller: Controller, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
    """``head`` and ``wrist`` (B, rows, columns): see :func:`attend`, which tells more."""
    return attend(controller, batch, noise).maps()


def grids(encoder: Encoder) -> dict[str, Grid]:
    """The token groups that are pictures: named as the camera of a view with colours, and as many tokens as fit over
    it in squares."""
    out = {}
    for name, place in encoder.groups.items():
        count = place.stop - place.start
        for view in encoder.views:
            width, height = (view.window, view.window) if view.window else (view.width, view.height)
            rows = max(round(math.sqrt(count * height / width)), 1)
            if view.camera == name and view.rgb and count % rows == 0:
                out[name] = Grid(view, rows, count // rows)
                break
    return out
