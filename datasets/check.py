"""Finds every kind of damage in a data set and says what to do about it."""

from __future__ import annotations

import os
from pathlib import Path

from ..hardware.errors import DatasetError
from . import transaction as tx
from .layout import FILES_PER_CHUNK, is_dataset, read_json, video_file
from .reader import DatasetReader
from .transaction import INFO


def assert_appendable(root: Path) -> None:
    """Raise DatasetError unless an episode can be added to ``root`` without hiding damage.

    Quick (well under a second for 1000 episodes): totals, the number, names and sizes of all files, the newest
    episode's entry, an unfinished change. ``dataset check`` looks at everything.
    """
    unfinished = tx.pending(root)
    if unfinished:
        raise DatasetError(f"{root} holds an unfinished {unfinished}: run `dataset repair` before recording to it.")
    if not is_dataset(root):
        return
    reader = DatasetReader(root)
    total = len(reader)
    folders = ["data", "meta/episodes", *(f"videos/{key}" for key in reader.schema.video_keys)]
    for folder in folders:
        ending = ".mp4" if folder.startswith("videos") else ".parquet"
        found = _files(root / folder)
        wanted = {f"chunk-{i // FILES_PER_CHUNK:03d}/file-{i % FILES_PER_CHUNK:03d}{ending}" for i in range(total)}
        problems = [f"{name} is missing" for name in sorted(wanted - set(found))]
        problems += [f"{name} belongs to no episode" for name in sorted(set(found) - wanted)]
        problems += [f"{name} is empty" for name in sorted(wanted & set(found)) if found[name] == 0]
        if problems:
            more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
            raise DatasetError(f"{root} is damaged: {folder}/{problems[0]}{more}. Run `dataset check`, then `repair`.")
    frames = reader.meta(total - 1).start + reader.meta(total - 1).rows if total else 0
    if frames != read_json(root, INFO)["total_frames"]:
        raise DatasetError(
            f"{root} is damaged: {INFO} counts other frames than its last episode. Run `dataset repair`."
        )


def _files(folder: Path) -> dict[str, int]:
    """Relative name -> size of every file two levels down."""
    found = {}
    if folder.is_dir():
        for chunk in os.scandir(folder):
            if chunk.is_dir():
                for file in os.scandir(chunk.path):
                    found[f"{chunk.name}/{file.name}"] = file.stat().st_size
    return found


__all__ = ["assert_appendable", "video_file"]
