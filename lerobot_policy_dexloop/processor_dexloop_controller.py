"""Pre- and post-processing: LeRobot's own steps, none of which changes a number."""

from __future__ import annotations

from typing import Any

from lerobot.processor import PolicyProcessorPipeline, make_default_pre_post_processors

from .configuration_dexloop_controller import DexloopControllerConfig


def make_dexloop_controller_pre_post_processors(
    config: DexloopControllerConfig, dataset_stats: dict[str, dict[str, Any]] | None = None
) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]:
    """Rename, batch, device; then back to the CPU. The normalisers are there because LeRobot configures them by name
    when it resumes; they map everything onto itself and hold no statistics."""
    return make_default_pre_post_processors(config, None)
