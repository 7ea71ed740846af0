"""What the objectives must do whatever the network: with the best possible answer, sampling gives the data back."""

from collections.abc import Callable

import pytest
import torch
from dexloop.train.controller.config import ObjectiveConfig
from dexloop.train.controller.objective import Ddim, Flow, Network, objective
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

DDIM_NOISE = ObjectiveConfig("ddim", predict="noise")
DDIM_VELOCITY = ObjectiveConfig("ddim", predict="velocity")
FLOW = ObjectiveConfig("flow")
EACH = pytest.mark.parametrize("config", [DDIM_NOISE, DDIM_VELOCITY, FLOW], ids=["noise", "velocity", "flow"])


def knowing(config: ObjectiveConfig, guess: Callable[[Tensor, float, float], Tensor]) -> Network:
    """A network that answers from ``guess(x, signal, rest)``, its estimate of the clean chunk at x = signal * clean +
    rest * noise."""
    made = objective(config)

    def network(x: Tensor, time: Tensor) -> Tensor:
        if isinstance(made, Ddim):
            alpha = float(made.alphas_cumprod[int(time[0])])
            signal, rest = alpha**0.5, (1 - alpha) ** 0.5
        else:
            signal = float(time[0]) / config.train_steps
            rest = 1 - signal
        clean = guess(x, signal, rest)
        noise = (x - signal * clean) / rest
        if isinstance(made, Flow):
            return clean - noise
        return noise if config.predict == "noise" else signal * noise - rest * clean

    return network


@EACH
@given(steps=st.integers(1, 50), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_a_network_that_knows_the_chunk_gives_it_back(config: ObjectiveConfig, steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    clean, noise = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    got = objective(config).sample(knowing(config, lambda x, signal, rest: clean), noise, steps)
    torch.testing.assert_close(got, clean, atol=2e-3, rtol=0)


@EACH
def test_the_best_answer_to_gaussian_data_samples_their_spread(config: ObjectiveConfig) -> None:
    middle, spread = 2.0, 3.0  # not of unit size, as coefficients of a basis are not

    def guess(x: Tensor, signal: float, rest: float) -> Tensor:
        share = signal * spread**2 / (signal**2 * spread**2 + rest**2)
        return middle + share * (x - signal * middle)

    noise = torch.randn(4000, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    got = objective(config).sample(knowing(config, guess), noise, 50)
    assert abs(float(got.mean()) - middle) < 0.2
    assert abs(float(got.std()) / spread - 1) < 0.05


@EACH
def test_what_is_learnt_is_what_sampling_asks_for(config: ObjectiveConfig) -> None:
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 8, 2, 3, generator=generator)
    uniform = torch.rand(8, generator=generator)
    seen, time, answer = objective(config).corrupt(clean, noise, uniform)
    for row in range(8):
        network = knowing(config, lambda x, signal, rest, row=row: clean[row])
        torch.testing.assert_close(network(seen[row], time[row : row + 1]), answer[row], atol=1e-3, rtol=1e-3)


def test_a_wrong_estimate_from_pure_noise_is_not_blown_up() -> None:
    # Noise prediction divides by sqrt(alpha) = 0.001 at the first step; the velocity's estimate stays of its size.
    noise = torch.randn(4, 1, 6, generator=torch.Generator().manual_seed(0))
    first = objective(DDIM_VELOCITY).sample(lambda x, time: torch.full_like(x, 0.1), noise, 1)
    assert float(first.abs().max()) < 0.2
