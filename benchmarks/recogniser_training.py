"""How the offline planner's recogniser learns what things are called (``fit_offline_planner.py`` runs this)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from dexloop.deploy.planner.recognition import Recogniser
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

BATCH = 128
SMOOTHING = 0.02
NOISE = 0.15  # on standardised measures
LAB = (1.2, 0.9, 0.9)  # deviation of what is added to L*, a*, b* of a patch
GAIN = 0.03  # and of what they are multiplied by
TURN_RAD, STRETCH, SHIFT = 0.25, 0.08, 0.05  # of a patch; the last as a share of half its side


@dataclass
class Examples:
    """Things as they are seen, what they are, and the scene that each is of."""

    patches: list[NDArray[np.float16]] = field(default_factory=list)
    of_kind: list[NDArray[np.float64]] = field(default_factory=list)
    of_colour: list[NDArray[np.float64]] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    colours: list[str] = field(default_factory=list)
    scenes: list[int] = field(default_factory=list)

    def tensors(self, kinds: tuple[str, ...], colours: tuple[str, ...]) -> Batch:
        return Batch(
            torch.from_numpy(np.stack(self.patches)),
            torch.from_numpy(np.stack(self.of_kind).astype(np.float32)),
            torch.from_numpy(np.stack(self.of_colour).astype(np.float32)),
            torch.tensor([kinds.index(name) for name in self.kinds]),
            torch.tensor([colours.index(name) for name in self.colours]),
        )


@dataclass(frozen=True)
class Batch:
    """Some of them."""

    patches: Tensor
    of_kind: Tensor
    of_colour: Tensor
    kinds: Tensor  # (N,) index
    colours: Tensor

    def __len__(self) -> int:
        return len(self.kinds)

    def take(self, rows: Tensor) -> Batch:
        return Batch(*(value[rows] for value in (self.patches, self.of_kind, self.of_colour, self.kinds, self.colours)))


def train(examples: Examples, epochs: int) -> Recogniser:
    """One that learnt from the examples but those of every sixth scene; how sure it may be is set by these, and what it
    gets right there is printed. The same examples give the same network."""
    torch.manual_seed(0)
    kinds, colours = (tuple(sorted(set(names))) for names in (examples.kinds, examples.colours))
    back = torch.tensor(np.array(examples.scenes) % 6 == 5)
    every = examples.tensors(kinds, colours)
    learnt, held = every.take(torch.nonzero(~back)[:, 0]), every.take(torch.nonzero(back)[:, 0])
    recogniser = Recogniser(kinds, colours, every.of_kind.shape[1], every.of_colour.shape[1])
    for name, values in (("kind", learnt.of_kind), ("colour", learnt.of_colour)):
        getattr(recogniser, f"{name}_mean").copy_(values.mean(0))
        getattr(recogniser, f"{name}_scale").copy_(values.std(0, correction=0).clamp_min(1e-3))
    recogniser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    _learn(recogniser, learnt, held, epochs)
    _set_heat(recogniser, held)
    print(
        f"recogniser of {len(kinds)} kinds and {len(colours)} colours, {len(learnt)} examples, "
        f"{len(held)} held back: {_told(recogniser, held)}"
    )
    return recogniser


def _learn(recogniser: Recogniser, learnt: Batch, held: Batch, epochs: int) -> None:
    steps = max(len(learnt) // BATCH, 1)
    optimiser = torch.optim.AdamW(recogniser.parameters(), 2e-3, weight_decay=0.05)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, epochs * steps + 1, pct_start=0.1)
    for epoch in range(epochs):
        recogniser.train()
        for rows in torch.randperm(len(learnt)).split(BATCH)[:steps]:
            batch = learnt.take(rows)
            measures = recogniser.standard(batch.of_kind, batch.of_colour)
            measures = tuple(values + NOISE * torch.randn_like(values) for values in measures)
            patches = disturbed(batch.patches.float()).contiguous(memory_format=torch.channels_last)
            kinds, colours = recogniser(patches, *measures)
            loss = cross_entropy(kinds, batch.kinds, label_smoothing=SMOOTHING)
            loss = loss + cross_entropy(colours, batch.colours, label_smoothing=SMOOTHING)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rate.step()
        if (epoch + 1) % 4 == 0:
            print(f"epoch {epoch + 1} of {epochs}, held back: {_told(recogniser, held)}", flush=True)
    recogniser.eval()


def disturbed(patches: Tensor) -> Tensor:
    """(N, 6, S, S) as the thing might as well be seen: another light, mirrored, turned, nearer or farther."""
    count = len(patches)
    lab, rest = patches[:, :3], patches[:, 3:]
    added = torch.randn(count, 3, 1, 1) * torch.tensor(LAB)[:, None, None] * patches[:, 4:5]
    patches = torch.cat([lab * (1 + GAIN * torch.randn(count, 1, 1, 1)) + added, rest], 1)
    patches = torch.where((torch.rand(count) < 0.5)[:, None, None, None], patches.flip(-1), patches)
    angle, size = TURN_RAD * torch.randn(count), 1 + STRETCH * torch.randn(count)
    cos, sin = size * angle.cos(), size * angle.sin()
    where = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)  # (N, 2, 2)
    where = torch.cat([where, SHIFT * torch.randn(count, 2, 1)], 2)
    return grid_sample(patches, affine_grid(where, list(patches.shape), align_corners=False), align_corners=False)


def _logits(recogniser: Recogniser, batch: Batch) -> tuple[Tensor, Tensor]:
    recogniser.eval()
    parts = [batch.take(rows) for rows in torch.arange(len(batch)).split(256)]
    found = [recogniser.logits(part.patches.float(), part.of_kind, part.of_colour) for part in parts]
    kinds, colours = zip(*found, strict=True)
    return torch.cat(kinds), torch.cat(colours)


def heat_of(logits: Tensor, truth: Tensor) -> tuple[float, float]:
    """The number that logits (N, C) are divided by for the least cross entropy with ``truth`` (N,), and that loss."""
    heats = np.geomspace(0.5, 5.0, 40)
    losses = [float(cross_entropy(logits / heat, truth)) for heat in heats]
    best = int(np.argmin(losses))
    return float(heats[best]), losses[best]


def _set_heat(recogniser: Recogniser, held: Batch) -> None:
    for k, (logits, truth) in enumerate(zip(_logits(recogniser, held), (held.kinds, held.colours), strict=True)):
        recogniser.heat[k] = heat_of(logits, truth)[0]


def _told(recogniser: Recogniser, held: Batch) -> str:
    words = []
    answers = zip(
        ("kinds", "colours"), _logits(recogniser, held), (held.kinds, held.colours), recogniser.heat, strict=True
    )
    for name, logits, truth, heat in answers:
        right = float((logits.argmax(1) == truth).float().mean())
        words.append(f"{name} right {right:.1%}, loss {float(cross_entropy(logits / heat, truth)):.3f}")
    return "; ".join(words)
