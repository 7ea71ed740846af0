"""How well the offline planner sees and understands, on seeded scenes of the twin, scored by the simulator's truth.

    python benchmarks/offline_planner.py --scenes 60 --json
    python benchmarks/offline_planner.py --split train --seed0 810000 --objects 6

Every scene is one exposure of the head and wrist cameras with the arm at its start pose and depth noise as the real
camera's; the planner gets what a rig gives. ``boxes``: objects whose box overlaps one of the planner's with IoU above
0.5. Of what is said, ``instruction`` is the scene's own (it names one object, unmistakably for one who sees it),
``named`` each object's "take the <colour> <noun>" where no other is like it, ``colour`` each one's "the <colour>
object" where no other has that colour: right, wrong (a box on another object) and abstained (no box). ``ambiguous`` are
the same words where two objects have that colour, or that colour and noun: right is to ask; ``absent`` is a colour that
no object has: right is to say that there is none. ``all``: of "all <colour> objects", objects chosen rightly, missed
and chosen wrongly. Scenes of the test split are for the final measurement only.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

for variable in ("OMP_NUM_THREADS", "LP_NUM_THREADS"):  # before NumPy and MuJoCo: one thread a process
    os.environ.setdefault(variable, "1")
os.environ.setdefault("MUJOCO_GL", "egl")

import numpy as np
import tyro
from dexloop.collect.command import parse_objects
from dexloop.deploy.evaluation.statistics import interval
from dexloop.deploy.planner.base import Box, FullLook, Look, PlannerError
from dexloop.deploy.planner.grammar import parse
from dexloop.deploy.planner.offline import OfflinePlanner
from dexloop.deploy.planner.ranking import Ranking
from dexloop.hardware.errors import BadInput, DexLoopError
from dexloop.hardware.twin.instructions import alike, phrase
from dexloop.hardware.twin.scenes import SceneSpec, sample_scene
from dexloop.hardware.twin.textures import COLOURS
from dexloop.hardware.twin.world import TwinConfig, TwinWorld
from numpy.typing import NDArray
from trials import in_order

MIN_VISIBLE_PX = 40
KINDS = ("instruction", "named", "colour", "ambiguous", "absent")


@dataclass(frozen=True)
class OfflinePlannerBenchmark:
    """Measure the offline planner's boxes and understanding."""

    scenes: int = 40
    """How many scenes."""
    objects: str = "1..6"
    """Objects per scene: a number, or a range to draw from."""
    split: Literal["train", "validation", "test"] = "validation"
    """Which objects, backgrounds and lightings."""
    seed0: int = 900_000
    """Scenes are seed0, seed0 + 1, ..."""
    workers: int = 1
    """Processes. The result does not depend on it."""
    camera_size: tuple[int, int] = (640, 480)
    """Width and height of the pictures; the closed loop runs at 320 x 240."""
    json: bool = False
    """Print one JSON object as the last line."""


@dataclass
class SceneResult:
    """Counts of one scene."""

    seed: int
    visible: int = 0
    boxed: int = 0
    extra: int = 0  # boxes on no object
    said: Counter[tuple[str, str]] = field(default_factory=Counter)  # (kind of words, right / wrong / abstained)
    every: dict[str, int] = field(default_factory=dict)
    iou: list[float] = field(default_factory=list)
    ms: float = 0.0
    notes: list[str] = field(default_factory=list)


def iou(a: Box, b: Box) -> float:
    """Overlap over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0.0) * max(height, 0.0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def box_of(mask: NDArray[np.bool_]) -> Box:
    """Tight box of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def look_at(world: TwinWorld) -> tuple[FullLook, NDArray[np.int32]]:
    """What the planner sees now, and the truth to score by."""
    frames = {name: camera.latest() for name, camera in world.cameras.items()}
    state = world.robot.state()
    head, wrist = frames["head"], frames["wrist"]
    assert head.depth_m is not None
    assert wrist.depth_m is not None
    assert head.segmentation is not None
    joints = np.concatenate([state.arm.q, state.hand.opening])
    look = FullLook(head.captured_ns, head.rgb, head.depth_m, joints, wrist=wrist.rgb, wrist_depth_m=wrist.depth_m)
    return look, head.segmentation


def verdict(box: Box | None, target: int, boxes: dict[int, Box]) -> str:
    """right, wrong or abstained."""
    if box is None:
        return "abstained"
    return "right" if target in boxes and iou(box, boxes[target]) > 0.5 else "wrong"


def score(planner: OfflinePlanner, scene: SceneSpec, look: Look, truth: NDArray[np.int32]) -> SceneResult:
    """One scene."""
    result = SceneResult(scene.seed)
    boxes = {k: box_of(truth == k + 1) for k in range(len(scene.objects)) if (truth == k + 1).sum() >= MIN_VISIBLE_PX}
    begun = time.process_time()
    try:
        things = planner.see(look).things
    except PlannerError as error:
        result.notes.append(str(error))
        things = ()
    result.ms = 1e3 * (time.process_time() - begun)
    found = {k: max([iou(thing.cluster.box, box) for thing in things] or [0.0]) for k, box in boxes.items()}
    result.iou = list(found.values())
    result.visible, result.boxed = len(found), sum(v > 0.5 for v in found.values())
    result.extra = sum(max([iou(t.cluster.box, b) for b in boxes.values()] or [0.0]) <= 0.5 for t in things)
    result.notes += [f"{scene.objects[k].object.name}: IoU {v:.2f}" for k, v in found.items() if v <= 0.5]
    for kind, words, index in _words(scene, boxes):
        answer = planner.ground(words, look)
        if kind in ("ambiguous", "absent"):
            asked = "ambiguous" in answer.reason
            how = "wrong" if answer.box is not None else "right" if asked == (kind == "ambiguous") else "abstained"
        else:
            how = verdict(answer.box, index, boxes)
        result.said[kind, how] += 1
        if how != "right":
            result.notes.append(f"{kind}: {words!r} {how}: {answer.label} {answer.reason}")
    names = [placed.object.colour for placed in scene.objects]
    result.every = _every(things, set(names), names, boxes)
    return result


def _words(scene: SceneSpec, boxes: dict[int, Box]) -> Iterator[tuple[str, str, int]]:
    """Kind of words, the words, and the object that they mean; -1 none or more than one."""
    yield "instruction", scene.instruction, scene.target
    placed = scene.objects
    for k in boxes:
        others = [placed[j] for j in range(len(placed)) if j != k]
        like = [other for other in others if alike(placed[k], other)]
        words = f"take the {phrase(placed[k].object)}"
        if not like:
            yield "named", words, k
        elif any(other.object.noun == placed[k].object.noun for other in like):
            yield "ambiguous", words, -1
        shared = any(other.object.colour == placed[k].object.colour for other in others)
        yield "ambiguous" if shared else "colour", f"the {placed[k].object.colour} object", -1 if shared else k
    absent = sorted(set(COLOURS) - {item.object.colour for item in placed})
    yield "absent", f"the {np.random.default_rng([scene.seed, 78]).choice(absent)} object", -1


def _every(things: tuple, colours: set[str], names: list[str], boxes: dict[int, Box]) -> dict[str, int]:
    """Objects of "all <colour> objects": right, missed, and chosen though of another colour."""
    counts: Counter[str] = Counter()
    for colour in sorted(colours):
        chosen = Ranking(things).answer(parse(f"all {colour} objects")).chosen
        hit = set()
        for k in chosen:
            over = {j: iou(things[k].cluster.box, box) for j, box in boxes.items()}
            best = max(over, key=lambda j: over[j], default=-1)
            hit.add(best if best >= 0 and over[best] > 0.5 else -1)
        wanted = {k for k in boxes if names[k] == colour}
        counts["right"] += len(wanted & hit)
        counts["missed"] += len(wanted - hit)
        counts["chosen wrongly"] += len(hit - wanted)
    return dict(counts)


_KEPT: dict[str, Any] = {}


def run_scene(job: tuple[OfflinePlannerBenchmark, int]) -> SceneResult:
    """One scene; world and planner are made once per process."""
    config, seed = job
    low, high = parse_objects(config.objects)
    count = int(np.random.default_rng([seed, 77]).integers(low, high + 1))
    scene = sample_scene(seed, config.split, count)
    if "world" not in _KEPT:
        _KEPT["world"] = TwinWorld(TwinConfig(camera_size=config.camera_size, segmentation=True), scene)
        _KEPT["planner"] = OfflinePlanner()
    else:
        _KEPT["world"].reset(scene)
    look, truth = look_at(_KEPT["world"])
    return score(_KEPT["planner"], scene, look, truth)


def summary(config: OfflinePlannerBenchmark, results: list[SceneResult]) -> dict[str, Any]:
    """The figures, ready for JSON."""
    said, every = Counter[tuple[str, str]](), Counter[str]()
    for r in results:
        said.update(r.said)
        every.update(r.every)
    visible, boxed = sum(r.visible for r in results), sum(r.boxed for r in results)
    return {
        "config": asdict(config),
        "scenes": len(results),
        "boxes": {"right": boxed, "of": visible, "95": interval(boxed, visible), "extra": sum(r.extra for r in results),
                  "iou_median": float(np.median([v for r in results for v in r.iou]))},
        "words": {kind: _outcomes(said, kind) for kind in KINDS},
        "all": dict(every),
        "see_ms_median": float(np.median([r.ms for r in results])),
    }  # fmt: skip


def _outcomes(said: Counter[tuple[str, str]], kind: str) -> dict[str, Any]:
    counts = {how: said[kind, how] for how in ("right", "wrong", "abstained")}
    total = sum(counts.values())
    return {**counts, "of": total, "95": interval(counts["right"], total) if total else (0.0, 1.0)}


def show(figures: dict[str, Any], results: list[SceneResult]) -> None:
    """A table for people."""

    def share(right: int, count: int) -> str:
        low, high = interval(right, count)
        return f"{right:4d} of {count:4d}   {right / max(count, 1):6.1%}   95 % {low:.1%} .. {high:.1%}"

    boxes = figures["boxes"]
    print(f"boxes, IoU > 0.5       {share(boxes['right'], boxes['of'])}   median IoU {boxes['iou_median']:.2f}, "
          f"{boxes['extra']} on nothing")  # fmt: skip
    for kind, counts in figures["words"].items():
        if counts["of"]:
            print(f"{kind:12s} right     {share(counts['right'], counts['of'])}   wrong {counts['wrong']}, "
                  f"abstained {counts['abstained']}")  # fmt: skip
    print(f"'all <colour> objects' {figures['all']}")
    print(f"one look               {figures['see_ms_median']:.0f} ms of one thread's time, median")
    for result in results:
        for note in result.notes:
            print(f"  {result.seed}: {note}")


def main() -> int:
    config = tyro.cli(OfflinePlannerBenchmark, description=__doc__)
    try:
        parse_objects(config.objects)
        if config.scenes < 1:
            raise BadInput(f"--scenes is {config.scenes}: expected at least 1")
        jobs = [(config, config.seed0 + i) for i in range(config.scenes)]
        results = list(in_order(run_scene, jobs, config.workers))
    except DexLoopError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    figures = summary(config, results)
    show(figures, results)
    if config.json:
        print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
