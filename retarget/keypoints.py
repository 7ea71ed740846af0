"""21 hand landmarks: names, the wrist frame, and the file format of a recorded hand (``docs/hand_files.md``).

Order and names are MediaPipe's. The *hand frame* of an operator's hand has its origin at the wrist, +z towards the
middle finger's MCP, +y to the thumb's side (the index MCP lies in the y-z plane), +x out of the palm. The robot's
*palm frame* has x distal, y to the index side, and a palm that faces -z; ``PALM_R_HAND`` turns one into the other.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..hardware.errors import BadInput
from ..hardware.geometry import Transform, apply, inverse, transform

Array = NDArray[np.float64]

FINGERS = ("thumb", "index", "middle", "ring", "little")
LANDMARKS = (
    "wrist",
    "thumb_cmc", "thumb_mcp", "thumb_ip", "thumb_tip",
    *(f"{finger}_{part}" for finger in FINGERS[1:] for part in ("mcp", "pip", "dip", "tip")),
)  # fmt: skip
N_LANDMARKS = 21
WRIST, THUMB_TIP, INDEX_MCP, MIDDLE_MCP = 0, 4, 5, 9
TIPS = (4, 8, 12, 16, 20)  # order FINGERS
PARENTS = (0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11, 0, 13, 14, 15, 0, 17, 18, 19)  # of landmarks 1..20: the 20 bones
FILE_HELP = "see docs/hand_files.md for the format"

# palm x = hand z (distal), palm y = hand y (thumb side), palm z = -hand x (the palm faces -z and the hand's +x).
PALM_R_HAND: Array = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])

# Wrist to middle MCP of an adult is 8-11 cm; tracking noise and children stay well inside this.
PALM_LENGTH_RANGE_M = (0.04, 0.16)


def hand_frame(keypoints_m: Array) -> Transform:
    """Any_T_hand of key points (..., 21, 3) given in any frame: (..., 4, 4).

    NaN where a hand is lost. Raises BadInput where wrist, index MCP and middle MCP lie on one line: no frame then.
    """
    points = np.asarray(keypoints_m, float)
    wrist = points[..., WRIST, :]
    distal = points[..., MIDDLE_MCP, :] - wrist
    length = np.linalg.norm(distal, axis=-1, keepdims=True)
    side = points[..., INDEX_MCP, :] - wrist
    with np.errstate(invalid="ignore", divide="ignore"):
        z = distal / length
        side = side - np.sum(side * z, axis=-1, keepdims=True) * z
        width = np.linalg.norm(side, axis=-1, keepdims=True)
        if np.any(length < 1e-6) or np.any(width < 1e-6):
            raise BadInput(
                "Hand key points with wrist, index MCP and middle MCP on one line: expected a hand with a palm; "
                "mark a lost hand by NaN."
            )
        y = side / width
    return transform(np.stack([np.cross(y, z), y, z], -1), wrist)


def in_hand_frame(keypoints_m: Array) -> Array:
    """Key points (..., 21, 3) in any frame -> the same in their own hand frame."""
    return apply(inverse(hand_frame(keypoints_m)), np.asarray(keypoints_m, float))


def in_palm_axes(keypoints_m: Array) -> Array:
    """Key points (..., 21, 3) in any frame -> wrist-centred, along the robot's palm axes (a rigid alignment)."""
    return in_hand_frame(keypoints_m) @ PALM_R_HAND.T


def is_tracked(keypoints_m: Array) -> NDArray[np.bool_]:
    """(..., 21, 3) -> (...): whether every number of a hand is finite. A lost hand is NaN."""
    return np.asarray(np.isfinite(keypoints_m).all(axis=(-2, -1)))


def bone_lengths_m(keypoints_m: Array) -> Array:
    """(..., 21, 3) -> (..., 20): length of the bone that ends in landmark 1..20."""
    points = np.asarray(keypoints_m, float)
    return np.linalg.norm(points[..., 1:, :] - points[..., PARENTS, :], axis=-1)


@dataclass(frozen=True)
class HandRecording:
    """A recorded right hand: key points with their own capture times and, if there are, the wrist's world poses."""

    keypoints_m: Array  # (N, 21, 3) as recorded, any frame; NaN where the hand was lost
    time_s: Array  # (N,) strictly increasing
    world_T_hand: Transform | None = None  # (N, 4, 4) hand frame in the rig's world; NaN where lost
    source: str = ""

    def __post_init__(self) -> None:
        where = f"{self.source}: " if self.source else ""
        _check_keypoints(self.keypoints_m, where)
        _check_times(self.time_s, len(self.keypoints_m), where)
        if self.world_T_hand is not None:
            _check_poses(self.world_T_hand, self.keypoints_m, where)

    @property
    def tracked(self) -> NDArray[np.bool_]:
        """(N,) False where the hand was lost."""
        return is_tracked(self.keypoints_m)

    @property
    def rate_hz(self) -> float:
        """Median sample rate."""
        return float(1.0 / np.median(np.diff(self.time_s))) if len(self.time_s) > 1 else 0.0

    def __len__(self) -> int:
        return len(self.keypoints_m)


def load_recording(path: Path) -> HandRecording:
    """Read an ``.npz`` hand file. Raises BadInput, in one sentence, for anything that is not one."""
    if not path.is_file():
        raise BadInput(f"No hand file at {path}: expected an .npz with keypoints_m (N, 21, 3); {FILE_HELP}.")
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise BadInput(f"{path} holds one bare array: expected an .npz with keypoints_m; {FILE_HELP}.")
        with archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise BadInput(f"{path} cannot be read as a hand file ({error}): expected an .npz; {FILE_HELP}.") from error
    if "keypoints_m" not in arrays:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise BadInput(f"{path} has no keypoints_m (it has: {found}): expected (N, 21, 3) metres; {FILE_HELP}.")
    keypoints = _floats(arrays["keypoints_m"], "keypoints_m", path)
    poses = _floats(arrays["wrist_T"], "wrist_T", path) if "wrist_T" in arrays else None
    return HandRecording(keypoints, _times(arrays, len(keypoints), path), poses, str(path))


def save_recording(path: Path, recording: HandRecording) -> None:
    """Write an ``.npz`` hand file that :func:`load_recording` reads back exactly."""
    arrays = {"keypoints_m": recording.keypoints_m, "time_s": recording.time_s}
    if recording.world_T_hand is not None:
        arrays["wrist_T"] = recording.world_T_hand
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def _floats(array: NDArray[np.generic], name: str, path: Path) -> Array:
    if array.dtype.kind not in "fiu":
        raise BadInput(f"{path}: {name} has type {array.dtype}: expected floating-point numbers; {FILE_HELP}.")
    return array.astype(np.float64)


def _times(arrays: dict[str, NDArray[np.generic]], count: int, path: Path) -> Array:
    if "time_s" in arrays:
        return _floats(arrays["time_s"], "time_s", path)
    if "fps" not in arrays:
        raise BadInput(
            f"{path} has neither time_s nor fps: expected one of them, times are never guessed; {FILE_HELP}."
        )
    fps = _floats(arrays["fps"], "fps", path)
    if fps.size != 1 or not 1.0 <= float(fps.ravel()[0]) <= 1000.0:
        raise BadInput(f"{path}: fps is {fps.tolist()}: expected one number from 1 to 1000.")
    return np.arange(count) / float(fps.ravel()[0])


def _check_keypoints(keypoints_m: Array, where: str) -> None:
    if keypoints_m.ndim != 3 or keypoints_m.shape[1:] != (N_LANDMARKS, 3) or len(keypoints_m) == 0:
        raise BadInput(
            f"{where}keypoints_m has shape {keypoints_m.shape}: expected (N, 21, 3) with N >= 1; {FILE_HELP}."
        )
    points = keypoints_m[is_tracked(keypoints_m)]
    if len(points) == 0:
        raise BadInput(f"{where}no frame of keypoints_m has a tracked hand (all NaN): record again.")
    palm_m = float(np.median(np.linalg.norm(points[:, MIDDLE_MCP] - points[:, WRIST], axis=-1)))
    low, high = PALM_LENGTH_RANGE_M
    if low * 1e3 <= palm_m <= high * 1e3:
        raise BadInput(
            f"{where}wrist to middle knuckle is {palm_m:.0f} in keypoints_m, which looks like millimetres: "
            "divide the key points by 1000."
        )
    if not low <= palm_m <= high:
        raise BadInput(
            f"{where}wrist to middle knuckle is {palm_m:.3g} m in keypoints_m: expected {low} to {high} m "
            "(a hand in metres, MediaPipe's order); check unit and order."
        )
    # A left hand's fingers bend to the other side of the same frame.
    bend_m = float(np.median(in_hand_frame(points)[:, TIPS[1:], 0]))
    if bend_m < -0.02:
        raise BadInput(
            f"{where}the fingers bend {-bend_m * 1e3:.0f} mm to the back of the hand: expected a right hand; "
            "mirror a left one (negate one axis) first."
        )


def _check_times(time_s: Array, count: int, where: str) -> None:
    if time_s.shape != (count,):
        raise BadInput(f"{where}time_s has shape {time_s.shape}: expected one time for each of the {count} frames.")
    if not np.isfinite(time_s).all():
        raise BadInput(f"{where}time_s is not finite at frame {int(np.flatnonzero(~np.isfinite(time_s))[0])}.")
    late = np.flatnonzero(np.diff(time_s) <= 0)
    if len(late):
        i = int(late[0])
        raise BadInput(
            f"{where}time_s does not increase at frame {i + 1} ({time_s[i]:.6f} then {time_s[i + 1]:.6f} s): "
            "expected strictly increasing seconds."
        )


def _check_poses(world_T_hand: Transform, keypoints_m: Array, where: str) -> None:
    count = len(keypoints_m)
    if world_T_hand.shape != (count, 4, 4):
        raise BadInput(f"{where}wrist_T has shape {world_T_hand.shape}: expected ({count}, 4, 4); {FILE_HELP}.")
    finite = np.isfinite(world_T_hand).all(axis=(1, 2))
    bad = np.flatnonzero(~finite & is_tracked(keypoints_m))
    if len(bad):
        raise BadInput(f"{where}wrist_T is not finite at frame {int(bad[0])}, where the hand is tracked.")
    poses = world_T_hand[finite]
    rotation = poses[:, :3, :3]
    skew = np.abs(rotation @ rotation.swapaxes(-1, -2) - np.eye(3)).max(axis=(1, 2))
    rigid = (skew < 1e-3) & (np.linalg.det(rotation) > 0) & (np.abs(poses[:, 3] - [0, 0, 0, 1]).max(axis=-1) < 1e-6)
    if not rigid.all():
        i = int(np.flatnonzero(finite)[np.flatnonzero(~rigid)[0]])
        raise BadInput(f"{where}wrist_T[{i}] is not a rigid transform: expected rotation and translation in metres.")
    if len(poses) and np.abs(poses[:, :3, 3]).max() > 10.0:
        raise BadInput(
            f"{where}wrist_T reaches {np.abs(poses[:, :3, 3]).max():.0f} m from the origin: expected metres."
        )
