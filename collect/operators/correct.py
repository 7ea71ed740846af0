"""Corrections: a policy moves the robot until it is about to fail, or for a while, then the script takes over.

So the states that are demonstrated are those that the policy gets into by itself (DAgger, 1011.0686; one handover an
episode as in HG-DAgger, 1810.02890, which the script's seed or what it sees decides instead of a person). What the
policy did is recorded and marked as no example (:data:`dexloop.datasets.episode.LEARN_FROM`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...hardware.clock import NS
from ...hardware.errors import BadInput, DeviceError
from ...hardware.values import Command, RobotState
from ...train.views import Observation
from .base import Event, OperatorInput
from .script import ScriptOperator

if TYPE_CHECKING:
    from ...hardware.twin.world import TwinWorld
    from ...train.controller.policy import ControllerPolicy

ARM_DOF = 7


@dataclass(frozen=True)
class CorrectConfig:
    """When the script takes over."""

    after_s: tuple[float, float] = (0.5, 6.0)
    """Drawn per episode, if nothing else happens before."""
    execute: int = 16
    """Commands of a chunk that are followed before the next one is planned, as in deployment."""
    closed: float = 0.7
    """The hand counts as closed when its fingers' mean opening is below this."""
    rises_m: float = 0.06
    """A closed hand that has risen so far while the object stayed behind has missed it."""
    behind_m: float = 0.02
    lifted_m: float = 0.06
    """An object that is so high needs no help: the episode is discarded."""

    def __post_init__(self) -> None:
        low, high = self.after_s
        if not 0 <= low <= high or self.execute < 1:
            raise BadInput(f"corrections begin after {self.after_s} s, expected 0 <= low <= high; execute >= 1.")


class CorrectOperator:
    """The policy, then the script. Privileged as the script is, and given the target's true mask."""

    name = "correct"

    def __init__(
        self,
        world: TwinWorld,
        script: ScriptOperator,
        policy: ControllerPolicy,
        config: CorrectConfig | None = None,
        seed: int = 0,
    ) -> None:
        self._world, self._script, self._policy = world, script, policy
        self._config = config or CorrectConfig()
        self._seed = seed

    def begin(self, state: RobotState, now_ns: int) -> None:
        """The policy starts; when the script takes over follows from the seed."""
        scene = self._world.scene
        if scene is None or callable(scene) or not scene.objects:
            raise BadInput("correct operator: the twin has no scene with objects: reset() it to a sampled scene first.")
        self._target = scene.target
        self._begun_ns = now_ns
        self._after_s = float(np.random.default_rng([self._seed, 31]).uniform(*self._config.after_s))
        self._taught = False
        self._lowest_m: float | None = None
        self._chunk: NDArray[np.float64] = np.empty((0, 13))
        self._used = 0
        self._policy.start(self._observe(state))

    def resume(self, state: RobotState, now_ns: int) -> None:
        """After a pause: go on where it stopped."""
        self._script.resume(state, now_ns)

    def act(self, state: RobotState, now_ns: int) -> OperatorInput:
        """The policy's command, or the script's."""
        if self._taught:
            return self._script.act(state, now_ns)
        if self._lift_m() > self._config.lifted_m:
            return OperatorInput(None, events=(Event.DISCARD,), note="lifted without help", example=False)
        if (now_ns - self._begun_ns) / NS >= self._after_s or self._missed(state):
            self._taught = True
            self._script.take_over(state, now_ns)
            return self._script.act(state, now_ns)
        if self._used >= min(self._config.execute, len(self._chunk)):
            self._chunk, self._used = self._policy.chunk(self._observe(state), self._chunk[self._used :]), 0
        command = self._chunk[self._used]
        self._used += 1
        return OperatorInput(Command(state.captured_ns, command[:ARM_DOF], command[ARM_DOF:]), example=False)

    def close(self) -> None:
        """Give back what the script holds. Safe to call twice."""
        self._script.close()

    def _missed(self, state: RobotState) -> bool:
        """Whether the hand closed and rose while the object stayed where it was."""
        if hand_opening(state.hand.opening) > self._config.closed:
            self._lowest_m = None
            return False
        height = self._script.palm_height_m(state.arm.q)
        self._lowest_m = height if self._lowest_m is None else min(self._lowest_m, height)
        return height - self._lowest_m > self._config.rises_m and self._lift_m() < self._config.behind_m

    def _lift_m(self) -> float:
        return float(self._world.object_lift_m(self._target))

    def _observe(self, state: RobotState) -> Observation:
        frames = {name: camera.latest() for name, camera in self._world.cameras.items()}
        segmentation = frames["head"].segmentation
        if segmentation is None:
            raise DeviceError("corrections need the head camera's segmentation: switch it on.")
        return Observation(
            np.concatenate([state.arm.q, state.hand.opening]).astype(np.float32),
            {name: frame.rgb for name, frame in frames.items()},
            {name: frame.depth_m for name, frame in frames.items() if frame.depth_m is not None},
            segmentation == self._target + 1,
        )


def hand_opening(opening: NDArray[np.float64]) -> float:
    """Mean of the four fingers' openings (6,), thumb left out: it closes last and not always."""
    return float(np.mean(opening[1:5]))
