"""The planner and the policy that a trial's settings name. Each process makes them once and keeps them."""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...train.views import Observation
from ..chunks import ChunkPolicy
from ..planner.base import Planner
from ..planner.vlm_config import VlmConfig
from .oracle import OraclePlanner, Truth
from .values import TrialSettings

if TYPE_CHECKING:
    from ...hardware.twin.third_party import ObjectLibrary
    from ...train.controller.policy import Controller
    from ..planner.vlm import VlmPlanner

Array = NDArray[np.float64]


class WithoutDepth:
    """A policy that is shown pictures whose depth is invalid throughout, as if its camera measured none.

    The ablation "depth off": planner, tracker and monitor keep theirs. A controller whose geometry comes from depth
    then knows where its window is and nothing of the target's place or shape: the figure says what depth is worth to
    *this* policy, not what one that was trained without it would do.
    """

    def __init__(self, policy: ChunkPolicy) -> None:
        self._policy = policy

    @property
    def late_most(self) -> int:
        return self._policy.late_most

    @property
    def cameras(self) -> frozenset[str]:
        return self._policy.cameras

    def start(self, observation: Observation) -> None:
        self._policy.start(_blind(observation))

    def again(self, observation: Observation) -> None:
        self._policy.again(_blind(observation))

    def chunk(self, observation: Observation, left: Array | None = None, late: int = 0) -> Array:
        return self._policy.chunk(_blind(observation), left, late)


def _blind(observation: Observation) -> Observation:
    return replace(observation, depth_m={name: np.zeros_like(depth) for name, depth in observation.depth_m.items()})


def make_policy(settings: TrialSettings, seed: int) -> tuple[ChunkPolicy, float]:
    """The controller as ``settings`` want it sampled, and the rate of its commands, Hz."""
    from ...train.controller.policy import ControllerPolicy

    policy = ControllerPolicy(_controller(settings.policy, settings.temperature, settings.sample_steps), seed)
    return policy, policy.config.action.rate_hz


@lru_cache(maxsize=2)
def _controller(folder: str, temperature: float | None, sample_steps: int | None) -> Controller:
    from ...train.controller.checkpoint import load_controller

    controller = load_controller(Path(folder))
    objective = controller.config.objective  # how it acts, not what it learnt
    if temperature is not None:
        objective = replace(objective, temperature=temperature)
    if sample_steps is not None:
        objective = replace(objective, sample_steps=sample_steps)
    controller.config = replace(controller.config, objective=objective)
    return controller


def make_planner(settings: TrialSettings, truth: Truth, wanted: Sequence[int]) -> Planner:
    """The planner that ``settings`` name. Raises what :func:`.vlm.connect` raises where its server does not answer."""
    if settings.planner == "oracle":
        return OraclePlanner(truth, wanted)
    if settings.vlm is not None:
        return _vlm(settings.vlm)
    from ..planner.offline import OfflinePlanner

    return OfflinePlanner()


@lru_cache(maxsize=1)
def _vlm(config: VlmConfig) -> VlmPlanner:
    from ..planner.vlm import connect

    planner = connect(config)
    atexit.register(planner.close)
    return planner


def still_there(settings: TrialSettings) -> None:
    """Raises PlannerError where the planner's server has gone. What failed meanwhile says nothing about the system:
    it is no result, and is tried again."""
    if settings.vlm is not None:
        _vlm(settings.vlm).self_test()


def make_library(settings: TrialSettings, split: str) -> ObjectLibrary | None:
    """Other people's objects, all of them in ``split``: nobody here trained on any. None where our own are meant."""
    return _library(settings.objects, settings.objects_unit, split) if settings.objects else None


@lru_cache(maxsize=1)
def _library(folder: str, unit: str, split: str) -> ObjectLibrary:
    from ...hardware.twin.third_party import LibraryConfig, ObjectLibrary

    return ObjectLibrary(folder, LibraryConfig(unit, split=split))
