"""``cli.py train ...``: learn a controller from a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from .attention import Attention
from .grasps import TrainGrasps


@dataclass(frozen=True)
class TrainController:
    """Learn a controller from recorded episodes. Ctrl-C saves; --resume goes on, also after a crash.

    On several GPUs or machines: accelerate launch [its options] cli.py train controller [these options].
    """

    dataset: str | None = None
    """Name under recordings/, or a path. Not given: grasp."""
    preset: Literal["small", "paper", "paper224"] | None = None
    """small: for a laptop, needs depth; paper: DexGraspVLA's; paper224: the same on smaller pictures. Not given:
    small, or what --init is."""
    objective: Literal["ddim", "flow"] | None = None
    """How chunks are learnt and sampled. Not given: the preset's."""
    resume: bool = False
    """Go on with the newest run, or with --name; settings that are given must be the run's."""
    steps: int | None = None
    """Batches to learn from."""
    minutes: float | None = None
    """Instead of --steps: as many as fit. Neither given: 25 minutes for small, 20000 steps for paper."""
    init: Path | None = None
    """Begin with these weights: a policy folder, a run, or DexGraspVLA's .ckpt."""
    name: str | None = None
    """Of the run. Not given: preset, objective and time."""
    batch_size: int | None = None
    """Of all processes together. Not given: 64 for small, 48 for paper, whose authors had 8 x 48."""
    lr: float | None = None
    """Largest learning rate. Not given: 0.001 for small, 0.0001 for paper."""
    seed: int | None = None
    """Of everything random. Not given: 0."""
    validation_share: float | None = None
    """Share of the episodes that is held out. Not given: 0.1."""
    failures: bool | None = None
    """Also learn from episodes that are labelled as failures."""
    delay_max: int | None = None
    """Learn to plan while up to so many commands are still being executed. Not given: the preset's."""
    basis: Literal["time", "cosine", "pca"] | None = None
    """What the network predicts: commands, their frequencies, or coefficients of a basis learnt from the data. Not
    given: the preset's."""
    override: tuple[str, ...] = ()
    """Any other setting of the controller, as its config.json names it: encoder.noise=0.5 network.layers=6."""
    precision: Literal["fp32", "bf16"] | None = None
    """Of the network's arithmetic. Not given: fp32 for small, bf16 for paper."""
    validate_every: int | None = None
    """Steps between validations. Not given: a tenth of the run."""
    cache_features: bool | None = None
    """Keep what the frozen encoders answer on disk (paper presets). Not given: yes."""
    copies: int | None = None
    """Of the feature cache, differently jittered. Not given: 4."""
    logger: Literal["tensorboard", "wandb", "none"] = "tensorboard"
    """Where curves are logged to, inside the run; wandb writes offline."""
    out: Path | None = None
    """Folder of the runs. Not given: runs/."""

    def run(self) -> int:
        from .session import run_training

        return run_training(self)


@dataclass(frozen=True)
class Train:
    """Learn a controller, and look at what it learnt."""

    action: (
        Annotated[TrainController, tyro.conf.subcommand("controller")]
        | Annotated[TrainGrasps, tyro.conf.subcommand("grasps")]
        | Annotated[Attention, tyro.conf.subcommand("attention")]
    )

    def run(self) -> int:
        return self.action.run()
