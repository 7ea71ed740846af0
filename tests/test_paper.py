"""The paper's encoder and the controller around it: pictures or cached features, bad masks, fitting, learning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from dexloop.hardware.errors import BadInput
from dexloop.train.controller.checkpoint import load_controller, save_controller
from dexloop.train.controller.config import PRESETS, ControllerConfig, NetworkConfig, PaperEncoderConfig
from dexloop.train.controller.dino import FrozenVits
from dexloop.train.controller.draws import Draws
from dexloop.train.controller.objective import assignment, objective
from dexloop.train.controller.paper import PaperEncoder
from dexloop.train.controller.parts import Batch
from dexloop.train.controller.policy import Controller
from dexloop.train.views import Observation, View, render
from torch import nn

ENCODER = PaperEncoderConfig(head_dim=64, wrist_dim=64, side=42, mask_layers=1)
SIDE = ENCODER.side


def config(**changes: object) -> ControllerConfig:
    network = NetworkConfig(width=32, layers=1, heads=2)
    return replace(PRESETS["paper"], encoder=replace(ENCODER, **changes), network=network)


def controller(seed: int = 0, **changes: object) -> Controller:
    torch.manual_seed(seed)
    made = Controller(config(**changes))
    made.encoder.use_frozen(FrozenVits.random(made.config.encoder, depth=1))  # type: ignore[arg-type]
    return made


def batch(rows: int = 4, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    rgb = torch.randint(0, 256, (2, rows, SIDE, SIDE, 3), dtype=torch.uint8, generator=generator)
    mask = torch.zeros(rows, SIDE, SIDE, dtype=torch.bool)
    mask[:, 10:30, 5:25] = True
    return {
        "head.rgb": rgb[0],
        "wrist.rgb": rgb[1],
        "head.mask": mask,
        "state": torch.rand(rows, 13, generator=generator),
        "action": torch.rand(rows, 64, 13, generator=generator),
        "action_is_pad": torch.zeros(rows, 64, dtype=torch.bool),
        "action_mask": torch.ones(rows, 13, dtype=torch.bool),
    }


def with_features(made: Controller, data: Batch) -> Batch:
    """The same batch as a cache of features would give it."""
    out = {name: tensor for name, tensor in data.items() if not name.endswith(".rgb")}
    for view in ("head", "wrist"):
        out[f"{view}.features"] = made.encoder.frozen.features(view, data[f"{view}.rgb"], None)
    return out


@torch.no_grad()
def test_cached_features_stand_for_pictures() -> None:
    made, data = controller().eval(), batch()
    cached = with_features(made, data)
    noise = made.noise(torch.Generator().manual_seed(0), 4)
    assert torch.equal(made.sample(data, noise), made.sample(cached, noise))
    other = Controller(config()).eval()
    other.load_state_dict(made.state_dict())  # which never loads a ViT
    half = {name: t.half() if name.endswith("features") else t for name, t in cached.items()}
    torch.testing.assert_close(other.sample(half, noise), made.sample(data, noise), atol=0.02, rtol=0.02)


def test_pictures_without_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEXLOOP_MODELS", str(tmp_path))
    made = Controller(config()).eval()
    with pytest.raises(BadInput, match="the weights of vit_base_patch14_dinov2.lvd142m are not in"):
        made.sample(batch(1), made.noise(torch.Generator()))


def test_views_give_what_the_encoder_reads() -> None:
    encoder = PaperEncoder(ENCODER, 32)
    picture = torch.randint(0, 256, (48, 64, 3), dtype=torch.uint8).numpy()
    mask = torch.zeros(48, 64, dtype=torch.bool).numpy()
    moment = Observation(torch.zeros(13).numpy(), {"head": picture, "wrist": picture}, {}, mask)
    arrays = {name: array for view in encoder.views for name, array in render(view, moment).items()}
    assert {name: array.shape for name, array in arrays.items()} == {
        "head.rgb": (SIDE, SIDE, 3), "head.mask": (SIDE, SIDE), "wrist.rgb": (SIDE, SIDE, 3),
    }  # fmt: skip
    assert sum(part.stop - part.start for part in encoder.groups.values()) == encoder.tokens == 19


def test_pictures_are_squashed_as_in_the_published_code() -> None:
    picture = torch.randint(0, 256, (48, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    picture = nn.functional.avg_pool2d(picture.permute(2, 0, 1).float(), 5, 1, 2).permute(1, 2, 0).byte()
    moment = Observation(torch.zeros(13).numpy(), {"wrist": picture.numpy()}, {}, torch.zeros(48, 64).bool().numpy())
    ours = torch.from_numpy(render(View("wrist", "wrist", 52, 52), moment)["wrist.rgb"]).float()
    theirs = nn.functional.interpolate(picture.permute(2, 0, 1)[None].float(), (52, 52), mode="bilinear")[0]
    assert (ours.permute(2, 0, 1) - theirs).abs().max() <= 1  # ours is rounded to whole numbers


def test_learning_lowers_the_loss_and_leaves_the_vits_alone() -> None:
    made, data = controller(), batch()
    made.fit(lambda: iter([data]))
    cached = with_features(made, data)
    before = {name: tensor.clone() for name, tensor in made.encoder.frozen.state_dict().items()}
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-3)
    losses = []
    for step in range(60):
        loss = made.loss(cached, Draws(0, step, 4)).mean
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    assert all(torch.equal(before[name], tensor) for name, tensor in made.encoder.frozen.state_dict().items())
    assert not any("dino" in name for name in made.state_dict())


def test_training_sees_bad_masks_and_colours_and_validation_does_not() -> None:
    made, data = controller(noise=1.0), batch(64)
    clean = made.encoder.prepare(data, None)
    noisy = made.encoder.prepare(data, Draws(0, 0, 64))
    assert torch.equal(clean["head.mask"][:, 0], data["head.mask"])
    changed = (noisy["head.mask"] != clean["head.mask"]).flatten(1).any(1).float().mean()
    assert 0.3 < changed < 1
    assert not torch.allclose(noisy["head.picture"], clean["head.picture"], atol=0.1)
    still = controller(noise=0.0).encoder.prepare(data, Draws(0, 0, 64))
    assert torch.equal(still["head.mask"], clean["head.mask"])


@torch.no_grad()
def test_the_state_is_normalised_for_own_training_only() -> None:
    data = batch()
    own, published = controller().eval(), controller(normalize_state=False).eval()
    for made in (own, published):
        before = made.encoder(made.encoder.prepare(data, None))[:, -1]
        made.fit(lambda: iter([data]))
        after = made.encoder(made.encoder.prepare(data, None))[:, -1]
        assert torch.equal(before, after) == (made is published)
        torch.testing.assert_close(made.encoder.state_normalizer.normalize(data["state"]).amax(0), torch.ones(13))


def test_a_checkpoint_brings_everything_but_the_vits_back(tmp_path: Path) -> None:
    made, data = controller().eval(), batch()
    made.fit(lambda: iter([data]))
    save_controller(made, tmp_path / "policy")
    assert (tmp_path / "policy" / "model.safetensors").stat().st_size < 2_000_000
    back = load_controller(tmp_path / "policy")
    assert back.config == made.config
    noise = made.noise(torch.Generator().manual_seed(0), 4)
    cached = with_features(made, data)
    assert torch.equal(back.sample(cached, noise), made.sample(cached, noise))


def test_pairing_noise_with_data_shortens_their_distance() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(16, 3, 2, generator=generator) for _ in range(2))
    which = assignment(clean, noise)
    assert sorted(which.tolist()) == list(range(16))
    assert (clean - noise[which]).flatten(1).norm(dim=1).sum() < (clean - noise).flatten(1).norm(dim=1).sum()
    uniform = torch.rand(16, generator=generator)
    for kind in ("ddim", "flow"):
        paired = objective(replace(PRESETS["paper"].objective, kind=kind, assign_noise=True))
        plain = objective(replace(PRESETS["paper"].objective, kind=kind))
        for got, expected in zip(
            paired.corrupt(clean, noise, uniform), plain.corrupt(clean, noise[which], uniform), strict=True
        ):
            assert torch.equal(got, expected)
