"""How well the target's mask is followed in a recorded data set, by how much of the target is hidden.

`cli.py evaluate --suite masks` makes its own scenes and says the same of them; here are recordings, and any tracker.

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
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import tyro
from dexloop.datasets.home import resolve_existing
from dexloop.datasets.reader import DatasetReader
from dexloop.deploy.evaluation.mask_scores import GROUPS, MaskFrame, mask_figures, mask_iou, mask_text
from dexloop.deploy.evaluation.oracle import box_of
from dexloop.deploy.masks.base import Mask, MaskTracker
from dexloop.deploy.masks.learned import MaskConfig, make_tracker
from dexloop.hardware.errors import BadInput, DexLoopError
from dexloop.train.data.moments import observations
from dexloop.train.views import Observation, View


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


def hidden(mask: Mask, first: int, nearer: float) -> float:
    """The hidden share of a true mask. ``first``: pixels of the first one; ``nearer``: first over present distance."""
    return min(max(1 - float(mask.sum()) / (first * nearer**2), 0.0), 0.999) if mask.any() else 1.0


def distance(mask: Mask, depth_m: np.ndarray, otherwise: float) -> float:
    seen = depth_m[mask & (depth_m > 0)]
    return float(np.median(seen)) if len(seen) > 20 else otherwise


def follow(tracker: MaskTracker, moments: Iterator[Observation], config: Masks, episode: int) -> Iterator[MaskFrame]:
    """Every picture of an episode after its first."""
    first = next(moments)
    rgb, depth, mask = resized(first, config.size)
    true = box_of(mask)
    if true is None:
        return
    box = np.array(true)
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
        share = hidden(mask, area, start_m / last_m)
        yield MaskFrame(share, mask_iou(found.visible, mask), math.nan, spent, found.lost)


def numbers(text: str, count: int) -> range:
    low, _, high = text.partition("..")
    try:
        chosen = range(int(low), int(high or low) + 1)
    except ValueError:
        raise BadInput(f"--episodes {text!r}: expected a number or a range such as 150..246.") from None
    if not len(chosen) or chosen[0] < 0 or chosen[-1] >= count:
        raise BadInput(f"--episodes {text!r}: the data set has 0..{count - 1}.")
    return chosen


def main() -> int:
    config = tyro.cli(Masks, description=__doc__)
    cv2.setNumThreads(1)
    clips: list[list[MaskFrame]] = []
    try:
        reader = DatasetReader(resolve_existing(config.dataset))
        head = next(camera for camera in reader.schema.cameras if camera.name == "head")
        view = View("masks", "head", head.width, head.height, depth=True, mask=True)
        chosen = numbers(config.episodes, len(reader))
        tracker = make_tracker(config.masks)
        for episode in chosen:
            own = list(follow(tracker, observations(reader, episode, [view]), config, episode))
            clips.append(own)
            if config.each and own:
                means = {
                    g: np.mean([f.j for f in own if f.group == g]) for g in GROUPS if any(f.group == g for f in own)
                }
                print(f"{episode}: " + ", ".join(f"{group} {j:.3f}" for group, j in means.items()), flush=True)
    except DexLoopError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    figures = mask_figures(clips)
    print(mask_text(figures))
    if config.json:
        print(json.dumps(figures | {"size": config.size or (head.width, head.height)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
