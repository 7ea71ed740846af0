"""Speed of the twin: physics, pictures, episodes.

The peers of the same run: MuJoCo's own ``mj_step`` on the same model (what physics costs without controllers and
readings) and MuJoCo's own ``Renderer`` on the same view. Processor seconds, so that other work on the machine hardly
disturbs the figures; one thread unless LP_NUM_THREADS says otherwise.
"""

# ruff: noqa: E402  (the environment is set before what reads it is imported)
from __future__ import annotations

import json as jsonlib
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

for _name, _value in (("OMP_NUM_THREADS", "1"), ("LP_NUM_THREADS", "1"), ("MUJOCO_GL", "egl")):
    os.environ.setdefault(_name, _value)

import mujoco
import numpy as np
import tyro
from dexloop.collect.operators.script import ScriptOperator
from dexloop.hardware.clock import NS
from dexloop.hardware.safety import SafeRobot
from dexloop.hardware.twin.scenes import sample_scene
from dexloop.hardware.twin.success import LiftSuccess
from dexloop.hardware.twin.world import TwinConfig, TwinWorld

SIZES = ((640, 480), (320, 240), (128, 128))


@dataclass(frozen=True)
class SimulationBenchmark:
    """Time physics, rendering and whole scripted episodes of the twin."""

    objects: int = 5
    """Objects in every scene."""
    episodes: int = 4
    """Scripted episodes to time, with two cameras drawn and without any."""
    seconds: float = 4.0
    """Simulated seconds of each physics figure."""
    repeats: int = 15
    """Pictures of each rendering figure (the median counts)."""
    seed: int = 0
    """Of the scenes."""
    json: bool = False
    """Print one JSON object as the last line."""


@dataclass(frozen=True)
class Physics:
    """Steps per processor second."""

    timestep_s: float
    state: str
    bare_steps_s: float  # mj_step alone
    twin_steps_s: float  # with controllers, couplings, readings
    twin_real_time: float  # simulated seconds per processor second


@dataclass(frozen=True)
class Rendering:
    """Milliseconds of processor time per picture, medians."""

    size: str
    shadows: bool
    rgb_ms: float
    rgb_depth_seg_ms: float
    noise_ms: float  # depth noise on top
    renderer_rgb_ms: float  # mujoco.Renderer
    renderer_rgb_depth_seg_ms: float  # its three passes
    ratio: float  # renderer's three passes / ours


@dataclass(frozen=True)
class Episodes:
    """Scripted episodes without recording."""

    what: str
    count: int
    lifted: int
    simulated_s: float  # per episode
    cpu_s: float  # per episode
    per_minute_and_core: float


def cpu(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def physics(config: SimulationBenchmark) -> list[Physics]:
    """Idle, and with the hand squeezing itself into the heap of objects."""
    rows = []
    scene = sample_scene(config.seed, n_objects=config.objects)
    for timestep_s in (0.002, 0.004):
        for state in ("idle", "grasping"):
            world = TwinWorld(TwinConfig(cameras=(), timestep_s=timestep_s), scene)
            if state == "grasping":
                _until_grasped(world)
            span_ns = int(config.seconds * NS)
            twin_s = cpu(lambda w=world, span=span_ns: w.clock.sleep_until_ns(w.clock.now_ns() + span))
            steps = round(config.seconds / timestep_s)
            bare_s = cpu(lambda w=world, n=steps: [mujoco.mj_step(w.model, w.data) for _ in range(n)])
            rows.append(Physics(timestep_s, state, steps / bare_s, steps / twin_s, config.seconds / twin_s))
    return rows


def _until_grasped(world: TwinWorld) -> None:
    """Let the script work until it holds the target up."""
    operator, success = ScriptOperator(world), LiftSuccess(world, world.scene.target)
    robot = SafeRobot(world.robot, world.rig)
    operator.begin(robot.state(), world.clock.now_ns())
    deadline = world.clock.now_ns()
    while not success.update(world.clock.now_ns()):
        given = operator.act(robot.state(), world.clock.now_ns())
        if given.done:
            break
        if given.command is not None:
            robot.send(given.command)
        deadline += NS // 20
        world.clock.sleep_until_ns(deadline)
    robot.detach()


def rendering(config: SimulationBenchmark) -> list[Rendering]:
    """The head camera's view of a scene."""
    rows = []
    scene = sample_scene(config.seed, n_objects=config.objects)
    for size in SIZES:
        for shadows in (False, True):
            twin = TwinConfig(camera_size=size, shadows=shadows, segmentation=True)
            world = TwinWorld(twin, scene)
            noisy = _median(config, lambda w=world: _picture(w))
            qpos = world.data.qpos.copy()
            ours_all = _median(config, lambda w=world, q=qpos: w.draw("head", q, True, True))
            ours_rgb = _median(config, lambda w=world, q=qpos: w.draw("head", q, False, False))
            world.close()
            peer_rgb, peer_all = _peer(config, world, shadows)
            rows.append(
                Rendering(
                    f"{size[0]}x{size[1]}",
                    shadows,
                    1e3 * ours_rgb,
                    1e3 * ours_all,
                    1e3 * (noisy - ours_all),
                    1e3 * peer_rgb,
                    1e3 * peer_all,
                    peer_all / ours_all,
                )
            )
    return rows


def _picture(world: TwinWorld) -> None:
    """One noisy frame, as a subscriber gets it."""
    world.cameras["head"].expose(world.clock.now_ns())
    world.cameras["head"].latest()


def _median(config: SimulationBenchmark, work: Callable[[], object]) -> float:
    work()  # textures and meshes are loaded with the first picture
    return float(np.median([cpu(work) for _ in range(config.repeats)]))


def _peer(config: SimulationBenchmark, world: TwinWorld, shadows: bool) -> tuple[float, float]:
    """mujoco.Renderer: colour alone, and colour, depth and segmentation as three passes."""
    width, height = world.config.camera_size
    with mujoco.Renderer(world.model, height, width) as renderer:  # the same model: no multisampling either
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows

        def colour() -> None:
            mujoco.mj_kinematics(world.model, world.data)
            mujoco.mj_camlight(world.model, world.data)
            renderer.update_scene(world.data, "head")
            renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows
            renderer.render()

        def every() -> None:
            colour()
            renderer.enable_depth_rendering()
            renderer.render()
            renderer.disable_depth_rendering()
            renderer.enable_segmentation_rendering()
            renderer.render()
            renderer.disable_segmentation_rendering()

        return _median(config, colour), _median(config, every)


def episodes(config: SimulationBenchmark) -> list[Episodes]:
    """The scripted operator through SafeRobot, without recording."""
    rows = []
    for what, twin in (
        ("physics only", TwinConfig(cameras=())),
        (
            "two cameras 320x240 at 20 Hz, depth, masks",
            TwinConfig(camera_size=(320, 240), camera_rate_hz=20, segmentation=True),
        ),
    ):
        world = TwinWorld(twin, sample_scene(config.seed, n_objects=config.objects))
        for camera in world.cameras.values():
            camera.subscribe(lambda frame: None)  # somebody looks on, so that every frame is drawn
        lifted, simulated, spent = 0, 0.0, 0.0
        for number in range(config.episodes):
            begin = time.process_time()
            world.reset(sample_scene(config.seed + number, n_objects=config.objects))
            lifted += _episode(world)
            simulated += world.clock.now_ns() / NS
            spent += time.process_time() - begin
        world.close()
        per = spent / config.episodes
        rows.append(Episodes(what, config.episodes, lifted, simulated / config.episodes, per, 60.0 / per))
    return rows


def _episode(world: TwinWorld) -> bool:
    operator, success = ScriptOperator(world), LiftSuccess(world, world.scene.target)
    robot = SafeRobot(world.robot, world.rig)
    operator.begin(robot.state(), world.clock.now_ns())
    unsubscribe = world.robot.subscribe(success)
    deadline, done = world.clock.now_ns(), False
    while not done:
        given = operator.act(robot.state(), world.clock.now_ns())
        if given.command is not None:
            robot.send(given.command)
        done = given.done
        deadline += NS // 20
        world.clock.sleep_until_ns(deadline)
    unsubscribe()
    robot.detach()
    return success.achieved


def main(config: SimulationBenchmark) -> None:
    """Run all three and print them."""
    moving, drawn, whole = physics(config), rendering(config), episodes(config)
    print(f"Physics, {config.objects} objects, steps per processor second")
    print(f"{'step ms':>8} {'state':>10} {'mj_step':>10} {'twin':>10} {'x real time':>12} {'twin/mj_step':>13}")
    for p in moving:
        ratio = p.twin_steps_s / p.bare_steps_s
        print(
            f"{1e3 * p.timestep_s:8.0f} {p.state:>10} {p.bare_steps_s:10.0f} {p.twin_steps_s:10.0f} "
            f"{p.twin_real_time:12.1f} {ratio:13.2f}"
        )
    print("\nHead camera, ms of processor time per picture; all = colour, depth and segmentation")
    print(f"{'':>9} {'':>8} {'twin':>23} {'mujoco.Renderer':>15}")
    print(f"{'size':>9} {'shadows':>8} {'rgb':>7} {'all':>7} {'+noise':>7} {'rgb':>7} {'all':>7} {'ratio':>6}")
    for r in drawn:
        print(
            f"{r.size:>9} {r.shadows!s:>8} {r.rgb_ms:7.1f} {r.rgb_depth_seg_ms:7.1f} {r.noise_ms:7.1f} "
            f"{r.renderer_rgb_ms:7.1f} {r.renderer_rgb_depth_seg_ms:7.1f} {r.ratio:6.2f}"
        )
    print("\nScripted episodes, not recorded")
    for e in whole:
        print(
            f"{e.what:>44}: {e.lifted}/{e.count} lifted, {e.simulated_s:.1f} s simulated in {e.cpu_s:.2f} s of "
            f"processor time: {e.per_minute_and_core:.0f} a minute and core"
        )
    if config.json:
        figures = {
            "physics": [asdict(p) for p in moving],
            "rendering": [asdict(r) for r in drawn],
            "episodes": [asdict(e) for e in whole],
        }
        print(jsonlib.dumps(figures))


if __name__ == "__main__":
    main(tyro.cli(SimulationBenchmark))
