"""Action spaces and chunk bases: what goes in comes back, within the limits of the robot."""

import numpy as np
import pytest
import torch
from dexloop.hardware.description import START_ARM_Q
from dexloop.hardware.errors import BadInput
from dexloop.hardware.geometry import apply, inverse, rot_z, transform
from dexloop.hardware.kinematics import ArmKinematics
from dexloop.hardware.rig import DEXGRASPVLA_RIG
from dexloop.train.controller.actions import NEAR_UNIT_M, Normalizer, action_space, chunk_basis
from dexloop.train.controller.config import ActionConfig
from dexloop.train.controller.geometry import rotation_to_six, six_to_rotation, world_T_palm
from hypothesis import given, settings
from hypothesis import strategies as st

LIMITS = ArmKinematics().limits
JOINTS = ActionConfig(space="joints", horizon=8, tokens=8, normal="limits")
OBJECT = ActionConfig(space="hand_to_object", horizon=8, tokens=4)
HERE = ActionConfig(space="hand_from_here", horizon=8, tokens=4)


def paths(seed: int, rows: int = 3, horizon: int = 8) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """(rows, horizon, 13) smooth commands from around the start pose, and their context."""
    rng = np.random.default_rng(seed)
    start = np.array(START_ARM_Q) + rng.uniform(-0.5, 0.5, (rows, 1, 7))
    steps = np.cumsum(rng.uniform(-0.03, 0.03, (rows, horizon, 7)), 1)
    arm = np.clip(start + steps, LIMITS[:, 0] + 0.02, LIMITS[:, 1] - 0.02)
    commands = torch.tensor(np.concatenate([arm, rng.uniform(0, 1, (rows, horizon, 6))], -1), dtype=torch.float32)
    anchor = torch.tensor(rng.uniform([0.2, -0.3, 0.0], [0.6, 0.3, 0.2], (rows, 3)), dtype=torch.float32)
    return commands, {"anchor": anchor, "state": commands[:, 0]}


@pytest.mark.parametrize("kind", ["limits", "gaussian"])
def test_a_normaliser_maps_what_it_saw_and_back(kind: str) -> None:
    values = torch.tensor(np.random.default_rng(0).normal(3.0, [0.01, 1.0, 50.0], (500, 3)), dtype=torch.float32)
    values = torch.cat([values, torch.full((500, 1), 0.7)], 1)
    normalizer = Normalizer(4, kind)
    normalizer.fit(values)
    out = normalizer.normalize(values)
    if kind == "limits":
        assert torch.allclose(out[:, :3].amin(0), torch.tensor(-1.0), atol=1e-3)
        assert torch.allclose(out[:, :3].amax(0), torch.tensor(1.0), atol=1e-3)
    else:
        assert torch.allclose(out[:, :3].mean(0), torch.zeros(3), atol=1e-3)
        assert torch.allclose(out[:, :3].std(0), torch.ones(3), atol=1e-2)
    assert torch.allclose(out[:, 3], torch.zeros(500), atol=1e-6)  # a constant goes to 0,
    assert normalizer.scale[3] == 1.0  # unscaled, as the published normaliser has it
    assert torch.allclose(normalizer.denormalize(out), values, atol=1e-4)


def test_a_normaliser_is_kept_with_the_weights() -> None:
    space = action_space(OBJECT)
    space.fit(torch.randn(50, 15))
    other = action_space(OBJECT)
    other.load_state_dict(space.state_dict())
    assert {"normalizer.scale", "normalizer.offset"} <= set(space.state_dict())
    values = torch.randn(5, 15)
    assert torch.equal(other.normalize(values), space.normalize(values))
    assert not torch.equal(space.normalize(values), values)


@pytest.mark.parametrize("values", [torch.empty(0, 4), torch.zeros(5, 3), torch.full((5, 4), float("nan"))])
def test_a_normaliser_refuses_what_it_cannot_learn_from(values: torch.Tensor) -> None:
    normalizer = Normalizer(4, "gaussian")
    with pytest.raises(BadInput, match="expected|finite"):
        normalizer.fit(values)
    assert torch.equal(normalizer.scale, torch.ones(4))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=6, max_size=6))
def test_any_six_numbers_make_a_rotation(numbers: list[float]) -> None:
    rotation = six_to_rotation(torch.tensor(numbers, dtype=torch.float64))
    assert torch.allclose(rotation.T @ rotation, torch.eye(3, dtype=torch.float64), atol=1e-9)
    assert torch.det(rotation) > 0.999
    assert torch.allclose(six_to_rotation(rotation_to_six(rotation)), rotation, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([OBJECT, HERE]))
def test_the_hand_goes_where_the_commands_sent_it(seed: int, config: ActionConfig) -> None:
    commands, context = paths(seed)
    space = action_space(config)
    space.fit(space.raw(commands, context).flatten(0, 1))
    back = space.decode(space.encode(commands, context), context)
    wanted, reached = world_T_palm(commands[..., :7]), world_T_palm(back[..., :7])
    assert (wanted - reached).abs().max() < 2e-5  # float32 between
    assert torch.allclose(back[..., 7:], commands[..., 7:], atol=1e-5)
    # Next to the arm's joints: the redundant elbow drifts a little, it does not jump.
    assert (back[:, 0, :7] - context["state"][:, :7]).abs().max() < 0.05
    assert (back[:, 1:, :7] - back[:, :-1, :7]).abs().max() < 0.3


def test_actions_are_the_same_wherever_object_and_hand_are_together() -> None:
    """What makes them general: a palm 10 cm over the object is that, on the left as on the right."""
    commands, context = paths(3)
    raw = action_space(OBJECT).raw(commands, context)
    palm = world_T_palm(commands[..., :7])[..., :3, 3]
    assert torch.allclose(raw[..., :3].double() + context["anchor"].double()[:, None], palm, atol=1e-6)


def test_from_here_a_hand_that_stays_goes_nowhere() -> None:
    commands, context = paths(4)
    raw = action_space(HERE).raw(commands[:, :1].expand(-1, 8, -1), context | {"state": commands[:, 0]})
    assert torch.allclose(raw[..., :3], torch.zeros(3), atol=1e-6)
    assert torch.allclose(raw[..., 3:9], torch.tensor([1.0, 0, 0, 0, 1, 0]), atol=1e-6)


def test_from_here_the_same_motion_counts_for_more_near_the_object() -> None:
    commands, context = paths(6)
    state = commands[:, 0]
    palm = world_T_palm(state[:, :7])[:, :3, 3].float()
    near, far = (
        action_space(HERE).raw(commands, {"state": state, "anchor": palm - torch.tensor([0.0, 0.0, height])})[..., :3]
        for height in (0.2, 0.6)
    )
    assert torch.allclose(
        near * NEAR_UNIT_M, far * 0.2, atol=1e-6
    )  # a unit is half the way that is left, 3 cm at least


@pytest.mark.parametrize("turn_deg", [-12.0, 8.0, 20.0])
def test_from_here_a_motion_is_the_same_at_every_heading_and_place(turn_deg: float) -> None:
    """The same motion of the palm, turned about the vertical and moved over the table."""
    rig, kinematics = DEXGRASPVLA_RIG.arms[0], ArmKinematics()
    commands, context = paths(5, rows=1)
    palm = world_T_palm(commands[0, :, :7]).numpy()
    anchor = context["anchor"].double().numpy()
    about = transform(None, palm[0, :3, 3])
    turn = transform(rot_z(np.deg2rad(turn_deg)), np.array([0.01, -0.02, 0.01]))
    turned = about @ turn @ inverse(about) @ palm
    flange = inverse(rig.world_T_base) @ turned @ inverse(rig.flange_T_palm)
    found = [kinematics.ik(pose, START_ARM_Q) for pose in flange]
    assert all(answer.ok for answer in found)
    other = commands.clone()
    other[0, :, :7] = torch.tensor(np.stack([answer.q for answer in found]))
    space = action_space(HERE)
    moved = torch.tensor(apply(about @ turn @ inverse(about), anchor), dtype=torch.float32)
    one = space.raw(commands, {"state": commands[:, 0], "anchor": context["anchor"]})
    two = space.raw(other, {"state": other[:, 0], "anchor": moved})
    assert float(one[..., :3].abs().max()) > 0.01
    assert torch.allclose(one, two, atol=1e-5)


@pytest.mark.parametrize("config", [JOINTS, OBJECT, HERE])
def test_what_comes_out_is_within_the_limits(config: ActionConfig) -> None:
    commands, context = paths(1)
    space = action_space(config)
    space.fit(space.raw(commands, context).flatten(0, 1))
    wild = 5 * torch.randn(3, 8, space.dim, generator=torch.Generator().manual_seed(0))
    out = space.decode(wild, context)
    low, high = torch.tensor(LIMITS, dtype=torch.float32).T
    assert torch.isfinite(out).all()
    assert (out[..., :7] >= low - 1e-6).all()
    assert (out[..., :7] <= high + 1e-6).all()
    assert (out[..., 7:] >= 0).all()
    assert (out[..., 7:] <= 1).all()


def test_joints_come_back_as_they_were() -> None:
    commands, context = paths(2)
    space = action_space(JOINTS)
    space.fit(space.raw(commands, context).flatten(0, 1))
    assert torch.allclose(space.decode(space.encode(commands, context), context), commands, atol=1e-5)


def test_a_source_without_a_joint_does_not_teach_the_pose() -> None:
    have = torch.ones(2, 13, dtype=torch.bool)
    have[0, 3] = False  # an arm joint
    have[1, 8] = False  # the index finger
    learnt = action_space(OBJECT).mask(have)
    assert not learnt[0, :9].any()
    assert learnt[0, 9:].all()
    assert learnt[1, :9].all()
    assert learnt[1].sum() == 14
    assert not learnt[1, 10]
    assert torch.equal(action_space(JOINTS).mask(have), have)


def smooth_chunks(rows: int = 400) -> torch.Tensor:
    """(rows, 8, 15) ramps and waves: few directions."""
    rng = np.random.default_rng(0)
    time = np.linspace(0, 1, 8)
    shapes = np.stack([np.ones(8), time, np.sin(np.pi * time)])
    return torch.tensor(np.einsum("nkd,kh->nhd", rng.normal(size=(rows, 3, 15)), shapes), dtype=torch.float32)


@pytest.mark.parametrize("basis", ["time", "pca"])
def test_chunks_become_tokens_and_come_back(basis: str) -> None:
    config = ActionConfig(horizon=8, tokens=4, basis=basis, components=48)  # 3 shapes x 15 numbers = 45 directions
    made = chunk_basis(config, 15)
    chunks = smooth_chunks()
    made.fit(chunks)
    tokens = made.encode(chunks)
    assert tokens.shape == (400, made.tokens, made.dim) == (400, 4, 30 if basis == "time" else 12)
    assert torch.allclose(made.decode(tokens), chunks, atol=1e-3)


def test_frequencies_keep_what_is_smooth_and_drop_what_is_rough() -> None:
    made = chunk_basis(ActionConfig(horizon=32, tokens=8, basis="cosine"), 15)
    steps = torch.arange(32)[:, None]
    slow = torch.cos(torch.pi / 32 * (steps + 0.5) * 3).expand(32, 15)
    rough = torch.cos(torch.pi / 32 * (steps + 0.5) * 20).expand(32, 15)
    chunks = slow * torch.randn(200, 1, 15, generator=torch.Generator().manual_seed(0))
    made.fit(chunks)
    tokens = made.encode(chunks + rough)
    assert tokens.shape == (200, 8, 15)
    assert torch.allclose(made.decode(tokens), chunks, atol=1e-3)
    assert torch.allclose(made.encode(made.decode(tokens)), tokens, atol=0.02)
    with pytest.raises(BadInput, match="no 64 frequencies"):
        chunk_basis(ActionConfig(horizon=32, tokens=64, basis="cosine"), 15)


def test_the_first_components_matter_most_and_have_deviation_one() -> None:
    made = chunk_basis(ActionConfig(horizon=8, tokens=4, basis="pca", components=24), 15)
    chunks = smooth_chunks()
    made.fit(chunks)
    flat = made.encode(chunks).flatten(1)
    assert torch.allclose(flat.std(0), torch.ones(24), atol=0.01)
    assert (made.deviation[:-1] >= made.deviation[1:]).all()
    lost = (made.decode(made.encode(chunks)) - chunks).var() / chunks.var()
    assert lost < 0.5 * (1 - 24 / 45)  # less than as many arbitrary directions would lose


@pytest.mark.parametrize("basis", ["time", "cosine", "pca"])
def test_weights_are_the_share_that_is_learnt(basis: str) -> None:
    made = chunk_basis(ActionConfig(horizon=8, tokens=4, basis=basis, components=24), 15)
    made.fit(smooth_chunks())
    learn = torch.ones(3, 8, 15)
    assert torch.allclose(made.weights(learn), torch.ones(3, 4, made.dim), atol=1e-5)
    assert not made.weights(0 * learn).any()
    learn[:, 4:] = 0  # the second half is padding
    half = made.weights(learn)
    assert (half >= 0).all()
    assert (half <= 1 + 1e-5).all()
    assert 0.2 < float(half.mean()) < 0.8


def test_too_few_chunks_for_a_basis_are_refused() -> None:
    made = chunk_basis(ActionConfig(horizon=8, tokens=4, basis="pca", components=24), 15)
    with pytest.raises(BadInput, match="got 5 chunks"):
        made.fit(torch.zeros(5, 8, 15))
    with pytest.raises(BadInput, match="no 128 components"):
        chunk_basis(ActionConfig(horizon=8, tokens=4, basis="pca", components=128), 15)
