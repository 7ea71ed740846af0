"""How well the target's mask is followed: the hand goes for it, the tracker watches, the simulator knows.

The controller moves the robot, and is shown the simulator's own masks: what is measured is then the tracker and not
how it steers, and a clip does not end early because the tracker was wrong. The tracker gets what it gets on the table:
the same pictures, depth as the camera measures it, the robot's state, and the target's true box to begin with.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...hardware.errors import BadInput, DeviceError
from ..attempt import Attempt, AttemptConfig
from ..chunks import ChunkPolicy, FollowConfig
from ..eyes import Eyes
from ..masks.base import Depth, Mask, MaskTracker, Rgb, State, TargetMask
from ..masks.tracker import RigidTracker
from ..planner.base import Box
from ..rig import twin_rig
from ..session import Session, SessionConfig
from .figures import SUMMARY, TABLE, grouped, new_figure, save_figure, write_table
from .makers import make_library, make_policy
from .mask_scores import GROUPS, MaskFrame, mask_figures, mask_iou, mask_text
from .oracle import OracleMasks, OraclePlanner, Truth
from .store import write_json
from .values import Record, Trial, TrialSettings

J_PLOT = "masks.png"
WANTED = {"none": 0.85, "> 50 %": 0.6}
"""The project's own targets of mean J."""


@dataclass(frozen=True)
class MaskResult(Record):
    """One scene's clip: from the first picture with a mask until the object is held, or the time is up."""

    id: str
    seed: int
    factor: str
    background: str
    lighting: str
    objects: int
    family: str
    noun: str
    colour: str
    end: str  # how the attempt ended
    started: bool  # whether the tracker found something in the box
    frames: tuple[MaskFrame, ...] = ()
    wall_s: float = 0.0


class WatchedTracker:
    """A ``MaskTracker`` that answers with the truth, and holds another tracker's masks against it."""

    def __init__(self, truth: Truth, index: int, tracker: MaskTracker) -> None:
        self._truth, self._index, self._tracker = truth, index, tracker
        self._oracle = OracleMasks(truth)
        self.started = False
        self.frames: list[MaskFrame] = []

    def start(self, rgb: Rgb, depth_m: Depth, box: Box, state: State) -> TargetMask:
        true = self._oracle.start(rgb, depth_m, box, state)
        # A tracker that sees nothing in the box has claimed nothing: its masks are empty and are counted.
        with contextlib.suppress(BadInput):
            self._tracker.start(rgb, depth_m, box, state)
            self.started = True
        return true

    def update(self, rgb: Rgb, depth_m: Depth, state: State) -> TargetMask:
        true = self._oracle.update(rgb, depth_m, state)
        begun = time.thread_time()
        found = self._tracker.update(rgb, depth_m, state) if self.started else None
        spent_ms = 1e3 * (time.thread_time() - begun)
        whole = self._truth.alone(self._index)
        self.frames.append(_frame(true.visible, whole, found, spent_ms))
        return true


def _frame(visible: Mask, whole: Mask, found: TargetMask | None, spent_ms: float) -> MaskFrame:
    """``visible`` and ``whole``: the truth; whole is what would be seen if nothing stood before it."""
    nothing = np.zeros_like(visible)
    hidden = 1.0 - float((visible & whole).sum()) / max(1, int(whole.sum())) if visible.any() else 1.0
    return MaskFrame(
        round(hidden, 4),
        round(mask_iou(nothing if found is None else found.visible, visible), 4),
        round(mask_iou(nothing if found is None else found.amodal, whole), 4),
        round(spent_ms, 3),
        found is None or found.lost,
    )


def run_masks(trial: Trial) -> MaskResult:
    """Watch the tracker in one scene. What an executor runs."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    policy, rate_hz = make_policy(trial.settings, trial.row.seed)
    return watch_scene(trial, policy, rate_hz, RigidTracker())


def watch_scene(trial: Trial, policy: ChunkPolicy, rate_hz: float, tracker: MaskTracker) -> MaskResult:
    """The same with any policy and tracker. Raises DeviceError where the motion was stopped by an error."""
    begun = time.perf_counter()
    settings, row = trial.settings, trial.row
    scene = row.scene(make_library(settings, row.split))
    target = scene.target_object.object
    with twin_rig(scene, settings.camera_size, rate_hz, real_time=False) as (rig, world):
        truth = Truth(world, scene)
        watched = WatchedTracker(truth, scene.target, tracker)
        planner = OraclePlanner(truth, (scene.target,))
        eyes = Eyes(rig.robot, rig.cameras, watched)
        config = AttemptConfig(settings.seconds, follow=FollowConfig(background=False))
        attempt = Attempt(rig.robot, eyes, policy, planner, rate_hz, config)
        limits = SessionConfig(attempts=1, objects=1, place=False)
        result = Session(rig.robot, eyes, planner, attempt, rate_hz, limits).run(scene.instruction)
    if result.end is None or not watched.frames:
        raise DeviceError(f"the hand did not move for the target: {result.events[-1].text}")
    ended = next(event.attempt for event in result.events if event.attempt is not None)
    return MaskResult(
        row.id, row.seed, row.factor, row.background, row.lighting, len(scene.objects), target.family, target.noun,
        target.colour, ended.ending.name.lower(), watched.started, tuple(watched.frames),
        round(time.perf_counter() - begun, 2),
    )  # fmt: skip


# -- what is said of it --------------------------------------------------------------------------------------------


def tally(result: MaskResult, settings: TrialSettings) -> dict[str, tuple[float, int]]:
    """For the bar: J of unhidden and of mostly hidden frames."""
    out = {}
    for name, group in (("J", "none"), ("J hidden", "> 50 %")):
        own = [frame.j for frame in result.frames if frame.group == group]
        out[name] = (float(sum(own)), len(own))
    return out


def write_masks(
    folder: Path, results: Sequence[MaskResult], settings: TrialSettings, about: dict[str, Any], missing: dict[str, str]
) -> dict[str, Any]:
    """trials.parquet (one row a picture), summary.json, masks.png. Returns the summary."""
    figures = {
        **about,
        "n": len(results),
        "missing": missing,
        **mask_figures([result.frames for result in results]),
        "not_started": [result.id for result in results if not result.started],
        "ends": {name: len(own) for name, own in grouped(results, lambda r: r.end).items()},
        "per_background": _per(results, "background"),
        "per_lighting": _per(results, "lighting"),
        "per_family": _per(results, "family"),
        "wall_s_per_scene": round(float(np.mean([result.wall_s for result in results] or [0.0])), 2),
    }
    rows = [
        {"id": result.id, "background": result.background, "lighting": result.lighting, "family": result.family}
        | {"tick": tick} | asdict(frame) | {"group": frame.group}
        for result in results
        for tick, frame in enumerate(result.frames)
    ]  # fmt: skip
    write_table(folder / TABLE, rows)
    write_json(folder / SUMMARY, figures)
    if results:
        _plot(folder / J_PLOT, figures)
    return figures


def _per(results: Sequence[MaskResult], name: str) -> dict[str, dict[str, float]]:
    out = {}
    for key, own in grouped(results, lambda result: str(getattr(result, name))).items():
        found = mask_figures([result.frames for result in own])["j"]
        out[key] = {group: found[group]["mean"] for group in found}
    return out


def _plot(path: Path, figures: dict[str, Any]) -> None:
    """J by how much is hidden, with the intervals over clips."""
    groups = [group for group in GROUPS if group in figures["j"]]
    figure, axes = new_figure(7, 4)
    spread = np.array([figures["j"][group]["per_clip"] for group in groups])
    axes.bar(groups, spread[:, 0], color="tab:blue", alpha=0.7)
    axes.errorbar(groups, spread[:, 0], np.abs(spread[:, 1:] - spread[:, :1]).T, fmt="none", color="black", capsize=4)
    for group, goal in WANTED.items():
        if group in groups:
            place = groups.index(group)
            axes.plot([place - 0.4, place + 0.4], [goal, goal], "--", color="tab:red")
    axes.set(ylim=(0, 1), xlabel="how much of the target is hidden", ylabel="J, mean of clips (95 %)")
    save_figure(figure, path)


def text(figures: dict[str, Any], suite: str) -> str:
    """The summary as lines of text."""
    lines = [f"{suite}: {mask_text(figures)}"]
    for group in ("per_background", "per_lighting"):
        parts = figures[group]
        if len(parts) > 1:
            lines += ["", *(f"{name:18s} {_groups(found)}" for name, found in parts.items())]
    ends = ", ".join(f"{name} {count}" for name, count in figures["ends"].items())
    lines += ["", f"attempts ended: {ends}; {figures['wall_s_per_scene']:.1f} s of computing a scene"]
    if figures["not_started"]:
        lines.append(f"the tracker saw nothing in the box of {', '.join(figures['not_started'])}")
    return "\n".join(lines)


def _groups(found: dict[str, float]) -> str:
    return "  ".join(f"{group} {found[group]:.3f}" for group in GROUPS if group in found)
