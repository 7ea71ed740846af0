"""The twin's cameras: where a point is seen, how deep, how noisy, whose it is, and what a picture costs."""

from __future__ import annotations

from dataclasses import replace

import mujoco
import numpy as np
import pytest
from dexloop.hardware.clock import NS
from dexloop.hardware.description import START_ARM_Q
from dexloop.hardware.errors import DeviceError
from dexloop.hardware.geometry import Transform, inverse, transform
from dexloop.hardware.rig import DEXGRASPVLA_RIG, HEAD_D435, WRIST_D405
from dexloop.hardware.twin.noise import measured_depth
from dexloop.hardware.twin.world import TwinConfig, TwinWorld
from dexloop.hardware.values import Frame
from hypothesis import given, settings
from hypothesis import strategies as st

EXACT = TwinConfig(depth_noise=False, segmentation=True)
BALLS = np.array([[0.30, -0.18, 0.05], [0.50, 0.16, 0.02], [0.38, 0.0, 0.15]])
BALL_RADIUS_M = 0.008


def balls(spec: mujoco.MjSpec) -> None:
    """Small balls hanging in the air, as free bodies; gravity is off."""
    spec.option.gravity = (0, 0, 0)
    for k, position in enumerate(BALLS):
        body = spec.worldbody.add_body(name=f"object_{k}", pos=position)
        body.add_freejoint()
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=(BALL_RADIUS_M, 0, 0), rgba=(1, 0, 0, 1))


def world_T_camera(world: TwinWorld, name: str) -> Transform:
    parent, parent_T_camera = world.cameras[name].pose()
    if parent == "world":
        return parent_T_camera
    mujoco.mj_kinematics(world.model, world.data)
    flange = world.data.site("flange")
    return transform(flange.xmat.reshape(3, 3), flange.xpos) @ parent_T_camera


@pytest.fixture(scope="module")
def seen() -> tuple[TwinWorld, Frame]:
    world = TwinWorld(EXACT, balls)
    return world, world.cameras["head"].latest()


def test_points_are_seen_at_their_pixels(seen: tuple[TwinWorld, Frame]) -> None:
    """Within a pixel of the pinhole model, depth within 1 mm of the ball's front."""
    world, frame = seen
    camera_T_world = inverse(world_T_camera(world, "head"))
    k = world.cameras["head"].intrinsics
    assert frame.segmentation is not None
    assert frame.depth_m is not None
    for index, ball in enumerate(BALLS):
        x, y, z = (camera_T_world @ [*ball, 1])[:3]
        rows, columns = np.nonzero(frame.segmentation == index + 1)
        assert columns.mean() == pytest.approx(k.fx * x / z + k.cx, abs=1.0)
        assert rows.mean() == pytest.approx(k.fy * y / z + k.cy, abs=1.0)
        nearest = frame.depth_m[rows, columns].min()
        assert nearest == pytest.approx(z - BALL_RADIUS_M, abs=1e-3)


def test_table_depth_is_exact(seen: tuple[TwinWorld, Frame]) -> None:
    """Back-projected, every table pixel lies on the table's plane within 1 mm."""
    world, frame = seen
    k = world.cameras["head"].intrinsics
    rows, columns = np.mgrid[100:400:7, 60:420:7]
    assert frame.depth_m is not None
    z = frame.depth_m[rows, columns].astype(float)
    points = np.stack([(columns - k.cx) / k.fx * z, (rows - k.cy) / k.fy * z, z, np.ones_like(z)], -1)
    height = (points @ world_T_camera(world, "head").T)[..., 2]
    on_table = frame.segmentation[rows, columns] == 0
    assert on_table.mean() > 0.9
    assert np.abs(height[on_table]).max() < 1e-3


def test_wrist_camera_moves_with_the_hand_and_sees_the_grasp() -> None:
    """The middle between opposed thumb and fingers lies inside its picture, for every arm pose."""
    world = TwinWorld(EXACT, balls)
    palm_T_center = np.array([0.135, 0.0, -0.055, 1.0])
    k = world.cameras["wrist"].intrinsics
    camera_T_palm = inverse(WRIST_D405.parent_T_camera) @ DEXGRASPVLA_RIG.arms[0].flange_T_palm
    x, y, z = (camera_T_palm @ palm_T_center)[:3]
    assert 0.15 * k.width < k.fx * x / z + k.cx < 0.85 * k.width
    assert 0.15 * k.height < k.fy * y / z + k.cy < 0.85 * k.height
    assert WRIST_D405.near_m < z < 0.5
    world.set_object_pose(0, world_T_camera(world, "wrist") @ transform(translation=np.array([0.01, 0.02, 0.2])))
    frame = world.cameras["wrist"].latest()
    rows, columns = np.nonzero(frame.segmentation == 1)
    assert columns.mean() == pytest.approx(k.fx * 0.05 + k.cx, abs=1.0)
    assert rows.mean() == pytest.approx(k.fy * 0.10 + k.cy, abs=1.0)


def test_head_camera_sees_the_whole_object_area_and_the_bins_edge() -> None:
    k = HEAD_D435.intrinsics
    x0, x1, y0, y1 = DEXGRASPVLA_RIG.object_area_m
    bin_x, bin_y, bin_z = DEXGRASPVLA_RIG.bin_center_m
    _, width, depth = DEXGRASPVLA_RIG.bin_size_m
    points = [(x, y, z) for x in (x0, x1) for y in (y0, y1) for z in (0.0, 0.15)]
    points.append((bin_x, bin_y + width / 2, bin_z + depth))
    for point in points:
        x, y, z = (inverse(HEAD_D435.parent_T_camera) @ [*point, 1])[:3]
        assert 0 < k.fx * x / z + k.cx < k.width, point
        assert 0 < k.fy * y / z + k.cy < k.height, point


def test_segmentation_names_robot_objects_and_nothing(seen: tuple[TwinWorld, Frame]) -> None:
    _, frame = seen
    assert set(np.unique(frame.segmentation)) == {-1, 0, 1, 2, 3}


def test_smooth_edges_leave_depth_and_segmentation_as_they_are(seen: tuple[TwinWorld, Frame]) -> None:
    _, plain = seen
    smooth = TwinWorld(replace(EXACT, antialias=True), balls).cameras["head"].latest()
    np.testing.assert_array_equal(smooth.depth_m, plain.depth_m)
    np.testing.assert_array_equal(smooth.segmentation, plain.segmentation)
    assert (smooth.rgb != plain.rgb).any()


def test_other_sizes_show_the_same_view() -> None:
    big = TwinWorld(EXACT, balls).cameras["head"].latest()
    camera = TwinWorld(replace(EXACT, camera_size=(160, 120)), balls).cameras["head"]
    small = camera.latest()
    assert small.rgb.shape == (120, 160, 3)
    assert camera.intrinsics.fx == pytest.approx(HEAD_D435.intrinsics.fx / 4)
    for index in (1, 2, 3):
        fine = np.argwhere(big.segmentation == index).mean(0)
        coarse = np.argwhere(small.segmentation == index).mean(0)
        np.testing.assert_allclose((fine + 0.5) / 4 - 0.5, coarse, atol=0.6)


def test_only_what_is_asked_for_is_drawn() -> None:
    world = TwinWorld(TwinConfig(depth=False, camera_size=(64, 48)))
    frame = world.cameras["head"].latest()
    assert frame.depth_m is None
    assert frame.segmentation is None


def test_a_camera_that_nobody_watches_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = TwinWorld(TwinConfig(camera_size=(64, 48)))
    drawn: list[str] = []
    draw = world.draw
    monkeypatch.setattr(world, "draw", lambda name, *rest: drawn.append(name) or draw(name, *rest))
    unsubscribe = world.cameras["wrist"].subscribe(lambda _: None)
    world.clock.sleep_until_ns(NS // 10)
    assert drawn == ["wrist"] * 4  # t = 0 and three more
    unsubscribe()
    world.clock.sleep_until_ns(NS)
    assert len(drawn) == 4
    world.cameras["head"].latest()
    world.cameras["head"].latest()
    assert drawn[4:] == ["head"]


def test_a_lazy_picture_shows_the_moment_of_its_exposure() -> None:
    """``latest`` draws later, but what was there when it was exposed."""
    watched, lazy = (TwinWorld(replace(EXACT, camera_size=(160, 120)), balls) for _ in range(2))
    for world in (watched, lazy):
        world.data.joint(world.model.body("object_0").jntadr[0]).qvel[0] = 0.5
    frames: list[Frame] = []
    watched.cameras["head"].subscribe(frames.append)
    for world in (watched, lazy):
        world.clock.sleep_until_ns(110_000_000)  # an exposure at 100 ms
    late = lazy.cameras["head"].latest()
    assert late.captured_ns == frames[-1].captured_ns == 100_000_000
    np.testing.assert_array_equal(late.rgb, frames[-1].rgb)
    np.testing.assert_array_equal(late.depth_m, frames[-1].depth_m)


def test_receivers_own_their_frames() -> None:
    world = TwinWorld(TwinConfig(camera_size=(64, 48)))
    first, second = [], []
    world.cameras["head"].subscribe(first.append)
    world.cameras["head"].subscribe(second.append)
    world.clock.sleep_until_ns(1)
    first[0].rgb[:] = 0
    assert second[0].rgb.any()
    assert world.cameras["head"].latest().rgb.any()


def test_closed_camera_says_so() -> None:
    world = TwinWorld(TwinConfig(camera_size=(64, 48)))
    world.close()
    world.close()
    with pytest.raises(DeviceError, match="closed"):
        world.cameras["head"].latest()


@settings(max_examples=15)
@given(st.sampled_from([(HEAD_D435, 0.4), (HEAD_D435, 0.6), (HEAD_D435, 1.2), (WRIST_D405, 0.1), (WRIST_D405, 0.3)]))
def test_depth_noise_follows_the_formula(case) -> None:
    """sigma_z = Z^2 s / (f B) on a flat wall, plus the rounding to the depth unit."""
    camera, depth = case
    wall = np.full((240, 320), depth, np.float32)
    noisy = measured_depth(wall, camera, camera.intrinsics, np.random.default_rng(0))
    valid = noisy > 0
    assert 0.995 < valid.mean() < 1.0
    sigma = depth**2 * camera.disparity_noise_px / (camera.depth_focal_px * camera.baseline_m)
    expected = np.hypot(sigma, camera.depth_unit_m / np.sqrt(12))
    assert noisy[valid].std() == pytest.approx(expected, rel=0.03)
    assert noisy[valid].mean() == pytest.approx(depth, abs=0.1 * sigma + 1e-5)
    counts = noisy[valid] / camera.depth_unit_m
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-2)


def test_depth_has_holes_where_a_stereo_camera_has_none() -> None:
    """Too near, too far, and in the shadow left of a near object's edge, as wide as the difference of disparities."""
    wall = np.full((100, 640), 1.0, np.float32)
    wall[:, 300:400] = 0.5
    rng = np.random.default_rng(0)
    noisy = measured_depth(wall, HEAD_D435, HEAD_D435.intrinsics, rng)
    shift = HEAD_D435.intrinsics.fx * HEAD_D435.baseline_m * (1 / 0.5 - 1 / 1.0)  # px
    shadow = (noisy[:, 200:300] == 0).mean(0) > 0.9
    assert shadow.sum() == pytest.approx(shift, abs=2)
    assert (noisy[:, 402:500] > 0).mean() > 0.99
    assert not measured_depth(wall * 0.1, HEAD_D435, HEAD_D435.intrinsics, rng).any()
    assert not measured_depth(wall * 10, HEAD_D435, HEAD_D435.intrinsics, rng).any()


def test_noise_is_the_frames_own() -> None:
    """The same frame of the same seed has the same noise, whoever asks for it and when; the next one another."""

    def depth(seed: int, at_ns: int) -> np.ndarray:
        world = TwinWorld(TwinConfig(camera_size=(64, 48), seed=seed))
        world.clock.sleep_until_ns(at_ns)
        frame = world.cameras["head"].latest()
        assert frame.depth_m is not None
        return frame.depth_m

    np.testing.assert_array_equal(depth(1, 50_000_000), depth(1, 50_000_000))
    assert (depth(1, 50_000_000) != depth(2, 50_000_000)).any()
    assert (depth(1, 50_000_000) != depth(1, 90_000_000)).any()


def test_start_pose_leaves_the_object_area_in_view() -> None:
    """The arm at its start pose hides none of the area from the head camera."""
    world = TwinWorld(replace(EXACT, cameras=("head",)))
    world.set_arm_and_hand(np.array(START_ARM_Q), np.ones(6))
    frame = world.cameras["head"].latest()
    k, camera_T_world = HEAD_D435.intrinsics, inverse(HEAD_D435.parent_T_camera)
    x0, x1, y0, y1 = DEXGRASPVLA_RIG.object_area_m
    for px in np.linspace(x0, x1, 9):
        for py in np.linspace(y0, y1, 9):
            x, y, z = (camera_T_world @ [px, py, 0, 1])[:3]
            assert frame.segmentation[round(k.fy * y / z + k.cy), round(k.fx * x / z + k.cx)] == 0
