"""The policy: DexLoop's :class:`~dexloop.train.controller.policy.Controller` behind LeRobot's interface."""

from __future__ import annotations

import copy
import json
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dexloop.datasets.layout import STATS
from dexloop.datasets.schema import STATE
from dexloop.hardware.errors import BadInput
from dexloop.train.controller.draws import Draws
from dexloop.train.controller.parts import Batch
from dexloop.train.controller.policy import Controller, ControllerPolicy, taken_over
from lerobot.policies.pretrained import PreTrainedPolicy
from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import Tensor

from .configuration_dexloop_controller import MASK_KEY, DexloopControllerConfig
from .demonstrations import Demonstrations
from .observing import live_masks, mask_camera, observations


class DexloopControllerPolicy(PreTrainedPolicy):
    """Tensors are named as in DexLoop's own checkpoints, under ``controller.`` (what learns) and ``average.`` (what
    acts). With a data set (``dataset_meta``) it can learn and predict from that set's batches; without one it acts on
    live observations, which bring the mask along (:data:`MASK_KEY`)."""

    config_class = DexloopControllerConfig
    name = "dexloop_controller"

    def __init__(
        self,
        config: DexloopControllerConfig,
        dataset_stats: dict[str, dict[str, Any]] | None = None,
        dataset_meta: Any = None,
        **_: Any,
    ) -> None:
        """Raises BadInput where the data set is not one that the controller can learn from."""
        super().__init__(config)
        config.validate_features()
        self.controller = Controller(config.described)
        self._views = (*self.controller.encoder.views, *self.controller.encoder.reference_views)
        camera = mask_camera(self._views)
        if camera is not None:
            config.input_features = config.inputs_with_mask(camera)
        self._demonstrations: Demonstrations | None = None
        if dataset_meta is not None:
            self._demonstrations = self._open(dataset_meta)
            if not config.pretrained_path:  # weights bring their statistics along
                demonstrations, rows, episodes = self._demonstrations, config.fit_rows, config.fit_episodes
                self.controller.fit(lambda: demonstrations.fit_batches(rows, episodes))
        if config.average:
            self.average = copy.deepcopy(self.controller).requires_grad_(False)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self._generator = torch.Generator().manual_seed(config.seed)
        self.reset()

    @property
    def acting(self) -> Controller:
        """The controller that acts and is validated."""
        acting: Controller = self.average if self.config.average else self.controller
        return acting

    # -- learning --------------------------------------------------------------------------------------------------

    def _open(self, meta: Any) -> Demonstrations:
        encoder, config = self.controller.encoder, self.config
        return Demonstrations(
            Path(meta.root),
            config.described,
            encoder.views,
            encoder.reference_views,
            failures=config.failures,
            reference_rows=config.reference_rows,
            depth_unit_m=_depth_unit_m(meta),
        )

    def get_optim_params(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.controller.parameters() if parameter.requires_grad]

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """Loss of a batch of the data set. In evaluation mode: of what acts, with nothing made worse on purpose and
        the same noise each time."""
        if self._demonstrations is None:
            raise BadInput("the policy was built without a data set, which learning needs: give dataset_meta.")
        size = len(batch[STATE])
        if self.training:
            draws = self._draws(size)
            loss = self.controller.loss(self._demonstrations.complete(batch, draws), draws)
        else:
            draws = Draws(self.config.seed + 1, int(batch["index"].reshape(-1)[0]), size)
            loss = self.acting.loss(self._demonstrations.complete(batch, None), draws, augment=False)
        return loss.mean, {}

    def _draws(self, size: int) -> Draws:
        """Everything random of a step follows from seed, step and process, so that a resumed run goes on the same."""
        ranked = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank, count = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if ranked else (0, 1)
        rows = slice(rank * size, (rank + 1) * size)
        return Draws(self.config.seed, int(self.updates), size * count, rows)

    @torch.no_grad()
    def update(self) -> None:
        """LeRobot's trainer calls this after each step: the average follows, early on faster, so that it forgets where
        the weights began."""
        if self.config.average:
            step = int(self.updates)
            decay = min(self.config.average, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(self.average.parameters()), list(self.controller.parameters()), 1 - decay)
        self.updates += 1

    # -- acting ----------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """An attempt begins with the next observation."""
        self._queue: deque[Tensor] = deque()
        self._left: Tensor | None = None  # of the last chunk, beyond what was put into the queue
        self._attempts: list[ControllerPolicy] = []

    @torch.no_grad()
    def select_action(self, batch: dict[str, Any], noise: Tensor | None = None) -> Tensor:
        """(B, 13) the next command; a chunk is planned when the last one's first ``n_action_steps`` are used up."""
        if not self._queue:
            chunk = self.predict_action_chunk(batch, noise=noise)
            if self._left is not None:
                chunk = taken_over(chunk, self._left, 0, self.config.described.action.fade)
            self._left = chunk[:, self.config.n_action_steps :]
            self._queue.extend(chunk[:, : self.config.n_action_steps].unbind(1))
        return self._queue.popleft()

    @torch.no_grad()
    def predict_action_chunk(
        self,
        batch: dict[str, Any],
        noise: Tensor | None = None,
        inference_delay: int = 0,
        prev_chunk_left_over: Tensor | None = None,
    ) -> Tensor:
        """(B, H, 13) absolute commands, the first one for now. ``noise`` (B, T, E), else drawn. Real-time chunking:
        the robot follows the first ``inference_delay`` commands of ``prev_chunk_left_over`` (T, 13) anyway.

        Raises BadInput where the mask is missing, or more commands are on their way than the controller learnt with.
        """
        self.eval()
        ready = self._ready(batch)
        size = len(ready["state"])
        if noise is None:
            noise = self.acting.noise(self._generator, size)
        committed = None
        if prev_chunk_left_over is not None and inference_delay:
            # LeRobot pads what is left with zeros, which would be a command to stretch the arm out.
            real = prev_chunk_left_over[prev_chunk_left_over.any(-1)][:inference_delay]
            committed = real[None].expand(size, -1, -1)
        return self.acting.sample(ready, noise.to(ready["state"].device), committed).float()

    def supports_rtc(self) -> bool:
        """Whether it learnt to go on from commands that are on their way."""
        return self.config.described.action.delay_max > 0

    def _ready(self, batch: dict[str, Any]) -> Batch:
        """A batch of the data set, or live observations of as many robots or environments as its rows."""
        camera = mask_camera(self._views)
        live = camera is not None and MASK_KEY.format(camera=camera) in batch
        if self._demonstrations is not None and "index" in batch and not live:
            return self._demonstrations.seen(batch, None)
        moments = observations(batch, self._views, live_masks(batch, self._views))
        if not self._attempts:
            device = str(next(self.acting.parameters()).device)
            self._attempts = [ControllerPolicy(self.acting, device=device) for _ in moments]
            for attempt, moment in zip(self._attempts, moments, strict=True):
                attempt.start(moment)
        if len(moments) != len(self._attempts):
            raise BadInput(
                f"got {len(moments)} observations, {len(self._attempts)} when the attempt began: call reset() first."
            )
        rows = [attempt.batch(moment) for attempt, moment in zip(self._attempts, moments, strict=True)]
        return {key: torch.cat([row[key] for row in rows]) for key in rows[0]}

    # -- checkpoints -----------------------------------------------------------------------------------------------

    @classmethod
    def _load_as_safetensor(
        cls, model: DexloopControllerPolicy, model_file: str, map_location: str, strict: bool
    ) -> DexloopControllerPolicy:
        """Every tensor must be there and fit, whatever ``strict`` says: a half-loaded policy would move the arm."""
        try:
            load_model(model, model_file, strict=True)
        except (OSError, RuntimeError, SafetensorError) as error:
            problem = " ".join(str(error).split())
            raise BadInput(
                f"{model_file} does not hold this policy ({problem}): the checkpoint is damaged, or of other settings."
            ) from error
        return model


def _depth_unit_m(meta: Any) -> float:
    """Metres per unit of the depth in LeRobot's batches. It tells nobody what ``--dataset.depth_output_unit`` was, and
    forgets it with ``eval_split``, but scales the statistics with it: they are compared with those on disk, in mm."""
    recorded = json.loads((Path(meta.root) / STATS).read_text())
    for key in meta.depth_keys:
        given, stored = float(np.max(meta.stats[key]["max"])), float(np.max(recorded[key]["max"]))
        if stored > 0:
            return 1.0 if given < stored / 30 else 1e-3
    return 1e-3
