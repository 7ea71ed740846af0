"""Fruit and vegetables."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from .family import Family, Params, Sampler, uniform
from .meshes import Array, Mesh, box_mesh, hull, lathe, sweep
from .parts import Part, look_of, solid_of

ROUND_STANCE = (("lying", 1.0),)


def _fruit(low_m: float, high_m: float, tall: tuple[float, float]) -> Sampler:
    def sample(rng: Generator) -> Params:
        return {
            "diameter": uniform(rng, low_m, high_m),
            "tall": uniform(rng, *tall),
            "dimple": uniform(rng, 0.05, 0.16),
        }

    return sample


def _stem(height: float, length: float, lean: float, paint: str = "stem", thick: float = 1.0) -> Part:
    path = np.array([[0, 0, height - 0.004], [0.3 * lean, 0, height + length / 2], [lean, 0, height + length]])
    return look_of(sweep(path, thick * np.array([0.0018, 0.0013, 0.0017]), 6), paint)


def turned(profile: Array, twist: Array | None = None) -> list[Part]:
    """A fruit turned from one profile: dimpled to look at, its convex hull to collide."""
    coarse = lathe(profile[::2] if len(profile) > 14 else profile, 14, None if twist is None else twist[::2])
    return [look_of(lathe(profile, 28, twist)), solid_of(hull(coarse.vertices))]


def _build_apple(p: Params) -> list[Part]:
    r = p["diameter"] / 2
    h = r * p["tall"]
    t = np.deg2rad(np.linspace(-90, 90, 17))
    bulge = np.cos(t) * (1.0 + 0.06 * np.sin(t))
    z = h * np.sin(t) - p["dimple"] * h * np.sign(np.sin(t)) * np.exp(-((np.cos(t) / 0.35) ** 2))
    profile = np.stack([r * bulge / bulge.max(), z], -1)
    profile[[0, -1], 0] = 0.0
    return [*turned(profile), _stem(float(z[-1]), 0.014, 0.004)]


def _build_citrus(p: Params) -> list[Part]:
    r = p["diameter"] / 2
    h = r * p["tall"]
    t = np.deg2rad(np.linspace(-90, 90, 17))
    tip = max(p["tall"] - 1.0, 0.0) * 0.35 * h  # only lemons, taller than wide, have nipples
    profile = np.stack([r * np.cos(t), h * np.sin(t) + tip * np.sign(t) * np.exp(-((np.cos(t) / 0.25) ** 2))], -1)
    profile[[0, -1], 0] = 0.0
    button = look_of(
        lathe(np.array([[0.004, -0.001], [0.003, 0.0015], [0, 0.002]]), 8), "stem", (0, 0, float(profile[-1, 1]))
    )
    return [*turned(profile), button]


def _build_pear(p: Params) -> list[Part]:
    r = p["diameter"] / 2
    h = p["diameter"] * p["tall"]
    t = np.linspace(0.0, 1.0, 17)
    body = np.sqrt(np.clip(1 - ((t - 0.34) / 0.34) ** 2, 0, 1)) * (t < 0.34) + (t >= 0.34) * (
        0.42 + 0.58 * np.cos(np.clip((t - 0.34) / 0.5, 0, 1) * np.pi / 2) ** 1.3
    )
    body *= np.sqrt(np.clip((1.0 - t) / 0.14, 0, 1))
    profile = np.stack([r * body, h * t], -1)
    profile[[0, -1], 0] = 0.0
    # The waist is concave: two hulls follow it, one would bridge it.
    low, high = hull(lathe(profile[:11], 14).vertices), hull(lathe(profile[10:], 12).vertices)
    return [look_of(lathe(profile, 26)), solid_of(low), solid_of(high), _stem(h, 0.016, 0.005)]


def _build_pepper(p: Params) -> list[Part]:
    r = p["diameter"] / 2
    h = p["diameter"] * p["tall"]
    t = np.deg2rad(np.linspace(-90, 90, 17))
    body = np.sign(np.cos(t)) * np.abs(np.cos(t)) ** 0.6 * (1.0 + 0.1 * np.sin(t))
    z = h / 2 * np.sin(t) - 0.12 * h * np.sign(np.sin(t)) * np.exp(-((np.cos(t) / 0.4) ** 2))
    profile = np.stack([r * body / body.max(), z], -1)
    profile[[0, -1], 0] = 0.0
    twist = 1.0 - 0.11 * (0.5 - 0.5 * np.cos(3 * np.linspace(0, 2 * np.pi, 28, endpoint=False)))
    return [*turned(profile, twist), _stem(float(z[-1]), 0.02, 0.006, "leaf", 2.2)]


def _long(low_m: float, high_m: float, ratio: tuple[float, float]) -> Sampler:
    def sample(rng: Generator) -> Params:
        width = uniform(rng, low_m, high_m)
        return {
            "diameter": width,
            "length": uniform(rng, ratio[0] * width, ratio[1] * width),
            "bend": uniform(rng, 0.5, 1.0),
        }

    return sample


def _build_carrot(p: Params) -> list[Part]:
    r, h = p["diameter"] / 2, p["length"]
    profile = np.array(
        [
            [0, 0],
            [0.18 * r, 0.004],
            [0.45 * r, 0.2 * h],
            [0.8 * r, 0.65 * h],
            [r, 0.93 * h],
            [0.8 * r, 0.985 * h],
            [0.3 * r, h],
            [0, 0.995 * h],
        ]
    )
    leaves = [
        look_of(
            sweep(
                np.array([[0, 0, h - 0.003], [0.4 * x, 0, h + 0.012], [x, 0, h + 0.026]]),
                np.array([0.003, 0.0025, 0.001]),
                6,
            ),
            "leaf",
        )
        for x in (-0.008, 0.0001, 0.008)
    ]
    return [*turned(profile), *leaves]


def _build_cucumber(p: Params) -> list[Part]:
    r, h = p["diameter"] / 2, p["length"]
    t = np.deg2rad(np.linspace(-90, 90, 7))
    low = np.stack([r * np.cos(t[:4]), r * np.sin(t[:4]) - h / 2 + r], -1)
    high = np.stack([r * np.cos(t[3:]), r * np.sin(t[3:]) + h / 2 - r], -1)
    profile = np.concatenate([low, high])
    profile[[0, -1], 0] = 0.0
    return [look_of(lathe(profile, 20)), Part("capsule", (r, h / 2 - r, 0), visible=False)]


def _build_banana(p: Params) -> list[Part]:
    r, length = p["diameter"] / 2, p["length"]
    sweep_angle = 0.9 + 0.5 * p["bend"]
    radius = length / sweep_angle
    angle = np.linspace(-sweep_angle / 2, sweep_angle / 2, 17)
    path = np.stack([radius * np.cos(angle), np.zeros(17), radius * np.sin(angle)], -1)
    t = np.linspace(-1, 1, 17)
    thick = r * np.clip(1 - 0.55 * np.abs(t) ** 4, 0.25, 1.0)
    thick[-1], thick[-2], thick[0] = 0.25 * r, 0.32 * r, 0.3 * r
    parts = [look_of(sweep(path, thick, 12))]
    for k in range(0, 16, 4):
        parts.append(solid_of(hull(sweep(path[k : k + 5], thick[k : k + 5], 10).vertices)))
    return [*parts, look_of(_tip(path[-1], r), "stem"), look_of(_tip(path[0], r), "stem")]


def _tip(at: Array, radius: float) -> Mesh:
    mesh = box_mesh((0.5 * radius, 0.5 * radius, 0.5 * radius))
    return Mesh(mesh.vertices + at, mesh.faces, mesh.uv)


FAMILIES = (
    Family(
        "apple",
        "apple",
        _fruit(0.06, 0.085, (0.82, 0.95)),
        _build_apple,
        ("diameter", "tall"),
        (800, 880),
        ("peel",),
        ("blush", "speckle"),
        (("upright", 0.6), ("lying", 0.4)),
        colours=("red", "green", "yellow"),
        rolling_m=0.004,
    ),
    Family(
        "orange",
        "orange",
        _fruit(0.06, 0.085, (0.92, 1.0)),
        _build_citrus,
        ("diameter", "tall"),
        (850, 950),
        ("peel",),
        ("speckle",),
        ROUND_STANCE,
        colours=("orange",),
        rolling_m=0.004,
        weight=0.6,
    ),
    Family(
        "lemon",
        "lemon",
        _fruit(0.046, 0.062, (1.15, 1.35)),
        _build_citrus,
        ("diameter", "tall"),
        (900, 980),
        ("peel",),
        ("speckle",),
        ROUND_STANCE,
        colours=("yellow",),
        rolling_m=0.004,
        weight=0.6,
    ),
    Family(
        "pear",
        "pear",
        _fruit(0.055, 0.075, (1.3, 1.6)),
        _build_pear,
        ("diameter", "tall"),
        (900, 980),
        ("peel",),
        ("speckle", "blush"),
        ROUND_STANCE,
        colours=("green", "yellow"),
        rolling_m=0.004,
        splits=("test",),
        weight=0.6,
    ),
    Family(
        "pepper",
        "bell pepper",
        _fruit(0.06, 0.082, (1.05, 1.35)),
        _build_pepper,
        ("diameter", "tall"),
        (350, 500),
        ("peel",),
        ("plain",),
        (("lying", 0.6), ("upright", 0.4)),
        colours=("red", "yellow", "green"),
        rolling_m=0.004,
        splits=("validation", "test"),
        weight=0.6,
    ),
    Family(
        "banana",
        "banana",
        _long(0.03, 0.04, (4.2, 5.6)),
        _build_banana,
        ("diameter", "length"),
        (900, 980),
        ("peel",),
        ("blush", "plain"),
        (("flat", 1.0),),
        colours=("yellow", "green"),
        weight=0.7,
    ),
    Family(
        "carrot",
        "carrot",
        _long(0.028, 0.042, (4.0, 5.5)),
        _build_carrot,
        ("diameter", "length"),
        (950, 1040),
        ("peel",),
        ("rings",),
        ROUND_STANCE,
        colours=("orange",),
        rolling_m=0.004,
        weight=0.5,
    ),
    Family(
        "cucumber",
        "cucumber",
        _long(0.032, 0.048, (3.2, 4.6)),
        _build_cucumber,
        ("diameter", "length"),
        (920, 980),
        ("peel",),
        ("stripes_up", "speckle"),
        ROUND_STANCE,
        colours=("green",),
        rolling_m=0.004,
        weight=0.5,
    ),
)
