"""A controller on disk: a folder with ``config.json`` and ``model.safetensors``. Nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...hardware.errors import BadInput
from .config import ControllerConfig
from .policy import Controller

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def save_controller(controller: Controller, folder: Path, about: dict[str, Any] | None = None) -> None:
    """Write the controller into ``folder``, which is made. ``about``: what it was trained on, kept as ``about.json``.
    Each file is written beside and renamed: a reader never sees half of one."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in controller.state_dict().items()}
    temporary = folder / f".{WEIGHTS}.tmp"
    save_file(weights, str(temporary), metadata={"format": "pt"})
    temporary.replace(folder / WEIGHTS)
    _write(folder / CONFIG, controller.config.to_json())
    if about is not None:
        _write(folder / "about.json", about)


def load_controller(folder: Path) -> Controller:
    """The controller in ``folder``. Raises BadInput where there is none, or it is damaged or of another shape."""
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise BadInput(f"{folder} holds no controller: expected {CONFIG} and {WEIGHTS}; `train controller` makes them.")
    try:
        data = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder / CONFIG} is not readable JSON ({error}): the checkpoint is damaged.") from error
    controller = Controller(ControllerConfig.from_json(data, str(folder / CONFIG)))
    load_weights(controller, folder / WEIGHTS)
    return controller.eval()


def load_weights(controller: Controller, path: Path) -> None:
    """Put the tensors of ``path`` into ``controller``. Raises BadInput, naming the first tensor that does not fit."""
    try:
        weights = load_file(str(path))
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{path} is not a readable safetensors file ({error}): the checkpoint is damaged.") from error
    problem = misfit(controller.state_dict(), weights)
    if problem:
        raise BadInput(f"{path} {problem}: the checkpoint is of another shape than its config.json says.")
    controller.load_state_dict(weights)


def misfit(wanted: Mapping[str, Tensor], found: Mapping[str, Any]) -> str:
    """The first tensor of ``found`` that does not fit, in words that go on from the file's name; empty when all do."""
    for name in sorted(set(wanted) ^ set(found)):
        return f"{'lacks' if name in wanted else 'has the unknown tensor'} {name}"
    for name, tensor in wanted.items():
        if tensor.shape != found[name].shape:
            return f"has {name} of shape {tuple(found[name].shape)}, expected {tuple(tensor.shape)}"
    return ""


def _write(path: Path, data: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(data, indent=2) + "\n")
    temporary.replace(path)
