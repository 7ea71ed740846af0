"""What an evaluation says: a table of all trials, shares with intervals, plots.

trials.parquet    one row a scene; its attempts as JSON
summary.json      n, success at 1, 2, 3 with 95 % intervals, per factor, background, lighting, family, reason
success.png       success per factor with intervals
failures.png      why the rest failed
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from .statistics import interval
from .store import write_json
from .values import PlannerScore, TrialResult

TABLE, SUMMARY, SUCCESS_PLOT, FAILURE_PLOT = "trials.parquet", "summary.json", "success.png", "failures.png"
PAPER_AT = {"unseen1287": (0.908, 0.947, 0.969), "single": (0.986,)}
"""DexGraspVLA's own figures (2502.20900), on the real rig; for single objects see the project's issue."""


def write_results(
    folder: Path,
    results: Sequence[TrialResult],
    attempts: int,
    about: dict[str, Any],
    missing: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Write all of it into ``folder``. ``missing``: scenes without a result, and why; they are counted as nothing, and
    named. Returns the summary."""
    figures = summarize(results, attempts, about, missing or {})
    write_table(folder / TABLE, results)
    write_json(folder / SUMMARY, figures)
    if results:
        plot_success(folder / SUCCESS_PLOT, figures)
        plot_failures(folder / FAILURE_PLOT, figures)
    return figures


def summarize(
    results: Sequence[TrialResult], attempts: int, about: dict[str, Any], missing: dict[str, str]
) -> dict[str, Any]:
    """The figures, ready for JSON."""
    failed = [result for result in results if not result.success_at(attempts)]
    return {
        **about,
        "n": len(results),
        "missing": missing,
        **_shares(results, attempts),
        "per_factor": _groups(results, attempts, lambda result: result.factor),
        "per_background": _groups([r for r in results if r.factor == "background"], attempts, lambda r: r.background),
        "per_lighting": _groups([r for r in results if r.factor == "lighting"], attempts, lambda r: r.lighting),
        "per_family": _groups([r for r in results if r.family], attempts, lambda result: result.family),
        "per_objects": _groups(results, attempts, lambda result: str(result.objects)),
        "failures": dict(Counter(result.reason for result in failed).most_common()),
        "attempts_failed": dict(
            Counter(score.reason for result in results for score in result.attempts if score.reason).most_common()
        ),
        "failed_scenes": [result.id for result in failed],
        "wanted": _part(sum(r.lifted for r in results), sum(r.wanted for r in results)),
        "placed": _part(sum(r.placed for r in results), sum(r.wanted for r in results)),
        "wrong_objects": sum(result.wrong for result in results),
        "planner": planner_figures(results),
        "loop": _loop(results),
    }


def _shares(results: Sequence[TrialResult], attempts: int) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for number in range(1, attempts + 1):
        won = sum(result.success_at(number) for result in results)
        low, high = interval(won, len(results))
        out[f"success_at_{number}"] = round(won / len(results), 5) if results else None
        out[f"success_at_{number}_95"] = [round(low, 5), round(high, 5)]
    return out


def _groups(
    results: Sequence[TrialResult], attempts: int, key: Callable[[TrialResult], str]
) -> dict[str, dict[str, Any]]:
    out = {}
    for name in sorted({key(result) for result in results}):
        group = [result for result in results if key(result) == name]
        out[name] = {"n": len(group)} | _shares(group, attempts)
    return out


def _part(right: int, count: int) -> dict[str, Any]:
    low, high = interval(right, count)
    return {
        "right": right, "n": count, "share": round(right / count, 5) if count else None,
        "interval_95": [round(low, 5), round(high, 5)],
    }  # fmt: skip


def planner_figures(results: Sequence[TrialResult]) -> dict[str, Any]:
    """How often proposals, boxes, verdicts and completions were right."""
    total = {entry.name: sum(getattr(r.planner, entry.name) for r in results) for entry in fields(PlannerScore)}
    kinds = ("proposals", "boxes", "verdicts", "completions")
    return {kind: _part(total[f"{kind}_right"], total[kind]) for kind in kinds} | {"questions": total["questions"]}


def _loop(results: Sequence[TrialResult]) -> dict[str, Any]:
    attempts = [score for result in results for score in result.attempts if score.ticks]
    ticks = sum(score.ticks for score in attempts)
    chunk_ms = [result.timing.chunk_ms_median for result in results if result.timing.chunk_ms_median] or [0.0]
    good = [score.seconds for score in attempts if score.success] or [0.0]
    return {
        "attempts": len(attempts),
        "ticks": ticks,
        "late_ticks": sum(result.timing.late_ticks for result in results),
        "commands_changed": round(sum(score.changed for score in attempts) / max(1, ticks), 5),
        "seconds_median_success": round(float(np.median(good)), 2),
        "chunk_ms_median": round(float(np.median(chunk_ms)), 2),
        "chunk_ms_p95": round(max((result.timing.chunk_ms_p95 for result in results), default=0.0), 2),
        "wall_s_per_scene": round(float(np.mean([r.timing.wall_s for r in results] or [0.0])), 2),
    }


def write_table(path: Path, results: Sequence[TrialResult]) -> None:
    """All trials as Parquet: numbers and names as columns, attempts as a JSON text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for result in results:
        plain = {k: v for k, v in result.to_json().items() if k not in ("attempts", "planner", "timing")}
        plain |= {f"planner.{key}": value for key, value in asdict(result.planner).items()}
        plain |= {f"timing.{key}": value for key, value in asdict(result.timing).items()}
        rows.append(plain | {"attempts": json.dumps([asdict(score) for score in result.attempts])})
    temporary = path.with_name(f".{path.name}.tmp")
    pq.write_table(pa.Table.from_pylist(rows), temporary)
    temporary.replace(path)


# -- plots ---------------------------------------------------------------------------------------------------------


def plot_success(path: Path, figures: dict[str, Any]) -> None:
    """Success per factor, background and lighting, with 95 % intervals, at 1 and at all attempts."""
    groups = {"all": figures} | figures["per_factor"]
    groups |= {f"on {name}": part for name, part in figures["per_background"].items()}
    groups |= {f"under {name}": part for name, part in figures["per_lighting"].items()}
    most = max(int(key.removeprefix("success_at_")) for key in figures if _is_share(key))
    figure, axes = _figure(9, 1.2 + 0.34 * len(groups))
    rows = np.arange(len(groups))[::-1]
    for number, colour in ((1, "tab:blue"), (most, "tab:green")) if most > 1 else ((1, "tab:blue"),):
        shares = np.array([part[f"success_at_{number}"] for part in groups.values()])
        ends = np.array([part[f"success_at_{number}_95"] for part in groups.values()])
        off = 0.14 if number == 1 and most > 1 else -0.14 if most > 1 else 0.0
        errors = np.abs(ends - shares[:, None]).T
        axes.errorbar(100 * shares, rows + off, xerr=100 * errors, fmt="o", color=colour, capsize=3,
                      label=f"@{number}")  # fmt: skip
    axes.set_yticks(rows, [f"{name} ({part['n']})" for name, part in groups.items()])
    axes.set(xlim=(-2, 102), xlabel="lifted 10 cm and held 1 s, % (Wilson 95 %)")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower left")
    _save(figure, path)


def plot_failures(path: Path, figures: dict[str, Any]) -> None:
    """Why trials failed, and why attempts did."""
    whole, each = figures["failures"], figures["attempts_failed"]
    names = list(dict.fromkeys([*whole, *each])) or ["none failed"]
    figure, axes = _figure(9, 1.4 + 0.4 * len(names))
    rows = np.arange(len(names))[::-1]
    axes.barh(rows + 0.19, [each.get(name, 0) for name in names], 0.36, color="tab:orange", label="attempts")
    axes.barh(rows - 0.19, [whole.get(name, 0) for name in names], 0.36, color="tab:red", label="scenes")
    axes.set_yticks(rows, names)
    axes.set(xlabel="how many")
    axes.grid(axis="x", alpha=0.3)
    axes.legend()
    _save(figure, path)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _save(figure: Any, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, dpi=110, format="png")
    temporary.replace(path)


def _is_share(key: str) -> bool:
    return key.startswith("success_at_") and key.removeprefix("success_at_").isdigit()


# -- for people ----------------------------------------------------------------------------------------------------


def table_text(figures: dict[str, Any], suite: str) -> str:
    """The summary as lines of text."""
    numbers = [int(key.removeprefix("success_at_")) for key in figures if _is_share(key)]
    width = max([18, *(len(name) for name in figures["per_factor"]), *(len(name) for name in figures["per_family"])])
    lines = [f"{'':{width}s}    n  " + "  ".join(f"{f'@{number}':^22s}" for number in numbers)]

    def line(name: str, part: dict[str, Any]) -> str:
        return f"{name:{width}s} {part['n']:4d}  " + "  ".join(_cell(part, number) for number in numbers)

    lines.append(line("all", figures))
    paper = PAPER_AT.get(suite, ())
    if paper:
        lines.append(f"{'the paper, real rig':{width}s}       " + "  ".join(f"{100 * v:5.1f} %{'':15s}" for v in paper))
    for group in ("per_factor", "per_background", "per_lighting", "per_family"):
        parts = figures[group]
        if len(parts) > 1:
            lines += ["", *(line(name, part) for name, part in parts.items())]
    for title, reasons in (("scenes failed", figures["failures"]), ("attempts failed", figures["attempts_failed"])):
        if reasons:
            lines += ["", title, *(f"{count:6d}  {reason}" for reason, count in reasons.items())]
    lines += ["", _part_line("objects lifted", figures["wanted"]), _part_line("objects in the bin", figures["placed"])]
    for kind in ("proposals", "boxes", "verdicts", "completions"):
        lines.append(_part_line(f"planner's {kind}", figures["planner"][kind]))
    loop = figures["loop"]
    lines.append(
        f"loop: chunk {loop['chunk_ms_median']:.1f} ms median, {loop['late_ticks']} of {loop['ticks']} ticks late, "
        f"SafeRobot changed {loop['commands_changed']:.1%}, {loop['wall_s_per_scene']:.1f} s of computing a scene"
    )
    return "\n".join(lines)


def _cell(part: dict[str, Any], number: int) -> str:
    share, (low, high) = part[f"success_at_{number}"], part[f"success_at_{number}_95"]
    if share is None:
        return f"{'-':22s}"
    return f"{100 * share:5.1f} % {f'({100 * low:.1f}..{100 * high:.1f})':14s}"


def _part_line(name: str, part: dict[str, Any]) -> str:
    if not part["n"]:
        return f"{name}: none"
    low, high = part["interval_95"]
    return f"{name}: {part['right']} of {part['n']}, {part['share']:.1%} ({low:.1%}..{high:.1%})"
