"""The twin: physics, controllers, cameras and one clock.

``TwinWorld`` is advanced by its clock alone: a loop that sleeps until its next deadline runs the physics up to it, and
every reading that falls due on the way is pushed to its sinks at its own time.
"""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

import mujoco
import numpy as np
from numpy.typing import NDArray

from ..clock import NS, Clock, PacedClock, SteppedClock
from ..description import OPEN_HAND, START_ARM_Q, RigDescription
from ..errors import BadInput
from ..geometry import Array, Transform, quat_to_matrix, transform
from ..rig import DEXGRASPVLA_RIG
from ..values import Command
from .camera import ROBOT_ID, TwinCamera
from .controllers import ControllerConfig
from .rendering import DrawThread, Picture, SceneRenderer
from .rig_state import ArmWithHand
from .robot import ARM_STATE_RATE_HZ, TwinRobot
from .spec import add_default_lights, arm_prefix, rig_spec

if TYPE_CHECKING:
    from .scene_spec import SceneSpec

SceneBuilder = Callable[[mujoco.MjSpec], None]
MAX_CATCH_UP_NS = NS  # paced: a world that nobody ran for longer stood still meanwhile


@dataclass(frozen=True)
class TwinConfig:
    """How the twin runs and what it draws."""

    timestep_s: float = 0.002
    """Physics step; contacts are tuned for 0.002 and 0.004."""
    mode: Literal["stepped", "paced"] = "stepped"
    """stepped = simulated time, as fast as it goes; paced = real time, for people."""
    camera_size: tuple[int, int] = (640, 480)
    """Width and height of every camera's pictures."""
    camera_rate_hz: float = 30.0
    """Exposures per second of every camera."""
    cameras: tuple[str, ...] | None = None
    """Which of the rig's cameras exist; None = all. Without any, scenes are built without their looks."""
    depth: bool = True
    """Draw metric depth, aligned to colour."""
    segmentation: bool = False
    """Draw what each pixel belongs to: object index + 1, robot -1, anything else 0."""
    depth_noise: bool = True
    """Depth as the real camera measures it; False = exact."""
    shadows: bool = False
    """Shadow maps: three times the price of a picture."""
    antialias: bool = False
    """Smooth edges: more than twice the price of a picture."""
    sensor_noise: bool = True
    """Noise of the wrist's force sensor."""
    noslip_iterations: int = 2
    """Passes of MuJoCo's no-slip solver: without them a held object creeps by 0.5 mm/s."""
    sleep: bool = True
    """Objects at rest that nothing moving touches are not simulated: up to 20 times faster in front of a full table."""
    seed: int | None = None
    """Of all noise; None = the scene's seed, or 0."""
    controllers: ControllerConfig = field(default_factory=ControllerConfig)

    def __post_init__(self) -> None:
        if self.mode not in ("stepped", "paced"):
            raise BadInput(f"mode is {self.mode!r}: expected 'stepped' or 'paced'")
        if not 0.0005 <= self.timestep_s <= 0.004:
            raise BadInput(f"timestep_s is {self.timestep_s}: expected 0.0005 to 0.004 s, where contacts hold")
        if not 1.0 <= self.camera_rate_hz <= 90.0:
            raise BadInput(f"camera_rate_hz is {self.camera_rate_hz}: expected 1 to 90 Hz")
        if min(self.camera_size) < 16 or max(self.camera_size) > 1920:
            raise BadInput(f"camera_size is {self.camera_size}: expected (width, height), 16 to 1920 each")


class TwinWorld:
    """The rig with a scene in front of it. ``robot`` is the first arm's; ``robots`` holds all."""

    def __init__(
        self,
        config: TwinConfig | None = None,
        scene: SceneSpec | SceneBuilder | None = None,
        rig: RigDescription = DEXGRASPVLA_RIG,
    ) -> None:
        """``scene``: what stands on the table; a function that adds free bodies to the spec serves too."""
        self.config = config or TwinConfig()
        self.rig = rig
        self._step_ns = round(self.config.timestep_s * NS)
        start_ns = time.monotonic_ns() if self.config.mode == "paced" else 0
        self.clock: Clock = self._make_clock(start_ns)
        self._now_ns = start_ns
        self.frozen_ns = 0  # paced: time in which nobody ran the world
        self._arms = [
            ArmWithHand(mount, arm_prefix(rig, mount), self.config.controllers, self.config.timestep_s)
            for mount in rig.arms
        ]
        self.robots = {arm.mount.side: TwinRobot(self, arm.mount, arm.prefix) for arm in self._arms}
        self.robot = self.robots[rig.arms[0].side]
        self._renderer = SceneRenderer(*self.config.camera_size, self.config.shadows, self.config.antialias)
        self.drawing = DrawThread() if self.config.mode == "paced" and self.config.cameras != () else None
        release = self._renderer.close if self.drawing is None else partial(self.drawing.close, self._renderer.close)
        self._release = weakref.finalize(self, release)  # a world that nobody closed, too, leaves no thread behind
        self._release.atexit = False  # by then OpenGL is gone
        self.scene_lock = threading.RLock()  # held while the scene changes or is drawn
        self.scene_number = 0
        names = [camera.name for camera in rig.cameras] if self.config.cameras is None else self.config.cameras
        self.cameras = {name: TwinCamera(self, rig.camera(name), k) for k, name in enumerate(names)}
        self._rates = {"arm": ARM_STATE_RATE_HZ, "hand": rig.arms[0].hand.state_rate_hz}
        self._rates |= {name: camera.rate_hz for name, camera in self.cameras.items()}
        self._ticks: dict[str, int] = {}
        self.reset(scene)

    # -- scenes -------------------------------------------------------------------------------------------------

    def reset(self, scene: SceneSpec | SceneBuilder | None) -> None:
        """Build ``scene`` anew, the robot at its start pose. Subscriptions stay.

        Simulated time begins at 0 again, so that a scene is the same whatever came before; paced time goes on.
        """
        seed = self.config.seed if self.config.seed is not None else getattr(scene, "seed", 0)
        model = self._compile(scene)
        with self.scene_lock:
            self.scene, self.seed, self.model = scene, seed, model
            self.scene_number += 1
            self.data = mujoco.MjData(model)
            self._view = mujoco.MjData(model)
            self._restart_time()
            for camera in self.cameras.values():
                camera.forget(restart=self.config.mode == "stepped")
            self._rng = np.random.default_rng([seed, 1_000_003]) if self.config.sensor_noise else None
            robot_bodies: set[int] = set()
            for arm, robot in zip(self._arms, self.robots.values(), strict=True):
                arm.bind(self.model, self.data)
                arm.place(np.array(START_ARM_Q), np.array(OPEN_HAND), self._now_ns)
                robot.forget()
                robot_bodies |= arm.bodies
            self._object_bodies = self._find_objects(robot_bodies)
            self.segment_of_body = self._segments(robot_bodies)
        mujoco.mj_forward(self.model, self.data)
        self._start_height_m = np.array([self.object_pose(i)[2, 3] for i in range(len(self._object_bodies))])
        self._read_all(push=False)

    def _restart_time(self) -> None:
        if isinstance(self.clock, SteppedClock):
            self.clock.restart()
            self._now_ns = 0
            self._ticks.clear()
        else:  # building took time in which nothing moved
            self._now_ns = time.monotonic_ns()
        self._align_ticks()

    def _compile(self, scene: SceneSpec | SceneBuilder | None) -> mujoco.MjModel:
        spec = rig_spec(self.rig, self.config.timestep_s)
        spec.option.noslip_iterations = self.config.noslip_iterations
        if self.config.sleep:
            spec.option.enableflags |= mujoco.mjtEnableBit.mjENBL_SLEEP
        width, height = self.config.camera_size
        spec.visual.global_.offwidth, spec.visual.global_.offheight = width, height
        spec.visual.quality.offsamples = 4 if self.config.antialias else 0
        if scene is None:
            add_default_lights(spec)
        elif callable(scene):
            add_default_lights(spec)
            scene(spec)
        else:
            from .scene_spec import apply_scene

            apply_scene(spec, scene, self.rig, shadows=self.config.shadows, visuals=bool(self.cameras))
        return spec.compile()

    def _find_objects(self, robot_bodies: set[int]) -> list[int]:
        """Bodies with a free joint that are not the robot's, in the order in which they were added."""
        free = self.model.jnt_type == mujoco.mjtJoint.mjJNT_FREE
        return [int(body) for body in self.model.jnt_bodyid[free] if body not in robot_bodies]

    def _segments(self, robot_bodies: set[int]) -> NDArray[np.int32]:
        """Segmentation value of each body id; the last entry serves id -1, nothing."""
        segment = np.zeros(self.model.nbody + 1, np.int32)
        segment[list(robot_bodies)] = ROBOT_ID
        for index, root in enumerate(self._object_bodies):
            segment[: self.model.nbody][self.model.body_rootid == root] = index + 1
        return segment

    @property
    def object_count(self) -> int:
        return len(self._object_bodies)

    def object_pose(self, index: int) -> Transform:
        """world_T_object (4, 4) of object ``index`` now."""
        address = self._object_qpos(index)
        pose = self.data.qpos[address : address + 7]
        return transform(quat_to_matrix(pose[3:]), pose[:3])

    def object_lift_m(self, index: int) -> float:
        """Height of the object's frame above where the scene began."""
        return float(self.data.qpos[self._object_qpos(index) + 2] - self._start_height_m[index])

    def object_speed_m_s(self, index: int) -> float:
        """Speed of the object's frame."""
        joint = self.model.body_jntadr[self._object_bodies[self._checked(index)]]
        address = self.model.jnt_dofadr[joint]
        return float(np.linalg.norm(self.data.qvel[address : address + 3]))

    def hand_contacts(self, index: int) -> dict[str, float]:
        """Bodies of the hand that touch object ``index``, with the normal force (N) of each."""
        body = self._object_bodies[self._checked(index)]
        force = np.zeros(6)
        touching: dict[str, float] = {}
        for k in range(self.data.ncon):
            geoms = self.data.contact[k].geom
            pair = self.model.body_rootid[self.model.geom_bodyid[geoms]]
            if body not in pair:
                continue
            other = int(self.model.geom_bodyid[geoms[0] if pair[1] == body else geoms[1]])
            if any(other in arm.hand_bodies for arm in self._arms):
                mujoco.mj_contactForce(self.model, self.data, k, force)
                name = self.model.body(other).name
                touching[name] = touching.get(name, 0.0) + float(force[0])
        return touching

    def set_arm_and_hand(self, q: Array, opening: Array) -> None:
        """Put the first arm (7,) rad and its hand (6,) at once into a state of rest there."""
        self._arms[0].place(np.asarray(q, float), np.asarray(opening, float), self._now_ns)
        mujoco.mj_forward(self.model, self.data)
        self._read_all(push=False)

    def set_object_pose(self, index: int, world_T_object: Transform) -> None:
        """Put an object down somewhere, at rest; its lift is then counted from there."""
        from ..geometry import matrix_to_quat

        address = self._object_qpos(index)
        self.data.qpos[address : address + 3] = world_T_object[:3, 3]
        self.data.qpos[address + 3 : address + 7] = matrix_to_quat(world_T_object[:3, :3])
        dof = self.model.jnt_dofadr[self.model.body_jntadr[self._object_bodies[index]]]
        self.data.qvel[dof : dof + 6] = 0.0
        mujoco.mj_forward(self.model, self.data)
        self._start_height_m[index] = world_T_object[2, 3]

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self._object_bodies):
            raise BadInput(f"no object {index}: the scene has {len(self._object_bodies)}, counted from 0")
        return index

    def _object_qpos(self, index: int) -> int:
        return int(self.model.jnt_qposadr[self.model.body_jntadr[self._object_bodies[self._checked(index)]]])

    # -- time ---------------------------------------------------------------------------------------------------

    def _make_clock(self, start_ns: int) -> Clock:
        if self.config.mode == "paced":
            return PacedClock(self._advance, start_ns)
        return SteppedClock(self._advance, start_ns)

    def _advance(self, target_ns: int) -> None:
        """Run the physics up to ``target_ns``, pushing readings as they fall due."""
        if self.config.mode == "paced" and target_ns - self._now_ns > MAX_CATCH_UP_NS:
            # Nobody ran the world (a question was open): it stood still, as the real arm would.
            skipped = target_ns - self._now_ns - self._step_ns
            self.frozen_ns += skipped
            self._now_ns += skipped
            self._align_ticks()
        while True:
            self._push_due()
            if self._now_ns + self._step_ns > target_ns:
                return
            for arm in self._arms:
                arm.drive(self._now_ns)
            mujoco.mj_step(self.model, self.data)
            self._now_ns += self._step_ns

    def _push_due(self) -> None:
        now_ns = self._now_ns
        if self.drawing is not None:
            self.drawing.check()
        if isinstance(self.clock, SteppedClock):
            self.clock.set_now_ns(now_ns)
        if self._due("arm"):
            for arm, robot in zip(self._arms, self.robots.values(), strict=True):
                robot.take(arm.arm_state(now_ns, self._rng))
        if self._due("hand"):
            for arm, robot in zip(self._arms, self.robots.values(), strict=True):
                robot.take(arm.hand_state(now_ns))
        for name, camera in self.cameras.items():
            if self._due(name):
                camera.expose(now_ns)

    def _due(self, stream: str) -> bool:
        """Whether tick k of the stream, at k / rate, has come; counts it."""
        rate_hz = self._rates[stream]
        if self._now_ns * rate_hz < self._ticks[stream] * NS:
            return False
        self._ticks[stream] = int(self._now_ns * rate_hz) // NS + 1
        return True

    def _align_ticks(self) -> None:
        """Every stream's next reading is the first of its grid from now on that it has not given yet."""
        for name, rate_hz in self._rates.items():
            self._ticks[name] = max(self._ticks.get(name, 0), math.ceil(self._now_ns * rate_hz / NS))

    def _read_all(self, push: bool) -> None:
        for arm, robot in zip(self._arms, self.robots.values(), strict=True):
            robot.take(arm.arm_state(self._now_ns, self._rng), push)
            robot.take(arm.hand_state(self._now_ns), push)

    # -- what robot and cameras ask for ---------------------------------------------------------------------------

    def receive(self, robot: TwinRobot, sent_ns: int, command: Command) -> None:
        """A command on its way to the controllers."""
        arm = self._arm_of(robot)
        arm.arm.send(sent_ns, command.arm_q)
        arm.hand.send(sent_ns, command.hand)

    def halt(self, robot: TwinRobot) -> None:
        """The arm brakes, the hand holds."""
        arm = self._arm_of(robot)
        arm.arm.stop()
        arm.hand.stop()

    def _arm_of(self, robot: TwinRobot) -> ArmWithHand:
        return next(arm for arm in self._arms if arm.mount is robot.mount)

    @property
    def now_ns(self) -> int:
        """Where the physics are. Paced: at most one slice behind the clock while a loop sleeps."""
        return self._now_ns

    def draw(self, camera: str | mujoco.MjvCamera, qpos: Array, depth: bool, bodies: bool) -> Picture:
        """Draw the scene in configuration ``qpos`` (nq,) from one of its cameras, or a free one."""
        if self.drawing is not None:
            return self.drawing.call(lambda: self._draw(camera, qpos, depth, bodies))
        return self._draw(camera, qpos, depth, bodies)

    def _draw(self, camera: str | mujoco.MjvCamera, qpos: Array, depth: bool, bodies: bool) -> Picture:
        with self.scene_lock:
            self._view.qpos[:] = qpos
            mujoco.mj_kinematics(self.model, self._view)
            mujoco.mj_comPos(self.model, self._view)
            mujoco.mj_camlight(self.model, self._view)
            self._renderer.use(self.model)
            return self._renderer.draw(self._view, camera, depth, bodies)

    def close(self) -> None:
        """Release the cameras' OpenGL context. Safe to call twice."""
        for robot in self.robots.values():
            robot.close()
        for camera in self.cameras.values():
            camera.close()
        self._release()
