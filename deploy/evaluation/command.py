"""``cli.py evaluate``: how often it works, on scenes that nobody tuned on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...hardware.errors import BadInput
from ..command import SHIPPED_POLICY
from ..planner.vlm_config import VlmConfig
from .sources import MaskSource

if TYPE_CHECKING:
    from .executor import Failure
    from .studies import Study
    from .suites import Row, Suite
    from .values import Record, TrialSettings

VIDEOS = "videos"


@dataclass(frozen=True)
class Evaluate:
    """Try the whole system on a fixed suite of the twin's scenes and say how often it works. An interrupted evaluation
    goes on with the same command and --out."""

    suite: Literal[
        "unseen1287", "single", "long-horizon", "planner", "masks",
        "validation", "long-horizon-validation", "planner-validation", "masks-validation",
    ] = "unseen1287"  # fmt: skip
    """unseen1287: 360 unseen objects, 6 unseen backgrounds x 103, 3 unseen lightings x 103; single: one unseen object;
    long-horizon: clear the table, all of a colour, all of a shape; planner: boxes, questions back and what is not
    there, without a motion; masks: how well the target is followed while the hand goes for it; validation
    and those that end in it: for choosing, never to be reported."""
    scenes: int | None = None
    """So many of the suite's scenes, every factor in its proportion; the same for the same number. Not given: all."""
    attempts: int = 3
    """Attempts per object."""
    policy: Path = SHIPPED_POLICY
    """Folder of the controller: config.json and model.safetensors. Not given: the one that comes with DexLoop."""
    planner: Literal["offline", "vlm", "oracle"] = "offline"
    """offline: what deployment uses; vlm: a vision-language model, see --vlm.*; oracle: the simulator's truth, as an
    ablation."""
    masks: MaskSource = "tracked"
    """tracked: what deployment uses. As ablations: oracle (the simulator's), none, box (the planner's box, filled),
    noisy, wrong (another object's), lagged (0.5 s late)."""
    objects: Path | None = None
    """Folder of other people's object models (MJCF or meshes), which then lie on the table."""
    out: Path | None = None
    """Folder of the results. Not given: outputs/evaluate_<suite>_<date>_<time>."""
    workers: int = 1
    """Processes. The result does not depend on it."""
    ray: str | None = None
    """Instead of processes a Ray cluster: local, auto, or its address."""
    seconds: float = 25.0
    """Longest attempt; the default is that of `deploy`."""
    camera_size: tuple[int, int] = (320, 240)
    """Width and height of the pictures."""
    timeout_s: float = 1800.0
    """A scene that takes longer is given up (with --workers above 1, or --ray)."""
    videos: bool = False
    """Keep a film of every scene that failed."""
    vlm: VlmConfig = field(default_factory=VlmConfig)
    """The endpoint of --planner vlm."""
    depth: Literal["on", "off"] = "on"
    """off: as an ablation the policy's own depth pictures are invalid throughout; planner and tracker keep theirs."""
    temperature: float | None = None
    """Deviation of the noise that the policy's samples start from. Not given: the policy's own."""
    sample_steps: int | None = None
    """Network evaluations for each of the policy's chunks. Not given: the policy's own."""
    objects_unit: Literal["m", "cm", "mm", "inch"] = "m"
    """Unit of the mesh files of --objects."""
    disturb: bool = False
    """Move the target by 5 to 8 cm while the hand reaches for it the first time."""

    def run(self) -> int:
        """Returns the exit code: 0 when every scene has a result, whatever it is."""
        from .executor import make_executor
        from .store import ResultFolder, manifest_of, run_rows
        from .studies import STUDIES
        from .suites import load

        suite = load(self.suite)
        study = STUDIES[suite.kind]
        rows = self._rows(suite)
        folder = self.out or Path("outputs") / f"evaluate_{self.suite}_{datetime.now():%Y%m%d_%H%M%S}"
        settings = self._settings(study, folder, any(row.wanted for row in suite.rows))
        manifest = manifest_of(self.suite, suite.digest, rows, settings)
        executor = make_executor(self.workers, self.ray, self.timeout_s)
        self._check_planner()
        store = ResultFolder(folder, manifest, study.result)
        with _shown(len(rows), study, settings) as done:
            results, missing = run_rows(store, rows, settings, executor, study.run, done)
        figures = study.write(folder, results, settings, {"settings": manifest}, missing)
        print(study.text(figures, self.suite))
        print(_closing(folder, figures))
        return 1 if missing else 0

    def _rows(self, suite: Suite) -> Sequence[Row]:
        if self.scenes is None:
            return suite.rows
        return suite.stratified(self.scenes)

    def _settings(self, study: Study[Any], folder: Path, own_prompts: bool) -> TrialSettings:
        from .values import TrialSettings

        if self.objects is not None and not self.objects.is_dir():
            raise BadInput(f"--objects is {self.objects}: expected a folder of MJCF files or meshes.")
        if own_prompts:
            for name, given in (("--objects", self.objects is not None), ("--disturb", self.disturb)):
                if given:
                    raise BadInput(f"{name} has no meaning for {self.suite}, whose prompts name its own objects.")
        settings = TrialSettings(
            str(self.policy.resolve()) if "policy" in study.uses else "",
            self.planner,
            self.masks,
            self.attempts,
            self.seconds,
            self.camera_size,
            str(self.objects.resolve()) if self.objects else "",
            self.objects_unit,
            str((folder / VIDEOS).resolve()) if self.videos else "",
            self.vlm if self.planner == "vlm" else None,
            self.depth,
            self.temperature,
            self.sample_steps,
            self.disturb,
        )
        study.check(settings)
        return settings

    def _check_planner(self) -> None:
        """Raises what is wrong with the endpoint before any scene is tried."""
        if self.planner == "vlm":
            from ..planner.vlm import connect

            connect(self.vlm).close()


@contextmanager
def _shown[Result: Record](
    scenes: int, study: Study[Result], settings: TrialSettings
) -> Iterator[Callable[[Row, Result | Failure], None]]:
    """A bar with the figures so far; where there is no terminal, a line every tenth of the way."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from .executor import Failure

    console = Console(file=sys.stderr, highlight=False)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False), console=console, disable=not console.is_terminal,
        speed_estimate_period=600,
    )  # fmt: skip
    task = bar.add_task("scenes", total=scenes)
    sums: dict[str, tuple[float, int]] = {}
    seen = 0

    def done(row: Row, result: Result | Failure) -> None:
        nonlocal seen
        if isinstance(result, Failure):
            console.print(f"{row.id}: no result: {result.message}", markup=False, soft_wrap=True)
            bar.advance(task)
            return
        seen += 1
        for name, (good, count) in study.tally(result, settings).items():
            before = sums.get(name, (0.0, 0))
            sums[name] = before[0] + good, before[1] + count
        told = ", ".join(f"{name} {good / count:.1%}" for name, (good, count) in sums.items() if count)
        bar.update(task, advance=1, description=told)
        if bar.disable and seen % max(1, scenes // 10) == 0:
            console.print(f"{seen} of {scenes} scenes: {told}", markup=False)

    with bar:
        yield done


def _closing(folder: Path, figures: dict[str, Any]) -> str:
    """What to look at, what to do."""
    from .figures import SUMMARY

    line = f"Look at {folder / SUMMARY} and what lies beside it."
    if figures["missing"]:
        line = (
            f"{len(figures['missing'])} scenes have no result and are not counted: run the same command with "
            f"--out {folder} to try them again. {line}"
        )
    return line
