"""``cli.py rehearse``: try grasps out on the twin, and keep which ones lifted what they were put on."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..hardware.errors import BadInput

if TYPE_CHECKING:
    from .trials import TrialConfig


@dataclass(frozen=True)
class Rehearse:
    """Try grasps out on copies of twin scenes, good ones and bad ones: what `train grasps` learns from. Interrupted, it
    goes on where it was."""

    scenes: int = 400
    """How many scenes; every object of a scene is grasped in turn."""
    grasps: int = 14
    """Grasps tried on each object."""
    objects: str = "1..6"
    """Objects per scene: a number, or a range to draw from."""
    split: Literal["train", "validation", "test"] = "train"
    """Objects, backgrounds and lightings to draw from. They share nothing."""
    seed: int = 0
    """Scenes and grasps follow from it; scene i is the same whatever --workers is."""
    camera_size: tuple[int, int] = (320, 240)
    """Width and height of the pictures."""
    policy: Path | None = None
    """Try what this controller proposes (a policy folder or a run; trained with goal.kind=grasp). Not given: what the
    script knows, and the same put a little wrong."""
    out: str = "rehearsals"
    """Name under recordings/, or a path."""
    workers: int = 1
    """Processes."""

    def run(self) -> int:
        """Returns the exit code."""
        from ..datasets.home import resolve
        from ..datasets.rehearsals import open_folder, scene_path

        config = self._config()
        root = resolve(self.out)
        open_folder(root, asdict(config))
        wanted = [index for index in range(self.scenes) if not scene_path(root, index).is_file()]
        tried, lifted = self._work(config, root, wanted)
        share = f", {lifted / tried:.0%} lifted" if tried else ""
        print(
            f"{root} holds {self.scenes} scenes; {tried} grasps were tried now{share}.\n"
            f"Next: python cli.py train grasps --policy runs/<name>/best --rehearsals {self.out}"
        )
        return 0

    def _config(self) -> TrialConfig:
        from .command import parse_objects

        objects = parse_objects(self.objects)
        for flag, value in (("--scenes", self.scenes), ("--grasps", self.grasps), ("--workers", self.workers)):
            if value < 1:
                raise BadInput(f"{flag} is {value}: expected at least 1.")
        if self.seed < 0:
            raise BadInput(f"--seed is {self.seed}: expected 0 or more.")

        from ..train.prepare import load_init
        from .trials import TrialConfig

        policy = None if self.policy is None else str(self.policy)
        if policy is not None and load_init(Path(policy)).goal is None:
            raise BadInput(f"{policy} proposes no grasps: train it with --override goal.kind=grasp first.")
        return TrialConfig(self.seed, self.split, objects, self.grasps, self.camera_size, policy)

    def _work(self, config: TrialConfig, root: Path, wanted: list[int]) -> tuple[int, int]:
        from rich.progress import track

        tried = lifted = 0
        with contextlib.closing(self._results(config, root, wanted)) as results:
            for made in track(results, description="rehearsing scenes", total=len(wanted)):
                tried, lifted = tried + made[0], lifted + made[1]
        return tried, lifted

    def _results(self, config: TrialConfig, root: Path, wanted: list[int]) -> Generator[tuple[int, int]]:
        from .parallel import processes
        from .trials import rehearse_scene

        if self.workers == 1:
            for index in wanted:
                yield rehearse_scene(config, root, index)
            return
        with processes(self.workers) as pool:
            for future in as_completed([pool.submit(rehearse_scene, config, root, index) for index in wanted]):
                yield future.result()
