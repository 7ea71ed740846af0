"""How many scripted episodes a minute and a core make, from scene to data set: ``python benchmarks/collecting.py``.

Records into a temporary data set with `collect` itself, checks the set, and counts wall and CPU time.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LP_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("MUJOCO_GL", "egl")

import numpy as np
import tyro
from dexloop.collect.command import Collect
from dexloop.datasets.check import run_check
from dexloop.datasets.reader import DatasetReader


@dataclass(frozen=True)
class Config:
    """Episodes per minute and core of `collect --operator script`."""

    episodes: int = 12
    """Episodes to keep."""
    workers: int = 2
    """Recording processes."""
    objects: str = "1..6"
    """Objects per scene."""
    seed: int = 90_000
    """Seed of the scenes."""
    camera_size: tuple[int, int] = (640, 480)
    """Width and height of both cameras."""
    depth: bool = False
    """Record depth too."""
    json: bool = False
    """Print one JSON object as the last line."""


def cpu_s() -> float:
    """CPU seconds of this process and of its children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def main(config: Config) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "set"
        cpu_before_s, started_s = cpu_s(), time.perf_counter()
        command = Collect(
            episodes=config.episodes,
            dataset=str(root),
            workers=config.workers,
            objects=config.objects,
            seed=config.seed,
            camera_size=config.camera_size,
            depth=config.depth,
        )
        with contextlib.redirect_stdout(io.StringIO()):
            command.run()
        wall_s, used_s = time.perf_counter() - started_s, cpu_s() - cpu_before_s
        report = run_check(root)
        if not report.ok:
            raise SystemExit(str(report))
        reader = DatasetReader(root)
        skew_ms = np.concatenate([reader.episode(i).columns["timing.skew_ns"] for i in range(len(reader))]) / 1e6
        seconds = report.frames / reader.schema.rate_hz
        size_mb = sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) / 1e6
    result = {
        "episodes": report.episodes,
        "workers": config.workers,
        "wall_s": round(wall_s, 1),
        "cpu_s": round(used_s, 1),
        "episodes_per_minute": round(60 * report.episodes / wall_s, 2),
        "episodes_per_minute_and_core": round(60 * report.episodes / used_s, 2),
        "recorded_s": round(seconds, 1),
        "faster_than_real_time": round(seconds / wall_s, 2),
        "mb_per_episode": round(size_mb / report.episodes, 2),
        "skew_p95_ms": round(float(np.percentile(skew_ms, 95)), 3),
    }
    size = "x".join(str(side) for side in config.camera_size)
    print(f"{result['episodes']} episodes, two cameras at {size}, {config.workers} workers, start-up included")
    for key, value in result.items():
        print(f"  {key:30} {value}")
    if config.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main(tyro.cli(Config))
