"""Grasps that were tried out on the twin: a folder with one file for each scene.

``recipe.json`` says how scenes and grasps were drawn, ``scene_000012.npz`` what was seen before anything moved, what
was tried, and what became of it. A file is there whole or not at all, so an interrupted folder is gone on with.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..hardware.errors import BadInput

RECIPE = "recipe.json"
STATE_DIM = 13
GOAL_DIM = 15
"""Of a grasp goal: position of the palm (3, m, world), first two columns of its rotation (6), openings (6)."""
_FORMAT = {"format": "dexloop-rehearsals", "version": 1}


@dataclass(frozen=True)
class RehearsedScene:
    """One scene as the head camera saw it, with the grasps that were tried on copies of it."""

    rgb: NDArray[np.uint8]  # (H, W, 3)
    depth_mm: NDArray[np.uint16]  # (H, W), 0 = invalid
    instances: NDArray[np.uint8]  # (H, W): object i is i + 1, all else 0
    state: NDArray[np.float32]  # (13,) arm rad, openings
    target: NDArray[np.int64]  # (N,) the object that was grasped
    goal: NDArray[np.float32]  # (N, 15), GOAL_DIM
    lift_m: NDArray[np.float32]  # (N,) how far the object rose

    def __post_init__(self) -> None:
        height, width = self.depth_mm.shape
        count = len(self.target)
        shapes = {
            "rgb": (height, width, 3),
            "instances": (height, width),
            "state": (STATE_DIM,),
            "goal": (count, GOAL_DIM),
            "lift_m": (count,),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise BadInput(f"a rehearsed scene has {name} of shape {getattr(self, name).shape}, expected {shape}.")


def scene_path(root: Path, index: int) -> Path:
    return root / f"scene_{index:06d}.npz"


def scene_paths(root: Path) -> list[Path]:
    """Every scene of the folder, in order. Raises BadInput where there is none."""
    found = sorted(root.glob("scene_*.npz"))
    if not (root / RECIPE).is_file() or not found:
        raise BadInput(f"{root} holds no rehearsed grasps: make them with `python cli.py rehearse --out {root}`.")
    return found


def open_folder(root: Path, recipe: Mapping[str, Any]) -> None:
    """Make the folder for scenes drawn by ``recipe``, or go on with it. Raises BadInput where it has another one."""
    path, wanted = root / RECIPE, json.loads(json.dumps({**_FORMAT, **recipe}))
    if path.is_file():
        if (found := read_recipe(root)) != wanted:
            changed = ", ".join(sorted(key for key in wanted | found if wanted.get(key) != found.get(key)))
            raise BadInput(f"{root} was made with other settings ({changed}): repeat them, or name another --out.")
        return
    root.mkdir(parents=True, exist_ok=True)
    temporary = root / f".{RECIPE}.tmp"
    temporary.write_text(json.dumps(wanted, indent=2) + "\n")
    temporary.replace(path)


def read_recipe(root: Path) -> dict[str, Any]:
    """How the folder's scenes were drawn. Raises BadInput where it does not say."""
    try:
        recipe = json.loads((root / RECIPE).read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"{root / RECIPE} is not readable ({error}): make the folder anew with `rehearse`.") from error
    if not isinstance(recipe, dict) or {key: recipe.get(key) for key in _FORMAT} != _FORMAT:
        raise BadInput(f"{root / RECIPE} is not of rehearsals of version 1: make the folder anew with `rehearse`.")
    return recipe


def write_scene(root: Path, index: int, scene: RehearsedScene) -> None:
    """Write beside and rename: a reader never sees half of one."""
    path = scene_path(root, index)
    temporary = path.with_name(f".{path.stem}.tmp.npz")
    np.savez_compressed(temporary, **{field.name: getattr(scene, field.name) for field in fields(scene)})
    temporary.replace(path)


def read_scene(path: Path) -> RehearsedScene:
    """Raises BadInput where the file is not a whole scene."""
    names = [field.name for field in fields(RehearsedScene)]
    try:
        with np.load(path) as arrays:
            return RehearsedScene(**{name: arrays[name] for name in names})
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise BadInput(f"{path} is not a whole rehearsed scene ({error}): delete it, `rehearse` makes it anew.") from (
            error
        )
