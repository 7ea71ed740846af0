"""Small synthetic episodes for the data set tests: real all-intra packets, honest times, text masks."""

from __future__ import annotations

import functools

import numpy as np
from dexloop.datasets import rle, video
from dexloop.datasets.episode import AlignedEpisode, EncodedVideo, EpisodeInfo
from dexloop.datasets.schema import CameraSchema, Schema

NS = 1_000_000_000
SCHEMA = Schema(20, (CameraSchema("head", 64, 48), CameraSchema("wrist", 64, 48)))
DEPTH_SCHEMA = Schema(20, (CameraSchema("head", 64, 48, 0.001), CameraSchema("wrist", 64, 48, 0.0001)))


def pictures(rows: int, height: int, width: int, seed: int) -> np.ndarray:
    """(rows, H, W, 3) a gradient with a square that moves one pixel a row."""
    rng = np.random.default_rng(seed)
    base = np.stack(np.meshgrid(np.linspace(0, 200, width), np.linspace(0, 200, height)), -1)
    frames = np.zeros((rows, height, width, 3), np.uint8)
    frames[..., :2] = base
    frames[..., 2] = rng.integers(0, 255)
    for row in range(rows):
        frames[row, 10:22, (row % (width - 14)) : (row % (width - 14)) + 12] = rng.integers(0, 255, 3)
    return frames


def encode_colour(frames: np.ndarray) -> EncodedVideo:
    _, height, width, _ = frames.shape
    encoder = video.ColourEncoder(width, height, 20.0)
    packets = tuple(encoder.encode(frame) for frame in frames)
    fmt = encoder.format
    return EncodedVideo(fmt.codec, fmt.pix_fmt, width, height, fmt.extradata, packets, stats_frames=frames)


def encode_depth(counts: np.ndarray, unit_m: float) -> EncodedVideo:
    _, height, width = counts.shape
    encoder = video.DepthEncoder(width, height, 20.0, unit_m)
    packets = tuple(encoder.encode(frame) for frame in counts)
    fmt = encoder.format
    return EncodedVideo(fmt.codec, fmt.pix_fmt, width, height, fmt.extradata, packets, True, unit_m, counts[..., None])


def depth_counts(rows: int, height: int, width: int, seed: int) -> np.ndarray:
    counts = np.random.default_rng(seed).integers(0, 4096, (rows, height, width)).astype(np.uint16)
    counts[:, :4, :4] = 0  # invalid stays invalid
    return counts


def masks(rows: int, height: int, width: int) -> np.ndarray:
    out = np.zeros((rows, height, width), bool)
    for row in range(rows):
        out[row, 10:22, (row % (width - 14)) : (row % (width - 14)) + 12] = True
    return out


def columns(schema: Schema, rows: int, seed: int, success: int, start_ns: int = 0) -> dict[str, np.ndarray]:
    """Every non-video column, within the limits and with capture times that could be."""
    rng = np.random.default_rng(seed)
    row_ns = start_ns + (np.arange(rows, dtype=np.int64) * NS) // schema.rate_hz + 50_000_000
    camera = next(c for c in schema.cameras if c.name == schema.mask_camera)
    state = np.concatenate([rng.normal(0, 0.3, (rows, 7)).cumsum(0) * 0.05, rng.uniform(0, 1, (rows, 6))], 1)
    out: dict[str, np.ndarray] = {}
    for spec in schema.columns:
        if spec.dtype == "string":
            out[spec.key] = np.array([rle.encode(m) for m in masks(rows, camera.height, camera.width)], object)
        elif spec.dtype == "float32":
            out[spec.key] = rng.normal(0, 1, (rows, spec.width)).astype(np.float32)
        else:
            out[spec.key] = np.zeros(rows, np.int64)
    out["observation.state"] = state.astype(np.float32)
    out["action"] = np.roll(state, -1, 0).astype(np.float32)
    out["label.success"] = np.full(rows, success, np.int64)
    if schema.measured:
        out["command.requested"] = out["action"] + np.float32(0.001)
        out["timing.row_ns"] = row_ns
        for i, key in enumerate(schema.capture_keys):
            out[key] = row_ns - 3_000_000 * (i + 1)
        out["timing.sent_ns"] = row_ns + 1_000_000
        out["timing.input_ns"] = row_ns - 7_000_000
        out["timing.latency_ns"] = out["timing.sent_ns"] - out["timing.input_ns"]
        out["timing.skew_ns"] = np.max([np.abs(row_ns - out[k]) for k in schema.capture_keys], 0)
    return out


@functools.cache
def make_episode(
    seed: int = 0,
    rows: int = 20,
    schema: Schema = SCHEMA,
    task: str = "grasp the red cup",
    success: bool | None = True,
) -> AlignedEpisode:
    """Different in every number and pixel for every seed. Shared between tests: copy what you change."""
    videos = {}
    for i, camera in enumerate(schema.cameras):
        videos[camera.key] = encode_colour(pictures(rows, camera.height, camera.width, 10 * seed + i))
        if camera.depth_unit_m:
            counts = depth_counts(rows, camera.height, camera.width, 10 * seed + i)
            videos[camera.depth_key] = encode_depth(counts, camera.depth_unit_m)
    label = {None: -1, False: 0, True: 1}[success]
    info = EpisodeInfo(task, success, "a note", "script", schema.robot_type, seed, {"scene": {"objects": 2}})
    return AlignedEpisode(float(schema.rate_hz), columns(schema, rows, seed, label), videos, info)
