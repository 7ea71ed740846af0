"""Object sets of others: a folder of MJCF files or meshes as a library that scenes draw from.

A file is one object. ``library.json`` beside the files may say more of them than their names do::

    {"mug_01.obj": {"noun": "mug", "colour": "red", "mass_kg": 0.31, "friction": 0.5}}
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from .mesh_files import SUFFIXES, UNITS_M, Cutting, shape_from_mesh
from .mjcf_files import MjcfObject, load_mjcf
from .objects.catalogue import SPLITS, check_split
from .objects.parts import Shape
from .objects.spec import ObjectSpec, Vec3
from .textures import COLOURS

MANIFEST = "library.json"
MASS_KG = (0.002, 3.0)
_MANIFEST_KEYS = {"noun": str, "colour": str, "mass_kg": float, "friction": float}


@dataclass(frozen=True)
class LibraryConfig:
    """How the files of a folder are understood."""

    unit: str = "m"
    """Unit of the mesh files' numbers: m, cm, mm or inch. MJCF is always in metres."""
    density_kg_m3: float = 400.0
    """For meshes without a mass in library.json: a household thing with its hollows and contents."""
    friction: float = 0.6
    """Sliding friction for files without one in library.json."""
    cutting: Cutting = field(default_factory=Cutting)
    split: str | None = None
    """Put all objects into one split; None divides them among all three by their content."""

    def __post_init__(self) -> None:
        if self.unit not in UNITS_M:
            raise BadInput(f"unit {self.unit!r} is unknown: expected one of {', '.join(UNITS_M)}")
        if not 10 <= self.density_kg_m3 <= 20_000:
            raise BadInput(f"density_kg_m3 is {self.density_kg_m3}: expected 10 to 20000")
        if not 0.05 <= self.friction <= 2.0:
            raise BadInput(f"friction is {self.friction}: expected 0.05 to 2")
        if self.split is not None:
            check_split(self.split)


class ObjectLibrary:
    """The objects of a folder, loaded and checked. Decompositions are cached: the second time is fast."""

    def __init__(self, folder: Path | str, config: LibraryConfig | None = None) -> None:
        """Raises BadInput when the folder is missing, empty, or one of its files cannot become an object."""
        self.folder = Path(folder).expanduser()
        self.config = config or LibraryConfig()
        if not self.folder.is_dir():
            raise BadInput(f"there is no folder {self.folder}: expected one with MJCF (.xml) or mesh files")
        known = (*SUFFIXES, ".xml")
        files = sorted(path for path in self.folder.iterdir() if path.suffix.lower() in known)
        if not files:
            raise BadInput(f"{self.folder} holds no object: expected files that end in {', '.join(known)}")
        facts = _read_manifest(self.folder / MANIFEST, {path.name for path in files})
        self.objects = tuple(_describe(path, facts.get(path.name, {}), self.config) for path in files)

    def of_split(self, split: str) -> tuple[ObjectSpec, ...]:
        """The objects of a split. Raises BadInput when there is none."""
        check_split(split)
        chosen = tuple(obj for obj in self.objects if obj.split == split)
        if not chosen:
            counts = ", ".join(f"{name} {sum(obj.split == name for obj in self.objects)}" for name in SPLITS)
            raise BadInput(
                f"{self.folder} has no object of split {split!r} ({counts}): add files, or put all into one split with "
                f"LibraryConfig(split={split!r})"
            )
        return chosen


def _read_manifest(path: Path, names: set[str]) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    try:
        facts = json.loads(path.read_text())
    except ValueError as error:
        raise BadInput(f"{path} is not JSON ({error})") from error
    if not isinstance(facts, dict) or not all(isinstance(entry, dict) for entry in facts.values()):
        raise BadInput(f'{path}: expected {{"file name": {{"noun": ..., "mass_kg": ...}}}}')
    for name, entry in facts.items():
        if name not in names:
            raise BadInput(f"{path} speaks of {name!r}, which is not in the folder")
        for key, value in entry.items():
            kind = _MANIFEST_KEYS.get(key)
            if kind is None:
                raise BadInput(f"{path}, {name}: unknown entry {key!r}; expected {', '.join(_MANIFEST_KEYS)}")
            if not isinstance(value, (int, float) if kind is float else kind) or isinstance(value, bool):
                raise BadInput(f"{path}, {name}: {key} is {value!r}, expected a {kind.__name__}")
        if entry.get("colour", "red") not in COLOURS:
            raise BadInput(f"{path}, {name}: colour {entry['colour']!r} is unknown; expected {', '.join(COLOURS)}")
    return facts


def _describe(path: Path, facts: dict[str, Any], config: LibraryConfig) -> ObjectSpec:
    """One file as an object. ``params`` keep what is needed to build it again from the file."""
    friction = float(facts.get("friction", config.friction))
    if path.suffix.lower() == ".xml":
        mjcf = load_mjcf(path)
        shape, key, mass = mjcf.shape, mjcf.key, float(facts.get("mass_kg", mjcf.mass_kg))
        rgb = mjcf.rgb
    else:
        cut = shape_from_mesh(path, config.unit, config.cutting)
        shape, key = cut.shape, cut.key
        mass = float(facts.get("mass_kg", config.density_kg_m3 * shape.solid_volume_m3))
        rgb = cut.rgb or _invented_colour(key)
    if not MASS_KG[0] <= mass <= MASS_KG[1]:
        raise BadInput(
            f"{path} would weigh {mass:.4g} kg: expected {MASS_KG[0]} to {MASS_KG[1]} kg; give mass_kg in {MANIFEST} "
            f"or another density (now {config.density_kg_m3:.0f} kg/m3)"
        )
    if not 0.05 <= friction <= 2.0:
        raise BadInput(f"{path} has friction {friction}: expected 0.05 to 2")
    told = facts.get("colour") or colour_in(path.stem)
    colour = str(told or nearest_colour(rgb))
    if told and path.suffix.lower() != ".xml":
        rgb = COLOURS[colour]
    return ObjectSpec(
        name=f"file-{key[:8]}-{path.stem}",
        noun=str(facts.get("noun") or noun_of(path.stem)),
        colour=colour,
        family="third_party",
        split=config.split or _split_of(key),
        seed=int(key[:8], 16),
        params=(
            ("unit_m", UNITS_M[config.unit]),
            ("threshold", config.cutting.threshold),
            ("max_pieces", float(config.cutting.max_pieces)),
        ),
        size_m=shape.size_m,
        mass_kg=round(mass, 5),
        friction=(friction, 0.005, 0.003),
        material="plastic",
        pattern="plain",
        rgb=rgb,
        accent_rgb=COLOURS["white"],
        symmetry="none",
        fingerprint=f"third_party:{key}",
        source=str(path.resolve()),
    )


def load_shape(obj: ObjectSpec) -> Shape:
    """The parts of a third-party object, from its file. Raises BadInput when the file is gone or is another now."""
    return _load_shape(obj.source, obj.params, obj.fingerprint)


@lru_cache(maxsize=64)
def _load_shape(source: str, params: tuple[tuple[str, float], ...], fingerprint: str) -> Shape:
    path = Path(source)
    if not path.is_file():
        raise BadInput(f"the object file {path} is gone: a recorded scene needs it to be built again")
    if path.suffix.lower() == ".xml":
        mjcf = load_mjcf(path)
        shape, key = mjcf.shape, mjcf.key
    else:
        given = dict(params)
        unit = next(name for name, scale in UNITS_M.items() if scale == given["unit_m"])
        cut = shape_from_mesh(path, unit, Cutting(given["threshold"], int(given["max_pieces"])))
        shape, key = cut.shape, cut.key
    if fingerprint != f"third_party:{key}":
        raise BadInput(f"the object file {path} has changed since the scene was recorded: put the old one back")
    return shape


def mjcf_of(obj: ObjectSpec) -> MjcfObject | None:
    """The MJCF behind an object; None for one that was read from a mesh or generated."""
    return load_mjcf(Path(obj.source)) if obj.source.lower().endswith(".xml") else None


def noun_of(stem: str) -> str:
    """A noun from a file name: ``red_coffee-mug_01`` -> ``coffee mug``."""
    words = [word for word in re.split(r"[^a-z]+", stem.lower()) if len(word) > 1 and word not in COLOURS]
    return " ".join(words) or "object"


def colour_in(stem: str) -> str | None:
    """The named colour that a file name speaks of, if any."""
    return next((word for word in re.split(r"[^a-z]+", stem.lower()) if word in COLOURS), None)


def nearest_colour(rgb: Vec3) -> str:
    """The named colour that is nearest in sRGB."""
    return min(COLOURS, key=lambda name: float(np.sum((np.array(COLOURS[name]) - np.array(rgb)) ** 2)))


def _invented_colour(key: str) -> Vec3:
    """A mesh without any colour is painted by its content: the instruction must call it something."""
    names = [name for name in COLOURS if name not in ("black", "grey")]
    return COLOURS[names[int(key[8:16], 16) % len(names)]]


def _split_of(key: str) -> str:
    point = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=6).digest()) / 2**48
    return "train" if point < 0.7 else "validation" if point < 0.8 else "test"
