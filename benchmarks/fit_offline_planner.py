"""Fit the offline planner to scenes of the twin's training split: ``fitted.json`` and ``recogniser.safetensors``.

    python benchmarks/fit_offline_planner.py --scenes 600 --cache DIR

Objects of a scene are seen under its own light or, every other scene, under one that is drawn anew: dim to bright, warm
to cool, or of lamps in strong colours; in one scene of eight as if the robot, whose housing tells the tint, were
hidden. Fitted are the palette of colour words (means of the pixels of objects of a colour), whether a cut through a
cluster parts two objects, and the network that tells what a thing is called by colour and by kind
(``recogniser_training.py``). It learns from objects cut out by the truth and from the clusters that the planner itself
finds, cut as the file in place says: those hold a neighbour's rim now and then. A sixth of the scenes is held back: how
sure the answers may be is set by them, and what is right there is printed. The same arguments give the same files. With
``--cache`` a rendered scene is kept and not drawn again; with ``--only recogniser`` the rest stays as it is.
"""

# ruff: noqa: E402  # the environment is set before anything numerical is imported
from __future__ import annotations

import colorsys
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

for variable in ("OMP_NUM_THREADS", "LP_NUM_THREADS"):  # before NumPy and MuJoCo: one thread a process
    os.environ.setdefault(variable, "1")
os.environ.setdefault("MUJOCO_GL", "egl")

import numpy as np
import torch
import tyro
from dexloop.deploy.planner import fitted, recognition
from dexloop.deploy.planner.attributes import COLOURS
from dexloop.deploy.planner.base import Look, PlannerError
from dexloop.deploy.planner.cuts import CUT_FEATURES, Cut, SegmentConfig
from dexloop.deploy.planner.features import measure
from dexloop.deploy.planner.light import Light
from dexloop.deploy.planner.segments import Cluster, clusters, cutter_for, islands, make_cluster, to_lab
from dexloop.deploy.planner.table import Table, TableFinder
from dexloop.hardware.errors import BadInput, DexLoopError
from dexloop.hardware.rig import DEXGRASPVLA_RIG
from dexloop.hardware.twin.scene_spec import SceneSpec
from dexloop.hardware.twin.scenery import Lamp, Lighting
from dexloop.hardware.twin.scenes import sample_scene
from dexloop.hardware.twin.world import TwinConfig, TwinWorld
from numpy.typing import NDArray
from recogniser_training import Examples, heat_of, train
from rich.progress import track

Array = NDArray[np.float64]
CENTRES = 4  # of each colour word: base colours from shade to light
SIZES = ((640, 480), (320, 240))


@dataclass(frozen=True)
class FitConfig:
    """Fit the offline planner's numbers."""

    scenes: int = 600
    """How many scenes of the training split."""
    seed0: int = 812_000
    """Scenes are seed0, seed0 + 1, ..."""
    cache: Path | None = None
    """Folder of rendered scenes; None = keep none."""
    out: Path = fitted.PATH.parent
    """The folder to write to."""
    epochs: int = 32
    """Passes of the network over its examples."""
    only: Literal["all", "recogniser"] = "all"
    """What to fit; the rest is taken from what the repository holds."""

    def __post_init__(self) -> None:
        if self.scenes < 12 or self.epochs < 1:
            raise BadInput(f"--scenes is {self.scenes}, --epochs {self.epochs}: expected at least 12 and 1")


@dataclass
class Cuts:
    """Features of cuts, whether each parts two things, and the scene that it is of."""

    features: list[Array] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    scenes: list[int] = field(default_factory=list)

    def add(self, features: Array, name: str, scene: int) -> None:
        self.features.append(features)
        self.classes.append(name)
        self.scenes.append(scene)


@dataclass(frozen=True)
class Seen:
    """One object in one picture, cut out."""

    scene: int
    colour: str
    noun: str
    base_lab: Array  # (3,) of its paint
    accent_lab: Array
    cluster: Cluster
    lab: NDArray[np.float32]  # (h, w, 3) around it
    light: Light


# -- scenes ---------------------------------------------------------------------------------------------------------


def drawn_light(seed: int) -> Lighting:
    """A light that no scene of any split has."""
    rng = np.random.default_rng([seed, 4242])
    if seed % 8 in (3, 5):  # in pictures of either size
        return _coloured(rng)
    warmth = rng.uniform(-1, 1)
    tint = np.array((1.0, 0.86, 0.68)) ** warmth if warmth > 0 else np.array((0.82, 0.91, 1.0)) ** -warmth
    tint = tint * rng.uniform(0.9, 1.1, 3)
    ambient, main = rng.uniform(0.15, 0.5), rng.uniform(0.2, 0.6)
    x, y = rng.uniform(-0.5, 0.6), rng.uniform(-0.8, 0.8)
    lamps = [_lamp((0.4 - 1.2 * x, -1.2 * y, 1.2), (x, y, -1.0), main * tint)]
    if rng.random() < 0.7:  # what walls throw back
        lamps.append(_lamp((-0.5, -0.1, 0.6), (0.8, 0.1, -0.45), rng.uniform(0.1, 0.25) * tint))
    if rng.random() < 0.3:
        colour, aside = rng.uniform(0.2, 1.0, 3), rng.uniform(-0.6, 0.6)
        at = (float(rng.uniform(0.0, 0.8)), float(aside), 1.0)
        lamps.append(_lamp(at, (0.1, -0.7 * aside, -1.0), 0.5 * colour, directional=False))
    return Lighting("drawn", _triple(ambient * tint), tuple(lamps))


def _coloured(rng: np.random.Generator) -> Lighting:
    """One to three lamps of strong colours over the table, with or without a white one."""
    tint = rng.uniform(0.9, 1.1, 3)
    lamps = []
    for _ in range(rng.integers(1, 4)):
        colour = np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.4, 1.0), rng.uniform(0.4, 0.9)))
        at = rng.uniform((0.0, -0.8, 0.8), (0.9, 0.8, 1.3))
        to = rng.uniform((0.15, -0.4, 0.0), (0.65, 0.4, 0.0)) - at
        lamps.append(_lamp(_triple(at), _triple(to), colour, directional=False))
    if rng.random() < 0.5:
        x, y = rng.uniform(-0.4, 0.4, 2)
        lamps.append(_lamp((0.4 - 1.2 * x, -1.2 * y, 1.2), (x, y, -1.0), rng.uniform(0.1, 0.4) * tint))
    lamps.append(_lamp((-0.5, -0.1, 0.6), (0.8, 0.1, -0.45), rng.uniform(0.05, 0.2) * rng.uniform(0.8, 1.0, 3)))
    return Lighting("drawn", _triple(rng.uniform(0.1, 0.4) * tint), tuple(lamps))


def _lamp(at: tuple[float, float, float], to: tuple[float, float, float], rgb: Array, directional: bool = True) -> Lamp:
    return Lamp(at, to, _triple(rgb), directional, False)


def _triple(values: Array) -> tuple[float, float, float]:
    a, b, c = values.tolist()
    return a, b, c


def scene_of(seed: int) -> SceneSpec:
    """Four to six objects of the training split."""
    scene = sample_scene(seed, "train", 4 + seed % 3)
    return replace(scene, lighting=drawn_light(seed)) if seed % 2 else scene


def pictures(config: FitConfig) -> Iterator[tuple[int, SceneSpec, Look, NDArray[np.int32]]]:
    """Seed, scene, what the rig sees of it, and which pixel is of which object (index + 1)."""
    worlds: dict[tuple[int, int], TwinWorld] = {}
    for seed in range(config.seed0, config.seed0 + config.scenes):
        path = config.cache / f"train-{seed}.npz" if config.cache else None
        if path is None or not path.exists():
            drawn = _drawn(seed, worlds)
            if path is None:
                kept = drawn
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = path.with_suffix(".tmp.npz")
                np.savez_compressed(temporary, **drawn)
                temporary.replace(path)
                kept = drawn
        else:
            with np.load(path) as file:
                kept = dict(file)
        depth = kept["depth"].astype(np.float32) / 1000.0
        look = Look(0, kept["head"], depth, kept["state"])
        yield seed, SceneSpec.from_json(str(kept["scene"])), look, kept["seg"].astype(np.int32)


def _drawn(seed: int, worlds: dict[tuple[int, int], TwinWorld]) -> dict[str, Any]:
    scene, size = scene_of(seed), SIZES[seed // 2 % 2]
    if size in worlds:
        worlds[size].reset(scene)
    else:
        worlds[size] = TwinWorld(TwinConfig(camera_size=size, segmentation=True), scene)
    world = worlds[size]
    frame, state = world.cameras["head"].latest(), world.robot.state()
    assert frame.depth_m is not None
    assert frame.segmentation is not None
    return {
        "head": frame.rgb, "depth": np.round(frame.depth_m * 1000).astype(np.uint16),
        "seg": frame.segmentation.astype(np.int8), "state": np.concatenate([state.arm.q, state.hand.opening]),
        "scene": np.array(scene.to_json()),
    }  # fmt: skip


# -- examples -------------------------------------------------------------------------------------------------------


def cut_examples(seed: int, table: Table, lab: NDArray[np.float32], truth: NDArray[np.int32], out: Cuts) -> None:
    """Every cut of every cluster, right where no object is on both of its sides. A right one is followed further, as
    the planner does."""
    settings = SegmentConfig()
    smallest = settings.smallest_px(lab.shape[1])
    for island in islands(table, settings, smallest):
        cutter, window = cutter_for(island, table, lab, smallest)
        waiting, rounds = [island[window]], 0
        while waiting and rounds < 12:
            mask, rounds = waiting.pop(), rounds + 1
            right = []
            for cut in cutter.cuts(mask, settings):
                good = parts_objects(cut, truth[window], smallest)
                if good is not None:
                    out.add(cut.features, "two" if good > 0 else "one", seed)
                    if good > 0:
                        right.append((good, cut))
            if right:
                best = max(right, key=lambda entry: entry[0])[1]
                waiting += [best.first, best.second]


def parts_objects(cut: Cut, truth: NDArray[np.int32], smallest: int) -> float | None:
    """How purely the cut parts two sets of objects, 0 where it cuts through one or there is only one; None where it is
    neither clearly right nor wrong."""
    sides: set[bool] = set()
    worst = 1.0
    for index in np.unique(truth[cut.first | cut.second]):
        if index <= 0:
            continue
        first = int((truth[cut.first] == index).sum())
        second = int((truth[cut.second] == index).sum())
        if first + second < 0.5 * smallest:
            continue
        worst = min(worst, max(first, second) / (first + second))
        sides.add(first > second)
    if len(sides) < 2:
        return 0.0
    return worst if worst > 0.9 else None if worst > 0.75 else 0.0


def seen_objects(
    seed: int, scene: SceneSpec, table: Table, lab: NDArray[np.float32], light: Light, truth: NDArray[np.int32]
) -> Iterator[Seen]:
    """The objects of a picture, each as it would be found were its cluster right."""
    settings = SegmentConfig()
    smallest = settings.smallest_px(lab.shape[1])
    with np.errstate(invalid="ignore"):
        stands_out = table.on_table & (table.height_m > settings.grow_m)
    for index in range(len(scene.objects)):
        mask = (truth == index + 1) & (stands_out | ~table.valid)
        cluster = make_cluster(mask, table) if (mask & stands_out).sum() >= smallest else None
        if cluster is not None:
            yield _seen(seed, scene, index, cluster, lab, light)


def found_objects(
    seed: int, scene: SceneSpec, table: Table, lab: NDArray[np.float32], light: Light, truth: NDArray[np.int32]
) -> Iterator[Seen]:
    """The same objects as the planner cuts them out, where it finds them at all."""
    for cluster in clusters(table, lab):
        common = np.bincount(np.maximum(truth[cluster.mask], 0), minlength=len(scene.objects) + 1)[1:]
        index = int(common.argmax())
        union = cluster.mask.sum() + (truth == index + 1).sum() - common[index]
        if common[index] > 0.5 * union:
            yield _seen(seed, scene, index, cluster, lab, light)


def _seen(seed: int, scene: SceneSpec, index: int, cluster: Cluster, lab: NDArray[np.float32], light: Light) -> Seen:
    x0, y0, x1, y1 = (int(v) for v in cluster.box)
    rows, columns = np.unravel_index(cluster.pixels, cluster.mask.shape)
    cropped = replace(
        cluster, mask=cluster.mask[y0:y1, x0:x1], box=(0.0, 0.0, float(x1 - x0), float(y1 - y0)),
        pixels=(rows - y0) * (x1 - x0) + columns - x0,
    )  # fmt: skip
    item = scene.objects[index].object
    base, accent = (to_lab(np.array([np.round(255 * np.array(c))], np.uint8))[0].astype(float)
                    for c in (item.rgb, item.accent_rgb))  # fmt: skip
    return Seen(seed, item.colour, item.noun, base, accent, cropped, lab[y0:y1, x0:x1].copy(), light)


def palette_of(objects: list[Seen], rng: np.random.Generator) -> dict[str, list[list[float]]]:
    """Means of the pixels of each colour's objects that are nearer to its paint than to what is printed on it."""
    found: dict[str, list[Array]] = {name: [] for name in COLOURS}
    weight = np.array([0.25, 1.0, 1.0])
    for item in objects:
        pixels = item.lab.reshape(-1, 3)[item.cluster.pixels].astype(float)
        to_base, to_accent = (np.linalg.norm((pixels - lab) * weight, axis=1)
                              for lab in (item.base_lab, item.accent_lab))  # fmt: skip
        chosen = pixels[to_base < 0.8 * to_accent]
        if len(chosen) >= 20:
            found[item.colour].append(chosen[rng.integers(len(chosen), size=40)])
    missing = [name for name, pixels in found.items() if not pixels]
    if missing:
        raise BadInput(f"nothing in these scenes is {', '.join(missing)}: take more, with --scenes.")
    return {name: _means(np.concatenate(pixels)) for name, pixels in found.items()}


def _means(pixels: Array) -> list[list[float]]:
    """``CENTRES`` means of (N, 3), begun at quantiles of lightness."""
    centres = np.array([pixels[np.argsort(pixels[:, 0])[int(q * (len(pixels) - 1))]] for q in
                        (np.arange(CENTRES) + 0.5) / CENTRES])  # fmt: skip
    for _ in range(30):
        nearest = np.linalg.norm(pixels[:, None] - centres, axis=-1).argmin(1)
        centres = np.stack([pixels[nearest == k].mean(0) if (nearest == k).any() else centres[k]
                            for k in range(CENTRES)])  # fmt: skip
    return [[round(float(v), 1) for v in centre] for centre in centres]


# -- the judge of cuts ------------------------------------------------------------------------------------------------

HIDDEN, NOISE, PASSES = 24, 0.1, 200  # of its one layer; on its standardised features; over its examples


def judge_of(cuts: Cuts) -> dict[str, Any]:
    """Train it, print what it gets right on the scenes held back, and give it as ``fitted.json`` holds it."""
    classes = tuple(sorted(set(cuts.classes)))
    x = np.stack(cuts.features)
    y = np.array([classes.index(c) for c in cuts.classes])
    back = np.array(cuts.scenes) % 6 == 5
    mean, scale = x[~back].mean(0), np.maximum(x[~back].std(0), 1e-3)
    torch.manual_seed(0)
    inputs = torch.tensor(np.clip((x - mean) / scale, -3, 3), dtype=torch.float32)
    labels, held = torch.tensor(y), torch.tensor(back)
    linear = [torch.nn.Linear(x.shape[1], HIDDEN), torch.nn.Linear(HIDDEN, len(classes))]
    net = torch.nn.Sequential(linear[0], torch.nn.Tanh(), linear[1])
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=0.1)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, PASSES)
    train = torch.nonzero(~held)[:, 0]
    for _ in range(PASSES):
        for rows in train[torch.randperm(len(train))].split(256):
            noisy = inputs[rows] + NOISE * torch.randn_like(inputs[rows])
            loss = torch.nn.functional.cross_entropy(net(noisy), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        rate.step()
    with torch.no_grad():
        logits = net(inputs[held])
    heat, loss = heat_of(logits, labels[held])
    right = float((logits.argmax(1) == labels[held]).float().mean())
    print(f"cuts: {len(train)} examples, {int(held.sum())} held back: right {right:.1%}, loss {loss:.3f}")
    layers = [[p.detach().double().numpy() for p in (layer.weight, layer.bias)] for layer in linear]
    layers[-1] = [value / heat for value in layers[-1]]
    return {
        "classes": list(classes), "mean": _short(mean), "scale": _short(scale),
        "layers": [{"weights": _short(weights.T), "bias": _short(bias)} for weights, bias in layers],
    }  # fmt: skip


def _short(values: Array) -> list[Any]:
    """Numbers of four digits, as lists."""
    return np.vectorize(lambda v: float(f"{v:.4g}"))(values).tolist()


# -- all of it ------------------------------------------------------------------------------------------------------


def main() -> int:
    config = tyro.cli(FitConfig, description=__doc__)
    try:
        fit(config)
    except DexLoopError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def fit(config: FitConfig) -> None:
    """Write both files."""
    torch.set_num_threads(1)
    finder = TableFinder(DEXGRASPVLA_RIG)
    cuts, objects, found = Cuts(), list[Seen](), list[Seen]()
    for seed, scene, look, truth in track(pictures(config), "looking at scenes", config.scenes):
        try:
            table = finder.find(look)
        except PlannerError as error:
            print(f"scene {seed} is left out: {error}")
            continue
        hidden = seed % 8 == 6  # the robot's housing, as where a user's camera does not see it
        light = Light.of(look.head, replace(table, robot=np.zeros_like(table.robot)) if hidden else table)
        lab = to_lab(light.balanced(look.head, table))
        if config.only == "all":
            cut_examples(seed, table, lab, truth, cuts)
        objects += seen_objects(seed, scene, table, lab, light, truth)
        found += found_objects(seed, scene, table, lab, light, truth)
    about = {"script": "benchmarks/fit_offline_planner.py", "split": "train"}
    about |= {"scenes": config.scenes, "seed0": config.seed0}
    data = json.loads(fitted.PATH.read_text())
    if config.only == "all":
        data = {
            "format": fitted.FORMAT,
            "from": {**about, "cut_features": list(CUT_FEATURES)},
            "palette": palette_of(objects, np.random.default_rng(0)),
            "cuts": judge_of(cuts),
        }
        numbers = json.dumps(data, separators=(",", ":")) + "\n"
        _replace(config.out / fitted.PATH.name, lambda path: path.write_text(numbers), fitted.load)
    palette = fitted.Palette.from_json(data["palette"])
    recogniser = train(examples([*objects, *found], palette), config.epochs)
    about |= {"epochs": config.epochs}
    _replace(
        config.out / recognition.PATH.name, lambda path: recognition.save(recogniser, path, about), recognition.load
    )


def examples(seen: list[Seen], palette: fitted.Palette) -> Examples:
    """As the recogniser gets to see them."""
    shown = Examples()
    for item in seen:
        measures = measure(item.cluster, item.lab, item.light, palette)
        shown.patches.append(recognition.patch(item.cluster, item.lab).astype(np.float16))
        shown.of_kind.append(measures.of_kind)
        shown.of_colour.append(measures.of_colour)
        shown.kinds.append(item.noun)
        shown.colours.append(item.colour)
        shown.scenes.append(item.scene)
    return shown


def _replace(path: Path, write: Callable[[Path], object], read: Callable[[Path], object]) -> None:
    """A file that is there whole and can be read, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    write(temporary)
    read(temporary)
    temporary.replace(path)
    print(f"wrote {path}, {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    sys.exit(main())
