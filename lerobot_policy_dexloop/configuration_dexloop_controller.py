"""Settings of the policy. The controller is described in DexLoop's own words (``dexloop.train.controller.config``)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from dexloop.datasets.schema import STATE
from dexloop.hardware.errors import BadInput
from dexloop.train.controller.config import ControllerConfig, preset, with_objective
from dexloop.train.settings import DEFAULTS
from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature, PreTrainedConfig
from lerobot.optim import AdamWConfig
from lerobot.optim.schedulers import CosineAnnealingWithWarmupSchedulerConfig

COMMANDS = 13  # 7 arm joints rad, 6 openings
MASK_KEY = "observation.images.{camera}_mask"
"""The target's mask as a picture (1 or 3 channels, bright = target), where no data set is there to give it."""


@PreTrainedConfig.register_subclass("dexloop_controller")
@dataclass
class DexloopControllerConfig(PreTrainedConfig):
    """``--policy.type=dexloop_controller``. Raises BadInput where the settings do not describe a controller."""

    preset: str = "small"
    """small, paper or paper224."""
    objective: str | None = None
    """ddim or flow; None: the preset's."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What is to differ from the preset, by section, e.g. {"action": {"horizon": 64}, "encoder": {"noise": 0.5}}."""
    controller: dict[str, Any] = field(default_factory=dict)
    """The whole controller as it was resolved. Written by the policy; change it through the three above."""

    n_action_steps: int = 8
    """Commands of a chunk that ``select_action`` hands out before it plans anew."""
    seed: int = 0
    """Of everything random in training and sampling. ``--seed`` of the trainer orders the data."""

    failures: bool = False
    """Learn from episodes that are labelled as failed, too."""
    reference_rows: int = 10
    """Training draws the moment at which the attempt began from the first row to this one."""
    fit_episodes: list[int] | None = None
    """Episodes that the action statistics are learnt from. None: all, as LeRobot's own statistics; it does not tell
    a policy which episodes it was given."""
    fit_rows: int = 2048
    """About how many rows the action statistics are learnt from."""
    average: float = 0.999
    """Decay of the moving average of the weights, which is what acts; 0 = no average."""

    lr: float | None = None
    """Largest learning rate; None: the preset's, as in `train controller`."""
    weight_decay: float = 1e-4
    warmup_steps: int | None = None
    """Steps until it is reached; then a half cosine down to 0. None: the preset's."""
    action_feature_names: list[str] | None = None
    """Names of the 13 commands; the trainer fills them in from the data set."""

    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {kind: NormalizationMode.IDENTITY for kind in ("VISUAL", "STATE", "ACTION")}
    )
    """Nothing is normalised outside of the controller."""

    def __post_init__(self) -> None:
        super().__post_init__()
        resolved = self._resolve()
        self.controller = json.loads(json.dumps(resolved.to_json()))  # tuples are lists, as they come back from disk
        if not 1 <= self.n_action_steps <= resolved.action.horizon:
            raise BadInput(f"n_action_steps is {self.n_action_steps}: expected 1 to {resolved.action.horizon}.")
        if self.fit_rows < 2 or self.reference_rows < 0 or not 0 <= self.average < 1:
            raise BadInput(
                f"got fit_rows {self.fit_rows}, reference_rows {self.reference_rows}, average {self.average}: expected "
                "2 or more, 0 or more, and 0 up to less than 1."
            )

    def _resolve(self) -> ControllerConfig:
        start = self.described if self.controller else preset(self.preset)
        if start.preset != self.preset:
            raise BadInput(f"the checkpoint is of preset {start.preset!r}, not {self.preset!r}: train that one anew.")
        if self.objective is not None:
            kinds: dict[str, Literal["ddim", "flow"]] = {"ddim": "ddim", "flow": "flow"}
            if self.objective not in kinds:
                raise BadInput(f"objective is {self.objective!r}: expected {' or '.join(kinds)}.")
            start = with_objective(start, kinds[self.objective])
        return ControllerConfig.from_json(_merged(start.to_json(), self.settings, "settings"), "--policy.settings")

    @property
    def described(self) -> ControllerConfig:
        """The controller."""
        return ControllerConfig.from_json(self.controller, "the policy's controller")

    @property
    def observation_delta_indices(self) -> None:
        return None

    @property
    def action_delta_indices(self) -> list[int]:
        return list(range(self.described.action.horizon))

    @property
    def reward_delta_indices(self) -> None:
        return None

    def get_optimizer_preset(self) -> AdamWConfig:
        lr = DEFAULTS[self.preset].lr if self.lr is None else self.lr
        return AdamWConfig(lr=lr, betas=(0.95, 0.999), weight_decay=self.weight_decay, grad_clip_norm=1.0)

    def get_scheduler_preset(self) -> CosineAnnealingWithWarmupSchedulerConfig:
        steps = DEFAULTS[self.preset].warmup if self.warmup_steps is None else self.warmup_steps
        return CosineAnnealingWithWarmupSchedulerConfig(num_warmup_steps=steps)

    def validate_features(self) -> None:
        """Raises BadInput where state or action is not the robot's."""
        for name, feature in ((STATE, self.robot_state_feature), ("action", self.action_feature)):
            shape = tuple(feature.shape) if feature else None
            if shape != (COMMANDS,):
                raise BadInput(
                    f"{name} has shape {shape}, the controller's robot {(COMMANDS,)}: choose a data set that DexLoop "
                    "recorded or imported."
                )

    def inputs_with_mask(self, camera: str) -> dict[str, PolicyFeature]:
        """``input_features``, with the mask among them, of the size of the camera's picture."""
        inputs: dict[str, PolicyFeature] = dict(self.input_features or {})
        picture = inputs.get(f"observation.images.{camera}")
        if picture is not None:
            size = tuple(picture.shape[-2:])
            inputs[MASK_KEY.format(camera=camera)] = PolicyFeature(FeatureType.VISUAL, (1, *size))
        return inputs


def _merged(data: dict[str, Any], changes: dict[str, Any], where: str) -> dict[str, Any]:
    """``data`` with ``changes``, section by section. Raises BadInput where a section takes no single value."""
    out = dict(data)
    for name, value in changes.items():
        if isinstance(out.get(name), dict):
            if not isinstance(value, dict):
                raise BadInput(f"{where}.{name} is {value!r}: expected its settings, such as {next(iter(out[name]))}.")
            value = _merged(out[name], value, f"{where}.{name}")
        out[name] = value
    return out
