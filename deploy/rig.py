"""The rig that a session runs on: robot behind safety, cameras, tracker. Here on the twin."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..hardware.interfaces import Camera
from ..hardware.safety import SafeRobot
from ..hardware.twin.scene_spec import SceneSpec
from ..hardware.twin.world import TwinConfig, TwinWorld
from .attempt import Attempt, AttemptConfig
from .chunks import ChunkPolicy, FollowConfig
from .eyes import Eyes, Sight
from .masks.base import MaskTracker
from .masks.tracker import RigidTracker
from .planner.base import Planner
from .session import Attempts, Session, SessionConfig

if TYPE_CHECKING:
    from .recording import RollOuts


@dataclass(frozen=True)
class Rig:
    """Robot (already safe) and cameras, with a tracker on the head camera's pictures."""

    robot: SafeRobot
    cameras: Mapping[str, Camera]
    tracker: MaskTracker
    rate_hz: float
    real_time: bool

    def session(
        self,
        policy: ChunkPolicy,
        planner: Planner,
        config: SessionConfig | None = None,
        watch: Callable[[Sight], None] = lambda sight: None,
        tell: Callable[[str], None] = lambda line: None,
        answer: Callable[[str], str] = lambda question: "",
        record: RollOuts | None = None,
    ) -> Session:
        """A session on this rig. In real time chunks are planned in the background, in simulated time at once.
        ``record``: every attempt becomes an episode."""
        eyes = Eyes(self.robot, self.cameras, self.tracker)
        settings = AttemptConfig(follow=FollowConfig(background=self.real_time))
        attempt: Attempts
        if record is None:
            attempt = Attempt(self.robot, eyes, policy, planner, self.rate_hz, settings, watch)
        else:
            robot = record.robot(self.robot)
            both = _each(record.see, watch)
            attempt = record.attempts(Attempt(robot, eyes, policy, planner, self.rate_hz, settings, both), self.robot)
        return Session(self.robot, eyes, planner, attempt, self.rate_hz, config or SessionConfig(), tell, answer)


def _each(*watchers: Callable[[Sight], None]) -> Callable[[Sight], None]:
    def watch(sight: Sight) -> None:
        for watcher in watchers:
            watcher(sight)

    return watch


@contextmanager
def twin_rig(
    scene: SceneSpec, camera_size: tuple[int, int], rate_hz: float, real_time: bool
) -> Iterator[tuple[Rig, TwinWorld]]:
    """The twin with ``scene`` on its table. The world is for those who score; a session sees the rig alone."""
    config = TwinConfig(
        mode="paced" if real_time else "stepped", camera_size=camera_size, camera_rate_hz=max(rate_hz, 20.0)
    )
    world = TwinWorld(config, scene)
    try:
        robot = SafeRobot(world.robot, world.rig)
        yield Rig(robot, world.cameras, RigidTracker(), rate_hz, real_time), world
    finally:
        world.close()
