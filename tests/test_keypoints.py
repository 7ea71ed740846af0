"""Hand key points: the wrist frame and the file of a recorded hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dexloop.hardware.errors import BadInput
from dexloop.hardware.geometry import apply, rotation_exp, transform
from dexloop.hardware.hand_kinematics import KEYPOINTS, HandKinematics
from dexloop.retarget.keypoints import (
    LANDMARKS,
    PALM_R_HAND,
    PARENTS,
    TIPS,
    HandRecording,
    bone_lengths_m,
    hand_frame,
    in_hand_frame,
    in_palm_axes,
    is_tracked,
    load_recording,
    save_recording,
)
from hypothesis import given
from hypothesis import strategies as st

SHARED = Path(__file__).parents[1].parent / "shared" / "data" / "human_hand_right.npz"
small = st.floats(-3.0, 3.0)


def a_hand(bend: float = 0.6) -> np.ndarray:
    """Key points (21, 3) of a plausible right hand: the robot's own."""
    return HandKinematics().keypoints(np.full(6, bend))


def frames(count: int = 5) -> np.ndarray:
    return np.stack([a_hand(0.9 - 0.1 * i) for i in range(count)])


def test_landmarks_are_those_of_the_robot_hand() -> None:
    assert LANDMARKS == KEYPOINTS
    assert [LANDMARKS[i] for i in TIPS] == [f"{f}_tip" for f in ("thumb", "index", "middle", "ring", "little")]
    assert LANDMARKS[PARENTS[7]] == "index_dip"  # bone 7 ends in landmark 8, the index tip
    assert len(PARENTS) == 20


@given(turn=st.tuples(small, small, small), shift=st.tuples(small, small, small), bend=st.floats(0.0, 1.0))
def test_hand_frame_does_not_depend_on_where_the_hand_is(
    turn: tuple[float, ...], shift: tuple[float, ...], bend: float
) -> None:
    points = a_hand(bend)
    world_T_any = transform(rotation_exp(np.array(turn)), np.array(shift))
    assert np.allclose(in_hand_frame(apply(world_T_any, points)), in_hand_frame(points), atol=1e-9)
    frame = hand_frame(points)
    assert np.allclose(frame[:3, :3] @ frame[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(frame[:3, :3]) == pytest.approx(1.0)


def test_axes_of_the_hand_frame() -> None:
    points = in_hand_frame(a_hand(0.5))
    assert np.allclose(points[0], 0.0)
    assert np.allclose(points[9, :2], 0.0, atol=1e-12)
    assert points[9, 2] > 0.05
    assert points[5, 0] == pytest.approx(0.0, abs=1e-12)
    assert points[5, 1] > 0.01
    assert (points[list(TIPS[1:]), 0] > 0.01).all(), "bent fingers are on the palm's side, +x"


def test_palm_axes_are_the_robots() -> None:
    assert np.linalg.det(PALM_R_HAND) == pytest.approx(1.0)
    points = in_palm_axes(a_hand(0.5))
    assert points[9, 0] > 0.05
    assert points[5, 1] > 0.01
    assert (points[list(TIPS[1:]), 2] < -0.01).all()


def test_a_lost_hand_stays_lost_and_a_degenerate_one_is_refused() -> None:
    points = frames(3)
    points[1] = np.nan
    assert is_tracked(points).tolist() == [True, False, True]
    assert np.isnan(in_hand_frame(points)[1]).all()
    with pytest.raises(BadInput, match="one line"):
        hand_frame(np.zeros((21, 3)))


def test_bone_lengths() -> None:
    lengths = bone_lengths_m(a_hand(1.0))
    assert lengths.shape == (20,)
    assert lengths[5] == pytest.approx(0.0359)  # index proximal of the hand's table


@pytest.mark.parametrize("with_poses", [False, True])
def test_recording_round_trip(tmp_path: Path, with_poses: bool) -> None:
    points = frames()
    points[2] = np.nan
    poses = np.tile(np.eye(4), (5, 1, 1)) if with_poses else None
    recording = HandRecording(points, np.array([0.0, 0.03, 0.08, 0.1, 0.2]), poses)
    path = tmp_path / "hand.npz"
    save_recording(path, recording)
    back = load_recording(path)
    assert np.array_equal(back.keypoints_m, points, equal_nan=True)
    assert np.array_equal(back.time_s, recording.time_s)
    assert back.tracked.tolist() == [True, True, False, True, True]
    assert (back.world_T_hand is None) != with_poses


def test_times_follow_from_fps(tmp_path: Path) -> None:
    path = tmp_path / "hand.npz"
    np.savez(path, keypoints_m=frames(), fps=25.0)
    assert np.allclose(load_recording(path).time_s, np.arange(5) / 25)
    assert load_recording(path).rate_hz == pytest.approx(25.0)


def rotated(points: np.ndarray) -> np.ndarray:
    return points * np.array([1.0, 1.0, -1.0])  # mirrored: a left hand


BAD_FILES = {
    "no key points": ({"points": frames(), "fps": 30.0}, "has no keypoints_m"),
    "wrong shape": ({"keypoints_m": frames()[:, :20], "fps": 30.0}, r"expected \(N, 21, 3\)"),
    "no frames": ({"keypoints_m": frames()[:0], "fps": 30.0}, "N >= 1"),
    "text": ({"keypoints_m": np.full((5, 21, 3), "x"), "fps": 30.0}, "floating-point"),
    "no time": ({"keypoints_m": frames()}, "neither time_s nor fps"),
    "fps of zero": ({"keypoints_m": frames(), "fps": 0.0}, "fps is"),
    "fps twice": ({"keypoints_m": frames(), "fps": [30.0, 30.0]}, "fps is"),
    "time short": ({"keypoints_m": frames(), "time_s": np.arange(4.0)}, "one time for each of the 5"),
    "time stands": ({"keypoints_m": frames(), "time_s": [0.0, 0.1, 0.1, 0.2, 0.3]}, "does not increase at frame 2"),
    "time is nan": ({"keypoints_m": frames(), "time_s": [0.0, np.nan, 0.1, 0.2, 0.3]}, "not finite at frame 1"),
    "millimetres": ({"keypoints_m": frames() * 1000, "fps": 30.0}, "millimetres"),
    "tiny": ({"keypoints_m": frames() * 0.1, "fps": 30.0}, "metres"),
    "never tracked": ({"keypoints_m": np.full((5, 21, 3), np.nan), "fps": 30.0}, "no frame"),
    "left hand": ({"keypoints_m": rotated(frames()), "fps": 30.0}, "right hand"),
    "poses short": ({"keypoints_m": frames(), "fps": 30.0, "wrist_T": np.eye(4)[None]}, r"expected \(5, 4, 4\)"),
    "poses lost": ({"keypoints_m": frames(), "fps": 30.0, "wrist_T": np.full((5, 4, 4), np.nan)}, "not finite"),
    "poses skewed": (
        {"keypoints_m": frames(), "fps": 30.0, "wrist_T": np.tile(np.diag([1, 1, 2.0, 1]), (5, 1, 1))},
        "not a rigid",
    ),
    "poses in mm": (
        {"keypoints_m": frames(), "fps": 30.0, "wrist_T": np.tile(transform(None, [400.0, 0, 0]), (5, 1, 1))},
        "expected metres",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    arrays, message = BAD_FILES[name]
    path = tmp_path / "hand.npz"
    np.savez(path, **arrays)
    with pytest.raises(BadInput, match=message) as error:
        load_recording(path)
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)


def test_files_that_are_no_archives_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No hand file"):
        load_recording(tmp_path / "missing.npz")
    text = tmp_path / "text.npz"
    text.write_text("not an archive")
    with pytest.raises(BadInput, match="cannot be read"):
        load_recording(text)
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, keypoints_m=np.array([{}], dtype=object))
    with pytest.raises(BadInput, match="cannot be read"):
        load_recording(pickled)
    bare = tmp_path / "bare.npz"
    with bare.open("wb") as file:
        np.save(file, frames())
    with pytest.raises(BadInput, match="bare array"):
        load_recording(bare)


@pytest.mark.skipif(not SHARED.is_file(), reason="no shared recording beside the repository")
def test_the_real_recording_reads() -> None:
    recording = load_recording(SHARED)
    assert len(recording) == 420
    assert recording.tracked.all()
    assert recording.world_T_hand is None
    assert np.allclose(in_hand_frame(recording.keypoints_m), recording.keypoints_m, atol=1e-6)
