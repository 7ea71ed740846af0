"""Which encoder a configuration names."""

from __future__ import annotations

from typing import Any

from .config import ControllerConfig, SmallEncoderConfig


def encoder(config: ControllerConfig) -> Any:
    """The encoder module (:class:`.parts.Encoder`) of ``config``."""
    if isinstance(config.encoder, SmallEncoderConfig):
        from .small import SmallEncoder

        return SmallEncoder(config.encoder, config.network.width, config.goal)
    from .paper import PaperEncoder

    return PaperEncoder(config.encoder, config.network.width)
