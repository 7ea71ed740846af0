"""What each part is worth: the same scenes of a suite, tried with one thing changed at a time.

    python benchmarks/ablations.py --scenes 129 --workers 2 --out outputs/ablations
    python benchmarks/ablations.py --suite validation --scenes 40 --only whole "no mask" "no depth"
    python benchmarks/ablations.py --scenes 129 --policies ddim=runs/ddim/best demonstrations_50=runs/d50/best

One folder of results for each under --out: an interrupted run goes on with the same command. One table with 95 %
intervals at the end, the same as ablations.json, and a plot. The last column compares with the whole system scene by
scene: how many were won and lost by the change, and the chance of that if it made none (exact McNemar test).
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro
from dexloop.deploy.command import SHIPPED_POLICY
from dexloop.deploy.evaluation.command import Evaluate
from dexloop.deploy.evaluation.figures import SUMMARY, plot_parts
from dexloop.deploy.evaluation.store import SCENES
from dexloop.hardware.errors import BadInput, DexLoopError
from scipy.stats import binomtest

WHOLE = "whole"
CHANGES: dict[str, dict[str, Any]] = {
    WHOLE: {},
    "no mask": {"masks": "none"},
    "box only": {"masks": "box"},
    "noisy mask": {"masks": "noisy"},
    "wrong target": {"masks": "wrong"},
    "lagged mask": {"masks": "lagged"},
    "oracle mask": {"masks": "oracle"},
    "oracle planner": {"planner": "oracle"},
    "oracle both": {"planner": "oracle", "masks": "oracle"},
    "no depth": {"depth": "off"},
    "target moved": {"disturb": True},
}


@dataclass(frozen=True)
class Ablations:
    """Run evaluations that differ in one thing, and compare them."""

    scenes: int
    """So many of the suite's scenes, the same for all."""
    suite: Literal["unseen1287", "single", "validation"] = "unseen1287"
    """Which suite; choose on validation only."""
    only: tuple[str, ...] = ()
    """Not all changes but these, by name."""
    policies: tuple[str, ...] = ()
    """Other controllers beside the first, as name=folder."""
    policy: Path = SHIPPED_POLICY
    """Folder of the controller of all but --policies. Not given: the one that comes with DexLoop."""
    attempts: int = 3
    """Attempts per object."""
    out: Path = Path("outputs/ablations")
    """Folder of the results."""
    workers: int = 1
    """Processes. The result does not depend on it."""

    def evaluations(self) -> dict[str, Evaluate]:
        """By name, in the table's order. Raises BadInput for an unknown name or a policy that is none."""
        for name in self.only:
            if name not in CHANGES:
                raise BadInput(f"--only {name!r} is unknown: expected some of {', '.join(CHANGES)}.")
        base = Evaluate(self.suite, self.scenes, self.attempts, self.policy, workers=self.workers)
        names = [name for name in CHANGES if not self.only or name in self.only]
        runs = {name: replace(base, **CHANGES[name]) for name in names}
        for entry in self.policies:
            name, equals, folder = entry.partition("=")
            if not (name and equals and Path(folder).is_dir()) or name in CHANGES or name in runs:
                raise BadInput(f"--policies {entry!r}: expected NAME=FOLDER, a new name and a controller's folder.")
            runs[name] = replace(base, policy=Path(folder))
        return {name: replace(run, out=self.out / self.suite / _slug(name)) for name, run in runs.items()}


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def first_attempts(folder: Path, attempts: int) -> dict[str, bool]:
    """Of each scene that has a result, whether it was won within so many attempts."""
    found = {}
    for path in sorted((folder / SCENES).glob("*.json")):
        at = json.loads(path.read_text())["at_attempt"]
        found[path.stem] = 0 < at <= attempts
    return found


def versus(mine: dict[str, bool], whole: dict[str, bool]) -> dict[str, Any]:
    """Scene by scene against the whole system. ``p``: of as lopsided a count if the change made no difference."""
    both = sorted(set(mine) & set(whole))
    won = sum(mine[key] and not whole[key] for key in both)
    lost = sum(whole[key] and not mine[key] for key in both)
    p = float(binomtest(won, won + lost, 0.5).pvalue) if won + lost else 1.0
    return {"won": won, "lost": lost, "p": float(f"{p:.5g}"), "scenes": len(both)}


def gather(runs: dict[str, Evaluate], attempts: int) -> dict[str, dict[str, Any]]:
    """The figures of every evaluation that has a summary."""
    table: dict[str, dict[str, Any]] = {}
    whole = first_attempts(runs[WHOLE].out, attempts) if WHOLE in runs and runs[WHOLE].out else {}
    for name, run in runs.items():
        assert run.out is not None
        figures = json.loads((run.out / SUMMARY).read_text())
        shares = {key: value for key, value in figures.items() if key.startswith("success_at_")}
        table[name] = {"n": figures["n"], "missing": len(figures["missing"]), **shares, "failures": figures["failures"]}
        if name != WHOLE and whole:
            table[name]["against_whole"] = versus(first_attempts(run.out, attempts), whole)
    return table


def show(table: dict[str, dict[str, Any]], attempts: int) -> str:
    """The table as lines of text."""
    numbers = list(dict.fromkeys((1, attempts)))
    width = max(len(name) for name in table)
    lines = [
        f"{'':{width}s}    n  " + "  ".join(f"{f'@{number}':^22s}" for number in numbers) + f"  won/lost @{attempts}, p"
    ]
    for name, found in table.items():
        cells = []
        for number in numbers:
            share, ends = found[f"success_at_{number}"], found[f"success_at_{number}_95"]
            told = "-" if share is None else f"{100 * share:5.1f} % ({100 * ends[0]:.1f}..{100 * ends[1]:.1f})"
            cells.append(f"{told:22s}")
        against = found.get("against_whole")
        more = f"  {against['won']:3d}/{against['lost']:<3d} {against['p']:.3g}" if against else ""
        lines.append(f"{name:{width}s} {found['n']:4d}  " + "  ".join(cells) + more)
    return "\n".join(lines)


def plot(path: Path, table: dict[str, dict[str, Any]], attempts: int) -> None:
    series = {
        f"@{number}": {
            name: {
                "n": found["n"],
                "share": found[f"success_at_{number}"],
                "interval_95": found[f"success_at_{number}_95"],
            }
            for name, found in table.items()
        }
        for number in dict.fromkeys((1, attempts))
    }
    plot_parts(path, series, "lifted 10 cm and held 1 s")


def main() -> int:
    config = tyro.cli(Ablations, description=__doc__)
    try:
        runs = config.evaluations()
        missing = 0
        for name, run in runs.items():
            print(f"== {name}: {run.out}", flush=True)
            missing += run.run()
        table = gather(runs, config.attempts)
    except DexLoopError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    folder = config.out / config.suite
    (folder / "ablations.json").write_text(json.dumps(table, indent=1) + "\n")
    plot(folder / "ablations.png", table, config.attempts)
    print(show(table, config.attempts))
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
