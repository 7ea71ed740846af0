"""What a controller is made of. Saved beside every checkpoint as ``config.json``; presets at the end."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, get_type_hints

from ...hardware.errors import BadInput

ENCODERS = ("paper", "small")


@dataclass(frozen=True)
class ObjectiveConfig:
    """How chunks are learnt and sampled."""

    kind: Literal["ddim", "flow"] = "flow"
    """ddim: denoising diffusion, as DexGraspVLA; flow: flow matching, as DexVLG and GR-Dexter."""
    train_steps: int = 50
    """Diffusion steps of training; flow scales its time by it, so that both share one time embedding."""
    sample_steps: int = 8
    """Network evaluations for one chunk."""
    spacing: Literal["trailing", "leading"] = "trailing"
    """Which training steps ddim samples at. leading: as the published controller (starts at 45 of 49)."""
    predict: Literal["noise", "velocity"] = "velocity"
    """ddim only: what the network answers. noise: as the published controller; from all but pure noise it says nothing
    about the chunk. velocity: sqrt(alpha) noise - sqrt(1 - alpha) chunk (2202.00512), which does."""
    clip: float = 0.0
    """ddim only: the estimate of the clean chunk is clipped to plus and minus this; 0 = not. The published controller
    has 1, its actions fill [-1, 1]."""
    temperature: float = 1.0
    """Deviation of the noise that acting starts from. Less than 1 keeps to what demonstrations do most; learning is not
    touched."""
    assign_noise: bool = False
    """Pair noise with data over each batch, nearest to nearest, as the published controller. It shortens their distance
    by 2 % only and couples the noise to the condition."""

    def __post_init__(self) -> None:
        if self.kind not in ("ddim", "flow"):
            raise BadInput(f"objective is {self.kind!r}: expected ddim or flow.")
        if self.predict not in ("noise", "velocity"):
            raise BadInput(f"objective.predict is {self.predict!r}: expected noise or velocity.")
        if not 0 <= self.temperature <= 1:
            raise BadInput(f"objective.temperature is {self.temperature}: expected 0 to 1.")
        if not 1 <= self.sample_steps <= (self.train_steps if self.kind == "ddim" else 1000):
            raise BadInput(f"objective samples in {self.sample_steps} steps: expected 1 to {self.train_steps}.")


@dataclass(frozen=True)
class ActionConfig:
    """What a chunk is in the network's eyes."""

    space: Literal["joints", "hand_to_object", "hand_from_here"] = "hand_from_here"
    """joints: the 13 commands; the others: the palm's pose and the openings, the pose seen from the object
    (hand_to_object) or from where the palm is (hand_from_here)."""
    horizon: int = 32
    """Commands per chunk, at ``rate_hz``."""
    rate_hz: int = 20
    """Rate of the data and of the commands."""
    basis: Literal["time", "cosine", "pca"] = "time"
    """time: a token holds consecutive commands; cosine: one frequency of the chunk, which so is smooth; pca:
    coefficients of a basis learnt from the data."""
    tokens: int = 16
    """Action tokens of the transformer."""
    components: int = 48
    """pca only: coefficients kept, a multiple of ``tokens``."""
    normal: Literal["limits", "gaussian"] = "gaussian"
    """limits: each number's range to [-1, 1], as the published controller; gaussian: mean 0, deviation 1."""
    nudge_rad: float = 0.0
    """Training: the arm's joints are moved off by up to about so much, and the commands lead back; 0 = never."""
    delay_max: int = 0
    """Real-time chunking: up to so many commands are already committed when a chunk is planned; 0 = never."""
    fade: int = 0
    """Acting: over so many commands a new chunk takes over from what is left of the last one; 0 = at once, which asks
    for accelerations that no arm has."""

    def __post_init__(self) -> None:
        whole = {"time": self.horizon, "pca": self.components}.get(self.basis, self.tokens)
        if self.tokens < 1 or whole % self.tokens:
            raise BadInput(f"{whole} numbers do not divide into {self.tokens} action tokens: choose a divisor.")
        if not 0 <= self.delay_max < self.horizon:
            raise BadInput(f"delay_max is {self.delay_max}: expected 0 to {self.horizon - 1}, less than the horizon.")
        if self.fade < 0:
            raise BadInput(f"fade is {self.fade}: expected 0 or more commands.")


@dataclass(frozen=True)
class NetworkConfig:
    """The action transformer (RDT / DiT): self-attention over action tokens, cross-attention to the observation."""

    width: int = 256
    layers: int = 4
    heads: int = 4
    norm: Literal["rms", "centred"] = "rms"
    """rms: x / sqrt(mean(x^2)); centred: x / sqrt(var(x)), what the published checkpoint was trained with."""
    dropout: float = 0.0
    """Of attention weights and of what attention adds, in training; the published controller has 0.1."""

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise BadInput(f"width {self.width} does not divide into {self.heads} heads.")


@dataclass(frozen=True)
class PaperEncoderConfig:
    """DexGraspVLA's observation encoder: frozen DINOv2, mask ViT, fusion heads."""

    kind: Literal["paper"] = "paper"
    head_model: str = "vit_base_patch14_dinov2.lvd142m"
    """timm name of the head view's frozen ViT (Hub: timm/<name>)."""
    head_dim: int = 768
    """Width of the head view's ViT, and of the mask's."""
    wrist_model: str = "vit_large_patch14_dinov2.lvd142m"
    wrist_dim: int = 1024
    side: int = 518
    """Pictures are squashed to side x side; a multiple of the patch."""
    patch: int = 14
    mask_layers: int = 4
    mask_heads: int = 8
    state_hidden: int = 256
    dropout: float = 0.1
    jitter: tuple[float, float, float, float] = (0.3, 0.3, 0.3, 0.1)
    """Brightness, contrast, saturation, hue; drawn for each picture."""
    noise: float = 1.0
    """Strength of what training does to masks; 1 = as a real tracker, 0 = as recorded."""
    normalize_state: bool = True
    """False: as the published controller, which fits a state normaliser and does not apply it."""

    def __post_init__(self) -> None:
        if self.head_dim % self.mask_heads:
            raise BadInput(f"the mask's width {self.head_dim} does not divide into {self.mask_heads} heads.")
        if self.side % self.patch:
            raise BadInput(f"pictures of {self.side} pixels do not divide into patches of {self.patch}.")

    @property
    def patches(self) -> int:
        """Patch tokens of one picture."""
        return (self.side // self.patch) ** 2


@dataclass(frozen=True)
class SmallEncoderConfig:
    """Geometry first: tokens from the masked depth, a crop around the target, the wrist view, the state."""

    kind: Literal["small"] = "small"
    head_size: tuple[int, int] = (320, 240)
    """The head picture is resized to this; the window is cut out of it."""
    window: int = 96
    """Side of the stored window around the target, px of the resized head picture."""
    wrist_size: tuple[int, int] = (80, 60)
    points: int = 128
    """Points of the target that the shape token is made of."""
    around: int = 0
    """Points of what stands around the target, as the attempt began, that a token of their own is made of; 0 = none."""
    crop: bool = True
    """Look at the crop of the head view (colour, depth, mask)."""
    wrist: bool = True
    """Look at the wrist view (colour, depth)."""
    noise: float = 1.0
    """Strength of what training does to masks and depth; 1 = as a real tracker and camera, 0 = as recorded."""
    jitter: tuple[float, float, float, float] = (0.3, 0.3, 0.3, 0.1)


REFINED = 16  # of the goals that are judged best are refined


@dataclass(frozen=True)
class GoalConfig:
    """Whether a grasp is chosen first, and how (:mod:`.goal`)."""

    kind: Literal["none", "grasp"] = "none"
    """grasp: the pose in which the hand will close is proposed as an attempt begins, and chunks lead to it. Only with
    the small encoder."""
    width: int = 128
    samples: int = 64
    """Goals that are sampled; one of them is taken."""
    steps: int = 10
    """Network evaluations for a sample."""
    dropout: float = 0.1
    jitter_m: float = 0.004
    """Deviation of the goal's position while chunks are learnt; of its rotation 5 rad per m of it."""
    judge: int = 0
    """Width of the network that tells which of the samples will lift (:mod:`.judge`), learnt by `train grasps`; 0 =
    none, and the densest is taken."""

    def __post_init__(self) -> None:
        if self.kind not in ("none", "grasp"):
            raise BadInput(f"goal is {self.kind!r}: expected none or grasp.")
        if self.samples < 1 or self.steps < 1:
            raise BadInput(f"goal.samples is {self.samples}, goal.steps {self.steps}: expected at least 1.")
        if self.judge and self.samples < REFINED:
            raise BadInput(f"goal.samples is {self.samples}: with a judge, which refines {REFINED}, at least so many.")


NO_GOAL = GoalConfig()


@dataclass(frozen=True)
class ControllerConfig:
    """A whole controller."""

    preset: str
    encoder: PaperEncoderConfig | SmallEncoderConfig
    network: NetworkConfig = field(default_factory=NetworkConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    action: ActionConfig = field(default_factory=ActionConfig)
    goal: GoalConfig = NO_GOAL
    robot_type: str = "rm75_gor"

    def __post_init__(self) -> None:
        if self.goal.kind != "none" and not isinstance(self.encoder, SmallEncoderConfig):
            raise BadInput(f"goal.kind is {self.goal.kind!r}, which goes with the small encoder: expected none.")

    def to_json(self) -> dict[str, Any]:
        return {"format": "dexloop-controller", "version": 1, **asdict(self)}

    @staticmethod
    def from_json(data: dict[str, Any], where: str) -> ControllerConfig:
        """Raises BadInput where ``data`` is not a controller's configuration of this version."""
        if data.get("format") != "dexloop-controller" or data.get("version") != 1:
            raise BadInput(f"{where} is not a controller's config.json of version 1: train anew, or choose another.")
        kind = (data.get("encoder") or {}).get("kind")
        if kind not in ENCODERS:
            raise BadInput(f"{where} names encoder {kind!r}: expected one of {', '.join(ENCODERS)}.")
        encoder = _built(PaperEncoderConfig if kind == "paper" else SmallEncoderConfig, data["encoder"], where)
        rest = {key: value for key, value in data.items() if key not in ("format", "version", "encoder")}
        return _built(ControllerConfig, {**rest, "encoder": encoder}, where)


def _built(kind: Any, data: dict[str, Any], where: str) -> Any:
    hints = get_type_hints(kind)
    known = {f.name for f in fields(kind)}
    strange = sorted(set(data) - known)
    if strange:
        raise BadInput(f"{where} has unknown settings {', '.join(strange)}: it was written by another version.")
    values = {}
    for name, value in data.items():
        hint = hints[name]
        if is_dataclass(hint) and isinstance(value, dict):
            value = _built(hint, value, where)
        values[name] = tuple(value) if isinstance(value, list) else value
    try:
        return kind(**values)
    except TypeError as error:
        raise BadInput(f"{where} does not describe a controller ({error}).") from error


_PAPER = ControllerConfig(
    preset="paper",
    encoder=PaperEncoderConfig(),
    network=NetworkConfig(width=1024, layers=12, heads=8, dropout=0.1),
    objective=ObjectiveConfig(kind="ddim", sample_steps=16, predict="noise", clip=1.0),
    action=ActionConfig(space="joints", horizon=64, tokens=64, normal="limits"),
)
PRESETS = {
    # What helped and what did not on two cores: docs/decisions/95-small-preset.md.
    "small": ControllerConfig(
        preset="small",
        encoder=SmallEncoderConfig(crop=False, wrist=False),
        network=NetworkConfig(width=192),
        objective=ObjectiveConfig(temperature=0.2),
        action=ActionConfig(basis="cosine", tokens=8, nudge_rad=0.03, delay_max=4, fade=8),
    ),
    "paper": _PAPER,
    "paper224": replace(_PAPER, preset="paper224", encoder=PaperEncoderConfig(side=224)),
}
PUBLISHED = replace(
    _PAPER,
    encoder=PaperEncoderConfig(normalize_state=False),
    network=replace(_PAPER.network, norm="centred"),
    objective=replace(_PAPER.objective, spacing="leading"),
)
"""As the authors' checkpoint wants it."""


def preset(name: str) -> ControllerConfig:
    """The preset of that name. Raises BadInput, naming those that there are."""
    if name not in PRESETS:
        raise BadInput(f"there is no preset {name!r}: expected one of {', '.join(PRESETS)}.")
    return PRESETS[name]


def with_objective(config: ControllerConfig, kind: Literal["ddim", "flow"]) -> ControllerConfig:
    """The same controller under the other objective: only how it is learnt and sampled changes."""
    if config.objective.kind == kind:
        return config
    steps = 16 if kind == "ddim" and config.preset != "small" else 8
    return replace(config, objective=replace(config.objective, kind=kind, sample_steps=steps))
