"""How often a trained controller lifts the target in one attempt, on the twin, with the simulator's masks.

    python benchmarks/closed_loop.py --policy runs/small/best --scenes 100 --workers 2 --json
    python benchmarks/closed_loop.py --policy runs/small/best --split validation --objects 1..6 --pictures outputs/loop

One attempt is one roll-out from the start pose, of at most ``--seconds`` of the rig's time, without a reset or help;
success is the paper's: the target is lifted 10 cm and held by the hand for 1 s (``hardware/twin/success.py``).
Commands go through SafeRobot. The mask of the target is the simulator's, of the same exposure as the picture; depth is
noisy as the real camera's. Simulated time stands still while a chunk is computed, unless ``--latency-ticks`` says how
many ticks late it comes. Objects, backgrounds and lightings of the test split are in no training set. Scene i is the
same whatever the number of workers.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

for variable in ("OMP_NUM_THREADS", "LP_NUM_THREADS"):  # before NumPy, MuJoCo and torch: one thread a process
    os.environ.setdefault(variable, "1")
os.environ.setdefault("MUJOCO_GL", "egl")

import numpy as np
import torch
import tyro
from dexloop.collect.command import parse_objects
from dexloop.deploy.evaluation.statistics import interval
from dexloop.hardware.clock import NS
from dexloop.hardware.errors import DexLoopError
from dexloop.hardware.safety import SafeRobot
from dexloop.hardware.twin.scenes import sample_scene
from dexloop.hardware.twin.success import LiftSuccess
from dexloop.hardware.twin.world import TwinConfig, TwinWorld
from dexloop.hardware.values import Command
from dexloop.train.controller.checkpoint import load_controller
from dexloop.train.controller.policy import Controller, ControllerPolicy
from dexloop.train.views import Observation
from numpy.typing import NDArray
from PIL import Image
from trials import by_category, in_order

TRAINING_SEEDS = "scenes of the train split, drawn by `collect --seed`"


@dataclass(frozen=True)
class ClosedLoop:
    """Measure a controller in closed loop on seeded scenes."""

    policy: Path
    """Folder of the controller: config.json and model.safetensors."""
    scenes: int = 100
    """How many scenes."""
    objects: str = "1"
    """Objects per scene: a number, or a range to draw from, such as 4..6."""
    split: Literal["train", "validation", "test"] = "test"
    """Which objects, backgrounds and lightings."""
    seed0: int = 500_000
    """Scenes are seed0, seed0 + 1, ..."""
    seconds: float = 15.0
    """Longest attempt."""
    execute: int = 16
    """Commands of a chunk that are followed before the next one is planned."""
    latency_ticks: int = 0
    """A chunk is there so many ticks after its observation; until then the last one is followed."""
    sample_steps: int | None = None
    """Network evaluations per chunk. Not given: the controller's own."""
    temperature: float | None = None
    """Deviation of the noise that samples start from. Not given: the controller's own."""
    fade: int | None = None
    """Commands over which a chunk takes over from the last one. Not given: the controller's own."""
    workers: int = 1
    """Processes. The result does not depend on it."""
    camera_size: tuple[int, int] = (320, 240)
    """Width and height of the pictures."""
    timestep_s: float = 0.002
    """Physics step of the twin."""
    pictures: Path | None = None
    """Write a contact sheet of each scene there."""
    json: bool = False
    """Print one JSON object as the last line."""


@dataclass
class Result:
    """One attempt."""

    seed: int
    family: str
    success: bool
    reason: str  # why it failed, "" when it did not
    seconds: float
    highest_m: float
    chunk_ms: list[float] = field(default_factory=list)
    clamped: float = 0.0  # share of commands that SafeRobot changed


class Attempt:
    """One roll-out, from the scene's seed alone."""

    def __init__(self, config: ClosedLoop, policy: ControllerPolicy, seed: int) -> None:
        self._config, self._policy, self._seed = config, policy, seed
        low, high = parse_objects(config.objects)
        count = int(np.random.default_rng([seed, 77]).integers(low, high + 1))
        self._scene = sample_scene(seed, config.split, count)
        rate_hz = policy.config.action.rate_hz
        twin = TwinConfig(
            camera_size=config.camera_size, camera_rate_hz=rate_hz, segmentation=True, timestep_s=config.timestep_s
        )
        self._world = TwinWorld(twin, self._scene)
        self._world.cameras["wrist"].segmentation = False
        self._robot = SafeRobot(self._world.robot, self._world.rig)
        self._period_ns = round(NS / rate_hz)
        self._chunk_ms: list[float] = []
        self._sheet: list[NDArray[np.uint8]] = []
        self._touched = False

    def run(self) -> Result:
        config, clock, target = self._config, self._world.clock, self._scene.target
        success = LiftSuccess(self._world, target)
        self._world.robot.subscribe(success)
        self._policy.start(self.observe())
        chunk = np.empty((0, 13))
        ticks = clamped = used = 0
        deadline_ns = clock.now_ns()
        while deadline_ns < config.seconds * NS and not success.achieved:
            if used >= min(config.execute, len(chunk)):
                chunk, used = self._plan(chunk[used:]), 0
            state = self._robot.state()
            applied = self._robot.send(Command(state.captured_ns, chunk[used, :7], chunk[used, 7:]))
            clamped += bool(applied.flags)
            ticks, used = ticks + 1, used + 1
            self._touched |= bool(self._world.hand_contacts(target))
            deadline_ns += self._period_ns
            clock.sleep_until_ns(deadline_ns)
        if config.pictures is not None:
            self._save_sheet(config.pictures, success.achieved)
        reason = "" if success.achieved else self._reason(success)
        family = self._scene.target_object.object.family
        result = Result(
            self._seed, family, success.achieved, reason, deadline_ns / NS, success.highest_m, self._chunk_ms,
            clamped / max(1, ticks),
        )  # fmt: skip
        self._world.close()
        return result

    def _plan(self, left: NDArray[np.float64]) -> NDArray[np.float64]:
        """The next chunk. With latency its first commands are those of the last one that are followed meanwhile."""
        observation = self.observe()
        late = min(self._config.latency_ticks, len(left))
        begun = time.perf_counter()
        chunk = self._policy.chunk(observation, left, late, self._config.sample_steps)
        self._chunk_ms.append(1e3 * (time.perf_counter() - begun))
        if self._config.pictures is not None and len(self._sheet) < 40:
            self._sheet.append(_framed(observation))
        return chunk

    def observe(self) -> Observation:
        """Pictures, the target's true mask and the robot's state, all of now."""
        frames = {name: camera.latest() for name, camera in self._world.cameras.items()}
        state = self._robot.state()
        segmentation = frames["head"].segmentation
        assert segmentation is not None
        return Observation(
            np.concatenate([state.arm.q, state.hand.opening]).astype(np.float32),
            {name: frame.rgb for name, frame in frames.items()},
            {name: frame.depth_m for name, frame in frames.items() if frame.depth_m is not None},
            segmentation == self._scene.target + 1,
        )

    def _reason(self, success: LiftSuccess) -> str:
        position = self._world.object_pose(self._scene.target)[:3, 3]
        x0, x1, y0, y1, _, _ = self._world.rig.table_box_m
        if not (x0 < position[0] < x1 and y0 < position[1] < y1):
            return "pushed off the table"
        if not self._touched:
            return "never touched"
        if success.highest_m < 0.03:
            return "touched, not raised"
        return "raised, not held" if success.highest_m < 0.10 else "lifted, not held for 1 s"

    def _save_sheet(self, folder: Path, won: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        columns = 8
        blank = np.zeros_like(self._sheet[0])
        cells = self._sheet + [blank] * (-len(self._sheet) % columns)
        rows = [np.concatenate(cells[i : i + columns], 1) for i in range(0, len(cells), columns)]
        name = f"{self._seed}_{self._scene.target_object.object.family}_{'won' if won else 'lost'}.jpg"
        Image.fromarray(np.concatenate(rows, 0)).save(folder / name, quality=85)


def _framed(observation: Observation) -> NDArray[np.uint8]:
    """Head picture with the mask's outline over the wrist picture, small."""
    head = observation.rgb["head"].copy()
    edge = observation.mask ^ np.roll(observation.mask, 1, 0) | observation.mask ^ np.roll(observation.mask, 1, 1)
    head[edge] = (255, 0, 255)
    both = np.concatenate([head, observation.rgb["wrist"]], 0)
    return np.asarray(Image.fromarray(both).resize((both.shape[1] * 200 // both.shape[0] * 2, 400)))


_POLICIES: dict[Path, ControllerPolicy] = {}


def _adjusted(controller: Controller, config: ClosedLoop) -> Controller:
    """With how it acts, not what it learnt, as the command line says."""
    objective, action = controller.config.objective, controller.config.action
    if config.temperature is not None:
        objective = replace(objective, temperature=config.temperature)
    if config.fade is not None:
        action = replace(action, fade=config.fade)
    controller.config = replace(controller.config, objective=objective, action=action)
    return controller


def run_scene(job: tuple[ClosedLoop, int]) -> Result:
    """One scene; the controller is loaded once per process."""
    config, seed = job
    torch.set_num_threads(1)
    if config.policy not in _POLICIES:
        _POLICIES[config.policy] = ControllerPolicy(_adjusted(load_controller(config.policy), config))
    policy = ControllerPolicy(_POLICIES[config.policy].controller, seed)
    return Attempt(config, policy, seed).run()


def summary(config: ClosedLoop, results: list[Result], wall_s: float) -> dict[str, Any]:
    """The figures, ready for JSON."""
    won = sum(result.success for result in results)
    return {
        "policy": str(config.policy),
        "scenes": len(results),
        "objects": config.objects,
        "split": config.split,
        "seeds": [config.seed0, config.seed0 + len(results) - 1],
        "training": TRAINING_SEEDS,
        "at_1": won / len(results),
        "at_1_95": interval(won, len(results)),
        "won": won,
        "seconds_mean": float(np.mean([r.seconds for r in results if r.success] or [0.0])),
        "chunk_ms_median": float(np.median([ms for r in results for ms in r.chunk_ms])),
        "chunk_ms_p95": float(np.percentile([ms for r in results for ms in r.chunk_ms], 95)),
        "commands_clamped": float(np.mean([r.clamped for r in results])),
        "failures": dict(Counter(r.reason for r in results if not r.success)),
        "by_category": by_category(results),
        "failed_seeds": [r.seed for r in results if not r.success],
        "wall_s": wall_s,
    }


def show(figures: dict[str, Any]) -> None:
    """A table for people."""
    low, high = figures["at_1_95"]
    print(f"policy     {figures['policy']}")
    print(f"scenes     {figures['scenes']} of {figures['objects']} object(s), {figures['split']} split, seeds "
          f"{figures['seeds'][0]}..{figures['seeds'][1]}; trained on {figures['training']}")  # fmt: skip
    print(f"@1         {figures['at_1']:.1%} ({figures['won']} of {figures['scenes']})   95 % interval {low:.1%} .. "
          f"{high:.1%}")  # fmt: skip
    print(f"attempt    {figures['seconds_mean']:.1f} s of the rig's time, those that succeeded")
    print(f"chunk      {figures['chunk_ms_median']:.1f} ms median, {figures['chunk_ms_p95']:.1f} ms p95, one thread")
    print(f"SafeRobot  changed {figures['commands_clamped']:.1%} of the commands")
    for reason, count in figures["failures"].items():
        print(f"failed     {count:3d} x {reason}")
    print("\ncategory        success")
    for family, (won, count) in figures["by_category"].items():
        print(f"{family:14s} {won:4d}/{count}")


def main() -> int:
    config = tyro.cli(ClosedLoop, description=__doc__)
    begun = time.perf_counter()
    results: list[Result] = []
    try:
        parse_objects(config.objects)
        for result in in_order(run_scene, [(config, config.seed0 + i) for i in range(config.scenes)], config.workers):
            results.append(result)
            if len(results) % 10 == 0:
                won = sum(r.success for r in results)
                print(f"{len(results)} scenes: {won} lifted", file=sys.stderr, flush=True)
    except DexLoopError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    figures = summary(config, results, time.perf_counter() - begun)
    show(figures)
    if config.json:
        print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
