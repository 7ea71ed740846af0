"""``cli.py dataset ...`` and ``cli.py view``: look after recorded data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..hardware.errors import BadInput


@dataclass(frozen=True)
class Check:
    """Look for every kind of damage, and say what to do. Exits with 1 where there is some."""

    dataset: str
    """Name under recordings/, or a path."""
    deep: bool = False
    """Decode every frame too (slow)."""

    def run(self) -> int:
        from .check import run_check
        from .home import resolve_existing

        report = run_check(resolve_existing(self.dataset), self.deep)
        print(report)
        return 0 if report.ok else 1


@dataclass(frozen=True)
class Repair:
    """Mend a damaged data set. Nothing is deleted: what cannot be used moves to damaged/ inside it."""

    dataset: str
    """Name under recordings/, or a path."""
    recover: bool = False
    """Also add the recordings that were cut off, from their journals."""
    rate_hz: int = 20
    """Rate of a data set that has no finished episode yet to tell it."""

    def run(self) -> int:
        from .home import resolve_existing
        from .repair import repair

        report = repair(resolve_existing(self.dataset), self.recover, self.rate_hz)
        print(report)
        return 0 if report.check is not None and report.check.ok else 1


@dataclass(frozen=True)
class Info:
    """What a data set holds."""

    dataset: str
    """Name under recordings/, or a path."""
    json: bool = False
    """Print one JSON object instead."""

    def run(self) -> int:
        from .home import resolve_existing
        from .reader import DatasetReader

        reader = DatasetReader(resolve_existing(self.dataset))
        episodes = [
            {
                "episode": meta.index,
                "rows": meta.rows,
                "seconds": round(meta.rows / reader.schema.rate_hz, 2),
                "success": meta.info.success,
                "operator": meta.info.operator,
                "task": meta.info.task,
                "note": meta.info.note,
            }
            for meta in reader.episodes()
        ]
        summary = {"root": str(reader.root), "schema": reader.schema.to_json(), "episodes": episodes}
        print(json.dumps(summary)) if self.json else _print_info(summary)
        return 0


@dataclass(frozen=True)
class Label:
    """Say whether an episode succeeded, and note something about it."""

    episode: tyro.conf.Positional[str]
    """Which one: episode_42, or 42."""
    dataset: str
    """Name under recordings/, or a path."""
    success: Literal["yes", "no", "unknown"] | None = None
    """The label; not given: it stays."""
    note: str | None = None
    """Replaces the note; not given: it stays."""

    def run(self) -> int:
        from .edit import label
        from .home import parse_episode, resolve_existing
        from .reader import DatasetReader

        if self.success is None and self.note is None:
            raise BadInput("nothing to change was given: write --success yes|no|unknown or --note TEXT.")
        reader = DatasetReader(resolve_existing(self.dataset))
        index = parse_episode(self.episode, len(reader))
        before = reader.meta(index).info.success
        success = before if self.success is None else {"yes": True, "no": False, "unknown": None}[self.success]
        label(reader.root, index, success, self.note)
        print(
            f"episode_{index} of {reader.root}: success = {success}" + (f", note = {self.note!r}" if self.note else "")
        )
        return 0


@dataclass(frozen=True)
class Delete:
    """Remove episodes for good; those behind them move up."""

    dataset: str
    """Name under recordings/, or a path."""
    episodes: tuple[str, ...]
    """Which ones, for example --episodes 3 episode_7."""

    def run(self) -> int:
        from .edit import delete
        from .home import parse_episode, resolve_existing
        from .reader import DatasetReader

        reader = DatasetReader(resolve_existing(self.dataset))
        indices = [parse_episode(text, len(reader)) for text in self.episodes]
        left = delete(reader.root, indices)
        print(f"removed {len(set(indices))} episode(s); {reader.root} has {left} left, 0..{left - 1}")
        return 0


@dataclass(frozen=True)
class Merge:
    """Write the episodes of several data sets, in order, into a new one. The sources stay as they are."""

    dataset: str
    """Name or path of the new data set."""
    sources: tuple[str, ...]
    """Names or paths of those to merge."""
    cameras: tuple[str, ...] | None = None
    """Keep only these cameras, so that sets which have them in common can be merged. Not given: all."""

    def run(self) -> int:
        from .edit import merge
        from .home import resolve, resolve_existing

        target = resolve(self.dataset)
        total = merge([resolve_existing(source) for source in self.sources], target, self.cameras)
        print(f"{target} holds {total} episodes. Next: python cli.py dataset info --dataset {target}")
        return 0


@dataclass(frozen=True)
class Export:
    """Write a data set in DexGraspVLA's zarr layout (BGR, mask as fourth channel, arm joints scaled to -1..1)."""

    dataset: str
    """Name under recordings/, or a path."""
    out: Path
    """The zarr folder to make."""

    def run(self) -> int:
        from .home import resolve_existing
        from .zarr_format import export_zarr

        root = resolve_existing(self.dataset)
        frames = export_zarr(root, self.out)
        print(f"{self.out} holds {frames} frames of {root} in DexGraspVLA's layout.")
        return 0


@dataclass(frozen=True)
class Import:
    """Make a data set from DexGraspVLA's zarr layout. It has no times: none are made up."""

    dataset: str
    """Name or path of the new data set."""
    source: Path
    """The zarr folder to read."""
    task: str
    """The instruction of its episodes, which the layout does not keep."""

    def run(self) -> int:
        from .home import resolve
        from .zarr_format import import_zarr

        root = resolve(self.dataset)
        episodes = import_zarr(self.source, root, self.task)
        print(f"{root} holds {episodes} episodes. Next: python cli.py view episode_0 --dataset {root}")
        return 0


Action = (
    Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[Repair, tyro.conf.subcommand("repair")]
    | Annotated[Info, tyro.conf.subcommand("info")]
    | Annotated[Label, tyro.conf.subcommand("label")]
    | Annotated[Delete, tyro.conf.subcommand("delete")]
    | Annotated[Merge, tyro.conf.subcommand("merge")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Import, tyro.conf.subcommand("import")]
)


@dataclass(frozen=True)
class Dataset:
    """Check, mend, label, cut, merge and convert data sets."""

    action: Action

    def run(self) -> int:
        return self.action.run()


@dataclass(frozen=True)
class View:
    """Save an episode for the Rerun viewer, and a contact sheet to look at right away."""

    episode: tyro.conf.Positional[str]
    """Which one: episode_42, or 42."""
    dataset: str = "grasp"
    """Name under recordings/, or a path."""
    out: Path | None = None
    """Folder for the files. Not given: outputs/<data set>."""
    web: bool = False
    """Serve it to a web browser too, until Ctrl-C."""

    def run(self) -> int:
        from .home import home, parse_episode, resolve_existing
        from .reader import DatasetReader
        from .view import contact_sheet, save_rrd, serve_web

        reader = DatasetReader(resolve_existing(self.dataset))
        index = parse_episode(self.episode, len(reader))
        folder = self.out or home() / "outputs" / reader.root.name
        folder.mkdir(parents=True, exist_ok=True)
        rrd, sheet = folder / f"episode_{index}.rrd", folder / f"episode_{index}.png"
        contact_sheet(reader, index, sheet)
        save_rrd(reader, index, rrd)
        print(f"{sheet}: contact sheet\n{rrd}: open it with `uv run rerun {rrd}`")
        if self.web:
            serve_web(reader, index)
        return 0


def _print_info(summary: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    episodes, schema = summary["episodes"], summary["schema"]
    rows = sum(episode["rows"] for episode in episodes)
    labelled = [episode["success"] for episode in episodes if episode["success"] is not None]
    console = Console(highlight=False)
    table = Table(title=summary["root"])
    for heading in ("episode", "seconds", "success", "operator", "task", "note"):
        table.add_column(heading, justify="right" if heading in ("episode", "seconds") else "left")
    for episode in episodes:
        success = {True: "yes", False: "no", None: "-"}[episode["success"]]
        values = (
            episode["episode"],
            episode["seconds"],
            success,
            episode["operator"],
            episode["task"],
            episode["note"],
        )
        table.add_row(*(str(value) for value in values))
    console.print(table)
    cameras = ", ".join(
        f"{camera['name']} {camera['width']}x{camera['height']}{' with depth' if camera['depth_unit_m'] else ''}"
        for camera in schema["cameras"]
    )
    console.print(
        f"{len(episodes)} episodes, {rows} rows at {schema['rate_hz']} Hz ({rows / schema['rate_hz']:.0f} s), "
        f"{sum(labelled)} of {len(labelled)} labelled ones successful; {schema['robot_type']}, cameras: {cameras}"
    )
