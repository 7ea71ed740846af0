"""Statistics with LeRobot's own rules (``lerobot.datasets.compute_stats``), in plain numpy.

LeRobot's module imports torch and takes seconds to load, which a recorder cannot afford. Its rules: per-dimension
min, max, mean, std and five quantiles read from a histogram of 5000 bins over the range of the episode; images per
channel in 0..1 from sampled, subsampled frames; a data set's statistics are its episodes', weighted by their counts.

Two deviations, both for accuracy: sums are taken in float64 (in LeRobot's float32 the spread of a camera's pixels is
off by 2 %), and the variance around the mean (its mean of squares minus squared mean loses its digits on nanoseconds).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Stat = dict[str, NDArray[np.float64]]  # min, max, mean, std, count (1,), q01, q10, q50, q90, q99
Stats = dict[str, Stat]

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
_BINS = 5000


def column_stats(values: Array) -> Stat:
    """(N,) or (N, D) numbers -> statistics of shape (D,), ``count`` (1,)."""
    table = values.reshape(len(values), -1)
    table = table.astype(np.result_type(table.dtype, np.float32), copy=False)
    exact = table.astype(np.float64)
    stat = {"min": exact.min(0), "max": exact.max(0), "mean": exact.mean(0), "std": exact.std(0)}
    quantiles = np.tile(stat["mean"], (len(QUANTILES), 1))  # (5, D); LeRobot gives the mean for a single row
    if len(table) > 1:
        quantiles = np.stack([_quantiles(column) for column in table.T], 1)
    stat |= dict(zip(QUANTILES, quantiles, strict=True))
    return stat | {"count": np.array([len(table)], np.int64)}


def image_stats(frames: Array, scale: float = 1 / 255) -> Stat:
    """(M, H, W, C) uint8 or uint16 frames -> statistics of shape (C, 1, 1), multiplied by ``scale``."""
    frames = _subsample(frames)
    stat: Stat = {}
    for channel in range(frames.shape[-1]):
        counts = np.bincount(frames[..., channel].ravel())
        part = _counted_stats(counts)
        for name, value in part.items():
            stat[name] = np.append(stat.get(name, []), value * scale)
    out = {name: value.reshape(-1, 1, 1) for name, value in stat.items()}
    return out | {"count": np.array([len(frames)], np.int64)}


def sample_rows(rows: int) -> NDArray[np.int64]:
    """Which frames LeRobot's statistics look at."""
    wanted = max(min(rows, 100), min(int(rows**0.75), 10_000))
    return np.round(np.linspace(0, rows - 1, wanted)).astype(np.int64)


def aggregate(parts: list[Stats]) -> Stats:
    """Statistics of several episodes or sets together."""
    keys = {key for part in parts for key in part}
    return {key: _aggregate([part[key] for part in parts if key in part]) for key in sorted(keys)}


def to_json(stats: Stats) -> dict[str, Any]:
    return {key: {name: value.tolist() for name, value in stat.items()} for key, stat in stats.items()}


def from_json(data: dict[str, Any]) -> Stats:
    return {
        key: {name: np.asarray(value, np.int64 if name == "count" else np.float64) for name, value in stat.items()}
        for key, stat in data.items()
    }


def _aggregate(parts: list[Stat]) -> Stat:
    counts = np.stack([part["count"] for part in parts]).astype(np.float64)
    total = counts.sum(0)
    means = np.stack([part["mean"] for part in parts])
    weights = counts.reshape(-1, *[1] * (means.ndim - 1)) / total.sum()
    mean = (means * weights).sum(0)
    variance = ((np.stack([part["std"] for part in parts]) ** 2 + (means - mean) ** 2) * weights).sum(0)
    out = {
        "min": np.min([part["min"] for part in parts], 0),
        "max": np.max([part["max"] for part in parts], 0),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": total.astype(np.int64),
    }
    return out | {name: (np.stack([part[name] for part in parts]) * weights).sum(0) for name in QUANTILES}


def _edges(low: Any, high: Any) -> Array:
    return np.linspace(low - 1e-10, high + 1e-10, _BINS + 1)


def _quantiles(column: Array, weights: Array | None = None) -> Array:
    """(5,) LeRobot's reading of QUANTILES from a histogram: linear inside the bin in which the count is reached."""
    edges = _edges(column.min(), column.max())
    total = np.cumsum(np.histogram(column, bins=edges, weights=weights)[0])
    wanted = np.array(list(QUANTILES.values())) * total[-1]
    index = np.searchsorted(total, wanted)
    inner = np.clip(index, 1, len(total) - 1)
    before = total[inner - 1]
    inside = np.maximum(total[inner] - before, 1e-300)  # the bin that reaches a count is never empty
    values = edges[inner] + (wanted - before) / inside * (edges[inner + 1] - edges[inner])
    return np.where(index == 0, edges[0], values).astype(np.float64)


def _counted_stats(counts: Array) -> dict[str, float]:
    """Statistics of integers of which ``counts[v]`` have the value v: what a histogram of every pixel would give."""
    values = np.flatnonzero(counts)
    weight = counts[values].astype(np.float64)
    mean = float((values * weight).sum() / weight.sum())
    out = {
        "min": float(values[0]),
        "max": float(values[-1]),
        "mean": mean,
        "std": float(np.sqrt(((values - mean) ** 2 * weight).sum() / weight.sum())),
    }
    quantiles = _quantiles(values.astype(np.float32), weight)
    return out | dict(zip(QUANTILES, quantiles.tolist(), strict=True))


def _subsample(frames: Array, target: int = 150, threshold: int = 300) -> Array:
    """Every n-th pixel of large frames, as LeRobot does."""
    height, width = frames.shape[1:3]
    if max(height, width) < threshold:
        return frames
    step = int(width / target) if width > height else int(height / target)
    return frames[:, ::step, ::step]
