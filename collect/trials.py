"""One scene's grasps, each tried on a private copy of it: good ones, bad ones, and good ones put a little wrong."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ..datasets.rehearsals import GOAL_DIM, RehearsedScene, write_scene
from ..hardware.description import START_ARM_Q
from ..hardware.rig import DEXGRASPVLA_RIG
from ..hardware.twin.scenes import sample_scene
from ..hardware.twin.world import TwinConfig, TwinWorld
from ..train.controller.reachable import pose_of
from ..train.views import Observation
from .expert.grasps import UP, Grasp, GraspPlanner
from .expert.motion import SmoothNoise
from .expert.preview import HandPreview
from .expert.reach import Reach
from .expert.rehearsal import Rehearsal
from .operators.script import ScriptConfig, draw_manner, object_shapes
from .tasks import LIFT_VARIED

if TYPE_CHECKING:
    from ..train.controller.policy import ControllerPolicy

Array = NDArray[np.float64]
SMALLEST_PX = 25  # a target of which less shows is no target
NEIGHBOURS_M = 0.22  # what is farther away has no part in a grasp
HEADINGS = 12
BETTER, ANY = 0.1, 1.0  # deviation of the noise on scores by which grasps are drawn: the best ones, or all sorts
BETTER_SHARE = 0.4
LOOSE_SHARE = 0.6  # of the grasps are moved
LOOSE_M, LOOSE_DEG = 0.008, 5.0  # deviation, per axis
MISSED_M, MISSED_DEG = 0.003, 1.0  # what the arm does beside what it was to do


@dataclass(frozen=True)
class TrialConfig:
    """Everything that a scene's trials depend on beside its index."""

    seed: int
    split: str
    objects: tuple[int, int]
    grasps: int
    camera_size: tuple[int, int]
    policy: str | None = None  # whose proposals are tried; None: the script's grasps


def rehearse_scene(config: TrialConfig, root: Path, index: int) -> tuple[int, int]:
    """Draw the scene, try grasps on each of its objects, write what was seen and what happened. Returns how many were
    tried and how many lifted their object to 10 cm."""
    rng = np.random.default_rng(np.random.SeedSequence([config.seed, index, 19]))
    count = int(rng.integers(config.objects[0], config.objects[1] + 1))
    twin = TwinConfig(cameras=("head",), camera_size=config.camera_size, segmentation=True, timestep_s=0.004)
    world = TwinWorld(twin, sample_scene(int(rng.integers(2**31)), config.split, count))
    try:
        scene = _tried(world, config, rng)
    finally:
        world.close()
    write_scene(root, index, scene)
    return len(scene.target), int((scene.lift_m >= ScriptConfig().lifted_m).sum())


def _tried(world: TwinWorld, config: TrialConfig, rng: np.random.Generator) -> RehearsedScene:
    frame, robot = world.cameras["head"].latest(), world.robot.state()
    instances, depth_m = frame.segmentation, frame.depth_m
    assert instances is not None
    assert depth_m is not None
    state = np.concatenate([robot.arm.q, robot.hand.opening]).astype(np.float32)
    made: list[tuple[int, Array, float]] = []
    trials = Trials(world, rng)
    try:
        for target in range(world.object_count):
            mask = instances == target + 1
            if mask.sum() < SMALLEST_PX:
                continue
            if config.policy is None:
                results = trials.of_script(target, config.grasps)
            else:
                observation = Observation(state, {"head": frame.rgb}, {"head": depth_m}, mask)
                results = trials.of_goals(target, _proposals(config.policy, observation, config.grasps, rng))
            made += [(target, *result) for result in results]
    finally:
        trials.close()
    return RehearsedScene(
        frame.rgb,
        np.rint(1000 * depth_m).clip(0, 65535).astype(np.uint16),
        instances.astype(np.uint8),
        state,
        np.array([target for target, _, _ in made], np.int64),
        np.array([goal for _, goal, _ in made], np.float32).reshape(-1, GOAL_DIM),
        np.array([lift_m for _, _, lift_m in made], np.float32),
    )


class Trials:
    """Grasps tried on copies of one scene, worked as in demonstrations (task ``lift-varied``)."""

    def __init__(self, world: TwinWorld, rng: np.random.Generator) -> None:
        self._rng = rng
        script = ScriptConfig(**LIFT_VARIED)
        self._reach = Reach(DEXGRASPVLA_RIG, script.reach)
        self._preview, self._families = HandPreview(), script.grasps.families
        self._planner = GraspPlanner(replace(script.grasps, headings=HEADINGS), self._preview)
        self._rehearsal = Rehearsal(world, within_m=NEIGHBOURS_M)
        self._manner, self._noise_scale = draw_manner(script, rng), script.noise_scale
        self._shapes = [shape.moved(world.object_pose(i)) for i, shape in enumerate(object_shapes(world))]

    def of_script(self, target: int, count: int) -> list[tuple[Array, float]]:
        """Up to ``count`` grasps of object ``target``: goals (15,), :data:`..datasets.rehearsals.GOAL_DIM`, and how far
        (m) each raised it. Grasps that the arm cannot do are passed over."""
        shape, others, rng = self._shapes[target], self._others(target), self._rng
        grasps = self._planner.propose(shape, others, self._reach.roughly, rng.uniform(0, 2 * np.pi))
        spread = rng.choice([BETTER, ANY], len(grasps), p=[BETTER_SHARE, 1 - BETTER_SHARE])
        order = np.argsort([-grasp.score for grasp in grasps] + spread * rng.normal(size=len(grasps)))
        made: list[tuple[Array, float]] = []
        for index in order[: 3 * count]:
            if len(made) == count:
                break
            grasp = grasps[index]
            if rng.random() < LOOSE_SHARE:
                grasp = _moved(grasp, rng, LOOSE_M, LOOSE_DEG)
            lift_m = self._lift_m(target, grasp)
            if lift_m is not None:
                made.append((goal_of(grasp), lift_m))
        return made

    def of_goals(self, target: int, goals: Array) -> list[tuple[Array, float]]:
        """The same of ``goals`` (N, 15). One that the arm cannot do raises nothing."""
        return [(goal, self._lift_m(target, self._grasp(target, goal)) or 0.0) for goal in goals]

    def _lift_m(self, target: int, grasp: Grasp) -> float | None:
        """How far the grasp raises the target, done not quite as it was to be; None where the arm cannot."""
        obstacles = np.concatenate([self._shapes[target].points, self._others(target)])[::2]
        done = _moved(grasp, self._rng, MISSED_M, MISSED_DEG)
        plan = self._reach.plan(done, np.array(START_ARM_Q), obstacles)
        if plan is None:
            return None
        noise = SmoothNoise(self._rng, 13)
        return self._rehearsal.lifts(plan, self._manner, target, noise, self._noise_scale)

    def _grasp(self, target: int, goal: Array) -> Grasp:
        """A goal as the script would work it: the family with the nearest preshape, closed on the true shape."""
        shape = self._shapes[target]
        pose, preshape = pose_of(goal), goal[9:]
        rotation = pose[:3, :3]
        family = min(self._families, key=lambda family: float(np.abs(family.preshape - preshape).sum()))
        closure = self._preview.close(preshape, (shape.points - goal[:3]) @ rotation, shape.normals @ rotation)
        waits = family.thumb_gap_m is not None
        return Grasp(family.name, pose, -UP, preshape, closure.opening, 0.0, 0.0, 0.0, waits)

    def _others(self, target: int) -> Array:
        rest = [other.points for index, other in enumerate(self._shapes) if index != target]
        return np.concatenate(rest) if rest else np.empty((0, 3))

    def close(self) -> None:
        """Give the copy back."""
        self._rehearsal.close()


@functools.cache
def _policy(path: str) -> ControllerPolicy:
    from ..train.controller.policy import ControllerPolicy
    from ..train.prepare import load_init

    return ControllerPolicy(load_init(Path(path)))


def _proposals(path: str, observation: Observation, count: int, rng: np.random.Generator) -> Array:
    """(count, 15) goals that the policy would choose from."""
    return _policy(path).proposals(observation, count, int(rng.integers(2**31))).astype(float)


def goal_of(grasp: Grasp) -> Array:
    """(15,) position of the palm (m, world), first two columns of its rotation, openings as it comes in."""
    pose = grasp.world_T_palm
    return np.concatenate([pose[:3, 3], pose[:3, 0], pose[:3, 1], grasp.preshape])


def _moved(grasp: Grasp, rng: np.random.Generator, off_m: float, off_deg: float) -> Grasp:
    pose = grasp.world_T_palm.copy()
    turn = Rotation.from_rotvec(np.deg2rad(off_deg) * rng.normal(size=3)).as_matrix()
    pose[:3, :3] = turn @ pose[:3, :3]
    pose[:3, 3] += off_m * rng.normal(size=3)
    return replace(grasp, world_T_palm=pose)
