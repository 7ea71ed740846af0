"""Where the target's mask comes from, and how it may be spoilt on purpose: the ablations."""

from __future__ import annotations

from collections import deque
from typing import Literal, get_args

import cv2
import numpy as np

from ...hardware.errors import BadInput
from ..masks.base import Depth, Mask, MaskTracker, Rgb, State, TargetMask, check_box
from ..planner.base import Box

MaskSource = Literal["tracked", "oracle", "none", "box", "noisy", "wrong", "lagged"]
"""tracked: what deployment uses; oracle: the simulator's; none: empty; box: the planner's box, filled, never moved;
noisy: edges and place off by up to 3 px, one in ten dropped; wrong: of another object, the simulator's; lagged: of
0.5 s ago."""

LAG_S = 0.5
NOISE_PX = 3
DROPPED = 0.1


def check_source(name: str) -> None:
    if name not in get_args(MaskSource):
        raise BadInput(f"masks is {name!r}: expected one of {', '.join(get_args(MaskSource))}.")


class NoMask:
    """Nothing is the target: the policy sees where its window was put, and no more."""

    def start(self, rgb: Rgb, depth_m: Depth, box: Box, state: State) -> TargetMask:
        return _certain(np.zeros(depth_m.shape, bool))

    def update(self, rgb: Rgb, depth_m: Depth, state: State) -> TargetMask:
        return _certain(np.zeros(depth_m.shape, bool))


class FilledBox:
    """The planner's box, filled, and left where it was."""

    def __init__(self) -> None:
        self._mask: Mask | None = None

    def start(self, rgb: Rgb, depth_m: Depth, box: Box, state: State) -> TargetMask:
        x0, y0, x1, y1 = check_box(box, *depth_m.shape)
        self._mask = np.zeros(depth_m.shape, bool)
        self._mask[y0:y1, x0:x1] = True
        return _certain(self._mask)

    def update(self, rgb: Rgb, depth_m: Depth, state: State) -> TargetMask:
        if self._mask is None or self._mask.shape != depth_m.shape:
            raise BadInput("the box was never given, or for pictures of another size: start() first.")
        return _certain(self._mask)


class Noisy:
    """Another tracker's masks with wrong edges; some are dropped."""

    def __init__(self, tracker: MaskTracker, seed: int) -> None:
        self._tracker, self._rng = tracker, np.random.default_rng([seed, 555])

    def start(self, rgb: Rgb, depth_m: Depth, box: Box, state: State) -> TargetMask:
        return self._spoilt(self._tracker.start(rgb, depth_m, box, state))

    def update(self, rgb: Rgb, depth_m: Depth, state: State) -> TargetMask:
        found = self._tracker.update(rgb, depth_m, state)
        if self._rng.random() < DROPPED:
            return _replaced(found, np.zeros_like(found.visible))
        return self._spoilt(found)

    def _spoilt(self, found: TargetMask) -> TargetMask:
        size = int(self._rng.integers(-NOISE_PX, NOISE_PX + 1))
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(size) + 1,) * 2)
        picture = found.visible.astype(np.uint8)
        changed = cv2.dilate(picture, kernel) if size > 0 else cv2.erode(picture, kernel)
        shift = self._rng.integers(-NOISE_PX, NOISE_PX + 1, 2)
        move = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
        moved = cv2.warpAffine(changed, move, changed.shape[::-1], flags=cv2.INTER_NEAREST)
        return _replaced(found, moved.astype(bool))


class Lagged:
    """Another tracker's masks, ``ticks`` pictures late."""

    def __init__(self, tracker: MaskTracker, ticks: int) -> None:
        self._tracker = tracker
        self._past: deque[TargetMask] = deque(maxlen=ticks + 1)

    def start(self, rgb: Rgb, depth_m: Depth, box: Box, state: State) -> TargetMask:
        self._past.clear()
        self._past.append(self._tracker.start(rgb, depth_m, box, state))
        return self._past[0]

    def update(self, rgb: Rgb, depth_m: Depth, state: State) -> TargetMask:
        self._past.append(self._tracker.update(rgb, depth_m, state))
        return self._past[0]


def _certain(mask: Mask) -> TargetMask:
    return TargetMask(mask, mask, 0.0, 1.0)


def _replaced(found: TargetMask, visible: Mask) -> TargetMask:
    return TargetMask(visible, found.amodal | visible, found.occluded, found.confidence, found.lost)
