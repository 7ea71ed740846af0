"""Puts episodes, from one data set or several, in a new order: what edits, merges and repairs have in common.

Nothing is encoded again. Videos are linked, rows get new indices, statistics and totals follow; episodes that stay
where they are are not touched. The caller's transaction makes all of it one change.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from ..hardware.errors import DatasetError
from . import stats as st
from . import video as vid
from .episode import EncodedVideo, EpisodeInfo
from .layout import (
    OWN,
    STATS,
    TASKS,
    crc32,
    data_file,
    data_table,
    dump,
    episode_file,
    episode_row,
    info_json,
    stats_of_row,
    tasks_table,
    video_file,
    write_table,
)
from .reader import DatasetReader, EpisodeMeta
from .schema import SUCCESS, Column, Schema
from .transaction import INFO, Transaction

LABEL = {None: -1, False: 0, True: 1}


@dataclass(frozen=True)
class Item:
    """An episode to be kept, and where it is now. ``info`` may differ from what is stored: then it is rewritten."""

    meta: EpisodeMeta
    root: Path
    columns: Callable[[], dict[str, Column]]  # read where the episode moves
    stats: st.Stats
    info: EpisodeInfo
    task_index: int  # in its present data set
    alone: bool = True  # its files hold nothing else
    untouched: bool = True  # its files are as they should be


def item_of(reader: DatasetReader, index: int, info: EpisodeInfo | None = None) -> Item:
    """An episode of a data set as it is, or with another description."""
    row, meta = reader.row(index), reader.meta(index)
    ours = (reader.root / OWN).exists() and meta.data_path == reader.root / data_file(index)
    return Item(
        meta,
        reader.root,
        lambda: reader.episode(index).columns,
        stats_of_row(row),
        info or meta.info,
        reader.tasks.index(row["tasks"][0]),
        alone=ours,
        untouched=ours and (info is None or info == meta.info),
    )


def assemble(
    change: Transaction, schema: Schema, features: dict[str, Any], tasks: Sequence[str], items: Sequence[Item]
) -> None:
    """Stage the data set at ``change.root`` so that it holds exactly ``items``, in this order.

    ``tasks`` are kept, in their order, in front of new ones, so that task indices stay.
    """
    names = [*tasks, *dict.fromkeys(item.info.task for item in items if item.info.task not in tasks)]
    start, parts, wanted = 0, [], set()
    for index, item in enumerate(items):
        place = (item.root.resolve(), item.meta.index, item.meta.start, item.task_index)
        stays = place == (change.root.resolve(), index, start, names.index(item.info.task))
        wanted |= {data_file(index), episode_file(index), *(video_file(key, index) for key in schema.video_keys)}
        parts.append(item.stats if stays and item.untouched else move(change, schema, item, index, start, names))
        start += item.meta.rows
    for folder in ("data", "meta/episodes", "videos"):
        for path in (change.root / folder).rglob("*"):
            if path.is_file() and str(path.relative_to(change.root)) not in wanted:
                change.remove(str(path.relative_to(change.root)))
    write_table(tasks_table(names), change.stage(TASKS))
    change.stage_text(STATS, dump(st.to_json(st.aggregate(parts))))
    change.stage_text(OWN, dump(schema.to_json()))
    change.stage_text(INFO, dump(info_json(schema, features, len(items), start, len(names))))


def move(change: Transaction, schema: Schema, item: Item, index: int, start: int, names: list[str]) -> st.Stats:
    """Stage one episode at a new index; its statistics there."""
    checksums = {}
    for key in schema.video_keys:
        source, start_s = item.meta.videos[key]
        target = video_file(key, index)
        if not item.alone:
            path = change.stage(target)
            encoded = cut(source, round(start_s * schema.rate_hz), item.meta.rows, schema, key)
            vid.mux(encoded, schema.rate_hz, path)
            checksums[key] = crc32(path)
            continue
        checksums[key] = crc32(source)
        if not (change.root / target).exists() or not os.path.samefile(source, change.root / target):
            change.stage_link(source, target)
    columns = dict(item.columns())
    columns[SUCCESS] = np.full(item.meta.rows, LABEL[item.info.success], np.int64)
    table, full = data_table(columns, schema, index, start, names.index(item.info.task))
    path = change.stage(data_file(index))
    write_table(table, path)
    checksums["data"] = crc32(path)
    stats = {key: st.column_stats(array) for key, array in full.items() if array.dtype != object}
    stats |= {key: item.stats[key] for key in schema.video_keys}
    row = episode_row(schema, index, start, item.meta.rows, item.info, item.meta.source, stats, checksums)
    write_table(row, change.stage(episode_file(index)))
    return stats


def cut(path: Path, first: int, rows: int, schema: Schema, key: str) -> EncodedVideo:
    """Packets of some frames of a video that holds more than one episode.

    Raises DatasetError where its frames depend on each other: another tool encoded it anew.
    """
    width, height, unit_m = schema.video_size(key)
    packets = []
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            codec, pix_fmt = stream.codec_context.codec.canonical_name, str(stream.codec_context.pix_fmt)
            annex_b = av.bitstream.BitStreamFilterContext(f"{codec}_mp4toannexb", stream)
            for packet in container.demux(stream):
                if packet.size and not packet.is_keyframe:
                    raise DatasetError(
                        f"{path} is not all-intra any more: another tool encoded it anew; it stays whole."
                    )
                packets += [bytes(out) for out in annex_b.filter(packet) if out.size]
    except (av.FFmpegError, AttributeError, IndexError, OSError, ValueError) as error:
        raise DatasetError(f"{path} is not a readable video of ours ({error}): run `dataset check`.") from error
    own = tuple(packets[first : first + rows])
    if len(own) != rows:
        raise DatasetError(f"{path} holds {len(packets)} frames, expected {first + rows} or more: run `dataset check`.")
    return EncodedVideo(codec, pix_fmt, width, height, b"", own, bool(unit_m), unit_m)
