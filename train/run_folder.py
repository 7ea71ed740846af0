"""A run on disk: its settings, metrics, curves, policies, and the states to go on from. Nothing is pickled.

runs/<name>/settings.json, config.json, data.json   how it learns, what it is, what it saw
            metrics.jsonl, curves.png               one line per step and per validation; a picture of them
            checkpoints/step_000500/                the last two states of training
            best/, last/                            policies: the averaged weights, best by validation and newest
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ..datasets.layout import crc32
from ..hardware.errors import BadInput, DatasetError, StorageError

SETTINGS, CONFIG, DATA = "settings.json", "config.json", "data.json"
METRICS, CURVES = "metrics.jsonl", "curves.png"
STATE, SUM = "training_state.pt", "training_state.json"
KEEP = 2
State = dict[str, Any]


class RunFolder:
    """An existing run. Holds its lock until the process ends or :meth:`close`: one run is trained by one program."""

    def __init__(self, path: Path, lock: bool = True) -> None:
        self.path = path
        self._lock = (path / ".lock").open("a") if lock else None
        try:
            if self._lock is not None:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BadInput(f"{path} is being trained by another process: wait for it, or start another run.") from error

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()

    # -- making and finding ----------------------------------------------------------------------------------------

    @staticmethod
    def create(path: Path, documents: dict[str, dict[str, Any]], state: State) -> RunFolder:
        """A new run with its first state. It appears at ``path`` whole or not at all."""
        refuse_existing(path)
        aside = path.with_name(f".{path.name}.new")
        try:
            if aside.exists():  # of a program that was killed before it had begun
                shutil.rmtree(aside)
            aside.mkdir(parents=True)
            for name, document in documents.items():
                (aside / name).write_text(json.dumps(document, indent=2) + "\n")
            (aside / METRICS).touch()
            RunFolder(aside, lock=False).save_state(state, 0)
            aside.rename(path)
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise StorageError(f"{path} cannot be made ({error}): choose another --out.") from error
        return RunFolder(path)

    @staticmethod
    def find(parent: Path, name: str | None) -> Path:
        """The run ``name``, or the newest one in ``parent``. Raises BadInput where there is none."""
        runs = [path.parent for path in parent.glob(f"*/{SETTINGS}")] if parent.is_dir() else []
        if name is None and runs:
            return max(runs, key=lambda path: (path / METRICS).stat().st_mtime if (path / METRICS).exists() else 0.0)
        if name is not None and parent / name in runs:
            return parent / name
        have = f"there are {', '.join(sorted(path.name for path in runs))}" if runs else "there are none"
        wanted = f"the run {name!r}" if name else "a run"
        raise BadInput(f"--resume did not find {wanted} in {parent}: {have}; leave --resume out.")

    def document(self, name: str) -> dict[str, Any]:
        """One of its JSON files. Raises DatasetError where it is damaged."""
        try:
            data = json.loads((self.path / name).read_text())
        except (OSError, ValueError) as error:
            raise DatasetError(f"{self.path / name} cannot be read ({error}): start a new run.") from error
        if not isinstance(data, dict):
            raise DatasetError(f"{self.path / name} holds no JSON object: start a new run.")
        return data

    # -- metrics ---------------------------------------------------------------------------------------------------

    def append(self, line: dict[str, Any]) -> None:
        """One line of metrics, on disk as far as this process is concerned when it returns."""
        try:
            with (self.path / METRICS).open("a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise StorageError(f"{self.path / METRICS} cannot be written ({error}): free some space.") from error

    def metrics(self) -> list[dict[str, Any]]:
        return list(_lines(self.path / METRICS))

    # -- states ----------------------------------------------------------------------------------------------------

    def save_state(self, state: State, step: int) -> None:
        """Keep ``state`` (tensors, numbers, text) as that after ``step`` steps. The two newest are kept."""
        parent = self.path / "checkpoints"
        final, aside = parent / f"step_{step:06d}", parent / ".new"
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            with (aside / STATE).open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            checksum = {"step": step, "bytes": (aside / STATE).stat().st_size, "crc32": crc32(aside / STATE)}
            (aside / SUM).write_text(json.dumps(checksum) + "\n")
            if final.exists():  # the same step again, after a damaged one was passed over
                shutil.rmtree(final)
            aside.rename(final)
            for old in self._states()[KEEP:]:
                shutil.rmtree(old)
        except (OSError, RuntimeError) as error:  # torch's writer says RuntimeError when the disk is full
            shutil.rmtree(aside, ignore_errors=True)
            raise StorageError(
                f"the checkpoint {final} cannot be written ({error}): free some space and --resume; the one before it "
                "is whole."
            ) from error

    def newest_state(self) -> tuple[State, int, list[str]]:
        """(state, its step, a sentence about each damaged checkpoint that was passed over). Raises DatasetError where
        no checkpoint is whole."""
        problems: list[str] = []
        for folder in self._states():
            try:
                state, step = _read_state(folder)
            except DatasetError as error:
                problems.append(str(error))
                continue
            return state, step, problems
        said = " ".join(problems) or "It holds no checkpoint."
        raise DatasetError(f"{self.path} cannot be resumed: {said} Start a new run, or --init {self.path / 'best'}.")

    def go_on_from(self, step: int) -> None:
        """Forget the metrics after ``step``, and set newer checkpoints aside, which are damaged."""
        for folder in self._states():
            if int(folder.name.removeprefix("step_")) > step:
                aside = folder.with_name(f"damaged_{folder.name}")
                shutil.rmtree(aside, ignore_errors=True)
                folder.rename(aside)
        kept = [line for line in _lines(self.path / METRICS) if line["step"] <= step]
        temporary = self.path / f".{METRICS}.tmp"
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        temporary.replace(self.path / METRICS)

    def _states(self) -> list[Path]:
        """Newest first."""
        return sorted((self.path / "checkpoints").glob("step_*"), key=lambda path: path.name, reverse=True)


def refuse_existing(path: Path) -> None:
    """Raises BadInput where there is something at ``path`` already."""
    if path.exists():
        raise BadInput(f"{path} exists already: add --resume to go on with it, or choose another --name.")


def _read_state(folder: Path) -> tuple[State, int]:
    path = folder / STATE
    try:
        told = json.loads((folder / SUM).read_text())
        # torch does not check the sums inside of its own files.
        if path.stat().st_size != told["bytes"] or crc32(path) != told["crc32"]:
            raise DatasetError(f"{path} is damaged: its length or checksum is not that of {SUM}.")
        return torch.load(path, map_location="cpu", weights_only=True), int(told["step"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise DatasetError(f"{path} is damaged ({error}).") from error


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Whole lines; one that a kill cut off at the end is left out. Raises DatasetError for damage elsewhere."""
    text = path.read_text() if path.exists() else ""
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            return
        try:
            yield json.loads(line)
        except ValueError as error:
            raise DatasetError(f"{path} is damaged in line {number} ({error}): remove that line.") from error
