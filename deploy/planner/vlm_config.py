"""What the vlm planner is told: where its server is, how long to wait for it, and what to believe of its answers."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from ...hardware.errors import BadInput

BoxConvention = Literal["auto", "pixels", "thousand"]
Structured = Literal["schema", "object", "text"]


@dataclass(frozen=True)
class VlmConfig:
    """One OpenAI-compatible endpoint (vLLM, Ollama, DashScope, ...) and its model."""

    base_url: str = "http://127.0.0.1:8000/v1"
    model: str = "Qwen2.5-VL-7B-Instruct"
    api_key_env: str = ""  # environment variable that holds the key; empty: the server wants none
    timeout_s: float = 30.0  # of one HTTP request, from its first byte out to its last byte in
    total_s: float = 90.0  # of one planner request, with its retries, waits and the one re-ask
    retries: int = 3  # after 429, 5xx, a timeout or a lost connection
    backoff_s: float = 0.5  # the first wait; doubled each time
    backoff_max_s: float = 20.0  # no wait is longer, whatever Retry-After says
    max_tokens: int = 512  # of one answer; a model that thinks aloud needs more
    structured: Structured = "schema"  # what to ask of the server; less where it refuses
    box_convention: BoxConvention = "auto"  # auto: what the self-test finds
    min_self_test_iou: float = 0.6  # mean IoU over the self-test's squares below which the planner refuses to work
    min_image_tokens: int = 1024  # visual tokens (patches of 28 or 32 pixels) of one picture
    max_image_tokens: int = 2048
    min_box_share: float = 1e-4  # of the head picture's area
    max_box_share: float = 0.5
    min_depth_share: float = 0.2  # of the box's pixels must have depth
    min_above_table_m: float = 0.003  # how much nearer than the table's plane some of the box must be; 0 = any
    log: Path | None = None  # folder for every prompt, picture and answer

    def __post_init__(self) -> None:
        self._check_endpoint()
        for name in ("timeout_s", "total_s", "backoff_s", "backoff_max_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise BadInput(f"vlm.{_option(name)} is {value}: expected a positive number of seconds.")
        if self.total_s < self.timeout_s:
            raise BadInput(
                f"vlm.total-s is {self.total_s}, vlm.timeout-s {self.timeout_s}: expected a total that holds at least "
                "one request; raise the one or lower the other."
            )
        if self.retries < 0:
            raise BadInput(f"vlm.retries is {self.retries}: expected 0 or more.")
        if self.max_tokens < 32:
            raise BadInput(
                f"vlm.max-tokens is {self.max_tokens}: expected at least 32, which the shortest answer needs."
            )
        if not 1 <= self.min_image_tokens <= self.max_image_tokens <= 16384:
            raise BadInput(
                f"vlm.min-image-tokens is {self.min_image_tokens}, vlm.max-image-tokens {self.max_image_tokens}: "
                "expected 1 <= min <= max <= 16384."
            )
        if self.max_image_tokens < 1.2 * self.min_image_tokens:
            raise BadInput(
                f"vlm.min-image-tokens is {self.min_image_tokens}, vlm.max-image-tokens {self.max_image_tokens}: "
                "expected a maximum at least 1.2 times the minimum, or no size between them keeps a picture's shape."
            )
        for name in ("min_self_test_iou", "min_box_share", "max_box_share", "min_depth_share"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise BadInput(f"vlm.{_option(name)} is {value}: expected 0 to 1.")
        if self.min_box_share >= self.max_box_share:
            raise BadInput(
                f"vlm.min-box-share is {self.min_box_share}, vlm.max-box-share {self.max_box_share}: expected less."
            )
        if not (math.isfinite(self.min_above_table_m) and self.min_above_table_m >= 0):
            raise BadInput(f"vlm.min-above-table-m is {self.min_above_table_m}: expected 0 or more metres.")

    def _check_endpoint(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.username or parts.password:
            raise BadInput(
                "vlm.base-url carries a user or password: expected an address alone. Put the key into an environment "
                "variable and name it with --vlm.api-key-env."
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadInput(
                f"vlm.base-url is {self.base_url!r}: expected an http or https address as the server says, for example "
                "http://127.0.0.1:8000/v1 (vLLM) or http://127.0.0.1:11434/v1 (Ollama)."
            )
        if not self.model.strip():
            raise BadInput("vlm.model is empty: expected the name under which the server offers its model.")

    def api_key(self) -> str:
        """The key, or "" where the server wants none. Raises BadInput where the named variable is not set."""
        if not self.api_key_env:
            return ""
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise BadInput(
                f"vlm.api-key-env names {self.api_key_env}, which is not set: export {self.api_key_env} with the key."
            )
        return key


def _option(name: str) -> str:
    return name.replace("_", "-")
