"""DexGraspVLA's checkpoint: ours -> theirs -> ours, to the bit; what is not one is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from dexloop.benchmarks.golden_controller import compare
from dexloop.hardware.errors import BadInput
from dexloop.train.controller.config import PRESETS, PUBLISHED, ControllerConfig, NetworkConfig, PaperEncoderConfig
from dexloop.train.controller.dexgraspvla import export_published, load_published
from dexloop.train.controller.dino import FrozenVits
from dexloop.train.controller.objective import assignment
from dexloop.train.controller.policy import Controller
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .test_transformer import plain

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden" / "controller_small.safetensors"


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEXLOOP_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def config() -> ControllerConfig:
    """As published, at widths of its own."""
    encoder = PaperEncoderConfig(
        head_dim=64, wrist_dim=128, side=70, mask_layers=2, normalize_state=False, head_model="dinov2_64x2",
        wrist_model="dinov2_128x2", state_hidden=24,
    )  # fmt: skip
    network = NetworkConfig(width=48, layers=2, heads=3, norm="centred", dropout=0.1)
    return replace(PUBLISHED, encoder=encoder, network=network, action=replace(PUBLISHED.action, horizon=10, tokens=10))


def controller(seed: int = 0) -> Controller:
    torch.manual_seed(seed)
    made = Controller(config())
    for parameter in made.parameters():
        nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.1)
    made.space.fit(torch.randn(50, 13))
    made.encoder.fit(torch.randn(50, 13))
    assert isinstance(made.config.encoder, PaperEncoderConfig)
    made.encoder.use_frozen(FrozenVits.random(made.config.encoder, depth=2))
    return made.eval()


def weights_of(path: Path) -> dict[str, Tensor]:
    return dict(torch.load(path, weights_only=True)["state_dicts"]["model"])


def rewrite(path: Path, weights: dict[str, Tensor]) -> Path:
    torch.save({"cfg": {}, "state_dicts": {"model": weights}, "pickles": {"epoch": b"\x80\x04K\x03."}}, path)
    return path


def test_ours_to_theirs_to_ours(tmp_path: Path, models: Path) -> None:
    made = controller()
    export_published(made, tmp_path / "a.ckpt")
    back = load_published(tmp_path / "a.ckpt")
    assert back.config == made.config
    for name, tensor in made.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name
    for name, tensor in made.encoder.frozen.state_dict().items():
        assert torch.equal(back.encoder.frozen.state_dict()[name], tensor), name
    export_published(back, tmp_path / "b.ckpt")
    first, second = weights_of(tmp_path / "a.ckpt"), weights_of(tmp_path / "b.ckpt")
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = Controller(back.config)  # trained on from there, the ViTs are found in the models folder
    assert torch.equal(other.encoder.frozen.dino_wrist.pos_embed, made.encoder.frozen.dino_wrist.pos_embed)
    assert sorted(path.name for path in models.iterdir()) == ["dinov2_128x2", "dinov2_64x2"]


def test_the_full_size_has_the_published_tensors() -> None:
    with torch.device("meta"):
        made = Controller(PUBLISHED)
        assert isinstance(PUBLISHED.encoder, PaperEncoderConfig)
        frozen = FrozenVits.random(PUBLISHED.encoder)
    ours = sum(tensor.numel() for tensor in made.parameters())
    vits = sum(tensor.numel() for tensor in frozen.parameters())
    assert (round(ours / 1e6, 1), round((ours + vits) / 1e6, 1)) == (163.7, 554.7)
    assert len(made.state_dict()) + len(frozen.state_dict()) + 3 == 872


def test_names_and_statistics_are_theirs(tmp_path: Path) -> None:
    made = controller()
    export_published(made, tmp_path / "a.ckpt")
    weights = weights_of(tmp_path / "a.ckpt")
    for name in (
        "_dummy_variable",
        "model._dummy_variable",
        "obs_encoder._dummy_variable",
        "obs_encoder.dino_head.mask_token",
        "obs_encoder.dino_wrist.blocks.1.ls2.gamma",
        "obs_encoder.mask_process_net.patch_embed.3.bias",
        "obs_encoder.mask_process_net.transformer.layers.1.self_attn.in_proj_weight",
        "obs_encoder.state_net.5.weight",
        "model.cond_pos_emb",
        "model.blocks.1.cross_attn.kv.weight",
    ):
        assert name in weights
    low, high = (weights[f"normalizer.params_dict.action.input_stats.{end}"] for end in ("min", "max"))
    scale, offset = (weights[f"normalizer.params_dict.action.{name}"] for name in ("scale", "offset"))
    torch.testing.assert_close(low * scale + offset, -torch.ones(13))
    torch.testing.assert_close(high * scale + offset, torch.ones(13))
    if GOLDEN.exists():
        golden = {n.removeprefix("weights.") for n in load_file(GOLDEN) if n.startswith("weights.")}
        assert {n for n in golden if ".blocks.2." not in n and ".layers.2." not in n and ".layers.3." not in n} <= set(
            weights
        )


def test_without_vits_it_loads_and_looks_for_them_later(tmp_path: Path, models: Path) -> None:
    export_published(controller(), tmp_path / "a.ckpt")
    bare = {name: t for name, t in weights_of(tmp_path / "a.ckpt").items() if "dino" not in name}
    loaded = load_published(rewrite(tmp_path / "bare.ckpt", bare))
    assert not models.exists()
    with pytest.raises(BadInput, match="are not in"):
        _ = loaded.encoder.frozen


def test_what_is_no_whole_checkpoint_is_said(tmp_path: Path) -> None:
    export_published(controller(), tmp_path / "a.ckpt")
    weights = weights_of(tmp_path / "a.ckpt")
    name = "model.blocks.1.ffn.fc1.weight"
    cases = {
        f"lacks {name}": {key: tensor for key, tensor in weights.items() if key != name},
        "lacks normalizer.params_dict.action.input_stats.std": {
            key: tensor for key, tensor in weights.items() if key != "normalizer.params_dict.action.input_stats.std"
        },
        "lacks 'model.pos_emb'": {key: tensor for key, tensor in weights.items() if key != "model.pos_emb"},
        "unknown tensor surprise": {**weights, "surprise": torch.zeros(1)},
        r"fc1.weight is \(48, 47\), expected \(48, 48\)": {**weights, name: torch.zeros(48, 47)},
        "has 51 conditioning tokens": {**weights, "model.cond_pos_emb": torch.zeros(1, 51, 48)},
        "has 12 actions and 13 states": {**weights, "model.head.weight": torch.zeros(12, 48)},
        "holds no state_dicts.model": {},
    }
    for message, content in cases.items():
        with pytest.raises(BadInput, match=message):
            load_published(rewrite(tmp_path / "case.ckpt", content))
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(BadInput, match="holds no state_dicts.model"):
        load_published(tmp_path / "list.ckpt")


def test_what_their_code_cannot_compute_is_not_exported(tmp_path: Path) -> None:
    made = controller()
    for change, message in (
        ({"network": replace(made.config.network, norm="rms")}, "no rms norm"),
        ({"encoder": replace(made.config.encoder, normalize_state=True)}, "no normalised state"),
        ({"encoder": PRESETS["small"].encoder}, "no small encoder"),
        ({"action": replace(made.config.action, delay_max=2)}, "no committed commands"),
        ({"action": replace(made.config.action, tokens=5)}, "no time basis of 5 tokens for 10 commands"),
    ):
        made.config = replace(config(), **change)  # type: ignore[arg-type]
        with pytest.raises(BadInput, match=message):
            export_published(made, tmp_path / "a.ckpt")
    assert not list(tmp_path.iterdir())
    (tmp_path / "a.ckpt").write_text("mine")
    made.config = config()
    with pytest.raises(BadInput, match="exists: choose another name"):
        export_published(made, tmp_path / "a.ckpt")
    assert (tmp_path / "a.ckpt").read_text() == "mine"


def test_golden_tensors_are_reproduced() -> None:
    if not GOLDEN.exists():
        pytest.skip("the golden file is not beside the repository")
    result = compare(GOLDEN)
    assert result["equal"], json.dumps(result, indent=2)
    assert len(result["outputs"]) == 9


@torch.no_grad()
def made_golden(path: Path) -> Path:
    """A golden file at other widths, printed by plain re-implementations."""
    torch.manual_seed(3)
    made, rows, grid, train_steps, steps = controller(), 3, 5, 40, 6
    encoder, network = made.encoder, made.model
    mask = torch.zeros(rows, 1, 70, 70)
    mask[0, :, 5:40, 20:45] = mask[1, :, 60:] = 1
    head, wrist, state = torch.randn(rows, 25, 64), torch.randn(rows, 25, 128), torch.randn(rows, 13)
    noise = torch.randn(rows, 10, 13)
    layer = nn.TransformerEncoderLayer(64, 8, 256, 0.0, nn.GELU(), batch_first=True, norm_first=True)
    layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    layers.load_state_dict(encoder.mask_process_net.transformer.state_dict())
    mask_tokens = layers(encoder.mask_process_net.patch_embed(mask))
    parts = (encoder.head_net(torch.cat([head, mask_tokens], -1)), encoder.wrist_net(wrist), encoder.state_net(state))
    tokens = torch.cat([parts[0], parts[1], parts[2][:, None]], 1)
    bar = [torch.cos(torch.tensor((i / train_steps + 0.008) / 1.008 * torch.pi / 2).double()) ** 2 for i in range(41)]
    betas = torch.stack([(1 - bar[i + 1] / bar[i]).clamp(max=0.999) for i in range(train_steps)])
    alphas = torch.cumprod(1 - betas.float(), 0)
    x, times = noise, torch.arange(steps).flip(0) * (train_steps // steps)
    for time in times.tolist():
        eps = plain(network, x, torch.full((rows,), float(time)), tokens)
        before = time - train_steps // steps
        after = alphas[before] if before >= 0 else torch.tensor(1.0)
        clean = ((x - (1 - alphas[time]).sqrt() * eps) / alphas[time].sqrt()).clamp(-1, 1)
        x = after.sqrt() * clean + (1 - after).sqrt() * eps
    one_step_t = torch.tensor([1, 20, 39])
    attention: list[Tensor] = []
    network(noise, one_step_t, network.observe(tokens), attention)
    data, pairs = torch.randn(5, 10, 13), torch.randn(5, 10, 13)
    params = made.space.normalizer
    out = {
        "inputs.mask": mask, "inputs.head_tokens": head, "inputs.wrist_tokens": wrist, "inputs.state": state,
        "inputs.noise": noise, "outputs.mask_tokens": mask_tokens, "outputs.obs_tokens": tokens,
        "outputs.one_step_t": one_step_t, "outputs.one_step_eps": plain(network, noise, one_step_t, tokens),
        "outputs.one_step_attention_last_block": attention[-1][:2, :, 0].half().float(),
        "outputs.timesteps": times, "outputs.alphas_cumprod": alphas, "outputs.sampled_chunk": x,
        "outputs.unnormalized_chunk": (x - params.offset) / params.scale, "outputs.assign_data": data,
        "outputs.assign_noise": pairs, "outputs.assign_index": assignment(data, pairs),
        "weights.normalizer.params_dict.action.scale": params.scale,
        "weights.normalizer.params_dict.action.offset": params.offset,
    }  # fmt: skip
    out |= {f"weights.model.{name}": tensor for name, tensor in network.state_dict().items()}
    learnt = {name: t for name, t in encoder.state_dict().items() if "normalizer" not in name}
    out |= {f"weights.obs_encoder.{name}": tensor for name, tensor in learnt.items()}
    about = {"grid": grid, "ddim_steps": steps, "train_steps": train_steps, "heads": 3, "head_dim": 64}
    save_file({k: t.clone().contiguous() for k, t in out.items()}, path, {k: str(v) for k, v in about.items()})
    return path


def test_a_golden_file_of_other_widths(tmp_path: Path) -> None:
    path = made_golden(tmp_path / "golden.safetensors")
    result = compare(path)
    assert result["equal"], json.dumps(result, indent=2)
    tensors, about = load_file(path), {"ddim_steps": "6", "train_steps": "40"}
    for changed in ("outputs.sampled_chunk", "weights.model.blocks.1.norm2.weight", "inputs.mask"):
        wrong = dict(tensors)
        wrong[changed] = tensors[changed] + 1e-3
        save_file(wrong, tmp_path / "wrong.safetensors", about)
        assert not compare(tmp_path / "wrong.safetensors")["equal"]
    del tensors["weights.model.head.bias"]
    save_file(tensors, tmp_path / "wrong.safetensors", about)
    with pytest.raises(BadInput, match="lacks head.bias"):
        compare(tmp_path / "wrong.safetensors")
    save_file(load_file(path), tmp_path / "wrong.safetensors", {**about, "heads": "4"})
    with pytest.raises(BadInput, match="the metadata say heads 4, the weights' shapes 3"):
        compare(tmp_path / "wrong.safetensors")
