"""Draws the README's pictures from the twin: ``uv run python docs/pictures.py``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import mujoco
import numpy as np
from dexloop.collect.command import Collect
from dexloop.collect.operators.script import ScriptOperator
from dexloop.datasets.reader import DatasetReader
from dexloop.datasets.view import contact_sheet
from dexloop.hardware.clock import NS
from dexloop.hardware.safety import SafeRobot
from dexloop.hardware.twin.scenes import sample_scene
from dexloop.hardware.twin.world import TwinConfig, TwinWorld
from PIL import Image

OUT = Path(__file__).parent / "images"
SCENE_SEED, OBJECTS, LIGHTING = 11, 5, "daylight"
EPISODE_SEED = 2
BIG, SMALL = (960, 720), (480, 360)


def grasped(world: TwinWorld) -> None:
    """Run the scripted operator until the target is in the air."""
    operator, robot = ScriptOperator(world, seed=SCENE_SEED), SafeRobot(world.robot, world.rig)
    operator.begin(robot.state(), world.clock.now_ns())
    deadline_ns = world.clock.now_ns()
    target = world.scene.target
    while world.object_lift_m(target) < 0.10:
        deadline_ns += NS // 20
        world.clock.sleep_until_ns(deadline_ns)
        answer = operator.act(robot.state(), world.clock.now_ns())
        if answer.command is not None:
            robot.send(answer.command)
        if answer.done:
            raise SystemExit("the grasp failed: choose another scene for the picture")


def free_camera(
    lookat: tuple[float, float, float], distance: float, azimuth: float, elevation: float
) -> mujoco.MjvCamera:
    camera = mujoco.MjvCamera()
    camera.lookat[:] = lookat
    camera.distance, camera.azimuth, camera.elevation = distance, azimuth, elevation
    return camera


def contact_sheet_picture() -> None:
    """An episode as `view` shows it."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "grasp"
        Collect(dataset=str(root), episodes=1, seed=EPISODE_SEED, objects="5").run()
        contact_sheet(DatasetReader(root), 0, Path(folder) / "sheet.png")
        sheet = Image.open(Path(folder) / "sheet.png").convert("RGB")
        sheet.thumbnail((1500, 1500), Image.Resampling.LANCZOS)
        sheet.save(OUT / "episode.jpg", quality=85)
    print(f"{OUT / 'episode.jpg'}: contact sheet of an episode")


def twin_picture() -> None:
    """Overview, head view and wrist view while an object is lifted."""
    world = TwinWorld(
        TwinConfig(camera_size=BIG, shadows=True), sample_scene(SCENE_SEED, "train", OBJECTS, lighting=LIGHTING)
    )
    grasped(world)
    qpos = np.array(world.data.qpos)
    overview = free_camera((0.30, -0.10, 0.18), 1.45, 205, -24)
    pictures = [world.draw(camera, qpos, False, False).rgb for camera in (overview, "head", "wrist")]
    world.close()
    sheet = Image.new("RGB", (BIG[0] + SMALL[0], BIG[1]), "white")
    sheet.paste(Image.fromarray(pictures[0]), (0, 0))
    for row, picture in enumerate(pictures[1:]):
        sheet.paste(Image.fromarray(picture).resize(SMALL, Image.Resampling.LANCZOS), (BIG[0], row * SMALL[1]))
    sheet.save(OUT / "twin.jpg", quality=88)
    print(f"{OUT / 'twin.jpg'}: overview, head view, wrist view")


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    twin_picture()
    contact_sheet_picture()
