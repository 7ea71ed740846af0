"""How well a controller predicts held-out demonstrations: its loss, and how far off its chunks are, in mm and deg."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..hardware.geometry import apply, pose_error
from ..hardware.hand_kinematics import HandKinematics
from ..hardware.kinematics import ArmKinematics
from ..hardware.rig import DEXGRASPVLA_RIG
from .controller.draws import Draws
from .controller.parts import Batch
from .controller.policy import Controller

ERRORS = {"tip_mm": "mm", "palm_mm": "mm", "palm_deg": "deg", "arm_deg": "deg", "opening": "of 1"}
"""What is measured, each also as ``<name>_first`` over the first half of the chunk, which is what robots execute."""
DECISIVE = "tip_mm_first"
"""The best checkpoint is the one with the least of it: docs/decisions/87-best-checkpoint.md."""
_SEED = 20_000_003  # of the noise that every validation sees again


class Rows(Protocol):
    """Moments to look at: :class:`.data.chunks.Chunks`."""

    def __len__(self) -> int: ...

    def batch(self, rows: NDArray[np.int64], draws: Draws | None) -> Batch: ...


def action_errors(predicted: NDArray[np.floating], true: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
    """Commands (..., 13) against those of the demonstration -> (...,) error of each kind of :data:`ERRORS`.

    ``tip_mm``: mean distance of the five fingertips, which palm and fingers both move; ``palm_mm``, ``palm_deg``: of
    the palm's pose; ``arm_deg``, ``opening``: mean absolute difference of the joints and of the openings.
    """
    arm, hand = _KINEMATICS
    poses = [arm.fk(np.asarray(commands, float)[..., :7]) @ _FLANGE_T_PALM for commands in (predicted, true)]
    tips = [
        apply(pose, hand.tips(np.clip(np.asarray(commands, float)[..., 7:], 0, 1)))
        for pose, commands in zip(poses, (predicted, true), strict=True)
    ]
    distance_m, angle_rad = pose_error(poses[0], poses[1])
    off = np.abs(np.asarray(predicted, float) - true)
    return {
        "tip_mm": np.linalg.norm(tips[0] - tips[1], axis=-1).mean(-1) * 1e3,
        "palm_mm": distance_m * 1e3,
        "palm_deg": np.degrees(angle_rad),
        "arm_deg": np.degrees(off[..., :7]).mean(-1),
        "opening": off[..., 7:].mean(-1),
    }


class Validation:
    """Looks at the same moments with the same noise each time, so that its figures compare."""

    def __init__(
        self,
        rows: Rows,
        count: int,
        batch_size: int,
        reduce: Callable[[Tensor], Tensor] = lambda sums: sums,
        process: tuple[int, int] = (0, 1),
        device: torch.device | str = "cpu",
        sampled: int = 4,
    ) -> None:
        """``count`` moments spread evenly over ``rows``, and every ``sampled``-th of them for the action errors: a
        chunk costs as much as many losses. ``process`` (index, count) takes its share of each batch and ``reduce``
        adds the shares up."""
        self._rows = rows
        spread = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(np.int64))
        self._batches = [np.arange(i, min(i + batch_size, len(spread))) for i in range(0, len(spread), batch_size)]
        self._spread, self._sampled = spread, sampled
        self._reduce, self._process, self._device = reduce, process, device

    def run(self, controller: Controller) -> dict[str, float]:
        """``loss`` and each of :data:`ERRORS`, over real steps (no padding), for the whole chunk and its first half."""
        names = [f"{name}{half}" for name in ERRORS for half in ("", "_first")]
        sums = torch.zeros(len(names) + 1, 2, dtype=torch.float64)
        for number, places in enumerate(self._batches):
            index, processes = self._process
            share = slice(len(places) * index // processes, len(places) * (index + 1) // processes)
            if share.start < share.stop:
                chosen = torch.from_numpy(places[share] % self._sampled == 0)
                sums += self._look(controller, self._spread[places[share]], chosen, (number, len(places), share))
        total, weight = self._reduce(sums.to(self._device)).cpu().T
        means = (total / weight.clamp_min(1e-8)).tolist()
        return dict(zip(("loss", *names), means, strict=True))

    @torch.no_grad()
    def _look(
        self, controller: Controller, rows: NDArray[np.int64], chosen: Tensor, place: tuple[int, int, slice]
    ) -> Tensor:
        """(1 + 2 len(ERRORS), 2) sums and weights of one share of a batch; chunks are sampled of ``chosen`` (B,)."""
        number, size, share = place
        batch = {key: tensor.to(self._device) for key, tensor in self._rows.batch(rows, None).items()}
        loss = controller.loss(batch, Draws(_SEED, 2 * number, size, share), augment=False)
        drawn = Draws(_SEED, 2 * number + 1, size, share).normal(controller.basis.tokens, controller.basis.dim)
        fewer = {key: tensor[chosen.to(self._device)] for key, tensor in batch.items()}
        out = torch.zeros(1 + 2 * len(ERRORS), 2, dtype=torch.float64)
        out[0] = torch.stack([loss.total, loss.weight])
        if chosen.any():
            chunk = controller.sample(fewer, drawn[chosen].to(self._device)).float().cpu().numpy()
            out[1:] = _sums(chunk, fewer["action"].cpu().numpy(), ~fewer["action_is_pad"].cpu().numpy())
        return out


def _sums(predicted: NDArray[np.floating], true: NDArray[np.floating], real: NDArray[np.bool_]) -> Tensor:
    """(2 len(ERRORS), 2) sum of each error over real steps, and how many there are; whole chunk and first half."""
    first = real & (np.arange(real.shape[1]) < max(real.shape[1] // 2, 1))
    errors = action_errors(predicted, true)
    rows = [(errors[name][steps].sum(), steps.sum()) for name in ERRORS for steps in (real, first)]
    return torch.tensor(np.array(rows, np.float64))


_MOUNT = DEXGRASPVLA_RIG.arms[0]
_KINEMATICS = (ArmKinematics(_MOUNT.arm), HandKinematics(_MOUNT.hand))
_FLANGE_T_PALM = _MOUNT.flange_T_palm
