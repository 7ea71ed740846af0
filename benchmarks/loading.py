"""Training samples a second: our packed loader beside LeRobotDataset's random access, on the same set, in one run.

Each sample is a state, a chunk of commands with its padding mask, and the pictures of both cameras at their recorded
size as bytes, the way `lerobot-train` asks for them; rows in the same shuffled order. LeRobot runs with both of its
decoders, in the loop and in two workers of torch's DataLoader, and the best of the four counts. Values are compared.
"""

from __future__ import annotations

import json as jsonlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import tyro
from dexloop.benchmarks.synthetic_rig import draw_frames
from dexloop.datasets.reader import DatasetReader
from dexloop.datasets.schema import CameraSchema, Schema
from dexloop.datasets.writer import DatasetWriter
from dexloop.hardware.errors import BadInput, DexLoopError
from dexloop.tests.dataset_fixtures import columns, encode_colour
from dexloop.train.controller.config import ActionConfig
from dexloop.train.data.batches import Batches
from dexloop.train.data.chunks import Chunks
from dexloop.train.views import View

Sample = dict[str, Any]


@dataclass(frozen=True)
class LoadingBenchmark:
    """Load shuffled training samples with both loaders."""

    dataset: Path | None = None
    """A recorded set without depth; by default one is made of drawn pictures, 640x480."""
    episodes: int = 6
    """Episodes of the set that is made."""
    rows: int = 200
    """Rows of each of them."""
    batch: int = 32
    """Samples of a batch."""
    batches: int = 6
    """Batches of LeRobot's that are timed, after the first; ours gives ten times as many."""
    repeats: int = 3
    """Times that every loader is measured, in turn; the median counts."""
    horizon: int = 64
    """Commands of a chunk."""
    json: bool = False
    """Print one JSON object as the last line."""


def record(root: Path, options: LoadingBenchmark) -> None:
    """A set of drawn pictures, encoded as the recorder does it."""
    from dexloop.datasets.episode import AlignedEpisode, EpisodeInfo

    schema = Schema(20, (CameraSchema("head", 640, 480), CameraSchema("wrist", 640, 480)), measured=False)
    with DatasetWriter(root, schema) as writer:
        for seed in range(options.episodes):
            videos = {}
            for number, camera in enumerate(schema.cameras):
                frames = np.stack(draw_frames(options.rows, seed=2 * seed + number))
                videos[camera.key] = encode_colour(frames)
            info = EpisodeInfo("grasp the cup", True, "", "script", schema.robot_type, seed, {})
            writer.append(AlignedEpisode(20.0, columns(schema, options.rows, seed, 1), videos, info))


def whole_views(reader: DatasetReader) -> tuple[View, ...]:
    """Both cameras' pictures as they were recorded."""
    return tuple(View(camera.name, camera.name, camera.width, camera.height) for camera in reader.schema.cameras)


def ours(chunks: Chunks, options: LoadingBenchmark) -> Iterator[Sample]:
    with Batches(chunks, options.batch, seed=0) as batches:
        for _, batch, _ in batches:
            yield batch


def lerobot(
    root: Path, options: LoadingBenchmark, rate_hz: int, order: list[int], backend: str, workers: int
) -> Iterator[Sample]:
    from lerobot.datasets import video_utils
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    # A forked worker would share the file positions of decoders that an earlier loader left open in this process.
    video_utils._default_decoder_cache.clear()
    ahead = {"action": [step / rate_hz for step in range(options.horizon)]}
    dataset = LeRobotDataset(
        "local/loading", root=root, video_backend=backend, delta_timestamps=ahead, return_uint8=True
    )
    yield from torch.utils.data.DataLoader(dataset, options.batch, sampler=order, num_workers=workers)


def rate(samples: Iterator[Sample], options: LoadingBenchmark, count: int) -> float:
    """Samples a second after the first batch, which pays for starting."""
    next(samples)
    begun = time.perf_counter()
    for _ in range(count):
        next(samples)
    spent = time.perf_counter() - begun
    samples.close()  # type: ignore[attr-defined]
    return count * options.batch / spent


def differing(mine: Sample, theirs: Sample, names: list[str]) -> int:
    """Numbers of a batch that are not the same in both, of state, commands, padding and pictures."""
    pairs = [(mine["state"], theirs["observation.state"])]
    pairs += [(mine[key], theirs[key]) for key in ("action", "action_is_pad")]
    pairs += [(mine[f"{name}.rgb"].permute(0, 3, 1, 2), theirs[f"observation.images.{name}"]) for name in names]
    return sum(int((first != second).sum()) for first, second in pairs)


@contextmanager
def made(options: LoadingBenchmark) -> Iterator[tuple[Path, Path]]:
    """The set's folder and one for the pack."""
    with tempfile.TemporaryDirectory() as folder:
        root = options.dataset or Path(folder) / "set"
        if options.dataset is None:
            record(root, options)
        yield root, Path(folder) / "home"


def run(options: LoadingBenchmark) -> dict[str, Any]:
    with made(options) as (root, home):
        os.environ["DEXLOOP_HOME"] = str(home)
        reader = DatasetReader(root)
        if any(camera.depth_unit_m for camera in reader.schema.cameras):
            raise BadInput(f"{root} has depth, which lerobot would decode too: give a set that was recorded without.")
        views = whole_views(reader)
        names = [view.name for view in views]
        action = ActionConfig(horizon=options.horizon, tokens=1, rate_hz=reader.schema.rate_hz)
        begun, spent = time.perf_counter(), time.process_time()
        chunks = Chunks(reader, views, (), action, episodes=range(len(reader)), progress=False)
        build_s, build_cpu_s = time.perf_counter() - begun, time.process_time() - spent
        with Batches(chunks, options.batch, seed=0) as batches:
            order = np.concatenate([batches.positions(step) for step in range(options.batches + 4)]).tolist()

        def theirs(backend: str, workers: int) -> Callable[[], Iterator[Sample]]:
            return lambda: lerobot(root, options, reader.schema.rate_hz, order, backend, workers)

        loaders: dict[str, Callable[[], Iterator[Sample]]] = {
            f"lerobot {backend}, {workers} workers": theirs(backend, workers)
            for backend in ("pyav", "torchcodec")
            for workers in (0, 2)
        }
        loaders["dexloop"] = lambda: ours(chunks, options)
        found: dict[str, list[float]] = {name: [] for name in loaders}
        for _ in range(options.repeats):
            for name, loader in loaders.items():
                count = options.batches * (10 if name == "dexloop" else 1)
                found[name].append(rate(loader(), options, count))
        wrong = {}
        for backend in ("pyav", "torchcodec"):
            pairs = zip(range(3), ours(chunks, options), theirs(backend, 0)(), strict=False)
            wrong[backend] = sum(differing(mine, other, names) for _, mine, other in pairs)
    rates = {name: median(values) for name, values in found.items()}
    best = max(value for name, value in rates.items() if name.startswith("lerobot"))
    return {
        "rows": len(chunks),
        "pictures": [f"{view.width}x{view.height}" for view in views],
        "samples_per_s": rates,
        "all_samples_per_s": found,
        "differing_numbers": wrong,
        "ratio": rates["dexloop"] / best,
        "build_s": build_s,
        "build_cpu_ms_per_row": build_cpu_s / len(chunks) * 1e3,
        "build_rows_per_s": len(chunks) / build_s,
        "paid_after_samples": build_s / (1 / best - 1 / rates["dexloop"]),
    }


def main(options: LoadingBenchmark) -> None:
    """Print the table, the ratio and, if asked, JSON."""
    result = run(options)
    print(
        f"{result['rows']} rows, pictures {', '.join(result['pictures'])}, chunks of {options.horizon}, batches of "
        f"{options.batch}, shuffled, {os.cpu_count()} cores; samples a second, median of {options.repeats}"
    )
    for name, value in result["samples_per_s"].items():
        print(f"  {name:32s}{value:10.1f}")
    for name, value in result["differing_numbers"].items():
        print(f"  numbers that differ, {name:11s}{value:10d}")
    print(f"  ratio to the best of lerobot's  {result['ratio']:10.1f}")
    print(
        f"  packing took {result['build_s']:.1f} s, {result['build_rows_per_s']:.0f} rows a second, "
        f"{result['build_cpu_ms_per_row']:.1f} ms of a core a row"
    )
    print(f"  which is paid for after {result['paid_after_samples']:.0f} samples")
    if options.json:
        settings = {**asdict(options), "dataset": str(options.dataset or "")}
        print(jsonlib.dumps({"benchmark": "loading", "options": settings, **result}))
    if any(result["differing_numbers"].values()):
        raise SystemExit("the loaders do not give the same: the rates do not compare")


if __name__ == "__main__":
    try:
        main(tyro.cli(LoadingBenchmark))
    except DexLoopError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
