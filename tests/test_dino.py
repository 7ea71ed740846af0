"""Frozen ViTs: weights are found in each layout, and never made up."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from dexloop.hardware.errors import BadInput
from dexloop.train.controller.config import PaperEncoderConfig
from dexloop.train.controller.dino import FrozenVits, keep_weights, make_vit, normal_picture, read_weights, vit_of
from dexloop.train.controller.draws import Draws
from safetensors.torch import save_file

NAMES = ("vit_base_patch14_dinov2.lvd142m", "vit_large_patch14_dinov2.lvd142m")
CONFIG = PaperEncoderConfig(head_dim=64, wrist_dim=128, side=42)


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setenv("DEXLOOP_MODELS", str(folder))
    return folder


def vits(seed: int = 0) -> FrozenVits:
    torch.manual_seed(seed)
    return FrozenVits.random(CONFIG, depth=2)


def pictures(rows: int = 2, side: int = 42) -> torch.Tensor:
    return torch.randint(0, 256, (rows, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def store(folder: Path, layout: str, name: str, weights: dict[str, torch.Tensor]) -> Path:
    if layout == "hub":
        path = folder / f"dinov2_vit{name[4]}14_pretrain.pth"
        torch.save(weights, path)
        return path
    path = folder / name / ("model.safetensors" if layout == "safetensors" else "pytorch_model.bin")
    path.parent.mkdir()
    weights = {key: tensor for key, tensor in weights.items() if key != "mask_token"}  # as the Hub's files
    if layout == "safetensors":
        save_file(weights, str(path))
    else:
        torch.save(weights, path)
    return path


@pytest.mark.parametrize("layout", ["safetensors", "bin", "hub"])
def test_weights_of_a_folder_are_the_models(models: Path, layout: str) -> None:
    made = vits()
    for name, vit in zip(NAMES, (made.dino_head, made.dino_wrist), strict=True):
        store(models, layout, name, vit.state_dict())
    found = FrozenVits.load(CONFIG)
    for view, width in (("head", 64), ("wrist", 128)):
        expected = made.features(view, pictures(), None)
        assert expected.shape == (2, 9, width)
        assert torch.equal(found.features(view, pictures(), None), expected)


def test_missing_weights_are_named_with_their_place(models: Path) -> None:
    with pytest.raises(BadInput, match="put model.safetensors of the Hub's timm/vit_base_patch14_dinov2.lvd142m into"):
        FrozenVits.load(CONFIG)


@pytest.mark.parametrize("layout", ["safetensors", "bin", "hub"])
def test_damaged_weights_are_refused_and_kept(models: Path, layout: str) -> None:
    vit = vits().dino_head
    path = store(models, layout, NAMES[0], vit.state_dict())
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BadInput, match="holds no readable weights"):
        read_weights(NAMES[0])
    keep_weights(NAMES[0], vit)  # not ours to replace
    assert path.stat().st_size == 1000


def test_weights_of_something_else_are_refused(models: Path) -> None:
    weights = vits().dino_head.state_dict()
    with pytest.raises(BadInput, match="is missing"):
        vit_of({"a": torch.zeros(1)})
    with pytest.raises(BadInput, match=r"lack blocks\.1\.attn\.qkv\.bias"):
        vit_of({name: tensor for name, tensor in weights.items() if name != "blocks.1.attn.qkv.bias"})
    with pytest.raises(BadInput, match="have the unknown register_tokens"):
        vit_of({**weights, "register_tokens": torch.zeros(1, 4, 64)})
    with pytest.raises(BadInput, match=r"norm\.weight is \(63,\), expected \(64,\)"):
        vit_of({**weights, "norm.weight": torch.zeros(63)})
    with pytest.raises(BadInput, match="of width 96 is no DINOv2"):
        make_vit(96, 1, 3, 14)
    store(models, "bin", NAMES[0], {"model": "not a tensor"})  # type: ignore[dict-item]
    with pytest.raises(BadInput):
        FrozenVits.load(CONFIG)


def test_a_vit_of_another_width_is_refused() -> None:
    with pytest.raises(BadInput, match="head view's ViT has width 128, the controller was made for 64"):
        FrozenVits(CONFIG, make_vit(128, 1, 3, 14), make_vit(128, 1, 3, 14))


def test_kept_weights_are_found_and_never_replaced(models: Path) -> None:
    keep_weights("mine", vits().dino_head)
    keep_weights("mine", vits(seed=1).dino_head)
    kept = vit_of(read_weights("mine"))
    assert torch.equal(kept.pos_embed, vits().dino_head.pos_embed)
    assert [path.name for path in (models / "mine").iterdir()] == ["model.safetensors"]


def test_frozen_stays_frozen() -> None:
    made = vits().train()
    assert not any(module.training for module in made.modules())
    assert not any(parameter.requires_grad for parameter in made.parameters())
    assert copy.deepcopy(made) is made


def test_pictures_of_another_side_are_looked_at() -> None:
    assert vits().features("wrist", pictures(side=70), None).shape == (2, 25, 128)


def test_jitter_is_of_each_picture_and_of_the_draw() -> None:
    rgb = pictures(1).expand(3, -1, -1, -1)
    jitter = (0.3, 0.3, 0.3, 0.1)
    first = normal_picture(rgb, jitter, Draws(0, 0, 3))
    assert torch.equal(first, normal_picture(rgb, jitter, Draws(0, 0, 3)))
    assert not torch.allclose(first[0], first[1], atol=0.01)
    plain = normal_picture(rgb, jitter, None)
    assert torch.allclose(plain.mean(), (rgb.float() / 255).sub(0.449).div(0.226).mean(), atol=0.05)  # ImageNet's
