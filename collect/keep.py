"""From takes to episodes: align, append, put the journal away, and tell what became of each."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..datasets.home import journals_dir
from ..datasets.intake import take_in
from ..datasets.journal import journals
from ..datasets.reader import DatasetReader
from ..datasets.writer import DatasetWriter
from .session import Phase
from .studio import PEOPLE, StudioConfig, Take

ENDING = ".journal.h5"


class Keeper:
    """Holds the data set open while takes come in. ``tell`` prints one line without breaking the progress bar."""

    def __init__(self, root: Path, config: StudioConfig, episodes: int | None = None) -> None:
        self.root, self.config = root, config
        self._writer = DatasetWriter(root, config.schema())
        self._journals = journals_dir(root)
        self._journals.mkdir(parents=True, exist_ok=True)
        self._session = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S%f")
        self.next_attempt = self._first_attempt()
        self.kept, self.discarded, self.rows, self.successes = 0, 0, 0, 0
        self.quit = False
        self._console = Console(stderr=False, highlight=False)
        self._bar = Progress(
            TextColumn("recording"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("episodes"),
            TimeElapsedColumn(),
            console=self._console,
            # A person's lines would be lost between the bar's.
            disable=not self._console.is_terminal or config.operator in PEOPLE,
        )
        self._progress = self._bar.add_task("episodes", total=episodes)
        self.tell: Callable[[str], None] = self._console.print
        left = journals(self._journals)
        if left:
            self.tell(
                f"note: {len(left)} journal(s) of episodes that were cut off lie in {self._journals}; "
                "`dataset repair` offers to recover them."
            )

    def _first_attempt(self) -> int:
        """Go on where earlier recordings with this seed ended, so that no scene is recorded twice."""
        if not self._writer.episodes:
            return 0
        reader = DatasetReader(self.root)
        done = [
            int(str(meta.info.extra["attempt"]))
            for meta in reader.episodes()
            if meta.info.seed == self.config.seed and "attempt" in meta.info.extra
        ]
        return max(done, default=-1) + 1

    def journal(self, attempt: int) -> Path:
        """Where the journal of an attempt goes."""
        return self._journals / f"{self._session}-{attempt:06d}{ENDING}"

    def take(self, take: Take) -> None:
        """Keep or discard one take, as its session decided."""
        if take.phase is Phase.KEPT and take.journal is not None:
            self._keep(take, take.journal)
        elif take.journal is not None:
            take.journal.unlink(missing_ok=True)
            self.discarded += 1
            self.tell(f"attempt {take.attempt}: {take.phase.value} ({_label(take)}), {take.summary}")
        self.quit = take.phase is Phase.QUIT

    def _keep(self, take: Take, journal: Path) -> None:
        index, episode = take_in(self._writer, journal, take.info, take.pictures)
        self.kept += 1
        self.rows += episode.rows
        self.successes += take.info.success is True
        lost = sum(count.lost_before_us for count in take.streams.values())
        dropped = f", {lost} camera frames lost" if lost else ""
        late = f", {take.late_ticks} late ticks" if take.late_ticks else ""
        self._bar.advance(self._progress)
        self.tell(
            f"episode_{index}: {take.info.task!r}, {episode.rows / self.config.rate_hz:.1f} s, {_label(take)}; "
            f"{take.summary}{dropped}{late}"
        )

    def summary(self) -> None:
        """What was made, where, and what to do next."""
        total = self._writer.episodes
        if not total:
            self.tell("nothing was kept.")
            return
        first = total - self.kept
        seconds = self.rows / self.config.rate_hz
        self.tell(
            f"\nKept {self.kept} episode(s), {self.rows} rows ({seconds:.0f} s), {self.successes} successful, "
            f"{self.discarded} discarded. {self.root} now holds {total}.\n"
            f"Next:  python cli.py view episode_{max(first, 0)} --dataset {self.root}\n"
            f"       python cli.py replay episode_{max(first, 0)} --dataset {self.root}\n"
            f"       python cli.py dataset check --dataset {self.root}"
        )

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._writer.close()
        if self._journals.is_dir() and not any(self._journals.iterdir()):
            self._journals.rmdir()


def _label(take: Take) -> str:
    return {True: "success", False: "failure", None: "not labelled"}[take.info.success]
