"""What the robot does when something breaks: five faults through the real ``deploy`` command, on the twin.

Each fault strikes in the middle of the first reach (or before anything moved, where it is of that kind). Afterwards
the twin runs on for two seconds, so that "stopped" is measured and not believed.

    python benchmarks/faults.py
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from dexloop.deploy.command import SHIPPED_POLICY, Deploy
from dexloop.deploy.evaluation.oracle import Truth
from dexloop.deploy.planner.vlm_boxes import Convention, from_picture
from dexloop.deploy.planner.vlm_config import VlmConfig
from dexloop.deploy.rig import Rig, twin_rig
from dexloop.hardware.clock import NS
from dexloop.hardware.description import START_ARM_Q
from dexloop.hardware.errors import DexLoopError
from dexloop.hardware.geometry import transform
from dexloop.hardware.twin.scene_spec import SceneSpec
from dexloop.hardware.twin.world import TwinWorld
from dexloop.hardware.values import ArmState, HandState
from dexloop.tests.vlm_server import ChatServer, SeeingModel, pictures, texts

REACHING_RAD = 0.35  # the arm is so far from its start pose in the middle of a reach
AFTER_S = 2.0  # the twin runs on after the session
REST_RAD_S = 0.02
AWAY = transform(np.eye(3), np.array([0.0, 0.0, -3.0]))  # under the floor
PIXELS = Convention("pixels", "xyxy")


@dataclass
class Witness:
    """Sees every reading of the robot; strikes once, in the middle of the first reach."""

    strike: Callable[[], None] = lambda: None
    struck_ns: int | None = None
    moved_ns: int = 0  # when the arm last moved
    now_ns: int = 0
    openings: list[float] = field(default_factory=list)  # mean of the fingers', since the fault
    q: Any = None
    moved_rad: float = 0.0
    stops: int = 0  # calls of the robot's stop

    def __call__(self, reading: ArmState | HandState) -> None:
        if isinstance(reading, HandState):
            self.openings.append(float(np.mean(reading.opening[1:5])))
            return
        self.now_ns, self.q = reading.captured_ns, reading.q
        away = float(np.abs(reading.q - START_ARM_Q).max())
        self.moved_rad = max(self.moved_rad, away)
        if np.abs(reading.dq).max() > REST_RAD_S:
            self.moved_ns = reading.captured_ns
        if self.struck_ns is None and away > REACHING_RAD:
            self.struck_ns = reading.captured_ns
            self.openings.clear()
            self.strike()

    @property
    def stopped_s(self) -> float | None:
        """From the fault until the arm moved no more; None where it did not move at all."""
        return None if self.struck_ns is None else max(self.moved_ns - self.struck_ns, 0) / NS

    @property
    def did(self) -> str:
        """What the robot did, in words."""
        if self.moved_rad < 0.02:
            return "did not move"
        at_start = float(np.abs(self.q - START_ARM_Q).max()) < 0.02
        where = "went back to its start" if at_start else "stopped where it was"
        if not self.openings:
            return where
        hand = "hand open" if self.openings[-1] > 0.8 else f"hand kept at {self.openings[-1]:.2f}"
        return f"{where}, {hand}"


@dataclass(frozen=True)
class Fault:
    """One thing that breaks. ``arrange`` is given the world and what it needs, before the session; what it returns is
    called in the middle of the reach."""

    name: str
    told: str
    """What the report's last line must hold."""
    arrange: Callable[[TwinWorld, SceneSpec, TrueModel], Callable[[], None]] = lambda *_: lambda: None
    options: Callable[[Path, str], dict[str, Any]] = lambda folder, url: {}


class FaultyDeploy(Deploy):
    """The command, with a witness on its rig. The fault is none of its settings, so it is no field."""

    fault: Fault
    witness: Witness
    model: TrueModel

    def strike(self, fault: Fault, witness: Witness, model: TrueModel) -> int:
        """Run with a fault; the exit code."""
        for name, value in (("fault", fault), ("witness", witness), ("model", model)):
            object.__setattr__(self, name, value)
        try:
            return self.run()
        except DexLoopError as error:  # as cli.py does
            return error.exit_code

    @contextlib.contextmanager
    def _rig(self, scene: SceneSpec, rate_hz: float) -> Iterator[tuple[Rig, TwinWorld]]:  # type: ignore[override]
        with twin_rig(scene, self.camera_size, rate_hz, self.real_time) as (rig, world):
            self.witness.strike = self.fault.arrange(world, scene, self.model)
            world.robot.subscribe(self.witness)
            stop = rig.robot.stop

            def counted() -> None:
                self.witness.stops += 1
                stop()

            rig.robot.stop = counted  # type: ignore[method-assign]
            try:
                yield rig, world
            finally:
                world.clock.sleep_until_ns(world.clock.now_ns() + round(AFTER_S * NS))


class TrueModel:
    """A vision-language model's server that sees where the scene's object is, until it is gone."""

    def __init__(self) -> None:
        self.box = (0.0, 0.0, 1.0, 1.0)  # of a picture of size 1
        self.server = ChatServer(lambda handler, request: self.answer(handler, request))

    def answer(self, handler: Any, request: dict[str, Any]) -> None:
        seeing = SeeingModel(PIXELS)
        words = texts(request)
        if "squares" in words or "bounding box" not in words:
            seeing(handler, request)
            return
        height, width = pictures(request)[-1].shape[:2]
        box = [round(v) for v in from_picture(self.box, PIXELS, (width, height), (1, 1))]
        text = json.dumps({"reason": "I looked", "visible": True, "label": "object", "bbox_2d": box})
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        handler.send(200, json.dumps({"id": "x", "object": "chat.completion", "choices": [choice]}).encode())


def _server_gone(world: TwinWorld, scene: SceneSpec, model: TrueModel) -> Callable[[], None]:
    x0, y0, x1, y1 = Truth(world, scene).boxes()[0]
    width, height = world.config.camera_size
    model.box = (x0 / width, y0 / height, x1 / width, y1 / height)
    return model.server.stop


def _camera_stalled(world: TwinWorld, scene: SceneSpec, model: TrueModel) -> Callable[[], None]:
    head = world.cameras["head"]

    def stall() -> None:
        head.expose = lambda captured_ns: None  # type: ignore[method-assign]

    return stall


def _target_removed(world: TwinWorld, scene: SceneSpec, model: TrueModel) -> Callable[[], None]:
    return lambda: world.set_object_pose(0, AWAY)


def _damaged(folder: Path) -> Path:
    """The shipped policy, of which half is missing."""
    copy = folder / "policy"
    shutil.copytree(SHIPPED_POLICY, copy)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    return copy


def _vlm(url: str) -> dict[str, Any]:
    waits = {"timeout_s": 5.0, "total_s": 10.0, "retries": 2, "backoff_s": 0.2}
    return {"planner": "vlm", "vlm": VlmConfig(url, "Qwen2.5-VL-7B-Instruct", **waits)}  # type: ignore[arg-type]


FAULTS = (
    Fault("planner's server gone", "gave no answer to", _server_gone, lambda folder, url: _vlm(url)),
    Fault("head camera stalled", "the head camera's newest picture is", _camera_stalled),
    Fault("target taken away", "what is left could not be grasped: ", _target_removed),
    Fault("policy file damaged", "is damaged", options=lambda folder, url: {"policy": _damaged(folder)}),
    Fault(
        "nothing of the kind there",
        "nothing on the table fits the prompt: ",
        options=lambda folder, url: {"instruction": "grasp the pink ball"},
    ),
)


@dataclass(frozen=True)
class Outcome:
    """What became of a run."""

    fault: Fault
    exit_code: int
    witness: Witness
    end: str  # the report's last line
    page: str  # the report

    @property
    def told(self) -> bool:
        """Whether the report's last line is about the fault."""
        return self.fault.told in self.end


def strike(fault: Fault, out: Path, command: Deploy) -> Outcome:
    """One run of ``command``, one fault; the report goes to ``out``."""
    model = TrueModel()
    witness = Witness()
    with tempfile.TemporaryDirectory() as name, model.server as server:
        changes = fault.options(Path(name), server.url)
        code = FaultyDeploy(**{**command.__dict__, "out": out, **changes}).strike(fault, witness, model)
    last = json.loads((out / "timeline.jsonl").read_text().splitlines()[-1])
    return Outcome(fault, code, witness, last["text"], (out / "report.html").read_text())


@dataclass(frozen=True)
class FaultsBenchmark:
    """Break five things and look at the robot."""

    seed: int = 4
    """Of the twin's scene (validation split, one object)."""
    real_time: bool = False
    """Hold the twin to real time: slower to run, and times depend on the machine."""
    out: Path | None = None
    """Keep the reports here."""

    def run(self) -> int:
        """Prints a table. Returns 1 where a fault ended with exit code 0, a robot that does not rest, or a report that
        tells of something else."""
        command = Deploy(seed=self.seed, split="validation", objects=1, attempts=2, real_time=self.real_time)
        safe = True
        with tempfile.TemporaryDirectory() as name:
            folder = self.out or Path(name)
            rows = []
            for number, fault in enumerate(FAULTS):
                with contextlib.redirect_stdout(io.StringIO()):
                    outcome = strike(fault, folder / f"{number}", replace(command))
                rests = outcome.witness.now_ns - outcome.witness.moved_ns > 0.5 * NS or outcome.witness.moved_rad < 0.02
                safe &= rests and outcome.exit_code != 0 and outcome.told
                rows.append(_row(outcome, rests))
        print("| fault | the robot | at rest after | stop called | exit code | last line of the report |")
        print("|---|---|---|---|---|---|")
        print("\n".join(rows))
        return 0 if safe else 1


def _row(outcome: Outcome, rests: bool) -> str:
    seen = outcome.witness
    after = "-" if seen.stopped_s is None else f"{seen.stopped_s:.2f} s" if rests else "NEVER"
    stop = "yes" if seen.stops else "no need"
    end = outcome.end if outcome.told else f"NOT ABOUT THE FAULT: {outcome.end}"
    return f"| {outcome.fault.name} | {seen.did} | {after} | {stop} | {outcome.exit_code} | {end} |"


if __name__ == "__main__":
    raise SystemExit(tyro.cli(FaultsBenchmark).run())
