"""The small encoder: tokens from geometry whatever the mask, switches that switch, features that mean what they say."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from dexloop.hardware.description import START_ARM_Q
from dexloop.hardware.kinematics import ArmKinematics
from dexloop.train.controller.config import PRESETS, SmallEncoderConfig
from dexloop.train.controller.draws import Draws
from dexloop.train.controller.encoders import encoder
from dexloop.train.controller.geometry import AROUND_M, NOWHERE, HeadCamera, world_T_palm
from dexloop.train.controller.small import SmallEncoder

Batch = dict[str, torch.Tensor]
WIDTH = 64
PLAIN = SmallEncoderConfig()


def batch(rows: int = 3, seed: int = 0, config: SmallEncoderConfig = PLAIN) -> Batch:
    """Views as the data set gives them: something 6 cm high stands in the window."""
    make = torch.Generator().manual_seed(seed)
    made = SmallEncoder(config, WIDTH)
    out: Batch = {"state": torch.cat([torch.tensor([START_ARM_Q] * rows), torch.rand(rows, 6, generator=make)], 1)}
    out["state"] = out["state"].float()
    for prefix, views in (("", made.views), ("reference.", made.reference_views)):
        for view in views:
            for name, (shape, kind) in view.parts.items():
                part = name.split(".")[1]
                if part == "rgb":
                    out[prefix + name] = torch.randint(0, 256, (rows, *shape), generator=make).to(torch.uint8)
                elif part == "depth":
                    out[prefix + name] = 0.8 + 0.01 * torch.rand(rows, *shape, generator=make)
                elif part == "mask":
                    out[prefix + name] = torch.zeros(rows, *shape, dtype=torch.bool)
                    out[prefix + name][:, 30:60, 40:66] = True
                else:
                    out[prefix + name] = torch.randint(80, 120, (rows, *shape), generator=make).to(torch.int32)
                assert kind == str(out[prefix + name].dtype).removeprefix("torch.")
    out["lagged.window.mask"] = torch.roll(out["window.mask"], 3, 2)
    out["lagged.window.origin"] = out["window.origin"] + 2
    return out


def test_the_preset_names_it_and_it_is_small() -> None:
    made = encoder(PRESETS["small"])
    assert isinstance(made, SmallEncoder)
    assert sum(p.numel() for p in made.parameters()) < 1_500_000
    assert [view.camera for view in made.views] == ["head"]
    whole = encoder(replace(PRESETS["small"], encoder=PLAIN))
    assert sum(p.numel() for p in whole.parameters()) < 1_500_000
    assert [view.camera for view in whole.views] == ["head", "wrist"]


@pytest.mark.parametrize(
    ("switched", "gone"),
    [
        ({}, set()),
        ({"crop": False}, {"head"}),
        ({"wrist": False}, {"wrist"}),
        ({"crop": False, "wrist": False, "points": 0}, {"head", "wrist"}),
        ({"around": 16}, set()),
    ],
)
def test_switches_take_parts_away(switched: dict[str, bool], gone: set[str]) -> None:
    config = replace(SmallEncoderConfig(), **switched)
    made = SmallEncoder(config, WIDTH)
    assert {"hand", "target", "head", "wrist"} - set(made.groups) == gone
    assert sorted(i for part in made.groups.values() for i in range(part.start, part.stop)) == list(range(made.tokens))
    assert made.groups["target"].stop - made.groups["target"].start == (4 if config.points else 2)
    for draws in (None, Draws(0, 0, 3)):
        tokens = made(made.prepare(batch(config=config), draws))
        assert tokens.shape == (3, made.tokens, WIDTH)
        assert torch.isfinite(tokens).all()
    if not config.wrist:
        assert not any(name.startswith("wrist") for name in batch(config=config))


@pytest.mark.parametrize("which", ["window.mask", "reference.window.mask", "window.depth", "reference.window.depth"])
def test_nothing_to_see_is_said_and_finite(which: str) -> None:
    data = batch()
    data[which] = torch.zeros_like(data[which])
    made = SmallEncoder(SmallEncoderConfig(), WIDTH)
    prepared = made.prepare(data, None)
    flag = -5  # before the anchor's place and height
    empty, other = ("reference", "now") if which.startswith("reference") else ("now", "reference")
    assert not prepared[empty][:, flag].any()
    assert not prepared[empty][:, :flag].any()
    assert prepared[other][:, flag].all()
    if empty == "reference":
        assert torch.allclose(prepared["anchor"], torch.tensor(NOWHERE).expand(3, 3))
    assert all(torch.isfinite(value).all() for value in prepared.values())
    assert torch.isfinite(made(prepared)).all()


def test_without_draws_it_is_as_recorded_and_repeatable() -> None:
    made, data = SmallEncoder(SmallEncoderConfig(), WIDTH), batch()
    first, second = made.prepare(data, None), made.prepare(data, None)
    assert all(torch.equal(first[name], second[name]) for name in first)
    drawn, again = (made.prepare(data, Draws(1, 2, 3)) for _ in range(2))
    assert all(torch.equal(drawn[name], again[name]) for name in drawn)
    assert not torch.allclose(drawn["anchor"], first["anchor"], atol=1e-4)


def test_noise_zero_leaves_geometry_and_pictures_as_recorded() -> None:
    config = SmallEncoderConfig(noise=0.0, jitter=(0.0, 0.0, 0.0, 0.0))
    made, data = SmallEncoder(config, WIDTH), batch()
    plain, drawn = made.prepare(data, None), made.prepare(data, Draws(1, 2, 3))
    for name in ("crop", "wrist", "hand"):
        assert torch.allclose(plain[name], drawn[name], atol=6e-2), name  # the anchor is of other points of it
    assert torch.allclose(plain["anchor"], drawn["anchor"], atol=3e-3)


def test_only_the_hand_s_pose_is_seen_of_the_arm() -> None:
    """The same pose with another elbow gives the same tokens."""
    kinematics = ArmKinematics()
    q = np.array(START_ARM_Q)
    others = kinematics.ik_all(kinematics.fk(q), float(kinematics.arm_angle(q)) + 0.2)
    assert len(others)
    other = min(others, key=lambda o: float(np.abs(o - q).max()))
    assert np.abs(other - q).max() > 0.05
    data = batch(1)
    moved = {**data, "state": torch.cat([torch.tensor(other[None]).float(), data["state"][:, 7:]], 1)}
    made = SmallEncoder(SmallEncoderConfig(), WIDTH)
    one, two = made.prepare(data, None), made.prepare(moved, None)
    for name in one:
        if name != "state":
            assert torch.allclose(one[name], two[name], atol=1e-4), name


def test_hand_features_say_how_the_palm_stands_to_the_target() -> None:
    made, data = SmallEncoder(SmallEncoderConfig(), WIDTH), batch(2)
    prepared = made.prepare(data, None)
    palm = world_T_palm(data["state"][:, :7]).float()
    hand, offset = prepared["hand"], palm[:, :3, 3] - prepared["anchor"]
    assert torch.allclose(hand[:, :3].norm(dim=1) * 0.2, offset.norm(dim=1), atol=1e-5)
    assert torch.allclose(hand[:, 2] * 0.2, offset[:, 2], atol=1e-5)  # upright axes
    # The palm points forward in them, and what it sees in front is in its own frame what the world says.
    assert torch.allclose(hand[:, 4], torch.zeros(2), atol=1e-6)
    assert (hand[:, 3] > 0).all()
    in_palm = (-offset[:, None] @ palm[:, :3, :3])[:, 0]
    assert torch.allclose(hand[:, 10:13] * 0.2, in_palm, atol=1e-5)
    assert torch.allclose((hand[:, 13:19] + 1) / 2, data["state"][:, 7:], atol=1e-6)
    assert torch.allclose(hand[:, 19:].norm(dim=1), torch.ones(2), atol=1e-5)


def test_the_surroundings_are_what_stands_beside_the_target_on_the_table() -> None:
    """A neighbour of 6 cm beside the target is there, the target, the table and what is farther away are not."""
    config = SmallEncoderConfig(around=64, crop=False, wrist=False)
    made, data = SmallEncoder(config, WIDTH), batch(1, config=config)
    depth, origin = data["reference.window.depth"][0], data["reference.window.origin"][0]
    camera = HeadCamera(config.head_size)
    table = camera.heights(torch.ones_like(depth)[None], origin[None])[0]
    eye = camera.points(torch.zeros(1, 1, 2), torch.zeros(1, 1))[0, 0, 2]
    depth[:] = eye / (eye - table)  # the table's plane, everywhere
    mask = data["reference.window.mask"]
    mask[:] = False
    mask[0, 40:56, 40:56] = True
    depth[40:56, 40:56] *= 0.94
    assert not made.prepare(data, None)["around"].any()
    depth[40:56, 62:70] *= 0.94
    found = made.prepare(data, None)["around"][0, :, :3] * 0.1
    assert len(found) == 64
    assert (found[:, :2].norm(dim=1) > 0.02).all()
    assert (found[:, :2].norm(dim=1) < AROUND_M).all()
    depth[40:56, 62:70] /= 0.94
    depth[:4, :4] *= 0.94  # far away, in a corner
    assert not made.prepare(data, None)["around"].any()


def test_every_part_is_learnt() -> None:
    made = SmallEncoder(SmallEncoderConfig(around=16), WIDTH)
    weights = torch.randn(made.tokens, WIDTH, generator=torch.Generator().manual_seed(0))
    (made(made.prepare(batch(), Draws(0, 0, 3))) * weights).sum().backward()
    still = [name for name, p in made.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still
