"""A resolved scene as a value: settled objects, a target with its instruction, background, lighting, camera jitter.

It is stored with the episode and builds the same world again without drawing anything.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import mujoco
import numpy as np

from ..description import RigDescription
from ..errors import BadInput
from ..geometry import Transform, quat_to_matrix, transform
from ..rig import DEXGRASPVLA_RIG
from .objects import ObjectSpec, add_object
from .scenery import (
    Background,
    CameraJitter,
    Lamp,
    Lighting,
    Surface,
    apply_background,
    apply_jitter,
    apply_lighting,
)

Vec3 = tuple[float, float, float]
Quat = tuple[float, float, float, float]
SCENE_FORMAT = 1


@dataclass(frozen=True)
class PlacedObject:
    """An object at rest. The derived numbers are :class:`~.objects.Placement`'s."""

    object: ObjectSpec
    position_m: Vec3  # world_T_object
    quat: Quat
    stance: str  # upright, lying, flat or inverted: how it was put down
    height_m: float
    width_m: float  # across the grasp
    closing_yaw_rad: float  # direction of the width in the table plane
    awkward: str  # why the hand cannot take it as it lies; empty when it can

    @property
    def graspable(self) -> bool:
        return not self.awkward

    @property
    def world_T_object(self) -> Transform:
        return transform(quat_to_matrix(np.array(self.quat)), np.array(self.position_m))


@dataclass(frozen=True)
class SceneSpec:
    """A resolved scene. JSON round trip is exact: ``SceneSpec.from_json(scene.to_json()) == scene``."""

    seed: int
    split: str
    objects: tuple[PlacedObject, ...]
    target: int  # index into objects
    instruction: str
    background: Background
    lighting: Lighting
    camera_jitter: tuple[CameraJitter, ...]
    format: int = SCENE_FORMAT

    @property
    def target_object(self) -> PlacedObject:
        return self.objects[self.target]

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> SceneSpec:
        """Raises BadInput when the text is no scene of this format."""
        try:
            data = json.loads(text)
            if data.get("format") != SCENE_FORMAT:
                raise BadInput(f"scene of format {data.get('format')!r}: expected {SCENE_FORMAT}; record it again")
            return cls(**{**data, **_resolved(data)})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(
                f"this is not a scene description ({error}): expected what SceneSpec.to_json wrote"
            ) from error


def _resolved(data: dict[str, Any]) -> dict[str, Any]:
    """The nested values of a scene from parsed JSON: lists become tuples, dictionaries their dataclasses."""
    objects = tuple(
        PlacedObject(
            **{
                **entry,
                "object": ObjectSpec.from_json(entry["object"]),
                "position_m": tuple(entry["position_m"]),
                "quat": tuple(entry["quat"]),
            }
        )
        for entry in data["objects"]
    )
    ground = {
        key: Surface(
            **{
                **data["background"][key],
                "rgb": tuple(data["background"][key]["rgb"]),
                "accent_rgb": tuple(data["background"][key]["accent_rgb"]),
            }
        )
        for key in ("table", "floor", "wall")
    }
    lamps = tuple(
        Lamp(
            tuple(lamp["position_m"]),
            tuple(lamp["direction"]),
            tuple(lamp["diffuse"]),
            lamp["directional"],
            lamp["castshadow"],
        )
        for lamp in data["lighting"]["lamps"]
    )
    jitter = tuple(
        CameraJitter(entry["camera"], tuple(entry["translation_m"]), tuple(entry["rotation_rad"]))
        for entry in data["camera_jitter"]
    )
    return {
        "objects": objects,
        "background": Background(data["background"]["name"], seed=data["background"]["seed"], **ground),
        "lighting": Lighting(data["lighting"]["name"], tuple(data["lighting"]["ambient"]), lamps),
        "camera_jitter": jitter,
    }


def apply_scene(
    spec: mujoco.MjSpec,
    scene: SceneSpec,
    rig: RigDescription = DEXGRASPVLA_RIG,
    shadows: bool = True,
    visuals: bool = True,
) -> None:
    """Put a scene into a model of the rig, before it is compiled.

    Objects become free bodies ``object_0`` ... in the scene's order. With ``visuals`` the table gets its cover, floor
    and walls are added, all lights are replaced (``shadows`` lets the main one cast them) and the cameras named by
    the rig are moved by the scene's jitter; without, only what physics needs is added.
    """
    for index, placed in enumerate(scene.objects):
        add_object(spec, placed.object, placed.world_T_object, f"object_{index}", visuals)
    if visuals:
        apply_background(spec, scene.background, rig)
        apply_lighting(spec, scene.lighting, shadows)
        apply_jitter(spec, scene.camera_jitter)
