"""From what was asked for to what a run needs: settings, a controller that fits its data, training and held-out rows.

Nothing is written into a run here; packed pictures and frozen features go to the cache, after every check.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..datasets.reader import DatasetReader
from ..hardware.errors import BadInput, DatasetError
from .controller.config import ControllerConfig, PaperEncoderConfig, preset, with_objective
from .controller.parts import Batch
from .controller.policy import Controller
from .data.chunks import Chunks, split, usable_episodes
from .settings import Settings


@dataclass(frozen=True)
class Recipe:
    """What a run saw. Saved as ``data.json``; a resumed run sees the same or is refused."""

    dataset: str
    training: tuple[int, ...]  # episodes
    validation: tuple[int, ...]
    rows: tuple[int, ...]  # of each of them, training first

    def to_json(self) -> dict[str, Any]:
        return {"format": "dexloop-data", "version": 1, **asdict(self)}

    @staticmethod
    def from_json(data: dict[str, Any], where: str) -> Recipe:
        try:
            fields = (data["training"], data["validation"], data["rows"])
            return Recipe(str(data["dataset"]), *(tuple(int(number) for number in numbers) for numbers in fields))
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"{where} does not say what the run saw ({error}): start a new run.") from error


def draw_recipe(reader: DatasetReader, settings: Settings) -> Recipe:
    """Split the episodes. Raises BadInput where there are too few."""
    usable = usable_episodes(reader, settings.failures)
    training, validation = split(usable, settings.validation_share, settings.seed)
    return _recipe(reader, training, validation)


def check_recipe(reader: DatasetReader, recipe: Recipe) -> None:
    """Raises DatasetError where the data set no longer holds the episodes that the run saw."""
    have = len(reader)
    episodes = (*recipe.training, *recipe.validation)
    if any(index >= have for index in episodes) or _recipe(reader, recipe.training, recipe.validation) != recipe:
        raise DatasetError(
            f"the episodes of {reader.root} are no longer those that the run began with: start a new run with "
            "--init <the run>/best."
        )


def _recipe(reader: DatasetReader, training: Any, validation: Any) -> Recipe:
    rows = tuple(reader.meta(index).rows for index in (*training, *validation))
    return Recipe(str(reader.root.resolve()), tuple(training), tuple(validation), rows)


def configure(asked: dict[str, Any], overrides: tuple[str, ...], start: ControllerConfig | None) -> ControllerConfig:
    """The controller's configuration: that of the checkpoint ``start`` where there is one, or of the preset, changed
    as asked. ``overrides``: ``part.name=value`` for any setting in ``config.json``. Raises BadInput for unknown ones,
    and where a checkpoint's network would not fit."""
    if start is not None and asked.get("preset") not in (None, start.preset):
        raise BadInput(f"--init is a {start.preset} controller, --preset is {asked['preset']}: leave --preset out.")
    config = start or preset(asked.get("preset") or "small")
    if asked.get("objective"):
        config = with_objective(config, asked["objective"])
    data = copy.deepcopy(config.to_json())
    for key in ("basis", "delay_max"):
        if asked.get(key) is not None:
            data["action"][key] = asked[key]
    for text in overrides:
        _override(data, text)
    changed = ControllerConfig.from_json(data, "the command line")
    if start is not None:
        _same_shape(start, changed)
    return changed


def _override(data: dict[str, Any], text: str) -> None:
    path, _, value = text.partition("=")
    *parents, name = path.split(".")
    place: Any = data
    for parent in parents:
        place = place.get(parent) if isinstance(place, dict) else None
    if not isinstance(place, dict) or name not in place or isinstance(place[name], dict):
        raise BadInput(f"--override {text}: there is no setting {path!r}; config.json of any run lists them.")
    before = place[name]
    try:
        place[name] = _parsed(value, before)
    except ValueError as error:
        raise BadInput(f"--override {text}: expected a value like {before!r}.") from error


def _parsed(value: str, like: Any) -> Any:
    """``value`` as the type of ``like``. Raises ValueError."""
    if isinstance(like, bool):
        return {"true": True, "false": False}.get(value.lower()) if value.lower() in ("true", "false") else _refuse()
    if isinstance(like, tuple | list):
        parts = value.split(",")
        return [_parsed(part, like[0]) for part in parts] if len(parts) == len(like) else _refuse()
    return type(like)(value)


def _refuse() -> Any:
    raise ValueError


def _same_shape(start: ControllerConfig, wanted: ControllerConfig) -> None:
    """How chunks are drawn and pictures disturbed may change between checkpoint and training; tensors may not."""
    before, after = start.to_json(), wanted.to_json()
    free = {"encoder": ("noise", "jitter", "dropout"), "goal": ("samples", "steps", "dropout", "jitter_m")}
    for part in ("encoder", "network", "action", "goal"):
        for name, value in before[part].items():
            if after[part][name] != value and name not in free.get(part, ()):
                raise BadInput(
                    f"{part}.{name} of the --init checkpoint is {value}, asked for is {after[part][name]}: the weights "
                    "are of another shape; leave it out, or train without --init."
                )


def load_init(path: Path) -> Controller:
    """A policy folder of ours, a run (its best policy), or DexGraspVLA's ``.ckpt``."""
    from .controller.checkpoint import load_controller

    if path.is_file():
        from .controller.dexgraspvla import load_published

        return load_published(path)
    if not path.exists():
        raise BadInput(f"{path} does not exist: give a policy folder, a run, or DexGraspVLA's .ckpt.")
    return load_controller(policy_folder(path))


def policy_folder(path: Path) -> Path:
    """``path`` itself, or of a run its best policy."""
    from .controller.checkpoint import CONFIG, WEIGHTS

    return path if (path / WEIGHTS).exists() or not (path / "best" / CONFIG).exists() else path / "best"


def make_controller(config: ControllerConfig, start: Controller | None, seed: int) -> Controller:
    """New weights from ``seed``, or those of ``start``."""
    torch.manual_seed(seed)
    controller = Controller(config)
    if start is not None:
        controller.load_state_dict(start.state_dict())
    return controller


@dataclass(frozen=True)
class Data:
    training: Chunks
    validation: Chunks


def open_data(reader: DatasetReader, controller: Controller, recipe: Recipe, settings: Settings) -> Data:
    """Training and held-out rows; packs pictures and caches features on the first time. Raises BadInput where the data
    set lacks what the controller looks at, before anything is written."""
    encoder, config = controller.encoder, controller.config
    features = None
    if settings.cache_features:
        from .features import cache_features

        features = cache_features(encoder, reader, settings.copies, [*recipe.training, *recipe.validation])

    def chunks(episodes: tuple[int, ...], late: bool) -> Chunks:
        return Chunks(
            reader,
            encoder.views,
            encoder.reference_views,
            config.action,
            episodes=episodes,
            robot_type=config.robot_type,
            features=features,
            lagged=late,
        )

    return Data(chunks(recipe.training, config.encoder.noise > 0), chunks(recipe.validation, False))


def fit(controller: Controller, rows: Chunks, batch_size: int = 64) -> None:
    """Learn normaliser and basis of the actions from the training rows: chunks that overlap by half, so that every
    command is in two of them."""
    stride = max(controller.config.action.horizon // 2, 1)
    positions = np.arange(0, len(rows), stride)
    device = next(controller.parameters()).device

    def batches() -> Iterator[Batch]:
        for i in range(0, len(positions), batch_size):
            yield {key: tensor.to(device) for key, tensor in rows.batch(positions[i : i + batch_size]).items()}

    controller.fit(batches)


def frozen_encoder(config: ControllerConfig) -> bool:
    """Whether there are frozen features that can be cached."""
    return isinstance(config.encoder, PaperEncoderConfig)
