"""Changes a data set as a whole: label, delete, merge. Each is one transaction: done, or as if never asked for."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..hardware.errors import BadInput, DatasetError
from . import stats as st
from . import transaction as tx
from .assemble import assemble, item_of, move
from .check import assert_appendable, run_check
from .home import RAW, raw_file
from .layout import STATS, dump, episode_file, is_dataset, read_json, stats_of_row
from .reader import DatasetReader, read_rows
from .schema import SUCCESS, Schema, features
from .schema_file import read_schema

_ENCODING = ("video.codec", "video.pix_fmt")


def _nothing(step: str) -> None:
    """The probe of ordinary use."""


def label(root: Path, episode: int, success: bool | None, note: str | None = None, probe: tx.Probe = _nothing) -> None:
    """Say whether an episode succeeded (None = not known), and replace its note where one is given."""
    DatasetReader(root).meta(episode)  # a wrong number is said before anything is locked
    with tx.lock(root):
        assert_appendable(root)
        reader = DatasetReader(root)
        old = reader.meta(episode)
        new = replace(old.info, success=success, note=old.info.note if note is None else note)
        change = tx.Transaction(root, f"label of episode {episode}", probe)
        mine = move(change, reader.schema, item_of(reader, episode, new), episode, old.start, reader.tasks)
        # Of the set's statistics only the label's change: those of the other episodes are read and nothing else.
        labels = [mine if i == episode else _label_stats(root, i) for i in range(len(reader))]
        total = st.from_json(read_json(root, STATS))
        total[SUCCESS] = st.aggregate([{SUCCESS: part[SUCCESS]} for part in labels])[SUCCESS]
        change.stage_text(STATS, dump(st.to_json(total)))
        change.commit()


def _label_stats(root: Path, episode: int) -> st.Stats:
    (row,) = read_rows(root / episode_file(episode), lambda name: name.startswith(f"stats/{SUCCESS}/"))
    return stats_of_row(row)


def delete(root: Path, episodes: Sequence[int], probe: tx.Probe = _nothing) -> int:
    """Remove episodes for good; those behind them move up. Returns how many are left.

    Raises BadInput where one does not exist, or none would be left.
    """
    gone = set(episodes)
    if not gone:
        raise BadInput("no episode to delete was given: write for example --episodes 3 7.")
    reader = DatasetReader(root)
    for episode in sorted(gone):
        reader.meta(episode)
    if len(gone) == len(reader):
        raise BadInput(f"these are all episodes of {root.name}: remove the folder itself if you mean it.")
    with tx.lock(root):
        assert_appendable(root)
        reader = DatasetReader(root)
        items = [item_of(reader, i) for i in range(len(reader)) if i not in gone]
        raw = [raw_file(root, reader.meta(i).source) for i in sorted(gone) if reader.meta(i).source]
        change = tx.Transaction(root, f"deletion of {len(gone)} episodes", probe)
        assemble(change, reader.schema, reader.info["features"], reader.tasks, items)
        change.commit()
        for path in raw:
            path.unlink(missing_ok=True)
        _confirm(root)
    return len(items)


def merge(
    sources: Sequence[Path], target: Path, cameras: Sequence[str] | None = None, probe: tx.Probe = _nothing
) -> int:
    """Write the episodes of several sets, in order, into a new one; how many it has. The sources stay as they are.
    ``cameras``: those that are kept, so that sets which have these in common can be merged. None: all.

    A single source is allowed: it brings a set that another LeRobot tool rewrote back to one file per episode.
    Raises BadInput where ``target`` exists or the sets have different schemas, DatasetError where one is damaged.
    """
    if not sources:
        raise BadInput("no data set to merge was given.")
    if is_dataset(target) or any(path.name not in (tx.STAGING, tx.LOCK) for path in _entries(target)):
        raise BadInput(f"{target} exists already: give the merged data set a new name.")
    if len({source.resolve() for source in sources}) != len(sources):
        raise BadInput("a data set is given twice: its episodes would stand in the merged one twice.")
    readers = [DatasetReader(source) for source in sources]
    schemas = [read_schema(source) if cameras is None else read_schema(source).only(cameras) for source in sources]
    schema = schemas[0]
    kept = features(schema)
    for reader, own in zip(readers, schemas, strict=True):
        report = run_check(reader.root)
        if not report.ok:
            raise DatasetError(f"{report}\nNothing was merged: run `dataset repair` on it first.")
        _same(readers[0], schema, reader, own)
    target.mkdir(parents=True, exist_ok=True)
    with tx.lock(target):
        items = [item_of(reader, i) for reader in readers for i in range(len(reader))]
        change = tx.Transaction(target, f"merge of {len(sources)} data sets", probe)
        described = {key: feature for key, feature in readers[0].info["features"].items() if key in kept}
        assemble(change, schema, described, [], items)
        change.commit()
        _confirm(target)
        for reader in readers:
            _copy_raw(reader, target)
    return len(items)


def _copy_raw(reader: DatasetReader, target: Path) -> None:
    """Bring along the episodes' streams at their own rates, where they were kept."""
    for meta in reader.episodes():
        kept = raw_file(reader.root, meta.source)
        if meta.source and kept.exists():
            (target / RAW).mkdir(exist_ok=True)
            shutil.copy2(kept, raw_file(target, meta.source))


def _entries(folder: Path) -> list[Path]:
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder} is a file: give the merged data set a new name.")
    return list(folder.iterdir()) if folder.exists() else []


def _same(first: DatasetReader, schema: Schema, other: DatasetReader, theirs_schema: Schema) -> None:
    difference = schema.difference(theirs_schema)
    if difference:
        raise BadInput(
            f"{other.root} has another schema than {first.root}: {difference}. They cannot be merged; where only "
            "cameras differ, name those to keep with --cameras."
        )
    for key in schema.video_keys:
        mine, theirs = (reader.info["features"][key]["info"] for reader in (first, other))
        for part in _ENCODING:
            if mine.get(part) != theirs.get(part):
                raise BadInput(f"{key} is {theirs.get(part)} in {other.root} and {mine.get(part)} in {first.root}.")


def _confirm(root: Path) -> None:
    report = run_check(root)
    if not report.ok:
        raise DatasetError(f"{report}\nRun `dataset repair`.")
