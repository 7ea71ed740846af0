"""``cli.py collect``: what to record, with whom, on what, into which data set."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..hardware.errors import BadInput, DexLoopError

if TYPE_CHECKING:
    from .keep import Keeper
    from .live import LiveView
    from .studio import StudioConfig, Take

OPERATORS = ("script", "correct", "recorded", "keyboard")
SCRIPTED = ("script", "correct")  # they need nobody, and know everything
SPLITS = ("train", "validation", "test")
ROBOTS = ("twin",)


def parse_objects(text: str) -> tuple[int, int]:
    """``"3"`` -> (3, 3), ``"1..6"`` -> (1, 6). Raises BadInput outside 1..6."""
    match = re.fullmatch(r"([1-6])(?:\.\.([1-6]))?", text.strip())
    if match is None:
        raise BadInput(f"--objects is {text!r}: expected a number from 1 to 6 or a range such as 1..6.")
    low, high = int(match[1]), int(match[2] or match[1])
    if low > high:
        raise BadInput(f"--objects is {text!r}: the range runs backwards; write {high}..{low}.")
    return low, high


def _one_of(flag: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise BadInput(f"{flag} is {value!r}: expected one of {', '.join(known)}.")


@dataclass(frozen=True)
class Collect:
    """Record demonstrations into a LeRobot data set."""

    task: str = "grasp"
    """What is demonstrated: grasp = pick up the named object and put it in the bin; lift = only lift and hold it, which
    is what a controller learns."""
    episodes: int = 5
    """How many episodes to keep."""
    operator: str = "script"
    """Who demonstrates: script (an expert on the twin), correct (a policy, until the script takes over from it),
    recorded (a file of hand key points) or keyboard."""
    policy: Path | None = None
    """Folder of the controller that --operator correct corrects: config.json and model.safetensors."""
    input: Path | None = None
    """File that the recorded operator plays; docs/hand_files.md has its format."""
    dataset: str | None = None
    """Name under recordings/, or a path. Not given: the task's name."""
    robot: str = "twin"
    """What moves: twin, the MuJoCo model of the rig."""
    seed: int = 0
    """Scenes and the script's manner follow from it; episode i is the same whatever --workers is."""
    objects: str = "1..6"
    """Objects per scene: a number, or a range to draw from."""
    workers: int = 1
    """Processes that record scripted episodes side by side."""
    rate_hz: int = 20
    """Rows per second of the data set."""
    split: str = "train"
    """Objects, backgrounds and lightings to draw from: train, validation or test. They share nothing."""
    camera_size: tuple[int, int] = (640, 480)
    """Width and height of the pictures."""
    camera_rate_hz: float | None = None
    """Frames per second of the cameras. Not given: the data set's rate for the script, so that every picture drawn
    becomes a row; 30 for people, as the real cameras."""
    cameras: tuple[Literal["head", "wrist"], ...] = ("head", "wrist")
    """Which cameras are recorded. The head camera is always among them: the target's mask is in its picture."""
    depth: bool = True
    """Record depth too, losslessly: the small controller learns from it. Where a person operates a machine that is too
    slow for its encoder, --no-depth."""
    shadows: bool = False
    """Draw shadows (slow in software)."""
    show: bool = False
    """Show the cameras and the session's messages in a web browser while recording."""
    keep_failures: bool = False
    """Keep scripted and recorded episodes that did not lift the object, labelled as failures."""

    def _config(self) -> StudioConfig:
        """Check everything that can be checked before anything is written or built. Raises BadInput."""
        from .tasks import task

        task(self.task)
        _one_of("--operator", self.operator, OPERATORS)
        _one_of("--robot", self.robot, ROBOTS)
        _one_of("--split", self.split, SPLITS)
        objects = parse_objects(self.objects)
        for flag, value in (("--episodes", self.episodes), ("--workers", self.workers), ("--rate-hz", self.rate_hz)):
            if value < 1:
                raise BadInput(f"{flag} is {value}: expected at least 1.")
        if "head" not in self.cameras or len(set(self.cameras)) != len(self.cameras):
            raise BadInput(f"--cameras is {' '.join(self.cameras)}: expected head, or head wrist.")
        if self.seed < 0:
            raise BadInput(f"--seed is {self.seed}: expected 0 or more.")
        scripted = self.operator in SCRIPTED
        if self.workers > 1 and not scripted:
            raise BadInput(
                f"--workers {self.workers} goes with --operator script or correct: a {self.operator} operator is alone."
            )
        if self.show and self.workers > 1:
            raise BadInput("--show goes with one worker: there is one view.")
        self._check_input()

        from .studio import StudioConfig

        return StudioConfig(
            task=self.task,
            operator=self.operator,
            input=self.input,
            seed=self.seed,
            objects=objects,
            split=self.split,
            rate_hz=float(self.rate_hz),
            paced=self.operator == "keyboard",
            camera_size=self.camera_size,
            camera_rate_hz=self.camera_rate_hz or (self.rate_hz if scripted else 30.0),
            depth=self.depth,
            shadows=self.shadows,
            # A recorded hand follows its own task: it is kept, labelled by what the twin saw.
            keep_failures=self.keep_failures or self.operator == "recorded",
            policy=self.policy,
            cameras=self.cameras,
        )

    def _check_input(self) -> None:
        if self.operator == "correct":
            if self.policy is None or not (self.policy / "config.json").is_file():
                raise BadInput(
                    f"--operator correct corrects a controller, got {self.policy or 'none'}: name its folder with "
                    "--policy, such as runs/<name>/best or deploy/policy."
                )
        elif self.policy is not None:
            raise BadInput(f"--policy {self.policy} goes with --operator correct, not with {self.operator}.")
        if self.operator == "recorded":
            if self.input is None:
                raise BadInput("--operator recorded plays a file: name it with --input FILE (docs/hand_files.md).")
            from ..retarget.keypoints import load_recording

            load_recording(self.input)
        elif self.input is not None:
            raise BadInput(f"--input {self.input} goes with --operator recorded, not with {self.operator}.")
        if self.operator == "keyboard" and not sys.stdin.isatty():
            raise BadInput("--operator keyboard needs a terminal: standard input is none. Run it in one.")

    def run(self) -> int:
        """Record until ``episodes`` are kept. Returns the exit code."""
        from ..datasets.home import resolve

        config = self._config()
        root = resolve(self.dataset or self.task)

        from .keep import Keeper

        with Keeper(root, config, self.episodes) as keeper:
            try:
                for take in self._takes(config, keeper):
                    keeper.take(take)
                    if keeper.kept >= self.episodes or keeper.quit:
                        break
            finally:
                keeper.summary()
        return 0 if keeper.kept >= self.episodes or keeper.quit else 1

    def _takes(self, config: StudioConfig, keeper: Keeper) -> Iterator[Take]:
        """Attempts in their order, as many as may be needed."""
        # A script that fails more often than this is broken, not unlucky.
        attempts = range(keeper.next_attempt, keeper.next_attempt + 3 * self.episodes + 10)
        if config.operator not in SCRIPTED:
            attempts = range(keeper.next_attempt, sys.maxsize)
        if self.workers > 1:
            from .parallel import record_in_parallel

            yield from record_in_parallel(config, attempts, self.workers, keeper.journal)
        else:
            yield from self._takes_here(config, attempts, keeper)
        raise DexLoopError(
            f"only {keeper.kept} of {self.episodes} episodes succeeded in {len(attempts)} attempts: look at the "
            "failures with --keep-failures, or ask for fewer --objects."
        )

    def _takes_here(self, config: StudioConfig, attempts: range, keeper: Keeper) -> Iterator[Take]:
        from .studio import Studio

        view = self._live_view(keeper) if self.show else None

        def tell(line: str) -> None:
            keeper.tell(line)
            if view is not None:
                view.tell(line)

        with contextlib.ExitStack() as stack:
            studio = stack.enter_context(contextlib.closing(Studio(config, tell, view)))
            if view is not None:
                stack.callback(view.close)  # before the studio's cameras, which it watches
            for attempt in attempts:
                take = studio.record(attempt, keeper.journal(attempt))
                yield take
                while take.redo:
                    take = studio.record(attempt, keeper.journal(attempt))
                    yield take

    def _live_view(self, keeper: Keeper) -> LiveView:
        from .live import LiveView

        view = LiveView()
        keeper.tell(f"watch at {view.address}")
        return view
