"""Balls, fruit and vegetables, tools."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from .family import STRONG_COLOURS, Family, Params, Sampler, uniform
from .meshes import Array, Mesh, arc, box_mesh, hull, lathe, sweep
from .parts import Part, box, cylinder, look_of, solid_of

ROUND_STANCE = (("lying", 1.0),)


def _ball(rng: Generator) -> Params:
    return {"diameter": uniform(rng, 0.038, 0.085), "seam": uniform(rng, 0.0, 1.0)}


def _build_ball(p: Params) -> list[Part]:
    r = p["diameter"] / 2
    profile = arc((0.0, 0.0), r, -90, 90, 15)
    profile[[0, -1], 0] = 0.0
    return [look_of(lathe(profile, 24)), Part("sphere", (r, 0, 0), visible=False)]


def _fruit(low_m: float, high_m: float, tall: tuple[float, float]) -> Sampler:
    def sample(rng: Generator) -> Params:
        return {
            "diameter": uniform(rng, low_m, high_m),
            "tall": uniform(rng, *tall),
            "dimple": uniform(rng, 0.05, 0.16),
        }

    return sample


def _stem(height: float, length: float, lean: float) -> Part:
    path = np.array([[0, 0, height - 0.004], [0.3 * lean, 0, height + length / 2], [lean, 0, height + length]])
    return look_of(sweep(path, np.array([0.0018, 0.0013, 0.0017]), 6), "stem")


def _turned(profile: Array, twist: Array | None = None) -> list[Part]:
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
    return [*_turned(profile), _stem(float(z[-1]), 0.014, 0.004)]


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
    return [*_turned(profile), button]


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
    twist = 1.0 - 0.07 * (0.5 - 0.5 * np.cos(4 * np.linspace(0, 2 * np.pi, 28, endpoint=False)))
    return [*_turned(profile, twist), _stem(float(z[-1]), 0.022, 0.004)]


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
    return [*_turned(profile), *leaves]


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


def _screwdriver(rng: Generator) -> Params:
    return {
        "diameter": uniform(rng, 0.025, 0.036),
        "handle": uniform(rng, 0.085, 0.115),
        "shaft": uniform(rng, 0.06, 0.12),
    }


def _build_screwdriver(p: Params) -> list[Part]:
    r, grip, shaft = p["diameter"] / 2, p["handle"], p["shaft"]
    profile = np.array(
        [
            [0, 0],
            [0.75 * r, 0],
            [r, 0.08 * grip],
            [r, 0.55 * grip],
            [0.72 * r, 0.78 * grip],
            [0.8 * r, 0.95 * grip],
            [0.6 * r, grip],
            [0, grip],
        ]
    )
    lobes = 1.0 - 0.05 * (0.5 - 0.5 * np.cos(6 * np.linspace(0, 2 * np.pi, 24, endpoint=False)))
    rod = cylinder(0.0032, shaft, (0, 0, grip + shaft / 2), "metal", 6.5)
    # Two hulls: the narrow throat in front of the grip must stay narrow.
    low, high = hull(lathe(profile[:4], 12).vertices), hull(lathe(profile[3:7], 12).vertices)
    return [look_of(lathe(profile, 24, lobes)), solid_of(low), solid_of(high), *rod]


def _hammer(rng: Generator) -> Params:
    return {
        "diameter": uniform(rng, 0.024, 0.034),
        "length": uniform(rng, 0.17, 0.24),
        "head": uniform(rng, 0.075, 0.1),
    }


def _build_hammer(p: Params) -> list[Part]:
    r, length, head = p["diameter"] / 2, p["length"], p["head"]
    grip = np.array([[0, 0], [r, 0.002], [r, 0.45 * length], [0.7 * r, 0.6 * length], [0.7 * r, length], [0, length]])
    thick = 0.024
    block = box((0.6 * head, thick, thick), (0.0, 0, length), "metal", 5.0)
    quarter = (0.7071067811865476, 0.0, 0.7071067811865476, 0.0)
    face_at = (0.36 * head, 0.0, length)
    face = Part("cylinder", (0.014, 0.15 * head, 0), face_at, quarter, paint="metal", density=5.0)
    claw = hull(
        np.array(
            [[-0.28 * head, y, length + z] for y in (-thick / 2, thick / 2) for z in (-thick / 2, thick / 2)]
            + [[-0.55 * head, y, length - 0.012] for y in (-0.008, 0.008)]
        )
    )
    handle = [
        look_of(lathe(grip, 18)),
        solid_of(hull(lathe(grip[[1, 2]], 12).vertices)),
        cylinder(0.7 * r, 0.5 * length, (0, 0, 0.75 * length))[1],
    ]
    return [*handle, *block, face, look_of(claw, "metal"), solid_of(claw, density=5.0)]


def _spoon(rng: Generator) -> Params:
    return {"length": uniform(rng, 0.15, 0.24), "bowl": uniform(rng, 0.036, 0.055), "grip": uniform(rng, 0.009, 0.014)}


def _build_spoon(p: Params) -> list[Part]:
    length, bowl, grip = p["length"], p["bowl"], p["grip"]
    z = np.linspace(0, length - 1.2 * bowl, 9)
    path = np.stack([np.zeros(9), 0.012 * np.sin(np.pi * z / length), z], -1)
    stick = sweep(path, np.full(9, grip / 2), 8, 1.3)
    t = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    rim = np.stack([bowl / 2 * np.cos(t), np.full(20, 0.004), 0.7 * bowl * np.sin(t)], -1)
    dip = np.stack([0.25 * bowl * np.cos(t), np.full(20, -0.008), 0.35 * bowl * np.sin(t)], -1)
    ladle = hull(np.concatenate([rim, dip]) + [0, 0.004, length - 0.65 * bowl])
    solids = [solid_of(hull(sweep(path[k : k + 5], np.full(5, grip / 2), 6, 1.3).vertices)) for k in (0, 4)]
    hollow = look_of(
        Mesh(
            np.concatenate([rim * [0.86, 1, 0.86], [[0, 0.0, 0]]]) + [0, 0.0045, length - 0.65 * bowl],
            np.array([(i, 20, (i + 1) % 20) for i in range(20)], np.int32),
            np.zeros((21, 2)),
        ),
        "dark",
    )
    return [look_of(stick), look_of(ladle), hollow, *solids, solid_of(ladle, density=0.6)]


def _brush(rng: Generator) -> Params:
    return {
        "diameter": uniform(rng, 0.022, 0.032),
        "handle": uniform(rng, 0.1, 0.14),
        "head": uniform(rng, 0.05, 0.075),
    }


def _build_brush(p: Params) -> list[Part]:
    r, grip, head = p["diameter"] / 2, p["handle"], p["head"]
    profile = np.array(
        [
            [0, 0],
            [0.6 * r, 0.001],
            [r, 0.25 * grip],
            [0.95 * r, 0.6 * grip],
            [0.65 * r, 0.9 * grip],
            [0.65 * r, grip],
            [0, grip],
        ]
    )
    ferrule = box((head * 0.75, 0.018, 0.02), (0, 0, grip + 0.01), "metal", 2.0)
    hair = box((head * 0.75 - 0.002, 0.015, head * 0.6), (0, 0, grip + 0.02 + head * 0.3), "dark", 0.5)
    return [*_turned(profile), *ferrule, *hair]


def _torch(rng: Generator) -> Params:
    return {"diameter": uniform(rng, 0.026, 0.036), "length": uniform(rng, 0.12, 0.17), "head": uniform(rng, 1.25, 1.6)}


def _build_torch(p: Params) -> list[Part]:
    r, h = p["diameter"] / 2, p["length"]
    top = p["head"] * r
    body = np.array([[0, 0], [r, 0], [r, 0.7 * h], [top, 0.8 * h], [top, h], [top - 0.003, h]])
    glass = np.array([[top - 0.003, h], [top - 0.004, h - 0.003], [0, h - 0.003]])
    flare = hull(lathe(body[[2, 3, 4]], 14).vertices)
    return [
        look_of(lathe(body)),
        look_of(lathe(glass), "pages"),
        cylinder(r, 0.7 * h, (0, 0, 0.35 * h))[1],
        solid_of(flare),
        look_of(box_mesh((0.008, 0.004, 0.02)), "accent", (0, -r, 0.5 * h)),
    ]


def _pen(rng: Generator) -> Params:
    return {"diameter": uniform(rng, 0.02, 0.026), "length": uniform(rng, 0.12, 0.155), "cap": uniform(rng, 0.3, 0.4)}


def _build_pen(p: Params) -> list[Part]:
    r, h = p["diameter"] / 2, p["length"]
    cap = p["cap"] * h
    return [
        *cylinder(r * 0.92, h - cap, (0, 0, (h - cap) / 2)),
        *cylinder(r, cap, (0, 0, h - cap / 2), "accent"),
    ]


def _car(rng: Generator) -> Params:
    return {"length": uniform(rng, 0.08, 0.12), "width": uniform(rng, 0.036, 0.05), "height": uniform(rng, 0.036, 0.05)}


def _build_car(p: Params) -> list[Part]:
    length, w, h = p["length"], p["width"], p["height"]
    wheel = 0.26 * h
    side = np.array([(-0.3, 0.55), (-0.2, 1.0), (0.12, 1.0), (0.27, 0.55)])
    cabin = hull(np.array([[x * length, y * w * 0.9, z * h] for x, z in side for y in (-0.5, 0.5)]))
    parts = [
        *box((length, w, 0.35 * h), (0, 0, 0.2 * h + 0.175 * h + 0.02 * h)),
        look_of(cabin, "accent"),
        solid_of(cabin, density=0.5),
    ]
    turn = (0.7071067811865476, 0.7071067811865476, 0.0, 0.0)
    for x in (-0.3, 0.3):
        for y in (-0.46, 0.46):
            parts.append(Part("cylinder", (wheel, 0.06 * w, 0), (x * length, y * w, wheel), turn, paint="dark"))
    return parts


FAMILIES = (
    Family(
        "ball",
        "ball",
        _ball,
        _build_ball,
        ("diameter", "seam"),
        (80, 900),
        ("rubber", "plastic", "foam"),
        ("plain", "stripes_up", "two_tone", "dots"),
        ROUND_STANCE,
        colours=STRONG_COLOURS,
        symmetry="sphere",
        rolling_m=0.003,
        weight=1.2,
    ),
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
        colours=("yellow", "green"),
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
        (("lying", 1.0),),
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
    Family(
        "screwdriver",
        "screwdriver",
        _screwdriver,
        _build_screwdriver,
        ("diameter", "handle"),
        (1000, 1250),
        ("plastic",),
        ("stripes_up", "plain"),
        ROUND_STANCE,
        colours=STRONG_COLOURS,
        weight=0.7,
    ),
    Family(
        "hammer",
        "hammer",
        _hammer,
        _build_hammer,
        ("diameter", "length"),
        (1100, 1600),
        ("wood", "rubber"),
        ("wood", "plain"),
        ROUND_STANCE,
        colours=("brown", "red", "black", "yellow", "blue"),
        weight=0.6,
    ),
    Family(
        "spoon",
        "spoon",
        _spoon,
        _build_spoon,
        ("length", "bowl"),
        (650, 900),
        ("wood", "plastic"),
        ("wood", "plain"),
        ROUND_STANCE,
        colours=("brown", "red", "black", "green", "blue"),
        weight=0.4,
    ),
    Family(
        "brush",
        "brush",
        _brush,
        _build_brush,
        ("diameter", "handle"),
        (500, 800),
        ("wood", "plastic"),
        ("wood", "plain"),
        ROUND_STANCE,
        colours=("brown", "red", "yellow", "blue", "green"),
        weight=0.5,
    ),
    Family(
        "torch",
        "torch",
        _torch,
        _build_torch,
        ("diameter", "length"),
        (900, 1600),
        ("plastic", "metal"),
        ("plain", "rings"),
        (("lying", 0.8), ("upright", 0.2)),
        colours=("black", "red", "blue", "yellow", "grey"),
        symmetry="round",
        splits=("validation", "test"),
        weight=0.5,
    ),
    Family(
        "pen",
        "marker",
        _pen,
        _build_pen,
        ("diameter", "length"),
        (700, 1100),
        ("plastic",),
        ("plain", "label"),
        ROUND_STANCE,
        colours=("red", "green", "blue", "black", "purple"),
        symmetry="round",
        weight=0.3,
    ),
    Family(
        "car",
        "toy car",
        _car,
        _build_car,
        ("length", "width"),
        (400, 900),
        ("plastic", "metal"),
        ("plain", "stripes_up"),
        (("upright", 1.0),),
        colours=STRONG_COLOURS,
        splits=("test",),
        weight=0.5,
    ),
)
