"""LeRobot's batches as the moments that a controller observes: pictures, metric depth, the target's mask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from dexloop.datasets.schema import STATE
from dexloop.hardware.errors import BadInput
from dexloop.train.data.moments import needs_masks
from dexloop.train.views import Observation, View
from numpy.typing import NDArray
from torch import Tensor

from .configuration_dexloop_controller import MASK_KEY

_FARTHEST_M = 50.0  # no camera of the rig measures farther: such numbers are millimetres
_MM = 1e-3

Masks = Sequence[NDArray[np.bool_]]


def mask_camera(views: Iterable[View]) -> str | None:
    """The camera whose masks the views show, None where they show none."""
    return next((view.camera for view in views if needs_masks([view])), None)


def observations(
    batch: Mapping[str, Any], views: Sequence[View], masks: Masks, depth_unit_m: float | None = None
) -> list[Observation]:
    """The moments of a batch (B, ...). ``masks``: of each moment, (H, W). ``depth_unit_m``: metres per unit of depth;
    None: LeRobot's rule for live depth, whole numbers are millimetres, others metres. Cameras that the batch lacks are
    left out: :func:`~dexloop.train.views.render` names them when a view needs one."""
    rgb = {view.camera: _colour(batch, view.camera) for view in views}
    depth = {view.camera: _depth(batch, view.camera, depth_unit_m) for view in views if view.depth}
    states = batch[STATE].float().cpu().numpy()
    return [
        Observation(
            state,
            {camera: pictures[i] for camera, pictures in rgb.items() if pictures is not None},
            {camera: pictures[i] for camera, pictures in depth.items() if pictures is not None},
            masks[i],
        )
        for i, state in enumerate(states)
    ]


def live_masks(batch: Mapping[str, Any], views: Sequence[View]) -> Masks:
    """The masks that a robot, an environment or a loop gave. Raises BadInput where there are none: a target is never
    made up."""
    camera = mask_camera(views)
    if camera is None:
        return [np.zeros((1, 1), bool)] * len(batch[STATE])
    key = MASK_KEY.format(camera=camera)
    if key not in batch:
        raise BadInput(
            f"the observation lacks {key}: expected the target's mask, a picture of the size of {camera!r}, bright "
            "where the target is; let the robot, the environment or the loop add it."
        )
    picture = batch[key]
    bright = picture > (0.5 if picture.is_floating_point() else 127)
    return list(bright.any(1).cpu().numpy())


def _colour(batch: Mapping[str, Any], camera: str) -> NDArray[np.uint8] | None:
    """(B, H, W, 3) uint8."""
    pictures: Tensor | None = batch.get(f"observation.images.{camera}")
    if pictures is None:
        return None
    if pictures.is_floating_point():
        pictures = (pictures * 255).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(pictures.permute(0, 2, 3, 1).cpu().numpy())


def _depth(batch: Mapping[str, Any], camera: str, unit_m: float | None) -> NDArray[np.float32] | None:
    """(B, H, W) m, 0 = invalid."""
    pictures: Tensor | None = batch.get(f"observation.images.{camera}_depth")
    if pictures is None:
        return None
    if unit_m is None:
        unit_m = 1.0 if pictures.is_floating_point() else _MM
    metres = np.nan_to_num(pictures.cpu().numpy().astype(np.float32)[:, 0] * np.float32(unit_m), posinf=0.0, neginf=0.0)
    if metres.max(initial=0.0) > _FARTHEST_M:
        raise BadInput(
            f"the depth of camera {camera!r} goes up to {metres.max():.0f} m: expected metres as floating point, or "
            "millimetres as whole numbers."
        )
    return metres
