"""The catalogue: a seed and a split give one object, and no object of one split is in another."""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache

import numpy as np
from numpy.random import Generator

from ...errors import BadInput
from ..textures import COLOURS, Rgb, shade, stable_seed
from . import blocks, food, tools, vessels
from .family import ALL_SPLITS, MATERIALS, Family, Params
from .parts import Shape, centred
from .spec import ObjectSpec, Vec3

SPLITS = ALL_SPLITS
FAMILIES: dict[str, Family] = {
    f.name: f for f in (*vessels.FAMILIES, *blocks.FAMILIES, *food.FAMILIES, *tools.FAMILIES)
}
MASS_KG = (0.02, 0.6)
# One relative step of a key parameter. Shapes of two splits differ by a whole cell's number, not by a coat of paint.
_CELL = 0.03
_SHARE = {"train": 0.7, "validation": 0.1, "test": 0.2}


def cell_of(family: Family, params: Params) -> str:
    """Fingerprint of a shape: its family and the cells of its two key parameters on a logarithmic grid."""
    cells = [str(math.floor(math.log(params[key] + 0.5 * (params[key] < 1e-6) + 1e-6) / _CELL)) for key in family.key]
    return ":".join([family.name, *cells])


def split_of(fingerprint: str, family: Family) -> str:
    """The one split that a shape's cell belongs to: a fixed hash over the splits which the family takes part in."""
    point = int.from_bytes(hashlib.blake2b(fingerprint.encode(), digest_size=6).digest()) / 2**48
    total = sum(_SHARE[split] for split in family.splits)
    for split in family.splits:
        point -= _SHARE[split] / total
        if point < 0:
            return split
    return family.splits[-1]


def check_split(split: str) -> None:
    if split not in SPLITS:
        raise BadInput(f"split {split!r} is unknown: expected one of {', '.join(SPLITS)}")


def generate_object(seed: int, split: str = "train") -> ObjectSpec:
    """The object number ``seed`` of a split: the same in every process and on every machine.

    Raises BadInput for an unknown split or a negative seed.
    """
    check_split(split)
    if seed < 0:
        raise BadInput(f"object seed {seed} is negative: expected 0 or more")
    rng = np.random.default_rng(stable_seed("object", split, int(seed)))
    usable = [family for family in FAMILIES.values() if split in family.splits]
    weights = np.array([family.weight for family in usable])
    family = usable[int(rng.choice(len(usable), p=weights / weights.sum()))]
    for _ in range(2000):
        params = family.sample(rng)
        fingerprint = cell_of(family, params)
        if split_of(fingerprint, family) == split:
            return _finish(family, params, fingerprint, split, seed, rng)
    raise AssertionError(f"family {family.name} has no cell for {split}")


def _finish(family: Family, params: Params, fingerprint: str, split: str, seed: int, rng: Generator) -> ObjectSpec:
    material = str(rng.choice(family.materials))
    colour = str(rng.choice(family.colours))
    rgb = _vary(COLOURS[colour], rng)
    shape = _shape(family.name, tuple(params.items()))
    density = float(rng.uniform(*family.density_kg_m3))
    mass = float(np.clip(density * shape.solid_volume_m3, *MASS_KG))
    slide = float(rng.uniform(*MATERIALS[material].friction))
    return ObjectSpec(
        name=f"{split}-{seed:06d}-{family.name}",
        noun=family.noun,
        colour=colour,
        family=family.name,
        split=split,
        seed=int(seed),
        params=tuple(params.items()),
        size_m=shape.size_m,
        mass_kg=round(mass, 5),
        friction=(round(slide, 3), 0.005, family.rolling_m),
        material=material,
        pattern=str(rng.choice(family.patterns)),
        rgb=rgb,
        accent_rgb=_accent(colour, material, rgb, rng),
        symmetry=family.symmetry,
        fingerprint=fingerprint,
    )


def _vary(rgb: Rgb, rng: Generator) -> Vec3:
    """A little other shade: two red cups are rarely of one dye, but a red one is never orange."""
    r, g, b = shade(rgb, float(rng.uniform(0.88, 1.12)))
    shift = rng.uniform(-0.025, 0.025, 3)
    out = np.clip(np.array([r, g, b]) + shift, 0.03, 0.97).round(3)
    return float(out[0]), float(out[1]), float(out[2])


def _accent(colour: str, material: str, rgb: Vec3, rng: Generator) -> Vec3:
    """A second colour that leaves no doubt about the first: white on strong colours, dark or strong on pale ones."""
    if material == "peel":  # nature prints nothing: a second shade only
        return shade(rgb, 0.72)
    strong = ("red", "blue", "green", "purple", "brown", "black", "pink", "turquoise", "orange")
    choice = "white" if colour in strong and rng.random() < 0.75 else "black"
    if colour in ("white", "grey", "yellow"):
        choice = str(rng.choice(["black", "brown", "grey"] if colour == "yellow" else ["black", "brown"]))
    if colour == "black":
        choice = str(rng.choice(["white", "grey"]))
    return COLOURS[choice]


@lru_cache(maxsize=512)
def _shape(family: str, params: tuple[tuple[str, float], ...]) -> Shape:
    return centred(FAMILIES[family].build(dict(params)))


def shape_of(spec: ObjectSpec) -> Shape:
    """The parts of an object: generated, or read from its file (cached) for a third-party one."""
    if spec.family == "third_party":
        from ..third_party import load_shape

        return load_shape(spec)
    if spec.family not in FAMILIES:
        raise BadInput(f"object {spec.name!r} is of the unknown family {spec.family!r}: expected {', '.join(FAMILIES)}")
    return _shape(spec.family, spec.params)
