"""To and from DexGraspVLA's zarr layout, with which its published training code works as it is.

``data/action`` and ``data/right_state`` (K, 13): arm joints scaled from the rig's own limits to -1..1, then the hand
openings, 1 = open. ``data/rgbm`` (K, H, W, 4): head camera, BGR and the target mask as 0 or 1.
``data/right_cam_img`` (K, H, W, 3): wrist camera, BGR. ``meta/episode_ends`` (J,). Zarr version 2 on the disk.

The layout has no times, requested commands, safety flags, sensors, labels or instructions. An import says so by
leaving those columns out (``Schema.measured`` is False); it makes nothing up.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..hardware.description import ARM_JOINTS, HAND_MOTORS, RIG_LIMITS_RAD
from ..hardware.errors import BadInput
from . import rle
from . import video as vid
from .episode import AlignedEpisode, EncodedVideo, EpisodeInfo
from .layout import is_dataset
from .reader import DatasetReader
from .schema import ACTION, STATE, SUCCESS, CameraSchema, Schema
from .writer import DatasetWriter

HEAD, WRIST = "observation.images.head", "observation.images.wrist"
_SHAPES = {"action": 13, "right_state": 13, "rgbm": 4, "right_cam_img": 3}
_LIMITS = np.array(RIG_LIMITS_RAD)


@dataclass(frozen=True)
class ZarrConvention:
    """What the numbers of a zarr set mean: the layout itself does not say, so whoever imports one declares it."""

    joints: tuple[str, ...] = (*ARM_JOINTS, *HAND_MOTORS)
    """Names of the 13 numbers, in the order in which they are stored."""
    arm_unit: Literal["scaled", "rad"] = "scaled"
    """Arm joints in -1..1 of the rig's limits (as published), or in rad."""
    open_value: float = 1.0
    """Value of an open finger: 1 (as published) or 0."""
    colour: Literal["BGR", "RGB"] = "BGR"
    """Order of the picture channels."""
    rate_hz: int = 20
    """Rows per second."""

    def __post_init__(self) -> None:
        expected = (*ARM_JOINTS, *HAND_MOTORS)
        if sorted(self.joints) != sorted(expected):
            raise BadInput(f"joints are {self.joints}: expected {expected} in the order of the file.")
        if self.open_value not in (0.0, 1.0):
            raise BadInput(f"the open value is {self.open_value}: expected 1 (1 = open) or 0 (0 = open).")

    @property
    def order(self) -> list[int]:
        """Where each of our 13 numbers stands in the file."""
        return [self.joints.index(name) for name in (*ARM_JOINTS, *HAND_MOTORS)]


def scale_arm(values: NDArray[np.generic]) -> NDArray[np.float32]:
    """(N, 13) in rad and openings -> arm joints in -1..1 of the rig's limits. Not clipped: nothing is lost."""
    out = np.asarray(values, np.float64).copy()
    out[:, :7] /= _LIMITS
    return out.astype(np.float32)


def unscale_arm(values: NDArray[np.generic]) -> NDArray[np.float32]:
    """Inverse of :func:`scale_arm`."""
    out = np.asarray(values, np.float64).copy()
    out[:, :7] *= _LIMITS
    return out.astype(np.float32)


def export_zarr(root: Path, out: Path) -> int:
    """Write the data set at ``root`` as a zarr folder; how many frames it has.

    Raises BadInput where ``out`` exists, or the set lacks the head or wrist camera or DexGraspVLA's 13 numbers.
    """
    import zarr

    reader = DatasetReader(root)
    if out.exists():
        raise BadInput(f"{out} exists already: give the zarr folder a new name.")
    for key in (HEAD, WRIST):
        if key not in reader.schema.video_keys:
            raise BadInput(f"{root} has no {key}: the layout needs a head and a wrist camera.")
    if reader.schema.arm_joints != ARM_JOINTS or reader.schema.hand_motors != HAND_MOTORS:
        raise BadInput(f"{root} is of the robot {reader.schema.robot_type!r}: the layout is the RM75 and GO-R's.")
    total = int(reader.info["total_frames"])
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    group = zarr.open_group(str(partial), mode="w", zarr_format=2)
    data = _create(group.create_group("data"), reader.schema, total)
    ends = []
    for meta in reader.episodes():
        episode = reader.episode(meta.index)
        span = slice(meta.start, meta.start + meta.rows)
        data["action"][span] = scale_arm(episode.columns[ACTION])
        data["right_state"][span] = scale_arm(episode.columns[STATE])
        masks = reader.masks(episode.meta.index).astype(np.uint8)
        head = reader.frames(meta.index, HEAD)[..., ::-1]
        data["rgbm"][span] = np.concatenate([head, masks[..., None]], -1)
        data["right_cam_img"][span] = reader.frames(meta.index, WRIST)[..., ::-1]
        ends.append(span.stop)
    values = np.array(ends, np.int64)
    group.create_group("meta").create_array("episode_ends", data=values, chunks=values.shape)
    partial.rename(out)
    return total


def _create(group: Any, schema: Schema, total: int) -> dict[str, Any]:
    from numcodecs import Blosc

    compressor = Blosc(cname="zstd", clevel=5, shuffle=Blosc.BITSHUFFLE)
    out = {}
    for name, width in _SHAPES.items():
        shape: tuple[int, ...] = (total, 13)
        chunks: tuple[int, ...] = (min(total, 1024), 13)
        kind = "float32"
        if width != 13:
            columns, rows, _ = schema.video_size(HEAD if name == "rgbm" else WRIST)
            # A frame a chunk: training reads single frames at random.
            shape, chunks, kind = (total, rows, columns, width), (1, rows, columns, width), "uint8"
        out[name] = group.create_array(name, shape=shape, chunks=chunks, dtype=kind, compressors=compressor)
    return out


def import_zarr(source: Path, root: Path, task: str, convention: ZarrConvention | None = None) -> int:
    """Make a data set from a zarr folder; how many episodes it has.

    ``task`` is the instruction of all its episodes, which the layout does not keep. Raises BadInput where ``source``
    is not of the layout or ``root`` exists.
    """
    convention = convention or ZarrConvention()
    if is_dataset(root):
        raise BadInput(f"{root} exists already: give the imported data set a new name.")
    if not task.strip():
        raise BadInput("the task is empty: say in words what the episodes show.")
    arrays, ends = _open(source)
    (_, head_h, head_w, _), (_, wrist_h, wrist_w, _) = arrays["rgbm"].shape, arrays["right_cam_img"].shape
    cameras = (CameraSchema("head", head_w, head_h), CameraSchema("wrist", wrist_w, wrist_h))
    schema = Schema(convention.rate_hz, cameras, measured=False)
    with DatasetWriter(root, schema) as writer:
        for number, (start, stop) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            episode = _episode(arrays, slice(start, stop), schema, convention, task, source.name)
            writer.append(episode, source=f"{source.name}#{number}")
    return len(ends)


def _open(source: Path) -> tuple[dict[str, Any], list[int]]:
    import zarr

    if not source.is_dir():
        raise BadInput(f"there is no zarr folder at {source}.")
    try:
        group = zarr.open_group(str(source), mode="r")
        arrays = {name: group[f"data/{name}"] for name in _SHAPES}
        ends = [int(end) for end in group["meta/episode_ends"][:]]
    except (KeyError, ValueError, OSError, zarr.errors.BaseZarrError) as error:
        raise BadInput(
            f"{source} is not of DexGraspVLA's layout ({error}): expected data/{{{', '.join(_SHAPES)}}} and "
            "meta/episode_ends."
        ) from error
    frames = arrays["action"].shape[0]
    for name, array in arrays.items():
        if (
            array.shape[0] != frames
            or array.shape[-1] != _SHAPES[name]
            or array.ndim != (2 if _SHAPES[name] == 13 else 4)
        ):
            raise BadInput(f"{source}: data/{name} has shape {array.shape}, expected ({frames}, ..., {_SHAPES[name]}).")
    if not ends or ends[-1] != frames or any(b <= a for a, b in zip([0, *ends], ends, strict=False)):
        raise BadInput(f"{source}: meta/episode_ends is {ends[:3]}... for {frames} frames: expected rising ends.")
    return arrays, ends


def _episode(
    arrays: dict[str, Any], span: slice, schema: Schema, convention: ZarrConvention, task: str, origin: str
) -> AlignedEpisode:
    rgbm, wrist = np.asarray(arrays["rgbm"][span]), np.asarray(arrays["right_cam_img"][span])
    flip = slice(None, None, -1) if convention.colour == "BGR" else slice(None)
    columns: dict[str, NDArray[np.generic]] = {
        STATE: _numbers(arrays["right_state"][span], convention),
        ACTION: _numbers(arrays["action"][span], convention),
        "mask.head": np.array([rle.encode(mask > 0) for mask in rgbm[..., 3]], object),
        SUCCESS: np.full(len(rgbm), -1, np.int64),
    }
    videos = {
        HEAD: _encode(rgbm[..., :3][..., flip], schema.rate_hz),
        WRIST: _encode(wrist[..., flip], schema.rate_hz),
    }
    declared = {**asdict(convention), "joints": list(convention.joints)}
    note = "imported: no capture times, requests, safety flags or sensors exist"
    info = EpisodeInfo(task, None, note, f"import of {origin}", extra={"convention": declared, "times": "none"})
    return AlignedEpisode(float(schema.rate_hz), columns, videos, info)


def _numbers(values: Any, convention: ZarrConvention) -> NDArray[np.float32]:
    ordered = np.asarray(values, np.float32)[:, convention.order]
    if convention.open_value == 0.0:
        ordered[:, 7:] = 1.0 - ordered[:, 7:]
    return unscale_arm(ordered) if convention.arm_unit == "scaled" else ordered


def _encode(frames: NDArray[np.uint8], rate_hz: int) -> EncodedVideo:
    _, height, width, _ = frames.shape
    encoder = vid.ColourEncoder(width, height, rate_hz)
    packets = tuple(encoder.encode(np.ascontiguousarray(frame)) for frame in frames)
    sampler = vid.StatsSampler()
    for frame in frames:
        sampler.add(frame)
    pixels = encoder.format
    return EncodedVideo(
        pixels.codec, pixels.pix_fmt, width, height, pixels.extradata, packets, stats_frames=sampler.pictures()
    )
