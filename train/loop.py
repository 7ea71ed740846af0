"""The training loop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any, Literal

from .controller.checkpoint import save_controller
from .controller.draws import Draws
from .controller.parts import Batch
from .curves import plot
from .evaluate import DECISIVE, Validation
from .learner import Learner
from .progress import Progress
from .run_folder import CONFIG, CURVES, DATA, SETTINGS, RunFolder, State

SAVE_EVERY_S = 300.0  # a kill costs at most so much training
Ending = Literal["complete", "out of time", "interrupted"]


@dataclass(frozen=True)
class Standing:
    """Where a run stands, beside what the learner knows."""

    step: int = 0  # steps done
    elapsed_s: float = 0.0  # spent training, over all its programs
    best: float | None = None  # least validation figure DECISIVE so far
    best_step: int = 0

    @staticmethod
    def from_state(state: State, step: int) -> Standing:
        return Standing(step, state["elapsed_s"], state["best"], state["best_step"])

    def to_state(self) -> State:
        return {"elapsed_s": self.elapsed_s, "best": self.best, "best_step": self.best_step}


def train(
    run: RunFolder,
    learner: Learner,
    batches: Iterable[tuple[int, Batch, Draws]],
    validation: Validation,
    standing: Standing,
    progress: Progress,
) -> tuple[Standing, Ending]:
    """Go on from ``standing`` to the planned steps, the end of the minutes, or Ctrl-C. ``batches`` starts at its step
    and never ends. Every process calls this; the main one writes into ``run``."""
    settings, main = learner.settings, learner.accelerator.is_main_process
    began, saved = time.monotonic() - standing.elapsed_s, time.monotonic()
    with _ctrl_c() as asked:
        for step, batch, draws in batches:
            late = settings.minutes is not None and time.monotonic() - began > 60 * settings.minutes
            measured = learner.step(step, batch, draws, (asked.is_set(), late))
            standing = replace(standing, step=step + 1, elapsed_s=time.monotonic() - began)
            ending = _ending(standing.step, settings.steps, *measured.votes)
            if main:
                figures = {"loss": measured.loss, "gradient": measured.gradient, "lr": measured.rate}
                record(run, learner, standing, figures)
                progress.step(standing.step, measured.loss)
            due = standing.step % settings.validate_every == 0 or ending in ("complete", "out of time")
            if due:
                standing = validate(run, learner, validation, standing, progress)
            if main and (due or ending or time.monotonic() - saved > SAVE_EVERY_S):
                run.save_state(learner.state() | standing.to_state(), standing.step)
                saved = time.monotonic()
            if ending:
                return standing, ending
    raise AssertionError("batches never end")


def _ending(step: int, steps: int, interrupted: bool, late: bool) -> Ending | None:
    if step >= steps:
        return "complete"
    return "interrupted" if interrupted else "out of time" if late else None


def validate(
    run: RunFolder, learner: Learner, validation: Validation, standing: Standing, progress: Progress
) -> Standing:
    """Look at held-out episodes with the averaged weights; keep these as the policies ``last`` and maybe ``best``."""
    with learner.averaged() as controller:
        figures = validation.run(controller)
        better = standing.best is None or figures[DECISIVE] < standing.best
        if better:
            standing = replace(standing, best=figures[DECISIVE], best_step=standing.step)
        if learner.accelerator.is_main_process:
            about: dict[str, Any] = {"run": run.path.name, "step": standing.step, "validation": figures}
            about |= {"settings": run.document(SETTINGS), "data": run.document(DATA)}
            for name in ("last", "best") if better else ("last",):
                save_controller(controller, run.path / name, about)
    if learner.accelerator.is_main_process:
        record(run, learner, standing, {"validation": figures})
        progress.checked(standing.step, figures, better)
        plot(run.metrics(), run.path / CURVES, f"{run.path.name} ({run.document(CONFIG)['preset']})")
    return standing


def record(run: RunFolder, learner: Learner, standing: Standing, figures: dict[str, Any]) -> None:
    """Add ``figures`` to the run's metrics and to what TensorBoard or wandb show."""
    run.append({"step": standing.step, **figures, "elapsed_s": round(standing.elapsed_s, 3)})
    flat = figures.get("validation", figures)
    kind = "validation" if "validation" in figures else "training"
    learner.accelerator.log({f"{kind}/{name}": value for name, value in flat.items()}, step=standing.step)


def pace(learner: Learner, batches: Iterable[tuple[int, Batch, Draws]], steps: int = 12) -> float:
    """Seconds per step, measured; the learner is afterwards as it was."""
    before = learner.snapshot()
    seconds = []
    for step, batch, draws in batches:
        started = time.monotonic()
        learner.step(step, batch, draws)
        seconds.append(time.monotonic() - started)
        if len(seconds) == steps:
            break
    learner.load(before, "the state before the measurement")
    settled = sorted(seconds[len(seconds) // 3 :])  # the first steps allocate
    return settled[len(settled) // 2]


@contextmanager
def _ctrl_c() -> Iterator[threading.Event]:
    """Set by the first Ctrl-C, so that the step ends and is saved; a second one ends the program at once."""
    asked = threading.Event()

    def remember(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
