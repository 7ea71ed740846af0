"""Grasp goals: where demonstrations closed, what is proposed for a scene, and what a policy does with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from dexloop.hardware.description import START_ARM_Q
from dexloop.hardware.errors import BadInput
from dexloop.tests.test_small import batch
from dexloop.train.controller.config import PRESETS, GoalConfig, SmallEncoderConfig
from dexloop.train.controller.draws import Draws
from dexloop.train.controller.geometry import rotation_to_six, six_to_rotation, world_T_palm
from dexloop.train.controller.goal import GOAL_DIM, GraspGoal, alike, decode, encode
from dexloop.train.controller.policy import Controller, ControllerPolicy
from dexloop.train.controller.small import SmallEncoder
from dexloop.train.data.goals import grasp_goals
from dexloop.train.views import Observation
from hypothesis import given
from hypothesis import strategies as st

CONFIG = SmallEncoderConfig(around=16, crop=False, wrist=False)
GOAL = GoalConfig("grasp", width=32, samples=16, steps=5, dropout=0.0)


def goals(count: int, seed: int) -> torch.Tensor:
    """Palms anywhere over the table, in any turn, with any openings."""
    make = torch.Generator().manual_seed(seed)
    position = torch.rand(count, 3, generator=make) * 0.4
    rotation = six_to_rotation(torch.randn(count, 6, generator=make))
    return torch.cat([position, rotation_to_six(rotation), torch.rand(count, 6, generator=make)], 1)


@given(st.integers(0, 10_000))
def test_encoding_has_an_inverse_and_always_ends_in_a_pose(seed: int) -> None:
    wish, anchor = goals(3, seed), torch.rand(3, 3, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(decode(encode(wish, anchor), anchor), wish, atol=1e-5)
    anything = decode(10 * torch.randn(4, GOAL_DIM, generator=torch.Generator().manual_seed(seed)), anchor[:1])
    rotation = six_to_rotation(anything[:, 3:9])
    assert torch.allclose(rotation @ rotation.transpose(1, 2), torch.eye(3).expand(4, 3, 3), atol=1e-4)
    assert ((anything[:, 9:] >= 0) & (anything[:, 9:] <= 1)).all()


def episode(openings: list[float]) -> np.ndarray:
    """An arm that goes on and on, with these mean finger openings."""
    rows = len(openings)
    arm = np.array(START_ARM_Q) + np.linspace(0, 0.3, rows)[:, None] * np.array([1, 0, 0, 0, 0, 0, 0])
    hand = np.repeat(np.array(openings)[:, None], 6, 1)
    return np.concatenate([arm, hand], 1)


def test_the_goal_of_a_row_is_where_the_hand_closes_next() -> None:
    actions = episode([1.0] * 8 + [0.5] * 4 + [1.0] * 8 + [0.4] * 4)
    found, known = grasp_goals(actions)
    palm = world_T_palm(torch.tensor(actions[:, :7]))[:, :3, 3].numpy()
    assert np.allclose(found[:9, :3], palm[8], atol=1e-6)
    assert np.allclose(found[9:, :3], palm[20], atol=1e-6)
    assert np.allclose(found[0, 9:], 1.0)  # as the hand comes in, not as it closes
    assert not known.any()  # two closings: the first grasp failed


def test_a_grasp_that_worked_at_once_is_known_until_it_happens() -> None:
    found, known = grasp_goals(episode([1.0] * 8 + [0.5] * 4))
    assert known.tolist() == [True] * 9 + [False] * 3
    assert len(np.unique(found, axis=0)) == 1
    assert not grasp_goals(episode([1.0] * 6))[1].any()


def test_it_learns_which_grasp_belongs_to_which_scene_and_takes_one_of_two() -> None:
    """The same scene is taken in one of two ways: the proposal is near one of them, never between; with that one
    tried, it is the other."""
    torch.manual_seed(0)
    encoder, data = SmallEncoder(CONFIG, 32, GOAL), batch(2, config=CONFIG)
    data["goal"] = torch.zeros(2, GOAL_DIM)
    prepared = encoder.prepare(data, None)
    ways = goals(2, 1)
    ways[:, :3] = prepared["anchor"][0] + torch.tensor([[0.08, 0, 0.1], [-0.08, 0, 0.1]])
    model = GraspGoal(replace(GOAL, width=128, steps=10), around=True)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 600)
    make = torch.Generator().manual_seed(0)
    one = {key: value[:1].expand(64, *value.shape[1:]) for key, value in prepared.items()}
    for _ in range(600):
        wish = ways[torch.randint(2, (64,), generator=make)]
        loss = model.loss(one, wish, torch.randn(64, GOAL_DIM, generator=make), torch.rand(64, generator=make)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
    model.eval()
    first = {key: value[:1] for key, value in prepared.items()}
    noise = torch.randn(1, 64, GOAL_DIM, generator=make)
    chosen = model.propose(first, noise)[:, 0]
    off = (chosen[:, :3] - ways[:, :3]).norm(dim=1)
    assert off.min() < 0.03
    other = model.propose(first, noise, chosen[:, None])[:, 0]
    assert (other[:, :3] - ways[int(off.argmax()), :3]).norm() < 0.03
    assert alike(chosen[:, None], other[:, None]).item() < 0.1


def observation(seed: int = 0, shift: int = 0, opening: float = 1.0, shown: int = 26) -> Observation:
    """Something 6 cm high stands on the table under the head camera, moved by so many pixels; so many of its columns
    are not hidden."""
    height, width = 240, 320
    depth = np.full((height, width), 0.9, np.float32)
    mask = np.zeros((height, width), bool)
    mask[100:124, 130 + shift : 156 + shift] = True
    depth[mask] -= 0.06
    mask[:, 130 + shift + shown :] = False
    rgb = np.zeros((height, width, 3), np.uint8)
    state = np.concatenate([START_ARM_Q, np.full(6, opening)]).astype(np.float32)
    return Observation(state, {"head": rgb}, {"head": depth}, mask)


@pytest.fixture(scope="module")
def controller() -> Controller:
    torch.manual_seed(0)
    return Controller(replace(PRESETS["small"], encoder=CONFIG, goal=GOAL)).eval()


def test_a_policy_keeps_its_goal_until_it_has_to_choose_again(controller: Controller) -> None:
    policy = ControllerPolicy(controller, seed=1)
    policy.start(observation())
    first = policy.batch(observation())["goal"]
    assert torch.equal(first, policy.batch(observation())["goal"])
    policy.again(observation())
    assert not torch.allclose(first, policy.batch(observation())["goal"])
    again = ControllerPolicy(controller, seed=1)
    again.start(observation())
    assert torch.equal(first, again.batch(observation())["goal"])
    assert np.isfinite(policy.chunk(observation())).all()


def test_a_target_that_is_moved_takes_the_goal_along_while_the_hand_is_open(controller: Controller) -> None:
    policy = ControllerPolicy(controller, seed=1)
    policy.start(observation())
    still = policy.batch(observation())["goal"]
    moved = policy.batch(observation(shift=40))["goal"]
    far = (moved - still)[0, :3]
    assert 0.06 < float(far.norm()) < 0.3
    assert float(far[2]) == 0.0
    assert torch.equal(moved[:, 3:], still[:, 3:])
    closed = policy.batch(observation(shift=80, opening=0.3))["goal"]
    assert torch.equal(closed, moved)
    # Fingers that are told to close and come to rest on something wide stay open.
    assert torch.equal(policy.batch(observation(shift=80), torch.full((13,), 0.3))["goal"], moved)
    policy.start(observation(shift=40))
    assert torch.equal(policy._shift, torch.zeros(1, 3))


def test_a_target_that_was_pushed_is_looked_at_anew_before_another_grasp(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the grasps that failed there are not to be repeated beside where it is now."""
    policy = ControllerPolicy(controller, seed=1)
    policy.start(observation())
    goal, before = policy._goal, policy._scene(observation())["anchor"]
    assert goal is not None
    given: list[torch.Tensor] = []
    propose = controller.goal.propose  # type: ignore[union-attr]
    monkeypatch.setattr(controller.goal, "propose", lambda *a: given.append(a[2]) or propose(*a))
    policy.again(observation(shift=10))
    far = policy._scene(observation(shift=10))["anchor"] - before
    assert 0.015 < float(far.norm()) < 0.08
    assert torch.equal(policy._shift, torch.zeros(1, 3))
    assert torch.allclose(given[0][:, 0, :3] - goal[:, :3], far, atol=1e-5)
    assert torch.equal(given[0][:, 0, 3:], goal[:, 3:])


def test_a_target_that_hardly_shows_is_remembered_as_it_was(controller: Controller) -> None:
    policy = ControllerPolicy(controller, seed=1)
    policy.start(observation())
    before = policy._scene(observation())["anchor"]
    policy.again(observation(shift=10, shown=9))
    assert torch.equal(policy._scene(observation(shift=10, shown=9))["anchor"], before)


def test_a_hand_that_holds_something_wide_is_not_led_to_its_goal_again(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its fingers are as open as before, and the chunk closes them further."""
    policy = ControllerPolicy(controller, seed=1)
    policy.start(observation())
    led = []
    monkeypatch.setattr(policy._arrival, "led", lambda chunk, goal, late: led.append(late) or chunk)
    for opening, times in ((1.0, 1), (0.5, 0)):
        led.clear()
        policy.chunk(observation(opening=0.72), np.tile(np.append(START_ARM_Q, [opening] * 6), (20, 1)), late=2)
        assert len(led) == times


def test_both_parts_learn_from_one_loss() -> None:
    torch.manual_seed(0)
    made = Controller(replace(PRESETS["small"], encoder=CONFIG, goal=GOAL))
    data = batch(4, config=CONFIG)
    data |= {
        "action": torch.tensor([START_ARM_Q + (1.0,) * 6]).float().expand(4, 32, 13),
        "action_is_pad": torch.zeros(4, 32, dtype=torch.bool),
        "action_mask": torch.ones(4, 13, dtype=torch.bool),
        "goal": goals(4, 0),
        "goal_known": torch.tensor([True, False, True, True]),
    }
    made.loss(data, Draws(0, 0, 4)).mean.backward()
    still = [name for name, p in made.named_parameters() if p.grad is None]
    assert not still
    made.zero_grad()
    made.loss(data | {"goal_known": torch.zeros(4, dtype=torch.bool)}, Draws(0, 0, 4)).mean.backward()
    assert made.goal is not None
    assert not any(p.grad is not None and p.grad.any() for p in made.goal.parameters())


def test_a_goal_goes_with_the_small_encoder() -> None:
    with pytest.raises(BadInput, match="small encoder"):
        replace(PRESETS["paper"], goal=GOAL)
    with pytest.raises(BadInput, match="at least so many"):
        GoalConfig("grasp", samples=8, judge=16)
    with pytest.raises(BadInput, match="none or grasp"):
        GoalConfig("somewhere")  # type: ignore[arg-type]
