"""What a run shows while it goes: a bar with loss, error on held-out episodes and time left; a line per validation."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

_SMOOTHING = 0.98  # of the loss shown


class Progress:
    """``shown=False``: silent, for processes beside the main one."""

    def __init__(self, shown: bool = True) -> None:
        self._console = Console(highlight=False, quiet=not shown)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self._console,
            disable=not shown or not self._console.is_terminal,
            speed_estimate_period=60,
        )
        self._task = self._bar.add_task("training", total=None)
        self._loss: float | None = None
        self._held_out = ""

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin(self, steps: int, done: int) -> None:
        """``done`` of ``steps`` are behind us; the time left is told from here on."""
        self._bar.reset(self._task, total=steps, completed=done, description="training")

    def say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False)

    def step(self, done: int, loss: float) -> None:
        self._loss = loss if self._loss is None else _SMOOTHING * self._loss + (1 - _SMOOTHING) * loss
        self._bar.update(self._task, completed=done, description=f"loss {self._loss:.4f}{self._held_out}")

    def checked(self, step: int, figures: dict[str, float], best: bool) -> None:
        """A validation is done."""
        tips = f"fingertips {figures['tip_mm_first']:.1f} mm"
        self._held_out = f", held out: {tips}"
        self.say(
            f"step {step}: held out (first half of the chunk): {tips}, palm {figures['palm_mm_first']:.1f} mm "
            f"{figures['palm_deg_first']:.1f} deg, openings {figures['opening_first']:.3f}; loss {figures['loss']:.4f}"
            + (" - the best so far" if best else "")
        )
