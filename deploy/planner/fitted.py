"""Numbers that were fitted to the twin's training split: the palette of colour words, and a judge of cuts.

``fitted.json`` is written by ``python benchmarks/fit_offline_planner.py``, from its definition alone; nothing in it was
set by hand. What a thing is called is told by the network beside it (``recognition.py``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...hardware.errors import BadInput

Array = NDArray[np.float64]
PATH = Path(__file__).with_name("fitted.json")
FORMAT = 2
REMEDY = "write it anew with `python benchmarks/fit_offline_planner.py`, or take the file that the repository holds."


@dataclass(frozen=True)
class Judge:
    """A classifier: standardised features, layers with tanh between them, softmax."""

    classes: tuple[str, ...]
    mean: Array  # (F,)
    scale: Array  # (F,)
    layers: tuple[tuple[Array, Array], ...]  # weights (in, out) and biases (out,)

    def __post_init__(self) -> None:
        sizes = [len(self.mean), *(len(bias) for _, bias in self.layers)]
        for (weights, _), before, after in zip(self.layers, sizes, sizes[1:], strict=False):
            if weights.shape != (before, after):
                raise BadInput(f"a layer's weights are {weights.shape}, expected {(before, after)}: {REMEDY}")
        if sizes[-1] != len(self.classes) or self.scale.shape != self.mean.shape or not (self.scale > 0).all():
            raise BadInput(f"a classifier of {len(self.classes)} classes has layers of {sizes}: {REMEDY}")

    def logits(self, features: Array) -> Array:
        """(N, F) -> (N, classes)."""
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise BadInput(f"got features of shape {features.shape}, expected (N, {len(self.mean)}): {REMEDY}")
        # Nothing beyond three deviations was seen: farther out says no more.
        value = np.clip((features - self.mean) / self.scale, -3.0, 3.0)
        for k, (weights, bias) in enumerate(self.layers):
            value = value @ weights + bias
            if k < len(self.layers) - 1:
                value = np.tanh(value)
        return np.asarray(value)

    def __call__(self, features: Array) -> Array:
        """(N, F) -> (N, classes) probabilities."""
        logits = self.logits(features)
        weight = np.exp(logits - logits.max(1, keepdims=True))
        return np.asarray(weight / weight.sum(1, keepdims=True))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Judge:
        layers = tuple((np.array(layer["weights"], float), np.array(layer["bias"], float)) for layer in data["layers"])
        return cls(tuple(data["classes"]), np.array(data["mean"], float), np.array(data["scale"], float), layers)


@dataclass(frozen=True)
class Palette:
    """Colours as they look under indoor light, several to a word."""

    words: tuple[str, ...]
    centres: NDArray[np.float32]  # (C, 3) CIE Lab
    owner: NDArray[np.intp]  # (C,) index of the word that each centre stands for

    def by_word(self, shares: Array) -> Array:
        """Shares of the centres (C,) -> of the words (W,)."""
        return np.asarray(np.bincount(self.owner, shares, len(self.words)), float)

    @classmethod
    def from_json(cls, data: dict[str, list[list[float]]]) -> Palette:
        centres = [np.array(entry, np.float32).reshape(-1, 3) for entry in data.values()]
        owner = np.repeat(np.arange(len(data)), [len(entry) for entry in centres])
        return cls(tuple(data), np.concatenate(centres), owner)


@dataclass(frozen=True)
class Fitted:
    """All of it."""

    palette: Palette
    cuts: Judge  # whether a cut parts two things; classes: one, two


def load(path: Path = PATH) -> Fitted:
    """The numbers in ``path``. Raises BadInput where the file is missing or damaged."""
    try:
        data = json.loads(path.read_text())
        if data["format"] != FORMAT:
            raise ValueError(f"its format is {data['format']}, expected {FORMAT}")
        return Fitted(Palette.from_json(data["palette"]), Judge.from_json(data["cuts"]))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path} holds no numbers for the offline planner ({error}): {REMEDY}") from error


@lru_cache(maxsize=1)
def fitted() -> Fitted:
    """Those that the repository holds, read once."""
    return load()
