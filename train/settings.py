"""How a run learns: every number that decides its curve, resolved, and saved with the run as ``settings.json``."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from ..hardware.errors import BadInput

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Settings:
    """One run's. The learning rate is a function of the step alone (:meth:`rate`), so that a resumed run goes on as
    the uninterrupted one does."""

    dataset: str  # folder of the data set
    steps: int  # planned; from ``minutes`` where those were given
    minutes: float | None  # training stops when so much time was spent, however many steps that was
    batch_size: int  # of all processes together
    lr: float  # largest learning rate
    warmup: int  # steps
    seed: int = 0
    validation_share: float = 0.1  # of the episodes
    failures: bool = False  # also learn from episodes labelled as failures
    weight_decay: float = 1e-4
    ema: float = 0.999  # decay of the weights' moving average, reached after a warm-up
    clip: float = 1.0  # largest norm of the gradient
    precision: Precision = "fp32"
    validate_every: int = 500  # steps
    validation_rows: int = 256  # moments of held-out episodes for the loss; of every fourth a chunk is sampled
    cache_features: bool = False  # keep what frozen encoders answer on disk
    copies: int = 1  # of the feature cache, each with another colour jitter
    init: str | None = None  # checkpoint that the weights came from

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch_size", 1), ("validate_every", 1), ("validation_rows", 1)):
            if getattr(self, name) < least:
                raise BadInput(f"{name.replace('_', '-')} is {getattr(self, name)}: expected at least {least}.")
        if not self.lr > 0 or not math.isfinite(self.lr):
            raise BadInput(f"lr is {self.lr}: expected a positive number, for example 0.001.")
        if not 0 < self.validation_share < 1:
            raise BadInput(f"validation-share is {self.validation_share}: expected more than 0 and less than 1.")
        if not 0 <= self.ema < 1:
            raise BadInput(f"ema is {self.ema}: expected 0 (no average) up to less than 1.")
        if self.minutes is not None and not self.minutes > 0:
            raise BadInput(f"minutes is {self.minutes}: expected a positive number.")

    def rate(self, step: int) -> float:
        """Learning rate of ``step`` (0, 1, ...): linear warm-up, then a half cosine down to 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return self.lr * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))

    def to_json(self) -> dict[str, Any]:
        return {"format": "dexloop-training", "version": 1, **asdict(self)}

    @staticmethod
    def from_json(data: dict[str, Any], where: str) -> Settings:
        """Raises BadInput where ``data`` is not a run's settings of this version."""
        names = {field.name for field in fields(Settings)}
        if data.get("format") != "dexloop-training" or data.get("version") != 1:
            raise BadInput(f"{where} is not a run's settings.json of version 1: start a new run.")
        values = {key: value for key, value in data.items() if key not in ("format", "version")}
        if set(values) != names:
            odd = ", ".join(sorted(set(values) ^ names))
            raise BadInput(f"{where} was written by another version ({odd} differ): start a new run.")
        return Settings(**values)


@dataclass(frozen=True)
class Defaults:
    """What a preset takes where nothing is asked for."""

    batch_size: int
    lr: float
    warmup: int
    precision: Precision
    steps: int | None = None
    minutes: float | None = None


# The paper's for one of its 8 GPUs; how many steps it took is not published.
_PAPER = Defaults(batch_size=48, lr=1e-4, warmup=2000, precision="bf16", steps=20_000)
DEFAULTS = {
    # Two CPU cores and half an hour with the packing of the data. fp32: bf16 would round positions to a millimetre.
    "small": Defaults(batch_size=64, lr=1e-3, warmup=200, precision="fp32", minutes=25),
    "paper": _PAPER,
    "paper224": _PAPER,
}
