"""Physical errors of chunks, and the pieces of learning that have a formula."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from dexloop.hardware.errors import BadInput
from dexloop.hardware.kinematics import ArmKinematics
from dexloop.train.controller.draws import Draws
from dexloop.train.controller.policy import Loss
from dexloop.train.evaluate import ERRORS, Validation, action_errors
from dexloop.train.learner import Learner
from dexloop.train.settings import Settings
from hypothesis import given, settings
from hypothesis import strategies as st

SETTINGS = Settings(dataset="x", steps=100, minutes=None, batch_size=8, lr=0.1, warmup=10)
START = np.array([0.3, 0.5, -0.2, 1.2, 0.4, 0.6, 0.1, 1, 1, 1, 1, 1, 1], float)


def test_no_difference_is_no_error() -> None:
    errors = action_errors(np.tile(START, (2, 3, 1)), np.tile(START, (2, 3, 1)))
    assert set(errors) == set(ERRORS)
    for error in errors.values():
        np.testing.assert_allclose(error, np.zeros((2, 3)), atol=1e-5)


def test_a_turned_last_joint_turns_the_palm_in_place() -> None:
    turned = START.copy()
    turned[6] += np.radians(5)
    errors = action_errors(turned, START)
    assert errors["palm_deg"] == pytest.approx(5)
    assert errors["palm_mm"] == pytest.approx(0, abs=1e-6)
    assert errors["arm_deg"] == pytest.approx(5 / 7)
    assert errors["opening"] == 0
    assert 1 < errors["tip_mm"] < 15


def test_the_palm_is_as_far_off_as_the_flange() -> None:
    moved = START.copy()
    moved[:4] += 0.02
    arm = ArmKinematics()
    distance = np.linalg.norm((arm.fk(moved[:7]) - arm.fk(START[:7]))[:3, 3])
    assert action_errors(moved, START)["palm_mm"] == pytest.approx(1e3 * distance, rel=0.2)


def test_closed_fingers_move_tips_but_not_the_palm() -> None:
    closed = START.copy()
    closed[8:12] = 0.5
    errors = action_errors(closed, START)
    assert errors["palm_mm"] == 0
    assert errors["opening"] == pytest.approx(2 / 6)
    assert errors["tip_mm"] > 10


class Controller(torch.nn.Module):
    """Predicts a constant; its loss weighs each row as the batch says."""

    class basis:
        tokens, dim = 1, 1

    def __init__(self) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(torch.zeros(1))

    def loss(self, batch: dict[str, torch.Tensor], draws: Draws, augment: bool = True) -> Loss:
        weights = (~batch["action_is_pad"]).float().sum(1)
        return Loss(((self.value - batch["target"]) ** 2 * weights).sum(), weights.sum())

    def sample(self, batch: dict[str, torch.Tensor], noise: torch.Tensor) -> torch.Tensor:
        chunk = batch["action"].clone()
        chunk[:, 1, 7:] -= 0.5  # wrong in step 1
        chunk[:, 3, 7:] -= 0.9  # wrong in step 3, which is padding of even rows
        return chunk


class Rows:
    """Twenty moments with chunks of four commands, the last of them padding in even rows."""

    def __len__(self) -> int:
        return 20

    def batch(self, rows: np.ndarray, draws: Draws | None) -> dict[str, torch.Tensor]:
        pad = torch.zeros(len(rows), 4, dtype=torch.bool)
        pad[:, 3] = torch.from_numpy(rows % 2 == 0)
        action = torch.from_numpy(np.tile(START, (len(rows), 4, 1))).float()
        return {"action": action, "action_is_pad": pad, "target": torch.from_numpy(rows).float()}


def test_validation_leaves_padding_out() -> None:
    figures = Validation(Rows(), 20, 6, sampled=1).run(Controller())
    assert figures["opening_first"] == pytest.approx(0.25, abs=1e-6)
    assert figures["opening"] == pytest.approx((20 * 0.5 + 10 * 0.9) / (20 * 3 + 10), abs=1e-6)
    weights = np.where(np.arange(20) % 2 == 0, 3, 4)
    assert figures["loss"] == pytest.approx((np.arange(20) ** 2 * weights).sum() / weights.sum())


@settings(max_examples=12)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 30))
def test_processes_add_up_to_one_validation(processes: int, batch_size: int, count: int) -> None:
    sums: list[torch.Tensor] = []

    def keep(local: torch.Tensor) -> torch.Tensor:
        sums.append(local)
        return sum(sums[-processes:], torch.zeros_like(local))

    whole = Validation(Rows(), count, batch_size).run(Controller())
    for index in range(processes):
        shared = Validation(Rows(), count, batch_size, keep, (index, processes)).run(Controller())
    assert shared == pytest.approx(whole, rel=1e-6)


# -- learning ----------------------------------------------------------------------------------------------------------


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    rates = [SETTINGS.rate(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == rates[9] == rates[10] == 0.1
    assert all(a > b for a, b in zip(rates[10:], rates[11:], strict=False))
    assert rates[100] == pytest.approx(0)


@pytest.mark.parametrize("changes", [{"steps": 0}, {"lr": math.nan}, {"ema": 1.0}, {"validation_share": 0.0}])
def test_settings_that_make_no_sense(changes: dict[str, float]) -> None:
    with pytest.raises(BadInput, match=next(iter(changes)).replace("_", "-")):
        replace(SETTINGS, **changes)


def test_settings_survive_their_file() -> None:
    assert Settings.from_json(SETTINGS.to_json(), "settings.json") == SETTINGS
    with pytest.raises(BadInput, match="another version"):
        Settings.from_json(SETTINGS.to_json() | {"colour": 1}, "settings.json")


def test_the_average_follows_and_steps_aside() -> None:
    learner = Learner(Controller(), SETTINGS, Accelerator(cpu=True))  # type: ignore[arg-type]
    values = [0.0]
    average = 0.0
    for step in range(5):
        learner.step(step, Rows().batch(np.arange(20), None), Draws(0, step, 20))
        values.append(learner.controller.value.item())  # type: ignore[attr-defined]
        decay = min(SETTINGS.ema, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * values[-1]
    with learner.averaged() as controller:
        assert float(controller.value) == pytest.approx(average)  # type: ignore[attr-defined]
    assert float(learner.controller.value) == values[-1]  # type: ignore[attr-defined]
    assert values == sorted(values)  # towards the targets


def test_a_snapshot_brings_the_learner_back() -> None:
    learner = Learner(Controller(), SETTINGS, Accelerator(cpu=True))  # type: ignore[arg-type]
    batch = Rows().batch(np.arange(20), None)
    learner.step(0, batch, Draws(0, 0, 20))
    before = learner.snapshot()
    first = [learner.step(step, batch, Draws(0, step, 20)) for step in range(1, 5)]
    learner.load(before, "the snapshot")
    assert [learner.step(step, batch, Draws(0, step, 20)) for step in range(1, 5)] == first


def test_a_loss_that_is_no_number_ends_the_run() -> None:
    learner = Learner(Controller(), SETTINGS, Accelerator(cpu=True))  # type: ignore[arg-type]
    batch = Rows().batch(np.arange(20), None)
    batch["target"][3] = torch.nan
    with pytest.raises(BadInput, match="the loss of step 7 is nan"):
        learner.step(7, batch, Draws(0, 7, 20))
