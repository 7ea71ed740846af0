"""The scripted operator: an expert on the twin that picks up the scene's target and puts it in the bin.

It is privileged: it reads object shapes and poses from the twin. What it *does* is what a person could: it comes in
beside the object, closes until the motors feel it, squeezes, lifts, looks whether the object came along, and tries
again where it did not. Seeded noise, deliberate misses and varied grasps and speeds make its episodes worth imitating
(``docs/decisions/70-scripted-expert.md``).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...hardware.clock import NS
from ...hardware.description import OPEN_HAND, PLACE_ARM_Q, RETURN_ARM_Q, START_ARM_Q
from ...hardware.errors import BadInput
from ...hardware.geometry import pose_error
from ...hardware.joint_path import JointPath, SpeedLimits
from ...hardware.rig import DEXGRASPVLA_RIG
from ...hardware.values import Command, RobotState
from ..expert.attempt import Manner, Posture, Targets, attempt, follow
from ..expert.closing import ClosingConfig
from ..expert.grasps import Grasp, GraspConfig, GraspPlanner
from ..expert.motion import SmoothNoise
from ..expert.reach import Reach, ReachConfig, ReachPlan
from ..expert.rehearsal import Rehearsal
from ..expert.shape import Shape, body_shape
from .base import OperatorInput

if TYPE_CHECKING:
    from ...hardware.twin.scene_spec import SceneSpec
    from ...hardware.twin.world import TwinWorld

Array = NDArray[np.float64]
JERK_RAD_S3 = 160.0  # of the briskest motion
LET_GO_BELOW = 0.7  # mean opening of the fingers at which a hand that is taken over has closed
FROM_HERE_PER_M = 4.0  # what a grasp's score loses for each metre beside the hand that is taken over


@dataclass(frozen=True)
class ScriptConfig:
    """How the scripted operator works. Distances in m, angles in rad, times in s."""

    rate_hz: float = 20.0
    pace: tuple[float, float] = (0.35, 0.6)  # share of the arm's speed limits, drawn per episode
    approach_m_s: tuple[float, float] = (0.10, 0.20)
    lift_m_s: tuple[float, float] = (0.10, 0.18)
    arm_noise_rad: float = 0.002  # standard deviation of the smooth noise on the arm's commands
    hand_noise: float = 0.01  # and on the hand's openings
    miss_rate: float = 0.15  # share of episodes whose first grasp is put beside the object on purpose
    miss_m: tuple[float, float] = (0.035, 0.06)
    retries: int = 3
    spread: float = 0.15  # standard deviation added to grasps' scores, so that episodes differ
    # Score per rad that the fingers' heading lies off the one that reaches most of the table. Like people,
    # the script takes what can be taken any way always the same way: demonstrations that agree are easier to learn.
    habit: float = 0.0
    habit_heading_deg: float = 120.0
    rehearsals: int = 14  # grasps tried out in a copy of the scene before one is done; 0: the best score is taken
    takes: int = 2  # a grasp must work this often in a row in the copy, each time with other noise
    hold_s: float = 1.5
    lifted_m: float = 0.10  # the object counts as lifted from here
    place: bool = True  # go on to the bin and back
    grasps: GraspConfig = field(default_factory=GraspConfig)
    reach: ReachConfig = field(default_factory=ReachConfig)
    closing: ClosingConfig = field(default_factory=ClosingConfig)

    def __post_init__(self) -> None:
        if not (0.0 <= self.miss_rate <= 1.0 and self.retries >= 0 and self.rehearsals >= 0 and self.rate_hz > 0):
            raise BadInput(
                f"script operator: miss_rate {self.miss_rate} must lie in 0..1, retries {self.retries} be >= 0, "
                f"rehearsals {self.rehearsals} >= 0 and rate_hz {self.rate_hz} > 0"
            )

    @property
    def noise_scale(self) -> Array:
        """(13,) standard deviations of the noise on commands."""
        return np.repeat([self.arm_noise_rad, self.hand_noise], [7, 6])


def draw_manner(config: ScriptConfig, rng: np.random.Generator) -> Manner:
    """How briskly an episode is worked."""
    arm = DEXGRASPVLA_RIG.arms[0].arm
    limits = SpeedLimits(arm.speeds, np.full(7, arm.acceleration_rad_s2), np.full(7, JERK_RAD_S3))
    return Manner(
        limits.scaled(rng.uniform(*config.pace)),
        rng.uniform(*config.approach_m_s),
        rng.uniform(*config.lift_m_s),
        1.0 / config.rate_hz,
        config.closing,
    )


def scene_of(world: TwinWorld) -> SceneSpec:
    """The scene that the twin has. Raises BadInput where it has none."""
    scene = world.scene
    if scene is None or callable(scene) or not scene.objects:
        raise BadInput("script operator: the twin has no scene with objects: reset() it to a sampled scene first")
    return scene


def object_shapes(world: TwinWorld) -> list[Shape]:
    """The shape of every object of the scene, each in its own frame."""
    model = world.model
    return [body_shape(model, model.body(f"object_{i}").id, 300) for i in range(len(scene_of(world).objects))]


@dataclass
class ScriptReport:
    """What happened in an episode, for benchmarks and tests."""

    attempts: int = 0  # honest ones: deliberate misses are not counted
    misses: int = 0  # deliberate
    families: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)  # one reason per attempt that failed
    lifted: bool = False
    lifted_at_attempt: int = 0  # 1 = with the first honest attempt
    placed: bool = False
    rehearsals: int = 0


class ScriptOperator:
    """Operator that demonstrates the scene's task by itself. One 13-number command per call of :meth:`act`."""

    name = "script"

    def __init__(self, world: TwinWorld, config: ScriptConfig | None = None, seed: int = 0) -> None:
        self._world = world
        self._config = config or ScriptConfig()
        self._seed = seed
        self._episode = 0
        self._rig = DEXGRASPVLA_RIG
        self._reach = Reach(self._rig, self._config.reach)
        self._planner = GraspPlanner(self._config.grasps)
        self._rehearsal = Rehearsal(world)
        self._noise_scale = self._config.noise_scale
        self.report = ScriptReport()
        self._run: Targets | None = None

    # -- the protocol ----------------------------------------------------------------------------------------------

    def begin(self, state: RobotState, now_ns: int) -> None:
        """Draw this episode's manner from the seed and start from where the robot is."""
        self._rng = np.random.default_rng([self._seed, self._episode])
        self._episode += 1
        self.report = ScriptReport()
        self._target = scene_of(self._world).target
        self._shapes = object_shapes(self._world)
        self._manner = draw_manner(self._config, self._rng)
        self._noise = SmoothNoise(self._rng, 13)
        self._begun_ns = now_ns
        self._posture = Posture(np.array(state.arm.q), np.array(state.hand.opening))
        self._from_here: Array | None = None
        self._last: Command | None = None
        self._run = self._episode_targets()
        self._started = False

    def resume(self, state: RobotState, now_ns: int) -> None:
        """After a pause: go on where it stopped, the arm stands at its last target."""

    def act(self, state: RobotState, now_ns: int) -> OperatorInput:
        """The command for this tick; ``done`` with the last one."""
        if self._run is None:
            raise BadInput("script operator: act() was called before begin(): begin an episode first")
        try:
            if self._started:
                q, hand, note = self._run.send(state)
            else:
                q, hand, note = next(self._run)
                self._started = True
        except StopIteration:
            return OperatorInput(self._last, done=True)
        noise = self._noise_scale * self._noise.at((now_ns - self._begun_ns) / NS)
        limits = self._reach.kinematics.limits
        arm_q = np.clip(q + noise[:7], limits[:, 0], limits[:, 1])
        opening = np.clip(hand + noise[7:], 0.0, 1.0)
        self._last = Command(state.captured_ns, arm_q, opening)
        return OperatorInput(self._last, note=note)

    def close(self) -> None:
        """Give back the copy that grasps are rehearsed in. Safe to call twice."""
        self._rehearsal.close()

    def take_over(self, state: RobotState, now_ns: int) -> None:
        """Instead of :meth:`begin`: go on from where a policy has brought the robot. An open hand goes the nearest way
        to a grasp like the one that it is at, one that has closed lets go and rises first."""
        self.begin(state, now_ns)
        self._run = self._correction()

    def palm_height_m(self, q: Array) -> float:
        """Of the palm above the table at arm angles (7,) rad."""
        return float(self._reach.palm(q)[2, 3])

    # -- the episode -----------------------------------------------------------------------------------------------

    def _correction(self) -> Targets:
        if float(self._posture.hand[1:5].mean()) < LET_GO_BELOW:
            yield from self._let_go()
        else:
            self._from_here = self._reach.palm(self._posture.q)
        yield from self._episode_targets()

    def _episode_targets(self) -> Targets:
        config = self._config
        miss = bool(self._rng.random() < config.miss_rate)
        for _ in range(1 + config.retries + int(miss)):
            plan = self._choose()
            if plan is None:
                self.report.failures.append("no grasp found")
                yield self._posture.q, self._posture.hand, "no grasp found that the arm can do"
                break
            if miss:
                self.report.misses += 1
                missed, miss = self._missed(plan), False
                if missed is not None:
                    yield from self._grasp(missed)
                    yield from self._let_go()
                    continue
            self.report.attempts += 1
            self.report.families.append(plan.grasp.family)
            yield from self._grasp(plan)
            if self._lift_m() >= config.lifted_m:
                yield from self._wait(config.hold_s)
            if self._lift_m() >= config.lifted_m:
                self.report.lifted = True
                self.report.lifted_at_attempt = self.report.lifted_at_attempt or self.report.attempts
                if not config.place:
                    return
                yield from self._place()
                if self._in_bin() or not self._on_table():
                    break
                self.report.failures.append("dropped on the way")
            else:
                self.report.failures.append(f"{plan.grasp.family}: {self._reason()}")
                yield from self._let_go()
                if not self._on_table():
                    break
        self.report.placed = self._in_bin()
        yield from self._move([self._posture.q, np.array(START_ARM_Q)], np.array(OPEN_HAND), "back to start")
        self.report.placed = self._in_bin()

    def _grasp(self, plan: ReachPlan) -> Targets:
        """Come in from above, then the attempt itself."""
        entry = self._path(plan.entry)
        note = f"{plan.grasp.family} grasp"
        yield from follow(self._posture, entry, self._manner.period_s, plan.grasp.preshape, note)
        yield from attempt(self._posture, plan, self._manner, self._lift_m)

    def _place(self) -> Targets:
        """Carry over the bin and let go."""
        over, via = np.array(PLACE_ARM_Q), np.array(RETURN_ARM_Q)
        yield from self._move([self._posture.q, via, over], None, "to the bin")
        if self._lift_m() < 0.02 and self._on_table():
            return
        yield from self._open("release")
        yield from self._wait(0.4)

    def _let_go(self) -> Targets:
        """After a grasp that failed: open where we are, then rise clear of the objects."""
        yield from self._open("open to try again")
        pose = self._reach.palm(self._posture.q)
        raised = pose.copy()
        raised[2, 3] += max(0.0, 0.30 - raised[2, 3])
        line = self._reach.line(pose, raised, self._posture.q)
        if line is not None and len(line) > 1:
            yield from self._move(line, None)

    # -- pieces of motion ------------------------------------------------------------------------------------------

    def _path(self, waypoints: list[Array] | Array, shortest_s: float = 0.0) -> JointPath:
        return JointPath(np.asarray(waypoints), self._manner.limits, shortest_s)

    def _move(self, waypoints: list[Array] | Array, hand: Array | None, note: str = "") -> Targets:
        return follow(self._posture, self._path(waypoints), self._manner.period_s, hand, note)

    def _wait(self, seconds: float) -> Targets:
        for _ in range(max(1, round(seconds * self._config.rate_hz))):
            yield self._posture.q, self._posture.hand, ""

    def _open(self, note: str) -> Targets:
        start, goal = self._posture.hand, np.array(OPEN_HAND)
        steps = round(0.7 * self._config.rate_hz)
        for k in range(1, steps + 1):
            self._posture.hand = start + (goal - start) * k / steps
            yield self._posture.q, self._posture.hand, note
            note = ""

    # -- what the expert knows -------------------------------------------------------------------------------------

    def _choose(self) -> ReachPlan | None:
        """A grasp for the target as it lies now, drawn from the best that the arm can do."""
        shapes = [shape.moved(self._world.object_pose(i)) for i, shape in enumerate(self._shapes)]
        target = shapes.pop(self._target)
        others = np.concatenate([shape.points for shape in shapes]) if shapes else np.empty((0, 3))
        obstacles = np.concatenate([target.points, others])[::2]
        turn_rad = self._rng.uniform(0, 2 * np.pi)
        grasps = self._planner.propose(target, others, self._reach.roughly, turn_rad)
        here, self._from_here = self._from_here, None
        scores = [grasp.score - self._unusual(grasp, here) for grasp in grasps]
        order = np.argsort([-score + self._config.spread * self._rng.normal() for score in scores])
        tried: list[ReachPlan] = []
        for index in order:
            plan = None if here is None else self._straight(grasps[index], here, obstacles)
            plan = plan or self._reach.plan(grasps[index], self._posture.q, obstacles)
            if plan is None:
                continue
            if self._config.rehearsals == 0 or self._rehearsed(plan):
                return plan
            tried.append(plan)
            if len(tried) >= self._config.rehearsals:
                break
        return tried[0] if tried else None

    def _unusual(self, grasp: Grasp, here: Array | None) -> float:
        """What a grasp's score loses for lying off the habit's heading, or off ``here``, the palm's pose (4, 4)."""
        if here is not None:
            off = grasp.world_T_palm[:3, 3] - here[:3, 3]
            beside_m = np.linalg.norm(off - off @ grasp.approach * grasp.approach)
            turn_rad = pose_error(here, grasp.world_T_palm)[1]
            return float(self._config.habit * turn_rad + FROM_HERE_PER_M * beside_m)
        off_rad = np.arctan2(grasp.world_T_palm[1, 0], grasp.world_T_palm[0, 0]) - np.deg2rad(
            self._config.habit_heading_deg
        )
        return float(self._config.habit * abs((off_rad + np.pi) % (2 * np.pi) - np.pi))

    def _straight(self, grasp: Grasp, here: Array, obstacles: Array) -> ReachPlan | None:
        """The way to a grasp that does not rise first: into its approach at the height that the palm (4, 4) has."""
        left_m = float((grasp.world_T_palm[:3, 3] - here[:3, 3]) @ grasp.approach)
        retreat_m = float(np.clip(left_m, 0.02, self._config.reach.retreat_m))
        direct = replace(self._config.reach, retreat_m=retreat_m, overhead_m=(0.0,))
        return self._reach.with_config(direct).plan(grasp, self._posture.q, obstacles)

    def _rehearsed(self, plan: ReachPlan) -> bool:
        """Whether the grasp lifts the target in the copy, each time with other noise."""
        for _ in range(self._config.takes):
            noise = SmoothNoise(self._rng, 13)
            self.report.rehearsals += 1
            lift_m = self._rehearsal.lifts(plan, self._manner, self._target, noise, self._noise_scale)
            if lift_m < self._config.lifted_m:
                return False
        return True

    def _missed(self, plan: ReachPlan) -> ReachPlan | None:
        """The same grasp put beside the object on purpose: stopped short, and off to one side."""
        grasp = plan.grasp
        off = self._rng.uniform(*self._config.miss_m)
        side = np.cross(grasp.approach, [0.0, 0.0, 1.0]) if abs(grasp.approach[2]) < 0.9 else np.array([1.0, 0, 0])
        pose = grasp.world_T_palm.copy()
        pose[:3, 3] += -off * grasp.approach + self._rng.uniform(-0.02, 0.02) * side
        return self._reach.plan(replace(grasp, world_T_palm=pose), self._posture.q)

    def _lift_m(self) -> float:
        return float(self._world.object_lift_m(self._target))

    def _position(self) -> Array:
        return np.asarray(self._world.object_pose(self._target)[:3, 3])

    def _on_table(self) -> bool:
        x0, x1, y0, y1, _, _ = self._rig.table_box_m
        x, y, z = self._position()
        return bool(x0 < x < x1 and y0 < y < y1 and z > -0.02)

    def _in_bin(self) -> bool:
        rig = self._rig
        offset = np.abs(self._position()[:2] - np.array(rig.bin_center_m[:2]))
        return bool((offset < np.array(rig.bin_size_m[:2]) / 2 + 0.01).all() and self._position()[2] < 0.1)

    def _reason(self) -> str:
        lift = self._lift_m()
        if not self._on_table():
            return "pushed off the table"
        return "did not come along" if lift < 0.03 else "slipped while lifting"
