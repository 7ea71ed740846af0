"""What frozen encoders answer for recorded pictures, computed once and kept on disk.

Training DexGraspVLA's controller spends more than half of each step on two frozen DINOv2 that give the same answer
every time. Here every row's patch tokens are kept as float16, in ``copies`` versions: number 0 of the picture as it is,
the others of differently jittered ones. One shard holds one episode in one version, under
``cache/features/<encoder>/<episode and version>`` of :func:`~..datasets.home.home`. Both names are hashes of what the
content follows from (weights, preprocessing, checksums of the recorded files), so a shard is never out of date, and
every run and data set that could use it finds it. See ``docs/decisions/83-frozen-features-on-disk.md``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..datasets.home import home
from ..datasets.reader import DatasetReader
from ..hardware.errors import BadInput
from .controller.draws import Draws
from .data.moments import camera_of, identity, observations
from .data.shards import alone, check_rows, check_space, digest, open_shard, row_bytes, write_shard
from .views import View, render

VERSION = 1
Shard = tuple[int, int]  # episode, copy


class Frozen(Protocol):
    """The frozen part of an encoder (``controller.dino.FrozenVits``). A ``torch.nn.Module``."""

    config: Any  # has ``jitter``

    @property
    def feature_shapes(self) -> dict[str, tuple[int, int]]:
        """``<view>.features`` -> (patches, channels)."""
        ...

    def features(self, view: str, rgb: Tensor, draws: Draws | None) -> Tensor:
        """(B, H, W, 3) uint8 -> (B, patches, channels); with ``draws`` colours are jittered first."""
        ...

    def state_dict(self) -> dict[str, Any]: ...


class FrozenEncoder(Protocol):
    """An encoder that has a frozen part (``controller.paper.PaperEncoder``)."""

    @property
    def views(self) -> tuple[View, ...]: ...

    @property
    def frozen(self) -> Any:  # a Frozen; may load its weights now
        ...


class FeatureCache:
    """Opened features of the rows of chosen episodes. Threads may share it."""

    def __init__(
        self, shapes: dict[str, tuple[int, int]], copies: int, shards: Mapping[Shard, tuple[Path, int]]
    ) -> None:
        self.shapes = shapes
        self.copies = copies
        self._paths = {shard: path for shard, (path, _) in shards.items()}
        # Headers and lengths are checked here: damage is told now, not after an hour of training.
        self._arrays = {shard: open_shard(path, rows, _spec(shapes)) for shard, (path, rows) in shards.items()}
        self._checked = {shard: np.zeros(rows, bool) for shard, (_, rows) in shards.items()}

    def read(
        self, episode: int, rows: Sequence[int] | NDArray[np.integer], copy: int
    ) -> dict[str, NDArray[np.float16]]:
        """``<view>.features`` -> (len(rows), patches, channels), rows in any order. BadInput where the episode or
        copy is not in this cache, DatasetError where its file is damaged."""
        shard = episode, copy
        if shard not in self._arrays:
            raise BadInput(f"episode {episode}, copy {copy} is not among the cached features: build them first.")
        arrays, checked = self._arrays[shard], self._checked[shard]
        wanted = np.unique(rows)
        fresh = wanted[~checked[wanted]]  # a checksum costs as much as reading: once for each row is enough
        check_rows(self._paths[shard], arrays, fresh.tolist())
        checked[fresh] = True
        return {name: arrays[name][rows] for name in self.shapes}


def cache_features(
    encoder: FrozenEncoder,
    reader: DatasetReader,
    copies: int = 4,
    episodes: Sequence[int] | None = None,
    *,
    rows_at_once: int = 8,
    half: bool = False,
    progress: bool = True,
) -> FeatureCache:
    """Compute what is missing of ``episodes`` (default: all) in ``copies`` versions, then open everything.

    ``half``: compute in bfloat16 (a cache of its own). It runs where the encoder is. Several processes may call it at
    once: one computes, the others wait. Interrupted, the next call goes on after the last whole shard.

    Raises BadInput where the data set lacks a camera, StorageError where the disk cannot hold the features,
    DatasetError where a recorded or a cached file is damaged (which is left as it is).
    """
    if copies < 1:
        raise BadInput(f"got {copies} copies of the features, expected 1 or more.")
    frozen: Frozen = encoder.frozen
    shapes = frozen.feature_shapes
    wanted = [view for view in encoder.views if f"{view.name}.features" in shapes]
    views = tuple(replace(view, mask=False, depth=False) for view in wanted)
    rows = {index: reader.meta(index).rows for index in (range(len(reader)) if episodes is None else episodes)}
    folder, about = _contents(frozen, reader, views, rows, copies, {"half": half, "rows_at_once": rows_at_once})
    shards = {shard: (folder / f"{digest(what)}.safetensors", rows[shard[0]]) for shard, what in about.items()}
    if any(not path.exists() for path, _ in shards.values()):
        with alone(folder):  # where another process was building the same, nothing is missing any more
            missing = [shard for shard, (path, _) in shards.items() if not path.exists()]
            _announce(folder, sum(rows[episode] for episode, _ in missing), shapes, len(missing), progress)
            for shard, advance in _bar(missing, rows, progress):
                path, count = shards[shard]
                seed = int(digest(about[shard]["episode"])[:8], 16)
                blocks = _blocks(frozen, reader, views, shard, seed, rows_at_once, half, advance)
                write_shard(path, count, _spec(shapes), about[shard], blocks)
    return FeatureCache(shapes, copies, shards)


def _contents(
    frozen: Frozen,
    reader: DatasetReader,
    views: tuple[View, ...],
    episodes: Iterable[int],
    copies: int,
    how: dict[str, Any],
) -> tuple[Path, dict[Shard, dict[str, Any]]]:
    """The cache's folder, and for each shard everything that its content follows from."""
    look = {
        "version": VERSION,
        "weights": weights_digest(frozen),
        "shapes": frozen.feature_shapes,
        "views": [[asdict(view), asdict(camera_of(reader, view))] for view in views],
        **how,
    }
    about = {}
    for index in episodes:
        episode = {**look, "episode": identity(reader, reader.meta(index), views)}
        for copy in range(copies):
            about[index, copy] = {**episode, "copy": copy, "jitter": list(frozen.config.jitter) if copy else None}
    return home() / "cache" / "features" / digest(look), about


def weights_digest(frozen: Frozen) -> str:
    """Name of the frozen weights: the same for the same numbers."""
    hashed = hashlib.sha256()
    for name, tensor in sorted(frozen.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hashed.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return hashed.hexdigest()[:24]


def _spec(shapes: Mapping[str, tuple[int, int]]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (shape, "float16") for name, shape in shapes.items()}


def _announce(folder: Path, rows: int, shapes: Mapping[str, tuple[int, int]], shards: int, progress: bool) -> None:
    need = rows * row_bytes(_spec(shapes))
    check_space(folder, need, "the frozen features", "keep fewer copies or pictures of fewer pixels")
    if progress and shards:
        print(f"frozen features: {rows} rows in {shards} files, {need / 1e9:.2f} GB, under {folder}")


def _blocks(
    frozen: Frozen,
    reader: DatasetReader,
    views: tuple[View, ...],
    shard: Shard,
    seed: int,
    rows_at_once: int,
    half: bool,
    advance: Any,
) -> Iterator[dict[str, NDArray[np.float16]]]:
    """Features of an episode, block by block of rows."""
    episode, copy = shard
    device = next(iter(frozen.state_dict().values())).device
    waiting: list[dict[str, NDArray[Any]]] = []
    moments = observations(reader, episode, views)
    count = reader.meta(episode).rows
    for row, moment in enumerate(moments):
        waiting.append({view.name: render(view, moment)[f"{view.name}.rgb"] for view in views})
        if len(waiting) < rows_at_once and row < count - 1:
            continue
        draws = Draws(copy, seed + row, len(waiting)) if copy else None
        block = {}
        for view in views:
            pictures = torch.from_numpy(np.stack([pictures[view.name] for pictures in waiting])).to(device)
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=half):
                answer = frozen.features(view.name, pictures, draws)
            block[f"{view.name}.features"] = answer.to(torch.float16).cpu().numpy()
            if not np.isfinite(block[f"{view.name}.features"]).all():
                raise BadInput(
                    f"the frozen encoder's answer for the {view.name} picture at row {row} does not fit into float16: "
                    "are its weights whole? Train without cached features."
                )
        advance(len(waiting))
        waiting = []
        yield block


def _bar(missing: list[Shard], rows: Mapping[int, int], progress: bool) -> Iterator[tuple[Shard, Any]]:
    """The shards, each with what moves the bar on by some rows."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("frozen features"), BarColumn(), MofNCompleteColumn(), TextColumn("rows,"))
    with Progress(*columns, TimeRemainingColumn(), TextColumn("left"), disable=not progress) as bar:
        task = bar.add_task("", total=sum(rows[episode] for episode, _ in missing))
        for shard in missing:
            yield shard, lambda count: bar.advance(task, count)
