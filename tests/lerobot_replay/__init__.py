"""A LeRobot robot and a LeRobot environment that show a recorded episode, with its masks, and note what is commanded.

Found by LeRobot's tools through ``--robot.discover_packages_path=lerobot_replay`` with this folder on the path.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from dexloop.datasets.reader import DatasetReader
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.robots import Robot, RobotConfig


class Episode:
    """Rows of an episode, as live pictures."""

    def __init__(self, root: str, index: int = 0) -> None:
        self.reader = DatasetReader(Path(root))
        self.joints = self.reader.schema.joints
        data = self.reader.episode(index)
        self.states = data.columns["observation.state"]
        self.actions = data.columns["action"]
        self.masks = self.reader.masks(index)
        self.pictures = {key: self.reader.frames(index, key) for key in self.reader.schema.video_keys}
        self.units = {camera.depth_key: camera.depth_unit_m for camera in self.reader.schema.cameras}

    def row(self, number: int, masks: bool = True) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """State (13,) and pictures by name: colour (H, W, 3) uint8, depth (H, W, 1) m, masks (H, W, 3) uint8."""
        row = min(number, len(self.states) - 1)
        out = {}
        for key, frames in self.pictures.items():
            picture = frames[row]
            name = key.removeprefix("observation.images.")
            out[name] = picture if picture.ndim == 3 else (picture * self.units[key]).astype(np.float32)[..., None]
        if masks:
            out["head_mask"] = np.repeat(self.masks[row][..., None].astype(np.uint8) * 255, 3, 2)
        return self.states[row], out


@RobotConfig.register_subclass("replayed")
@dataclass(kw_only=True)
class ReplayedConfig(RobotConfig):
    dataset: str
    commands: str  # file that the commands are written to
    masks: bool = True


class Replayed(Robot):
    config_class = ReplayedConfig
    name = "replayed"
    is_connected = False
    is_calibrated = True

    def __init__(self, config: ReplayedConfig) -> None:
        super().__init__(config)
        self.config = config
        self.episode = Episode(config.dataset)
        self.cameras: dict[str, Any] = {}
        self.sent: list[list[float]] = []

    @property
    def observation_features(self) -> dict[str, Any]:
        pictures = self.episode.row(0, self.config.masks)[1]
        return dict.fromkeys(self.episode.joints, float) | {name: p.shape for name, p in pictures.items()}

    @property
    def action_features(self) -> dict[str, Any]:
        return dict.fromkeys(self.episode.joints, float)

    def connect(self, calibrate: bool = True) -> None:
        self.is_connected = True

    def calibrate(self) -> None:
        raise AssertionError("a recording needs no calibration")

    def configure(self) -> None:
        raise AssertionError("a recording needs no configuration")

    def get_observation(self) -> dict[str, Any]:
        state, pictures = self.episode.row(len(self.sent), self.config.masks)
        return dict(zip(self.episode.joints, state.tolist(), strict=True)) | pictures

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        self.sent.append([float(action[name]) for name in self.episode.joints])
        return action

    def disconnect(self) -> None:
        self.is_connected = False
        Path(self.config.commands).write_text(json.dumps(self.sent))


class Shown(gym.Env):
    """An environment that shows the episode's rows and rewards staying near its commands."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
    render_mode = "rgb_array"
    task_description = "grasp the cup"

    def __init__(self, dataset: str, steps: int) -> None:
        self.episode = Episode(dataset)
        self._max_episode_steps = steps
        self._row = 0
        self.action_space = gym.spaces.Box(-10, 10, (13,), np.float32)
        self.observation_space = gym.spaces.Dict(
            {
                "agent_pos": gym.spaces.Box(-10, 10, (13,), np.float32),
                "pixels": gym.spaces.Dict({name: box(p) for name, p in self._seen()["pixels"].items()}),
                **{name: box(p) for name, p in self._seen().items() if name.startswith("images.")},
            }
        )

    def _seen(self) -> dict[str, Any]:
        state, pictures = self.episode.row(self._row)
        depth = {name: p for name, p in pictures.items() if name.endswith("_depth")}
        colour = {name: p for name, p in pictures.items() if name not in depth}
        return {"agent_pos": state, "pixels": colour} | {f"images.{name}": p[None, ..., 0] for name, p in depth.items()}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._row = 0
        return self._seen(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        error = float(np.abs(action - self.episode.actions[self._row]).max())
        self._row += 1
        done = self._row >= self._max_episode_steps
        return self._seen(), -error, done, False, {"is_success": False}

    def render(self) -> np.ndarray:
        return self.episode.row(self._row)[1]["head"]


def box(picture: np.ndarray) -> gym.spaces.Box:
    return gym.spaces.Box(0, 255, picture.shape, picture.dtype.type)


gym.register("gym_replayed/replayed", entry_point=Shown)


@EnvConfig.register_subclass("replayed")
@dataclass
class ShownConfig(EnvConfig):
    task: str | None = "replayed"
    dataset: str = ""
    steps: int = 10
    features: dict[str, PolicyFeature] = field(
        default_factory=lambda: {"action": PolicyFeature(FeatureType.ACTION, (13,))}
    )
    features_map: dict[str, str] = field(default_factory=lambda: {"action": "action"})

    @cached_property
    def gym_kwargs(self) -> dict[str, Any]:
        return {"dataset": self.dataset, "steps": self.steps}
