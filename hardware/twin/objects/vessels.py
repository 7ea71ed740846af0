"""Turned and hollow things: cans, bottles, jars, cups, mugs, bowls, rolls."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from .family import Family, Params, uniform
from .meshes import Array, arc, hull, lathe, ring_pieces, sweep
from .parts import Part, cylinder, look_of, solid_of

UPRIGHT_OR_LYING = (("upright", 0.65), ("lying", 0.35))


def _can(rng: Generator) -> Params:
    return {"diameter": uniform(rng, 0.05, 0.084), "height": uniform(rng, 0.06, 0.155)}


def _build_can(p: Params) -> list[Part]:
    r, h = p["diameter"] / 2, p["height"]
    rim = 0.0025
    wall = np.array([[r - 0.003, -h / 2 + rim], [r, -h / 2 + 2 * rim], [r, h / 2 - 2 * rim], [r - 0.003, h / 2 - rim]])
    edge = np.array(
        [
            [0, -h / 2 + 0.003],
            [r - 0.006, -h / 2 + 0.003],
            [r - 0.005, -h / 2],
            [r - 0.003, -h / 2],
            [r - 0.003, -h / 2 + rim],
        ]
    )
    # The lid is the bottom turned over: listed from the rim inwards, so that it faces up.
    ends = [look_of(lathe(edge), "metal"), look_of(lathe(edge[::-1] * [1, -1]), "metal")]
    return [look_of(lathe(wall)), *ends, *cylinder(r, h)[1:]]


def _bottle(rng: Generator) -> Params:
    diameter = uniform(rng, 0.045, 0.085)
    height = uniform(rng, max(0.12, 1.9 * diameter), min(0.26, 3.6 * diameter))
    return {
        "diameter": diameter,
        "height": height,
        "neck": uniform(rng, 0.32, 0.5),  # of the diameter
        "shoulder": uniform(rng, 0.55, 0.78),  # of the height
        "slope": uniform(rng, 0.06, 0.2),  # of the height
    }


def _bottle_profile(p: Params) -> Array:
    r, h = p["diameter"] / 2, p["height"]
    neck, z0 = p["neck"] * r + 0.002, p["shoulder"] * h
    z1 = min(z0 + p["slope"] * h + 0.3 * (r - neck), 0.9 * h)
    t = np.linspace(0.0, 1.0, 7)
    ease = 0.5 + 0.5 * np.cos(np.pi * t)  # smooth shoulder
    shoulder = np.stack([neck + (r - neck) * ease, z0 + (z1 - z0) * t], -1)
    return np.concatenate([[[0, 0.003], [0.75 * r, 0], [0.95 * r, 0.002], [r, 0.06 * h]], shoulder, [[neck, 0.93 * h]]])


def _build_bottle(p: Params) -> list[Part]:
    r, h = p["diameter"] / 2, p["height"]
    profile = _bottle_profile(p)
    neck, cap = profile[-1, 0], min(profile[-1, 0] + 0.003, r)
    lid = np.array([[cap, 0.9 * h], [cap, 0.99 * h], [cap - 0.002, h], [0, h]])
    z0 = profile[4, 1]
    body = cylinder(r, z0, (0, 0, z0 / 2))[1]
    shoulder = hull(lathe(profile[[4, 6, 8, 10]], 14).vertices)
    top = cylinder(cap, 0.1 * h, (0, 0, 0.95 * h), density=0.5)[1]
    throat = cylinder(neck, max(0.9 * h - profile[10, 1], 0.002), (0, 0, (0.9 * h + profile[10, 1]) / 2))[1]
    return [
        look_of(lathe(np.concatenate([profile, [[0, 0.93 * h]]]))),
        look_of(lathe(np.concatenate([[[neck, 0.9 * h]], lid]), 20), "accent"),
        body,
        solid_of(shoulder),
        throat,
        top,
    ]


def _jar(rng: Generator) -> Params:
    diameter = uniform(rng, 0.05, 0.09)
    return {
        "diameter": diameter,
        "height": uniform(rng, 0.8 * diameter, 1.6 * diameter),
        "lid": uniform(rng, 0.14, 0.24),
    }


def _build_jar(p: Params) -> list[Part]:
    r, h = p["diameter"] / 2, p["height"]
    lid = p["lid"] * h
    body = np.array([[0, 0], [r - 0.004, 0], [r, 0.005], [r, h - lid - 0.008], [0.9 * r, h - lid], [0, h - lid]])
    cover = np.array([[0, h - lid], [0.95 * r, h - lid], [0.95 * r, h - 0.002], [0.95 * r - 0.002, h], [0, h]])
    return [
        look_of(lathe(body)),
        look_of(lathe(cover), "accent"),
        cylinder(r, h - lid, (0, 0, (h - lid) / 2))[1],
        cylinder(0.95 * r, lid, (0, 0, h - lid / 2), density=0.6)[1],
    ]


def _cup(rng: Generator) -> Params:
    top = uniform(rng, 0.062, 0.088)
    return {
        "diameter": top,
        "height": uniform(rng, 0.85 * top, 1.4 * top),
        "taper": uniform(rng, 0.7, 0.96),  # base diameter / rim diameter
        "wall": uniform(rng, 0.003, 0.0045),
    }


def _vessel(outer: Array, wall: float, floor: float, segments: int) -> list[Part]:
    """Visible skin and hollow collision wall of an open vessel whose outer side is ``outer`` (L, 2), bottom to rim."""
    inner = np.stack([outer[:, 0] - wall, np.maximum(outer[:, 1], floor)], -1)
    skin = np.concatenate([[[0, 0.0]], outer, [[outer[-1, 0] - 0.5 * wall, outer[-1, 1] + 0.3 * wall], inner[-1]]])
    hollow = np.concatenate([inner[::-1], [[0, floor]]])
    base = cylinder(float(outer[0, 0]), floor, (0, 0, floor / 2))[1]
    # The wall's wedges start at the floor's top: the base disc carries what is below.
    levels = outer.copy()
    levels[0, 1] = floor
    walls = [solid_of(piece) for piece in ring_pieces(levels, inner, segments)]
    return [look_of(lathe(skin)), look_of(lathe(hollow), "inside"), base, *walls]


def _build_cup(p: Params) -> list[Part]:
    r, h = p["diameter"] / 2, p["height"]
    outer = np.array([[r * p["taper"], 0.0], [r, h]])
    return _vessel(outer, p["wall"], 0.005, 12)


def _mug(rng: Generator) -> Params:
    top = uniform(rng, 0.068, 0.09)
    return {
        "diameter": top,
        "height": uniform(rng, 0.95 * top, 1.3 * top),
        "taper": uniform(rng, 0.86, 1.0),
        "wall": uniform(rng, 0.004, 0.0055),
        "handle": uniform(rng, 0.026, 0.036),
    }


def _build_mug(p: Params) -> list[Part]:
    r, h, reach = p["diameter"] / 2, p["height"], p["handle"]
    outer = np.array([[r * p["taper"], 0.0], [r, h]])
    angle = np.deg2rad(np.linspace(90, -90, 13))
    thick = 0.0052
    z = h / 2 + 0.34 * h * np.sin(angle)
    side = r * (p["taper"] + (1 - p["taper"]) * z / h)  # the handle grows out of the wall, not through it
    path = np.stack([side - 0.3 * p["wall"] + (reach - thick) * np.cos(angle), np.zeros(13), z], -1)
    path[[0, -1], 0] -= 0.0005
    bar = [look_of(sweep(path, np.full(13, thick), 8, 1.25))]
    for k in range(0, 12, 3):
        bar.append(solid_of(hull(sweep(path[k : k + 4], np.full(4, thick), 6, 1.25).vertices)))
    return _vessel(outer, p["wall"], 0.006, 12) + bar


def _bowl(rng: Generator) -> Params:
    return {
        "diameter": uniform(rng, 0.076, 0.1),
        "depth": uniform(rng, 0.42, 0.62),  # height / diameter
        "foot": uniform(rng, 0.38, 0.55),
        "wall": uniform(rng, 0.0035, 0.005),
    }


def _build_bowl(p: Params) -> list[Part]:
    r = p["diameter"] / 2
    h = p["depth"] * p["diameter"]
    t = np.linspace(0.0, 1.0, 4)
    outer = np.stack([r * (p["foot"] + (1 - p["foot"]) * np.sin(t * np.pi / 2) ** 0.9), h * t**1.15], -1)
    return _vessel(outer, p["wall"], 0.005, 12)


def _roll(rng: Generator) -> Params:
    return {"diameter": uniform(rng, 0.06, 0.1), "height": uniform(rng, 0.05, 0.11), "bore": uniform(rng, 0.38, 0.5)}


def _build_roll(p: Params) -> list[Part]:
    r, h = p["diameter"] / 2, p["height"]
    hole = p["bore"] * r
    side = np.array([[hole, 0], [r - 0.002, 0], [r, 0.002], [r, h - 0.002], [r - 0.002, h], [hole, h]])
    bore = np.array([[hole, h], [hole, 0]])
    pieces = ring_pieces(np.array([[r, 0], [r, h]]), np.array([[hole, 0], [hole, h]]), 12)
    return [look_of(lathe(side)), look_of(lathe(bore), "dark"), *[solid_of(piece) for piece in pieces]]


def _goblet(rng: Generator) -> Params:
    return {"diameter": uniform(rng, 0.06, 0.08), "height": uniform(rng, 0.11, 0.15), "stem": uniform(rng, 0.34, 0.45)}


def _build_goblet(p: Params) -> list[Part]:
    r, h = p["diameter"] / 2, p["height"]
    z0 = p["stem"] * h
    foot = np.array([[0, 0], [0.85 * r, 0], [0.85 * r, 0.003], [0.006, 0.012], [0.005, z0], [0.012, z0 + 0.004]])
    t = np.linspace(0.0, 1.0, 4)
    outer = np.stack([0.35 * r + 0.65 * r * np.sin(t * np.pi / 2), (h - z0) * t], -1)
    cup = [part.moved(np.array([0, 0, z0])) for part in _vessel(outer, 0.0035, 0.005, 10)]
    plate = cylinder(0.85 * r, 0.004, (0, 0, 0.002))[1]
    return [*cup, look_of(lathe(foot), "accent"), plate, cylinder(0.006, z0, (0, 0, z0 / 2))[1]]


def _candle(rng: Generator) -> Params:
    return {"diameter": uniform(rng, 0.038, 0.075), "height": uniform(rng, 0.06, 0.14)}


def _build_candle(p: Params) -> list[Part]:
    r, h = p["diameter"] / 2, p["height"]
    wick = sweep(
        np.array([[0, 0, h / 2 - 0.002], [0, 0, h / 2 + 0.004], [0.001, 0, h / 2 + 0.009]]), np.full(3, 0.0012), 6
    )
    return [*cylinder(r, h), look_of(wick, "dark")]


def _bulb(rng: Generator) -> Params:
    return {"diameter": uniform(rng, 0.05, 0.07), "height": uniform(rng, 0.09, 0.115)}


def _build_bulb(p: Params) -> list[Part]:
    r, h = p["diameter"] / 2, p["height"]
    base, screw = 0.013, 0.027
    dome = arc((0.0, h - r), r, -50, 90, 12)
    glass = np.concatenate([[[base, screw]], dome])
    glass[-1, 0] = 0.0
    cap = np.array([[0, 0], [0.007, 0], [base, 0.006], [base, screw], [base * 0.9, screw]])
    return [
        look_of(lathe(glass)),
        look_of(lathe(cap, 18), "metal"),
        solid_of(hull(lathe(glass[1:], 14).vertices)),
        solid_of(hull(lathe(glass[:2], 12).vertices)),
        cylinder(base, screw, (0, 0, screw / 2), density=3.0)[1],
    ]


_LABELS = ("label", "stripes_across", "two_tone", "logo")
FAMILIES = (
    Family(
        "can",
        "can",
        _can,
        _build_can,
        ("diameter", "height"),
        (90, 1000),
        ("metal",),
        _LABELS,
        UPRIGHT_OR_LYING,
        symmetry="round",
        weight=1.4,
    ),
    Family(
        "bottle",
        "bottle",
        _bottle,
        _build_bottle,
        ("diameter", "height"),
        (60, 950),
        ("plastic",),
        (*_LABELS, "plain"),
        (("upright", 0.6), ("lying", 0.4)),
        symmetry="round",
        weight=1.6,
    ),
    Family(
        "jar",
        "jar",
        _jar,
        _build_jar,
        ("diameter", "height"),
        (250, 950),
        ("ceramic", "plastic"),
        _LABELS,
        (("upright", 0.85), ("lying", 0.15)),
        symmetry="round",
    ),
    Family(
        "cup",
        "cup",
        _cup,
        _build_cup,
        ("diameter", "height"),
        (900, 1300),
        ("plastic",),
        ("plain", "stripes_across", "dots", "logo"),
        (("upright", 0.7), ("inverted", 0.15), ("lying", 0.15)),
        symmetry="round",
        weight=1.6,
    ),
    Family(
        "mug",
        "mug",
        _mug,
        _build_mug,
        ("diameter", "height"),
        (1900, 2400),
        ("ceramic",),
        ("plain", "logo", "two_tone", "dots"),
        (("upright", 0.85), ("inverted", 0.08), ("lying", 0.07)),
        weight=1.3,
    ),
    Family(
        "bowl",
        "bowl",
        _bowl,
        _build_bowl,
        ("diameter", "depth"),
        (1000, 2300),
        ("ceramic", "plastic", "wood"),
        ("plain", "stripes_across", "two_tone"),
        (("upright", 0.85), ("inverted", 0.15)),
        symmetry="round",
    ),
    Family(
        "roll",
        "paper roll",
        _roll,
        _build_roll,
        ("diameter", "height"),
        (150, 350),
        ("cardboard",),
        ("plain", "fabric"),
        UPRIGHT_OR_LYING,
        colours=("white", "brown", "grey"),
        symmetry="round",
        weight=0.5,
    ),
    Family(
        "goblet",
        "goblet",
        _goblet,
        _build_goblet,
        ("diameter", "height"),
        (1200, 2500),
        ("metal", "ceramic"),
        ("plain", "two_tone"),
        (("upright", 0.85), ("lying", 0.15)),
        symmetry="round",
        splits=("test",),
        weight=0.5,
    ),
    Family(
        "candle",
        "candle",
        _candle,
        _build_candle,
        ("diameter", "height"),
        (850, 950),
        ("plastic",),
        ("plain", "two_tone", "stripes_across"),
        UPRIGHT_OR_LYING,
        symmetry="round",
        weight=0.6,
    ),
    Family(
        "bulb",
        "light bulb",
        _bulb,
        _build_bulb,
        ("diameter", "height"),
        (180, 350),
        ("ceramic",),
        ("plain",),
        (("lying", 1.0),),
        colours=("white", "yellow"),
        symmetry="round",
        splits=("test",),
        weight=0.4,
    ),
)
