"""The frozen picture encoders: DINOv2 (2304.07193) through ``timm``, weights from local files.

Weights are looked for under ``$DEXLOOP_MODELS`` (default ``models/`` of :func:`~...datasets.home.home`), for the model
``vit_base_patch14_dinov2.lvd142m`` as

- ``vit_base_patch14_dinov2.lvd142m/model.safetensors`` (or ``pytorch_model.bin``): the Hub's ``timm/<name>``, or
- ``dinov2_vitb14_pretrain.pth``: the file of facebookresearch/dinov2.

A published controller's ``.ckpt`` brings its own (:mod:`.dexgraspvla`). Tensor names are those of
facebookresearch/dinov2, which are also timm's; ``mask_token``, which only its pre-training reads, is kept so that the
published checkpoint can be written back whole.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...datasets.home import home
from ...hardware.errors import BadInput
from .config import PaperEncoderConfig
from .corruption import jitter_colours
from .draws import Draws

MODELS = "DEXLOOP_MODELS"
VIEWS = ("head", "wrist")
HEAD_SIDE = 64
"""Width of one attention head, the same in all DINOv2."""
_HUB_FILES = {
    "vit_small_patch14_dinov2.lvd142m": "dinov2_vits14_pretrain.pth",
    "vit_base_patch14_dinov2.lvd142m": "dinov2_vitb14_pretrain.pth",
    "vit_large_patch14_dinov2.lvd142m": "dinov2_vitl14_pretrain.pth",
}
_DEPTHS = {384: 12, 768: 12, 1024: 24}
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


class FrozenVits(nn.Module):
    """The head and the wrist view's ViT. Always in evaluation mode, never with gradients, shared when copied."""

    def __init__(self, config: PaperEncoderConfig, head: Any, wrist: Any) -> None:
        super().__init__()
        self.config = config
        for view, vit, dim in (("head", head, config.head_dim), ("wrist", wrist, config.wrist_dim)):
            if vit.embed_dim != dim:
                raise BadInput(
                    f"the {view} view's ViT has width {vit.embed_dim}, the controller was made for {dim}: "
                    f"give the weights of {getattr(config, view + '_model')}."
                )
        self.dino_head = head
        self.dino_wrist = wrist
        self.requires_grad_(False)
        super().train(False)

    @staticmethod
    def load(config: PaperEncoderConfig) -> FrozenVits:
        """From the models folder. Raises BadInput where weights are missing, saying which and where to put them."""
        return FrozenVits(config, *(vit_of(read_weights(name)) for name in (config.head_model, config.wrist_model)))

    @staticmethod
    def random(config: PaperEncoderConfig, depth: int | None = None) -> FrozenVits:
        """Random weights, for tests and measurements of time. ``depth``: blocks, default as the real ones."""
        grid = config.side // config.patch
        dims = (config.head_dim, config.wrist_dim)
        return FrozenVits(config, *(make_vit(dim, depth or _DEPTHS[dim], grid, config.patch) for dim in dims))

    def train(self, mode: bool = True) -> FrozenVits:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenVits:
        return self

    @property
    def feature_shapes(self) -> dict[str, tuple[int, int]]:
        """``<view>.features`` -> (patches, channels)."""
        return {f"{view}.features": (self.config.patches, getattr(self.config, f"{view}_dim")) for view in VIEWS}

    def features(self, view: str, rgb: Tensor, draws: Draws | None) -> Tensor:
        """(B, side, side, 3) uint8 -> patch tokens (B, patches, channels). ``draws``: colours are jittered first."""
        return self.look(view, normal_picture(rgb, self.config.jitter, draws))

    @torch.no_grad()
    def look(self, view: str, picture: Tensor) -> Tensor:
        """(B, 3, side, side) of :func:`normal_picture` -> patch tokens of the last layer after the final norm."""
        vit = self.dino_head if view == "head" else self.dino_wrist
        return vit.forward_features(picture.to(vit.cls_token.dtype))[:, 1:]


def normal_picture(rgb: Tensor, jitter: tuple[float, float, float, float], draws: Draws | None) -> Tensor:
    """(B, h, w, 3) uint8 -> (B, 3, h, w) float32 of ImageNet's mean and deviation. ``draws``: each picture's colours
    are jittered first."""
    picture = rgb.permute(0, 3, 1, 2).float() / 255
    if draws is not None:
        picture = jitter_colours(picture, jitter, draws)
    mean, std = (picture.new_tensor(numbers)[:, None, None] for numbers in (_MEAN, _STD))
    return (picture - mean) / std


def make_vit(dim: int, depth: int, grid: int, patch: int) -> Any:
    """A ``timm`` ViT of DINOv2's architecture, with random weights, for pictures of any side."""
    from timm.models.vision_transformer import VisionTransformer

    if dim % HEAD_SIDE:
        raise BadInput(f"a ViT of width {dim} is no DINOv2: expected a multiple of {HEAD_SIDE}.")
    vit = VisionTransformer(
        img_size=grid * patch,
        patch_size=patch,
        embed_dim=dim,
        depth=depth,
        num_heads=dim // HEAD_SIDE,
        init_values=1e-5,
        num_classes=0,
        dynamic_img_size=True,  # the position embedding is resampled for pictures of another side
    )
    vit.register_buffer("mask_token", torch.zeros(1, dim))
    return vit


def vit_of(weights: dict[str, Tensor]) -> Any:
    """The ViT whose weights these are; its sizes follow from their shapes. Raises BadInput where they are none."""
    try:
        patch = weights["patch_embed.proj.weight"].shape[-1]
        dim, places = weights["cls_token"].shape[-1], weights["pos_embed"].shape[1] - 1
    except KeyError as error:
        raise BadInput(f"these are not the weights of a DINOv2 ViT: {error} is missing.") from error
    depth = 1 + max((int(name.split(".")[1]) for name in weights if name.startswith("blocks.")), default=-1)
    vit = make_vit(dim, depth, round(places**0.5), patch)
    wanted = vit.state_dict()
    weights = {"mask_token": wanted["mask_token"], **weights}
    for name in sorted(set(wanted) ^ set(weights)):
        problem = "lack" if name in wanted else "have the unknown"
        raise BadInput(f"the ViT's weights {problem} {name}: expected DINOv2 without registers, of size S, B or L.")
    for name, tensor in weights.items():
        if tensor.shape != wanted[name].shape:
            raise BadInput(f"the ViT's {name} is {tuple(tensor.shape)}, expected {tuple(wanted[name].shape)}.")
    vit.load_state_dict(weights)
    return vit


def models_folder() -> Path:
    """Where weights of frozen models lie."""
    named = os.environ.get(MODELS)
    return Path(named).expanduser() if named else home() / "models"


def read_weights(name: str) -> dict[str, Tensor]:
    """Tensors of the model ``name`` from the models folder. Raises BadInput where they are not there or damaged."""
    path = _found(name)
    if path is None:
        folder, hub = models_folder(), _HUB_FILES.get(name)
        or_hub = f" or {hub} of facebookresearch/dinov2 into {folder}/" if hub else ""
        raise BadInput(
            f"the weights of {name} are not in {folder}: put model.safetensors of the Hub's timm/{name} into "
            f"{folder / name}/{or_hub}, or set {MODELS} to where they are."
        )
    return _read(path)


def keep_weights(name: str, vit: Any) -> None:
    """Put a ViT's weights into the models folder, unless that model is there already."""
    if _found(name) is not None:
        return
    target = models_folder() / name / "model.safetensors"
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    save_file({key: tensor.contiguous() for key, tensor in vit.state_dict().items()}, str(temporary))
    temporary.replace(target)


def _found(name: str) -> Path | None:
    folder = models_folder()
    candidates = [folder / name / "model.safetensors", folder / name / "pytorch_model.bin"]
    if name in _HUB_FILES:
        candidates.append(folder / _HUB_FILES[name])
    return next((path for path in candidates if path.is_file()), None)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(str(path))
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError, TypeError) as error:
        raise BadInput(f"{path} holds no readable weights ({error}): fetch it again.") from error
