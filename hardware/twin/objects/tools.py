"""Balls, toys and tools."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from .family import STRONG_COLOURS, Family, Params, uniform
from .food import turned
from .meshes import Mesh, arc, box_mesh, hull, lathe, sweep
from .parts import Part, box, cylinder, look_of, solid_of

ROUND_STANCE = (("lying", 1.0),)


def _ball(rng: Generator) -> Params:
    return {"diameter": uniform(rng, 0.038, 0.085), "seam": uniform(rng, 0.0, 1.0)}


def _build_ball(p: Params) -> list[Part]:
    r = p["diameter"] / 2
    profile = arc((0.0, 0.0), r, -90, 90, 15)
    profile[[0, -1], 0] = 0.0
    return [look_of(lathe(profile, 24)), Part("sphere", (r, 0, 0), visible=False)]


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
    return [*turned(profile), *ferrule, *hair]


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
        (("flat", 1.0),),
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
        (("flat", 1.0),),
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
        (("flat", 1.0),),
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
