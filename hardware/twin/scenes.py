"""Draw a scene: choose objects, lay them out, let them settle, pick a target and say it without ambiguity.

``sample_scene`` is a function of its arguments alone; what it drew is resolved into a :class:`SceneSpec`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import mujoco
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ..description import RigDescription
from ..errors import BadInput, DexLoopError
from ..geometry import Transform, apply, matrix_to_quat, pose_error, rot_x, rot_y, rot_z, transform
from ..rig import DEXGRASPVLA_RIG
from .instructions import instruction_for
from .objects import ObjectSpec, add_object, generate_object, placement
from .objects.catalogue import FAMILIES, check_split
from .objects.grasp_info import hull_points
from .scene_spec import PlacedObject as PlacedObject
from .scene_spec import SceneSpec as SceneSpec
from .scene_spec import apply_scene as apply_scene
from .scenery import BACKGROUNDS, LIGHTINGS, draw_background, draw_jitter, draw_lighting
from .textures import stable_seed

if TYPE_CHECKING:
    from .third_party import ObjectLibrary

Array = NDArray[np.float64]

MAX_OBJECTS = 6
# Numbers of objects per split: enough that a data set rarely sees the same one twice.
POOL = {"train": 100_000, "validation": 10_000, "test": 20_000}
_ATTEMPTS = 60


@dataclass(frozen=True)
class Layout:
    """How close objects lie. Shares of neighbours that touch, that are 0 to 5 cm apart, and (the rest) anywhere."""

    touching: float = 0.15
    near: float = 0.55
    near_gap_m: float = 0.05
    include_awkward_targets: bool = False
    awkward_share: float = 0.2  # at most this share of a scene's objects may be awkward as they lie

    def __post_init__(self) -> None:
        for name in ("touching", "near", "awkward_share"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise BadInput(f"Layout.{name} is {value}: expected a share in [0, 1]")
        if self.touching + self.near > 1.0:
            raise BadInput(f"Layout.touching + near is {self.touching + self.near:.2f}: expected at most 1")
        if not 0.0 <= self.near_gap_m <= 0.2:
            raise BadInput(f"Layout.near_gap_m is {self.near_gap_m}: expected 0 to 0.2 m")


DEFAULT_LAYOUT = Layout()


def sample_scene(
    seed: int,
    split: str = "train",
    n_objects: int = 1,
    rig: RigDescription = DEXGRASPVLA_RIG,
    layout: Layout = DEFAULT_LAYOUT,
    background: str | None = None,
    lighting: str | None = None,
    library: ObjectLibrary | None = None,
) -> SceneSpec:
    """A settled scene, a function of its arguments alone.

    What falls, rolls away or cannot be told apart is drawn again from the next stream of the same seed. With a
    ``library`` all objects come from its share of the split. Raises BadInput for an unknown split, background or
    lighting, or a number of objects outside 1 to 6.
    """
    check_split(split)
    if not 1 <= n_objects <= MAX_OBJECTS:
        raise BadInput(f"{n_objects} objects asked for: a scene holds 1 to {MAX_OBJECTS}")
    if seed < 0:
        raise BadInput(f"scene seed {seed} is negative: expected 0 or more")
    _check_name("background", background, BACKGROUNDS[split], split)
    _check_name("lighting", lighting, LIGHTINGS[split], split)
    pool = library.of_split(split) if library is not None else None
    around = np.random.default_rng(stable_seed("surroundings", split, seed))
    drawn_background = draw_background(around, split, background)
    drawn_lighting = draw_lighting(around, split, lighting)
    jitter = draw_jitter(around, rig)
    for attempt in range(_ATTEMPTS):
        rng = np.random.default_rng(stable_seed("scene", split, seed, n_objects, attempt))
        objects = _draw(rng, split, n_objects, pool)
        placed = _attempt(rng, objects, rig, layout)
        if placed is None:
            continue
        chosen = _choose_target(rng, placed, layout)
        if chosen is None:
            continue
        target, text = chosen
        return SceneSpec(seed, split, placed, target, text, drawn_background, drawn_lighting, jitter)
    raise DexLoopError(
        f"no settled scene of {n_objects} objects in {_ATTEMPTS} attempts (seed {seed}, {split}): "
        "ask for fewer objects or a wider object area"
    )


def _check_name(kind: str, name: str | None, known: dict, split: str) -> None:
    if name is not None and name not in known:
        raise BadInput(f"{kind} {name!r} is not in the {split} split: expected one of {', '.join(sorted(known))}")


def _draw(rng: Generator, split: str, count: int, pool: tuple[ObjectSpec, ...] | None) -> list[ObjectSpec]:
    if pool is None:
        return [generate_object(int(rng.integers(POOL[split])), split) for _ in range(count)]
    return [pool[int(rng.integers(len(pool)))] for _ in range(count)]


def _attempt(
    rng: Generator, objects: list[ObjectSpec], rig: RigDescription, layout: Layout
) -> tuple[PlacedObject, ...] | None:
    """Lay out and settle once; None when something did not fit, fell or would not lie still."""
    stances = [_stance(rng, obj) for obj in objects]
    poses = _lay_out(rng, objects, [turn for _, turn in stances], rig, layout)
    if poses is None:
        return None
    settled = settle(objects, poses, rig)
    if settled is None:
        return None
    placed = []
    for obj, (stance, _), pose in zip(objects, stances, settled, strict=True):
        position, quat = pose[:3, 3].round(6), matrix_to_quat(pose[:3, :3]).round(7)
        quat = quat / np.linalg.norm(quat)
        how = placement(obj, pose)
        x, y, z = position.tolist()
        qw, qx, qy, qz = quat.tolist()
        placed.append(
            PlacedObject(obj, (x, y, z), (qw, qx, qy, qz), stance, round(how.height_m, 4), round(how.width_m, 4),
                         round(how.closing_yaw_rad, 4), how.awkward)
        )  # fmt: skip
    if sum(not item.graspable for item in placed) > max(
        layout.awkward_share * len(placed), 1 if len(placed) > 1 else 0
    ):
        return None
    return tuple(placed)


def _stance(rng: Generator, obj: ObjectSpec) -> tuple[str, Array]:
    """How an object is put down, and its rotation (3, 3)."""
    stances = FAMILIES[obj.family].stances if obj.family in FAMILIES else (("upright", 0.6), ("lying", 0.4))
    weights = np.array([weight for _, weight in stances])
    stance = stances[int(rng.choice(len(stances), p=weights / weights.sum()))][0]
    yaw = rot_z(float(rng.uniform(-np.pi, np.pi)))
    if stance == "inverted":
        return stance, yaw @ rot_x(np.pi)
    if stance == "flat":  # on its broad side: y is every flat family's thin axis
        return stance, yaw @ rot_x(float(rng.choice([-1, 1])) * np.pi / 2)
    if stance == "lying":
        # Cornered things rest on one of their long faces, turned ones anywhere about their axis.
        roll = rng.uniform(-np.pi, np.pi) if obj.symmetry != "none" else rng.integers(0, 4) * np.pi / 2
        return stance, yaw @ rot_y(np.pi / 2) @ rot_z(float(roll))
    return stance, yaw


def _lay_out(
    rng: Generator, objects: list[ObjectSpec], turns: list[Array], rig: RigDescription, layout: Layout
) -> list[Transform] | None:
    """Poses just above the table without overlap; None when no room was found."""
    x0, x1, y0, y1 = rig.object_area_m
    feet: list[Array] = []  # footprints (N, 2), world
    poses: list[Transform] = []
    for obj, turn in zip(objects, turns, strict=True):
        corners = apply(transform(turn), hull_points(obj))
        flat = corners[:, :2]
        for _ in range(80):
            center = _propose(rng, flat, feet, rig, layout)
            foot = flat + center
            inside = foot.min(0) >= (x0, y0), foot.max(0) <= (x1, y1)
            if np.all(inside) and all(_gap(foot, other) >= -1e-9 for other in feet):
                feet.append(foot)
                height = rig.table_box_m[5] - corners[:, 2].min() + 0.001
                poses.append(transform(turn, np.array([*center, height])))
                break
        else:
            return None
    return poses


def _propose(rng: Generator, flat: Array, feet: list[Array], rig: RigDescription, layout: Layout) -> Array:
    """A place (2,) for a footprint: against a neighbour, near it, or anywhere."""
    x0, x1, y0, y1 = rig.object_area_m
    kind = rng.random()
    if not feet or kind >= layout.touching + layout.near:
        return np.array([rng.uniform(x0, x1), rng.uniform(y0, y1)])
    neighbour = feet[int(rng.integers(len(feet)))]
    gap = 0.0005 if kind < layout.touching else rng.uniform(0.0, layout.near_gap_m)
    angle = rng.uniform(-np.pi, np.pi)
    direction = np.array([np.cos(angle), np.sin(angle)])
    middle = (neighbour.max(0) + neighbour.min(0)) / 2
    # Slide in along the direction until the two hulls are ``gap`` apart there.
    reach = ((neighbour - middle) @ direction).max() + (flat @ -direction).max() + gap
    return middle + reach * direction


_DIRECTIONS = np.stack(
    [np.cos(np.linspace(0, 2 * np.pi, 48, endpoint=False)), np.sin(np.linspace(0, 2 * np.pi, 48, endpoint=False))]
)


def _gap(a: Array, b: Array) -> float:
    """Distance of two footprints (N, 2) along the best of 48 separating directions, m; negative when none separates."""
    return float(((b @ _DIRECTIONS).min(0) - (a @ _DIRECTIONS).max(0)).max())


SETTLE_STEP_S = 0.002
STILL_M_S, STILL_RAD_S = 0.002, 0.03
WATCH_S, CREEP_M, CREEP_RAD = 1.0, 0.0002, 0.005


def physics_model(objects: list[ObjectSpec], poses: list[Transform], rig: RigDescription) -> mujoco.MjModel:
    """Table and objects only, nothing to look at."""
    spec = mujoco.MjSpec()
    spec.option.timestep = SETTLE_STEP_S
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10.0
    x0, x1, y0, y1, z0, z1 = rig.table_box_m
    spec.worldbody.add_geom(
        name="table", type=mujoco.mjtGeom.mjGEOM_BOX,
        size=((x1 - x0) / 2, (y1 - y0) / 2, (z1 - z0) / 2), pos=((x1 + x0) / 2, (y1 + y0) / 2, (z1 + z0) / 2),
    )  # fmt: skip
    for index, (obj, pose) in enumerate(zip(objects, poses, strict=True)):
        add_object(spec, obj, pose, f"object_{index}", visuals=False)
    return spec.compile()


def settle(objects: list[ObjectSpec], poses: list[Transform], rig: RigDescription) -> list[Transform] | None:
    """Let objects come to rest, then watch them for another ``WATCH_S``.

    Answers their poses, or None when one left the area, did not come to rest within 2.5 s, or crept afterwards.
    """
    model = physics_model(objects, poses, rig)
    data = mujoco.MjData(model)
    calm = 0
    for _ in range(25):
        mujoco.mj_step(model, data, nstep=int(0.1 / SETTLE_STEP_S))
        calm = calm + 1 if _is_still(data) else 0  # one quiet moment may be the turning point of a rocking cup
        if calm == 2:
            break
    else:
        return None
    before = _poses(data, len(objects))
    # Start anew from these poses, as the twin will: no speeds, no contact forces remembered.
    data.qvel[:] = 0.0
    data.qacc_warmstart[:] = 0.0
    mujoco.mj_step(model, data, nstep=int(WATCH_S / SETTLE_STEP_S))
    after = _poses(data, len(objects))
    moved_m, turned_rad = pose_error(np.stack(before), np.stack(after))
    if moved_m.max() > CREEP_M or turned_rad.max() > CREEP_RAD or not _is_still(data):
        return None
    x0, x1, y0, y1 = rig.object_area_m
    place = np.stack(after)[:, :3, 3]
    inside = (place >= (x0, y0, rig.table_box_m[5])) & (place <= (x1, y1, np.inf))
    return after if inside.all() else None


def _is_still(data: mujoco.MjData) -> bool:
    speed = np.abs(data.qvel.reshape(-1, 6))
    return bool(speed[:, :3].max() < STILL_M_S and speed[:, 3:].max() < STILL_RAD_S)


def _poses(data: mujoco.MjData, count: int) -> list[Transform]:
    """world_T_object of the objects, in their order."""
    bodies = [data.body(f"object_{index}") for index in range(count)]
    return [transform(body.xmat.reshape(3, 3).copy(), body.xpos.copy()) for body in bodies]


def _choose_target(rng: Generator, placed: tuple[PlacedObject, ...], layout: Layout) -> tuple[int, str] | None:
    """A target that can be taken and be named; None when there is none."""
    order = [int(index) for index in rng.permutation(len(placed))]
    for index in order:
        if placed[index].graspable or layout.include_awkward_targets:
            text = instruction_for(rng, placed, index)
            if text is not None:
                return index, text
    return None
