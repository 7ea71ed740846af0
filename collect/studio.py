"""Where episodes are recorded on the twin: world, cameras, safety, operator and recorder put together.

One studio per process; scenes come and go, the renderer stays.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..datasets.episode import EpisodeInfo
from ..datasets.recorder import TARGET_KEY, Recorder, RecorderConfig, StreamCount
from ..datasets.schema import CameraSchema, Schema
from ..hardware.errors import BadInput
from ..hardware.rig import DEXGRASPVLA_RIG
from ..hardware.safety import SafeRobot, SafetyConfig
from ..hardware.twin.success import LiftConfig, LiftSuccess
from ..hardware.twin.world import TwinConfig, TwinWorld
from .command import SCRIPTED
from .live import LiveView
from .operators.base import Operator
from .operators.recorded import RecordedOperator
from .operators.script import ScriptConfig, ScriptOperator
from .session import EpisodeSession, Outcome, Phase, SessionConfig
from .tasks import task

if TYPE_CHECKING:
    from ..hardware.twin.scene_spec import SceneSpec
    from ..train.controller.policy import Controller

PEOPLE = ("keyboard",)  # operators who decide when an episode starts and whether it is kept
MASK_CAMERA = "head"
DEPTH_UNIT_M = {"head": 0.001, "wrist": 0.0001}


@dataclass(frozen=True)
class StudioConfig:
    """Everything that an episode depends on beside its attempt number. Stored with every episode."""

    task: str
    operator: str
    input: Path | None
    seed: int
    objects: tuple[int, int]
    split: str
    rate_hz: float
    paced: bool
    camera_size: tuple[int, int]
    camera_rate_hz: float
    depth: bool
    shadows: bool
    keep_failures: bool
    policy: Path | None = None  # whom corrections are for
    cameras: tuple[str, ...] = tuple(camera.name for camera in DEXGRASPVLA_RIG.cameras)

    @property
    def control_rate_hz(self) -> float:
        """A script plans for the data set's rate; a person's hand is followed at the hand controller's."""
        return self.rate_hz if self.operator in SCRIPTED else DEXGRASPVLA_RIG.arms[0].hand.command_rate_hz

    def schema(self) -> Schema:
        """What the data set holds."""
        width, height = self.camera_size
        units = DEPTH_UNIT_M if self.depth else {}
        cameras = (CameraSchema(name, width, height, units.get(name, 0.0)) for name in self.cameras)
        return Schema(int(self.rate_hz), tuple(cameras))


@dataclass(frozen=True)
class Take:
    """One attempt as it was recorded: what the parent process needs to keep it or not."""

    attempt: int
    phase: Phase
    journal: Path | None
    info: EpisodeInfo
    summary: str
    pictures: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)  # for the statistics
    streams: Mapping[str, StreamCount] = field(default_factory=dict)
    late_ticks: int = 0

    @property
    def redo(self) -> bool:
        """The operator wants the same scene again."""
        return self.phase is Phase.REDO


class Studio:
    """Records attempts, one after another. Close it to give the renderer back."""

    def __init__(
        self, config: StudioConfig, tell: Callable[[str], None] = lambda line: None, view: LiveView | None = None
    ) -> None:
        self.config = config
        self._tell = tell
        self._view = view
        self._safety = SafetyConfig()
        settings = task(config.task).script
        self._script = ScriptConfig(rate_hz=config.rate_hz, **settings) if config.operator in SCRIPTED else None
        self._world: TwinWorld | None = None
        self._operator: Operator | None = None
        self._controller: Controller | None = None

    def record(self, attempt: int, journal: Path) -> Take:
        """Record the attempt of that number into ``journal``. Raises what stopped it, the robot stopped first."""
        config = self.config
        scene = task(config.task).scene(config.seed, attempt, config.objects, config.split)
        world = self._set_up(scene)
        operator = self._operator_for(world, attempt)
        robot = SafeRobot(world.robot, world.rig, self._safety)
        success = LiftSuccess(world, scene.target, LiftConfig(hold_s=task(config.task).hold_s))
        unsubscribe = world.robot.subscribe(success)
        people = config.operator in PEOPLE
        session = EpisodeSession(
            robot,
            operator,
            SessionConfig(config.control_rate_hz, not people, config.keep_failures, task(config.task).clean),
            lambda: success.achieved,
            self._tell if config.operator not in SCRIPTED else lambda line: None,
        )
        recorder = Recorder(
            robot,
            list(world.cameras.values()),
            journal,
            RecorderConfig(depth=config.depth, depth_unit_m=DEPTH_UNIT_M),
        )
        if people:
            self._tell(scene.instruction)
        late_before = world.clock.late_ticks
        try:
            outcome = session.run(recorder, self._info(scene, attempt))
        finally:
            unsubscribe()
            robot.detach()
            if operator is not self._operator:
                operator.close()
        return self._take(attempt, outcome, recorder, world.clock.late_ticks - late_before)

    def _take(self, attempt: int, outcome: Outcome, recorder: Recorder, late_ticks: int) -> Take:
        return Take(
            attempt,
            outcome.phase,
            outcome.journal,
            outcome.info,
            str(outcome.verdict),
            recorder.statistics_pictures(),
            recorder.counts,
            late_ticks,
        )

    def _set_up(self, scene: SceneSpec) -> TwinWorld:
        config = self.config
        if self._world is None:
            twin = TwinConfig(
                mode="paced" if config.paced else "stepped",
                cameras=config.cameras,
                camera_size=config.camera_size,
                camera_rate_hz=config.camera_rate_hz,
                depth=config.depth,
                segmentation=True,
                shadows=config.shadows,
            )
            self._world = TwinWorld(twin, scene)
            for name, camera in self._world.cameras.items():
                camera.segmentation = name == MASK_CAMERA  # drawn only where the target's mask comes from
            if self._view is not None:
                self._view.follow(self._world.cameras.values())
        else:
            self._world.reset(scene)
        return self._world

    def _operator_for(self, world: TwinWorld, attempt: int) -> Operator:
        """A script is made anew for each attempt, so that an attempt depends on nothing before it."""
        if self.config.operator in SCRIPTED:
            seed = int(np.random.SeedSequence([self.config.seed, attempt, 1]).generate_state(1)[0])
            script = ScriptOperator(world, self._script, seed)
            return script if self.config.policy is None else self._correcting(world, script, seed)
        if self._operator is None:
            if self.config.operator == "recorded":
                assert self.config.input is not None, "checked when the command was read"
                self._operator = RecordedOperator(self.config.input, world.rig)
            else:
                from .operators.keyboard import KeyboardOperator

                self._operator = KeyboardOperator(world.rig, tell=self._tell)
        return self._operator

    def _correcting(self, world: TwinWorld, script: ScriptOperator, seed: int) -> Operator:
        """The script after the policy. Raises BadInput where the policy is none of the data set's rate."""
        import torch

        from ..train.controller.checkpoint import load_controller
        from ..train.controller.policy import ControllerPolicy
        from .operators.correct import CorrectOperator

        assert self.config.policy is not None
        torch.set_num_threads(1)
        if self._controller is None:
            self._controller = load_controller(self.config.policy)
        rate_hz = self._controller.config.action.rate_hz
        if rate_hz != self.config.rate_hz:
            raise BadInput(
                f"{self.config.policy} acts {rate_hz} times a second, the data set has {self.config.rate_hz:g} rows: "
                f"record with --rate-hz {rate_hz}."
            )
        return CorrectOperator(world, script, ControllerPolicy(self._controller, seed), seed=seed)

    def _info(self, scene: SceneSpec, attempt: int) -> EpisodeInfo:
        extra: dict[str, Any] = {
            TARGET_KEY: scene.target + 1,
            "target": scene.target_object.object.name,
            "attempt": attempt,
            "scene": scene.to_json(),
            "config": self._resolved(),
        }
        return EpisodeInfo(task=scene.instruction, operator=self.config.operator, seed=self.config.seed, extra=extra)

    def _resolved(self) -> dict[str, Any]:
        """Every setting that this episode was recorded with, defaults included, as JSON."""
        assert self._world is not None
        parts: dict[str, Any] = {"collect": self.config, "twin": self._world.config, "safety": self._safety}
        if self._script is not None:
            parts["script"] = self._script
        return json.loads(json.dumps({name: asdict(part) for name, part in parts.items()}, default=str))

    def close(self) -> None:
        """Give back the operator's device and the renderer. Safe to call twice."""
        if self._operator is not None:
            self._operator.close()
            self._operator = None
        if self._world is not None:
            self._world.close()
            self._world = None
