"""What stands around the objects: table cover, floor and walls, lights, and how far the cameras are from nominal.

The sets of names of two splits are disjoint, so that a background or lighting of a test was never seen in training.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.random import Generator

from ..description import RigDescription
from ..geometry import matrix_to_quat, quat_to_matrix, rotation_exp
from .objects.attach import add_picture
from .textures import Rgb, paint

Vec3 = tuple[float, float, float]
TEXTURE_PX = 256


@dataclass(frozen=True)
class Surface:
    """A picture on a surface; ``tile_m`` is the length that one picture covers."""

    pattern: str
    rgb: Vec3
    accent_rgb: Vec3
    tile_m: float


@dataclass(frozen=True)
class Background:
    """Table cover, floor and wall."""

    name: str
    table: Surface
    floor: Surface
    wall: Surface
    seed: int = 0


@dataclass(frozen=True)
class Lamp:
    """One light. A directional lamp shines along ``direction`` from everywhere, a spot from ``position_m``."""

    position_m: Vec3
    direction: Vec3
    diffuse: Vec3
    directional: bool = True
    castshadow: bool = False


@dataclass(frozen=True)
class Lighting:
    """Ambient light and lamps."""

    name: str
    ambient: Vec3
    lamps: tuple[Lamp, ...]


@dataclass(frozen=True)
class CameraJitter:
    """How far a camera of this scene stands from its calibrated pose, in its own (MuJoCo) frame."""

    camera: str
    translation_m: Vec3
    rotation_rad: Vec3  # rotation vector


_OAK, _WALNUT, _PINE = (0.72, 0.55, 0.36), (0.42, 0.27, 0.17), (0.83, 0.70, 0.50)
_WHITE, _CREAM, _GREY, _BLACK = (0.88, 0.88, 0.86), (0.86, 0.81, 0.70), (0.52, 0.53, 0.55), (0.10, 0.10, 0.11)
_CONCRETE = Surface("speckle", (0.60, 0.60, 0.59), _GREY, 0.8)
_PARQUET = Surface("wood", (0.60, 0.43, 0.27), _WALNUT, 0.7)
_TILES = Surface("tiles", (0.78, 0.77, 0.74), (0.55, 0.55, 0.54), 1.2)
_PAINTED = Surface("plain", (0.87, 0.86, 0.83), _WHITE, 1.5)
_PAPERED = Surface("stripes_up", (0.76, 0.79, 0.74), (0.84, 0.86, 0.82), 0.9)


def _backgrounds(*entries: tuple[str, Surface, Surface, Surface]) -> dict[str, Background]:
    return {name: Background(name, table, floor, wall) for name, table, floor, wall in entries}


BACKGROUNDS: dict[str, dict[str, Background]] = {
    "train": _backgrounds(
        ("oak_table", Surface("wood", _OAK, _WALNUT, 0.6), _CONCRETE, _PAINTED),
        ("white_laminate", Surface("plain", _WHITE, _GREY, 0.8), _PARQUET, _PAINTED),
        ("grey_cloth", Surface("fabric", (0.50, 0.52, 0.55), _GREY, 0.25), _TILES, _PAPERED),
        ("beige_cloth", Surface("fabric", _CREAM, _GREY, 0.25), _CONCRETE, _PAPERED),
        ("red_check_cloth", Surface("checks", (0.90, 0.88, 0.85), (0.72, 0.16, 0.15), 0.4), _TILES, _PAINTED),
        ("slate", Surface("speckle", (0.27, 0.29, 0.31), _BLACK, 0.6), _PARQUET, _PAPERED),
        ("green_mat", Surface("plain", (0.26, 0.42, 0.32), _BLACK, 0.8), _CONCRETE, _PAINTED),
        ("terrazzo", Surface("dots", (0.80, 0.78, 0.74), (0.62, 0.56, 0.50), 0.3), _TILES, _PAPERED),
    ),
    "validation": _backgrounds(
        ("pine_table", Surface("wood", _PINE, _OAK, 0.5), _TILES, _PAPERED),
        ("navy_cloth", Surface("fabric", (0.16, 0.20, 0.34), _BLACK, 0.25), _PARQUET, _PAINTED),
    ),
    "test": _backgrounds(
        ("black_cloth", Surface("fabric", (0.17, 0.17, 0.18), _BLACK, 0.25), _PARQUET, _PAINTED),
        ("walnut_table", Surface("wood", _WALNUT, _BLACK, 0.55), _TILES, _PAPERED),
        ("white_marble", Surface("marble", (0.90, 0.90, 0.89), _GREY, 0.9), _CONCRETE, _PAPERED),
        ("flowered_cloth", Surface("flowers", (0.84, 0.80, 0.72), (0.52, 0.30, 0.50), 0.5), _PARQUET, _PAPERED),
        ("blue_stripes", Surface("stripes_up", (0.85, 0.87, 0.90), (0.25, 0.38, 0.62), 0.35), _CONCRETE, _PAINTED),
        ("kitchen_tiles", Surface("tiles", (0.62, 0.72, 0.70), (0.86, 0.86, 0.84), 0.5), _PARQUET, _PAINTED),
    ),
}


def _rgb(level: float, tint: Vec3 = (1.0, 1.0, 1.0)) -> Vec3:
    return level * tint[0], level * tint[1], level * tint[2]


def _lamp(direction: Vec3, diffuse: Vec3, shadow: bool = True) -> Lamp:
    dx, dy, dz = direction
    return Lamp((0.4 - 1.2 * dx, -1.2 * dy, -1.2 * dz), direction, diffuse, True, shadow)


def _spot(position_m: Vec3, diffuse: Vec3, at: Vec3) -> Lamp:
    dx, dy, dz = np.array(at) - np.array(position_m)
    return Lamp(position_m, (float(dx), float(dy), float(dz)), diffuse, False, False)


def _lighting(name: str, ambient: Vec3, *lamps: Lamp) -> Lighting:
    return Lighting(name, ambient, lamps)


def _named(*lightings: Lighting) -> dict[str, Lighting]:
    return {lighting.name: lighting for lighting in lightings}


_WARM, _COOL = (1.0, 0.86, 0.68), (0.82, 0.91, 1.0)
# Light that walls throw back, mostly on the sides that the head camera sees.
_BOUNCE = (0.8, 0.1, -0.45)


def _bounce(level: float, tint: Vec3 = (1.0, 1.0, 1.0)) -> Lamp:
    return _lamp(_BOUNCE, _rgb(level, tint), shadow=False)


LIGHTINGS: dict[str, dict[str, Lighting]] = {
    "train": _named(
        _lighting("daylight", _rgb(0.34), _lamp((-0.3, -0.4, -1.0), _rgb(0.46)), _bounce(0.24)),
        _lighting("warm", _rgb(0.30, _WARM), _lamp((0.15, 0.2, -1.0), _rgb(0.52, _WARM)), _bounce(0.22, _WARM)),
        _lighting("cool", _rgb(0.32, _COOL), _lamp((-0.2, 0.35, -1.0), _rgb(0.50, _COOL)), _bounce(0.22, _COOL)),
        _lighting("overcast", _rgb(0.50), _lamp((0.05, 0.0, -1.0), _rgb(0.22)), _bounce(0.16)),
        _lighting(
            "two_lamps", _rgb(0.26), _lamp((0.5, 0.5, -1.0), _rgb(0.36)), _lamp((0.3, -0.7, -1.0), _rgb(0.3), False)
        ),
    ),
    "validation": _named(
        _lighting("evening", _rgb(0.26, _WARM), _lamp((0.5, -0.35, -1.0), _rgb(0.48, _WARM)), _bounce(0.16, _WARM)),
        _lighting("strip_light", _rgb(0.40, _COOL), _lamp((0.1, -0.1, -1.0), _rgb(0.38, _COOL)), _bounce(0.2, _COOL)),
    ),
    "test": _named(
        _lighting("white", _rgb(0.34), _lamp((0.0, 0.12, -1.0), _rgb(0.48)), _bounce(0.24)),
        _lighting("dim", _rgb(0.20), _lamp((0.2, 0.1, -1.0), _rgb(0.25)), _bounce(0.14)),
        _lighting(
            "disco",
            _rgb(0.22),
            _spot((0.2, 0.6, 1.0), (0.80, 0.04, 0.45), (0.30, 0.22, 0.0)),
            _spot((0.8, 0.1, 1.1), (0.05, 0.35, 0.95), (0.55, 0.02, 0.0)),
            _spot((0.2, -0.6, 1.0), (0.15, 0.75, 0.10), (0.30, -0.2, 0.0)),
            _bounce(0.14, (1.0, 0.8, 1.0)),
        ),
        _lighting("side", _rgb(0.24), _lamp((0.1, -1.0, -0.5), _rgb(0.72)), _bounce(0.1)),
    ),
}


def draw_background(rng: Generator, split: str, name: str | None) -> Background:
    """One background of the split, with a picture seed of its own."""
    table = BACKGROUNDS[split]
    chosen = table[name] if name else table[str(rng.choice(sorted(table)))]
    return Background(chosen.name, chosen.table, chosen.floor, chosen.wall, int(rng.integers(0, 2**31)))


def draw_lighting(rng: Generator, split: str, name: str | None) -> Lighting:
    """One lighting of the split, its brightness within +-8 % and its lamps turned by a few degrees."""
    table = LIGHTINGS[split]
    chosen = table[name] if name else table[str(rng.choice(sorted(table)))]
    level = float(rng.uniform(0.92, 1.08))
    turn = rotation_exp(rng.normal(0.0, 0.06, 3))
    lamps = tuple(
        Lamp(
            _turned(turn, lamp.position_m),
            _turned(turn, lamp.direction),
            _scaled(lamp.diffuse, level),
            lamp.directional,
            lamp.castshadow,
        )
        for lamp in chosen.lamps
    )
    return Lighting(chosen.name, _scaled(chosen.ambient, level), lamps)


def _turned(rotation: np.ndarray, vector: Vec3) -> Vec3:
    x, y, z = (round(float(v), 5) for v in rotation @ np.array(vector))
    return x, y, z


def _scaled(rgb: Rgb, factor: float) -> Vec3:
    r, g, b = (round(min(channel * factor, 1.0), 4) for channel in rgb)
    return r, g, b


# Standard deviations per axis: what a re-mounted bracket and a hand-eye calibration leave.
JITTER_M = {"head": 0.003, "wrist": 0.001}
JITTER_RAD = {"head": 0.006, "wrist": 0.004}


def draw_jitter(rng: Generator, rig: RigDescription, scale: float = 1.0) -> tuple[CameraJitter, ...]:
    """A small pose error for each of the rig's cameras, cut at two standard deviations."""
    out = []
    for camera in rig.cameras:
        shift = np.clip(rng.normal(size=3), -2, 2) * scale * JITTER_M.get(camera.name, 0.002)
        turn = np.clip(rng.normal(size=3), -2, 2) * scale * JITTER_RAD.get(camera.name, 0.004)
        (a, b, c), (d, e, f) = shift.round(6).tolist(), turn.round(6).tolist()
        out.append(CameraJitter(camera.name, (a, b, c), (d, e, f)))
    return tuple(out)


def apply_background(spec: mujoco.MjSpec, background: Background, rig: RigDescription) -> None:
    """Lay a cover on the table and add floor and walls, all to be looked at only."""
    x0, x1, y0, y1, _, z1 = rig.table_box_m
    # 0.1 mm above the table: far more than the depth buffer's step, far less than the cameras' noise.
    _add_quad(
        spec,
        "table",
        background.table,
        background.seed,
        np.array([[x0, y0, z1 + 1e-4], [x1, y0, z1 + 1e-4], [x1, y1, z1 + 1e-4], [x0, y1, z1 + 1e-4]]),
    )
    ground = -0.75
    _add_quad(
        spec,
        "floor",
        background.floor,
        background.seed + 1,
        np.array([[-1.5, -2, ground], [2.5, -2, ground], [2.5, 2, ground], [-1.5, 2, ground]]),
    )
    room = [(-1.5, -2.0), (-1.5, 2.0), (2.5, 2.0), (2.5, -2.0), (-1.5, -2.0)]
    for index, ((ax, ay), (bx, by)) in enumerate(zip(room[:-1], room[1:], strict=True)):
        corners = np.array([[ax, ay, ground], [bx, by, ground], [bx, by, 1.8], [ax, ay, 1.8]])
        _add_quad(spec, f"wall_{index}", background.wall, background.seed + 2, corners, shared="wall")


def _add_quad(
    spec: mujoco.MjSpec, name: str, surface: Surface, seed: int, corners: np.ndarray, shared: str = ""
) -> None:
    """A textured rectangle (4, 3), counter-clockwise as seen, that neither collides nor weighs."""
    label = f"background_{shared or name}"
    if spec.material(label) is None:
        add_picture(spec, label, paint(surface.pattern, surface.rgb, surface.accent_rgb, seed, TEXTURE_PX))
        material = spec.add_material(name=label, specular=0.1, shininess=0.2)
        textures = list(material.textures)
        textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = label
        material.textures = textures
    mesh = spec.add_mesh(name=f"background_{name}")
    # Two sides, so that the mesh has a volume of zero thickness but every viewer sees it.
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    across = np.linalg.norm(corners[1] - corners[0]) / surface.tile_m
    up = np.linalg.norm(corners[3] - corners[0]) / surface.tile_m
    mesh.uservert = corners.ravel()
    mesh.userface = faces.ravel()
    mesh.usertexcoord = np.array([[0, 0], [across, 0], [across, up], [0, up]], float).ravel()
    mesh.userfacetexcoord = faces.ravel()
    mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL
    spec.worldbody.add_geom(
        name=f"background_{name}",
        type=mujoco.mjtGeom.mjGEOM_MESH,
        meshname=f"background_{name}",
        material=label,
        castshadow=False,  # a floor that shadows itself shows moire
        contype=0,
        conaffinity=0,
        mass=0.0,
        group=2,
    )


def apply_lighting(spec: mujoco.MjSpec, lighting: Lighting, shadows: bool) -> None:
    """Replace all lights of the model."""
    for light in list(spec.lights):
        spec.delete(light)
    headlight = spec.visual.headlight
    headlight.ambient = lighting.ambient
    headlight.diffuse = (0.0, 0.0, 0.0)
    headlight.specular = (0.0, 0.0, 0.0)
    kinds = (mujoco.mjtLightType.mjLIGHT_SPOT, mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
    for index, lamp in enumerate(lighting.lamps):
        spec.worldbody.add_light(
            name=f"lamp_{index}",
            type=kinds[lamp.directional],
            pos=lamp.position_m,
            dir=lamp.direction,
            diffuse=lamp.diffuse,
            ambient=(0, 0, 0),
            specular=_scaled(lamp.diffuse, 0.4),
            castshadow=shadows and lamp.castshadow,
            cutoff=26.0,
            exponent=12.0,
        )


def apply_jitter(spec: mujoco.MjSpec, jitter: tuple[CameraJitter, ...]) -> None:
    """Move the cameras of the model that the jitter names; a model without one of them is left as it is."""
    for entry in jitter:
        camera = spec.camera(entry.camera)
        if camera is None:
            continue
        rotation = quat_to_matrix(np.array(camera.quat))
        camera.pos = np.array(camera.pos) + rotation @ np.array(entry.translation_m)
        camera.quat = matrix_to_quat(rotation @ rotation_exp(np.array(entry.rotation_rad)))
