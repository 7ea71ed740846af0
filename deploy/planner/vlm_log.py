"""Every prompt, picture and answer on disk: ``requests.jsonl``, one line each, and ``pictures/``. Never the key."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...hardware.errors import BadInput
from .base import PlannerError

HIDDEN = "[key]"


def without(secret: str, value: Any) -> Any:
    """``value`` with ``secret`` cut out of every string in it: servers quote the key in their refusals."""
    if not secret:
        return value
    if isinstance(value, str):
        return value.replace(secret, HIDDEN)
    if isinstance(value, Mapping):
        return {without(secret, key): without(secret, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without(secret, item) for item in value]
    return value


class RequestLog:
    """``folder`` None: nothing is written. Used by several threads at once."""

    def __init__(self, folder: Path | None, secret: str = "") -> None:
        self._folder = folder
        self._secret = secret
        self._lock = threading.Lock()
        if folder is None:
            return
        try:
            (folder / "pictures").mkdir(parents=True, exist_ok=True)
            with open(folder / "requests.jsonl", "ab"):
                pass
        except OSError as error:
            raise BadInput(
                f"vlm.log is {folder}: {error.strerror}. Expected a folder that can be written to."
            ) from None

    def picture(self, data: bytes) -> str:
        """Keep a JPEG; its path in the log's folder. One file for equal pictures: the first look comes every time."""
        name = f"pictures/{hashlib.sha256(data).hexdigest()[:20]}.jpg"
        if self._folder is None:
            return name
        path = self._folder / name
        with self._lock:
            try:
                if not path.exists():
                    aside = path.with_suffix(".part")
                    aside.write_bytes(data)
                    os.replace(aside, path)  # whole or not at all
            except OSError as error:
                raise self._full(error) from None
        return name

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one line, with the wall time; by one write, so that a line is there whole or not at all."""
        if self._folder is None:
            return
        timed = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **record}
        line = json.dumps(without(self._secret, timed), ensure_ascii=False, default=str) + "\n"
        with self._lock:
            try:
                handle = os.open(self._folder / "requests.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
                try:
                    os.write(handle, line.encode("utf-8", "replace"))
                finally:
                    os.close(handle)
            except OSError as error:
                raise self._full(error) from None

    def _full(self, error: OSError) -> PlannerError:
        return PlannerError(
            f"the planner's log in {self._folder} does not take what is written to it ({error.strerror}): free some "
            "space or run without --vlm.log."
        )
