"""Finds every kind of damage in a data set and says what to do about it.

:func:`run_check` looks at everything; :func:`assert_appendable` is the quick look before each recording session.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..hardware.errors import BadInput, DatasetError
from . import stats as st
from . import transaction as tx
from .check_episode import REPAIR, EpisodeCheck, Finding, check_entry, check_rows, check_video
from .home import journals_dir
from .layout import DAMAGED, FILES_PER_CHUNK, OWN, STATS, TASKS, is_dataset, read_json, read_tasks, stats_of_row
from .reader import DatasetReader, read_rows
from .schema import INDEX_COLUMNS, Schema
from .schema_file import derive_schema, feature_difference, read_schema
from .transaction import INFO

JOURNAL_ENDING = ".journal.h5"


@dataclass(frozen=True)
class Report:
    """What a check found. A data set with warnings alone is whole."""

    root: Path
    episodes: int
    frames: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return not any(finding.severity == "error" for finding in self.findings)

    def __str__(self) -> str:
        errors = sum(finding.severity == "error" for finding in self.findings)
        state = "whole" if self.ok else f"damaged ({errors} problem{'s' if errors > 1 else ''})"
        head = f"{self.root}: {state}, {self.episodes} episodes, {self.frames} frames"
        return "\n".join([head, *(f"  {finding}" for finding in self.findings)])


def run_check(root: Path, deep: bool = False) -> Report:
    """Check everything; ``deep`` also decodes every frame.

    Raises BadInput where there is no data set, or one of another schema.
    """
    if not root.is_dir():
        raise BadInput(f"there is no data set at {root}: record one with `collect`.")
    findings = list(_leftovers(root))
    unfinished = tx.pending(root)
    if unfinished:
        message = f"an interrupted change is half done ({unfinished}); the rest is checked once it is complete"
        findings.append(Finding("error", tx.COMMIT, message, REPAIR))
        return Report(root, 0, 0, tuple(findings))
    if not is_dataset(root):
        if any((root / folder).exists() for folder in ("meta", "data", "videos")):
            findings.append(Finding("error", INFO, "is missing", REPAIR))
        return Report(root, 0, 0, tuple(findings))
    try:
        info = read_json(root, INFO)
        total, frames = int(info["total_episodes"]), int(info["total_frames"])
        schema, problems = _schema(root, info)
    except (DatasetError, KeyError, TypeError, ValueError) as error:
        findings.append(Finding("error", INFO, f"cannot be used ({error})", REPAIR))
        return Report(root, 0, 0, tuple(findings))
    findings += problems
    findings += _check_set(root, schema, info, deep)
    return Report(root, total, frames, tuple(findings))


def _leftovers(root: Path) -> Iterator[Finding]:
    owner = tx.held_by(root)
    if owner:
        message = f"process {owner} is writing the set: what is found may be a change under way"
        yield Finding("warning", tx.LOCK, message, "run `dataset check` again when it has ended")
    if (root / tx.STAGING).exists():
        message = "an append or edit was interrupted before it counted; nothing is missing"
        yield Finding("warning", tx.STAGING, message, f"{REPAIR} to clear it away")
    for journal in sorted(journals_dir(root).glob(f"*{JOURNAL_ENDING}")):
        message = "holds an episode that was being recorded, or was recorded and not yet added"
        yield Finding("warning", f"{journal.parent.name}/{journal.name}", message, f"{REPAIR} to recover it")


def _schema(root: Path, info: dict[str, Any]) -> tuple[Schema, list[Finding]]:
    """The schema, also where ``meta/dexloop.json`` is lost or unreadable but the features still say it."""
    if not (root / OWN).exists():
        return read_schema(root), [
            Finding("warning", OWN, "is missing (another tool rewrote the set)", f"{REPAIR} to write it again")
        ]
    try:
        return read_schema(root), []
    except DatasetError as error:
        schema = derive_schema(info)
        if feature_difference(schema, info):
            raise
        return schema, [Finding("error", OWN, f"cannot be used ({error})", REPAIR)]


def _check_set(root: Path, schema: Schema, info: dict[str, Any], deep: bool) -> Iterator[Finding]:
    total = int(info["total_episodes"])
    try:
        tasks = read_tasks(root)
    except DatasetError as error:
        yield Finding("error", TASKS, str(error), REPAIR)
        tasks = []
    ours = (root / OWN).exists()
    entries: dict[int, tuple[str, dict[str, Any]]] = {}
    for file, row_or_error in read_entries(root):
        if isinstance(row_or_error, str):
            yield Finding("error", file, row_or_error, REPAIR)
            continue
        index = int(row_or_error["episode_index"])
        if index in entries:
            yield Finding("error", file, f"describes episode {index}, which {entries[index][0]} does too", REPAIR)
        if index != len(entries) and index not in entries and index < total and not ours:
            yield Finding("error", file, f"lists episode {index} at place {len(entries)}", REPAIR)
        entries[index] = (file, row_or_error)
    parts, start, used = [], 0, set()
    for index in range(total):
        if index not in entries:
            yield Finding("error", "meta/episodes", f"has no entry of it: {INFO} counts {total}", REPAIR, index)
            continue
        file, row = entries[index]
        episode = EpisodeCheck(root, schema, info["features"], tasks, index, start, row, ours)
        used |= {file, episode.data_file, *(episode.video_file(key) for key in schema.video_keys)}
        yield from check_entry(episode, file)
        yield from check_rows(episode)
        for key in schema.video_keys:
            yield from check_video(episode, key, deep)
        parts.append(stats_of_row(row))
        start += episode.rows
    yield from _orphans(root, schema, used, total)
    yield from _totals(info, total, start, tasks)
    yield from _statistics(root, parts, ours)


def read_entries(root: Path) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """(file, row of ``meta/episodes`` or what is wrong with the file), in the order of the files."""
    for path in sorted((root / "meta/episodes").glob("*/*.parquet")):
        file = str(path.relative_to(root))
        try:
            rows = read_rows(path)
            needed = ("episode_index", "length", "tasks", "dataset_from_index", "dataset_to_index")
            missing = [name for name in needed if rows and rows[0].get(name) is None]
        except DatasetError as error:
            yield file, f"cannot be read ({str(error).splitlines()[0]})"
            continue
        if missing or not rows:
            yield file, f"lacks {', '.join(missing)}" if missing else "describes no episode"
            continue
        for row in rows:
            yield file, row


def _orphans(root: Path, schema: Schema, used: set[str], total: int) -> Iterator[Finding]:
    for folder in ("data", "meta/episodes", "videos"):
        for path in sorted((root / folder).rglob("*")):
            file = str(path.relative_to(root))
            if path.is_file() and file not in used:
                message = f"belongs to none of the {total} episodes; LeRobot would read it with them"
                yield Finding("error", file, message, f"{REPAIR}: it takes the file in or moves it to {DAMAGED}/")


def _totals(info: dict[str, Any], total: int, frames: int, tasks: list[str]) -> Iterator[Finding]:
    expected = {"total_frames": frames, "total_tasks": len(tasks), "splits": {"train": f"0:{total}"}}
    for key, value in expected.items():
        if info.get(key) != value:
            yield Finding("error", INFO, f"{key} is {info.get(key)}, the episodes give {value}", REPAIR)
    if len(set(tasks)) != len(tasks):
        yield Finding("error", TASKS, "holds a task twice", REPAIR)


def _statistics(root: Path, parts: list[st.Stats], ours: bool) -> Iterator[Finding]:
    try:
        found = st.from_json(read_json(root, STATS))
    except (DatasetError, AttributeError, TypeError, ValueError) as error:
        yield Finding("error", STATS, f"cannot be used ({error})", REPAIR)
        return
    expected = st.aggregate(parts)
    for key in sorted(set(expected) ^ set(found)):
        yield Finding("error", STATS, f"{'lacks' if key in expected else 'has unknown'} {key}", REPAIR)
    # LeRobot's own edits move indices without their statistics.
    skipped = set() if ours else {spec.key for spec in INDEX_COLUMNS}
    for key in sorted((set(expected) & set(found)) - skipped):
        for name, value in expected[key].items():
            other = found[key].get(name)
            if other is None or other.shape != value.shape or not np.allclose(other, value, rtol=1e-5, atol=1e-7):
                yield Finding("error", STATS, f"{name} of {key} does not follow from the episodes", REPAIR)
                break


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
    if not (root / OWN).exists():
        raise DatasetError(f"{root} was rewritten by another tool ({OWN} is missing): run `dataset repair` first.")
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
    last = reader.meta(total - 1) if total else None
    if (last.start + last.rows if last else 0) != read_json(root, INFO)["total_frames"]:
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
