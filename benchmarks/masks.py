"""How well the target's mask is followed, against the twin's segmentation, by how much of the target is hidden.

    python benchmarks/masks.py --dataset lift --episodes 150..246
    python benchmarks/masks.py --dataset lift --episodes 150..169 --size 640 480

The data set has head depth and exact masks (`collect --operator script --task lift --depth`). Each episode is started
with the box of its first mask, after which the tracker sees what a rig gives: colour, measured depth, robot state. J is
the intersection over union of visible masks. How much is hidden follows from the first mask's pixels, scaled by the
target's distance. A larger size than the recorded one is interpolated: good for times, kind to J. Everything runs in
one thread; times are of its CPU (start it with OMP_NUM_THREADS=1).
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import tyro
from dexloop.datasets.home import resolve_existing
from dexloop.datasets.reader import DatasetReader
from dexloop.deploy.masks.base import Mask, MaskTracker
from dexloop.deploy.masks.learned import MaskConfig, make_tracker
from dexloop.hardware.errors import BadInput, DexLoopError
from dexloop.train.data.moments import observations
from dexloop.train.views import Observation, View

GROUPS = ("none", "0-50 %", "> 50 %", "all")
NONE_BELOW = 0.03  # a pixel of the outline more or less is no occlusion


@dataclass(frozen=True)
class Masks:
    """Measure a mask tracker on recorded episodes."""

    dataset: str = "lift"
    """Name under recordings/, or a path."""
    episodes: str = "150..246"
    """One number, or a range."""
    size: tuple[int, int] | None = None
    """Width and height that pictures are brought to. Not given: as recorded."""
    masks: MaskConfig = MaskConfig()
    """The tracker."""
    box_noise: float = 0.0
    """Each side of the first box is moved by up to this share of its length."""
    each: bool = False
    """A line for each episode."""
    json: bool = False
    """Print one JSON object as the last line."""


@dataclass(frozen=True)
class Frame:
    """One tracked picture."""

    group: str
    j: float
    cpu_ms: float
    lost: bool
    confidence: float


def iou(a: Mask, b: Mask) -> float:
    """1 where both are empty."""
    union = int((a | b).sum())
    return 1.0 if union == 0 else int((a & b).sum()) / union


def resized(moment: Observation, size: tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray, Mask]:
    """Head picture, depth and true mask."""
    rgb, depth, mask = moment.rgb["head"], moment.depth_m["head"], moment.mask
    if size is None or rgb.shape[1::-1] == size:
        return rgb, depth, mask
    return (
        cv2.resize(rgb, size, interpolation=cv2.INTER_LINEAR),
        cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST),
        cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool),
    )


def hidden(mask: Mask, first: int, nearer: float) -> str:
    """The group of a true mask. ``first``: pixels of the first one; ``nearer``: first over present distance."""
    if not mask.any():
        return "all"
    share = 1 - mask.sum() / (first * nearer**2)
    return "none" if share < NONE_BELOW else "0-50 %" if share <= 0.5 else "> 50 %"


def distance(mask: Mask, depth_m: np.ndarray, otherwise: float) -> float:
    seen = depth_m[mask & (depth_m > 0)]
    return float(np.median(seen)) if len(seen) > 20 else otherwise


def follow(tracker: MaskTracker, moments: Iterator[Observation], config: Masks, episode: int) -> Iterator[Frame]:
    """Every picture of an episode after its first."""
    first = next(moments)
    rgb, depth, mask = resized(first, config.size)
    if not mask.any():
        return
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float)
    sides = np.tile(box[2:] - box[:2], 2)
    box += config.box_noise * sides * np.random.default_rng(episode).uniform(-1, 1, 4)
    tracker.start(rgb, depth, (box[0], box[1], box[2], box[3]), first.state)
    area = int(mask.sum())
    start_m = last_m = distance(mask, depth, 0.85)
    for moment in moments:
        rgb, depth, mask = resized(moment, config.size)
        last_m = distance(mask, depth, last_m)
        begun = time.thread_time()
        found = tracker.update(rgb, depth, moment.state)
        spent = 1e3 * (time.thread_time() - begun)
        yield Frame(hidden(mask, area, start_m / last_m), iou(found.visible, mask), spent, found.lost, found.confidence)


def numbers(text: str, count: int) -> range:
    low, _, high = text.partition("..")
    try:
        chosen = range(int(low), int(high or low) + 1)
    except ValueError:
        raise BadInput(f"--episodes {text!r}: expected a number or a range such as 150..246.") from None
    if not len(chosen) or chosen[0] < 0 or chosen[-1] >= count:
        raise BadInput(f"--episodes {text!r}: the data set has 0..{count - 1}.")
    return chosen


def summary(frames: list[Frame], episodes: int, size: tuple[int, int]) -> dict[str, Any]:
    by_group: dict[str, list[float]] = defaultdict(list)
    for frame in frames:
        by_group[frame.group].append(frame.j)
    times = [frame.cpu_ms for frame in frames]
    return {
        "episodes": episodes,
        "size": size,
        "frames": len(frames),
        "j": {group: float(np.mean(by_group[group])) for group in GROUPS if by_group[group]},
        "j_median": {group: float(np.median(by_group[group])) for group in GROUPS if by_group[group]},
        "count": {group: len(by_group[group]) for group in GROUPS},
        "lost": float(np.mean([frame.lost for frame in frames])),
        "cpu_ms": {
            "mean": float(np.mean(times)),
            **{f"p{p}": float(np.percentile(times, p)) for p in (50, 95, 99)},
        },
    }


def show(figures: dict[str, Any]) -> None:
    print(f"{figures['episodes']} episodes, {figures['frames']} pictures of {figures['size'][0]}x{figures['size'][1]}")
    print("hidden      J mean  median   pictures")
    for group, j in figures["j"].items():
        print(f"{group:10s} {j:7.3f} {figures['j_median'][group]:7.3f} {figures['count'][group]:10d}")
    print(
        f"lost in {figures['lost']:.1%} of the pictures   (hidden all: J is 1 where the tracker shows nothing either)"
    )
    spent = figures["cpu_ms"]
    print(f"CPU of one thread: mean {spent['mean']:.1f} ms, p50 {spent['p50']:.1f}, p95 {spent['p95']:.1f}, "
          f"p99 {spent['p99']:.1f} a picture")  # fmt: skip


def main() -> int:
    config = tyro.cli(Masks, description=__doc__)
    cv2.setNumThreads(1)
    frames: list[Frame] = []
    try:
        reader = DatasetReader(resolve_existing(config.dataset))
        head = next(camera for camera in reader.schema.cameras if camera.name == "head")
        view = View("masks", "head", head.width, head.height, depth=True, mask=True)
        chosen = numbers(config.episodes, len(reader))
        tracker = make_tracker(config.masks)
        for episode in chosen:
            own = list(follow(tracker, observations(reader, episode, [view]), config, episode))
            frames += own
            if config.each and own:
                means = {
                    g: np.mean([f.j for f in own if f.group == g]) for g in GROUPS if any(f.group == g for f in own)
                }
                print(f"{episode}: " + ", ".join(f"{group} {j:.3f}" for group, j in means.items()), flush=True)
    except DexLoopError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    figures = summary(frames, len(chosen), config.size or (head.width, head.height))
    show(figures)
    if config.json:
        print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
