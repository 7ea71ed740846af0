"""One scene, tried: the session that deployment runs, in simulated time, scored against the twin.

The session gets what it gets on the table: pictures, depth as the camera measures it, the robot's state. The truth is
read beside it, by the wrappers of this module, and never handed on; ablations that do hand it on say so in their
settings. The same scene gives the same result on every machine that computes alike.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...hardware.clock import NS
from ...hardware.twin.scene_spec import SceneSpec
from ...hardware.twin.success import LiftSuccess
from ...hardware.twin.world import TwinWorld
from ...hardware.values import ArmState, HandState
from ..attempt import Attempt, AttemptConfig, AttemptResult
from ..chunks import ChunkPolicy, FollowConfig
from ..eyes import Eyes, Sight
from ..masks.base import MaskTracker
from ..masks.tracker import RigidTracker
from ..report import Video
from ..rig import twin_rig
from ..session import Session, SessionConfig, SessionResult
from .disturbance import Disturbance
from .makers import WithoutDepth, make_library, make_planner, make_policy, still_there
from .oracle import OracleMasks, Truth
from .scored import ScoredPlanner
from .sources import LAG_S, FilledBox, Lagged, Noisy, NoMask
from .values import AttemptScore, Timing, Trial, TrialResult, TrialSettings

RAISED_M, LIFTED_M = 0.03, 0.10
EMPTY_BOX, BROKEN = "nothing in the box", "stopped by an error"


def run_trial(trial: Trial) -> TrialResult:
    """Try one scene. What an executor runs; the controller is loaded once per process."""
    import torch

    torch.set_num_threads(1)
    policy, rate_hz = make_policy(trial.settings, trial.row.seed)
    return try_scene(trial, policy, rate_hz)


def try_scene(trial: Trial, policy: ChunkPolicy, rate_hz: float) -> TrialResult:
    """The same with any policy, whose commands are at ``rate_hz``."""
    begun = time.perf_counter()
    settings, row = trial.settings, trial.row
    scene = row.scene(make_library(settings, row.split))
    policy = policy if settings.depth == "on" else WithoutDepth(policy)
    wanted = row.wanted or (scene.target,)
    several = bool(row.wanted)
    with contextlib.ExitStack() as stack:
        rig, world = stack.enter_context(twin_rig(scene, settings.camera_size, rate_hz, real_time=False))
        truth = Truth(world, scene)
        lifts = Lifts(world, truth.count)
        planner = ScoredPlanner(make_planner(settings, truth, wanted), truth, wanted, lifts.begin)
        disturbance = Disturbance(world, scene, row.seed) if settings.disturb else None
        if disturbance is not None:
            world.robot.subscribe(disturbance)
        film = _Film(settings.videos, row.id, rate_hz)
        stack.callback(film.close)

        def watch(sight: Sight) -> None:
            lifts.touch(planner.aimed)
            film.add(sight)
            if disturbance is not None:
                disturbance.watch(sight)

        eyes = Eyes(rig.robot, rig.cameras, _masks(settings, truth, row.seed, rate_hz))
        config = AttemptConfig(settings.seconds, follow=FollowConfig(background=False))
        attempt = Attempt(rig.robot, eyes, policy, planner, rate_hz, config, watch)
        # Place, though only lifting counts: the way to the bin shows whether the object is held.
        limits = SessionConfig(settings.attempts, objects=2 * len(wanted) if several else 1)
        result = Session(rig.robot, eyes, planner, attempt, rate_hz, limits).run(row.prompt or scene.instruction)
        lifts.close()
        if result.end is None:
            still_there(settings)
        score = _score(trial, scene, wanted, truth, planner, lifts, result)
        film.keep = score.at_attempt == 0
        moved_m = round(disturbance.moved_m, 4) if disturbance is not None else 0.0
        return replace(score, timing=_timing(result, time.perf_counter() - begun), disturbed_m=moved_m)


class Lifts:
    """Watches every object for the paper's success, attempt by attempt."""

    def __init__(self, world: TwinWorld, count: int) -> None:
        self._world, self._count = world, count
        self._watched: list[LiftSuccess] = []
        self.attempts: list[_Seen] = []
        self.begin(-1)
        world.robot.subscribe(self._update)

    def begin(self, aimed: int) -> None:
        """An attempt on object ``aimed`` begins: what was lifted before it counts for the one before."""
        self.close()
        self._watched = [LiftSuccess(self._world, index) for index in range(self._count)]
        self.attempts.append(_Seen(aimed))

    def touch(self, index: int) -> None:
        """Remember whether the hand touches object ``index``."""
        if index >= 0 and not self.attempts[-1].touched:
            self.attempts[-1].touched = bool(self._world.hand_contacts(index))

    def close(self) -> None:
        """The attempt is over: note what became of its object."""
        if self._watched:
            seen = self.attempts[-1]
            seen.lifted = {index for index, lift in enumerate(self._watched) if lift.achieved}
            seen.highest_m = self._watched[seen.aimed].highest_m if seen.aimed >= 0 else 0.0
            if seen.aimed >= 0:
                x, y, _ = self._world.object_pose(seen.aimed)[:3, 3]
                x0, x1, y0, y1, _, _ = self._world.rig.table_box_m
                seen.off_table = not (x0 < x < x1 and y0 < y < y1)

    def _update(self, reading: ArmState | HandState) -> None:
        for lift in self._watched:
            lift.update(reading.captured_ns)

    @property
    def lifted(self) -> set[int]:
        return set().union(*(seen.lifted for seen in self.attempts))


class _Seen:
    """What happened to the aimed object in one attempt."""

    def __init__(self, aimed: int) -> None:
        self.aimed = aimed
        self.touched = self.off_table = False
        self.lifted: set[int] = set()
        self.highest_m = 0.0


def _score(
    trial: Trial,
    scene: SceneSpec,
    wanted: tuple[int, ...],
    truth: Truth,
    planner: ScoredPlanner,
    lifts: Lifts,
    result: SessionResult,
) -> TrialResult:
    row, target = trial.row, scene.target_object.object
    several = bool(row.wanted)
    attempts = _attempts(planner, lifts.attempts[1:], result, wanted)
    done = _lifted_at(attempts, [saw.lifted for saw in lifts.attempts[1:]], wanted)
    lifted = sum(index in done for index in wanted)
    wrong = len(lifts.lifted - set(wanted))
    at = max(done[index] for index in wanted) if lifted == len(wanted) and not (several and wrong) else 0
    at = at if at <= trial.settings.attempts else 0
    end = result.end.name.lower() if result.end is not None else "error"
    return TrialResult(
        row.id, row.seed, row.factor, row.background, row.lighting, len(scene.objects),
        "" if several else target.family, "" if several else target.noun, "" if several else target.colour,
        result.prompt, len(wanted), at, lifted, sum(truth.in_bin(index) for index in wanted), wrong, end,
        "" if at else _reason(end, attempts, wanted, set(done), wrong if several else 0), result.reason or planner.said,
        result.events[-1].at_s if result.events else 0.0, tuple(attempts), planner.score,
    )  # fmt: skip


def _lifted_at(attempts: Sequence[AttemptScore], lifted: Sequence[Set[int]], wanted: Sequence[int]) -> dict[int, int]:
    """The attempt by which each wanted object had been lifted (``lifted``: by each attempt). One that came along in an
    attempt at another wanted one counts, after as many attempts as were made at itself."""
    done: dict[int, int] = {}
    for k, (score, took) in enumerate(zip(attempts, lifted, strict=True)):
        if score.aimed not in wanted:
            continue
        for index in set(wanted) & took - set(done):
            done[index] = max(score.number, sum(one.aimed == index for one in attempts[: k + 1]))
    return done


def _attempts(
    planner: ScoredPlanner, seen: list[_Seen], session: SessionResult, wanted: tuple[int, ...]
) -> list[AttemptScore]:
    """One score for each box that was asked for, also where the session does not call it an attempt of its own (the
    target was lost on the way and is looked for anew): the hand went out, by the paper's rule it counts."""
    scores = []
    for aim, saw, result in zip(planner.aims, seen, _endings(session), strict=True):
        success = aim.index >= 0 and aim.index in saw.lifted
        reason = "" if success and aim.index in wanted else _missed(aim.index, aim.found, saw, result, wanted)
        scores.append(
            AttemptScore(
                aim.number, aim.instruction, aim.index, round(aim.iou, 4), result.ending.name.lower() if result else "",
                success, reason, round(saw.highest_m, 5), round(result.seconds, 3) if result else 0.0,
                result.ticks if result else 0, result.changed if result else 0,
            )
        )  # fmt: skip
    if session.end is None and scores and scores[-1].reason == EMPTY_BOX:
        scores[-1] = replace(scores[-1], reason=BROKEN)
    return scores


def _endings(result: SessionResult) -> list[AttemptResult | None]:
    """How it ended for each box that was asked for; None where there was no attempt: no box, or nothing in it."""
    endings: list[AttemptResult | None] = []
    for event in result.events:
        if event.kind == "grounding" and event.look is not None:
            endings.append(None)
        elif event.attempt is not None:
            endings[-1] = event.attempt
    return endings


def _missed(aimed: int, found: bool, saw: _Seen, result: AttemptResult | None, wanted: tuple[int, ...]) -> str:
    """Why an attempt failed, the first cause first."""
    if not found:
        return "no box"
    if aimed not in wanted:
        return "wrong object"
    if result is None:
        return EMPTY_BOX
    if saw.off_table and saw.highest_m < LIFTED_M:
        return "pushed off the table"
    if not saw.touched:
        return "target lost" if result.ending.name == "LOST" else "never touched"
    if saw.highest_m < RAISED_M:
        return "touched, not raised"
    return "raised, not held" if saw.highest_m < LIFTED_M else "lifted, not held for 1 s"


def _reason(end: str, attempts: list[AttemptScore], wanted: tuple[int, ...], done: Set[int], wrong: int) -> str:
    """Why a trial failed: its last attempt's reason, or why there was none."""
    if end == "error":
        return BROKEN
    if end == "asked":
        return "the planner asked back"
    if wrong:
        return "took what was not wanted"
    if not attempts:
        return "the planner proposed nothing"
    if done >= set(wanted):
        return "took too many attempts"  # it put down what it did not hold, and began anew
    return next((score.reason for score in reversed(attempts) if score.reason and score.aimed not in done), "not tried")


def _timing(result: SessionResult, wall_s: float) -> Timing:
    attempts = [event.attempt for event in result.events if event.attempt is not None]
    chunk_ms = [ms for attempt in attempts for ms in attempt.counts.chunk_ms] or [0.0]
    return Timing(
        round(wall_s, 2),
        round(float(np.median(chunk_ms)), 3),
        round(float(np.percentile(chunk_ms, 95)), 3),
        sum(attempt.late_ticks for attempt in attempts),
        sum(attempt.counts.overdue for attempt in attempts),
    )


# -- what is tried -------------------------------------------------------------------------------------------------


def _masks(settings: TrialSettings, truth: Truth, seed: int, rate_hz: float) -> MaskTracker:
    makers: dict[str, Callable[[], MaskTracker]] = {
        "tracked": RigidTracker,
        "oracle": lambda: OracleMasks(truth),
        "none": NoMask,
        "box": FilledBox,
        "noisy": lambda: Noisy(RigidTracker(), seed),
        "wrong": lambda: OracleMasks(truth, wrong=True),
        "lagged": lambda: Lagged(RigidTracker(), round(LAG_S * rate_hz)),
    }
    return makers[settings.masks]()


class _Film:
    """A film of the trial, kept when the trial failed."""

    def __init__(self, folder: str, name: str, rate_hz: float) -> None:
        self._path = Path(folder) / f"{name}.mp4" if folder else None
        self._video = Video(self._path, rate_hz) if self._path else None
        self._period_ns = round(NS / rate_hz)
        self.keep = True

    def add(self, sight: Sight) -> None:
        if self._video is not None:
            self._video.add(sight)

    def close(self) -> None:
        if self._video is None or self._path is None:
            return
        self._video.close()
        if not self.keep or not self._video.frames:
            self._path.unlink(missing_ok=True)
