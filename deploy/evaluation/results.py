"""What an evaluation says: a table of all trials, shares with intervals, plots.

trials.parquet    one row a scene; its attempts as JSON
summary.json      n, success at 1, 2, 3 with 95 % intervals, per factor, background, lighting, family, reason
success.png       success per factor with intervals
failures.png      why the rest failed
failures.html     every failed scene: its attempts, why they ended, its film
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from .failures import write_failures
from .figures import SUMMARY, TABLE, grouped, new_figure, part, part_line, plot_parts, save_figure, write_table
from .statistics import interval
from .store import write_json
from .values import PlannerScore, TrialResult, TrialSettings

SUCCESS_PLOT, FAILURE_PLOT = "success.png", "failures.png"
KINDS = ("proposals", "boxes", "verdicts", "completions")
PAPER_AT = {"unseen1287": (0.908, 0.947, 0.969), "single": (0.986,)}
"""DexGraspVLA's own figures (2502.20900), on the real rig; for single objects see the project's issue."""


def write_results(
    folder: Path,
    results: Sequence[TrialResult],
    settings: TrialSettings,
    about: dict[str, Any],
    missing: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Write all of it into ``folder``. ``missing``: scenes without a result, and why; they are counted as nothing, and
    named. Returns the summary."""
    figures = summarize(results, settings.attempts, about, missing or {})
    write_table(folder / TABLE, [_row(result) for result in results])
    write_json(folder / SUMMARY, figures)
    write_failures(folder, results, settings)
    if results:
        plot_success(folder / SUCCESS_PLOT, figures)
        plot_failures(folder / FAILURE_PLOT, figures)
    return figures


def tally(result: TrialResult, settings: TrialSettings) -> dict[str, tuple[float, int]]:
    """For the bar: success at one and at all attempts."""
    return {f"@{number}": (result.success_at(number), 1) for number in dict.fromkeys((1, settings.attempts))}


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
        "per_factor": _groups(results, attempts, lambda r: r.factor),
        "per_background": _groups([r for r in results if r.factor == "background"], attempts, lambda r: r.background),
        "per_lighting": _groups([r for r in results if r.factor == "lighting"], attempts, lambda r: r.lighting),
        "per_family": _groups([r for r in results if r.family], attempts, lambda result: result.family),
        "per_objects": _groups(results, attempts, lambda result: str(result.objects)),
        "failures": dict(Counter(result.reason for result in failed).most_common()),
        "attempts_failed": dict(
            Counter(score.reason for result in results for score in result.attempts if score.reason).most_common()
        ),
        "failed_scenes": [result.id for result in failed],
        "tasks": _tasks([result for result in results if result.wanted > 1]),
        **_handled(results),
        "disturbed": _disturbed(results, attempts),
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
    return {name: {"n": len(own)} | _shares(own, attempts) for name, own in grouped(results, key).items()}


def _handled(results: Sequence[TrialResult]) -> dict[str, Any]:
    """Objects that were wanted: lifted, in the bin; and how many attempts each that was lifted took."""
    wanted, lifted = sum(r.wanted for r in results), sum(r.lifted for r in results)
    tried = sum(bool(score.ticks) for result in results for score in result.attempts)
    return {
        "wanted": part(lifted, wanted),
        "placed": part(sum(r.placed for r in results), wanted),
        "grasps_per_object": round(tried / lifted, 3) if lifted else None,
    }


def _tasks(results: Sequence[TrialResult]) -> dict[str, dict[str, Any]]:
    """Prompts that want several objects, by kind of task."""
    return {
        name: _handled(own) | planner_figures(own) | {"n": len(own), "seconds_mean": _mean([r.seconds for r in own])}
        for name, own in grouped(results, lambda result: result.factor).items()
    }


def _disturbed(results: Sequence[TrialResult], attempts: int) -> dict[str, Any]:
    """Scenes in which the target was moved during the reach."""
    moved = [result for result in results if result.disturbed_m > 0]
    return {
        **{f"success_at_{n}": part(sum(r.success_at(n) for r in moved), len(moved)) for n in range(1, attempts + 1)},
        "n": len(moved),
        "moved_m_mean": round(float(np.mean([r.disturbed_m for r in moved])), 4) if moved else None,
    }


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 2) if values else None


def planner_figures(results: Sequence[TrialResult]) -> dict[str, Any]:
    """How often proposals, boxes, verdicts and completions were right."""
    total = {entry.name: sum(getattr(r.planner, entry.name) for r in results) for entry in fields(PlannerScore)}
    return {kind: part(total[f"{kind}_right"], total[kind]) for kind in KINDS} | {"questions": total["questions"]}


def _loop(results: Sequence[TrialResult]) -> dict[str, Any]:
    attempts = [score for result in results for score in result.attempts if score.ticks]
    ticks = sum(score.ticks for score in attempts)
    chunk_ms = [result.timing.chunk_ms_median for result in results if result.timing.chunk_ms_median] or [0.0]
    good = [score.seconds for score in attempts if score.success]
    return {
        "attempts": len(attempts),
        "ticks": ticks,
        "late_ticks": sum(result.timing.late_ticks for result in results),
        "commands_changed": round(sum(score.changed for score in attempts) / max(1, ticks), 5),
        "seconds_median_success": round(float(np.median(good)), 2) if good else None,
        "seconds_mean_success": _mean(good),
        "chunk_ms_median": round(float(np.median(chunk_ms)), 2),
        "chunk_ms_p95": round(max((result.timing.chunk_ms_p95 for result in results), default=0.0), 2),
        "wall_s_per_scene": round(float(np.mean([r.timing.wall_s for r in results] or [0.0])), 2),
    }


def _row(result: TrialResult) -> dict[str, Any]:
    """One row of the table."""
    plain = {k: v for k, v in result.to_json().items() if k not in ("attempts", "planner", "timing")}
    plain |= {f"planner.{key}": value for key, value in asdict(result.planner).items()}
    plain |= {f"timing.{key}": value for key, value in asdict(result.timing).items()}
    return plain | {"attempts": [asdict(score) for score in result.attempts]}


# -- plots ---------------------------------------------------------------------------------------------------------


def plot_success(path: Path, figures: dict[str, Any]) -> None:
    """Success per factor, background and lighting, with 95 % intervals, at 1 and at all attempts."""
    groups = {"all": figures} | figures["per_factor"]
    groups |= {f"on {name}": found for name, found in figures["per_background"].items()}
    groups |= {f"under {name}": found for name, found in figures["per_lighting"].items()}
    most = max(_numbers(figures))
    series = {
        f"@{number}": {
            name: {"n": found["n"], "share": found[f"success_at_{number}"]}
            | {"interval_95": found[f"success_at_{number}_95"]}
            for name, found in groups.items()
        }
        for number in dict.fromkeys((1, most))
    }
    plot_parts(path, series, "lifted 10 cm and held 1 s")


def plot_failures(path: Path, figures: dict[str, Any]) -> None:
    """Why trials failed, and why attempts did."""
    whole, each = figures["failures"], figures["attempts_failed"]
    names = list(dict.fromkeys([*whole, *each])) or ["none failed"]
    figure, axes = new_figure(9, 1.4 + 0.4 * len(names))
    rows = np.arange(len(names))[::-1]
    axes.barh(rows + 0.19, [each.get(name, 0) for name in names], 0.36, color="tab:orange", label="attempts")
    axes.barh(rows - 0.19, [whole.get(name, 0) for name in names], 0.36, color="tab:red", label="scenes")
    axes.set_yticks(rows, names)
    axes.set(xlabel="how many")
    axes.grid(axis="x", alpha=0.3)
    axes.legend()
    save_figure(figure, path)


def _numbers(figures: dict[str, Any]) -> list[int]:
    """Of attempts that success is given at."""
    ends = (key.removeprefix("success_at_") for key in figures if key.startswith("success_at_"))
    return [int(end) for end in ends if end.isdigit()]


# -- for people ----------------------------------------------------------------------------------------------------


def table_text(figures: dict[str, Any], suite: str) -> str:
    """The summary as lines of text."""
    numbers = _numbers(figures)
    width = max([18, *(len(name) for name in figures["per_factor"]), *(len(name) for name in figures["per_family"])])
    lines = [f"{'':{width}s}    n  " + "  ".join(f"{f'@{number}':^22s}" for number in numbers)]

    def line(name: str, found: dict[str, Any]) -> str:
        return f"{name:{width}s} {found['n']:4d}  " + "  ".join(_cell(found, number) for number in numbers)

    lines.append(line("all", figures))
    paper = PAPER_AT.get(suite, ())
    if paper:
        lines.append(f"{'the paper, real rig':{width}s}       " + "  ".join(f"{100 * v:5.1f} %{'':15s}" for v in paper))
    for group in ("per_factor", "per_background", "per_lighting", "per_family"):
        parts = figures[group]
        if len(parts) > 1:
            lines += ["", *(line(name, found) for name, found in parts.items())]
    for title, reasons in (("scenes failed", figures["failures"]), ("attempts failed", figures["attempts_failed"])):
        if reasons:
            lines += ["", title, *(f"{count:6d}  {reason}" for reason, count in reasons.items())]
    return "\n".join([*lines, "", *_told(figures), *_tasks_told(figures), *_moved_told(figures), _loop_told(figures)])


def _cell(found: dict[str, Any], number: int) -> str:
    share, (low, high) = found[f"success_at_{number}"], found[f"success_at_{number}_95"]
    if share is None:
        return f"{'-':22s}"
    return f"{100 * share:5.1f} % {f'({100 * low:.1f}..{100 * high:.1f})':14s}"


def _told(figures: dict[str, Any]) -> list[str]:
    """Objects, and how often the planner was right."""
    lines = [part_line("objects lifted", figures["wanted"]), part_line("objects in the bin", figures["placed"])]
    grasps = figures["grasps_per_object"]
    if grasps is not None:
        lines.append(f"attempts for each object that was lifted: {grasps:.2f}")
    lines += [part_line(f"planner's {kind}", figures["planner"][kind]) for kind in KINDS]
    return [*lines, f"planner's questions back: {figures['planner']['questions']}"]


def _tasks_told(figures: dict[str, Any]) -> list[str]:
    """By kind of task."""
    lines = []
    for name, found in figures["tasks"].items():
        grasps = "-" if found["grasps_per_object"] is None else f"{found['grasps_per_object']:.2f}"
        lines += [
            "",
            f"task {name} ({found['n']} scenes, {found['seconds_mean']:.0f} s of the rig's time each, {grasps} "
            "attempts an object)",
            f"  {part_line('objects lifted', found['wanted'])}",
            f"  {part_line('objects in the bin', found['placed'])}",
            *(f"  {part_line(f"planner's {kind}", found[kind])}" for kind in KINDS),
        ]
    return [*lines, ""] if lines else []


def _moved_told(figures: dict[str, Any]) -> list[str]:
    found = figures["disturbed"]
    if not found["n"]:
        return []
    most = max(_numbers(figures))
    return [
        f"target moved by {100 * found['moved_m_mean']:.1f} cm (mean) during the reach in {found['n']} of "
        f"{figures['n']} scenes; of these",
        *(f"  {part_line(f'lifted @{number}', found[f'success_at_{number}'])}" for number in dict.fromkeys((1, most))),
    ]


def _loop_told(figures: dict[str, Any]) -> str:
    loop = figures["loop"]
    good = "-" if loop["seconds_mean_success"] is None else f"{loop['seconds_mean_success']:.1f} s"
    return (
        f"loop: an attempt that succeeds takes {good} (mean), chunk {loop['chunk_ms_median']:.1f} ms median, "
        f"{loop['late_ticks']} of {loop['ticks']} ticks late, SafeRobot changed {loop['commands_changed']:.1%} of the "
        f"commands, {loop['wall_s_per_scene']:.1f} s of computing a scene"
    )
