"""The robot's silhouette by kinematics: its own points are in it, a window of it is a window, and the twin agrees."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from dexloop.deploy.masks.silhouette import Silhouette
from dexloop.hardware.collision import CollisionModel
from dexloop.hardware.description import OPEN_HAND, RETURN_ARM_Q, START_ARM_Q
from dexloop.hardware.errors import BadInput
from dexloop.hardware.rig import DEXGRASPVLA_RIG, HEAD_D435
from hypothesis import given, settings
from hypothesis import strategies as st

SIZE = HEAD_D435.intrinsics.scaled(320, 240)
SILHOUETTE = Silhouette()
MODEL = CollisionModel(DEXGRASPVLA_RIG)


@st.composite
def _states(draw: st.DrawFn) -> np.ndarray:
    """Near the way from the start to the return pose, any opening."""
    way = draw(st.floats(0, 1))
    off = draw(st.lists(st.floats(-0.15, 0.15), min_size=7, max_size=7))
    opening = draw(st.lists(st.floats(0, 1), min_size=6, max_size=6))
    return np.concatenate([way * np.array(RETURN_ARM_Q) + (1 - way) * np.array(START_ARM_Q) + off, opening])


states = _states()


@given(states)
def test_joints_of_the_hand_lie_in_it_at_their_depth(state: np.ndarray) -> None:
    picture = SILHOUETTE.draw(state, SIZE)
    world_T_palm = SILHOUETTE.world_T_palm(state)
    points = MODEL.hand.keypoints(state[7:])[[6, 10, 14, 18]]  # the fingers' middle joints
    camera = SILHOUETTE.camera_T_world @ world_T_palm
    points = points @ camera[:3, :3].T + camera[:3, 3]
    u = points[:, 0] / points[:, 2] * SIZE.fx + SIZE.cx
    v = points[:, 1] / points[:, 2] * SIZE.fy + SIZE.cy
    for x, y, z in zip(np.rint(u).astype(int), np.rint(v).astype(int), points[:, 2], strict=True):
        if 0 <= x < SIZE.width and 0 <= y < SIZE.height:
            assert np.isfinite(picture[y, x])
            assert picture[y, x] < z + 0.02  # itself, or a part before it


@settings(max_examples=25)
@given(states, st.integers(0, 250), st.integers(0, 180), st.integers(1, 70), st.integers(1, 60))
def test_a_window_is_cut_from_the_whole(state: np.ndarray, x: int, y: int, width: int, height: int) -> None:
    whole = SILHOUETTE.draw(state, SIZE)
    window = SILHOUETTE.draw(state, SIZE, (x, y, x + width, y + height))
    whole = whole[y : y + height, x : x + width]
    differs = np.isfinite(window) != np.isfinite(whole)
    # A polygon that is clipped gets its outline from other whole pixels: an edge may move by one.
    seen = np.isfinite(whole).astype(np.uint8)
    edge = cv2.dilate(seen, np.ones((3, 3), np.uint8)) != cv2.erode(seen, np.ones((3, 3), np.uint8))
    assert not (differs & ~edge).any()
    both = np.isfinite(window) & np.isfinite(whole)
    assert np.mean(np.abs(window[both] - whole[both]) > 1e-6) < 0.2 if both.any() else True


def test_the_palm_is_where_the_safety_model_has_it() -> None:
    state = np.array([*START_ARM_Q, *OPEN_HAND])
    np.testing.assert_allclose(SILHOUETTE.world_T_palm(state), MODEL.world_T_palm(START_ARM_Q), atol=1e-12)


def test_a_camera_on_the_arm_is_refused() -> None:
    with pytest.raises(BadInput, match="wrist"):
        Silhouette(camera="wrist")


def test_twin_draws_the_robot_in_the_same_place() -> None:
    from dexloop.hardware.twin.camera import ROBOT_ID
    from dexloop.hardware.twin.scenes import sample_scene
    from dexloop.hardware.twin.world import TwinConfig, TwinWorld

    scene = replace(sample_scene(3, "train", 1), camera_jitter=())
    config = TwinConfig(cameras=("head",), camera_size=(320, 240), segmentation=True, depth=True, depth_noise=False)
    world = TwinWorld(config, scene)
    try:
        frame = world.cameras["head"].latest()
        reading = world.robot.state()
    finally:
        world.close()
    assert frame.segmentation is not None
    assert frame.depth_m is not None
    true = frame.segmentation == ROBOT_ID
    state = np.concatenate([reading.arm.q, reading.hand.opening])
    picture = SILHOUETTE.draw(state, SIZE)
    drawn = np.isfinite(picture)
    assert true.sum() > 500
    assert (drawn & true).sum() / (drawn | true).sum() > 0.8
    both = drawn & true
    assert np.median(np.abs(picture[both] - frame.depth_m[both])) < 0.015
