"""One step of learning, and the state that a run goes on from: controller, its moving average, optimizer."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ..hardware.errors import BadInput, DatasetError
from .controller.checkpoint import misfit
from .controller.draws import Draws
from .controller.parts import Batch
from .controller.policy import Controller
from .run_folder import State
from .settings import Settings


@dataclass(frozen=True)
class Step:
    """What a step of learning measured, over all processes."""

    loss: float  # mean over what was to be learnt
    gradient: float  # its norm before clipping
    rate: float  # learning rate
    votes: tuple[bool, ...]  # for each reason to stop: whether any process has it


class _LossOfController(nn.Module):
    """What accelerate wraps: distributed training needs a ``forward``."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller

    def forward(self, batch: Batch, draws: Draws) -> Tensor:
        """(2,) sum of the weighted errors, sum of the weights."""
        loss = self.controller.loss(batch, draws)
        return torch.stack([loss.total, loss.weight])


class Learner:
    """Teaches ``controller``, all of its parameters: frozen encoders are not among them."""

    def __init__(self, controller: Controller, settings: Settings, accelerator: Accelerator) -> None:
        self.settings = settings
        self.accelerator = accelerator
        self.controller = controller
        self._module = accelerator.prepare(_LossOfController(controller))
        self._parameters = dict(controller.named_parameters())
        self._average = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        self._optimizer = torch.optim.AdamW(
            self._parameters.values(),
            lr=settings.lr,
            betas=(0.95, 0.999),
            weight_decay=settings.weight_decay,
            fused=True,  # one pass over the parameters: a third of the time
        )

    def step(self, step: int, batch: Batch, draws: Draws, votes: tuple[bool, ...] = ()) -> Step:
        """Learn from this process's share of the step's batch. Raises BadInput where the loss is no number."""
        # Dropout, where a network has it, draws from torch's own generator.
        torch.manual_seed(hash((self.settings.seed, step, self.accelerator.process_index)) % 2**63)
        for group in self._optimizer.param_groups:
            group["lr"] = self.settings.rate(step)
        sums = self._module(self.on_device(batch), draws)
        said = torch.tensor([float(vote) for vote in votes], device=sums.device)
        whole = self.accelerator.reduce(torch.cat([sums.detach().float(), said]), "sum")
        # Processes' gradients are averaged: so scaled, the average is the gradient of the whole batch's mean.
        loss = sums[0] * (self.accelerator.num_processes / whole[1].clamp_min(1e-8))
        self.accelerator.backward(loss)
        norm = nn.utils.clip_grad_norm_(self._parameters.values(), self.settings.clip)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._follow(step)
        mean = float(whole[0] / whole[1].clamp_min(1e-8))
        if not math.isfinite(mean):
            raise BadInput(
                f"the loss of step {step} is {mean}: start a run with a lower --lr; the last checkpoint is from before."
            )
        return Step(mean, float(norm), self.settings.rate(step), tuple(bool(vote) for vote in whole[2:].tolist()))

    def on_device(self, batch: Batch) -> Batch:
        return {key: tensor.to(self.accelerator.device, non_blocking=True) for key, tensor in batch.items()}

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        """Move the average; early on faster, so that it forgets where the weights began."""
        decay = min(self.settings.ema, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self._average.values()), list(self._parameters.values()), 1 - decay)

    @contextmanager
    def averaged(self) -> Iterator[Controller]:
        """The controller with the averaged weights, ready to act; the learning ones return afterwards."""
        learning = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        self._put(self._average)
        self.controller.eval()
        try:
            yield self.controller
        finally:
            self._put(learning)
            self.controller.train()

    @torch.no_grad()
    def _put(self, weights: dict[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(weights[name])

    # -- state -----------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """Everything that the next step depends on, but for the step's number. Tensors are the live ones."""
        model = dict(self.controller.state_dict())
        return {"model": model, "average": dict(self._average), "optimizer": self._optimizer.state_dict()}

    def snapshot(self) -> State:
        """A copy of :meth:`state` that learning does not change."""
        return copy.deepcopy(self.state())

    def load(self, state: State, where: str) -> None:
        """Go on from ``state``. Raises DatasetError, naming the first tensor that does not fit."""
        wanted = self.state()
        for part in ("model", "average"):
            problem = misfit(wanted[part], state.get(part, {}))
            if problem:
                raise DatasetError(f"{where} {problem}: it is of another controller; start a new run.")
        self.controller.load_state_dict(state["model"])
        with torch.no_grad():
            for name, tensor in self._average.items():
                tensor.copy_(state["average"][name])
        try:
            self._optimizer.load_state_dict(state["optimizer"])
        except (KeyError, ValueError) as error:
            raise DatasetError(f"{where} is of another optimizer ({error}): start a new run.") from error
