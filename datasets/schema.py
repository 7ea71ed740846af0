"""The single truth of what a data set holds: feature names, dtypes, shapes, and how they read in ``meta/info.json``.

Three parts of a schema vary: the rate, the robot's names and the cameras (sizes, depth). Everything else is fixed by
``VERSION``. LeRobot types features by the beginning of their key (``action*`` is an action, ``observation*`` a state),
so every column that a policy must not see by accident is named otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..hardware.description import ARM_JOINTS, HAND_MOTORS
from ..hardware.errors import BadInput, DatasetError
from .episode import AlignedEpisode, EncodedVideo

VERSION = 1
LEROBOT_VERSION = "v3.0"
FILES_PER_CHUNK = 1000
STATE, ACTION, REQUESTED = "observation.state", "action", "command.requested"
SUCCESS, FLAGS = "label.success", "safety.flags"
DEPTH_CODES = 4095  # LeRobot's depth videos are 12 bit: the largest count that they hold

Column = NDArray[np.generic]


@dataclass(frozen=True)
class CameraSchema:
    """One camera's video, with exact depth beside it where ``depth_unit_m`` (metres per count) is not 0."""

    name: str
    width: int
    height: int
    depth_unit_m: float = 0.0

    def __post_init__(self) -> None:
        if self.width < 2 or self.height < 2 or self.width % 2 or self.height % 2:
            raise BadInput(
                f"camera {self.name!r} is {self.width}x{self.height}: H.264 in yuv420p needs even sides of at least 2."
            )

    @property
    def key(self) -> str:
        return f"observation.images.{self.name}"

    @property
    def depth_key(self) -> str:
        return f"{self.key}_depth"


@dataclass(frozen=True)
class ColumnSpec:
    """A column of the data parquet. ``width`` is 0 for a scalar, which LeRobot writes as shape (1,)."""

    key: str
    dtype: str  # float32, int64 or string
    width: int = 0
    names: tuple[str, ...] | None = None

    @property
    def feature(self) -> dict[str, Any]:
        """Its entry in ``info.json``."""
        names = list(self.names) if self.names else None
        return {"dtype": self.dtype, "shape": [self.width or 1], "names": names}


# LeRobot's own columns, in its order.
INDEX_COLUMNS = (
    ColumnSpec("timestamp", "float32"),
    ColumnSpec("frame_index", "int64"),
    ColumnSpec("episode_index", "int64"),
    ColumnSpec("index", "int64"),
    ColumnSpec("task_index", "int64"),
)


@dataclass(frozen=True)
class Schema:
    """What one data set holds. ``measured`` is False for sets imported from formats that keep no times, requests,
    safety flags or sensors: their columns are then absent, never filled with made-up values."""

    rate_hz: int
    cameras: tuple[CameraSchema, ...]
    robot_type: str = "rm75_gor"
    arm_joints: tuple[str, ...] = ARM_JOINTS
    hand_motors: tuple[str, ...] = HAND_MOTORS
    mask_camera: str = "head"
    measured: bool = True

    def __post_init__(self) -> None:
        if self.rate_hz < 1 or self.rate_hz != int(self.rate_hz):
            raise BadInput(f"rate is {self.rate_hz} Hz: LeRobot's format needs a whole number of at least 1.")
        names = [camera.name for camera in self.cameras]
        if self.mask_camera not in names or len(set(names)) != len(names):
            raise BadInput(f"cameras are {names}: expected different names, with {self.mask_camera!r} among them.")

    @property
    def joints(self) -> tuple[str, ...]:
        """Names of the numbers of a state and an action, in order."""
        return tuple(f"{name}.pos" for name in (*self.arm_joints, *self.hand_motors))

    @property
    def capture_keys(self) -> tuple[str, ...]:
        """Columns with the capture time of each stream, ns."""
        streams = (*(camera.name for camera in self.cameras), "arm", "hand")
        return tuple(f"timing.{stream}_ns" for stream in streams)

    @property
    def columns(self) -> tuple[ColumnSpec, ...]:
        """Every non-video column that an episode brings, in file order."""
        joints, arm, hand = self.joints, self.arm_joints, self.hand_motors
        force = ("force.x", "force.y", "force.z", "torque.x", "torque.y", "torque.z")
        out = [
            ColumnSpec(STATE, "float32", len(joints), joints),
            ColumnSpec(ACTION, "float32", len(joints), joints),
            ColumnSpec(f"mask.{self.mask_camera}", "string"),
            ColumnSpec(SUCCESS, "int64"),
        ]
        if self.measured:
            out += [
                ColumnSpec(REQUESTED, "float32", len(joints), joints),
                ColumnSpec(FLAGS, "int64"),
                ColumnSpec("sensor.wrench", "float32", 6, force),
                ColumnSpec("sensor.arm_velocity", "float32", len(arm), tuple(f"{name}.vel" for name in arm)),
                ColumnSpec("sensor.arm_effort", "float32", len(arm), tuple(f"{name}.effort" for name in arm)),
                ColumnSpec("sensor.hand_force", "float32", len(hand), tuple(f"{name}.force" for name in hand)),
                ColumnSpec("timing.row_ns", "int64"),
                *(ColumnSpec(key, "int64") for key in self.capture_keys),
                ColumnSpec("timing.sent_ns", "int64"),
                ColumnSpec("timing.input_ns", "int64"),
                ColumnSpec("timing.skew_ns", "int64"),
                ColumnSpec("timing.latency_ns", "int64"),
            ]
        return tuple(out)

    @property
    def video_keys(self) -> tuple[str, ...]:
        keys = [camera.key for camera in self.cameras]
        return (*keys, *(camera.depth_key for camera in self.cameras if camera.depth_unit_m))

    def video_size(self, key: str) -> tuple[int, int, float]:
        """(width, height, depth unit in m or 0) of one video feature."""
        for camera in self.cameras:
            if key in (camera.key, camera.depth_key):
                return camera.width, camera.height, camera.depth_unit_m if key == camera.depth_key else 0.0
        raise KeyError(f"no video {key!r}: the schema has {', '.join(self.video_keys)}")

    def only(self, cameras: Sequence[str]) -> Schema:
        """The same with some of its cameras alone, in its own order. Raises BadInput where it has not all of them."""
        missing = set(cameras) - {camera.name for camera in self.cameras}
        if missing:
            raise BadInput(
                f"there is no camera {', '.join(sorted(missing))}: expected some of "
                f"{', '.join(camera.name for camera in self.cameras)}."
            )
        return replace(self, cameras=tuple(camera for camera in self.cameras if camera.name in cameras))

    def to_json(self) -> dict[str, Any]:
        """The content of ``meta/dexloop.json``."""
        cameras = [vars(camera) for camera in self.cameras]
        return {
            "format": "dexloop",
            "version": VERSION,
            "rate_hz": self.rate_hz,
            "robot_type": self.robot_type,
            "arm_joints": list(self.arm_joints),
            "hand_motors": list(self.hand_motors),
            "mask_camera": self.mask_camera,
            "measured": self.measured,
            "cameras": cameras,
        }

    @staticmethod
    def from_json(data: dict[str, Any], where: str) -> Schema:
        """Raises BadInput where ``data`` is not a schema of this version."""
        if data.get("format") != "dexloop" or data.get("version") != VERSION:
            found = f"{data.get('format')!r} version {data.get('version')!r}"
            raise BadInput(
                f"{where} holds {found}, expected 'dexloop' version {VERSION}: use the release that wrote it."
            )
        try:
            return Schema(
                data["rate_hz"],
                tuple(CameraSchema(**camera) for camera in data["cameras"]),
                data["robot_type"],
                tuple(data["arm_joints"]),
                tuple(data["hand_motors"]),
                data["mask_camera"],
                data["measured"],
            )
        except (KeyError, TypeError) as error:
            raise DatasetError(f"{where} does not describe a schema ({error}): run `dataset repair`.") from error

    def difference(self, other: Schema) -> str:
        """How ``other`` differs, in words; empty when it does not."""
        mine, theirs = self.to_json(), other.to_json()
        return "; ".join(f"{key} is {theirs[key]!r}, not {mine[key]!r}" for key in mine if mine[key] != theirs[key])


def video_info(schema: Schema, key: str, codec: str = "h264", pix_fmt: str = "yuv420p") -> dict[str, Any]:
    """The ``info`` block of a video feature, with LeRobot's keys.

    Depth is stored as the count itself in 12 bits, so LeRobot's linear de-quantisation from 0 to 4095 units returns it.
    """
    width, height, unit_m = schema.video_size(key)
    info: dict[str, Any] = {
        "video.height": height,
        "video.width": width,
        "video.codec": codec,
        "video.pix_fmt": pix_fmt,
        "video.fps": schema.rate_hz,
        "video.channels": 1 if unit_m else 3,
        "video.g": 1,  # every frame decodes by itself
        "has_audio": False,
        "is_depth_map": bool(unit_m),
    }
    if unit_m:
        info |= {
            "video.depth_min": 0.0,
            "video.depth_max": round(DEPTH_CODES * unit_m, 9),
            "video.shift": 0.0,
            "video.use_log": False,
            "depth_unit": "mm",
        }
    return info


def features(schema: Schema, videos: dict[str, EncodedVideo] | None = None) -> dict[str, dict[str, Any]]:
    """The ``features`` of ``info.json``. ``videos`` tells codecs and pixel formats where they are not the default."""
    out = {column.key: column.feature for column in schema.columns}
    for key in schema.video_keys:
        width, height, unit_m = schema.video_size(key)
        default = ("hevc", "gray12le") if unit_m else ("h264", "yuv420p")
        codec, pix_fmt = (videos[key].codec, videos[key].pix_fmt) if videos else default
        out[key] = {
            "dtype": "video",
            "shape": [height, width, 1 if unit_m else 3],
            "names": ["height", "width", "channels"],
            "info": video_info(schema, key, codec, pix_fmt),
        }
    return out | {column.key: column.feature for column in INDEX_COLUMNS}


def schema_of(episode: AlignedEpisode, mask_camera: str = "head") -> Schema:
    """The schema that an aligned episode fits, read from its own rate, videos and columns."""
    cameras = []
    for key, video in episode.videos.items():
        if video.is_depth:
            continue
        depth = episode.videos.get(f"{key}_depth")
        unit_m = depth.depth_unit_m if depth else 0.0
        cameras.append(CameraSchema(key.removeprefix("observation.images."), video.width, video.height, unit_m))
    if episode.rate_hz != int(episode.rate_hz):
        raise BadInput(f"rate is {episode.rate_hz} Hz: LeRobot's format needs a whole number.")
    return Schema(
        int(episode.rate_hz),
        tuple(cameras),
        robot_type=episode.info.robot_type,
        mask_camera=mask_camera,
        measured="timing.row_ns" in episode.columns,
    )


def validate(schema: Schema, episode: AlignedEpisode) -> None:
    """Raise DatasetError, naming the feature, unless ``episode`` is exactly what ``schema`` says."""
    problems: list[str] = []
    if episode.rate_hz != schema.rate_hz:
        problems.append(f"rate is {episode.rate_hz} Hz, expected {schema.rate_hz}")
    if episode.info.robot_type != schema.robot_type:
        problems.append(f"robot is {episode.info.robot_type!r}, expected {schema.robot_type!r}")
    if not episode.info.task.strip():
        problems.append("task is empty, expected an instruction in words")
    wanted = {column.key for column in schema.columns}
    for key in sorted(wanted ^ set(episode.columns)):
        problems.append(f"column {key} is {'missing' if key in wanted else 'not in the schema'}")
    for key in sorted(set(schema.video_keys) ^ set(episode.videos)):
        problems.append(f"video {key} is {'missing' if key in schema.video_keys else 'not in the schema'}")
    rows = len(episode.columns[ACTION]) if ACTION in episode.columns else 0
    if rows == 0:
        problems.append("it has no rows")
    for column in schema.columns:
        if column.key in episode.columns:
            problems += column_problems(column, episode.columns[column.key], rows)
    for key, video in episode.videos.items():
        if key in schema.video_keys:
            problems += _video_problems(schema, key, video, rows)
    if not problems and schema.measured:
        problems += timing_problems(schema, episode.columns)
    if problems:
        raise DatasetError(f"the episode does not fit the data set: {'; '.join(problems)}. It was not added.")


def column_problems(column: ColumnSpec, array: Column, rows: int) -> list[str]:
    """What is wrong with one column's array, in words."""
    shape = (rows, column.width) if column.width else (rows,)
    if array.shape != shape:
        return [f"{column.key} has shape {array.shape}, expected {shape}"]
    if column.dtype == "string":
        strange = [value for value in array if not isinstance(value, str)]
        return [f"{column.key} holds {type(strange[0]).__name__}, expected text"] if strange else []
    if array.dtype != np.dtype(column.dtype):
        return [f"{column.key} is {array.dtype}, expected {column.dtype}"]
    if column.dtype == "float32" and not np.isfinite(array.astype(np.float32)).all():
        row = int(np.argmin(np.isfinite(array.astype(np.float32)).reshape(rows, -1).all(1)))
        return [f"{column.key} is not finite at row {row}"]
    if column.key == SUCCESS and not np.isin(array, (-1, 0, 1)).all():
        return [f"{column.key} holds {sorted(set(array.tolist()))}, expected -1, 0 or 1"]
    return []


def timing_problems(schema: Schema, columns: dict[str, Column]) -> list[str]:
    """Rows that run backwards, streams from the future, skews that do not follow from the capture times."""
    row = columns["timing.row_ns"].astype(np.int64)
    problems = []
    if (np.diff(row) <= 0).any():
        problems.append(f"timing.row_ns does not rise at row {int(np.argmax(np.diff(row) <= 0)) + 1}")
    captures = np.stack([columns[key].astype(np.int64) for key in schema.capture_keys])  # (streams, rows)
    for key, captured in zip(schema.capture_keys, captures, strict=True):
        if (np.diff(captured) < 0).any():
            problems.append(f"{key} runs backwards at row {int(np.argmax(np.diff(captured) < 0)) + 1}")
        if (captured > row).any():
            problems.append(f"{key} is later than its row at row {int(np.argmax(captured > row))}")
    skew = np.abs(row - captures).max(0)
    wrong = skew != columns["timing.skew_ns"].astype(np.int64)
    if wrong.any():
        problems.append(f"timing.skew_ns is not the largest |row - capture| at row {int(np.argmax(wrong))}")
    return problems


def _video_problems(schema: Schema, key: str, video: EncodedVideo, rows: int) -> list[str]:
    width, height, unit_m = schema.video_size(key)
    problems = []
    if (video.width, video.height) != (width, height):
        problems.append(f"{key} is {video.width}x{video.height}, expected {width}x{height}")
    if video.is_depth != bool(unit_m) or (unit_m and video.depth_unit_m != unit_m):
        problems.append(f"{key} has a depth unit of {video.depth_unit_m} m, expected {unit_m}")
    if len(video.packets) != rows:
        problems.append(f"{key} has {len(video.packets)} frames for {rows} rows")
    return problems
