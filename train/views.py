"""What a policy sees of a moment: the observation, and the views of it that an encoder asks for.

The same :func:`render` makes a view from a recorded row and from a live frame, so that training and deployment cannot
drift apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..hardware.errors import BadInput

Arrays = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Observation:
    """One moment as the robot gives it. ``mask`` is the target's, in the head view, of the same exposure."""

    state: NDArray[np.floating]  # (13,) 7 arm joints rad, 6 openings (1 = open)
    rgb: Mapping[str, NDArray[np.uint8]]  # camera -> (H, W, 3)
    depth_m: Mapping[str, NDArray[np.float32]]  # camera -> (H, W), 0 = invalid; empty where there is none
    mask: NDArray[np.bool_]  # (H, W), same size as the head picture


@dataclass(frozen=True)
class View:
    """One picture that an encoder wants, as arrays named ``<name>.<part>``.

    ``rgb`` (h, w, 3) uint8; ``depth`` (h, w) float32 m, 0 = invalid; ``mask`` (h, w) bool; and where the view is a
    window, ``origin`` (2,) int32: the pixel (x, y) of its corner in the resized picture, possibly outside of it.
    """

    name: str
    camera: str
    width: int  # the camera's picture is resized (squashed) to this first
    height: int
    window: int = 0  # side in pixels of the square cut out around the target; 0 = the whole picture
    rgb: bool = True
    depth: bool = False
    mask: bool = False

    @property
    def parts(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Array name -> (shape, dtype) of one row."""
        side = (self.window, self.window) if self.window else (self.height, self.width)
        out: dict[str, tuple[tuple[int, ...], str]] = {}
        if self.rgb:
            out[f"{self.name}.rgb"] = ((*side, 3), "uint8")
        if self.depth:
            out[f"{self.name}.depth"] = (side, "float32")
        if self.mask:
            out[f"{self.name}.mask"] = (side, "bool")
        if self.window:
            out[f"{self.name}.origin"] = ((2,), "int32")
        return out


def render(view: View, observation: Observation, centre: tuple[float, float] | None = None) -> Arrays:
    """The arrays of ``view``. ``centre``: where a window goes while the mask is empty, (x, y) in the resized picture.

    Colour is averaged when it shrinks, interpolated when it grows; depth and mask take the nearest pixel, so that no
    depth is invented. Raises BadInput where the observation lacks the camera, its depth, or has a mask of another size.
    """
    if view.camera not in observation.rgb:
        have = ", ".join(observation.rgb) or "none"
        raise BadInput(f"the policy needs camera {view.camera!r}, the observation has {have}: record or connect it.")
    if view.depth and view.camera not in observation.depth_m:
        raise BadInput(
            f"the policy needs the depth of camera {view.camera!r}, which the observation lacks: switch depth on "
            "(collect --depth)."
        )
    rgb = observation.rgb[view.camera]
    size = (view.width, view.height)
    mask = None
    if view.mask or view.window:
        if observation.mask.shape != rgb.shape[:2]:
            raise BadInput(
                f"the mask is {observation.mask.shape[::-1]}, the {view.camera} picture {rgb.shape[1::-1]}: expected "
                "one mask pixel for each picture pixel."
            )
        mask = _resized(observation.mask.astype(np.uint8), size, cv2.INTER_NEAREST).astype(bool)
    pictures: Arrays = {}
    if view.rgb:
        shrinks = rgb.shape[1] >= view.width and rgb.shape[0] >= view.height
        # INTER_AREA shifts and blocks a picture that grows along an axis, as 640 x 480 does when it becomes 518 x 518.
        pictures["rgb"] = _resized(rgb, size, cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    if view.depth:
        pictures["depth"] = _resized(observation.depth_m[view.camera], size, cv2.INTER_NEAREST)
    if view.mask and mask is not None:
        pictures["mask"] = mask
    if view.window:
        assert mask is not None
        x, y = mask_centre(mask) or centre or (view.width / 2, view.height / 2)
        origin = (round(x) - view.window // 2, round(y) - view.window // 2)
        pictures = {part: cut(picture, origin, view.window) for part, picture in pictures.items()}
        pictures["origin"] = np.array(origin, np.int32)
    return {f"{view.name}.{part}": picture for part, picture in pictures.items()}


def follow(views: Iterable[View], observation: Observation, centres: dict[str, tuple[float, float]]) -> Arrays:
    """The arrays of all ``views``. ``centres`` (by view, changed here) is where each window was last: a window whose
    mask is empty stays there. Give the same dictionary for every moment of an attempt, an empty one for the first."""
    arrays: Arrays = {}
    for view in views:
        arrays |= render(view, observation, centres.get(view.name))
        if view.window:
            x, y = (float(v) for v in np.asarray(arrays[f"{view.name}.origin"]))
            centres[view.name] = (x + view.window // 2, y + view.window // 2)
    return arrays


def mask_centre(mask: NDArray[np.bool_]) -> tuple[float, float] | None:
    """(x, y) middle of the mask's bounding box, None where it is empty."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(columns):
        return None
    return (float(columns[0] + columns[-1]) / 2, float(rows[0] + rows[-1]) / 2)


def cut(picture: NDArray[np.generic], origin: tuple[int, int], side: int) -> NDArray[np.generic]:
    """The ``side`` x ``side`` square whose corner is pixel ``origin`` (x, y); zeros outside of the picture."""
    x, y = origin
    height, width = picture.shape[:2]
    out = np.zeros((side, side, *picture.shape[2:]), picture.dtype)
    x0, x1, y0, y1 = max(x, 0), min(x + side, width), max(y, 0), min(y + side, height)
    if x0 < x1 and y0 < y1:
        out[y0 - y : y1 - y, x0 - x : x1 - x] = picture[y0:y1, x0:x1]
    return out


def _resized(picture: NDArray[np.generic], size: tuple[int, int], how: int) -> NDArray[np.generic]:
    if picture.shape[1::-1] == size:
        return picture
    return np.asarray(cv2.resize(picture, size, interpolation=how))
