"""The light on the table, as the offline planner judges it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from dexloop.deploy.planner.light import Light
from dexloop.deploy.planner.table import TableFinder
from dexloop.hardware.rig import DEXGRASPVLA_RIG
from dexloop.tests.test_table import disc, look_of, slab
from hypothesis import given, settings
from hypothesis import strategies as st

THINGS = [(slab(0.45, -0.10, 0.12, 0.06), 0.05, (200, 30, 30)), (disc(0.35, 0.10, 0.04), 0.08, (30, 60, 200))]
LOOK = look_of(THINGS)
TABLE = TableFinder(DEXGRASPVLA_RIG).find(LOOK)
FLAT = TABLE.on_table & (np.abs(np.nan_to_num(TABLE.height_m, nan=1.0)) < 0.006)


def lit(falloff: np.ndarray) -> np.ndarray:
    """The picture with its light multiplied by exp(falloff x) (3 channels), x the place on the table in m from its
    middle."""
    linear = (LOOK.head / 255.0) ** 2.2 * np.exp((TABLE.points[..., :1] - 0.4) * falloff)
    return np.clip(255.0 * np.clip(linear, 0, 1) ** (1 / 2.2), 0, 255).round().astype(np.uint8)


@settings(max_examples=15, deadline=None)
@given(st.tuples(*[st.floats(-2.5, 2.5)] * 3).map(np.array))
def test_uneven_light_is_evened_out(falloff: np.ndarray) -> None:
    rgb = lit(falloff)
    light = Light.of(rgb, TABLE)
    even = light.balanced(rgb, TABLE)
    assert even[FLAT].astype(float).std(0).max() < max(4.0, 0.3 * rgb[FLAT].astype(float).std(0).max())
    # What is said of a place: the logarithm of its light, against the table's median.
    near, far = light.at(np.array([0.3, 0.0, 0.0]))[:3], light.at(np.array([0.5, 0.0, 0.0]))[:3]
    dark = rgb[FLAT].min(0) < 20  # a channel that is nearly black tells little
    assert np.allclose((far - near)[~dark], 0.2 * falloff[~dark], atol=0.08)


def test_even_light_is_left_alone() -> None:
    light = Light.of(LOOK.head, TABLE)
    assert np.abs(light.balanced(LOOK.head, TABLE).astype(int) - light.balanced(LOOK.head)).max() <= 4
    assert light.spread.max() < 0.05


def test_where_hardly_any_table_shows_nothing_is_said_of_it() -> None:
    light = Light.of(LOOK.head, replace(TABLE, on_table=np.zeros_like(TABLE.on_table)))
    assert not light.field.any()
    assert not light.spread.any()
    assert np.array_equal(light.balanced(LOOK.head, TABLE), light.balanced(LOOK.head))


def test_what_has_no_depth_keeps_its_colour() -> None:
    rgb = lit(np.array([2.0, 0.0, -2.0]))
    table = replace(TABLE, valid=TABLE.valid & (TABLE.points[..., 0] < 0.4))
    light = Light.of(rgb, TABLE)
    blind = ~table.valid
    assert np.array_equal(light.balanced(rgb, table)[blind], light.balanced(rgb)[blind])
