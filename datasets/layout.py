"""Files of a data set: where each lies, and the tables that stand in them (LeRobot v3.0, one file per episode).

Episode i has ``data/chunk-CCC/file-FFF.parquet``, ``meta/episodes/chunk-CCC/file-FFF.parquet`` and, for each video,
``videos/<key>/chunk-CCC/file-FFF.mp4``, with CCC = i // 1000 and FFF = i % 1000: an episode is final once written.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..hardware.errors import DatasetError
from . import arrow
from . import stats as st
from .episode import EpisodeInfo
from .schema import FILES_PER_CHUNK, INDEX_COLUMNS, LEROBOT_VERSION, Column, ColumnSpec, Schema
from .transaction import INFO

STATS, TASKS, OWN = "meta/stats.json", "meta/tasks.parquet", "meta/dexloop.json"
DAMAGED = "damaged"
PARQUET_ERRORS = (pa.ArrowException, OSError, ValueError)  # what pyarrow raises on damaged files
INFO_COLUMN, SOURCE_COLUMN, CRC_COLUMN = "dexloop/info", "dexloop/source", "dexloop/crc32/{key}"
EPISODES_PATTERN = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA_PATTERN = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATTERN = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"


def place(episode: int) -> tuple[int, int]:
    """(chunk index, file index) of an episode's files."""
    return divmod(episode, FILES_PER_CHUNK)


def data_file(episode: int) -> str:
    chunk, file = place(episode)
    return DATA_PATTERN.format(chunk_index=chunk, file_index=file)


def episode_file(episode: int) -> str:
    chunk, file = place(episode)
    return EPISODES_PATTERN.format(chunk_index=chunk, file_index=file)


def video_file(key: str, episode: int) -> str:
    chunk, file = place(episode)
    return VIDEO_PATTERN.format(video_key=key, chunk_index=chunk, file_index=file)


def data_table(
    columns: dict[str, Column], schema: Schema, episode: int, start: int, task_index: int
) -> tuple[pa.Table, dict[str, Column]]:
    """The data parquet's table and the same columns as numpy. ``start`` is the set's frames before this episode."""
    rows = len(columns[schema.columns[0].key])
    frame = np.arange(rows, dtype=np.int64)
    own: dict[str, Column] = {
        "timestamp": (frame / schema.rate_hz).astype(np.float32),
        "frame_index": frame,
        "episode_index": np.full(rows, episode, np.int64),
        "index": frame + start,
        "task_index": np.full(rows, task_index, np.int64),
    }
    specs = (*schema.columns, *INDEX_COLUMNS)
    full = {spec.key: own.get(spec.key, columns.get(spec.key)) for spec in specs}
    arrays = {spec.key: _arrow(spec, full[spec.key]) for spec in specs}
    return pa.table(arrays), full  # type: ignore[return-value]


def _arrow(spec: ColumnSpec, array: Any) -> pa.Array:
    if spec.dtype == "string":
        return arrow.texts(array.tolist())
    return arrow.vectors(array, spec.dtype) if spec.width else arrow.numbers(array, spec.dtype)


def crc32(path: Path) -> int:
    """Checksum of a file's bytes."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return value


def write_table(table: pa.Table, path: Path) -> None:
    """One row group, as LeRobot writes an episode, with checksums that :func:`open_table` has verified."""
    pq.write_table(table, path, row_group_size=max(1, table.num_rows), compression="snappy", write_page_checksum=True)


def open_table(path: Path) -> pq.ParquetFile:
    """Raises DatasetError where the file is missing or damaged."""
    try:
        return pq.ParquetFile(path, page_checksum_verification=True)
    except PARQUET_ERRORS as error:
        raise DatasetError(f"{path} cannot be read ({error}): run `dataset repair`.") from error


def numpy_columns(table: pa.Table, specs: Sequence[ColumnSpec]) -> dict[str, Column]:
    """Columns of a data parquet as arrays: (rows,), (rows, width), or object arrays of text."""
    out: dict[str, Column] = {}
    for spec in specs:
        column = table.column(spec.key).combine_chunks()
        if spec.dtype == "string":
            out[spec.key] = np.array(column.to_pylist(), object)
        elif spec.width:
            flat = column.flatten().to_numpy(zero_copy_only=False)
            out[spec.key] = flat.reshape(-1, spec.width).astype(spec.dtype, copy=False)
        else:
            out[spec.key] = column.to_numpy(zero_copy_only=False).astype(spec.dtype, copy=False)
    return out


def episode_row(
    schema: Schema,
    episode: int,
    start: int,
    rows: int,
    info: EpisodeInfo,
    source: str,
    stats: st.Stats,
    checksums: dict[str, int],
) -> pa.Table:
    """The one row of an episode's ``meta/episodes`` file: LeRobot's columns, then ours.

    ``checksums`` are the CRC-32 of its files, by video key and ``data``: the only way to find a flipped bit in a video,
    since decoders conceal it.
    """
    chunk, file = place(episode)
    whole = {"episode_index": episode, "length": rows, "data/chunk_index": chunk, "data/file_index": file}
    whole |= {"dataset_from_index": start, "dataset_to_index": start + rows}
    whole |= {"meta/episodes/chunk_index": chunk, "meta/episodes/file_index": file}
    whole |= {CRC_COLUMN.format(key=key): crc for key, crc in checksums.items()}
    real: dict[str, float] = {}
    for key in schema.video_keys:
        whole |= {f"videos/{key}/chunk_index": chunk, f"videos/{key}/file_index": file}
        real |= {f"videos/{key}/from_timestamp": 0.0, f"videos/{key}/to_timestamp": rows / schema.rate_hz}
    values = {"tasks": arrow.text_list_row([info.task])}
    values |= {name: arrow.numbers(np.array([value]), "int64") for name, value in whole.items()}
    values |= {name: arrow.numbers(np.array([value]), "float64") for name, value in real.items()}
    for key, stat in stats.items():
        for name, value in stat.items():
            values[f"stats/{key}/{name}"] = arrow.nested_row(value, "int64" if name == "count" else "float64")
    values |= {INFO_COLUMN: arrow.texts([info_to_text(info)]), SOURCE_COLUMN: arrow.texts([source])}
    return pa.table(values)


def stats_of_row(row: dict[str, Any]) -> st.Stats:
    """Statistics out of a ``meta/episodes`` row."""
    nested: dict[str, dict[str, Any]] = {}
    for name, value in row.items():
        if name.startswith("stats/"):
            _, key, kind = name.split("/")
            nested.setdefault(key, {})[kind] = value
    return st.from_json(nested)


def info_to_text(info: EpisodeInfo) -> str:
    return json.dumps(vars(info), sort_keys=True)


def info_from_text(text: str) -> EpisodeInfo:
    return EpisodeInfo(**json.loads(text))


def tasks_table(tasks: Sequence[str]) -> pa.Table:
    """``meta/tasks.parquet``: LeRobot reads it with pandas and wants the task as index, which is said in metadata."""
    table = pa.table({"task_index": arrow.numbers(np.arange(len(tasks)), "int64"), "task": arrow.texts(tasks)})

    def described(name: str, kind: str, numpy_kind: str) -> dict[str, Any]:
        return {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy_kind, "metadata": None}

    pandas = {
        "index_columns": ["task"],
        "column_indexes": [{**described("", "unicode", "object"), "name": None, "field_name": None}],
        "columns": [described("task_index", "int64", "int64"), described("task", "unicode", "object")],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.3.3",
    }
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def read_tasks(root: Path) -> list[str]:
    """Task texts by task index."""
    if not (root / TASKS).exists():
        raise DatasetError(f"{root / TASKS} is missing: run `dataset repair`.")
    try:
        table = open_table(root / TASKS).read()  # read_table would import pandas
        index, text = table.column("task_index").to_pylist(), table.column("task").to_pylist()
        pandas = json.loads((table.schema.metadata or {})[b"pandas"])
        if pandas["index_columns"] != ["task"]:
            raise ValueError("LeRobot would not find the tasks")
    except (*PARQUET_ERRORS, KeyError) as error:
        raise DatasetError(f"{root / TASKS} cannot be read ({error}): run `dataset repair`.") from error
    return [text[i] for i in np.argsort(index)]


def info_json(schema: Schema, features: dict[str, Any], episodes: int, frames: int, tasks: int) -> dict[str, Any]:
    """``meta/info.json``."""
    return {
        "codebase_version": LEROBOT_VERSION,
        "fps": schema.rate_hz,
        "features": features,
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "data_path": DATA_PATTERN,
        "video_path": VIDEO_PATTERN,
        "robot_type": schema.robot_type,
        "splits": {"train": f"0:{episodes}"},
    }


def dump(data: Any) -> str:
    return json.dumps(data, indent=2)


def read_json(root: Path, relative: str) -> dict[str, Any]:
    """Raises DatasetError where the file is missing or no JSON object."""
    path = root / relative
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is missing: run `dataset repair`.") from error
    except (ValueError, OSError) as error:
        raise DatasetError(f"{path} cannot be read ({error}): run `dataset repair`.") from error
    if not isinstance(data, dict):
        raise DatasetError(f"{path} holds {type(data).__name__}, expected an object: run `dataset repair`.")
    return data


def is_dataset(root: Path) -> bool:
    return (root / INFO).exists()
