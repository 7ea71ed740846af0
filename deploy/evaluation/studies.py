"""What can be done with a suite's scenes: objects are lifted, the planner is asked, the tracker is watched.

All go through the same executor, folder and command; they differ in what a trial is and what is said of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from ...hardware.errors import BadInput
from . import mask_study, planner_study, results, trial
from .suites import Kind
from .values import Record, Trial, TrialResult, TrialSettings


class Write[Result: Record](Protocol):
    """Writes tables, plots and the summary of results into a folder, and returns the summary."""

    def __call__(
        self,
        folder: Path,
        results: Sequence[Result],
        settings: TrialSettings,
        about: dict[str, Any],
        missing: dict[str, str],
        /,
    ) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Study[Result: Record]:
    """One of them."""

    name: Kind
    run: Callable[[Trial], Result]  # what executors run
    result: type[Result]
    tally: Callable[[Result, TrialSettings], dict[str, tuple[float, int]]]  # name -> sum, count: for the bar
    write: Write[Result]
    text: Callable[[dict[str, Any], str], str]  # a summary, and its suite, for people
    uses: frozenset[str]  # settings that mean something to it

    def check(self, settings: TrialSettings) -> None:
        """Raises BadInput where a setting was changed that has no meaning here: its figure would be taken for an
        ablation that it is not."""
        for entry in fields(TrialSettings):
            if entry.name in self.uses or entry.name == "policy":
                continue
            if getattr(settings, entry.name) != entry.default:
                option = f"--{entry.name.replace('_', '-')}"
                raise BadInput(f"{option} has no meaning for the suite {self.name}: leave it out.")


_ALL = frozenset(entry.name for entry in fields(TrialSettings))
STUDIES: dict[Kind, Study[Any]] = {
    "lift": Study("lift", trial.run_trial, TrialResult, results.tally, results.write_results, results.table_text, _ALL),
    "planner": Study(
        "planner",
        planner_study.run_questions,
        planner_study.PlannerResult,
        planner_study.tally,
        planner_study.write_answers,
        planner_study.text,
        frozenset({"planner", "vlm", "objects", "objects_unit", "camera_size"}),
    ),
    "masks": Study(
        "masks",
        mask_study.run_masks,
        mask_study.MaskResult,
        mask_study.tally,
        mask_study.write_masks,
        mask_study.text,
        frozenset({"policy", "objects", "objects_unit", "camera_size", "seconds", "temperature", "sample_steps"}),
    ),
}
