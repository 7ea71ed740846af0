"""Printed cards on the table: pictures of things that are not there, to lead a planner astray.

A card is flat: to depth it is the table, to colour a thing. It has no contacts, and lies where no object stands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ...hardware.geometry import apply, rot_z
from ...hardware.rig import DEXGRASPVLA_RIG
from ...hardware.twin.objects.attach import VISUAL_GROUP, add_picture
from ...hardware.twin.objects.grasp_info import hull_points
from ...hardware.twin.scene_spec import SceneSpec, apply_scene
from ...hardware.twin.textures import COLOURS
from .disturbance import gap

SIZE_M = (0.105, 0.074)  # A7
THICK_M = 0.0006
PAPER = (246, 244, 238)
_PX = 192  # of a card's longer side
_GAP_M = 0.004


@dataclass(frozen=True)
class Card:
    """A card with one printed thing."""

    colour: str
    round: bool  # a disc, otherwise a block
    x_m: float
    y_m: float
    yaw_rad: float


def lay_cards(scene: SceneSpec, colours: tuple[str, ...], rng: Generator) -> tuple[Card, ...]:
    """A card for each of ``colours``, as many as find room; the same for the same generator."""
    feet = [apply(placed.world_T_object, hull_points(placed.object))[:, :2] for placed in scene.objects]
    x0, x1, y0, y1 = DEXGRASPVLA_RIG.object_area_m
    cards = []
    for colour in colours:
        for _ in range(200):
            x, y, yaw = rng.uniform(x0, x1), rng.uniform(y0, y1), rng.uniform(-np.pi, np.pi)
            card = Card(colour, bool(rng.random() < 0.5), float(x), float(y), float(yaw))
            foot = _foot(card)
            inside = (foot >= (x0, y0)).all() and (foot <= (x1, y1)).all()
            if inside and all(gap(foot, other) >= _GAP_M for other in feet):
                feet.append(foot)
                cards.append(card)
                break
    return tuple(cards)


def with_cards(scene: SceneSpec, cards: tuple[Card, ...]) -> Callable[[mujoco.MjSpec], None]:
    """What builds the scene with its cards, for a ``TwinWorld``."""

    def build(spec: mujoco.MjSpec) -> None:
        apply_scene(spec, scene, shadows=False)
        top = DEXGRASPVLA_RIG.table_box_m[5]
        for number, card in enumerate(cards):
            name = f"card_{number}"
            add_picture(spec, name, _printed(card))
            material = spec.add_material(name=name, specular=0.1, shininess=0.1)
            textures = list(material.textures)
            textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
            material.textures = textures
            body = spec.worldbody.add_body(
                name=name, pos=(card.x_m, card.y_m, top + THICK_M / 2),
                quat=(np.cos(card.yaw_rad / 2), 0, 0, np.sin(card.yaw_rad / 2)),
            )  # fmt: skip
            body.add_geom(
                name=name, type=mujoco.mjtGeom.mjGEOM_BOX, size=(SIZE_M[0] / 2, SIZE_M[1] / 2, THICK_M / 2),
                material=name, contype=0, conaffinity=0, group=VISUAL_GROUP,
            )  # fmt: skip

    return build


def _foot(card: Card) -> NDArray[np.float64]:
    half = np.array([[sx * SIZE_M[0] / 2, sy * SIZE_M[1] / 2] for sx in (-1, 1) for sy in (-1, 1)])
    return np.asarray(half @ rot_z(card.yaw_rad)[:2, :2].T + (card.x_m, card.y_m))


def _printed(card: Card) -> NDArray[np.uint8]:
    """The card's picture: a thing with a shadow and a light side, on paper."""
    height = round(_PX * SIZE_M[1] / SIZE_M[0])
    image = Image.new("RGB", (_PX, height), PAPER)
    draw = ImageDraw.Draw(image)
    r, g, b = (round(255 * value) for value in COLOURS[card.colour])
    middle, reach = (_PX // 2, height // 2), round(0.36 * height)
    box = (middle[0] - reach, middle[1] - reach, middle[0] + reach, middle[1] + reach)
    paint = draw.ellipse if card.round else draw.rectangle
    paint((box[0] + 6, box[1] + 6, box[2] + 6, box[3] + 6), fill=(200, 198, 192))
    paint(box, fill=(r, g, b))
    small = tuple(value + 0.5 * reach for value in box[:2]) + tuple(value - 0.9 * reach for value in box[2:])
    paint(small, fill=(min(255, r + 40), min(255, g + 40), min(255, b + 40)))
    return np.asarray(image)
