"""The table's plane, heights over it, clusters on it and the cuts between things that touch."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from dexloop.deploy.planner.attributes import colour_shares, describe
from dexloop.deploy.planner.base import FullLook, Look, PlannerError
from dexloop.deploy.planner.cuts import SegmentConfig, solidity
from dexloop.deploy.planner.light import Light
from dexloop.deploy.planner.segments import clusters, to_lab
from dexloop.deploy.planner.table import TableConfig, TableFinder, fit_plane, smoothed, unproject
from dexloop.hardware.description import START_ARM_Q
from dexloop.hardware.errors import BadInput
from dexloop.hardware.geometry import apply, inverse, rotation_exp
from dexloop.hardware.rig import DEXGRASPVLA_RIG
from hypothesis import given, settings
from hypothesis import strategies as st

STATE = np.array([*START_ARM_Q, *[1.0] * 6])
GROUND = (120, 100, 80)


def look_of(things: list[tuple], noise_m: float = 0.003, tilt_rad: float = 0.0, rise_m: float = 0.0) -> FullLook:
    """A drawn look: an empty table and upright prisms on it, each (outline (N, 2) m, height m, RGB); the far ones
    first. No robot is drawn. Depth as a D435 measures it."""
    camera = DEXGRASPVLA_RIG.camera("head")
    k, world_T_camera = camera.intrinsics, camera.parent_T_camera
    ones = np.ones((k.height, k.width), np.float32)
    rays = unproject(ones, k) @ world_T_camera[:3, :3].T  # z depth 1
    origin = world_T_camera[:3, 3]
    normal = rotation_exp(np.array([tilt_rad, 0.0, 0.0])) @ np.array([0.0, 0.0, 1.0])
    depth = (rise_m - origin @ normal) / (rays @ normal)
    rgb = np.broadcast_to(np.array(GROUND, np.uint8), (k.height, k.width, 3)).copy()
    for outline, height, colour in things:
        for level in np.linspace(0.0, height, 24):  # sides and top, as a stack of slices
            plane = (rise_m + level - origin @ normal) / (rays @ normal)
            points = np.column_stack([outline, np.full(len(outline), rise_m + level)])
            seen = apply(inverse(world_T_camera), points)
            pixels = np.round(seen[:, :2] / seen[:, 2:] * (k.fx, k.fy) + (k.cx, k.cy)).astype(np.int32)
            canvas = np.zeros((k.height, k.width), np.uint8)
            cv2.fillPoly(canvas, [pixels], 1)
            inside = canvas.astype(bool)
            depth[inside] = np.minimum(depth[inside], plane[inside])
            rgb[inside] = colour
    rng = np.random.default_rng(0)
    measured = np.round(depth + noise_m * rng.standard_normal(depth.shape), 3).astype(np.float32)
    measured[rng.random(depth.shape) < 0.002] = 0.0
    blank = np.zeros((480, 640), np.float32)
    return FullLook(0, rgb, measured, STATE, wrist=np.zeros((480, 640, 3), np.uint8), wrist_depth_m=blank)


def disc(x: float, y: float, radius: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], -1)


def slab(x: float, y: float, length: float, width: float) -> np.ndarray:
    return np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (length / 2, width / 2) + (x, y)


@settings(max_examples=25, deadline=None)
@given(
    st.floats(-0.02, 0.02), st.floats(-0.02, 0.02), st.floats(-0.02, 0.02), st.floats(0.0, 0.4),
    st.integers(0, 1000),
)  # fmt: skip
def test_plane_is_found_among_objects(tilt_x: float, tilt_y: float, offset: float, clutter: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = np.column_stack([rng.uniform(0, 1, (4000, 2)), rng.normal(0, 0.003, 4000)])
    points[: int(clutter * 4000), 2] += rng.uniform(0.02, 0.045, int(clutter * 4000))
    turn = rotation_exp(np.array([tilt_x, tilt_y, 0.0]))
    plane = fit_plane(points @ turn.T + (0, 0, offset))
    assert np.arccos(np.clip(plane.normal @ turn[:, 2], -1, 1)) < 0.006
    centre = turn @ np.array([0.5, 0.5, 0.0]) + (0, 0, offset)
    assert abs(plane.height(centre)) < 0.0015


def test_no_plane_is_an_error() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(PlannerError, match="no plane|clear the view"):
        fit_plane(rng.uniform(-1, 1, (4000, 3)) * (0.5, 0.5, 2.0))
    with pytest.raises(PlannerError, match="covered"):
        fit_plane(np.zeros((10, 3)))
    with pytest.raises(BadInput, match=r"\(N, 3\)"):
        fit_plane(np.zeros((10, 2)))


@pytest.mark.parametrize(("width", "scatter_m"), [(640, 0.0012), (320, 0.0016)])
def test_smoothing_keeps_holes_and_edges(width: int, scatter_m: float) -> None:
    rng = np.random.default_rng(1)
    depth = np.where(np.arange(width) < 40, 0.8, 0.6)[None] + 0.003 * rng.standard_normal((60, width))
    depth = depth.astype(np.float32)
    depth[10:14, 30:50] = 0.0
    out = smoothed(depth)
    assert np.array_equal(out == 0, depth == 0)
    assert np.std(out[20:, 5:35]) < scatter_m
    assert abs(out[30, 38] - 0.8) < 0.005
    assert abs(out[30, 41] - 0.6) < 0.005


def test_a_thin_shaft_outlives_smoothing_in_a_small_picture() -> None:
    depth = np.full((60, 320), 0.8, np.float32)
    depth[30:32, 100:200] = 0.79
    assert np.allclose(smoothed(depth)[30:32, 110:190], 0.79)


def test_things_are_measured_on_a_table_that_is_not_where_it_should_be() -> None:
    things_there = [(slab(0.45, -0.10, 0.12, 0.06), 0.05, (200, 30, 30)), (disc(0.35, 0.10, 0.04), 0.08, (30, 60, 200))]
    look = look_of(things_there, tilt_rad=0.012, rise_m=0.006)
    table = TableFinder(DEXGRASPVLA_RIG).find(look)
    assert abs(table.plane.tilt_rad - 0.012) < 0.003
    things = describe(clusters(table, to_lab(look.head)), to_lab(look.head), Light.of(look.head, table))
    by_colour = {thing.colour: thing for thing in things}
    assert set(by_colour) == {"red", "blue"}
    box, cup = by_colour["red"], by_colour["blue"]
    assert np.allclose(box.centroid_m[:2], (0.45, -0.10), atol=0.015)
    assert np.allclose((box.length_m, box.width_m, box.height_m), (0.12, 0.06, 0.05), atol=0.02)
    assert np.allclose(cup.centroid_m[:2], (0.35, 0.10), atol=0.015)
    assert cup.shape_fit("round") > 0.6 > box.shape_fit("round")
    assert box.shape_fit("square") > 0.6


@pytest.mark.parametrize("height", [0.012, 0.02])
def test_a_pen_is_seen(height: float) -> None:
    look = look_of([(slab(0.4, 0.0, 0.14, 0.014), height, (30, 120, 40))])
    found = clusters(TableFinder(DEXGRASPVLA_RIG).find(look), to_lab(look.head))
    assert len(found) == 1
    assert found[0].box[3] - found[0].box[1] > 80


def test_an_empty_table_has_nothing_on_it() -> None:
    look = look_of([])
    assert clusters(TableFinder(DEXGRASPVLA_RIG).find(look), to_lab(look.head)) == ()


def test_touching_things_are_two_and_a_bottle_is_one() -> None:
    touching = look_of([(disc(0.40, 0.04, 0.04), 0.06, (200, 30, 30)), (disc(0.40, -0.04, 0.04), 0.06, (30, 60, 200))])
    assert len(clusters(TableFinder(DEXGRASPVLA_RIG).find(touching), to_lab(touching.head))) == 2
    body, neck = slab(0.40, 0.0, 0.07, 0.14), slab(0.40, 0.09, 0.03, 0.06)
    bottle = look_of([(body, 0.06, (30, 120, 40)), (neck, 0.045, (30, 120, 40))])
    assert len(clusters(TableFinder(DEXGRASPVLA_RIG).find(bottle), to_lab(bottle.head))) == 1


def test_solidity() -> None:
    full = np.zeros((60, 60), bool)
    full[10:50, 10:50] = True
    assert solidity(full) > 0.99
    full[10:30, 30:50] = False
    assert 0.7 < solidity(full) < 0.9


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
def test_colour_shares_add_up(r: int, g: int, b: int) -> None:
    shares = colour_shares(to_lab(np.full((5, 3), (r, g, b), np.uint8)))
    assert abs(sum(shares.values()) - 1.0) < 1e-5
    assert min(shares.values()) >= 0.0


@pytest.mark.parametrize(
    ("name", "rgb"),
    [("red", (150, 25, 25)), ("green", (40, 110, 45)), ("blue", (25, 50, 140)), ("yellow", (190, 160, 30)),
     ("orange", (185, 95, 15)), ("white", (190, 190, 186)), ("black", (18, 18, 20)), ("grey", (100, 102, 106)),
     ("brown", (85, 52, 27)), ("pink", (185, 100, 130)), ("purple", (88, 35, 118)), ("turquoise", (32, 135, 140))],
)  # fmt: skip
def test_colour_words(name: str, rgb: tuple[int, int, int]) -> None:
    shares = colour_shares(to_lab(np.array([rgb] * 4, np.uint8)))
    assert max(shares, key=lambda word: shares[word]) == name


def test_bad_settings_and_bad_looks_are_refused() -> None:
    with pytest.raises(BadInput, match="inlier_m"):
        TableConfig(inlier_m=-1.0)
    with pytest.raises(BadInput, match="grow_m"):
        SegmentConfig(grow_m=0.02)
    look = look_of([])
    with pytest.raises(BadInput, match="aligned"):
        TableFinder(DEXGRASPVLA_RIG).find(Look(0, look.head, look.head_depth_m[::2], look.state))
    with pytest.raises(PlannerError, match="covered"):
        TableFinder(DEXGRASPVLA_RIG).find(Look(0, look.head, np.zeros_like(look.head_depth_m), look.state))
