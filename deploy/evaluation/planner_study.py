"""Does the planner find what it is told to, ask when it must, and say when a thing is not there? No robot moves.

Of each scene the planner sees one look, the arm at its start. It is asked for

box          the box of every object that shows, by an instruction that means this object and no other: right is an IoU
             above 0.5 with its visible pixels (the paper's 150 boxes, 99.3 %)
instruction  the scene's own instruction, as deployment does: a proposal, then its box
ambiguous    "the red object" where two are red, "the box" where two are boxes: right is a question
absent       a thing of which neither kind nor colour is there: right is that there is nothing to do
other kind   a kind that is not there, in a colour that is: the same
printed      (scenes with cards) a thing of which only a printed picture lies there: the same

Unseen backgrounds and lightings are in every scene, printed cards in one of five. People and their things are in none:
the twin has none.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.random import Generator

from ...hardware.errors import BadInput
from ...hardware.twin.instructions import alike, phrase, relation
from ...hardware.twin.objects.catalogue import FAMILIES
from ...hardware.twin.scene_spec import SceneSpec
from ...hardware.twin.textures import COLOURS
from ...hardware.twin.world import SceneBuilder, TwinConfig, TwinWorld
from ..eyes import Eyes
from ..masks.tracker import RigidTracker
from ..planner.base import Box, Grounding, Look, Planner, PlannerError
from .cards import lay_cards, with_cards
from .figures import SUMMARY, TABLE, grouped, part, part_line, plot_parts, write_table
from .makers import make_library, make_planner, still_there
from .oracle import Truth, aimed_at, box_of
from .scored import RIGHT_IOU
from .store import write_json
from .suites import CARDS
from .values import Record, Trial, TrialSettings

PLOT = "planner.png"
SHOWN_SHARE = 1.3e-4  # of the picture's pixels (40 of 640 x 480): what is smaller is not seen by people either
PLAIN_SHARE = 6.5e-4  # two things that both show so much are two things to everyone
PAPER_BOXES = 0.993
"""DexGraspVLA's own, of 150 boxes (2502.20900)."""

FAULTS_SHOWN = 12

Kind = Literal["box", "instruction", "ambiguous", "absent", "other kind", "printed"]
KINDS: tuple[Kind, ...] = ("box", "instruction", "ambiguous", "absent", "other kind", "printed")
RIGHT: dict[Kind, str] = {
    "box": "right", "instruction": "right", "ambiguous": "asked", "absent": "nothing", "other kind": "nothing",
    "printed": "nothing",
}  # fmt: skip
ANSWERS = ("right", "wrong", "asked", "nothing", "refused")


@dataclass(frozen=True)
class Question:
    """What the planner is asked."""

    kind: Kind
    words: str
    index: int = -1  # of the object that is meant; -1 none


@dataclass(frozen=True)
class Asked:
    """A question with its answer."""

    kind: str
    words: str
    index: int
    answer: str  # right or wrong (of a box), asked, nothing, refused (it could not read the words or see the table)
    iou: float  # of its box with that of the object that is meant
    said: str
    ms: float

    @property
    def right(self) -> bool:
        return self.answer == RIGHT[self.kind]  # type: ignore[index]


@dataclass(frozen=True)
class PlannerResult(Record):
    """All questions of one scene."""

    id: str
    seed: int
    factor: str
    background: str
    lighting: str
    objects: int
    visible: int
    asked: tuple[Asked, ...] = ()
    wall_s: float = 0.0


# -- what is asked -------------------------------------------------------------------------------------------------


def questions(
    scene: SceneSpec, shown: Mapping[int, float], rng: Generator, printed: Sequence[str] = ()
) -> Iterator[Question]:
    """``shown``: the share of the picture's pixels of each object that can be seen; ``printed``: colours of cards."""
    placed = scene.objects
    for index in sorted(shown):
        where = relation(placed, index)
        if where is not None:
            yield Question("box", f"pick up the {phrase(placed[index].object)} {where}".strip(), index)
    yield Question("instruction", scene.instruction, scene.target)
    plain = [placed[index].object for index in shown if shown[index] >= PLAIN_SHARE]
    for colour, count in sorted(Counter(obj.colour for obj in plain).items()):
        if count > 1:
            yield Question("ambiguous", f"pick up the {colour} object")
    for noun, count in sorted(Counter(obj.noun for obj in plain).items()):
        if count > 1:
            yield Question("ambiguous", f"pick up the {noun}")
    colours = {item.object.colour for item in placed}
    free = [colour for colour in COLOURS if colour not in colours and colour not in printed]
    nouns = _nouns_not_there(scene)
    if free and nouns:
        noun = str(rng.choice(nouns))
        yield Question("absent", f"pick up the {rng.choice(free)} {noun}")
        yield Question("other kind", f"pick up the {rng.choice(sorted(colours))} {noun}")
    for colour in printed:
        yield Question("printed", f"pick up the {colour} object")


def _nouns_not_there(scene: SceneSpec) -> list[str]:
    """Kinds of things that nobody would see in the scene. An orange is left out: it is a colour, too."""

    def like(noun: str) -> bool:
        return any(alike(replace(item, object=replace(item.object, noun=noun)), item) for item in scene.objects)

    return sorted({family.noun for family in FAMILIES.values() if family.noun not in COLOURS and not like(family.noun)})


def absent_colours(scene: SceneSpec, count: int, rng: Generator) -> tuple[str, ...]:
    """Bright colours that no object of the scene has, for cards."""
    taken = {item.object.colour for item in scene.objects} | {"white", "grey", "black", "brown"}
    free = [colour for colour in COLOURS if colour not in taken]
    return tuple(str(colour) for colour in rng.permutation(free)[:count])


# -- asking --------------------------------------------------------------------------------------------------------


def run_questions(trial: Trial) -> PlannerResult:
    """Ask the planner about one scene. What an executor runs."""
    begun = time.perf_counter()
    row, settings = trial.row, trial.settings
    if settings.planner == "oracle":
        raise BadInput("the oracle reads no words: ask --planner offline or vlm.")
    scene = row.scene(make_library(settings, row.split))
    rng = np.random.default_rng([row.seed, 70_707])
    cards = lay_cards(scene, absent_colours(scene, 3, rng), rng) if row.factor == CARDS else ()
    built: SceneSpec | SceneBuilder = with_cards(scene, cards) if cards else scene
    config = TwinConfig(camera_size=settings.camera_size, camera_rate_hz=20.0, seed=row.seed)
    world = TwinWorld(config, built)
    try:
        truth = Truth(world, scene)
        planner = make_planner(settings, truth, (scene.target,))
        look = Eyes(world.robot, world.cameras, RigidTracker()).look()
        picture = truth.segmentation()
    finally:
        world.close()
    shown = {k: share for k in range(truth.count) if (share := float((picture == k + 1).mean())) >= SHOWN_SHARE}
    boxes = {k: box for k in shown if (box := box_of(picture == k + 1)) is not None}
    asked = []
    for question in questions(scene, shown, rng, [card.colour for card in cards]):
        try:
            asked.append(ask(planner, question, look, boxes))
        except PlannerError as error:
            still_there(settings)
            asked.append(Asked(question.kind, question.words, question.index, "refused", 0.0, str(error), 0.0))
    return PlannerResult(
        row.id, row.seed, row.factor, row.background, row.lighting, truth.count, len(shown), tuple(asked),
        round(time.perf_counter() - begun, 2),
    )  # fmt: skip


def ask(planner: Planner, question: Question, look: Look, boxes: dict[int, Box]) -> Asked:
    """One question. ``boxes``: the true ones of what shows. Raises PlannerError; words that the planner cannot read
    (BadInput) are an answer."""
    begun = time.perf_counter()
    share = 0.0
    try:
        answer, said, box = _answer(planner, question, look)
    except BadInput as error:
        answer, said, box = "refused", str(error), None
    if box is not None:
        index, share = aimed_at(box, boxes)
        answer = "right" if index == question.index and share > RIGHT_IOU else "wrong"
        share = share if index == question.index else 0.0
    spent_ms = 1e3 * (time.perf_counter() - begun)
    return Asked(question.kind, question.words, question.index, answer, round(share, 4), said, round(spent_ms, 1))


def _answer(planner: Planner, question: Question, look: Look) -> tuple[str, str, Box | None]:
    """Its answer, what it said, and its box where it drew one."""
    words = question.words
    if question.kind != "box":
        proposal = planner.propose(words, look, look)
        if proposal.question:
            return "asked", proposal.question, None
        if proposal.nothing_left:
            return "nothing", proposal.reason, None
        if question.kind != "instruction":
            return "wrong", proposal.instruction, None
        words = proposal.instruction
    grounding: Grounding = planner.ground(words, look)
    return "nothing", f"{words}: {grounding.label} {grounding.reason}".strip(), grounding.box


# -- what is said of it --------------------------------------------------------------------------------------------


def tally(result: PlannerResult, settings: TrialSettings) -> dict[str, tuple[float, int]]:
    """For the bar: boxes, and everything else."""
    boxes = [asked.right for asked in result.asked if asked.kind == "box"]
    rest = [asked.right for asked in result.asked if asked.kind != "box"]
    return {"boxes": (sum(boxes), len(boxes)), "answers": (sum(rest), len(rest))}


def write_answers(
    folder: Path,
    results: Sequence[PlannerResult],
    settings: TrialSettings,
    about: dict[str, Any],
    missing: dict[str, str],
) -> dict[str, Any]:
    """trials.parquet (one row a question), summary.json, planner.png. Returns the summary."""
    asked = [(result, one) for result in results for one in result.asked]
    ious = [one.iou for _, one in asked if one.kind == "box" and one.right]
    figures = {
        **about,
        "n": len(results),
        "missing": missing,
        "visible": sum(result.visible for result in results),
        **_kinds([one for _, one in asked]),
        "iou_median": round(float(np.median(ious)), 4) if ious else None,
        "per_background": _boxes_per(results, "background"),
        "per_lighting": _boxes_per(results, "lighting"),
        "per_factor": _boxes_per(results, "factor"),
        "first_ms_median": _median([result.asked[0].ms for result in results if result.asked]),
        "later_ms_median": _median([one.ms for result in results for one in result.asked[1:]]),
        "wall_s_per_scene": round(float(np.mean([result.wall_s for result in results] or [0.0])), 2),
        "faults": [
            {"scene": result.id, "kind": one.kind, "words": one.words, "answer": one.answer, "said": one.said}
            for result, one in asked
            if not one.right
        ],
    }
    rows = [
        {"id": result.id, "factor": result.factor, "background": result.background, "lighting": result.lighting}
        | asdict(one)
        | {"as_it_should": one.right}
        for result, one in asked
    ]
    write_table(folder / TABLE, rows)
    write_json(folder / SUMMARY, figures)
    if asked:
        kinds: dict[str, Any] = {
            kind: figures["questions"][kind]["right"] for kind in KINDS if kind in figures["questions"]
        }
        for group in ("per_background", "per_lighting"):
            kinds |= {f"boxes, {name}": share for name, share in figures[group].items()}
        plot_parts(folder / PLOT, {"answered as it should": kinds}, "answered as it should")
    return figures


def _median(values: Sequence[float]) -> float:
    return round(float(np.median(values)), 1) if len(values) else 0.0


def _kinds(asked: Sequence[Asked]) -> dict[str, Any]:
    """By kind of question: how often it was answered as it should be, and what the answers were."""
    out: dict[str, Any] = {}
    for kind, own in grouped(asked, lambda one: one.kind).items():
        counts = Counter(one.answer for one in own)
        out[kind] = {
            "right": part(sum(one.right for one in own), len(own)),
            "answers": {answer: counts[answer] for answer in ANSWERS if counts[answer]},
        }
    return {"questions": out}


def _boxes_per(results: Sequence[PlannerResult], name: str) -> dict[str, dict[str, Any]]:
    out = {}
    for key, own in grouped(results, lambda result: str(getattr(result, name))).items():
        boxes = [one.right for result in own for one in result.asked if one.kind == "box"]
        out[key] = part(sum(boxes), len(boxes))
    return out


def text(figures: dict[str, Any], suite: str) -> str:
    """The summary as lines of text."""
    lines = [
        f"{suite}: {figures['n']} scenes, {figures['visible']} objects that show, {figures['wall_s_per_scene']:.1f} s "
        "of computing a scene"
    ]
    for kind in KINDS:
        found = figures["questions"].get(kind)
        if found is not None:
            answers = ", ".join(f"{name} {count}" for name, count in found["answers"].items())
            lines.append(f"{part_line(f'{kind:12s}', found['right'])}   ({answers})")
    lines.append(f"the paper's boxes, real rig: {PAPER_BOXES:.1%} of 150")
    for group in ("per_background", "per_lighting", "per_factor"):
        parts = figures[group]
        if len(parts) > 1:
            lines += ["", *(part_line(f"boxes, {name}", share) for name, share in parts.items())]
    iou_told = "-" if figures["iou_median"] is None else f"{figures['iou_median']:.2f}"
    lines += [
        "",
        f"median IoU of right boxes {iou_told}; a scene's first question takes {figures['first_ms_median']:.0f} ms, "
        f"any other {figures['later_ms_median']:.0f} ms (median)",
    ]
    lines.append("intervals take questions for independent, which those of one scene are not quite")
    shown = [f"{f['scene']}: {f['kind']}: {f['words']!r}: {f['answer']} ({f['said']})" for f in figures["faults"]]
    more = [f"... and {len(shown) - FAULTS_SHOWN} more in {SUMMARY}"] if len(shown) > FAULTS_SHOWN else []
    lines += ["", *shown[:FAULTS_SHOWN], *more]
    return "\n".join(lines)
