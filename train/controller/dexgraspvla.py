"""DexGraspVLA's published checkpoint <-> a controller of ours.

Layout: ``torch.save({"cfg": DictConfig, "state_dicts": {"model": {name: tensor}}, "pickles": {name: bytes}})``. Only
the tensors are read (:mod:`.torch_file`), and every width follows from their shapes. What tensors do not tell (steps of
training and sampling, leading spacing, clipping, the centred norm) is :data:`.config.PUBLISHED`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ...hardware.errors import BadInput
from .actions import COMMAND_DIM
from .config import PUBLISHED, ControllerConfig, PaperEncoderConfig
from .dino import VIEWS, FrozenVits, keep_weights, vit_of
from .policy import Controller
from .torch_file import TorchFile

Weights = dict[str, Tensor]

_PREFIXES = {  # theirs -> ours; the first that fits
    "model.": "model.",
    "obs_encoder.": "encoder.",
    "normalizer.params_dict.action.": "space.normalizer.",
    "normalizer.params_dict.right_state.": "encoder.state_normalizer.",
}
_STATISTICS = {  # of a normaliser; theirs -> ours
    "input_stats.min": "low",
    "input_stats.max": "high",
    "input_stats.mean": "mean",
    "input_stats.std": "deviation",
}
_EMPTY = ("_dummy_variable", "model._dummy_variable", "obs_encoder._dummy_variable")
_SIZES = {384: ("small", 12), 768: ("base", 12), 1024: ("large", 24)}  # width -> DINOv2's name for it, blocks


def load_published(path: Path) -> Controller:
    """The controller in a published ``.ckpt``. Its frozen ViTs come with it and are put into the models folder
    (:mod:`.dino`), unless they are there, so that controllers trained from it find them.

    Raises BadInput where the file is not such a checkpoint, is damaged, lacks a tensor or has one of a wrong shape, or
    where its pickle asks for anything but tensors and a configuration.
    """
    weights = read_published(path)
    vits = {view: _taken(weights, f"obs_encoder.dino_{view}.") for view in VIEWS}
    config = published_config(weights, path, {view: _depth(vit) for view, vit in vits.items()})
    actions, states = weights["model.head.weight"].shape[0], weights["obs_encoder.state_net.0.weight"].shape[1]
    if (actions, states) != (COMMAND_DIM, COMMAND_DIM):
        raise BadInput(f"{path} has {actions} actions and {states} states: expected {COMMAND_DIM} of each.")
    controller = Controller(config)
    wanted = controller.state_dict()
    found = {ours: (name, tensor) for name, tensor in weights.items() if (ours := _ours(name)) is not None}
    for ours in sorted(set(wanted) | set(found)):
        if ours not in found:
            raise BadInput(f"{path} lacks {_theirs(ours)}: it is no whole DexGraspVLA controller.")
        name, tensor = found[ours]
        if ours not in wanted:
            raise BadInput(f"{path} has the unknown tensor {name}: it is of another version of the controller.")
        if tensor.shape != wanted[ours].shape:
            raise BadInput(
                f"{path}: {name} is {tuple(tensor.shape)}, expected {tuple(wanted[ours].shape)}: it does not fit to "
                "the other tensors."
            )
    controller.load_state_dict({ours: tensor for ours, (_, tensor) in found.items()})
    if all(vits.values()):
        assert isinstance(config.encoder, PaperEncoderConfig)
        frozen = FrozenVits(config.encoder, vit_of(vits["head"]), vit_of(vits["wrist"]))
        keep_weights(config.encoder.head_model, frozen.dino_head)
        keep_weights(config.encoder.wrist_model, frozen.dino_wrist)
        controller.encoder.use_frozen(frozen)
    return controller.eval()


def read_published(path: Path) -> Weights:
    """Every tensor of ``state_dicts.model``, by its published name, in float32. Runs nothing of the file."""
    file = TorchFile(path)
    content = file.content
    states = content.get("state_dicts") if isinstance(content, dict) else None
    model = states.get("model") if isinstance(states, dict) else None
    if not isinstance(model, dict) or not model or not all(isinstance(name, str) for name in model):
        raise BadInput(f"{path} holds no state_dicts.model: expected a checkpoint of the DexGraspVLA controller.")
    return {name: file.tensor(tensor, name).float() for name, tensor in model.items()}


def published_config(weights: Weights, path: Path | str, depths: dict[str, int]) -> ControllerConfig:
    """The configuration that the shapes of ``weights`` tell. ``depths``: blocks of the ViTs, 0 where they are not in
    the file. Raises BadInput where tensors that tell it are missing or do not fit."""
    try:
        horizon, width = weights["model.pos_emb"].shape[1:]
        heads = width // weights["model.blocks.0.attn.q_norm.weight"].shape[0]
        conditioning = weights["model.cond_pos_emb"].shape[1]
        embed = weights["obs_encoder.mask_process_net.patch_embed.0.weight"]
        wrist_dim = weights["obs_encoder.wrist_net.0.weight"].shape[1]
        hidden = weights["obs_encoder.state_net.0.weight"].shape[0]
    except KeyError as error:
        raise BadInput(f"{path} lacks {error}: it is no DexGraspVLA controller.") from error
    grid = round(((conditioning - 2) / 2) ** 0.5)
    if 2 * grid**2 + 2 != conditioning:
        raise BadInput(f"{path} has {conditioning} conditioning tokens: expected 2 x n x n + 2.")
    encoder = PaperEncoderConfig(
        head_model=_vit_name(embed.shape[0], depths["head"]),
        head_dim=embed.shape[0],
        wrist_model=_vit_name(wrist_dim, depths["wrist"]),
        wrist_dim=wrist_dim,
        side=grid * embed.shape[-1],
        patch=embed.shape[-1],
        mask_layers=_count(weights, "obs_encoder.mask_process_net.transformer.layers."),
        state_hidden=hidden,
        normalize_state=False,
    )
    network = replace(PUBLISHED.network, width=width, layers=_count(weights, "model.blocks."), heads=heads)
    return replace(
        PUBLISHED,
        encoder=encoder,
        network=network,
        action=replace(PUBLISHED.action, horizon=horizon, tokens=horizon),
    )


def export_published(controller: Controller, path: Path) -> None:
    """Write ``controller`` in the published layout. It is read by the authors' code (``policy.start_ckpt_path``) and by
    a plain ``torch.load``; its configuration is ours, as plain numbers and words.

    Raises BadInput where the controller computes what their code does not, or the file exists.
    """
    config = controller.config
    differs = _differences(config)
    if differs:
        raise BadInput(f"the published code has no {', no '.join(differs)}: train from a published checkpoint instead.")
    if path.exists():
        raise BadInput(f"{path} exists: choose another name.")
    weights = {_theirs(name): tensor for name, tensor in controller.state_dict().items()}
    for view in VIEWS:
        vit = getattr(controller.encoder.frozen, f"dino_{view}")
        weights |= {f"obs_encoder.dino_{view}.{name}": tensor for name, tensor in vit.state_dict().items()}
    weights |= {name: torch.empty(0) for name in _EMPTY}
    weights = {name: tensor.detach().cpu().float().contiguous() for name, tensor in weights.items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    torch.save({"cfg": config.to_json(), "state_dicts": {"model": weights}, "pickles": {}}, temporary)
    temporary.replace(path)


def _differences(config: ControllerConfig) -> list[str]:
    """What of ``config`` the published code cannot do."""
    action, encoder = config.action, config.encoder
    if not isinstance(encoder, PaperEncoderConfig):
        return ["small encoder"]
    tests = {
        f"{config.network.norm} norm": config.network.norm != "centred",
        "normalised state": encoder.normalize_state,
        f"{action.space} actions": action.space != "joints",
        f"{action.basis} basis of {action.tokens} tokens for {action.horizon} commands": action.basis != "time"
        or action.tokens != action.horizon,
        "committed commands": action.delay_max > 0,
        f"objective {config.objective.kind}": config.objective.kind != "ddim",
        f"predicted {config.objective.predict}": config.objective.predict != "noise",
    }
    return [name for name, different in tests.items() if different]


def _ours(name: str) -> str | None:
    """Our name of their tensor; None where it holds nothing."""
    if name in _EMPTY:
        return None
    for theirs, ours in _PREFIXES.items():
        if name.startswith(theirs):
            rest = name.removeprefix(theirs)
            return ours + (_STATISTICS.get(rest, rest) if "normalizer" in ours else rest)
    return name


def _theirs(name: str) -> str:
    """Their name of our tensor."""
    for theirs, ours in reversed(_PREFIXES.items()):  # encoder.state_normalizer before encoder
        if name.startswith(ours):
            rest = name.removeprefix(ours)
            back = {value: key for key, value in _STATISTICS.items()}
            return theirs + (back.get(rest, rest) if "normalizer" in ours else rest)
    return name


def _taken(weights: Weights, prefix: str) -> Weights:
    """Take the tensors of that prefix out of ``weights``."""
    return {name.removeprefix(prefix): weights.pop(name) for name in list(weights) if name.startswith(prefix)}


def _count(weights: Weights, prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in weights if name.startswith(prefix)})


def _depth(vit: Weights) -> int:
    return _count(vit, "blocks.")


def _vit_name(dim: int, depth: int) -> str:
    size, blocks = _SIZES.get(dim, ("", 0))
    if size and depth in (0, blocks):
        return f"vit_{size}_patch14_dinov2.lvd142m"
    return f"dinov2_{dim}x{depth}"
