"""Inverse kinematics of the arm: ours beside mink and placo, in one run.

1. Random reachable poses (10,000, or those of ``--input``): ours solves all of them, the peers a subset, each from the
   rig's start pose and from 0.3 rad beside the solution. A peer iterates until it is within 1e-6 m and rad, at most 200
   times; a pose that it does not bring within 0.1 mm and 1 mrad counts as missed.
2. A 30 Hz wrist path of 20 s: one solve per frame, clean, with 2 mm of noise on the input, and pulled out of reach.
   Ours is shown as it answers and behind SafeRobot's limiter.

CPU time of one thread throughout, so that a busy machine does not count.
"""

from __future__ import annotations

import json as jsonlib
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tyro
from dexloop.benchmarks.ik_peers import Solver, available
from dexloop.hardware.description import RM75_6F, START_ARM_Q
from dexloop.hardware.errors import BadInput, DexLoopError
from dexloop.hardware.geometry import Transform, pose_error, rot_x, rot_y
from dexloop.hardware.kinematics import ArmKinematics
from dexloop.hardware.limiter import Bounds, Motion, step
from numpy.typing import NDArray

Array = NDArray[np.float64]

RATE_HZ = 30.0
SOLVED_M = SOLVED_RAD = 1e-6
MISSED_M, MISSED_RAD = 1e-4, 1e-3
ITERATIONS = 200
BENT = np.array(START_ARM_Q) + [0, 0, 0, -0.6, 0, 0, 0]


@dataclass(frozen=True)
class InverseKinematicsBenchmark:
    """Solve random poses and a wrist path with every solver and print what each is worth."""

    input: Path | None = None
    """npz with `poses` (N, 4, 4), base_T_flange, or joint angles `q` (N, 7) rad, to use instead of random ones."""
    poses: int = 10_000
    """Random reachable poses."""
    peer_poses: int = 300
    """How many of them the peers are given (they take milliseconds each)."""
    seed: int = 0
    """Of the random poses."""
    json: bool = False
    """Print one JSON object as the last line."""


@dataclass(frozen=True)
class PoseRow:
    """Figures over a set of poses; errors over the solved ones."""

    solver: str
    start: str
    poses: int
    missed: int
    us_median: float
    us_p95: float
    position_max_m: float
    rotation_max_rad: float


@dataclass(frozen=True)
class PathRow:
    """Figures over a path."""

    solver: str
    path: str
    ms_median: float
    ms_p95: float
    error_mm_median: float  # to the target
    error_mm_p95: float
    beyond_mm_median: float  # the same less what no arm could reach
    beyond_mm_p95: float
    largest_step_rad: float
    jerk_rms: float


def load_poses(config: InverseKinematicsBenchmark, arm: ArmKinematics) -> tuple[Transform, Array | None]:
    """base_T_flange (N, 4, 4), and the joint angles (N, 7) where they are known."""
    if config.input is None:
        q = np.random.default_rng(config.seed).uniform(-1, 1, (config.poses, 7)) * arm.limits[:, 1]
        return arm.fk(q), q
    if not config.input.is_file():
        raise BadInput(f"no file {config.input}: give an npz with `poses` (N, 4, 4) or `q` (N, 7)")
    with np.load(config.input) as data:
        if "q" in data:
            q = np.asarray(data["q"], float).reshape(-1, 7)
            return arm.fk(q), q
        if "poses" in data:
            return np.asarray(data["poses"], float).reshape(-1, 4, 4), None
        raise BadInput(f"{config.input} holds {sorted(data)}, expected `poses` (N, 4, 4) or `q` (N, 7)")


def our_poses(arm: ArmKinematics, poses: Transform, q: Array | None, seed: int) -> list[PoseRow]:
    """All poses: batched and one by one, arm angle given and free."""
    n, start = len(poses), np.array(START_ARM_Q)
    rows = []
    for name, angle in (("ours, batched, arm angle given", q), ("ours, batched, arm angle free", None)):
        if name.endswith("given") and q is None:
            continue
        began = time.thread_time()
        batch = arm.ik_batch(poses, None if angle is None else arm.arm_angle(angle), start)
        us = (time.thread_time() - began) / n * 1e6
        ok = batch.ok
        rows.append(
            PoseRow(name, "-", n, int((~ok).sum()), us, us, _max(batch.position_error_m[ok]),
                    _max(batch.rotation_error_rad[ok]))
        )  # fmt: skip
    starts = {"start pose": np.repeat(start[None], n, 0)}
    if q is not None:
        starts["0.3 rad beside"] = _beside(arm, q, seed)
    for where, near in starts.items():
        results, us = [], np.empty(n)
        for i in range(n):
            began = time.thread_time_ns()
            results.append(arm.ik(poses[i], near[i]))
            us[i] = (time.thread_time_ns() - began) * 1e-3
        solved = [r for r in results if r.ok]
        rows.append(
            PoseRow("ours, single", where, n, n - len(solved), *np.percentile(us, [50, 95]).tolist(),
                    _max(np.array([r.position_error_m for r in solved])),
                    _max(np.array([r.rotation_error_rad for r in solved])))
        )  # fmt: skip
    return rows


def peer_poses(solver: Solver, arm: ArmKinematics, poses: Transform, q: Array | None, seed: int) -> list[PoseRow]:
    starts = {"start pose": np.repeat(np.array(START_ARM_Q)[None], len(poses), 0)}
    if q is not None:
        starts["0.3 rad beside"] = _beside(arm, q, seed)
    rows = []
    for where, near in starts.items():
        us, errors = np.empty(len(poses)), np.empty((len(poses), 2))
        for i, pose in enumerate(poses):
            solver.reset(near[i])
            spent = 0
            for _ in range(ITERATIONS):
                began = time.thread_time_ns()
                answer = solver.step(pose)
                spent += time.thread_time_ns() - began
                position, rotation = pose_error(arm.fk(answer), pose)
                if position < SOLVED_M and rotation < SOLVED_RAD:
                    break
            us[i] = spent * 1e-3
            errors[i] = position, rotation
        solved = (errors[:, 0] < MISSED_M) & (errors[:, 1] < MISSED_RAD)
        rows.append(
            PoseRow(solver.name, where, len(poses), int((~solved).sum()), *np.percentile(us, [50, 95]).tolist(),
                    _max(errors[solved, 0]), _max(errors[solved, 1]))
        )  # fmt: skip
    return rows


def _beside(arm: ArmKinematics, q: Array, seed: int) -> Array:
    """Starts (N, 7) rad up to 0.3 rad beside the solutions in each joint, inside the limits."""
    noise = np.random.default_rng(seed + 1).uniform(-0.3, 0.3, q.shape)
    return np.clip(q + noise, arm.limits[:, 0], arm.limits[:, 1])


def _max(values: Array) -> float:
    return float(values.max()) if len(values) else float("nan")


def wrist_paths(arm: ArmKinematics, seed: int) -> dict[str, Transform]:
    """Paths (600, 4, 4): 20 s of a hand that moves 10 cm about and turns by 0.25 rad; noisy; and drawn 0.3 m away."""
    t = np.arange(int(20 * RATE_HZ)) / RATE_HZ
    base = arm.fk(BENT)
    clean = np.repeat(base[None], len(t), 0)
    clean[:, :3, 3] += 0.05 * np.stack([np.sin(1.3 * t), np.sin(0.9 * t), np.sin(1.9 * t)], -1)
    inward = np.array([0.0, 0.0, 0.2405]) - base[:3, 3]
    for i, s in enumerate(t):
        clean[i, :3, :3] = base[:3, :3] @ rot_x(0.25 * np.sin(1.1 * s)) @ rot_y(0.2 * np.sin(0.7 * s))
    noisy = clean.copy()
    noisy[:, :3, 3] += np.random.default_rng(seed).normal(size=(len(t), 3)) * 0.002 / np.sqrt(3)
    away = clean.copy()
    away[:, :3, 3] -= (0.15 * (1 - np.cos(2 * np.pi * t / 10)))[:, None] * inward / np.linalg.norm(inward)
    return {"clean": clean, "2 mm noise": noisy, "out of reach": away}


def path_row(solver: str, name: str, arm: ArmKinematics, path: Transform, q: Array, ms: Array) -> PathRow:
    reached = arm.fk(q)
    error = 1e3 * np.linalg.norm(reached[:, :3, 3] - path[:, :3, 3], axis=-1)
    shoulder = np.array([0.0, 0.0, 0.2405])
    wrist = path[:, :3, 3] - 0.1725 * path[:, :3, 2] - shoulder
    # With the orientation kept, no arm gets nearer than its reach.
    missing = 1e3 * np.maximum(np.linalg.norm(wrist, axis=-1) - 0.466, 0.0)
    jerk = np.diff(q, n=3, axis=0) * RATE_HZ**3
    beyond = np.maximum(error - missing, 0.0)
    return PathRow(
        solver, name, *np.percentile(ms, [50, 95]).tolist(), *np.percentile(error, [50, 95]).tolist(),
        *np.percentile(beyond, [50, 95]).tolist(), float(np.abs(np.diff(q, axis=0)).max()),
        float(np.sqrt((jerk**2).mean())),
    )  # fmt: skip


def limited(q: Array) -> Array:
    """(N, 7) rad behind SafeRobot's limiter at the path's rate, with its default limits."""
    bounds = [Bounds(-link.limit_rad, link.limit_rad, min(0.8 * link.speed_rad_s, 3.1), 0.9 * np.deg2rad(600), 500.0)
              for link in RM75_6F.links]  # fmt: skip
    out, h = q.copy(), 1.0 / RATE_HZ
    for j, bound in enumerate(bounds):
        now = Motion(float(q[0, j]))
        for i in range(1, len(q)):
            speed = (q[i, j] - q[i - 1, j]) / h
            following = now.x == q[i - 1, j]
            now = step(now, float(q[i, j]), speed if abs(speed) <= bound.speed else 0.0, following, h, bound).motion
            out[i, j] = now.x
    return out


def run_paths(arm: ArmKinematics, peers: list[Solver], seed: int) -> list[PathRow]:
    rows = []
    for name, path in wrist_paths(arm, seed).items():
        first = arm.ik(path[0], BENT).q
        q, ms, near = np.empty((len(path), 7)), np.empty(len(path)), first
        for i, pose in enumerate(path):
            began = time.thread_time_ns()
            near = q[i] = arm.ik(pose, near).q
            ms[i] = (time.thread_time_ns() - began) * 1e-6
        rows.append(path_row("ours", name, arm, path, q, ms))
        rows.append(path_row("ours, limited", name, arm, path, limited(q), ms))
        for peer in peers:
            peer.reset(first)
            for i, pose in enumerate(path):
                began = time.thread_time_ns()
                q[i] = peer.step(pose)
                ms[i] = (time.thread_time_ns() - began) * 1e-6
            rows.append(path_row(peer.name, name, arm, path, q, ms))
    return rows


def report(poses: list[PoseRow], paths: list[PathRow], missing: dict[str, str]) -> dict[str, float]:
    """Print both tables; the ratios of the peers' medians to ours."""
    print(f"{'solver':34}{'start':16}{'poses':>7}{'missed':>7}{'us':>9}{'p95':>9}{'max m':>10}{'max rad':>10}")
    for r in poses:
        print(f"{r.solver:34}{r.start:16}{r.poses:7d}{r.missed:7d}{r.us_median:9.1f}{r.us_p95:9.1f}"
              f"{r.position_max_m:10.1e}{r.rotation_max_rad:10.1e}")  # fmt: skip
    print(f"\n{'solver':16}{'path':14}{'ms':>8}{'p95':>8}{'error mm':>10}{'p95':>8}{'beyond mm':>11}{'p95':>8}"
          f"{'step rad':>10}{'jerk rms':>10}")  # fmt: skip
    for p in paths:
        print(f"{p.solver:16}{p.path:14}{p.ms_median:8.3f}{p.ms_p95:8.3f}", end="")
        print(f"{p.error_mm_median:10.3f}{p.error_mm_p95:8.3f}{p.beyond_mm_median:11.3f}{p.beyond_mm_p95:8.3f}", end="")
        print(f"{p.largest_step_rad:10.4f}{p.jerk_rms:10.1f}")
    ratios = {}
    for peer in ("mink", "placo"):
        if peer in missing:
            print(f"\n{peer} cannot be imported here and is left out: {missing[peer]}")
            continue
        for where in ("start pose", "0.3 rad beside"):
            theirs = [r for r in poses if r.solver == peer and r.start == where]
            ours = [r for r in poses if r.solver == "ours, single" and r.start == where]
            if theirs and ours:
                ratios[f"{peer} / ours, {where}"] = theirs[0].us_median / ours[0].us_median
    for name, ratio in ratios.items():
        print(f"time per pose, {name}: {ratio:.1f} x")
    return ratios


def main(config: InverseKinematicsBenchmark) -> None:
    arm = ArmKinematics()
    poses, q = load_poses(config, arm)
    peers, missing = available(1.0 / RATE_HZ)
    rows = our_poses(arm, poses, q, config.seed)
    few = config.peer_poses
    for peer in peers:
        rows += peer_poses(peer, arm, poses[:few], None if q is None else q[:few], config.seed)
    paths = run_paths(arm, peers, config.seed)
    ratios = report(rows, paths, missing)
    if config.json:
        result = {
            "poses": [asdict(r) for r in rows],
            "paths": [asdict(r) for r in paths],
            "ratios": ratios,
            "peers_missing": missing,
        }
        print(jsonlib.dumps(result))


if __name__ == "__main__":
    try:
        main(tyro.cli(InverseKinematicsBenchmark))
    except DexLoopError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error
