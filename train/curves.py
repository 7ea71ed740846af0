"""A picture of a run: losses, action errors on held-out episodes, learning rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PANELS = (  # title, unit, validation figures
    ("fingertips and palm, held out", "mm", ("tip_mm_first", "tip_mm", "palm_mm_first", "palm_mm")),
    ("angles, held out", "deg", ("palm_deg_first", "palm_deg", "arm_deg_first", "arm_deg")),
    ("finger openings, held out", "of 1", ("opening_first", "opening")),
)


def plot(lines: list[dict[str, Any]], path: Path, title: str) -> None:
    """Draw the metrics ``lines`` of a run (as in ``metrics.jsonl``) into the PNG ``path``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = [line for line in lines if "loss" in line]
    checks = [line for line in lines if "validation" in line]
    figure = Figure(figsize=(12, 8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3).flat
    figure.suptitle(title)
    loss, rate, gradient, *panels = (next(axes) for _ in range(6))
    at = [line["step"] for line in steps]
    values = np.array([line["loss"] for line in steps])
    loss.plot(at, values, color="tab:blue", alpha=0.25, linewidth=0.6)
    loss.plot(at, _smoothed(values), color="tab:blue", label="training")
    loss.plot(
        [line["step"] for line in checks],
        [line["validation"]["loss"] for line in checks],
        "o-",
        color="tab:orange",
        label="held out, averaged weights",
    )
    loss.set(title="loss", yscale="log")
    rate.plot(at, [line["lr"] for line in steps])
    rate.set(title="learning rate")
    gradient.plot(at, [line["gradient"] for line in steps], linewidth=0.6)
    gradient.set(title="gradient norm, before clipping", yscale="log")
    for axis, (heading, unit, names) in zip(panels, _PANELS, strict=True):
        for name in names:
            style = "o-" if name.endswith("_first") else "o--"
            label = name.removesuffix("_first").rsplit("_", 1)[0] + (", first half" if style == "o-" else ", chunk")
            axis.plot(
                [line["step"] for line in checks], [line["validation"][name] for line in checks], style, label=label
            )
        axis.set(title=heading, ylabel=unit, ylim=(0, None))
    for axis in (loss, *panels):
        axis.legend(fontsize="small")
    for axis in (loss, rate, gradient, *panels):
        axis.grid(alpha=0.3)
        axis.set_xlabel("step")
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, dpi=90, format="png")
    temporary.replace(path)


def _smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Running mean over a fiftieth of the run, each point of what came before it."""
    if not len(values):
        return values
    window = max(len(values) // 50, 1)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)
