"""Trials that cost nothing: module functions, so that other processes find them."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import numpy as np
from dexloop.deploy.evaluation.oracle import Truth
from dexloop.deploy.evaluation.suites import Row
from dexloop.deploy.evaluation.trial import try_scene
from dexloop.deploy.evaluation.values import AttemptScore, PlannerScore, Timing, Trial, TrialResult, TrialSettings
from dexloop.deploy.planner.base import Box, FullLook, Grounding, Look, Proposal, Verdict
from dexloop.hardware.description import OPEN_HAND, START_ARM_Q
from dexloop.hardware.errors import BadInput, DeviceError

STATE = np.concatenate([START_ARM_Q, OPEN_HAND])
SETTINGS = TrialSettings("nowhere")


def rows(count: int) -> list[Row]:
    return [
        Row(f"scene-{k:03d}", 1000 + k, "test", 5, ("object", "background")[k % 2], "walnut_table", "white")
        for k in range(count)
    ]


def fake_trial(trial: Trial) -> TrialResult:
    """By the scene's seed alone, but for the time it took."""
    rng = np.random.default_rng(trial.row.seed)
    at = int(rng.integers(0, trial.settings.attempts + 1))
    reason = "" if at else str(rng.choice(["never touched", "wrong object"]))
    score = AttemptScore(1, "grasp it", 0, 0.9, "held", at == 1, "" if at == 1 else "never touched", 0.2, 5.0, 100, 3)
    row = trial.row
    return TrialResult(
        row.id, row.seed, row.factor, row.background, row.lighting, row.objects, ("cup", "box")[row.seed % 2], "cup",
        "red", "grasp it", 1, at, int(at > 0), int(at > 0), 0, "done" if at else "failed", reason, "", 12.5, (score,),
        PlannerScore(1, 1, 2, 1, 3, 3, 1, 0), Timing(time.time() % 100, 10.0, 20.0, 1, 0),
    )  # fmt: skip


def untimed(result: TrialResult) -> TrialResult:
    return replace(result, timing=Timing())


def troubled(number: int) -> tuple[int, str]:
    """Number 3 fails, 4 hangs, 5 kills its process, 7 is a wrong request."""
    if number == 3:
        raise DeviceError("the camera is gone")
    if number == 4:
        time.sleep(60)
    if number == 5:
        os._exit(9)
    if number == 7:
        raise BadInput("no such thing")
    return number * number, os.environ.get("OMP_NUM_THREADS", "")


class Still:
    """A policy that leaves the arm where it starts."""

    late_most = 4
    cameras = frozenset({"head"})

    def again(self, observation: object) -> None:
        pass

    def start(self, observation: object) -> None:
        pass

    def chunk(self, observation: object, left: object = None, late: int = 0) -> np.ndarray:
        return np.tile(STATE, (32, 1))


def still_trial(trial: Trial) -> TrialResult:
    """A real scene of the twin, without the torch that takes a process seconds to import."""
    return try_scene(trial, Still(), 20.0)


def look(truth: Truth) -> FullLook:
    head, wrist = (truth.world.cameras[name].latest() for name in ("head", "wrist"))
    assert head.depth_m is not None
    assert wrist.depth_m is not None
    return FullLook(head.captured_ns, head.rgb, head.depth_m, STATE, wrist=wrist.rgb, wrist_depth_m=wrist.depth_m)


class Scripted:
    """A planner that answers what it was given."""

    name = "scripted"

    def __init__(self, proposals: list[Proposal], box: Box | None, yes: bool) -> None:
        self.proposals, self.box, self.yes = proposals, box, yes

    def propose(self, prompt: str, first: Look, now: Look, failed: tuple[str, ...] = ()) -> Proposal:
        return self.proposals.pop(0)

    def ground(self, instruction: str, now: Look) -> Grounding:
        return Grounding(self.box)

    def verify(self, instruction: str, before: Look, now: Look) -> Verdict:
        return Verdict(self.yes)

    def complete(self, prompt: str, first: Look, now: Look) -> Verdict:
        return Verdict(self.yes)
