"""Learned masks as options: Cutie follows a mask, SAM 2 makes one from a box and follows it.

Neither comes with weights: the user downloads a checkpoint and gives its path. Packages are imported only when a
tracker is made. Cheng et al. 2024 (Cutie, arXiv 2310.12982), Ravi et al. 2024 (SAM 2, arXiv 2408.00714).
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from ...hardware.description import RigDescription
from ...hardware.errors import BadInput
from ...hardware.rig import DEXGRASPVLA_RIG
from ..planner.base import Box
from .base import Depth, Mask, MaskTracker, Rgb, State, TargetMask, check_box, check_moment
from .segment import segment_box
from .silhouette import Silhouette
from .tracker import RigidTracker, TrackerConfig

SAM2_CONFIGS = {
    "sam2.1_hiera_tiny": "configs/sam2.1/sam2.1_hiera_t.yaml",
    "sam2.1_hiera_small": "configs/sam2.1/sam2.1_hiera_s.yaml",
    "sam2.1_hiera_base_plus": "configs/sam2.1/sam2.1_hiera_b+.yaml",
    "sam2.1_hiera_large": "configs/sam2.1/sam2.1_hiera_l.yaml",
}
_SOURCES = {
    "cutie": ("rf-cutie", "cutie-base-mega.pth or cutie-small-mega.pth, from the releases of hkchengrex/Cutie"),
    "sam2": ("sam2", "sam2.1_hiera_small.pt or another size, from facebookresearch/sam2"),
}
_HALF_LIFE = 0.9  # confidence is multiplied by this for each picture without any pixel of the target
_LOST_BELOW = 0.2


@dataclass(frozen=True)
class MaskConfig:
    """Which tracker follows the target."""

    backend: Literal["rigid", "cutie", "sam2"] = "rigid"
    """rigid needs no weights and no GPU; cutie and sam2 need their package and a checkpoint."""
    checkpoint: Path | None = None
    """The weights of cutie or sam2."""
    device: str = "cuda"
    """Where a learned one computes."""

    def __post_init__(self) -> None:
        if self.backend != "rigid" and self.backend not in _SOURCES:
            raise BadInput(f"masks backend {self.backend!r} is unknown: choose rigid, {', '.join(_SOURCES)}.")
        if self.backend == "rigid" and self.checkpoint is not None:
            raise BadInput("the rigid mask tracker has no weights: leave the checkpoint out, or choose cutie or sam2.")


def make_tracker(config: MaskConfig, rig: RigDescription = DEXGRASPVLA_RIG) -> MaskTracker:
    """The tracker of a config. Raises BadInput where its package or checkpoint is missing."""
    if config.backend == "cutie":
        return CutieTracker(config.checkpoint, config.device, rig)
    if config.backend == "sam2":
        return Sam2Tracker(config.checkpoint, config.device, rig)
    return RigidTracker(TrackerConfig(), rig)


class _Learned:
    """What both share: the silhouette for what is hidden, and when the target counts as lost."""

    def __init__(self, rig: RigDescription) -> None:
        self._silhouette = Silhouette(rig)
        self._camera = rig.camera("head")
        self._size: tuple[int, int] | None = None
        self._amodal: Mask | None = None
        self._confidence = 1.0

    def _begun(self, mask: Mask) -> TargetMask:
        self._size, self._amodal, self._confidence = (mask.shape[0], mask.shape[1]), mask.copy(), 1.0
        return TargetMask(mask, mask.copy(), 0.0, 1.0)

    def _check(self, rgb: Rgb, depth_m: Depth, state: State) -> None:
        if self._size is None:
            raise BadInput("there is no target yet: call start with its box first.")
        check_moment(rgb, depth_m, state, self._size)

    def _seen(self, mask: Mask, state: State) -> TargetMask:
        """Amodal: what is seen, and what was the target's and is now behind the robot. A network says no more."""
        assert self._amodal is not None
        height, width = mask.shape
        robot = self._silhouette.covers(state, self._camera.intrinsics.scaled(width, height))
        amodal = mask | (self._amodal & robot)
        self._amodal = amodal
        self._confidence = 1.0 if mask.any() else self._confidence * _HALF_LIFE
        occluded = 1.0 - float(mask.sum()) / max(1, int(amodal.sum()))
        return TargetMask(mask, amodal, occluded, self._confidence, self._confidence < _LOST_BELOW)


class CutieTracker(_Learned):
    """Cutie (``rf-cutie``) follows the mask that :func:`segment_box` makes of the box."""

    def __init__(
        self, checkpoint: Path | None, device: str = "cuda", rig: RigDescription = DEXGRASPVLA_RIG, side_px: int = 480
    ) -> None:
        super().__init__(rig)
        path = _checkpoint("cutie", checkpoint)
        torch = _package("torch", "cutie")
        network_module = _package("cutie.model.cutie", "cutie")
        self._core = _package("cutie.inference.inference_core", "cutie").InferenceCore
        _check_device(torch, device)
        config = _cutie_config(path)
        network = network_module.CUTIE(config).to(device).eval()
        network.load_weights(_weights(torch, path))
        self._torch, self._config, self._network = torch, config, network
        self._device, self._side_px = device, side_px
        self._running: Any = None

    def start(self, rgb: Rgb, depth_m: Depth, box: Box, state: State) -> TargetMask:
        check_moment(rgb, depth_m, state)
        height, width = depth_m.shape
        robot = self._silhouette.covers(state, self._camera.intrinsics.scaled(width, height))
        mask = segment_box(rgb, depth_m, box, robot, camera=self._camera)
        self._running = self._core(self._network, cfg=self._config)
        self._running.max_internal_size = self._side_px
        with self._torch.inference_mode():
            given = self._torch.from_numpy(mask.astype(np.int64)).to(self._device)
            self._running.step(self._picture(rgb), given, objects=[1])
        return self._begun(mask)

    def update(self, rgb: Rgb, depth_m: Depth, state: State) -> TargetMask:
        self._check(rgb, depth_m, state)
        with self._torch.inference_mode():
            shares = self._running.step(self._picture(rgb))
            mask = self._running.output_prob_to_mask(shares).cpu().numpy() == 1
        return self._seen(mask, state)

    def _picture(self, rgb: Rgb) -> Any:
        """(3, H, W) 0..1 on the device."""
        return self._torch.from_numpy(rgb.copy()).to(self._device).permute(2, 0, 1).float() / 255


class Sam2Tracker(_Learned):
    """SAM 2 (``sam2``) makes the first mask from the box; each later one from where the last was.

    Its video predictor wants all pictures beforehand, so a live target is followed by its picture predictor: the last
    mask, as low-resolution logits, and its box are the prompt.
    """

    def __init__(
        self, checkpoint: Path | None, device: str = "cuda", rig: RigDescription = DEXGRASPVLA_RIG, grow: float = 0.15
    ) -> None:
        super().__init__(rig)
        path = _checkpoint("sam2", checkpoint)
        if path.stem not in SAM2_CONFIGS:
            raise BadInput(
                f"the SAM 2 checkpoint is called {path.name}: its name says which network it is for. Expected "
                f"{', '.join(f'{name}.pt' for name in SAM2_CONFIGS)}."
            )
        torch = _package("torch", "sam2")
        build = _package("sam2.build_sam", "sam2").build_sam2
        predictor = _package("sam2.sam2_image_predictor", "sam2").SAM2ImagePredictor
        _check_device(torch, device)
        _weights(torch, path)  # a damaged file is said to be one before the network is built
        self._predictor = predictor(build(SAM2_CONFIGS[path.stem], str(path), device=device))
        self._torch, self._grow = torch, grow
        self._box: Box | None = None
        self._logits: Any = None

    def start(self, rgb: Rgb, depth_m: Depth, box: Box, state: State) -> TargetMask:
        check_moment(rgb, depth_m, state)
        self._logits, self._box = None, tuple(float(v) for v in check_box(box, *depth_m.shape))  # type: ignore[assignment]
        mask = self._predict(rgb)
        if not mask.any():
            raise BadInput(f"SAM 2 finds nothing in the box {self._box}: ground again, or draw the box.")
        return self._begun(mask)

    def update(self, rgb: Rgb, depth_m: Depth, state: State) -> TargetMask:
        self._check(rgb, depth_m, state)
        return self._seen(self._predict(rgb), state)

    def _predict(self, rgb: Rgb) -> Mask:
        with self._torch.inference_mode():
            self._predictor.set_image(rgb)
            masks, _, logits = self._predictor.predict(
                box=np.array(self._box), mask_input=self._logits, multimask_output=False
            )
        mask = np.asarray(masks[0] > 0)
        if mask.any():
            self._logits = logits
            x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
            dx, dy = self._grow * width, self._grow * height
            self._box = (
                max(0.0, x - dx), max(0.0, y - dy),
                min(float(rgb.shape[1]), x + width + dx), min(float(rgb.shape[0]), y + height + dy),
            )  # fmt: skip
        return mask


def _checkpoint(backend: str, path: Path | None) -> Path:
    package, file = _SOURCES[backend]
    if path is None:
        raise BadInput(f"masks by {backend} need a checkpoint: get {file}, and give its path.")
    if not path.is_file():
        raise BadInput(f"the {backend} checkpoint {path} does not exist: expected {file} ({package}).")
    return path


def _package(module: str, backend: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = _SOURCES[backend][0]
        raise BadInput(
            f"masks by {backend} need the package {package} ({error}): run `uv pip install {package}`, or choose the "
            "rigid tracker."
        ) from error


def _check_device(torch: Any, device: str) -> None:
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise BadInput(f"masks are to be computed on {device}, but torch sees no GPU: choose device cpu.")


def _weights(torch: Any, path: Path) -> Any:
    """The tensors of a checkpoint; no code of it is run."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever pickle and zip do
        raise BadInput(f"the checkpoint {path} cannot be read ({error}): download it again.") from error


def _cutie_config(path: Path) -> Any:
    """Cutie's own settings, read from its package, for the size that the checkpoint's name says."""
    hydra, omegaconf = _package("hydra", "cutie"), _package("omegaconf", "cutie")
    with hydra.initialize_config_module(version_base="1.3.2", config_module="cutie.config"):
        config = hydra.compose(config_name="eval_config", overrides=["model=small"] if "small" in path.name else [])
    with omegaconf.open_dict(config):
        config["weights"] = str(path)
    return config
