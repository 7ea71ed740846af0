"""What colour a thing is called and what kind of thing it is: a small network that looks at it.

It sees the thing cut out of the picture, its colours as under even light and its heights (:func:`patch`), and what was
measured of it (``features.py``): how big it is, and how much there is of each colour. ``recogniser.safetensors`` is
written by ``python benchmarks/fit_offline_planner.py``, from scenes of the twin's training split alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ...hardware.errors import BadInput
from .fitted import REMEDY
from .segments import Cluster

Floats = NDArray[np.float32]

PATH = Path(__file__).with_name("recogniser.safetensors")
FORMAT = "dexloop-recogniser-1"
SIDE = 44  # px of a patch
RIM = 0.06  # of the thing's longer side: free space around it in its patch
HIGHEST_M = 0.4  # points above that are none of it
CHANNELS = (24, 48, 96, 128)  # of its convolutions; each halves the picture
HIDDEN = 128
SEEN = 3.0  # deviations: farther out a feature says no more


def patch(cluster: Cluster, lab: Floats) -> Floats:
    """(6, SIDE, SIDE) the thing alone, as large as it fits: L*a*b*, height (m) above the table, its mask, where depth
    is known. ``lab`` (H, W, 3) of the picture that the cluster is of, as under even light."""
    x0, y0, x1, y1 = (int(v) for v in cluster.box)
    mask = cluster.mask[y0:y1, x0:x1].astype(np.float32)
    height, known = (np.zeros(cluster.mask.shape, np.float32) for _ in range(2))
    height.ravel()[cluster.pixels] = np.clip(cluster.height_m, 0.0, HIGHEST_M)
    known.ravel()[cluster.pixels] = 1.0
    side = max(mask.shape)
    side += 2 * max(1, round(RIM * side))
    top, left = (side - mask.shape[0]) // 2, (side - mask.shape[1]) // 2
    layers = np.zeros((6, side, side), np.float32)
    inside = layers[:, top : top + mask.shape[0], left : left + mask.shape[1]]
    inside[:3] = np.moveaxis(lab[y0:y1, x0:x1], -1, 0)
    inside[3:] = height[y0:y1, x0:x1], mask, known[y0:y1, x0:x1]
    inside *= mask
    how = cv2.INTER_AREA if side > SIDE else cv2.INTER_LINEAR
    return np.stack([cv2.resize(layer, (SIDE, SIDE), interpolation=how) for layer in layers])


class Recogniser(nn.Module):
    """Convolutions that see a patch, and two heads that see their answer beside the measures: one for kinds, one for
    colours."""

    heat: Tensor
    kind_mean: Tensor
    kind_scale: Tensor
    colour_mean: Tensor
    colour_scale: Tensor

    def __init__(self, kinds: Sequence[str], colours: Sequence[str], of_kind: int, of_colour: int) -> None:
        """``of_kind`` and ``of_colour``: how many measures there are for either."""
        super().__init__()
        self.kinds, self.colours = tuple(kinds), tuple(colours)
        sizes = zip((7, *CHANNELS), CHANNELS, strict=False)
        self.look = nn.Sequential(*(_halve(before, after) for before, after in sizes))
        self.forget = nn.Dropout(0.3)
        self.kind_head = _head(2 * CHANNELS[-1] + of_kind, len(self.kinds))
        self.colour_head = _head(2 * CHANNELS[-1] + of_colour, len(self.colours))
        self.register_buffer("heat", torch.ones(2))  # logits are divided by: how sure it may be, of kind and of colour
        for name, count in (("kind", of_kind), ("colour", of_colour)):
            self.register_buffer(f"{name}_mean", torch.zeros(count))
            self.register_buffer(f"{name}_scale", torch.ones(count))

    def standard(self, of_kind: Tensor, of_colour: Tensor) -> tuple[Tensor, Tensor]:
        """Measures of a deviation of about 1."""
        kind = (of_kind - self.kind_mean) / self.kind_scale
        colour = (of_colour - self.colour_mean) / self.colour_scale
        return kind.clamp(-SEEN, SEEN), colour.clamp(-SEEN, SEEN)

    def forward(self, patches: Tensor, of_kind: Tensor, of_colour: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (N, 6, SIDE, SIDE) and measures in :meth:`standard` -> logits (N, kinds), (N, colours)."""
        looked = self.look(_layers(patches))
        looked = self.forget(torch.cat([looked.mean((2, 3)), looked.amax((2, 3))], 1))
        return self.kind_head(torch.cat([looked, of_kind], 1)), self.colour_head(torch.cat([looked, of_colour], 1))

    @torch.no_grad()
    def logits(self, patches: Tensor, of_kind: Tensor, of_colour: Tensor) -> tuple[Tensor, Tensor]:
        """The same of measures as they are; the mean of what a thing and its mirror image look like."""
        measures = self.standard(of_kind, of_colour)
        seen, mirrored = self(patches, *measures), self(patches.flip(-1), *measures)
        return (seen[0] + mirrored[0]) / 2, (seen[1] + mirrored[1]) / 2

    def recognise(self, patches: Floats, of_kind: NDArray[Any], of_colour: NDArray[Any]) -> tuple[Floats, Floats]:
        """Patches (N, 6, SIDE, SIDE), measures (N, ...) -> probabilities (N, kinds), (N, colours). Raises BadInput for
        measures that it was not fitted to."""
        for name, got, mean in (("kind", of_kind, self.kind_mean), ("colour", of_colour, self.colour_mean)):
            if got.shape != (len(patches), len(mean)):
                expected = (len(patches), len(mean))
                raise BadInput(f"got measures for the {name} of shape {got.shape}, expected {expected}: {REMEDY}")
        given = (torch.as_tensor(np.asarray(array, np.float32)) for array in (patches, of_kind, of_colour))
        kinds, colours = self.logits(*given)
        return (kinds / self.heat[0]).softmax(1).numpy(), (colours / self.heat[1]).softmax(1).numpy()


def _layers(patches: Tensor) -> Tensor:
    """Numbers of about 1: colours, height as a share of the thing's own and in dm, mask, where depth is known."""
    lab, height, rest = patches[:, :3], patches[:, 3:4], patches[:, 4:]
    top = height.flatten(1).amax(1).clamp_min(0.01)[:, None, None, None]
    return torch.cat([lab / 50, height / top, height / 0.1, rest], 1)


def _halve(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2))


def _head(inputs: int, classes: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, HIDDEN), nn.Tanh(), nn.Dropout(0.3), nn.Linear(HIDDEN, classes))


def save(recogniser: Recogniser, path: Path, about: dict[str, Any]) -> None:
    """``about``: what it was fitted to. The same network gives the same bytes."""
    sizes = {"of_kind": len(recogniser.kind_mean), "of_colour": len(recogniser.colour_mean)}
    made = {"kinds": recogniser.kinds, "colours": recogniser.colours, **sizes}
    weights = {name: value.contiguous() for name, value in recogniser.state_dict().items()}
    save_file(weights, path, {FORMAT: json.dumps({"made": made, "from": about})})  # several entries come in any order


def load(path: Path = PATH) -> Recogniser:
    """The network in ``path``. Raises BadInput where the file is missing or damaged."""
    try:
        with safe_open(path, "pt") as file:
            found = file.metadata() or {}
            if FORMAT not in found:
                raise ValueError(f"its format is {', '.join(found) or 'not said'}, expected {FORMAT}")
            recogniser = Recogniser(**json.loads(found[FORMAT])["made"])
            recogniser.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BadInput(f"{path} holds no recogniser for the offline planner ({error}): {REMEDY}") from error
    return recogniser.eval()


@lru_cache(maxsize=1)
def recogniser() -> Recogniser:
    """The one that the repository holds, read once."""
    return load()
