"""The benchmark of attention on the target: its figures, and both kinds of controllers on a scene."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dexloop.benchmarks.attention_share import AttentionShare, look_at, seen, sheet, show, spread, summary, token_shares
from dexloop.train.attention_maps import grids
from dexloop.train.attention_picture import Look, draw
from dexloop.train.controller.config import preset
from dexloop.train.controller.policy import Controller, ControllerPolicy
from dexloop.train.views import Observation


def looked(attention: float, area: float, hand: float = 0.5) -> Look:
    shares = {"hand": hand, "head": 0.4, "time": 0.6 - hand}
    return Look(0, {}, {}, shares, {"head": (attention, area)}, "a scene")


def test_attention_stands_beside_area_and_hidden_targets_count_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    looks = [looked(0.3, 0.1), looked(0.05, 0.1), looked(0.0, 0.0)]
    figures = summary(looks, {"hand": 0.1, "head": 0.8, "time": 0.1})
    picture = figures["pictures"]["head"]
    assert picture["attention"]["mean"] == pytest.approx(0.175)
    assert picture["times"]["mean"] == pytest.approx(1.75)
    assert (picture["above_area"]["right"], picture["above_area"]["n"]) == (1, 2)
    assert figures["groups"]["hand"]["of_tokens"] == 0.1
    show(figures)
    assert "1.8 times its area" in capsys.readouterr().out
    low, high = (spread([0.1, 0.3])[end] for end in ("low", "high"))
    assert low < 0.2 < high


@pytest.fixture(scope="module")
def moment() -> Observation:
    [(_, observation)] = list(seen(AttentionShare(scenes=1, objects=1, split="train", camera_size=(160, 120))))
    return observation


@pytest.mark.parametrize("crop", [False, True])
def test_a_controller_is_looked_into(
    crop: bool, moment: Observation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    small = preset("small")
    network = replace(small.network, width=32, layers=1, heads=2)
    policy = ControllerPolicy(Controller(replace(small, network=network, encoder=replace(small.encoder, crop=crop))))
    look = look_at(policy, moment, "scene")
    assert sum(look.shares.values()) == pytest.approx(1, abs=1e-4)
    even = token_shares(policy)
    assert sum(even.values()) == pytest.approx(1)
    figures = summary([look], even)
    assert set(figures["pictures"]) == ({"head"} if crop else set())
    assert moment.mask.any()
    if crop:
        assert 0 < figures["pictures"]["head"]["area"]["mean"] < 1
    else:
        show(figures)
        assert "no picture tokens" in capsys.readouterr().out
    drawn = draw(look, moment, grids(policy.controller.encoder), 3.0)
    sheet([drawn, drawn], tmp_path / "deep" / "sheet.jpg")
    assert (tmp_path / "deep" / "sheet.jpg").stat().st_size > 1000
    assert isinstance(drawn, np.ndarray)
