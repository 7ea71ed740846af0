"""What a family of objects is: how its shape parameters are drawn, and how parameters become parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from numpy.random import Generator

from .parts import Part

Params = dict[str, float]
Sampler = Callable[[Generator], Params]
ALL_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Material:
    """How a surface slides and how it looks."""

    friction: tuple[float, float]  # range of the sliding coefficient against a rubber fingertip or a cloth
    shininess: float
    specular: float


# Sliding friction against rubber and cloth; ordinary handbook values, dry, kept to 0.4-1.0.
MATERIALS = {
    "plastic": Material((0.5, 0.8), 0.5, 0.4),
    "metal": Material((0.42, 0.6), 0.8, 0.7),
    "ceramic": Material((0.45, 0.65), 0.8, 0.6),
    "cardboard": Material((0.5, 0.75), 0.1, 0.05),
    "wood": Material((0.5, 0.75), 0.2, 0.1),
    "fabric": Material((0.6, 0.9), 0.05, 0.02),
    "film": Material((0.45, 0.7), 0.6, 0.4),  # crisp bags, pouches
    "rubber": Material((0.8, 1.0), 0.2, 0.1),
    "foam": Material((0.7, 1.0), 0.05, 0.0),
    "peel": Material((0.5, 0.8), 0.3, 0.2),  # fruit and vegetables
}

STRONG_COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "turquoise")
ALL_COLOURS = (*STRONG_COLOURS, "white", "black", "grey", "brown")


@dataclass(frozen=True)
class Family:
    """One kind of object. ``key`` names the parameters that decide which split a shape belongs to."""

    name: str
    noun: str
    sample: Sampler
    build: Callable[[Params], list[Part]]
    key: tuple[str, str]
    density_kg_m3: tuple[float, float]  # of the solid volume: contents and hollows inside included
    materials: tuple[str, ...]
    patterns: tuple[str, ...]
    stances: tuple[tuple[str, float], ...]  # (upright | lying | inverted, weight)
    colours: tuple[str, ...] = ALL_COLOURS
    symmetry: str = "none"  # round: any turn about z; sphere; none
    splits: tuple[str, ...] = ALL_SPLITS
    weight: float = 1.0
    rolling_m: float = 0.003  # rolling friction, the lever arm of a soft fingertip or cloth; less lets facets creep
    awkward: str = ""  # why no stance of it can be grasped, where that is known beforehand


def uniform(rng: Generator, low: float, high: float) -> float:
    """One value, rounded to 0.1 mm / 1e-4, so that it survives JSON text exactly."""
    return round(float(rng.uniform(low, high)), 4)
