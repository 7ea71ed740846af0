"""Cornered and soft-cornered things: boxes, cartons, books, sponges, bags, tubes."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from .family import STRONG_COLOURS, Family, Params, uniform
from .meshes import Array, Mesh, box_mesh, hull, planar_uv, superellipsoid
from .parts import Part, box, cylinder, look_of, solid_of

ANY_FACE = (("upright", 0.45), ("lying", 0.55))


def _box(rng: Generator) -> Params:
    depth = uniform(rng, 0.022, 0.085)
    return {"depth": depth, "width": uniform(rng, depth, 0.13), "height": uniform(rng, max(depth, 0.05), 0.19)}


def _build_box(p: Params) -> list[Part]:
    return box((p["width"], p["depth"], p["height"]))


def _carton(rng: Generator) -> Params:
    width = uniform(rng, 0.05, 0.08)
    return {"width": width, "height": uniform(rng, 1.8 * width, 2.7 * width), "gable": uniform(rng, 0.3, 0.5)}


def _build_carton(p: Params) -> list[Part]:
    w, h = p["width"], p["height"]
    roof = p["gable"] * w
    half = w / 2
    ridge = [[sx * half, y, z] for sx in (-1, 1) for y, z in ((0.0, h - 0.012), (0.0, h))]
    eaves = [[sx * half, sy * half, h - roof - 0.012] for sx in (-1, 1) for sy in (-1, 1)]
    gable = hull(np.array(eaves + ridge[0::2]))
    fin = box((w, 0.003, 0.014), (0, 0, h - 0.007), "accent", 0.3)
    body = box((w, w, h - roof - 0.012), (0, 0, (h - roof - 0.012) / 2))
    return [*body, look_of(_flat_shaded(gable), "accent"), solid_of(gable, density=0.5), *fin]


def _flat_shaded(mesh: Mesh) -> Mesh:
    """Give each face its own vertices, so that edges stay sharp."""
    vertices = mesh.vertices[mesh.faces].reshape(-1, 3)
    return Mesh(vertices, np.arange(len(vertices), dtype=np.int32).reshape(-1, 3), planar_uv(vertices))


def _block(rng: Generator) -> Params:
    side = uniform(rng, 0.026, 0.06)
    return {"width": side, "depth": uniform(rng, 0.75 * side, side), "height": uniform(rng, side, 2.2 * side)}


def _build_block(p: Params) -> list[Part]:
    return box((p["width"], p["depth"], p["height"]))


def _book(rng: Generator) -> Params:
    width = uniform(rng, 0.09, 0.13)
    return {"width": width, "height": uniform(rng, 1.25 * width, 1.5 * width), "depth": uniform(rng, 0.02, 0.035)}


def _build_book(p: Params) -> list[Part]:
    w, d, h = p["width"], p["depth"], p["height"]
    cover = 0.0015
    pages = box_mesh((w - 0.005, d - 2 * cover, h - 0.008))
    parts = [look_of(pages, "pages", (-0.001, 0, 0))]
    for sign in (-1, 1):
        parts.append(look_of(box_mesh((w, cover, h)), "main", (0, sign * (d - cover) / 2, 0)))
    parts.append(look_of(box_mesh((cover, d, h)), "accent", (-(w - cover) / 2, 0, 0)))
    return [*parts, *box((w, d, h))[1:]]


def _sponge(rng: Generator) -> Params:
    return {
        "depth": uniform(rng, 0.026, 0.045),
        "width": uniform(rng, 0.055, 0.075),
        "height": uniform(rng, 0.085, 0.12),
    }


def _build_sponge(p: Params) -> list[Part]:
    w, d, h = p["width"], p["depth"], p["height"]
    pad = 0.25 * d
    return [
        *box((w, d - pad, h), (0, -pad / 2, 0)),
        look_of(box_mesh((w, pad, h)), "dark", (0, (d - pad) / 2, 0)),
        *box((w, pad, h), (0, (d - pad) / 2, 0), density=2.0)[1:],
    ]


def _soap(rng: Generator) -> Params:
    return {"depth": uniform(rng, 0.024, 0.04), "width": uniform(rng, 0.045, 0.065), "height": uniform(rng, 0.07, 0.1)}


def _build_soap(p: Params) -> list[Part]:
    mesh = superellipsoid((p["width"], p["depth"], p["height"]), (0.4, 0.5), 12, 20)
    return [
        look_of(mesh),
        solid_of(hull(superellipsoid((p["width"], p["depth"], p["height"]), (0.4, 0.5), 8, 14).vertices)),
    ]


def _bag(rng: Generator) -> Params:
    width = uniform(rng, 0.06, 0.1)
    return {
        "width": width,
        "height": uniform(rng, 1.1 * width, 1.6 * width),
        "depth": uniform(rng, 0.032, 0.062),
        "bulge": uniform(rng, 0.5, 0.9),  # roundness
        "sag": uniform(rng, 0.05, 0.35),  # thicker below than above
        "crumple": uniform(rng, 0.0, 6.28),
    }


def _bag_surface(p: Params, rows: int, columns: int) -> Mesh:
    mesh = superellipsoid((p["width"], p["depth"], p["height"]), (p["bulge"], 0.55), rows, columns)
    v = mesh.vertices.copy()
    along = v[:, 2] / p["height"]  # -0.5 .. 0.5
    v[:, 1] *= 1.0 - p["sag"] * (along + 0.5)
    wave = 0.03 * np.sin(5.0 * v[:, 0] / p["width"] + p["crumple"]) * np.cos(6.0 * along + p["crumple"])
    v[:, 1] *= 1.0 + wave
    return Mesh(v, mesh.faces, planar_uv(v))


def _build_bag(p: Params) -> list[Part]:
    fins = [
        Part(
            "mesh",
            position_m=(0, 0, sign * (p["height"] / 2 - 0.002)),
            mesh=box_mesh((0.8 * p["width"], 0.0015, 0.012)),
            paint="accent",
            solid=False,
        )
        for sign in (-1, 1)
    ]
    return [look_of(_bag_surface(p, 14, 26)), *fins, solid_of(hull(_bag_surface(p, 8, 16).vertices))]


def _pouch(rng: Generator) -> Params:
    width = uniform(rng, 0.06, 0.1)
    return {"width": width, "height": uniform(rng, 1.2 * width, 1.6 * width), "depth": uniform(rng, 0.035, 0.055)}


def _pouch_rings(p: Params, count: int) -> Array:
    w, d, h = p["width"] / 2, p["depth"] / 2, p["height"]
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    rings = []
    for t, wide, thick in ((0.0, 0.85, 0.8), (0.06, 0.95, 1.0), (0.35, 0.97, 0.85), (0.75, 1.0, 0.4), (1.0, 1.0, 0.06)):
        c, s = np.cos(angle), np.sin(angle)
        rings.append(
            np.stack(
                [
                    w * wide * np.sign(c) * np.abs(c) ** 0.6,
                    d * thick * np.sign(s) * np.abs(s) ** 0.8,
                    np.full(count, h * t),
                ],
                -1,
            )
        )
    return np.concatenate(rings)


def _build_pouch(p: Params) -> list[Part]:
    lid = cylinder(0.008, 0.014, (0, 0, p["height"] + 0.006), "accent", 0.4)
    return [look_of(hull(_pouch_rings(p, 28))), solid_of(hull(_pouch_rings(p, 14))), *lid]


def _tube(rng: Generator) -> Params:
    diameter = uniform(rng, 0.032, 0.05)
    return {"diameter": diameter, "height": uniform(rng, 0.12, 0.18), "flat": uniform(rng, 1.1, 1.4)}


def _tube_points(p: Params, count: int) -> Array:
    r, h = p["diameter"] / 2, p["height"]
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    low = np.column_stack([r * np.cos(angle), r * np.sin(angle), np.full(count, 0.02)])
    mid = np.column_stack([1.05 * r * np.cos(angle), 0.9 * r * np.sin(angle), np.full(count, 0.4 * h)])
    end = np.array([[sx * r * p["flat"], sy * 0.0015, h] for sx in (-1, 1) for sy in (-1, 1)])
    return np.concatenate([low, mid, end])


def _build_tube(p: Params) -> list[Part]:
    cap = cylinder(0.72 * p["diameter"] / 2, 0.022, (0, 0, 0.011), "accent", 0.7)
    return [look_of(hull(_tube_points(p, 28))), solid_of(hull(_tube_points(p, 14))), *cap]


def _remote(rng: Generator) -> Params:
    return {
        "width": uniform(rng, 0.042, 0.056),
        "height": uniform(rng, 0.13, 0.19),
        "depth": uniform(rng, 0.0205, 0.028),
    }


def _build_remote(p: Params) -> list[Part]:
    w, d, h = p["width"], p["depth"], p["height"]
    parts = box((w, d, h))
    for row in range(5):
        for column in range(3):
            at = ((column - 1) * 0.27 * w, d / 2 + 0.0002, 0.3 * h - row * 0.11 * h)
            parts.append(look_of(box_mesh((0.16 * w, 0.002, 0.05 * h)), "accent", at))
    return parts


def _wedge(rng: Generator) -> Params:
    return {"width": uniform(rng, 0.05, 0.08), "height": uniform(rng, 0.08, 0.11), "depth": uniform(rng, 0.035, 0.05)}


def _build_wedge(p: Params) -> list[Part]:
    w, d, h = p["width"], p["depth"], p["height"]
    mesh = hull(np.array([[x, y, z] for y in (-d / 2, d / 2) for x, z in ((0, 0), (w, 0), (0.18 * w, h), (0, h))]))
    return [look_of(_flat_shaded(mesh)), solid_of(mesh)]


_PRINT = ("label", "logo", "stripes_up", "two_tone", "stripes_across")
FAMILIES = (
    Family(
        "box", "box", _box, _build_box, ("depth", "height"), (80, 800), ("cardboard",), _PRINT, ANY_FACE, weight=2.2
    ),
    Family(
        "carton",
        "carton",
        _carton,
        _build_carton,
        ("width", "height"),
        (120, 1000),
        ("cardboard",),
        _PRINT,
        (("upright", 0.75), ("lying", 0.25)),
        weight=0.8,
    ),
    Family(
        "block",
        "block",
        _block,
        _build_block,
        ("width", "height"),
        (450, 800),
        ("wood",),
        ("wood", "plain"),
        ANY_FACE,
        weight=1.0,
    ),
    Family(
        "book",
        "book",
        _book,
        _build_book,
        ("width", "depth"),
        (500, 850),
        ("cardboard",),
        ("logo", "label", "plain"),
        (("upright", 0.15), ("flat", 0.85)),
        weight=0.35,
    ),
    Family(
        "sponge",
        "sponge",
        _sponge,
        _build_sponge,
        ("depth", "height"),
        (70, 180),
        ("foam",),
        ("speckle",),
        ANY_FACE,
        colours=("yellow", "blue", "pink", "green"),
        weight=0.7,
    ),
    Family(
        "soap",
        "bar of soap",
        _soap,
        _build_soap,
        ("depth", "height"),
        (1000, 1100),
        ("plastic",),
        ("plain", "marble"),
        ANY_FACE,
        colours=("white", "pink", "green", "yellow", "purple"),
        weight=0.5,
    ),
    Family(
        "bag",
        "bag",
        _bag,
        _build_bag,
        ("width", "depth"),
        (70, 700),
        ("film",),
        _PRINT,
        (("flat", 0.75), ("lying", 0.25)),
        colours=STRONG_COLOURS,
        weight=1.4,
    ),
    Family(
        "pouch",
        "pouch",
        _pouch,
        _build_pouch,
        ("width", "depth"),
        (500, 1000),
        ("film",),
        ("label", "logo", "two_tone"),
        (("upright", 0.6), ("flat", 0.4)),
        colours=STRONG_COLOURS,
        splits=("validation", "test"),
        weight=0.7,
    ),
    Family(
        "tube",
        "tube",
        _tube,
        _build_tube,
        ("diameter", "height"),
        (500, 1000),
        ("plastic",),
        ("label", "stripes_across", "two_tone"),
        (("lying", 1.0),),
        weight=0.6,
    ),
    Family(
        "remote",
        "remote control",
        _remote,
        _build_remote,
        ("width", "height"),
        (500, 800),
        ("plastic",),
        ("plain",),
        (("flat", 1.0),),
        colours=("black", "grey", "white"),
        weight=0.3,
    ),
    Family(
        "wedge",
        "piece of cheese",
        _wedge,
        _build_wedge,
        ("width", "height"),
        (950, 1100),
        ("rubber",),
        ("speckle",),
        (("flat", 0.5), ("upright", 0.5)),
        colours=("yellow", "orange"),
        splits=("test",),
        weight=0.4,
    ),
)
