"""Tracking without weights, in pictures made here: a ball on a textured table, and the robot's own silhouette over it.

The pictures are drawn by ray casting, with a stereo camera's depth noise: no simulator is needed to know the truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from dexloop.deploy.masks.base import TargetMask, check_box
from dexloop.deploy.masks.segment import SegmentConfig, segment_box
from dexloop.deploy.masks.silhouette import Silhouette
from dexloop.deploy.masks.tracker import RigidTracker, TrackerConfig
from dexloop.hardware.description import GO_R, OPEN_HAND, START_ARM_Q
from dexloop.hardware.errors import BadInput
from dexloop.hardware.geometry import inverse, rot_y, transform
from dexloop.hardware.kinematics import ArmKinematics
from dexloop.hardware.rig import DEXGRASPVLA_RIG, HEAD_D435
from hypothesis import given, settings
from hypothesis import strategies as st

WIDTH, HEIGHT = 320, 240
RADIUS_M = 0.035
SPOT = np.array([0.38, -0.03, RADIUS_M])
AWAY = np.array([*START_ARM_Q, *OPEN_HAND])
_CAMERA = HEAD_D435.intrinsics.scaled(WIDTH, HEIGHT)
_SILHOUETTE = Silhouette()
_ARM = ArmKinematics()
_MOUNT = DEXGRASPVLA_RIG.arms[0]


@dataclass(frozen=True)
class Scene:
    """A picture and its truth."""

    rgb: np.ndarray
    depth_m: np.ndarray
    visible: np.ndarray
    amodal: np.ndarray

    @property
    def box(self) -> tuple[float, float, float, float]:
        rows, columns = np.nonzero(self.amodal)
        return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def scene(centre: np.ndarray | None, state: np.ndarray = AWAY, seed: int = 0, red: bool = True) -> Scene:
    """A ball at ``centre`` (3,) m in the world, or none."""
    rng = np.random.default_rng(seed)
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    rays = np.stack([(u - _CAMERA.cx) / _CAMERA.fx, (v - _CAMERA.cy) / _CAMERA.fy, np.ones(u.shape)], -1)
    world_T_camera = HEAD_D435.parent_T_camera
    eye, down = world_T_camera[:3, 3], rays @ world_T_camera[:3, :3].T
    depth = -eye[2] / down[..., 2]
    at = eye + down * depth[..., None]
    checks = (np.floor(at[..., 0] / 0.03) + np.floor(at[..., 1] / 0.03)) % 2
    rgb = np.array([150.0, 130, 105]) + 25 * checks[..., None]
    amodal = np.zeros(depth.shape, bool)
    if centre is not None:
        middle = _SILHOUETTE.camera_T_world[:3, :3] @ centre + _SILHOUETTE.camera_T_world[:3, 3]
        b, a = rays @ middle, np.square(rays).sum(-1)
        root = b * b - a * (middle @ middle - RADIUS_M**2)
        amodal = root > 0
        near = np.where(amodal, (b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
        depth = np.where(amodal, near, depth)
        shade = 0.6 + 0.4 * np.clip((middle[2] - near) / RADIUS_M, 0, 1)
        colour = np.array([190.0, 40, 40]) if red else np.array([165.0, 142, 116])
        rgb = np.where(amodal[..., None], colour * np.where(amodal, shade, 0)[..., None], rgb)
    robot = _SILHOUETTE.draw(state, _CAMERA)
    hidden = robot < depth
    depth = np.where(hidden, robot, depth)
    rgb = np.where(hidden[..., None], np.array([55.0, 57, 60]), rgb)
    sigma = depth**2 * HEAD_D435.disparity_noise_px / (HEAD_D435.depth_focal_px * HEAD_D435.baseline_m)
    measured = np.round((depth + sigma * rng.standard_normal(depth.shape)) * 1000) / 1000
    measured[rng.random(depth.shape) < 0.01] = 0
    rgb = np.clip(rgb + rng.normal(0, 3, rgb.shape), 0, 255).astype(np.uint8)
    return Scene(rgb, measured.astype(np.float32), amodal & ~hidden, amodal)


def hand_over(point: np.ndarray, opening: float, up_m: float = 0.0) -> np.ndarray:
    """A state whose palm stands behind the point, fingers forward and down, (13,)."""
    rotation = rot_y(np.deg2rad(40))
    grip = np.array([0.11, 0.0, -0.05])  # of the palm: between fingers and thumb
    world_T_palm = transform(rotation, point + [0, 0, up_m] - rotation @ grip)
    base_T_flange = inverse(_MOUNT.world_T_base) @ world_T_palm @ inverse(_MOUNT.flange_T_palm)
    answer = _ARM.ik(base_T_flange, START_ARM_Q)
    assert answer.position_error_m < 0.02
    return np.array([*answer.q, *[opening] * 5, 1.0])


def j(found: np.ndarray, true: np.ndarray) -> float:
    return float((found & true).sum() / max(1, (found | true).sum()))


def begin(first: Scene) -> RigidTracker:
    tracker = RigidTracker()
    answer = tracker.start(first.rgb, first.depth_m, first.box, AWAY)
    assert j(answer.visible, first.visible) > 0.9
    return tracker


# -- segmentation ------------------------------------------------------------------------------------------------------


@settings(max_examples=12)
@given(st.floats(0.28, 0.5), st.floats(-0.12, 0.15), st.floats(-0.1, 0.1), st.integers(0, 5))
def test_a_box_becomes_a_mask_though_it_is_loose(x: float, y: float, slack: float, seed: int) -> None:
    made = scene(np.array([x, y, RADIUS_M]), seed=seed)
    x0, y0, x1, y1 = made.box
    wide = slack * (x1 - x0)
    mask = segment_box(made.rgb, made.depth_m, (x0 - wide, y0 - wide, x1 + wide, y1 + wide))
    assert j(mask, made.visible) > 0.85


def test_colour_tells_without_depth() -> None:
    made = scene(SPOT)
    assert j(segment_box(made.rgb, np.zeros_like(made.depth_m), made.box), made.visible) > 0.85


def test_depth_tells_where_colours_are_alike() -> None:
    made = scene(SPOT, red=False)
    assert j(segment_box(made.rgb, made.depth_m, made.box), made.visible) > 0.7


def test_pixels_of_the_robot_are_left_out() -> None:
    made = scene(SPOT)
    robot = np.zeros(made.visible.shape, bool)
    robot[:, : int(made.box[0] + made.box[2]) // 2] = True
    mask = segment_box(made.rgb, made.depth_m, made.box, robot)
    assert not (mask & robot).any()
    assert j(mask, made.visible & ~robot) > 0.8


@pytest.mark.parametrize("box", [(10, 10, 10, 40), (400, 10, 500, 40), (float("nan"), 0, 5, 5), (30, 30, 20, 20)])
def test_a_box_without_pixels_is_refused(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(BadInput, match="box"):
        check_box(box, HEIGHT, WIDTH)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(BadInput, match="rounds"):
        SegmentConfig(rounds=0)
    with pytest.raises(BadInput, match=r"0\.\.1"):
        TrackerConfig(lost=1.5)
    with pytest.raises(ValueError, match="occluded"):
        TargetMask(np.zeros((2, 2), bool), np.zeros((2, 2), bool), 1.5, 1.0)


# -- tracking ----------------------------------------------------------------------------------------------------------


def test_a_target_at_rest_stays() -> None:
    tracker = begin(scene(SPOT))
    for seed in range(1, 6):
        made = scene(SPOT, seed=seed)
        found = tracker.update(made.rgb, made.depth_m, AWAY)
        assert j(found.visible, made.visible) > 0.88
        assert found.confidence > 0.8
        assert found.occluded < 0.1


def test_what_the_hand_covers_is_occluded_not_gone() -> None:
    tracker = begin(scene(SPOT))
    state = hand_over(SPOT, 1.0)
    for seed in range(1, 5):
        made = scene(SPOT, state, seed)
        found = tracker.update(made.rgb, made.depth_m, state)
    true = 1 - made.visible.sum() / made.amodal.sum()
    assert true > 0.3  # the case is one
    assert abs(found.occluded - true) < 0.15
    assert j(found.amodal, made.amodal) > 0.85
    assert not (found.visible & ~found.amodal).any()
    if made.visible.sum() > 30:
        assert j(found.visible, made.visible) > 0.7


@pytest.mark.parametrize("step_m", [0.006, 0.02])
def test_a_target_that_is_pushed_is_followed(step_m: float) -> None:
    tracker, at = begin(scene(SPOT)), SPOT.copy()
    for seed in range(1, 8):
        at = at + [0, step_m, 0]
        made = scene(at, seed=seed)
        found = tracker.update(made.rgb, made.depth_m, AWAY)
    assert j(found.visible, made.visible) > 0.7
    assert not found.lost


def test_a_lifted_target_goes_with_the_palm() -> None:
    tracker = begin(scene(SPOT))
    for seed, opening in enumerate(np.linspace(1.0, 0.4, 6), 1):
        state = hand_over(SPOT, float(opening))
        made = scene(SPOT, state, seed)
        tracker.update(made.rgb, made.depth_m, state)
    for seed, up_m in enumerate(np.linspace(0.01, 0.12, 12), 10):
        state = hand_over(SPOT, 0.4, float(up_m))
        made = scene(SPOT + [0, 0, up_m], state, seed)
        found = tracker.update(made.rgb, made.depth_m, state)
    assert j(found.amodal, made.amodal) > 0.6
    assert j(found.amodal, scene(SPOT).amodal) < 0.5  # it did not stay behind
    assert not found.lost


def test_a_target_that_stays_behind_an_opened_hand_is_not_carried() -> None:
    tracker = begin(scene(SPOT))
    for seed, up_m in enumerate([0.0, 0.0, 0.02, 0.05, 0.09, 0.13], 1):
        state = hand_over(SPOT, 1.0, up_m)
        made = scene(SPOT, state, seed)
        found = tracker.update(made.rgb, made.depth_m, state)
    assert j(found.amodal, made.amodal) > 0.8


def test_a_target_taken_away_is_lost() -> None:
    tracker = begin(scene(SPOT))
    for seed in range(1, 10):
        made = scene(None, seed=seed)
        found = tracker.update(made.rgb, made.depth_m, AWAY)
    assert found.lost
    assert found.visible.sum() < 30


def test_the_same_pictures_get_the_same_masks() -> None:
    def follow() -> np.ndarray:
        tracker = begin(scene(SPOT))
        return np.stack(
            [tracker.update(s.rgb, s.depth_m, AWAY).visible for s in (scene(SPOT + [0, k / 100, 0]) for k in range(4))]
        )

    np.testing.assert_array_equal(follow(), follow())


def test_pictures_that_do_not_fit_are_refused() -> None:
    made = scene(SPOT)
    with pytest.raises(BadInput, match="start"):
        RigidTracker().update(made.rgb, made.depth_m, AWAY)
    tracker = begin(made)
    with pytest.raises(BadInput, match="start again"):
        tracker.update(made.rgb[::2, ::2], made.depth_m[::2, ::2], AWAY)
    with pytest.raises(BadInput, match="align"):
        tracker.update(made.rgb, made.depth_m[::2], AWAY)
    with pytest.raises(BadInput, match="13 finite"):
        tracker.update(made.rgb, made.depth_m, AWAY[:7])
    with pytest.raises(BadInput, match="uint8"):
        tracker.start(made.rgb.astype(float), made.depth_m, made.box, AWAY)


def test_a_box_of_bare_table_is_refused() -> None:
    assert GO_R.motors  # the rig that the pictures are of
    made = scene(None)
    with pytest.raises(BadInput, match="no object"):
        RigidTracker().start(made.rgb, made.depth_m, (150, 110, 170, 130), AWAY)
