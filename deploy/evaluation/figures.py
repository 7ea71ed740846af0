"""What all evaluations share when they say something: shares with intervals, tables, plots, lines of text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .statistics import interval

TABLE, SUMMARY = "trials.parquet", "summary.json"


def part(right: int, count: int) -> dict[str, Any]:
    """A share and its 95 % interval, ready for JSON."""
    low, high = interval(right, count)
    return {
        "right": right, "n": count, "share": round(right / count, 5) if count else None,
        "interval_95": [round(low, 5), round(high, 5)],
    }  # fmt: skip


def part_line(name: str, share: Mapping[str, Any]) -> str:
    """ "boxes: 149 of 150, 99.3% (96.3%..99.9%)"."""
    if not share["n"]:
        return f"{name}: none"
    low, high = share["interval_95"]
    return f"{name}: {share['right']} of {share['n']}, {share['share']:.1%} ({low:.1%}..{high:.1%})"


def grouped[Item](items: Sequence[Item], key: Callable[[Item], str]) -> dict[str, list[Item]]:
    """Items by name, the names in order."""
    out: dict[str, list[Item]] = {}
    for item in items:
        out.setdefault(key(item), []).append(item)
    return dict(sorted(out.items()))


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Plain rows as Parquet; what is nested in one is written as a JSON text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    plain = [
        {key: json.dumps(value) if isinstance(value, dict | list | tuple) else value for key, value in row.items()}
        for row in rows
    ]
    temporary = path.with_name(f".{path.name}.tmp")
    pq.write_table(pa.Table.from_pylist(plain), temporary)
    temporary.replace(path)


def new_figure(width: float, height: float) -> tuple[Any, Any]:
    """A figure (inches) and its axes, without a screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def save_figure(figure: Any, path: Path) -> None:
    """As PNG, written beside and renamed."""
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, dpi=110, format="png")
    temporary.replace(path)


def plot_parts(path: Path, series: Mapping[str, Mapping[str, Mapping[str, Any]]], label: str) -> None:
    """Shares with their intervals, one row a name; ``series`` maps what is in the legend to names and their parts."""
    names = list(dict.fromkeys(name for parts in series.values() for name in parts))
    figure, axes = new_figure(9, 1.2 + 0.34 * max(1, len(names)))
    rows = {name: len(names) - 1 - k for k, name in enumerate(names)}
    spread = np.linspace(0.14, -0.14, len(series)) if len(series) > 1 else [0.0]
    for (told, parts), off in zip(series.items(), spread, strict=True):
        shown = {name: share for name, share in parts.items() if share["n"]}
        shares = np.array([share["share"] for share in shown.values()])
        ends = np.array([share["interval_95"] for share in shown.values()]).reshape(-1, 2)
        errors = np.clip(np.abs(ends - shares[:, None]).T, 0, None)
        places = np.array([rows[name] for name in shown]) + off
        axes.errorbar(100 * shares, places, xerr=100 * errors, fmt="o", capsize=3, label=told)
    most = {name: max(parts[name]["n"] for parts in series.values() if name in parts) for name in names}
    axes.set_yticks([rows[name] for name in names], [f"{name} ({most[name]})" for name in names])
    axes.set(xlim=(-2, 102), xlabel=f"{label}, % (Wilson 95 %)")
    axes.grid(axis="x", alpha=0.3)
    if len(series) > 1:
        axes.legend(loc="lower left")
    save_figure(figure, path)
