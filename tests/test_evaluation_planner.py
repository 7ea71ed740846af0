"""The planner suite: what is asked of a scene, how answers count, cards, a real look, a model behind a socket."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from dexloop.deploy.evaluation.cards import SIZE_M, lay_cards, with_cards
from dexloop.deploy.evaluation.command import Evaluate
from dexloop.deploy.evaluation.oracle import Truth
from dexloop.deploy.evaluation.planner_study import (
    Asked,
    PlannerResult,
    Question,
    absent_colours,
    ask,
    questions,
    run_questions,
    text,
    write_answers,
)
from dexloop.deploy.evaluation.suites import CARDS, load
from dexloop.deploy.evaluation.values import Trial, TrialSettings
from dexloop.deploy.planner.base import Box, Look, PlannerError, Proposal
from dexloop.deploy.planner.vlm_boxes import Convention
from dexloop.deploy.planner.vlm_config import VlmConfig
from dexloop.hardware.errors import BadInput
from dexloop.hardware.twin.instructions import relation
from dexloop.hardware.twin.scene_spec import SceneSpec
from dexloop.hardware.twin.scenes import sample_scene
from dexloop.hardware.twin.world import TwinConfig, TwinWorld
from dexloop.tests import vlm_server as srv
from dexloop.tests.evaluation_fixtures import STATE, Scripted

SIZE = (160, 120)
SETTINGS = TrialSettings("", camera_size=SIZE)
BOXES: dict[int, Box] = {0: (10.0, 10.0, 30.0, 30.0), 1: (50.0, 10.0, 70.0, 40.0)}
NOWHERE = Look(0, np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.float32), STATE)


@pytest.fixture(scope="module")
def scene() -> SceneSpec:
    """Two red, two cups, and one that is neither."""
    drawn = sample_scene(31, "validation", 4)
    looks = (("red", "cup"), ("red", "box"), ("blue", "cup"), ("green", "pear"))
    objects = tuple(
        replace(item, object=replace(item.object, colour=colour, noun=noun))
        for item, (colour, noun) in zip(drawn.objects, looks, strict=True)
    )
    return replace(drawn, objects=objects, target=3, instruction="take the green pear")


def test_every_object_is_asked_for_by_words_that_mean_it_alone(scene: SceneSpec) -> None:
    asked = list(questions(scene, {0: 0.01, 1: 0.01, 2: 0.01}, np.random.default_rng(0), ["pink"]))
    boxes = [question for question in asked if question.kind == "box"]
    assert [question.index for question in boxes] == [0, 1, 2]  # the fourth does not show
    assert [question.words for question in boxes] == [
        "pick up the red cup", "pick up the red box", "pick up the blue cup",
    ]  # fmt: skip
    assert {q.words for q in asked if q.kind == "ambiguous"} == {"pick up the red object", "pick up the cup"}
    assert Question("instruction", "take the green pear", 3) in asked
    assert Question("printed", "pick up the pink object") in asked
    for kind in ("absent", "other kind"):
        [question] = [question for question in asked if question.kind == kind]
        _, _, _, colour, noun = question.words.split(" ", 4)
        assert (colour in {"red", "blue", "green"}) == (kind == "other kind")
        assert noun not in {"cup", "mug", "goblet", "box", "carton", "pear", "apple", "orange"}


def test_what_hardly_shows_makes_nothing_ambiguous(scene: SceneSpec) -> None:
    asked = list(questions(scene, {0: 0.0002, 1: 0.01, 2: 0.01}, np.random.default_rng(0)))
    assert not [question for question in asked if question.kind == "ambiguous"]


def test_twins_that_no_word_tells_apart_are_not_asked_for(scene: SceneSpec) -> None:
    twin = replace(scene.objects[0], position_m=tuple(v + 0.01 for v in scene.objects[0].position_m))
    both = replace(scene, objects=(scene.objects[0], twin))
    assert relation(both.objects, 0) is None
    asked = list(questions(both, {0: 0.01, 1: 0.01}, np.random.default_rng(0)))
    assert not [question for question in asked if question.kind == "box"]
    assert "pick up the red object" in [question.words for question in asked if question.kind == "ambiguous"]


GRASP, ASK, NOTHING = Proposal("grasp it"), Proposal(question="which one?"), Proposal(nothing_left=True)


@pytest.mark.parametrize(
    ("kind", "proposal", "box", "answer", "right"),
    [
        ("box", None, BOXES[1], "right", True),
        ("box", None, BOXES[0], "wrong", False),
        ("box", None, (50.0, 10.0, 70.0, 20.0), "wrong", False),  # the right object, a third of it
        ("box", None, None, "nothing", False),
        ("instruction", GRASP, BOXES[1], "right", True),
        ("instruction", GRASP, BOXES[0], "wrong", False),
        ("instruction", ASK, None, "asked", False),
        ("ambiguous", ASK, None, "asked", True),
        ("ambiguous", GRASP, BOXES[1], "wrong", False),
        ("ambiguous", NOTHING, None, "nothing", False),
        ("absent", NOTHING, None, "nothing", True),
        ("absent", ASK, None, "asked", False),
        ("printed", GRASP, BOXES[1], "wrong", False),
    ],
)
def test_an_answer_counts_by_what_was_asked(
    kind: Any, proposal: Proposal | None, box: Box | None, answer: str, right: bool
) -> None:
    planner = Scripted([proposal] if proposal else [], box, False)
    asked = ask(planner, Question(kind, "pick up that", 1), NOWHERE, BOXES)
    assert (asked.answer, asked.right) == (answer, right)


def test_words_that_cannot_be_read_are_an_answer_and_a_planner_that_fails_is_not() -> None:
    class Refusing(Scripted):
        def __init__(self, error: Exception) -> None:
            self.error = error

        def propose(self, *_: object) -> Proposal:
            raise self.error

    question = Question("absent", "pick up the wug")
    asked = ask(Refusing(BadInput("what is a wug?")), question, NOWHERE, BOXES)
    assert (asked.answer, asked.right, asked.said) == ("refused", False, "what is a wug?")
    with pytest.raises(PlannerError):
        ask(Refusing(PlannerError("the server is gone")), question, NOWHERE, BOXES)


def answered(kind: str, answer: str, iou: float = 0.0) -> Asked:
    return Asked(kind, "pick up that", 0, answer, iou, "because", 12.0)


def test_the_figures_count_each_kind(tmp_path: Path) -> None:
    asked = (answered("box", "right", 0.9), answered("box", "right", 0.7), answered("box", "nothing"),
             answered("ambiguous", "asked"), answered("absent", "wrong"))  # fmt: skip
    results = [
        PlannerResult(f"scene-{k}", k, "object", ("navy_cloth", "pine_table")[k % 2], "evening", 5, 4, asked)
        for k in range(4)
    ]
    figures = write_answers(tmp_path, results, SETTINGS, {"settings": {}}, {"scene-9": "it died"})
    boxes = figures["questions"]["box"]
    assert (boxes["right"]["right"], boxes["right"]["n"], boxes["answers"]) == (8, 12, {"right": 8, "nothing": 4})
    assert figures["questions"]["ambiguous"]["right"]["share"] == 1.0
    assert figures["questions"]["absent"]["right"]["share"] == 0.0
    assert figures["iou_median"] == pytest.approx(0.8)
    assert figures["per_background"]["pine_table"]["n"] == 6
    assert len(figures["faults"]) == 8
    assert json.loads((tmp_path / "summary.json").read_text()) == figures
    rows = pq.read_table(tmp_path / "trials.parquet").to_pylist()
    assert Counter(row["as_it_should"] for row in rows) == {True: 12, False: 8}
    assert (tmp_path / "planner.png").read_bytes()[:4] == b"\x89PNG"
    told = text(figures, "planner")
    assert "8 of 12, 66.7%" in told
    assert "99.3%" in told
    assert PlannerResult.from_json(json.loads(json.dumps(results[0].to_json()))) == results[0]


# -- cards ---------------------------------------------------------------------------------------------------------


def test_cards_are_seen_lie_flat_and_touch_nothing(scene: SceneSpec) -> None:
    colours = absent_colours(scene, 2, np.random.default_rng(5))
    assert not {"red", "blue", "green"} & set(colours)
    cards = lay_cards(scene, colours, np.random.default_rng(5))
    assert cards == lay_cards(scene, colours, np.random.default_rng(5))
    assert cards
    pictures = []
    for built in (scene, with_cards(scene, cards)):
        world = TwinWorld(TwinConfig(camera_size=SIZE, seed=1, depth_noise=False), built)
        frame = world.cameras["head"].latest()
        boxes = Truth(world, scene).boxes()
        pictures.append((frame.rgb.astype(int), frame.depth_m, boxes, world.data.ncon))
        world.close()
    bare, shown = pictures
    assert bare[2] == shown[2]  # every object is seen as before
    assert bare[3] == shown[3]
    changed = np.abs(bare[0] - shown[0]).max(-1) > 60
    assert changed.sum() > 40 * len(cards)
    assert bare[1] is not None
    assert shown[1] is not None
    assert np.abs(bare[1] - shown[1]).max() < 0.004
    for card in cards:
        for placed in scene.objects:
            away = np.hypot(card.x_m - placed.position_m[0], card.y_m - placed.position_m[1])
            assert away > SIZE_M[1] / 2


# -- whole scenes --------------------------------------------------------------------------------------------------


def test_a_real_scene_is_asked_about_and_comes_out_the_same_again() -> None:
    row = next(row for row in load("planner-validation").rows if row.factor == CARDS)
    row = replace(row, objects=3)
    one, again = (run_questions(Trial(SETTINGS, row)) for _ in range(2))

    def plain(result: PlannerResult) -> PlannerResult:
        return replace(result, wall_s=0.0, asked=tuple(replace(asked, ms=0.0) for asked in result.asked))

    assert plain(one) == plain(again)
    kinds = Counter(asked.kind for asked in one.asked)
    assert 1 <= kinds["box"] <= one.visible <= 3
    assert kinds["instruction"] == kinds["absent"] == 1
    assert kinds["printed"] >= 1
    assert any(asked.right for asked in one.asked)


class Asking(srv.SeeingModel):
    """Finds the squares of the self-test, and asks back whatever it is told."""

    def answer(self, request: srv.Request) -> dict[str, Any]:
        words = srv.texts(request)
        if "squares" in words:
            return super().answer(request)
        if "bounding box" in words:
            return {"reason": "too dark", "visible": False, "label": "", "bbox_2d": []}
        return {"reason": "several fit", "decision": "ask", "instruction": "", "question": "which one?"}


def test_a_model_behind_an_endpoint_is_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with srv.ChatServer(Asking(Convention("pixels", "xyxy"))) as server:
        vlm = VlmConfig(base_url=server.url, model="Qwen2.5-VL-7B-Instruct", retries=0, backoff_s=0.01)
        command = Evaluate("planner-validation", 1, planner="vlm", vlm=vlm, out=tmp_path / "out", camera_size=SIZE)
        assert command.run() == 0
        asked = json.loads((tmp_path / "out" / "summary.json").read_text())["questions"]
        assert set(asked["box"]["answers"]) == {"nothing"}
        assert set(asked["instruction"]["answers"]) == {"asked"}
        assert "planner-validation: 1 scenes" in capsys.readouterr().out
        manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
        assert manifest["vlm"]["model"] == vlm.model
        assert "base_url" not in manifest["vlm"]  # the same model elsewhere is the same model
        requests = len(server.script.requests)
    # Gone: the command says so before it tries anything, even where every scene has its result.
    with pytest.raises(PlannerError, match="--vlm.base-url"):
        command.run()
    with pytest.raises(PlannerError, match="--vlm.base-url"):
        replace(command, out=tmp_path / "other").run()
    assert not (tmp_path / "other").exists()
    assert requests == len(server.script.requests)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"disturb": True}, "--disturb has no meaning for the suite planner"),
        ({"masks": "none"}, "--masks has no meaning"),
        ({"depth": "off"}, "--depth has no meaning"),
        ({"planner": "oracle"}, "reads no words"),
    ],
)
def test_what_means_nothing_here_is_refused(wrong: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=told):
        Evaluate("planner-validation", 1, out=tmp_path / "out", camera_size=SIZE, **wrong).run()
