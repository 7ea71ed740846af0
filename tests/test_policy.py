"""How a controller learns and acts, beside its parts: nudged demonstrations, committed commands."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from dexloop.hardware.description import START_ARM_Q
from dexloop.hardware.errors import BadInput
from dexloop.train.controller.config import ControllerConfig, preset
from dexloop.train.controller.draws import Draws
from dexloop.train.controller.policy import CLOSING_STEPS, Committed, Controller, taken_over
from hypothesis import given
from hypothesis import strategies as st

ROWS = 16


def config(nudge_rad: float) -> ControllerConfig:
    small = preset("small")
    return replace(
        small,
        network=replace(small.network, width=32, layers=1, heads=2),
        encoder=replace(small.encoder, wrist=False, points=16),
        action=replace(small.action, nudge_rad=nudge_rad),
    )


def batch() -> dict[str, torch.Tensor]:
    state = torch.cat([torch.tensor(START_ARM_Q, dtype=torch.float32), torch.ones(6)]).expand(ROWS, 13).clone()
    return {"state": state, "action": state[:, None].expand(ROWS, 32, 13).clone()}


def test_a_nudged_demonstration_leads_back_within_half_a_chunk() -> None:
    controller = Controller(config(0.03))
    told = batch()
    moved = controller._nudged(told, Draws(0, 0, ROWS))
    off = moved["state"] - told["state"]
    assert (off[:, 7:] == 0).all()  # openings are as they were
    assert 0.01 < float(off[:, :7].std()) < 0.06
    led = moved["action"] - told["action"]
    assert (led[..., 7:] == 0).all()
    assert torch.allclose(led[:, 0], off * (1 - 1 / 16), atol=1e-6)  # the first command hardly jumps
    assert (led[:, :15].abs().diff(dim=1) <= 1e-6).all()
    assert (led[:, 15:] == 0).all()
    assert (told["state"] == batch()["state"]).all()  # the batch itself is left alone


@pytest.mark.parametrize("closes", [0, 3, 12, 20])
def test_a_nudge_is_made_good_before_the_fingers_close(closes: int) -> None:
    """Otherwise it would teach to close beside the object."""
    controller = Controller(config(0.03))
    told = batch()
    told["action"][:, closes:, 7:] = 0.5
    begins = max(closes - CLOSING_STEPS, 0)
    moved = controller._nudged(told, Draws(0, 0, ROWS))
    led = moved["action"] - told["action"]
    assert (led[:, max(min(begins, 16) - 1, 0) :] == 0).all()
    size = float((moved["state"] - told["state"])[:, :7].std())
    whole = float((controller._nudged(batch(), Draws(0, 0, ROWS))["state"] - batch()["state"])[:, :7].std())
    assert size == pytest.approx(whole * min(begins, 16) / 16, abs=1e-4)


def test_processes_nudge_their_rows_as_one_would() -> None:
    controller = Controller(config(0.03))
    whole = controller._nudged(batch(), Draws(3, 5, ROWS))["state"]
    half = {key: value[4:9] for key, value in batch().items()}
    assert torch.equal(controller._nudged(half, Draws(3, 5, ROWS, slice(4, 9)))["state"], whole[4:9])


def test_more_committed_commands_than_were_learnt_are_refused() -> None:
    controller = Controller(config(0.0))
    with pytest.raises(BadInput, match="9 commands are committed"):
        controller.sample(batch(), torch.zeros(ROWS, 8, 15), batch()["action"][:, :9])


def test_committed_commands_are_hidden_where_there_are_none() -> None:
    torch.manual_seed(0)
    committed = Committed(4, 15, 32)
    chunk = torch.randn(2, 32, 15)
    token, there = committed(chunk, torch.tensor([0, 3]))
    assert there.tolist() == [False, True]
    other, _ = committed(torch.cat([chunk[:, :3], torch.randn(2, 29, 15)], 1), torch.tensor([0, 3]))
    assert torch.equal(token, other)  # what comes after the delay is not looked at


@given(late=st.integers(0, 6), count=st.integers(0, 20), fade=st.integers(0, 12))
def test_a_chunk_takes_over_from_the_last_one(late: int, count: int, fade: int) -> None:
    new, left = torch.zeros(2, 16, 3), torch.ones(2, min(count, 16), 3)
    both = taken_over(new, left, late, fade)
    assert both.shape == new.shape
    kept = min(late, left.shape[1])
    assert (both[:, :kept] == 1).all()  # what is followed meanwhile
    passing = max(min(left.shape[1] - late, fade), 0)
    assert (both[:, kept + passing :] == 0).all()  # the new chunk, in its own time
    if passing:
        steps = both[:, max(late - 1, 0) : late + passing + 1].diff(dim=1)
        assert (steps <= 0).all()
        assert float(steps.abs().max()) <= 1.6 / (passing + 1)  # no jump


def test_temperature_scales_what_sampling_starts_from() -> None:
    made = config(0.0)
    made = replace(made, objective=replace(made.objective, temperature=1.0))
    controller = Controller(made).eval()
    cool = Controller(replace(made, objective=replace(made.objective, temperature=0.5))).eval()
    cool.load_state_dict(controller.state_dict())
    noise = torch.randn(2, 8, 15, generator=torch.Generator().manual_seed(0))
    starts: list[torch.Tensor] = []

    def network(x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        starts.append(x)
        return torch.zeros_like(x)

    assert torch.equal(controller.draw(network, noise, 1), noise)
    assert torch.equal(cool.draw(network, noise, 1), 0.5 * noise)
