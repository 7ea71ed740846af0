"""How a chunk is learnt and sampled: denoising diffusion (DDIM) or flow matching, over one network.

The network maps (x, time) -> a tensor of x's shape. ``ddim`` asks it for the noise (DDPM, 2006.11239; DDIM,
2010.02502; squared-cosine schedule, 2102.09672) or for the velocity on the arc from chunk to noise (2202.00512),
``flow`` for the velocity clean - noise along a straight line (2210.02747).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from .config import ObjectiveConfig

Network = Callable[[Tensor, Tensor], Tensor]  # x (B, T, E), time (B,) in steps of training -> (B, T, E)


class Objective(Protocol):
    """Both directions of a generative model."""

    def corrupt(self, clean: Tensor, noise: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """clean, noise (B, T, E), uniform (B,) in [0, 1) -> what the network sees (B, T, E), its time (B,), and what
        it should answer (B, T, E)."""
        ...

    def sample(self, network: Network, noise: Tensor, steps: int) -> Tensor:
        """noise (B, T, E) -> clean (B, T, E) in ``steps`` evaluations."""
        ...

    def times(self, steps: int) -> Tensor:
        """(steps,) times at which a sampling of ``steps`` evaluates the network, in order."""
        ...


class Ddim:
    """Denoising diffusion, deterministic sampling (eta 0)."""

    def __init__(self, config: ObjectiveConfig) -> None:
        self._config = config
        self.alphas_cumprod = squared_cosine(config.train_steps)

    def corrupt(self, clean: Tensor, noise: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self._config.assign_noise:
            noise = noise[assignment(clean, noise)]
        time = (uniform * self._config.train_steps).long()
        alpha = self.alphas_cumprod.to(clean)[time][:, None, None]
        signal, rest = alpha.sqrt(), (1 - alpha).sqrt()
        answer = noise if self._config.predict == "noise" else signal * noise - rest * clean
        return signal * clean + rest * noise, time.to(clean), answer

    def times(self, steps: int) -> Tensor:
        whole = self._config.train_steps
        if self._config.spacing == "leading":
            return (torch.arange(steps) * (whole // steps)).flip(0)
        return torch.arange(whole, 0, -whole / steps).round().long()[:steps] - 1

    def sample(self, network: Network, noise: Tensor, steps: int) -> Tensor:
        # The clipped estimate moves x, the noise estimate stays as the network gave it: as diffusers' DDIMScheduler.
        times = self.times(steps).tolist()
        alphas = self.alphas_cumprod.to(noise)
        clip = self._config.clip
        x = noise
        for time, following in zip(times, [*times[1:], -1], strict=True):
            now = alphas[time]
            then = alphas[following] if following >= 0 else torch.ones_like(now)
            answer = network(x, torch.full((len(x),), float(time), device=x.device))
            if self._config.predict == "noise":
                eps, clean = answer, (x - (1 - now).sqrt() * answer) / now.sqrt()
            else:
                eps, clean = (1 - now).sqrt() * x + now.sqrt() * answer, now.sqrt() * x - (1 - now).sqrt() * answer
            if clip:
                clean = clean.clamp(-clip, clip)
            x = then.sqrt() * clean + (1 - then).sqrt() * eps
        return x


class Flow:
    """Velocity prediction along straight lines; Euler steps of equal length."""

    def __init__(self, config: ObjectiveConfig) -> None:
        self._config = config
        self._scale = float(config.train_steps)

    def corrupt(self, clean: Tensor, noise: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self._config.assign_noise:
            noise = noise[assignment(clean, noise)]
        share = uniform[:, None, None]
        return (1 - share) * noise + share * clean, uniform * self._scale, clean - noise

    def times(self, steps: int) -> Tensor:
        return torch.arange(steps) / steps * self._scale

    def sample(self, network: Network, noise: Tensor, steps: int) -> Tensor:
        x = noise
        for time in self.times(steps).tolist():
            x = x + network(x, torch.full((len(x),), time, device=x.device)) / steps
        return x


def objective(config: ObjectiveConfig) -> Objective:
    """The objective that ``config`` names."""
    return Ddim(config) if config.kind == "ddim" else Flow(config)


def assignment(clean: Tensor, noise: Tensor) -> Tensor:
    """(B,) which row of ``noise`` each row of ``clean`` takes, so that the sum of distances is smallest over the batch
    (as the published controller pairs them; linear sum assignment). Rows of this process only."""
    from scipy.optimize import linear_sum_assignment

    distance = torch.cdist(clean.flatten(1).float(), noise.flatten(1).float())
    _, which = linear_sum_assignment(distance.cpu().numpy())
    return torch.from_numpy(which).to(noise.device)


def squared_cosine(steps: int, offset: float = 0.008, largest: float = 0.999) -> Tensor:
    """(steps,) cumulative products of 1 - beta (2102.09672, eq. 17), as diffusers' ``squaredcos_cap_v2``."""

    def bar(share: float) -> float:
        return math.cos((share + offset) / (1 + offset) * math.pi / 2) ** 2

    betas = [min(1 - bar((i + 1) / steps) / bar(i / steps), largest) for i in range(steps)]
    return torch.cumprod(1 - torch.tensor(betas, dtype=torch.float32), 0)
