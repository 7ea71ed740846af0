"""Hand retargeting: ours beside dex-retargeting, on the same recorded hand and the same GO-R hand model, in one run.

Every method's answers are judged on the true coupled hand. Tip error is against 1.15 x the operator's tips (common to
all) and against the method's own target (ours: calibrated). The second table plays every method's commands through
the hand's own speed (one full stroke in 1.0 s): what the fingers then really do.
"""

from __future__ import annotations

import json as jsonlib
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tyro
from dexloop.benchmarks.hand_peers import SCALE, PeerRun, run_peer
from dexloop.hardware.errors import BadInput, DexLoopError
from dexloop.hardware.hand_kinematics import HandKinematics
from dexloop.retarget.calibration import HandCalibration, calibrate
from dexloop.retarget.hand import HandRetargetConfig, HandRetargeter
from dexloop.retarget.hand_objective import phalanx_distances_m
from dexloop.retarget.keypoints import TIPS, in_palm_axes, load_recording
from numpy.typing import NDArray

Array = NDArray[np.float64]

DEFAULT_INPUT = Path(__file__).resolve().parents[2] / "shared" / "data" / "human_hand_right.npz"
PINCH_M = 0.030  # the operator pinches where index and thumb landmarks are nearer than this
OVERLAP_M = 0.004  # phalanges this deep in each other count as a collision: more than soft pads give
UNLIMITED_PER_S = 1e3
LEAST_FRAMES = 60


@dataclass(frozen=True)
class HandRetargetingBenchmark:
    """Retarget a recorded hand with every method and print what each is worth."""

    input: Path = DEFAULT_INPUT
    """Recorded hand (docs/hand_files.md)."""
    json: bool = False
    """Print one JSON object as the last line."""


@dataclass(frozen=True)
class Row:
    """One method's figures. mm, rad, s; frames of the recording."""

    method: str
    ms_median: float
    ms_p95: float
    ms_max: float
    tip_mm: float  # against 1.15 x human
    tip_p95_mm: float
    own_tip_mm: float  # against the method's own target
    own_tip_p95_mm: float
    velocity_p99: float
    largest_step_rad: float
    jerk_rms: float
    pinch_gap_mm: float  # between thumb and index tip where the operator pinches
    pinch_closed: float  # share of those frames in which the fingertips touch
    lag_frames: float
    collision: float  # share of frames with thumb and fingers inside each other, fingertip on fingertip not counted


@dataclass(frozen=True)
class Method:
    """A method's answers, the target it aims at, and the answers without its filter (for the lag)."""

    name: str
    run: PeerRun
    own_tips_m: Array  # (N, 5, 3)
    unfiltered: Array  # (N, 6)
    shipped: Array | None = None  # (N, 6) with the hand's own speed limit inside the filter, where the method has one


class Judge:
    """Measures openings against the recording."""

    def __init__(self, points_m: Array, rate_hz: float, kinematics: HandKinematics) -> None:
        self.kinematics = kinematics
        self.rate_hz = rate_hz
        self.human_tips_m = SCALE * points_m[:, TIPS]
        self.pinched = np.linalg.norm(points_m[:, 8] - points_m[:, 4], axis=-1) < PINCH_M

    def row(self, method: Method, opening: Array, reference: Array) -> Row:
        """Figures of ``opening`` (N, 6); lag against ``reference`` (N, 6)."""
        keypoints = self.kinematics.keypoints(opening)
        tips = keypoints[:, TIPS]
        common = np.linalg.norm(tips - self.human_tips_m, axis=-1) * 1e3
        own = np.linalg.norm(tips - method.own_tips_m, axis=-1) * 1e3
        angles = self.kinematics.actuated(opening)
        steps = np.abs(np.diff(angles, axis=0))
        jerk = np.diff(angles, n=3, axis=0) * self.rate_hz**3
        width_m = self.kinematics.hand.phalanx_width_mm * 1e-3
        gap = np.linalg.norm(tips[self.pinched, 1] - tips[self.pinched, 0], axis=-1)
        apart = phalanx_distances_m(keypoints)
        apart[:, 1, 1::2] = np.inf  # thumb tip on fingertip is a pinch
        return Row(
            method.name,
            *(float(v) for v in np.percentile(method.run.ms, [50, 95, 100])),
            float(common.mean()),
            float(np.percentile(common, 95)),
            float(own.mean()),
            float(np.percentile(own, 95)),
            float(np.percentile(steps, 99) * self.rate_hz),
            float(steps.max()),
            float(np.sqrt((jerk**2).mean())),
            float(gap.mean() * 1e3) if len(gap) else float("nan"),
            float((gap <= width_m).mean()) if len(gap) else float("nan"),
            lag_frames(opening, reference),
            float((apart.min(axis=(1, 2)) < width_m - OVERLAP_M).mean()),
        )

    def moved(self, opening: Array) -> Array:
        """What the hand does at its own speed when commanded ``opening`` (N, 6)."""
        step = 1.0 / (self.kinematics.hand.stroke_s * self.rate_hz)
        out = opening.copy()
        for i in range(1, len(out)):
            out[i] = out[i - 1] + np.clip(opening[i] - out[i - 1], -step, step)
        return out


def lag_frames(opening: Array, reference: Array, longest: int = 12) -> float:
    """Shift (frames, by a parabola between them) at which ``opening`` (N, 6) is most like ``reference``."""
    count = len(opening) - longest
    errors = np.array([((opening[lag : lag + count] - reference[:count]) ** 2).mean() for lag in range(longest + 1)])
    best = int(errors.argmin())
    if not 0 < best < longest:
        return float(best)
    before, at, after = errors[best - 1 : best + 2]
    return float(best + 0.5 * (before - after) / (before - 2 * at + after))


def run_ours(
    keypoints_m: Array,
    time_s: Array,
    calibration: HandCalibration,
    config: HandRetargetConfig,
    kinematics: HandKinematics,
) -> PeerRun:
    """Ours over key points (N, 21, 3)."""
    retargeter = HandRetargeter(kinematics, calibration, config)
    openings, ms = [], []
    for points, at_s in zip(keypoints_m, time_s, strict=True):
        begin = time.process_time()
        openings.append(retargeter.retarget(points, float(at_s)).opening)
        ms.append((time.process_time() - begin) * 1e3)
    return PeerRun(np.array(openings), np.array(ms))


def all_methods(keypoints_m: Array, time_s: Array, kinematics: HandKinematics) -> list[Method]:
    """Every method on tracked key points (N, 21, 3)."""
    palm_axes = in_palm_axes(keypoints_m)
    calibrated = calibrate(keypoints_m, kinematics)
    filtered = HandRetargetConfig(speed_limit_per_s=UNLIMITED_PER_S)
    unfiltered = HandRetargetConfig(follower=None, speed_limit_per_s=UNLIMITED_PER_S)
    methods = []
    for label, calibration in (("ours", calibrated), ("ours uncalibrated", HandCalibration())):
        raw = run_ours(keypoints_m, time_s, calibration, unfiltered, kinematics)
        smooth = run_ours(keypoints_m, time_s, calibration, filtered, kinematics)
        shipped = run_ours(keypoints_m, time_s, calibration, HandRetargetConfig(), kinematics)
        tips = calibration.tips_m(palm_axes)
        methods += [
            Method(label, smooth, tips, raw.opening, shipped.opening),
            Method(f"{label}, unfiltered", raw, tips, raw.opening),
        ]
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("vector", "dexpilot"):
            tips = SCALE * palm_axes[:, TIPS]
            raw = run_peer(kind, False, palm_axes, kinematics, Path(folder))
            smooth = run_peer(kind, True, palm_axes, kinematics, Path(folder))
            methods += [Method(kind, smooth, tips, raw.opening), Method(f"{kind}, unfiltered", raw, tips, raw.opening)]
            # The peer given our calibration: what is left is the method.
            fitted = palm_axes.copy()
            fitted[:, TIPS] = calibrated.tips_m(palm_axes) / SCALE
            raw = run_peer(kind, False, fitted, kinematics, Path(folder))
            methods.append(Method(f"{kind}, unfiltered, our calibration", raw, SCALE * fitted[:, TIPS], raw.opening))
    return methods


def other_hands(keypoints_m: Array, time_s: Array, kinematics: HandKinematics) -> dict[str, dict[str, float]]:
    """Mean tip error (mm) on a hand 15 % smaller and larger, against the target of the hand as it was recorded."""
    palm_axes = in_palm_axes(keypoints_m)
    config = HandRetargetConfig(follower=None, speed_limit_per_s=UNLIMITED_PER_S)
    wanted = calibrate(keypoints_m, kinematics).tips_m(palm_axes)
    out: dict[str, dict[str, float]] = {}
    for label, factor in (("15 % smaller", 0.85), ("15 % larger", 1.15)):
        other = keypoints_m * factor
        ours = run_ours(other, time_s, calibrate(other, kinematics), config, kinematics)
        with tempfile.TemporaryDirectory() as folder:
            peer = run_peer("vector", False, palm_axes * factor, kinematics, Path(folder))
        out[label] = {
            "ours": float(np.linalg.norm(kinematics.tips(ours.opening) - wanted, axis=-1).mean() * 1e3),
            "vector": float(
                np.linalg.norm(kinematics.tips(peer.opening) - SCALE * palm_axes[:, TIPS], axis=-1).mean() * 1e3
            ),
        }
    return out


def table(rows: list[Row], title: str) -> str:
    """Readable figures."""
    lines = [
        title,
        f"{'method':34} {'ms med/p95/max':>18} {'tip mm':>12} {'own tip mm':>12} {'v p99':>6} {'step':>5} {'jerk':>6} "
        f"{'gap mm':>7} {'closed':>7} {'lag':>5} {'inside':>7}",
    ]
    lines += [
        f"{r.method:34} {f'{r.ms_median:.2f}/{r.ms_p95:.2f}/{r.ms_max:.1f}':>18} "
        f"{f'{r.tip_mm:.1f}/{r.tip_p95_mm:.1f}':>12} {f'{r.own_tip_mm:.1f}/{r.own_tip_p95_mm:.1f}':>12} "
        f"{r.velocity_p99:6.1f} {r.largest_step_rad:5.2f} {r.jerk_rms:6.0f} {r.pinch_gap_mm:7.1f} "
        f"{r.pinch_closed:7.0%} {r.lag_frames:5.2f} {r.collision:7.1%}"
        for r in rows
    ]
    return "\n".join(lines)


def main(config: HandRetargetingBenchmark) -> None:
    recording = load_recording(config.input)
    keypoints_m, time_s = recording.keypoints_m[recording.tracked], recording.time_s[recording.tracked]
    if len(keypoints_m) < LEAST_FRAMES:
        raise BadInput(
            f"{config.input} has {len(keypoints_m)} tracked frames: jerk and lag need {LEAST_FRAMES} or more; "
            "record longer."
        )
    kinematics = HandKinematics()
    begin = time.process_time()
    calibrate(keypoints_m, kinematics)
    calibration_s = time.process_time() - begin
    judge = Judge(in_palm_axes(keypoints_m), recording.rate_hz, kinematics)
    methods = all_methods(keypoints_m, time_s, kinematics)
    commands = [judge.row(m, m.run.opening, m.unfiltered) for m in methods]
    moved = [
        judge.row(m, judge.moved(m.run.opening if m.shipped is None else m.shipped), m.unfiltered) for m in methods
    ]
    hands = other_hands(keypoints_m, time_s, kinematics)
    print(f"{len(keypoints_m)} frames at {recording.rate_hz:.0f} Hz, {int(judge.pinched.sum())} of them an index pinch")
    print(table(commands, "\nCommands (no speed limit)"))
    print(table(moved, "\nAs the hand moves (one stroke in 1 s)"))
    print(f"\nTip error mm, other hands: {hands}; calibration takes {calibration_s:.2f} s")
    ratio = _of(commands, "vector").ms_median / _of(commands, "ours").ms_median
    print(f"Ours takes 1/{ratio:.1f} of vector's time per frame.")
    if config.json:
        figures = {
            "input": config.input.name,
            "frames": len(keypoints_m),
            "commands": {row.method: asdict(row) for row in commands},
            "as_moved": {row.method: asdict(row) for row in moved},
            "other_hands_tip_mm": hands,
            "calibration_s": calibration_s,
            "time_ratio_vector_to_ours": ratio,
        }
        print(jsonlib.dumps(figures))


def _of(rows: list[Row], method: str) -> Row:
    return next(row for row in rows if row.method == method)


if __name__ == "__main__":
    try:
        main(tyro.cli(HandRetargetingBenchmark))
    except DexLoopError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error
