"""Recording in real time: our recorder beside LeRobot's streaming h264 recorder, on the same pictures, in one run.

Two 640x480 cameras at 30 fps (frames drawn beforehand), an arm at 100 Hz and a hand at 30 Hz, 300 frames an episode.
Each recorder runs in a process of its own on the same cores and is charged that process' CPU time, from the episode's
begin until it is saved and readable. Ours saves more (journal, raw streams, all capture times); both save the same
rows. LeRobot saves with ``save_episode`` alone, its quickest way: a crash before ``finalize`` would undo it.
"""

from __future__ import annotations

import itertools
import json as jsonlib
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from dexloop.benchmarks.synthetic_rig import SyntheticCamera, ThreadedRig, draw_frames
from dexloop.hardware.clock import NS
from dexloop.hardware.errors import BadInput, DexLoopError
from dexloop.hardware.values import Command
from numpy.typing import NDArray

CAMERAS = ("head", "wrist")
Pictures = dict[str, list[Any]]


@dataclass(frozen=True)
class RecordingBenchmark:
    """Record and save episodes in real time with both recorders."""

    frames: int = 300
    """Frames per camera and episode."""
    rate_hz: int = 30
    """Frames and rows per second."""
    cores: int = 2
    """Cores that each recorder may use."""
    episodes: int = 3
    """Episodes per recorder; the first pays for imports and is not counted."""
    lerobot_preset: str = "ultrafast"
    """x264 preset of LeRobot's recorder; ultrafast is its cheapest."""
    input: Path | None = None
    """A video whose pictures are recorded instead of drawn ones."""
    json: bool = False
    """Print one JSON object as the last line."""


@dataclass(frozen=True)
class Result:
    """One episode of one recorder."""

    add_ms_median: float  # the loop's call per tick
    add_ms_p95: float
    add_ms_max: float
    save_s: float  # from the last frame until the episode can be read
    cpu_s: float
    video_mb: float
    rows: int
    video_frames: int  # fewest frames in one camera's video, counted by reading the file
    lost: int  # frames that were given and are nowhere
    luma_psnr_db: float  # of every 30th frame against the picture that was given


def cpu_s() -> float:
    """CPU time of this process and its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def delays(seconds: list[float]) -> tuple[float, float, float]:
    """Median, 95th percentile and maximum in ms."""
    ms = 1e3 * np.array(seconds)
    return float(np.median(ms)), float(np.percentile(ms, 95)), float(ms.max())


def videos_of(root: Path, episode: int) -> list[Path]:
    """This episode's videos, one per camera."""
    return [sorted((root / "videos" / f"observation.images.{name}").rglob("*.mp4"))[episode] for name in CAMERAS]


def luma_psnr_db(shown: Iterable[NDArray[np.generic]], given: Sequence[NDArray[np.uint8]]) -> float:
    """Mean peak signal-to-noise ratio of the luma of RGB pictures, dB."""
    weights = np.array([0.299, 0.587, 0.114])
    errors = [np.mean((a @ weights - b @ weights) ** 2) for a, b in zip(shown, given, strict=True)]
    return float(np.mean(10 * np.log10(255**2 / np.array(errors))))


def ours(options: RecordingBenchmark, folder: Path, pictures: Pictures) -> list[Result]:
    """Sources push from threads, the loop sends commands; each episode is aligned, appended and compacted."""
    from dexloop.datasets.align import align
    from dexloop.datasets.episode import EpisodeInfo
    from dexloop.datasets.journal import JournalReader, compact
    from dexloop.datasets.recorder import Recorder
    from dexloop.datasets.schema import schema_of
    from dexloop.datasets.video import count_frames, decode
    from dexloop.datasets.writer import DatasetWriter

    results, root, writer = [], folder / "set", None
    for episode in range(options.episodes):
        cameras = [SyntheticCamera(name, pictures[name], options.rate_hz) for name in CAMERAS]
        added, begun = [], cpu_s()
        with ThreadedRig(cameras) as rig:
            recorder = Recorder(rig.robot, cameras, folder / f"{episode}.journal.h5")
            recorder.begin(EpisodeInfo("pick up the red cup", success=True))
            start_ns = rig.clock.now_ns()
            for tick in range(options.frames):
                rig.clock.sleep_until_ns(start_ns + round(tick * NS / options.rate_hz))
                command = Command(rig.clock.now_ns(), np.full(7, tick / 1000), np.ones(6))
                before = time.perf_counter()
                recorder.command(command, rig.robot.send(command))
                added.append(time.perf_counter() - before)
            rig.clock.sleep_until_ns(start_ns + round(options.frames * NS / options.rate_hz))
            last_frame = time.perf_counter()
            journal = recorder.end()
        aligned = align(journal, options.rate_hz, statistics=recorder.statistics_pictures())
        writer = writer or DatasetWriter(root, schema_of(aligned))
        writer.append(aligned)
        compact(journal, folder / f"{episode}.kept.h5")
        save_s, spent = time.perf_counter() - last_frame, cpu_s() - begun
        with JournalReader(journal) as reader:
            journaled = sum(len(reader.index(f"cameras/{name}/colour")) for name in CAMERAS)
            sample = reader.index("cameras/head/colour")[::30]
            shown = decode(reader.payloads("cameras/head/colour", sample), reader.meta.cameras[0].colour)
        given = [pictures["head"][number % len(pictures["head"])] for number in sample["sequence"]]
        psnr = luma_psnr_db(shown, given)
        counts = [recorder.counts[name] for name in CAMERAS]
        lost = sum(count.received + count.lost_before_us for count in counts) - journaled
        files = videos_of(root, episode)
        size = sum(path.stat().st_size for path in files) / 1e6
        frames = min(count_frames(path) for path in files)
        results.append(Result(*delays(added), save_s, spent, size, aligned.rows, frames, lost, psnr))
    return results


def lerobot_set(options: RecordingBenchmark, root: Path, height: int, width: int) -> Any:
    """An empty LeRobot data set that streams h264."""
    import av
    from lerobot.configs import RGBEncoderConfig
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from datasets import disable_progress_bars

    disable_progress_bars()
    av.logging.set_libav_level(av.logging.ERROR)
    numbers = {"dtype": "float32", "shape": (13,), "names": [f"m{i}.pos" for i in range(13)]}
    video = {"dtype": "video", "shape": (height, width, 3), "names": ["height", "width", "channels"]}
    features = {"observation.state": numbers, "action": numbers}
    features |= {f"observation.images.{name}": video for name in CAMERAS}
    return LeRobotDataset.create(
        "local/peer",
        options.rate_hz,
        features,
        root=root,
        rgb_encoder=RGBEncoderConfig(vcodec="h264", preset=options.lerobot_preset),
        streaming_encoding=True,
        # One file per episode, as ours: otherwise each save copies all earlier episodes' videos.
        video_files_size_in_mb=0.001,  # type: ignore[arg-type]
    )


def lerobot(options: RecordingBenchmark, folder: Path, pictures: Pictures) -> list[Result]:
    """LeRobot's loop: add_frame at the frames' rate with streaming encoding, then save_episode."""
    import av
    from dexloop.datasets.video import count_frames

    dataset = lerobot_set(options, folder / "set", *pictures[CAMERAS[0]][0].shape[:2])
    results = []
    for episode in range(options.episodes):
        added, begun, start = [], cpu_s(), time.perf_counter()
        for tick in range(options.frames):
            time.sleep(max(0.0, start + tick / options.rate_hz - time.perf_counter()))
            frame: dict[str, Any] = {"observation.state": np.zeros(13, np.float32), "task": "pick up the red cup"}
            frame["action"] = np.full(13, tick / 1000, np.float32)
            frame |= {f"observation.images.{name}": pictures[name][tick % len(pictures[name])] for name in CAMERAS}
            before = time.perf_counter()
            dataset.add_frame(frame)
            added.append(time.perf_counter() - before)
        last_frame = time.perf_counter()
        dataset.save_episode()
        save_s, spent = time.perf_counter() - last_frame, cpu_s() - begun
        files = videos_of(folder / "set", episode)
        size = sum(path.stat().st_size for path in files) / 1e6
        frames = min(count_frames(path) for path in files)
        lost = len(CAMERAS) * (options.frames - frames)
        with av.open(str(files[0])) as container:
            every = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][::30]
        given = [pictures["head"][tick % len(pictures["head"])] for tick in range(0, frames, 30)]
        psnr = luma_psnr_db(every, given)
        results.append(Result(*delays(added), save_s, spent, size, options.frames, frames, lost, psnr))
    dataset.finalize()
    return results


def measure(
    recorder: Callable[[RecordingBenchmark, Path, Pictures], list[Result]], options: RecordingBenchmark
) -> list[Result]:
    """Run a recorder in a fresh process on the given cores."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, context.Pool(1, _limit, (options.cores,)) as pool:
        results = pool.apply(_record, (recorder, options, Path(folder)))
        pool.close()
        pool.join()
    return results


def _limit(cores: int) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def _record(
    recorder: Callable[[RecordingBenchmark, Path, Pictures], list[Result]], options: RecordingBenchmark, folder: Path
) -> list[Result]:
    count = min(options.frames, 150)
    if options.input is None:
        pictures = {name: draw_frames(count, seed=seed) for seed, name in enumerate(CAMERAS)}
    else:
        shown = film(options.input, count)
        pictures = {"head": shown, "wrist": shown[::-1]}
    return recorder(options, folder, pictures)


def film(path: Path, count: int) -> list[Any]:
    """The first pictures of a video, (H, W, 3) uint8. Raises BadInput where there are none."""
    import av

    try:
        with av.open(str(path)) as container:
            return [frame.to_ndarray(format="rgb24") for frame in itertools.islice(container.decode(video=0), count)]
    except (av.FFmpegError, OSError, IndexError) as error:
        raise BadInput(f"{path} is no video that can be read ({error}); give an mp4") from error


def main(options: RecordingBenchmark) -> None:
    """Print the table, the ratios and, if asked, JSON."""
    if options.input is not None:
        film(options.input, 1)
    results = {"dexloop": measure(ours, options)[1:], "lerobot": measure(lerobot, options)[1:]}
    fields = list(Result.__dataclass_fields__)
    mean = {name: {f: float(np.mean([getattr(r, f) for r in rs])) for f in fields} for name, rs in results.items()}
    print(f"{options.frames} frames at {options.rate_hz} Hz from two cameras, {options.cores} cores, mean per episode")
    print(f"{'':16s}{'dexloop':>12s}{'lerobot h264 ' + options.lerobot_preset:>26s}{'ratio':>10s}")
    for field in fields:
        a, b = mean["dexloop"][field], mean["lerobot"][field]
        print(f"{field:16s}{a:12.3f}{b:26.3f}{(f'{a / b:.2f}' if b else '-'):>10s}")
    if options.json:
        print(
            jsonlib.dumps(
                {
                    "benchmark": "recording",
                    "options": {**asdict(options), "input": str(options.input or "")},
                    "episodes": {name: [asdict(r) for r in rs] for name, rs in results.items()},
                    "mean": mean,
                    "cpu_ratio": mean["dexloop"]["cpu_s"] / mean["lerobot"]["cpu_s"],
                    "worst_save_s": max(r.save_s for r in results["dexloop"]),
                    "lost": sum(r.lost for r in results["dexloop"]),
                }
            )
        )


if __name__ == "__main__":
    try:
        main(tyro.cli(RecordingBenchmark))
    except DexLoopError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
