"""The plain peer of the speed benchmark computes the same, and so do bfloat16 (nearly) and compiled steps."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from dexloop.benchmarks.controller_plain import PlainController
from dexloop.benchmarks.controller_speed import ControllerSpeedBenchmark, make, moment
from dexloop.hardware.errors import BadInput
from dexloop.train.controller.config import preset
from dexloop.train.controller.draws import Draws
from dexloop.train.controller.policy import Controller, ControllerPolicy

TINY = ControllerSpeedBenchmark(size="tiny")


@pytest.fixture(scope="module")
def controller() -> Controller:
    return make(TINY).controller


def training_batch(rows: int) -> dict[str, torch.Tensor]:
    batch = moment(TINY, 56, rows)
    batch["action"] = torch.rand(rows, 64, 13, generator=torch.Generator().manual_seed(1))
    batch["action_is_pad"] = torch.zeros(rows, 64, dtype=torch.bool)
    batch["action_mask"] = torch.ones(rows, 13, dtype=torch.bool)
    return batch


def test_the_plain_way_gives_the_same_commands(controller: Controller) -> None:
    batch = moment(TINY, 56, 2)
    noise = controller.noise(torch.Generator().manual_seed(0), 2)
    ours = controller.sample(batch, noise)
    theirs = PlainController(controller).eval().predict(batch, noise, 16)
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_the_plain_way_has_the_same_loss_and_gradient(controller: Controller) -> None:
    batch, plain = training_batch(3), PlainController(controller).eval()
    draws = Draws(0, 0, 3)
    noise = draws.normal(64, 13)
    draws.integers(1)
    theirs = plain.loss(batch, noise, draws.uniform())
    theirs.backward()
    expected = {name: value.grad.clone() for name, value in controller.named_parameters() if value.grad is not None}
    controller.zero_grad()
    ours = controller.loss(batch, Draws(0, 0, 3), augment=False).mean
    ours.backward()
    torch.testing.assert_close(ours, theirs)
    assert len(expected) > 50
    for name, value in controller.named_parameters():
        if name in expected:
            torch.testing.assert_close(value.grad, expected[name], atol=1e-6, rtol=1e-3)
    controller.zero_grad()


def test_bfloat16_moves_commands_a_little(controller: Controller) -> None:
    batch = moment(TINY, 56, 2)
    noise = controller.noise(torch.Generator().manual_seed(0), 2)
    before = controller.sample(batch, noise)
    half = ControllerPolicy(copy.deepcopy(controller), precision="bfloat16").controller
    commands = half.sample(batch, noise)
    assert commands.dtype == torch.float32
    assert 0 < (commands - before).abs().max() < 0.1
    assert (controller.sample(batch, noise) == before).all()  # the frozen ViTs that both began with are untouched
    assert controller.encoder.frozen.dino_head.cls_token.dtype == torch.float32
    assert half.encoder.state_normalizer.scale.dtype == torch.float32


def test_bfloat16_sees_committed_commands(controller: Controller) -> None:
    config = replace(controller.config, action=replace(controller.config.action, delay_max=4))
    made = Controller(config).eval()
    made.encoder.use_frozen(controller.encoder.frozen)
    made.halve()
    committed = torch.zeros(1, 2, 13)
    commands = made.sample(moment(TINY, 56), made.noise(torch.Generator().manual_seed(0)), committed)
    assert torch.isfinite(commands).all()
    assert (commands[:, :2] == 0).all()


def test_the_small_preset_has_no_bfloat16() -> None:
    with pytest.raises(BadInput, match="small preset has no bfloat16"):
        ControllerPolicy(Controller(preset("small")), precision="bfloat16")


@pytest.mark.slow
def test_compiled_steps_give_the_same(controller: Controller) -> None:
    batch = moment(TINY, 56)
    noise = controller.noise(torch.Generator().manual_seed(0))
    before = controller.sample(batch, noise)
    quick = ControllerPolicy(copy.deepcopy(controller), compiled=True).controller
    for _ in range(2):
        torch.testing.assert_close(quick.sample(batch, noise), before, atol=1e-5, rtol=0)
