"""Rehearsed grasps: what the twin says of them, the folder that holds them, and the judge that learns from them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dexloop.cli import main
from dexloop.collect.expert.grasps import orientation
from dexloop.collect.expert.reach import Reach
from dexloop.collect.rehearse import Rehearse
from dexloop.collect.tasks import LIFT_VARIED
from dexloop.collect.trials import TrialConfig, rehearse_scene
from dexloop.datasets.rehearsals import (
    RehearsedScene,
    open_folder,
    read_recipe,
    read_scene,
    scene_path,
    scene_paths,
    write_scene,
)
from dexloop.hardware.errors import BadInput
from dexloop.hardware.geometry import transform
from dexloop.hardware.rig import DEXGRASPVLA_RIG
from dexloop.tests.test_goal import CONFIG, GOAL, goals, observation
from dexloop.tests.test_small import batch
from dexloop.train.controller.checkpoint import load_controller, save_controller
from dexloop.train.controller.config import PRESETS
from dexloop.train.controller.geometry import CLOSING, six_to_rotation
from dexloop.train.controller.goal import SCENE_FEATURES, GraspGoal, alike
from dexloop.train.controller.judge import GraspJudge
from dexloop.train.controller.policy import Controller, ControllerPolicy
from dexloop.train.controller.reachable import GoalArm
from dexloop.train.controller.small import SmallEncoder
from dexloop.train.grasps import Rehearsed, TrainGrasps, judged

TRIALS = TrialConfig(3, "train", (1, 2), 3, (160, 120))


def scene(seed: int = 0, targets: int = 2, each: int = 6) -> RehearsedScene:
    """Two boxes on a table under a camera; of the grasps tried on each the higher ones missed."""
    rng = np.random.default_rng(seed)
    depth, instances = np.full((240, 320), 900, np.uint16), np.zeros((240, 320), np.uint8)
    for target in range(targets):
        column = 80 + 120 * target + int(rng.integers(20))
        depth[100:130, column : column + 30] = 850
        instances[100:130, column : column + 30] = target + 1
    goal = goals(targets * each, seed).numpy()
    return RehearsedScene(
        rng.integers(255, size=(240, 320, 3), dtype=np.uint8), depth, instances,
        np.concatenate([np.zeros(7), np.ones(6)]).astype(np.float32), np.repeat(np.arange(targets), each), goal,
        np.where(goal[:, 2] < 0.2, 0.14, 0.0).astype(np.float32),
    )  # fmt: skip


def test_a_scene_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = scene()
    write_scene(tmp_path, 4, made)
    found = read_scene(scene_path(tmp_path, 4))
    for name in made.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(found, name), getattr(made, name))
    assert [path.name for path in tmp_path.iterdir()] == ["scene_000004.npz"]


def test_a_damaged_scene_is_named(tmp_path: Path) -> None:
    write_scene(tmp_path, 0, scene())
    path = scene_path(tmp_path, 0)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BadInput, match="scene_000000.npz is not a whole rehearsed scene"):
        read_scene(path)
    with pytest.raises(BadInput, match=r"goal of shape \(12, 14\), expected \(12, 15\)"):
        replace(scene(), goal=np.zeros((12, 14), np.float32))


def test_a_folder_keeps_to_its_recipe(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no rehearsed grasps"):
        scene_paths(tmp_path)
    open_folder(tmp_path, {"seed": 1, "objects": (1, 2)})
    open_folder(tmp_path, {"seed": 1, "objects": (1, 2)})
    with pytest.raises(BadInput, match=r"made with other settings \(seed\)"):
        open_folder(tmp_path, {"seed": 2, "objects": (1, 2)})
    (tmp_path / "recipe.json").write_text("{")
    with pytest.raises(BadInput, match="not readable"):
        read_recipe(tmp_path)


def test_the_twin_tells_good_grasps_from_bad_ones(tmp_path: Path) -> None:
    tried, lifted = rehearse_scene(TRIALS, tmp_path, 0)
    found = read_scene(scene_path(tmp_path, 0))
    assert tried == len(found.target) > 0
    assert lifted == (found.lift_m >= 0.10).sum()
    assert found.instances.max() >= 1
    assert (found.depth_mm > 0).mean() > 0.5
    six = torch.as_tensor(found.goal[:, 3:9])
    rotation = six_to_rotation(six)
    assert torch.allclose(torch.cat([rotation[..., 0], rotation[..., 1]], -1), six, atol=1e-5)  # a rotation already
    assert (found.goal[:, 2] > 0).all()


def test_a_scene_does_not_depend_on_what_was_rehearsed_before(tmp_path: Path) -> None:
    for folder, indices in (("a", (0, 1)), ("b", (1,))):
        (tmp_path / folder).mkdir()
        for index in indices:
            rehearse_scene(replace(TRIALS, grasps=1), tmp_path / folder, index)
    a, b = (read_scene(scene_path(tmp_path / folder, 1)) for folder in "ab")
    np.testing.assert_array_equal(a.goal, b.goal)
    np.testing.assert_array_equal(a.lift_m, b.lift_m)


def test_every_preshape_counts_as_open() -> None:
    for family in LIFT_VARIED["grasps"].families:
        assert family.finger > CLOSING + 0.02


def test_the_command_makes_what_is_missing_and_refuses_another_recipe(tmp_path: Path, capsys) -> None:
    few = Rehearse(scenes=1, grasps=1, objects="1", camera_size=(160, 120), out=str(tmp_path / "r"))
    assert few.run() == 0
    before = scene_path(tmp_path / "r", 0).read_bytes()
    assert replace(few, scenes=2, workers=2).run() == 0
    assert scene_path(tmp_path / "r", 0).read_bytes() == before
    assert len(scene_paths(tmp_path / "r")) == 2
    assert "train grasps" in capsys.readouterr().out
    assert main(["rehearse", "--seed", "9", "--out", str(tmp_path / "r")]) == 2
    assert "other settings" in capsys.readouterr().err
    for wrong in (["--scenes", "0"], ["--workers", "0"], ["--seed", "-1"], ["--objects", "9..2"]):
        assert main(["rehearse", *wrong, "--out", str(tmp_path / "none")]) == 2
    assert not (tmp_path / "none").exists()


def prepared(rows: int = 3) -> dict[str, torch.Tensor]:
    encoder = SmallEncoder(CONFIG, 32, GOAL)
    return encoder.prepare(batch(rows) | {"goal": goals(rows, 1)}, None)


def test_a_judge_sees_grasps_from_the_palm() -> None:
    """Moving scene and grasp together changes only what depends on the place."""
    judge = GraspJudge(16, SCENE_FEATURES, True).eval()
    with torch.no_grad():
        for parameter in judge.head[0].parameters():  # place and scene do not count
            if parameter.ndim == 2:
                parameter[:, 32 + 5 :] = 0
        seen = prepared()
        wish = goals(6, 2).reshape(3, 2, 15)
        moved = wish.clone()
        moved[..., :2] += 0.07
        shifted = seen | {"anchor": seen["anchor"] + torch.tensor([0.07, 0.07, 0.0])}
        assert torch.allclose(judge(seen, wish), judge(shifted, moved), atol=1e-4)
        assert not torch.allclose(judge(seen, wish), judge(seen, moved), atol=1e-4)


def proposing(judge: torch.nn.Module | None = None) -> tuple[GraspGoal, dict[str, torch.Tensor], torch.Tensor]:
    """A chooser, what three scenes look like to it, and noise to propose from."""
    torch.manual_seed(0)
    chooser = GraspGoal(replace(GOAL, judge=16), True).eval()
    if judge is not None:
        chooser.judge = judge  # type: ignore[assignment]
    noise = torch.randn(3, chooser.draws, 15, generator=torch.Generator().manual_seed(3))
    return chooser, prepared(), noise


def test_the_judge_ranks_the_proposals_and_what_was_tried_comes_last() -> None:
    chooser, seen, noise = proposing()
    ranked = chooser.propose(seen, noise)
    assert ranked.shape == noise.shape
    samples = chooser.sample(seen, noise[:, : GOAL.samples])
    with torch.no_grad():
        worth = chooser.judge(seen, ranked).sigmoid() * alike(ranked, samples).mean(-1) ** 0.25
    assert (worth[:, 1:] <= worth[:, :-1] + 1e-6).all()
    first = ranked[:, :1]
    again = chooser.propose(seen, noise, first)
    assert (alike(again[:, :1], first) < 0.5).all()


def test_half_of_what_is_tried_out_is_what_a_judge_would_take() -> None:
    torch.manual_seed(0)
    config = replace(PRESETS["small"], encoder=replace(CONFIG, points=24), goal=replace(GOAL, judge=16))
    controller = Controller(config).eval()
    policy = ControllerPolicy(controller)
    plain = ControllerPolicy(Controller(replace(config, goal=GOAL)).eval())
    assert plain.proposals(observation(), 7, 3).shape == (7, 15)
    assert controller.goal is not None
    controller.goal.judge = Highest()  # type: ignore[assignment]
    tried = policy.proposals(observation(), 8, 3)
    assert np.array_equal(tried, policy.proposals(observation(), 8, 3))
    assert not np.array_equal(tried, policy.proposals(observation(), 8, 4))
    assert np.median(tried[4:, 2]) > np.median(tried[:4, 2]) + 0.01
    assert len(np.unique(tried, axis=0)) == 8


class Highest(torch.nn.Module):
    """A judge that is sure of the highest grasp."""

    def forward(self, seen: dict[str, torch.Tensor], wish: torch.Tensor) -> torch.Tensor:
        return 300 * (wish[..., 2] - 0.3)


def test_a_judge_that_is_sure_overrules_the_crowd() -> None:
    chooser, seen, noise = proposing(Highest())
    ranked = chooser.propose(seen, noise)
    assert (ranked[..., 2].amax(1) - ranked[:, 0, 2] < 0.005).all()  # of the highest


def test_the_best_samples_are_refined() -> None:
    """What is proposed first is better than any sample, near to one, and a proper pose."""
    chooser, seen, noise = proposing(Highest())
    samples = chooser.sample(seen, noise[:, : GOAL.samples])
    first = chooser.propose(seen, noise)[:, 0]
    higher_m = first[:, 2] - samples[..., 2].amax(1)
    assert ((higher_m > 0.0) & (higher_m < 0.05)).all()
    assert ((first[:, None, :2] - samples[..., :2]).norm(dim=-1).amin(1) < 0.05).all()
    rotation = six_to_rotation(first[:, 3:9])
    assert torch.allclose(rotation[..., :2].transpose(1, 2).flatten(1), first[:, 3:9], atol=1e-5)


def test_reach_passes_over_what_the_arm_cannot_do() -> None:
    reach, kinematics = GoalArm(), Reach(DEXGRASPVLA_RIG)
    over_the_table = transform(orientation(2.1, 0.73, 0.0), np.array([0.4, 0.05, 0.16]))
    assert kinematics.roughly(over_the_table)

    def goal(height_m: float, away_m: float = 0.0) -> np.ndarray:
        place = over_the_table[:3, 3] + np.array([away_m, 0.0, height_m])
        return np.concatenate([place, over_the_table[:3, 0], over_the_table[:3, 1], np.ones(6)])

    good, far, deep = goal(0.0), goal(0.0, away_m=0.9), goal(-0.15)
    assert reach.reaches(good)
    assert not reach.reaches(far)
    assert not reach.reaches(deep)  # through the table
    assert reach.first([far, deep, good, good]) == 2
    assert reach.first([far, deep]) == 0


def test_what_is_reported_of_a_judge() -> None:
    """A judge that reads the answer off one feature is right about everything."""

    class Knows(torch.nn.Module):
        def forward(self, seen: dict[str, torch.Tensor], wish: torch.Tensor) -> torch.Tensor:
            return 10 * wish[..., 0]

    chooser = GraspGoal(replace(GOAL, judge=16), True).eval()
    chooser.judge = Knows()  # type: ignore[assignment]
    wish = goals(8, 0)
    wish[:, 0] = torch.tensor([1.0, -1, -1, -1, 1, 1, -1, -1])
    looks = {name: tensor[None, :2].repeat(6, *[1] * tensor.ndim) for name, tensor in prepared().items()}
    data = Rehearsed(looks, [np.arange(4), np.arange(4, 8)], wish, (wish[:, 0] > 0).float())
    found = judged(chooser, data)
    assert found["auc"] == found["picked"] == found["best"] == 1.0
    assert found["random"] == pytest.approx(0.375)
    assert data.target_of.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert set(data.held(np.random.default_rng(0), 20).tolist()) == {0, 4, 5}


def small_policy(folder: Path) -> Path:
    config = replace(PRESETS["small"], encoder=replace(CONFIG, points=24), goal=GOAL)
    torch.manual_seed(0)
    save_controller(Controller(config), folder, {"recipe": ["a command"]})
    return folder


def test_train_grasps_learns_and_writes_a_policy_that_loads(tmp_path: Path, capsys) -> None:
    open_folder(tmp_path / "r", {"seed": 0})
    for index in range(12):
        write_scene(tmp_path / "r", index, scene(index))
    policy = small_policy(tmp_path / "p")
    few = TrainGrasps(policy, (str(tmp_path / "r"),), steps=150, width=16, samples=16, lr=1e-2, validation_share=0.3)
    command = replace(few, out=tmp_path / "judged")
    assert command.run() == 0
    made = load_controller(tmp_path / "judged")
    assert made.config.goal.judge == 16
    assert made.config.goal.samples == 16
    before = load_controller(policy).state_dict()
    moves = [name for name in before if not name.startswith("goal.")]
    assert moves
    assert all(torch.equal(before[name], made.state_dict()[name]) for name in moves)  # how it moves has not changed
    about = json.loads((tmp_path / "judged" / "about.json").read_text())
    assert about["recipe"] == ["a command"]
    assert about["judge"]["auc"] > 0.8  # success is a matter of height here
    assert "first choice lifted" in capsys.readouterr().out


def test_train_grasps_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    save_controller(Controller(replace(PRESETS["small"], encoder=CONFIG)), plain)
    with pytest.raises(BadInput, match="chooses no grasp"):
        TrainGrasps(plain, (str(tmp_path),)).run()
    policy = small_policy(tmp_path / "p")
    with pytest.raises(BadInput, match="holds no rehearsed grasps"):
        TrainGrasps(policy, (str(tmp_path / "none"),)).run()
    with pytest.raises(BadInput, match="at least 1"):
        TrainGrasps(policy, (str(tmp_path / "none"),), steps=0).run()
    open_folder(tmp_path / "r", {"seed": 0})
    write_scene(tmp_path / "r", 0, scene())
    with pytest.raises(BadInput, match="too few to hold some out"):
        TrainGrasps(policy, (str(tmp_path / "r"),)).run()
