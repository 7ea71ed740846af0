"""What every tracker of the target answers, and the one interface behind which they stand.

A mask is always of the same moment as the picture that it was made from: a tracker never predicts ahead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...hardware.errors import BadInput
from ..planner.base import Box

Mask = NDArray[np.bool_]
Rgb = NDArray[np.uint8]
Depth = NDArray[np.float32]
State = NDArray[np.floating]


@dataclass(frozen=True)
class TargetMask:
    """Where the target is in one head picture."""

    visible: Mask  # (H, W) its pixels that the camera sees
    amodal: Mask  # (H, W) the same, and those behind the robot or something else
    occluded: float  # 0..1 share of the amodal pixels that are not visible
    confidence: float  # 0..1; it falls while nothing of the target can be checked
    lost: bool = False  # the tracker contradicts what it sees, or has not seen the target for long: ground it again

    def __post_init__(self) -> None:
        if self.visible.shape != self.amodal.shape or self.visible.ndim != 2:
            raise ValueError(f"visible {self.visible.shape} and amodal {self.amodal.shape} are not one (H, W)")
        if not (0.0 <= self.occluded <= 1.0 and 0.0 <= self.confidence <= 1.0):
            raise ValueError(f"occluded {self.occluded} and confidence {self.confidence} are not in 0..1")


class MaskTracker(Protocol):
    """Follows one target from its box. ``state`` is (13,): 7 arm joints rad, 6 openings (1 = open), of the same moment
    as the picture. Depth is metric z aligned to colour, 0 = invalid."""

    def start(self, rgb: Rgb, depth_m: Depth, box: Box, state: State) -> TargetMask:
        """The target of ``box`` in this picture; forgets any other. Raises BadInput where the box holds nothing."""
        ...

    def update(self, rgb: Rgb, depth_m: Depth, state: State) -> TargetMask:
        """The target in the next picture. Raises BadInput before :meth:`start`, or for a picture of another size."""
        ...


def check_moment(rgb: Rgb, depth_m: Depth, state: State, size: tuple[int, int] | None = None) -> None:
    """Raises BadInput where picture, depth and state do not fit, or the picture is not of ``size`` (H, W)."""
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise BadInput(f"the head picture is {rgb.shape} {rgb.dtype}: expected (H, W, 3) uint8 RGB.")
    if depth_m.shape != rgb.shape[:2]:
        raise BadInput(
            f"the head depth is {depth_m.shape}, the picture {rgb.shape[:2]}: align depth to colour (a mask tracker "
            "needs the head camera's depth)."
        )
    state = np.asarray(state)
    if state.shape != (13,) or not np.isfinite(state).all():
        raise BadInput(f"the state is {state.shape}: expected 13 finite numbers, 7 arm joints and 6 openings.")
    if size is not None and rgb.shape[:2] != size:
        raise BadInput(f"the picture is {rgb.shape[:2]}, the target was started on {size}: start again after a change.")


def check_box(box: Box, height: int, width: int) -> tuple[int, int, int, int]:
    """The box in whole pixels inside the picture, x0 < x1 and y0 < y1. Raises BadInput where there is none."""
    if not np.isfinite(box).all():
        raise BadInput(f"the box {box} is not finite: expected x0, y0, x1, y1 in pixels.")
    x0, y0 = max(0, int(np.floor(box[0]))), max(0, int(np.floor(box[1])))
    x1, y1 = min(width, int(np.ceil(box[2]))), min(height, int(np.ceil(box[3])))
    if x1 - x0 < 2 or y1 - y0 < 2:
        raise BadInput(
            f"the box {tuple(round(float(v), 1) for v in box)} holds no pixels of the {width}x{height} picture: "
            "expected x0 < x1, y0 < y1 in pixels, corner to corner."
        )
    return x0, y0, x1, y1
