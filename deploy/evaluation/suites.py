"""Suites of scenes, fixed by seed and held in files, so that two figures are of the same scenes.

    python -m dexloop.deploy.evaluation.suites      # writes the files anew, the same every time

``unseen1287`` has the make-up of the paper's (2502.20900): 360 unseen objects, 103 scenes on each of 6 unseen
backgrounds, 103 under each of 3 unseen lightings, about six objects a scene. The 103 are the same scenes each time:
only the factor that is examined changes. ``planner`` and ``masks`` ask of planner and tracker alone, on scenes of their
own, ``long-horizon`` wants several objects. Nothing is chosen by any of these, nothing tuned on it: ``validation`` and
those that end in it are for that, whose objects, backgrounds and lightings are in neither training nor test.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...hardware.errors import BadInput
from ...hardware.twin.instructions import alike
from ...hardware.twin.scene_spec import PlacedObject, SceneSpec
from ...hardware.twin.scenery import BACKGROUNDS, LIGHTINGS
from ...hardware.twin.scenes import sample_scene

if TYPE_CHECKING:
    from ...hardware.twin.third_party import ObjectLibrary

FOLDER = Path(__file__).parent / "suites"
FORMAT = 1
Kind = Literal["lift", "planner", "masks"]
"""What is done with a suite's scenes: objects are lifted, the planner is asked, the tracker is watched."""
SUITES: dict[str, Kind] = {
    "unseen1287": "lift", "single": "lift", "long-horizon": "lift", "validation": "lift",
    "long-horizon-validation": "lift", "planner": "planner", "planner-validation": "planner", "masks": "masks",
    "masks-validation": "masks",
}  # fmt: skip

# One background and one lighting that are plain: what is examined is then the only thing that is out of the ordinary.
PLAIN_BACKGROUND, PLAIN_LIGHTING = "walnut_table", "white"
UNSEEN_LIGHTINGS = ("dim", "disco", "side")
PLAIN_VALIDATION = "pine_table", "strip_light"
CARDS = "cards"
"""The factor of scenes with printed cards between the objects."""
_OBJECT_SEED, _AROUND_SEED, _SINGLE_SEED, _VALIDATION_SEED, _LONG_SEED, _PLANNER_SEED, _MASKS_SEED = (
    128_700_000, 128_710_000, 128_720_000, 128_730_000, 128_740_000, 128_750_000, 128_760_000,
)  # fmt: skip
_VALIDATION_OFFSET = 5000  # within the blocks of the suites that have a validation of their own
LONG_SCENES = 24


@dataclass(frozen=True)
class Row:
    """One scene of a suite."""

    id: str  # unique in the suite, fit for a file's name
    seed: int
    split: str
    objects: int
    factor: str  # what is examined: object, background, lighting, a kind of task, or cards among the objects
    background: str
    lighting: str
    prompt: str = ""  # "" = the scene's own instruction
    wanted: tuple[int, ...] = ()  # indices of the objects that the prompt means; () = the scene's target

    @property
    def stratum(self) -> tuple[str, str, str]:
        """Rows that differ by their seed only."""
        return self.factor, self.background, self.lighting

    def scene(self, library: ObjectLibrary | None = None) -> SceneSpec:
        """The scene; with a ``library`` its objects come from there, of the same number."""
        return sample_scene(
            self.seed, self.split, self.objects, background=self.background, lighting=self.lighting, library=library
        )

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Row:
        return cls(**{**data, "wanted": tuple(data.get("wanted", ()))})


@dataclass(frozen=True)
class Suite:
    """Scenes in a fixed order."""

    name: str
    rows: tuple[Row, ...]

    def stratified(self, count: int) -> tuple[Row, ...]:
        """``count`` rows with every factor, background and lighting in its proportion; the same for the same count,
        in the suite's order. Raises BadInput where the suite has fewer."""
        if not 1 <= count <= len(self.rows):
            raise BadInput(f"{count} scenes of {self.name} were asked for: expected 1 to {len(self.rows)}.")
        factors = list(dict.fromkeys(row.factor for row in self.rows))
        members = [[row for row in self.rows if row.factor == factor] for factor in factors]
        chosen: set[str] = set()
        for rows, share in zip(members, _apportion([len(rows) for rows in members], count), strict=True):
            chosen |= _drawn(rows, share)
        return tuple(row for row in self.rows if row.id in chosen)

    @property
    def kind(self) -> Kind:
        return SUITES[self.name]

    @property
    def digest(self) -> str:
        """Of every row: results of two suites with one name do not mix."""
        return hashlib.sha256(_text(self).encode()).hexdigest()[:16]


def _drawn(rows: Sequence[Row], count: int) -> set[str]:
    """Ids of ``count`` rows, every stratum in its proportion."""
    strata: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        strata.setdefault(row.stratum, []).append(row)
    shares = _apportion([len(members) for members in strata.values()], count)
    return {
        row.id
        for members, share in zip(strata.values(), shares, strict=True)
        for row in sorted(members, key=_lot)[:share]
    }


def _lot(row: Row) -> str:
    """A fixed shuffle, another one in each stratum."""
    return hashlib.sha256(f"lot {row.id}".encode()).hexdigest()


def _apportion(sizes: Sequence[int], count: int) -> list[int]:
    """``count`` divided in proportion to ``sizes``, the largest remainders rounded up (Hamilton)."""
    total = sum(sizes)
    shares = [size * count // total for size in sizes]
    rest = sorted(range(len(sizes)), key=lambda k: (-(sizes[k] * count % total), k))
    for k in rest[: count - sum(shares)]:
        shares[k] += 1
    return shares


def load(name: str) -> Suite:
    """The suite that is held under ``name``. Raises BadInput for another name or a damaged file."""
    if name not in SUITES:
        raise BadInput(f"suite {name!r} is unknown: expected one of {', '.join(SUITES)}.")
    path = FOLDER / f"{name}.json"
    try:
        data = json.loads(path.read_text())
        if data["format"] != FORMAT or data["name"] != name:
            raise ValueError(f"format {data['format']}, name {data['name']!r}")
        suite = Suite(name, tuple(Row.from_json(row) for row in data["rows"]))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"{path} is no suite of format {FORMAT} ({error}): write it anew with "
            "`python -m dexloop.deploy.evaluation.suites`."
        ) from error
    twice = [key for key, times in Counter(row.id for row in suite.rows).items() if times > 1]
    if twice:
        raise BadInput(f"{path} names scene {twice[0]} twice: write it anew.")
    return suite


# -- how they are made ---------------------------------------------------------------------------------------------


def _count(seed: int) -> int:
    """Five or six objects, so that the mean is about the paper's six."""
    return 5 + int(np.random.default_rng([seed, 1287]).random() < 0.75)


def _around(split: str, seed0: int, scenes: int, backgrounds: Sequence[str], lightings: Sequence[str],
            plain: tuple[str, str]) -> Iterator[Row]:  # fmt: skip
    """The same scenes on each background in the plain light, and under each lighting on the plain background."""
    for background in backgrounds:
        for seed in range(seed0, seed0 + scenes):
            yield Row(f"background-{background}-{seed - seed0:03d}", seed, split, _count(seed), "background",
                      background, plain[1])  # fmt: skip
    for lighting in lightings:
        for seed in range(seed0, seed0 + scenes):
            yield Row(f"lighting-{lighting}-{seed - seed0:03d}", seed, split, _count(seed), "lighting", plain[0],
                      lighting)  # fmt: skip


def unseen1287() -> Iterator[Row]:
    """360 + 6 x 103 + 3 x 103."""
    for k in range(360):
        seed = _OBJECT_SEED + k
        yield Row(f"object-{k:03d}", seed, "test", _count(seed), "object", PLAIN_BACKGROUND, PLAIN_LIGHTING)
    plain = PLAIN_BACKGROUND, PLAIN_LIGHTING
    yield from _around("test", _AROUND_SEED, 103, sorted(BACKGROUNDS["test"]), UNSEEN_LIGHTINGS, plain)


def single() -> Iterator[Row]:
    """One unseen object alone on the table."""
    for k in range(360):
        seed = _SINGLE_SEED + k
        yield Row(f"single-{k:03d}", seed, "test", 1, "single", PLAIN_BACKGROUND, PLAIN_LIGHTING)


def validation() -> Iterator[Row]:
    """For choosing: as unseen1287, from the validation split alone."""
    backgrounds, lightings = sorted(BACKGROUNDS["validation"]), sorted(LIGHTINGS["validation"])
    for k in range(120):
        seed = _VALIDATION_SEED + k
        yield Row(f"object-{k:03d}", seed, "validation", _count(seed), "object", *PLAIN_VALIDATION)
    yield from _around("validation", _VALIDATION_SEED + 1000, 40, backgrounds, lightings, PLAIN_VALIDATION)


def _everywhere(split: str, seed0: int, factors: Sequence[str]) -> Iterator[Row]:
    """One new scene for each of ``factors`` on every background under every lighting."""
    seed = seed0
    for background in sorted(BACKGROUNDS[split]):
        for lighting in sorted(LIGHTINGS[split]):
            for number, factor in enumerate(factors):
                name = f"{background}-{lighting}-{number:02d}"
                yield Row(name, seed, split, _count(seed), factor, background, lighting)
                seed += 1


def planner() -> Iterator[Row]:
    """Five scenes on each of 6 backgrounds under each of 4 lightings; printed cards lie in one of five."""
    yield from _everywhere("test", _PLANNER_SEED, ("object",) * 4 + (CARDS,))


def planner_validation() -> Iterator[Row]:
    yield from _everywhere("validation", _PLANNER_SEED + _VALIDATION_OFFSET, (("object",) * 4 + (CARDS,)) * 2)


def masks() -> Iterator[Row]:
    """Two scenes on each of 6 backgrounds under each of 4 lightings."""
    yield from _everywhere("test", _MASKS_SEED, ("object",) * 2)


def masks_validation() -> Iterator[Row]:
    yield from _everywhere("validation", _MASKS_SEED + _VALIDATION_OFFSET, ("object",) * 6)


def long_horizon() -> Iterator[Row]:
    """Clear the table, all of a colour, all of one kind: 24 scenes each. Everything that is wanted can be taken as it
    lies, and nothing that is not wanted could be meant."""
    yield from _tasks("test", _LONG_SEED, LONG_SCENES, PLAIN_BACKGROUND, PLAIN_LIGHTING)


def long_horizon_validation() -> Iterator[Row]:
    yield from _tasks("validation", _LONG_SEED + _VALIDATION_OFFSET, LONG_SCENES // 2, *PLAIN_VALIDATION)


def _tasks(split: str, seed0: int, count: int, background: str, lighting: str) -> Iterator[Row]:
    """``count`` scenes of each of TASKS."""
    for number, (factor, choose) in enumerate(TASKS.items()):
        seed, found = seed0 + 2000 * number, 0
        while found < count:
            scene = sample_scene(seed, split, _count(seed), background=background, lighting=lighting)
            task = choose(scene.objects)
            if task is not None:
                prompt, wanted = task
                yield Row(f"{factor}-{found:02d}", seed, split, len(scene.objects), factor, background, lighting,
                          prompt, wanted)  # fmt: skip
                found += 1
            seed += 1


Task = tuple[str, tuple[int, ...]]


def _clear(placed: Sequence[PlacedObject]) -> Task | None:
    return ("clear the table", tuple(range(len(placed)))) if all(item.graspable for item in placed) else None


def _colour(placed: Sequence[PlacedObject]) -> Task | None:
    shared = _shared(placed, lambda item: item.object.colour)
    return (f"put all {shared[0]} objects into the bin", shared[1]) if shared else None


def _shape(placed: Sequence[PlacedObject]) -> Task | None:
    """Of a shape, as people say it: all boxes, all balls."""
    shared = _shared(placed, lambda item: item.object.noun)
    if shared is None:
        return None
    noun, wanted = shared
    member = placed[wanted[0]]
    others = [item for index, item in enumerate(placed) if index not in wanted]
    if any(alike(_painted(item, member), member) for item in others):
        return None  # a mug beside the cups: somebody would want it too
    return f"put all {_plural(noun)} into the bin", wanted


def _shared(placed: Sequence[PlacedObject], key: Callable[[PlacedObject], str]) -> Task | None:
    """The most frequent value of ``key``, where two to four objects share it and all of them can be taken."""
    value, times = max(Counter(key(item) for item in placed).items(), key=lambda entry: (entry[1], entry[0]))
    wanted = tuple(index for index, item in enumerate(placed) if key(item) == value)
    if not 2 <= times <= 4 or times == len(placed) or not all(placed[index].graspable for index in wanted):
        return None
    return value, wanted


def _painted(item: PlacedObject, like: PlacedObject) -> PlacedObject:
    """``item`` in the other's colour: whether nouns alone tell them apart."""
    return replace(item, object=replace(item.object, colour=like.object.colour))


def _plural(noun: str) -> str:
    head, of, rest = noun.partition(" of ")  # "bars of soap"
    if head.endswith(("x", "s", "ch", "sh")):
        return f"{head}es{of}{rest}"
    if head.endswith("y") and head[-2] not in "aeiou":
        return f"{head[:-1]}ies{of}{rest}"
    return f"{head}s{of}{rest}"


TASKS: dict[str, Callable[[Sequence[PlacedObject]], Task | None]] = {
    "clear": _clear, "colour": _colour, "shape": _shape,
}  # fmt: skip
MAKERS: dict[str, Callable[[], Iterator[Row]]] = {
    "unseen1287": unseen1287, "single": single, "long-horizon": long_horizon, "validation": validation,
    "long-horizon-validation": long_horizon_validation, "planner": planner, "planner-validation": planner_validation,
    "masks": masks, "masks-validation": masks_validation,
}  # fmt: skip


def _text(suite: Suite) -> str:
    """One row a line, so that a change shows as one."""
    rows = ",\n".join(json.dumps(asdict(row), separators=(",", ":")) for row in suite.rows)
    head = json.dumps({"format": FORMAT, "name": suite.name})
    return f'{head[:-1]}, "rows": [\n{rows}\n]}}\n'


def write(folder: Path = FOLDER, names: Iterable[str] = SUITES) -> list[Path]:
    """Make the suites anew, from their definitions alone. ``long-horizon`` settles some hundred scenes on the way."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in names:
        path = folder / f"{name}.json"
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(_text(Suite(name, tuple(MAKERS[name]()))))
        temporary.replace(path)
        paths.append(path)
    return paths


if __name__ == "__main__":
    for written in write():
        print(written)
