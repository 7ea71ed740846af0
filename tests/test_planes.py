"""One fit of planes for the planner, the check of boxes and the masks."""

from __future__ import annotations

import numpy as np
import pytest
from dexloop.deploy.masks.appearance import fit_plane as masks_plane
from dexloop.deploy.planner.table import fit_plane as world_plane
from dexloop.deploy.planner.table import unproject
from dexloop.deploy.planner.vlm_checks import table_depth
from dexloop.deploy.table import plane_in, plane_of, refined, through_three
from dexloop.hardware.errors import BadInput
from dexloop.hardware.geometry import apply
from dexloop.hardware.rig import DEXGRASPVLA_RIG
from hypothesis import given, settings
from hypothesis import strategies as st

SIGMA_PER_M = 0.002


def slanted(a: float, b: float, c: float, noise_m: float, seed: int, shape: tuple[int, int] = (120, 160)) -> np.ndarray:
    """Depth (H, W) m of the plane 1 / z = a u + b v + c, with noise."""
    v, u = np.mgrid[0 : shape[0], 0 : shape[1]]
    true = 1.0 / (a * u + b * v + c)
    return (true + np.random.default_rng(seed).normal(0, noise_m, shape)).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(st.floats(-3e-4, 3e-4), st.floats(-3e-4, 3e-4), st.floats(0.8, 1.6), st.floats(0.0, 0.5), st.integers(0, 99))
def test_clutter_is_left_out(a: float, b: float, c: float, clutter: float, seed: int) -> None:
    depth, true = slanted(a, b, c, 0.001, seed), slanted(a, b, c, 0.0, 0)
    rows = int(clutter * len(depth))
    depth[:rows] -= np.random.default_rng(seed).uniform(0.02, 0.2, depth[:rows].shape).astype(np.float32)
    depth[::7, ::5] = 0.0
    plane = plane_in(depth, 0.006)
    assert plane is not None
    assert np.abs(plane.picture(*depth.shape) - true).max() < 0.004
    assert plane.share > 0.4
    assert plane.noise_m < 0.003


def test_all_who_fit_a_plane_find_the_same() -> None:
    camera = DEXGRASPVLA_RIG.camera("head")
    k = camera.intrinsics.scaled(160, 120)
    normal, up = camera.parent_T_camera[:3, :3].T @ (0, 0, 1), camera.parent_T_camera[2, 3]
    rays = unproject(np.ones((120, 160), np.float32), k)
    true = (-up / (rays @ normal)).astype(np.float32)
    depth = (true + np.random.default_rng(0).normal(0, 0.001, true.shape)).astype(np.float32)
    depth[40:60, 50:90] -= 0.06
    everywhere = np.ones(depth.shape, bool)
    by_masks, by_boxes = masks_plane(depth, everywhere, camera), table_depth(depth)
    assert by_masks is not None
    assert by_boxes is not None
    plane = world_plane(apply(camera.parent_T_camera, unproject(depth, k).astype(float)).reshape(-1, 3))
    assert plane.tilt_rad < 0.003
    assert abs(plane.offset_m) < 0.002
    assert np.abs(by_masks - true).max() < 0.002
    assert np.abs(by_boxes.picture(120, 160) - true).max() < 0.002


def test_no_plane_where_there_is_none() -> None:
    rng = np.random.default_rng(0)
    scattered = rng.uniform(0.3, 2.0, (60, 80)).astype(np.float32)
    assert table_depth(scattered) is None
    assert plane_in(np.zeros((60, 80), np.float32), 0.006) is None
    assert plane_of(scattered, np.zeros(scattered.shape, bool), SIGMA_PER_M) is None
    with pytest.raises(BadInput, match="both alike"):
        plane_of(scattered, np.ones((3, 4), bool), SIGMA_PER_M)


def test_a_plane_behind_the_camera_is_at_infinity() -> None:
    plane = plane_in(slanted(0.0, 4e-3, 0.6, 0.0005, 1), 0.006)
    assert plane is not None
    assert plane(np.array([0]), np.array([-400]))[0] == np.inf


def test_three_points_in_line_make_no_plane() -> None:
    line = np.column_stack([np.linspace(0, 1, 200), np.linspace(0, 2, 200), np.ones(200)])
    assert through_three(line, np.zeros(200), np.full(1, 0.01)) is None
    assert refined(line, np.zeros(200), np.full(1, 0.01), np.zeros(200, bool), (1.0,)) is None
    steep = np.column_stack([np.random.default_rng(0).random((200, 2)), np.ones(200)])
    assert through_three(steep, 5 * steep[:, 0], np.full(1, 0.01), steepest=1.0) is None
