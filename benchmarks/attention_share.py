"""Where a controller looks: how much of its attention is on the target, against how much of what it sees the target is.

    python benchmarks/attention_share.py --policy runs/paper/best --scenes 50 --out outputs/attention
    python benchmarks/attention_share.py                         # the policy that comes with DexLoop

Each scene is seen once, as an attempt begins: the arm at its start, the target's true mask. Attention is averaged over
action tokens, heads, blocks and sampling steps (train/attention_maps.py).

A controller with picture tokens (the paper presets, or small with --crop) answers what DexGraspVLA's figure 4 shows:
the share of a picture's attention that falls on the target's pixels, beside the share of the picture that they cover.
The small encoder has no picture: depth and mask become geometry before it attends. Of it one can only say how attention
is divided among its tokens (hand, target, time), beside their share of the tokens; nearly all that it can look at *is*
the target, so this is no evidence of finding it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from dexloop.deploy.command import SHIPPED_POLICY
from dexloop.deploy.evaluation.figures import part, part_line
from dexloop.hardware.errors import BadInput, DexLoopError
from dexloop.hardware.twin.scenes import sample_scene
from dexloop.hardware.twin.world import TwinConfig, TwinWorld
from dexloop.train.attention import brightest
from dexloop.train.attention_maps import attend, grids
from dexloop.train.attention_picture import Look, draw
from dexloop.train.controller.checkpoint import load_controller
from dexloop.train.controller.policy import ControllerPolicy
from dexloop.train.views import Observation
from numpy.typing import NDArray
from PIL import Image

SHEET_WIDTH = 560  # px of one scene in the sheet


@dataclass(frozen=True)
class AttentionShare:
    """Measure the share of attention on the target."""

    policy: Path = SHIPPED_POLICY
    """Folder of the controller. Not given: the one that comes with DexLoop."""
    scenes: int = 50
    """How many scenes."""
    objects: int = 6
    """Objects in each."""
    split: Literal["train", "validation", "test"] = "validation"
    """Which objects, backgrounds and lightings."""
    seed0: int = 930_000
    """Scenes are seed0, seed0 + 1, ..."""
    camera_size: tuple[int, int] = (320, 240)
    """Width and height of the pictures."""
    out: Path | None = None
    """Write a sheet of all scenes there, attention.jpg."""
    json: bool = False
    """Print one JSON object as the last line."""


def seen(config: AttentionShare) -> Iterator[tuple[int, Observation]]:
    """Each scene as an attempt on its target begins."""
    world: TwinWorld | None = None
    for seed in range(config.seed0, config.seed0 + config.scenes):
        scene = sample_scene(seed, config.split, config.objects)
        if world is None:
            world = TwinWorld(TwinConfig(camera_size=config.camera_size, segmentation=True), scene)
        else:
            world.reset(scene)
        frames = {name: camera.latest() for name, camera in world.cameras.items()}
        state, segments = world.robot.state(), frames["head"].segmentation
        assert segments is not None
        yield (
            seed,
            Observation(
                np.concatenate([state.arm.q, state.hand.opening]).astype(np.float32),
                {name: frame.rgb for name, frame in frames.items()},
                {name: frame.depth_m for name, frame in frames.items() if frame.depth_m is not None},
                segments == scene.target + 1,
            ),
        )
    if world is not None:
        world.close()


def look_at(policy: ControllerPolicy, observation: Observation, title: str) -> Look:
    """What the controller attends to."""
    policy.start(observation)
    batch = policy.batch(observation)
    found = attend(policy.controller, batch, policy.noise())
    corners = {group: batch.get(f"{grid.view.name}.origin") for group, grid in found.grids.items()}
    return Look(
        0,
        {group: attention[0].numpy() for group, attention in found.maps().items()},
        {group: (int(corner[0, 0]), int(corner[0, 1])) for group, corner in corners.items() if corner is not None},
        {group: float(share) for group, share in found.shares().items()},
        {group: (float(a), float(b)) for group, (a, b) in found.on_target(batch).items()},
        title,
    )


def token_shares(policy: ControllerPolicy) -> dict[str, float]:
    """What each group would get if every token that is there got the same. None is committed as an attempt begins."""
    sizes = {name: place.stop - place.start for name, place in policy.controller.encoder.groups.items()} | {"time": 1}
    return {name: size / sum(sizes.values()) for name, size in sizes.items()}


def spread(values: list[float]) -> dict[str, float]:
    """Mean over scenes with its 95 % interval (normal)."""
    mean = float(np.mean(values))
    half = 1.96 * float(np.std(values, ddof=1)) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return {"mean": round(mean, 5), "low": round(mean - half, 5), "high": round(mean + half, 5)}


def summary(looks: list[Look], even: dict[str, float]) -> dict[str, Any]:
    """The figures, ready for JSON. Scenes whose target does not show say nothing of pictures."""
    out: dict[str, Any] = {"scenes": len(looks), "groups": {}, "pictures": {}}
    for name in looks[0].shares:
        if name in even:
            out["groups"][name] = spread([look.shares[name] for look in looks]) | {"of_tokens": round(even[name], 5)}
    for name in looks[0].on_target:
        pairs = [look.on_target[name] for look in looks if look.on_target[name][1] > 0]
        if pairs:
            out["pictures"][name] = {
                "attention": spread([attention for attention, _ in pairs]),
                "area": spread([area for _, area in pairs]),
                "times": spread([attention / area for attention, area in pairs]),
                "above_area": part(sum(attention > area for attention, area in pairs), len(pairs)),
            }
    return out


def show(figures: dict[str, Any]) -> None:
    print(f"{figures['scenes']} scenes, as an attempt begins")
    print("tokens       attention            of the tokens")
    for name, found in figures["groups"].items():
        print(f"{name:12s} {_told(found):20s} {found['of_tokens']:6.1%}")
    for name, found in figures["pictures"].items():
        print(
            f"picture {name}: on the target {_told(found['attention'])} of its attention, {_told(found['area'])} of it"
        )
        times = found["times"]
        print(f"  {times['mean']:.1f} times its area ({times['low']:.1f}..{times['high']:.1f})")
        print(f"  {part_line('scenes with more attention than area', found['above_area'])}")
    if not figures["pictures"]:
        print("this controller has no picture tokens with a mask: attention on pixels does not exist for it")


def _told(found: dict[str, float]) -> str:
    return f"{found['mean']:.1%} ({found['low']:.1%}..{found['high']:.1%})"


def sheet(pictures: list[NDArray[np.uint8]], path: Path) -> None:
    """All scenes on one page."""
    columns = min(4, len(pictures))
    cells = [
        Image.fromarray(picture).resize((SHEET_WIDTH, picture.shape[0] * SHEET_WIDTH // picture.shape[1]))
        for picture in pictures
    ]
    height = max(cell.height for cell in cells)
    page = Image.new("RGB", (columns * SHEET_WIDTH, -(-len(cells) // columns) * height))
    for number, cell in enumerate(cells):
        page.paste(cell, (number % columns * SHEET_WIDTH, number // columns * height))
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, quality=85)
    print(f"Look at {path}.")


def main() -> int:
    config = tyro.cli(AttentionShare, description=__doc__)
    torch.set_num_threads(1)
    try:
        if config.scenes < 1:
            raise BadInput(f"--scenes is {config.scenes}: expected 1 or more.")
        policy = ControllerPolicy(load_controller(config.policy))
        moments, looks = [], []
        for seed, observation in seen(config):
            looks.append(look_at(policy, observation, f"{config.split} scene {seed}"))
            moments.append(observation)
    except DexLoopError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    figures = summary(looks, token_shares(policy))
    show(figures)
    if config.out is not None:
        over, most = grids(policy.controller.encoder), brightest(looks)
        drawn = [draw(look, moment, over, most) for look, moment in zip(looks, moments, strict=True)]
        sheet(drawn, config.out / "attention.jpg")
    if config.json:
        print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
