"""Mends a data set without deleting anything: finished episodes stay, what cannot be read moves to ``damaged/``.

In order: an interrupted change is completed from its redo log; every episode whose rows and videos are whole is kept,
also one that only its files still know of; the rest moves aside, and indices, statistics and totals are made to
follow. Journals of episodes that never got into the set are listed, or added on request.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..hardware.errors import BadInput, DatasetError, DexLoopError
from . import stats as st
from . import transaction as tx
from .assemble import Item, assemble
from .check import JOURNAL_ENDING, Report, read_entries, run_check
from .check_episode import EpisodeCheck, check_rows, check_video
from .episode import EpisodeInfo
from .home import RAW, journals_dir, raw_file
from .layout import (
    CRC_COLUMN,
    DAMAGED,
    DATA_PATTERN,
    INFO_COLUMN,
    OWN,
    SOURCE_COLUMN,
    crc32,
    data_file,
    episode_file,
    info_from_text,
    is_dataset,
    numpy_columns,
    place,
    read_json,
    read_tasks,
    stats_of_row,
)
from .reader import EpisodeMeta, read_frames, read_parquet
from .schema import FILES_PER_CHUNK, INDEX_COLUMNS, SUCCESS, Column, Schema, features
from .schema_file import derive_schema, feature_difference
from .transaction import INFO
from .writer import DatasetWriter


@dataclass
class RepairReport:
    """What was done. ``check`` is the state afterwards."""

    root: Path
    actions: list[str] = field(default_factory=list)
    kept: int = 0
    lost: list[str] = field(default_factory=list)  # episodes that could not be read, and where their files are
    journals: list[Path] = field(default_factory=list)  # recordings that are not in the set yet
    check: Report | None = None

    def __str__(self) -> str:
        lines = [f"{self.root}: {self.kept} episodes kept, {len(self.lost)} not recoverable"]
        lines += [f"  {text}" for text in (*self.actions, *self.lost)]
        for journal in self.journals:
            lines.append(f"  {journal.name} holds a recording that is not in the set: add it with --recover")
        return "\n".join([*lines, str(self.check)])


def repair(
    root: Path, recover: bool = False, rate_hz: float = 20.0, probe: tx.Probe = lambda step: None
) -> RepairReport:
    """Mend the data set at ``root``; with ``recover`` also add the recordings that its journals hold.

    ``rate_hz`` is the rate of a set that has no finished episode yet to tell it.

    Raises BadInput where there is none or it is another's, DatasetError where another process writes it.
    """
    if not root.is_dir():
        raise BadInput(f"there is no data set at {root}: record one with `collect`.")
    report = RepairReport(root)
    with tx.lock(root):
        aside = _Aside(root, report)
        _finish_change(root, report, aside, probe)
        if (root / tx.STAGING).exists():
            aside.move(tx.STAGING, "was never finished and counted for nothing")
        if any((root / folder).exists() for folder in ("meta", "data", "videos")):
            state = run_check(root)
            if not state.ok or not (root / OWN).exists():
                _rebuild(root, report, aside, probe)
    if recover:
        recover_journals(root, report, rate_hz)
    report.journals = pending_journals(root)
    report.check = run_check(root)
    report.kept = report.check.episodes
    return report


def pending_journals(root: Path) -> list[Path]:
    """Journals in the set's ``journals/`` folder, oldest name first."""
    return sorted(journals_dir(root).glob(f"*{JOURNAL_ENDING}"))


def recover_journals(root: Path, report: RepairReport, rate_hz: float = 20.0) -> None:
    """Add what the journals hold, labelled as they were. A journal whose episode is in the set already is moved aside.

    A set without any episode takes its rate from ``rate_hz``.
    """
    from .align import align
    from .journal import compact
    from .schema import schema_of

    aside = _Aside(root, report)
    for journal in pending_journals(root):
        relative = str(journal.relative_to(root))
        if journal.name in _sources(root):
            aside.move(relative, "is in the data set already")
            continue
        try:
            rate = float(read_json(root, INFO)["fps"]) if is_dataset(root) else rate_hz
            episode = align(journal, rate)
            with DatasetWriter(root, schema_of(episode)) as writer:
                index = writer.append(episode, source=journal.name)
            (root / RAW).mkdir(exist_ok=True)
            compact(journal, raw_file(root, journal.name))
        except DexLoopError as error:
            report.actions.append(f"{journal.name} could not be added: {error}")
            continue
        report.actions.append(f"{journal.name} is now episode {index} ({len(episode.columns[SUCCESS])} rows)")
        aside.move(relative, f"is in the data set as episode {index}")


def _sources(root: Path) -> set[str]:
    return {str(row.get(SOURCE_COLUMN)) for _, row in read_entries(root) if not isinstance(row, str)}


class _Aside:
    """Moves files to ``damaged/<time>/``, keeping their relative paths."""

    def __init__(self, root: Path, report: RepairReport) -> None:
        self._root, self._report = root, report
        stamp = time.strftime("%Y%m%d-%H%M%S")
        taken = len(list((root / DAMAGED).glob(f"{stamp}*"))) if (root / DAMAGED).exists() else 0
        self.folder = root / DAMAGED / (f"{stamp}-{taken}" if taken else stamp)

    def move(self, relative: str, why: str) -> None:
        source, target = self._root / relative, self.folder / relative
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
            self._report.actions.append(f"moved {relative} to {self.folder.relative_to(self._root)}/: it {why}")

    def copy(self, relative: str) -> None:
        """For files that are about to be written anew."""
        source, target = self._root / relative, self.folder / relative
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def _finish_change(root: Path, report: RepairReport, aside: _Aside, probe: tx.Probe) -> None:
    unfinished = tx.pending(root)
    if unfinished is None:
        return
    try:
        tx.finish(root, probe)
        report.actions.append(f"completed the {unfinished}")
    except (DatasetError, ValueError, KeyError) as error:
        report.actions.append(f"the {unfinished} cannot be completed ({error})")
        aside.move(tx.COMMIT, "holds what is left of a change")


def _rebuild(root: Path, report: RepairReport, aside: _Aside, probe: tx.Probe) -> None:
    """Keep every episode that is whole, in order; move everything else aside; make the rest follow."""
    schema, described = _schema(root)
    tasks, total = _tasks(root), _total(root)
    entries: dict[int, tuple[str, dict[str, Any]]] = {}
    for file, entry in read_entries(root):
        if isinstance(entry, str):
            aside.move(file, entry)
        else:
            index = int(entry["episode_index"])
            if index not in entries or file == episode_file(index):  # its own file before a copy elsewhere
                entries[index] = (file, entry)
    items: list[Item] = []
    kept_files: set[Path] = set()
    for index in sorted({*entries, *_data_indices(root)}):
        try:
            file, row = entries.get(index, ("", None))
            item = _salvage(root, schema, described, tasks, index, row)
            item = replace(item, untouched=item.untouched and file == episode_file(index))
        except (DatasetError, KeyError, IndexError, TypeError, ValueError) as error:
            if index in entries or index < total:  # else it never was an episode, only a stray file
                report.lost.append(f"episode {index} cannot be kept: {error}")
            aside.copy(episode_file(index))
            continue
        if item.meta.index != len(items):
            report.actions.append(f"episode {item.meta.index} is now episode {len(items)}")
        items.append(item)
        kept_files |= {item.meta.data_path, *(path for path, _ in item.meta.videos.values())}
    for folder in ("data", "videos"):
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and path not in kept_files:
                aside.move(str(path.relative_to(root)), "belongs to no episode that is whole")
    if not items:
        for path in sorted(path for path in (root / "meta").rglob("*") if path.is_file()):
            aside.move(str(path.relative_to(root)), "described no episode that is whole")
        _remove_empty(root)
        return
    change = tx.Transaction(root, "repair", probe)
    assemble(change, schema, described, tasks, items)
    change.commit()
    report.actions.append(f"wrote totals and statistics of {len(items)} episodes anew")


def _remove_empty(root: Path) -> None:
    for folder in ("meta", "data", "videos"):
        for path in sorted((root / folder).rglob("*"), reverse=True):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        if (root / folder).is_dir() and not any((root / folder).iterdir()):
            (root / folder).rmdir()


def _schema(root: Path) -> tuple[Schema, dict[str, Any]]:
    """Schema and ``info.json`` features from whichever of the two files is left."""
    attempts: list[Callable[[], Schema]] = [
        lambda: Schema.from_json(read_json(root, OWN), str(root / OWN)),
        lambda: derive_schema(read_json(root, INFO)),
    ]
    reasons = []
    for attempt in attempts:
        try:
            schema = attempt()
        except DatasetError as error:
            reasons.append(str(error))
            continue
        try:
            info = read_json(root, INFO)
            if not feature_difference(schema, info):
                return schema, info["features"]
        except DatasetError:
            pass  # info.json is lost: it follows from the schema
        else:
            continue
        return schema, features(schema)
    raise DatasetError(
        f"neither {OWN} nor {INFO} of {root} can be used ({'; '.join(reasons)}): copy both from another data set of "
        "the same cameras and rate, then run `dataset repair` again."
    )


def _tasks(root: Path) -> list[str]:
    """The tasks by index: from their file, or from what the episodes say."""
    try:
        return list(dict.fromkeys(read_tasks(root)))
    except DatasetError:
        return list(dict.fromkeys(row["tasks"][0] for _, row in read_entries(root) if not isinstance(row, str)))


def _total(root: Path) -> int:
    """How many episodes ``info.json`` counts; 0 where it is lost."""
    try:
        return int(read_json(root, INFO)["total_episodes"])
    except (DatasetError, KeyError, TypeError, ValueError):
        return 0


def _data_indices(root: Path) -> set[int]:
    """Episodes that have a data parquet in our layout."""
    found = set()
    for path in (root / "data").glob("chunk-*/file-*.parquet"):
        chunk, file = path.parent.name.removeprefix("chunk-"), path.stem.removeprefix("file-")
        if chunk.isdecimal() and file.isdecimal():
            found.add(int(chunk) * FILES_PER_CHUNK + int(file))
    return found


def _salvage(
    root: Path, schema: Schema, described: dict[str, Any], tasks: list[str], index: int, row: dict[str, Any] | None
) -> Item:
    """The episode as an item to keep. Raises DatasetError, in words, where its rows or a video are not whole."""
    known = row or _invented_row(root, schema, tasks, index)
    ours = _is_ours(root, index, known)
    episode = EpisodeCheck(root, schema, described, tasks, index, int(known["dataset_from_index"]), known, ours)
    problems = [*check_rows(episode)]
    for key in schema.video_keys:
        problems += check_video(episode, key, deep=False)
    fatal = [found for found in problems if found.severity == "error" and not _mends_itself(found.message)]
    # What only a person can judge (a NaN, an action out of limits) stays, and `check` goes on naming it.
    fatal = [found for found in fatal if not found.remedy.startswith("look at it")]
    if fatal:
        raise DatasetError("; ".join(f"{found.file} {found.message}" for found in fatal))
    columns = _columns(root / episode.data_file, schema, index)
    info = _description(known, columns, schema)
    stats = stats_of_row(known)
    videos = {
        key: (root / episode.video_file(key), float(known[f"videos/{key}/from_timestamp"])) for key in schema.video_keys
    }
    numeric = {key for key, array in columns.items() if array.dtype != object}
    complete = not (numeric | set(videos)) - set(stats)
    if not complete:
        stats = _statistics(columns, videos, schema)
    start, source = int(known["dataset_from_index"]), str(known.get(SOURCE_COLUMN) or "")
    meta = EpisodeMeta(index, episode.rows, start, info, source, root / episode.data_file, videos)
    task = int(columns["task_index"][0])
    whole = row is not None and complete and not problems and info == _stored(row) and ours
    return Item(meta, root, lambda: columns, stats, info, task, alone=ours, untouched=whole)


def _is_ours(root: Path, index: int, row: dict[str, Any]) -> bool:
    """Whether the episode's files are its own, one each; another tool may have put several into one."""
    parts = [
        "data",
        *(
            name.removesuffix("/chunk_index")
            for name in row
            if name.startswith("videos/") and name.endswith("/chunk_index")
        ),
    ]
    if any((row[f"{part}/chunk_index"], row[f"{part}/file_index"]) != place(index) for part in parts):
        return False
    path, wanted = root / data_file(index), row.get(CRC_COLUMN.format(key="data"))
    return (root / OWN).exists() or (path.exists() and crc32(path) == wanted)


def _mends_itself(message: str) -> bool:
    """Indices and times follow from the episode's place; they are written anew when it moves."""
    return message.startswith(("frame_index", "index", "task_index", "timestamp"))


def _columns(path: Path, schema: Schema, index: int) -> dict[str, Column]:
    columns = numpy_columns(read_parquet(path), (*schema.columns, *INDEX_COLUMNS))
    own = columns["episode_index"] == index
    return {key: array[own] for key, array in columns.items()}


def _invented_row(root: Path, schema: Schema, tasks: list[str], index: int) -> dict[str, Any]:
    """An entry for an episode whose own is lost, from its rows: only its note and its scene are gone."""
    chunk, file = place(index)
    path = root / DATA_PATTERN.format(chunk_index=chunk, file_index=file)
    table = read_parquet(path, ["episode_index", "index", "task_index"])
    episodes = np.unique(table.column("episode_index").to_numpy())
    task = int(table.column("task_index")[0].as_py()) if table.num_rows else -1
    if list(episodes) != [index] or not 0 <= task < len(tasks):
        raise DatasetError(f"{path.name} does not say which task it shows")
    start = int(table.column("index")[0].as_py())
    row: dict[str, Any] = {"episode_index": index, "tasks": [tasks[task]], "length": table.num_rows}
    row |= {"dataset_from_index": start, "dataset_to_index": start + table.num_rows}
    row |= {"data/chunk_index": chunk, "data/file_index": file}
    for key in schema.video_keys:
        row |= {f"videos/{key}/chunk_index": chunk, f"videos/{key}/file_index": file}
        row[f"videos/{key}/from_timestamp"] = 0.0
    return row


def _stored(row: dict[str, Any]) -> EpisodeInfo | None:
    try:
        return info_from_text(row[INFO_COLUMN])
    except (KeyError, TypeError, ValueError):
        return None


def _description(row: dict[str, Any], columns: dict[str, Column], schema: Schema) -> EpisodeInfo:
    """What is known of the episode; its label as the rows have it."""
    success = {0: False, 1: True}.get(int(columns[SUCCESS][0]))
    stored = _stored(row)
    if stored is not None:
        return replace(stored, success=success)
    return EpisodeInfo(row["tasks"][0], success, "description lost, rebuilt by repair", robot_type=schema.robot_type)


def _statistics(columns: dict[str, Column], videos: dict[str, tuple[Path, float]], schema: Schema) -> st.Stats:
    out = {key: st.column_stats(array) for key, array in columns.items() if array.dtype != object}
    rows = len(columns["index"])
    for key, (path, start_s) in videos.items():
        unit_m = schema.video_size(key)[2]
        first = round(start_s * schema.rate_hz)
        numbers = [first + row for row in st.sample_rows(rows)]
        frames = np.stack(list(read_frames(path, numbers, schema.rate_hz, bool(unit_m))))
        out[key] = st.image_stats(frames if frames.ndim == 4 else frames[..., None], unit_m * 1e3 or 1 / 255)
    return out
