"""A data set and a controller that are small enough to train in a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dexloop.datasets.writer import DatasetWriter
from dexloop.tests.dataset_fixtures import DEPTH_SCHEMA, make_episode
from dexloop.train.command import TrainController

ROWS = (14, 11, 16, 12)
TINY = (
    "action.space=joints",
    "action.basis=time",
    "action.delay_max=0",
    "action.horizon=4",
    "action.tokens=2",
    "network.width=32",
    "network.layers=1",
    "network.heads=2",
    "encoder.head_size=64,48",
    "encoder.window=32",
    "encoder.wrist=True",
    "encoder.wrist_size=16,12",
    "encoder.points=16",
)


def make_data_set(root: Path) -> Path:
    """Four short episodes with depth and masks."""
    with DatasetWriter(root, DEPTH_SCHEMA) as writer:
        for seed, rows in enumerate(ROWS):
            writer.append(make_episode(seed, rows, DEPTH_SCHEMA))
    return root


def tiny(data: Path, runs: Path, **flags: Any) -> TrainController:
    """Train the tiny controller on ``data`` into ``runs``."""
    defaults: dict[str, Any] = {"dataset": str(data), "out": runs, "name": "run", "logger": "none"}
    if not flags.get("resume"):
        defaults |= {"override": TINY, "batch_size": 8, "validation_share": 0.3}
        defaults |= {} if "minutes" in flags else {"steps": 12, "validate_every": 5}
    return TrainController(**(defaults | flags))
