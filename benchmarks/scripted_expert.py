"""How often the scripted expert succeeds, on scenes that it was not tuned on.

    python benchmarks/scripted_expert.py --scenes 300 --objects 1 --split test --workers 2 --json
    python benchmarks/scripted_expert.py --scenes 300 --objects 4..6 --split test

Success is the paper's: the target is lifted 10 cm and held (``hardware/twin/success.py``). The episode is counted as it
would be recorded, through SafeRobot, with the expert's own recoveries; ``@1`` asks for the first honest attempt. Scene
i is the same whatever the number of workers. Nothing is drawn.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tyro
from dexloop.collect.command import parse_objects
from dexloop.collect.operators.script import ScriptConfig, ScriptOperator
from dexloop.collect.tasks import task
from dexloop.deploy.evaluation.statistics import interval
from dexloop.hardware.clock import NS
from dexloop.hardware.errors import DexLoopError
from dexloop.hardware.safety import SafeRobot
from dexloop.hardware.twin.scenes import sample_scene
from dexloop.hardware.twin.success import LiftSuccess
from dexloop.hardware.twin.world import TwinConfig, TwinWorld
from trials import by_category, in_order

TUNING_SEEDS = (0, 9_999)  # train-split scenes that the expert was tuned on: measure on others
MAX_DURATION_S = 60.0


@dataclass(frozen=True)
class ScriptedExpert:
    """Measure the scripted expert on seeded scenes."""

    task: str = "grasp"
    """Whose settings of the script are measured: grasp, or lift, which is what a controller learns from."""
    scenes: int = 300
    """How many scenes."""
    objects: str = "1"
    """Objects per scene: a number, or a range to draw from, such as 4..6."""
    split: Literal["train", "validation", "test"] = "test"
    """Which objects, backgrounds and lightings."""
    workers: int = 1
    """Processes. The result does not depend on it."""
    seed0: int = 100_000
    """Scenes are seed0, seed0 + 1, ..."""
    rehearsals: int | None = None
    """Grasps that may be tried out in a copy of the scene; 0 = none. Not given: the operator's default."""
    miss_rate: float | None = None
    """Share of episodes with a deliberate miss first. Not given: the operator's default."""
    timestep_s: float = 0.002
    """Physics step of the twin that is measured."""
    failures: bool = False
    """List every scene that failed."""
    json: bool = False
    """Print one JSON object as the last line."""


@dataclass(frozen=True)
class Result:
    """One episode."""

    seed: int
    family: str
    stance: str
    objects: int
    success: bool
    first: bool  # lifted with the first honest attempt
    placed: bool
    attempts: int
    misses: int
    rehearsals: int
    duration_s: float
    cpu_s: float
    clamped: float  # share of commands that SafeRobot changed
    families: tuple[str, ...]
    failures: tuple[str, ...]


def run_scene(job: tuple[ScriptedExpert, int]) -> Result:
    """One scene from its seed alone."""
    config, seed = job
    begun = time.process_time()
    low, high = parse_objects(config.objects)
    count = int(np.random.default_rng([seed, 77]).integers(low, high + 1))
    scene = sample_scene(seed, config.split, count)
    world = TwinWorld(TwinConfig(cameras=(), timestep_s=config.timestep_s), scene)
    given = {"rehearsals": config.rehearsals, "miss_rate": config.miss_rate}
    script = ScriptConfig(**{**task(config.task).script, **{k: v for k, v in given.items() if v is not None}})
    operator = ScriptOperator(world, script, seed)
    success = LiftSuccess(world, scene.target)
    world.robot.subscribe(success)
    robot = SafeRobot(world.robot, world.rig)
    clock, period_ns = world.clock, round(NS / script.rate_hz)
    operator.begin(robot.state(), clock.now_ns())
    deadline_ns = clock.now_ns()
    ticks = clamped = 0
    while deadline_ns < MAX_DURATION_S * NS:
        deadline_ns += period_ns
        clock.sleep_until_ns(deadline_ns)
        answer = operator.act(robot.state(), clock.now_ns())
        if answer.command is not None:
            clamped += bool(robot.send(answer.command).flags)
            ticks += 1
        if answer.done:
            break
    report = operator.report
    operator.close()
    world.close()
    target = scene.target_object
    first = success.achieved and report.lifted_at_attempt == 1
    return Result(
        seed, target.object.family, target.stance, count, success.achieved, first, report.placed, report.attempts,
        report.misses, report.rehearsals, deadline_ns / NS, time.process_time() - begun, clamped / max(1, ticks),
        tuple(report.families), tuple(report.failures),
    )  # fmt: skip


def summary(config: ScriptedExpert, results: list[Result], wall_s: float) -> dict[str, Any]:
    """The figures, ready for JSON."""
    count = len(results)
    won = sum(r.success for r in results)
    first = sum(r.first for r in results)
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for result in results:
        if not result.success:
            reasons[result.family][result.failures[-1] if result.failures else "ran out of time"] += 1
    return {
        "task": config.task,
        "scenes": count,
        "objects": config.objects,
        "split": config.split,
        "seeds": [config.seed0, config.seed0 + count - 1],
        "tuning_seeds": list(TUNING_SEEDS),
        "success": won / count,
        "success_95": interval(won, count),
        "at_1": first / count,
        "at_1_95": interval(first, count),
        "placed": sum(r.placed for r in results) / count,
        "attempts_mean": float(np.mean([r.attempts for r in results])),
        "deliberate_misses": sum(r.misses for r in results) / count,
        "rehearsals_mean": float(np.mean([r.rehearsals for r in results])),
        "duration_s_mean": float(np.mean([r.duration_s for r in results])),
        "commands_clamped": float(np.mean([r.clamped for r in results])),
        "scenes_per_minute_per_core": 60 * count / sum(r.cpu_s for r in results),
        "wall_s": wall_s,
        "families_used": dict(Counter(r.families[0] for r in results if r.families)),
        "by_category": by_category(results),
        "failures": {family: dict(counts) for family, counts in sorted(reasons.items())},
        "failed_seeds": [r.seed for r in results if not r.success],
    }


def show(figures: dict[str, Any]) -> None:
    """A table for people."""
    percent = "{:.1%}".format
    low, high = figures["success_95"]
    low_1, high_1 = figures["at_1_95"]
    rows = [
        ("scenes", f"{figures['scenes']} of {figures['objects']} object(s), {figures['split']} split"),
        (
            "seeds",
            f"{figures['seeds'][0]}..{figures['seeds'][1]} (tuned on train {TUNING_SEEDS[0]}..{TUNING_SEEDS[1]})",
        ),
        ("success", f"{percent(figures['success'])}   95 % interval {percent(low)} .. {percent(high)}"),
        ("@1", f"{percent(figures['at_1'])}   95 % interval {percent(low_1)} .. {percent(high_1)}"),
        ("placed in the bin", percent(figures["placed"])),
        (
            "attempts / deliberate misses",
            f"{figures['attempts_mean']:.2f} / {figures['deliberate_misses']:.2f} a scene",
        ),
        ("rehearsals", f"{figures['rehearsals_mean']:.1f} a scene"),
        ("episode", f"{figures['duration_s_mean']:.1f} s of the rig's time"),
        ("commands changed by SafeRobot", percent(figures["commands_clamped"])),
        ("speed", f"{figures['scenes_per_minute_per_core']:.1f} scenes/min/core"),
    ]
    for name, value in rows:
        print(f"{name:32s} {value}")
    print("\ncategory        success   last reason of those that failed")
    for family, (won, count) in figures["by_category"].items():
        reasons = ", ".join(f"{n} x {reason}" for reason, n in figures["failures"].get(family, {}).items())
        print(f"{family:14s} {won:4d}/{count:<4d}   {reasons}")


def main() -> int:
    config = tyro.cli(ScriptedExpert, description=__doc__)
    begun = time.perf_counter()
    results: list[Result] = []
    try:
        parse_objects(config.objects)
        for result in in_order(run_scene, [(config, config.seed0 + i) for i in range(config.scenes)], config.workers):
            results.append(result)
            if len(results) % 10 == 0:
                done = sum(r.success for r in results), sum(r.first for r in results)
                print(f"{len(results)} scenes: {done[0]} succeeded, {done[1]} at once", file=sys.stderr, flush=True)
            if config.failures and not result.success:
                print(f"failed: seed {result.seed}, {result.family} {result.stance}: {'; '.join(result.failures)}")
    except DexLoopError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    figures = summary(config, results, time.perf_counter() - begun)
    show(figures)
    if config.json:
        print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
