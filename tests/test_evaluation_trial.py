"""One scene tried on the twin: truth, oracle, spoilt masks, scores; the same again, and in other processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from dexloop.deploy.attempt import AttemptConfig, AttemptResult, Ending
from dexloop.deploy.chunks import FollowCounts
from dexloop.deploy.evaluation.command import Evaluate
from dexloop.deploy.evaluation.disturbance import Disturbance, DisturbanceConfig
from dexloop.deploy.evaluation.executor import Failure, ProcessExecutor, RayExecutor, SerialExecutor, attempt
from dexloop.deploy.evaluation.makers import WithoutDepth, make_policy
from dexloop.deploy.evaluation.oracle import OracleMasks, OraclePlanner, Truth, aimed_at, box_of, iou
from dexloop.deploy.evaluation.scored import ScoredPlanner
from dexloop.deploy.evaluation.sources import FilledBox, Lagged, Noisy, NoMask
from dexloop.deploy.evaluation.store import ResultFolder, manifest_of, run_rows
from dexloop.deploy.evaluation.suites import Row, load
from dexloop.deploy.evaluation.trial import Lifts, _endings, _lifted_at, _reason, run_trial, try_scene
from dexloop.deploy.evaluation.values import AttemptScore, Trial, TrialResult, TrialSettings
from dexloop.deploy.masks.base import TargetMask
from dexloop.deploy.planner.base import Look, PlannerError, Proposal
from dexloop.deploy.planner.vlm_boxes import Convention
from dexloop.deploy.planner.vlm_config import VlmConfig
from dexloop.deploy.session import Event, SessionResult
from dexloop.hardware.clock import NS
from dexloop.hardware.errors import BadInput
from dexloop.hardware.geometry import transform
from dexloop.hardware.twin.world import TwinConfig, TwinWorld
from dexloop.tests import vlm_server as srv
from dexloop.tests.evaluation_fixtures import STATE, Scripted, Still, look, still_trial, untimed
from dexloop.train.controller.checkpoint import save_controller
from dexloop.train.controller.config import preset
from dexloop.train.controller.policy import Controller
from dexloop.train.views import Observation
from hypothesis import given
from hypothesis import strategies as st

SIZE = (160, 120)
ROW = replace(load("unseen1287").rows[0], objects=3)
QUICK = TrialSettings("", "oracle", "oracle", attempts=1, seconds=1.0, camera_size=SIZE)


@pytest.fixture(scope="module")
def truth() -> Iterator[Truth]:
    scene = ROW.scene()
    world = TwinWorld(TwinConfig(camera_size=SIZE, camera_rate_hz=20.0), scene)
    yield Truth(world, scene)
    world.close()


# -- boxes ---------------------------------------------------------------------------------------------------------

boxes = st.tuples(*[st.integers(0, 40)] * 2, *[st.integers(1, 30)] * 2).map(
    lambda v: (float(v[0]), float(v[1]), float(v[0] + v[2]), float(v[1] + v[3]))
)


@given(boxes, boxes)
def test_iou_is_that_of_the_pixels(a: tuple, b: tuple) -> None:
    drawn = []
    for x0, y0, x1, y1 in (a, b):
        mask = np.zeros((80, 80), bool)
        mask[int(y0) : int(y1), int(x0) : int(x1)] = True
        assert box_of(mask) == (x0, y0, x1, y1)
        drawn.append(mask)
    assert iou(a, b) == pytest.approx((drawn[0] & drawn[1]).sum() / (drawn[0] | drawn[1]).sum())
    assert iou(a, b) == iou(b, a)


def test_a_box_means_the_object_that_it_overlaps_most() -> None:
    known = {0: (0.0, 0.0, 10.0, 10.0), 4: (8.0, 0.0, 20.0, 10.0)}
    assert aimed_at((7.0, 0.0, 20.0, 10.0), known)[0] == 4
    assert aimed_at((50.0, 50.0, 60.0, 60.0), known) == (-1, 0.0)
    assert aimed_at((0.0, 0.0, 1.0, 1.0), {}) == (-1, 0.0)
    assert box_of(np.zeros((4, 4), bool)) is None


# -- oracle --------------------------------------------------------------------------------------------------------


def test_the_oracle_is_right_by_the_truth(truth: Truth) -> None:
    planner = OraclePlanner(truth, (1,))
    now = look(truth)
    proposal = planner.propose("anything", now, now)
    box = planner.ground(proposal.instruction, now).box
    assert box is not None
    index, share = aimed_at(box, truth.boxes())
    assert (index, share) == (1, pytest.approx(1.0))
    assert not planner.verify(proposal.instruction, now, now).yes
    assert not planner.complete("anything", now, now).yes
    assert planner.propose("anything", now, now, (proposal.instruction,)).nothing_left
    with pytest.raises(PlannerError, match="only what it proposed"):
        planner.ground("the red cup", now)


def test_an_object_in_the_bin_is_off_the_table(truth: Truth) -> None:
    before = truth.world.object_pose(1)
    now = look(truth)
    assert truth.on_table(1)
    truth.world.set_object_pose(1, transform(np.eye(3), np.array(truth.world.rig.bin_center_m)))
    try:
        assert truth.in_bin(1)
        assert not truth.on_table(1)
        assert OraclePlanner(truth, (1,)).complete("", now, now).yes
    finally:
        truth.world.set_object_pose(1, before)


def test_oracle_masks_are_of_the_target_or_on_purpose_of_another(truth: Truth) -> None:
    boxes, now, segments = truth.boxes(), look(truth), truth.segmentation()
    right = OracleMasks(truth).start(now.head, now.head_depth_m, boxes[0], STATE)
    assert np.array_equal(right.visible, segments == 1)
    wrong = OracleMasks(truth, wrong=True).start(now.head, now.head_depth_m, boxes[0], STATE)
    assert wrong.visible.any()
    assert not (wrong.visible & (segments == 1)).any()
    with pytest.raises(BadInput, match="before start"):
        OracleMasks(truth).update(now.head, now.head_depth_m, STATE)
    with pytest.raises(BadInput, match="none of the scene's objects"):
        OracleMasks(truth).start(now.head, now.head_depth_m, (0.0, 0.0, 3.0, 3.0), STATE)


# -- spoilt masks --------------------------------------------------------------------------------------------------


class Moving:
    """A square that goes one pixel to the right with each picture."""

    def __init__(self) -> None:
        self.at = 0

    def start(self, rgb: object, depth_m: object, box: object, state: object) -> TargetMask:
        self.at = -1
        return self.update(rgb, depth_m, state)

    def update(self, rgb: object, depth_m: object, state: object) -> TargetMask:
        self.at += 1
        mask = np.zeros((60, 80), bool)
        mask[20:40, 20 + self.at : 40 + self.at] = True
        return TargetMask(mask, mask, 0.0, 1.0)


PICTURE, DEPTH, BOX = np.zeros((60, 80, 3), np.uint8), np.ones((60, 80), np.float32), (20.0, 20.0, 40.0, 40.0)


def test_lagged_masks_are_those_of_then() -> None:
    lagged = Lagged(Moving(), 3)  # type: ignore[arg-type]
    first = lagged.start(PICTURE, DEPTH, BOX, STATE).visible
    for _ in range(3):
        assert np.array_equal(lagged.update(PICTURE, DEPTH, STATE).visible, first)
    later = lagged.update(PICTURE, DEPTH, STATE).visible
    assert np.array_equal(later, np.roll(first, 1, 1))


def test_noisy_masks_are_off_sometimes_gone_and_the_same_for_a_seed() -> None:
    def drawn(seed: int) -> list[np.ndarray]:
        noisy = Noisy(Moving(), seed)  # type: ignore[arg-type]
        masks = [noisy.start(PICTURE, DEPTH, BOX, STATE).visible]
        return masks + [noisy.update(PICTURE, DEPTH, STATE).visible for _ in range(60)]

    one = drawn(5)
    assert all(np.array_equal(a, b) for a, b in zip(one, drawn(5), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, drawn(6), strict=True))
    assert len({int(mask.sum()) for mask in one}) > 4
    assert sum(not mask.any() for mask in one) > 0


def test_no_mask_is_empty_and_the_box_stays() -> None:
    assert not NoMask().start(PICTURE, DEPTH, BOX, STATE).visible.any()
    filled = FilledBox()
    with pytest.raises(BadInput, match="never given"):
        filled.update(PICTURE, DEPTH, STATE)
    assert filled.start(PICTURE, DEPTH, BOX, STATE).visible.sum() == 400
    assert filled.update(PICTURE, DEPTH, STATE).visible.sum() == 400


# -- scores --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("aimed", "right"), [(0, True), (2, False)])
def test_a_planners_answers_are_counted_against_the_truth(truth: Truth, aimed: int, right: bool) -> None:
    begun: list[int] = []
    now = look(truth)
    proposals = [Proposal("that"), Proposal(question="which?"), Proposal(nothing_left=True)]
    planner = ScoredPlanner(Scripted(proposals, truth.boxes()[aimed], True), truth, (0, 1), begun.append)
    planner.propose("", now, now)
    planner.ground("that", now)
    planner.ground("the same in other words", now)
    planner.propose("", now, now)
    planner.propose("", now, now)
    planner.verify("that", now, now)
    planner.complete("", now, now)
    score = planner.score
    assert begun == [aimed, aimed]
    assert [aim.number for aim in planner.aims] == [1, 2]
    assert (score.proposals, score.proposals_right) == (2, int(right))  # two are left: it is not true that none is
    assert (score.boxes, score.boxes_right) == (2, 2 * right)
    assert (score.verdicts, score.verdicts_right) == (1, 0)  # nothing is held
    assert (score.completions, score.completions_right) == (1, 0)
    assert score.questions == 1


def test_a_lift_counts_for_the_attempt_in_which_it_was(truth: Truth) -> None:
    world = truth.world
    lifts = Lifts(world, truth.count)
    lifts.begin(0)
    lifts.begin(0)
    for watched in lifts._watched:
        watched.achieved = watched._index == 0
    lifts.begin(1)
    lifts.close()
    assert [seen.lifted for seen in lifts.attempts] == [set(), set(), {0}, set()]
    assert lifts.lifted == {0}


# -- whole trials --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def still() -> TrialResult:
    return try_scene(Trial(replace(QUICK, attempts=2), ROW), Still(), 20.0)


def test_a_robot_that_does_not_move_fails_for_that_reason(still: TrialResult) -> None:
    assert still.at_attempt == 0
    assert still.reason == "never touched"
    assert still.end == "failed"
    assert [score.ending for score in still.attempts] == ["timeout", "timeout"]
    assert [score.number for score in still.attempts] == [1, 2]
    assert all(score.ticks == 20 and score.iou > 0.99 for score in still.attempts)
    assert (still.lifted, still.placed, still.wrong) == (0, 0, 0)
    assert (still.planner.boxes, still.planner.boxes_right) == (2, 2)
    assert not still.success_at(2)


def test_a_trial_is_the_same_again(still: TrialResult) -> None:
    again = try_scene(Trial(replace(QUICK, attempts=2), ROW), Still(), 20.0)
    assert untimed(again) == untimed(still)


def test_a_policy_that_fails_is_a_failed_trial_with_its_reason() -> None:
    class Broken(Still):
        def chunk(self, observation: Observation, left: object = None, late: int = 0) -> np.ndarray:
            raise BadInput("the policy needs a camera")

    found = try_scene(Trial(QUICK, ROW), Broken(), 20.0)
    assert (found.end, found.reason) == ("error", "stopped by an error")
    assert "needs a camera" in found.detail


def test_each_box_has_the_ending_of_its_own_attempt() -> None:
    """A box in which the tracker finds nothing is followed by no attempt; one that is asked for anew after the target
    was lost on the way has one of its own."""
    look = Look(0, PICTURE, DEPTH, STATE)

    def ended(ending: Ending) -> Event:
        return Event(1.0, "attempt", "", attempt=AttemptResult(ending, "", 1.0, 20, 0, 0, FollowCounts()))

    asked, empty = Event(0.0, "grounding", "it", look=look), Event(0.0, "grounding", "the box holds nothing")
    events = [asked, empty, asked, ended(Ending.LOST), asked, ended(Ending.HELD), asked]
    found = _endings(SessionResult("", events=events))
    assert [result.ending if result else None for result in found] == [None, Ending.LOST, Ending.HELD, None]


def test_a_policy_without_depth_sees_none_and_the_rest_keep_theirs() -> None:
    seen: list[Observation] = []

    class Noting(Still):
        def chunk(self, observation: Observation, left: object = None, late: int = 0) -> np.ndarray:
            seen.append(observation)
            return super().chunk(observation)

    blind = WithoutDepth(Noting())  # type: ignore[arg-type]
    depth = {"head": np.ones((60, 80), np.float32), "wrist": np.ones((60, 80), np.float32)}
    observation = Observation(STATE, {"head": PICTURE, "wrist": PICTURE}, depth, np.ones((60, 80), bool))
    blind.start(observation)
    blind.chunk(observation)
    assert not any(picture.any() for picture in seen[0].depth_m.values())
    assert seen[0].rgb is observation.rgb
    assert observation.depth_m["head"].all()
    found = try_scene(Trial(replace(QUICK, depth="off"), ROW), Noting(), 20.0)  # type: ignore[arg-type]
    assert not seen[-1].depth_m["head"].any()
    assert found.attempts[0].iou > 0.99


def test_a_moved_target_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    soon = partial(Disturbance, config=DisturbanceConfig(after_s=0.1))
    monkeypatch.setattr("dexloop.deploy.evaluation.trial.Disturbance", soon)
    settings = replace(QUICK, disturb=True)
    found = try_scene(Trial(settings, ROW), Still(), 20.0)
    assert 0.05 <= found.disturbed_m <= 0.08
    assert untimed(found) == untimed(try_scene(Trial(settings, ROW), Still(), 20.0))


class Dying(srv.SeeingModel):
    """Passes the self-test and then says what no planner may say, or hangs up for good."""

    gone: list[bool] = []

    def __call__(self, handler: srv.Handler, request: srv.Request) -> None:
        if self.gone:
            srv.hangs_up(handler, request)
        elif "squares" in srv.texts(request):
            super().__call__(handler, request)
        else:
            srv.says("I would rather not")(handler, request)


def test_a_server_that_has_gone_gives_no_result_and_one_that_babbles_a_failure() -> None:
    model = Dying(Convention("pixels", "xyxy"))
    with srv.ChatServer(model) as server:
        vlm = VlmConfig(base_url=server.url, model="Qwen2.5-VL-7B-Instruct", retries=0, backoff_s=0.01)
        trial = Trial(replace(QUICK, planner="vlm", vlm=vlm), ROW)
        found = attempt(still_trial, trial)
        assert isinstance(found, TrialResult)
        assert (found.end, found.reason) == ("error", "stopped by an error")
        assert "cannot be used" in found.detail
        model.gone.append(True)
        try:
            lost = attempt(still_trial, trial)
        finally:
            model.gone.clear()
    assert isinstance(lost, Failure)
    assert "connection failed" in lost.message


def test_a_film_of_what_failed_is_kept(tmp_path: Path) -> None:
    settings = replace(QUICK, masks="box", videos=str(tmp_path / "videos"))
    try_scene(Trial(settings, ROW), Still(), 20.0)
    assert (tmp_path / "videos" / f"{ROW.id}.mp4").stat().st_size > 1000


def test_what_is_lifted_and_held_is_a_success(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TwinWorld, "object_lift_m", lambda self, index: 0.2 if self.now_ns > 0.5 * NS else 0.0)
    monkeypatch.setattr(TwinWorld, "hand_contacts", lambda self, index: {"palm": 1.0} if index == 0 else {})
    row = replace(ROW, wanted=(0,), prompt="take it")
    found = try_scene(Trial(replace(QUICK, seconds=3.0), row), Still(), 20.0)
    assert found.at_attempt == 1
    assert found.reason == ""
    assert (found.lifted, found.wrong) == (1, 0)
    assert found.attempts[0].success
    other = replace(ROW, wanted=(1,), prompt="take the other")
    missed = try_scene(Trial(replace(QUICK, seconds=3.0), other), Still(), 20.0)
    assert missed.at_attempt == 0
    assert missed.wrong == 1
    assert missed.reason == "took what was not wanted"


def scored(number: int, aimed: int, reason: str) -> AttemptScore:
    return AttemptScore(number, "take it", aimed, 0.9, "held", not reason, reason, 0.2, 5.0, 100, 0)


def test_the_reason_is_that_of_what_is_still_on_the_table() -> None:
    missed, won = scored(1, 1, "touched, not raised"), scored(1, 0, "")
    assert _reason("failed", [missed, won], (0, 1), {0}, 0) == "touched, not raised"
    assert _reason("done", [won], (0, 1), {0}, 0) == "not tried"
    assert _reason("done", [won, scored(4, 1, "")], (0, 1), {0, 1}, 0) == "took too many attempts"
    assert _reason("done", [won], (0,), {0}, 1) == "took what was not wanted"
    assert _reason("asked", [], (0,), set(), 0) == "the planner asked back"
    assert _reason("nothing", [], (0,), set(), 0) == "the planner proposed nothing"


def test_what_comes_along_with_another_wanted_object_is_lifted_too() -> None:
    missed, won, again = scored(1, 1, "touched, not raised"), scored(1, 0, ""), scored(2, 1, "touched, not raised")
    assert _lifted_at([missed, won], [set(), {0}], (0, 1)) == {0: 1}
    assert _lifted_at([won], [{0, 1}], (0, 1)) == {0: 1, 1: 1}
    assert _lifted_at([missed, again, won], [set(), set(), {0, 1}], (0, 1)) == {0: 1, 1: 2}, "after two at itself"
    assert _lifted_at([won], [{0, 1}], (0,)) == {0: 1}, "the other was not wanted"
    assert _lifted_at([scored(1, 2, "wrong object")], [{0}], (0, 1)) == {}, "nor was what the hand was sent for"


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small one that never learnt anything."""
    import torch

    torch.manual_seed(0)
    small = preset("small")
    config = replace(
        small,
        network=replace(small.network, width=32, layers=1, heads=2),
        encoder=replace(small.encoder, points=16),
    )
    folder = tmp_path_factory.mktemp("controller")
    save_controller(Controller(config), folder)
    return folder


def test_how_a_policy_is_sampled_can_be_changed(controller: Path) -> None:
    settings = replace(QUICK, policy=str(controller))
    own, _ = make_policy(settings, 1)
    cold, _ = make_policy(replace(settings, temperature=0.0, sample_steps=2), 1)
    objective = cold.config.objective  # type: ignore[attr-defined]
    assert (objective.temperature, objective.sample_steps) == (0.0, 2)
    assert own.config.objective.temperature != 0.0  # type: ignore[attr-defined]
    observation = Observation(STATE, {"head": PICTURE}, {"head": DEPTH}, np.ones((60, 80), bool))
    chunks = []
    for _ in range(2):  # without noise the same every time
        cold.start(observation)
        chunks.append(cold.chunk(observation))
    assert np.array_equal(*chunks)


def tiny_rows() -> list[Row]:
    return [Row(f"tiny-{k}", 77 + k, "validation", 1, "single", "pine_table", "evening") for k in range(2)]


@pytest.mark.parametrize(
    "function", [still_trial, pytest.param(run_trial, marks=pytest.mark.slow)], ids=["still", "controller"]
)
def test_real_scenes_give_the_same_in_other_processes(
    function: Callable[[Trial], TrialResult], request: pytest.FixtureRequest
) -> None:
    policy = str(request.getfixturevalue("controller")) if function is run_trial else ""
    trials = [Trial(replace(QUICK, policy=policy), row) for row in tiny_rows()]
    here = [untimed(function(trial)) for trial in trials]
    there = dict(ProcessExecutor(2, timeout_s=240.0).run(function, trials))
    assert all(isinstance(result, TrialResult) for result in there.values()), there
    assert [untimed(there[k]) for k in range(2)] == here
    assert all(result.attempts[0].ticks for result in here)


def test_the_command_evaluates_and_goes_on(
    controller: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    command = Evaluate("single", 2, 1, controller, "oracle", "box", out=out, seconds=1.0, camera_size=SIZE)
    assert command.run() == 0
    shown = capsys.readouterr().out
    assert "@1" in shown
    assert str(out / "summary.json") in shown
    assert len(list((out / "scenes").glob("*.json"))) == 2
    monkeypatch.setattr("dexloop.deploy.evaluation.trial.try_scene", None)  # nothing is tried twice
    assert command.run() == 0
    with pytest.raises(BadInput, match="masks was 'box', is now 'none'"):
        replace(command, masks="none").run()


@pytest.mark.slow
def test_real_scenes_give_the_same_on_a_ray_cluster(controller: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    settings, rows = replace(QUICK, policy=str(controller)), tiny_rows()
    manifest = manifest_of("tiny", "0", rows, settings)
    here, none = run_rows(ResultFolder(tmp_path / "1", manifest), rows, settings, SerialExecutor(), run_trial)
    cluster = RayExecutor(cpus=2, timeout_s=500.0)
    there, missing = run_rows(ResultFolder(tmp_path / "2", manifest), rows, settings, cluster, run_trial)
    assert not none
    assert not missing
    assert [untimed(result) for result in there] == [untimed(result) for result in here]
    assert all(result.attempts[0].ticks for result in here)


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Somebody's meshes, in millimetres, and an MJCF."""
    import trimesh

    monkeypatch.setenv("DEXLOOP_HOME", str(tmp_path / "home"))
    folder = tmp_path / "objects"
    folder.mkdir()
    trimesh.creation.box((45, 45, 90)).export(folder / "red_brick.stl")
    trimesh.creation.cylinder(radius=25, height=100).export(folder / "blue_tin.obj")
    (folder / "green_toy.xml").write_text(
        '<mujoco><worldbody><body><freejoint/><geom type="box" size=".025 .025 .04" rgba=".1 .5 .2 1" density="300"/>'
        "</body></worldbody></mujoco>"
    )
    return folder


def test_other_peoples_objects_are_evaluated(controller: Path, foreign: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = Evaluate("single", 1, 1, controller, "offline", "tracked", foreign, out, seconds=1.0)
    command = replace(command, objects_unit="mm", camera_size=SIZE)
    assert command.run() == 0
    [path] = (out / "scenes").glob("*.json")
    found = TrialResult.from_json(json.loads(path.read_text()))
    assert found.family == "third_party"
    assert (found.colour, found.noun) in {("red", "brick"), ("blue", "tin"), ("green", "toy")}
    assert found.attempts[0].ticks == 20  # it was seen, and the hand went out
    assert found.attempts[0].iou > 0.5
    with pytest.raises(BadInput, match="fit as unit='mm'"):
        replace(command, objects_unit="m", out=tmp_path / "metres").run()


def test_the_command_refuses_what_cannot_be(controller: Path, tmp_path: Path) -> None:
    command = Evaluate(policy=controller, out=tmp_path)
    for wrong, told in (
        ({"scenes": 5000}, "expected 1 to 1287"),
        ({"policy": tmp_path}, "holds no controller"),
        ({"objects": tmp_path / "none"}, "expected a folder"),
        ({"suite": "long-horizon", "objects": tmp_path}, "no meaning"),
        ({"workers": 0}, "workers is 0"),
        ({"suite": "long-horizon", "disturb": True}, "no meaning"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"sample_steps": 0}, "sample_steps is 0"),
    ):
        with pytest.raises(BadInput, match=told):
            replace(command, **wrong).run()  # type: ignore[arg-type]


def test_what_is_evaluated_is_what_is_deployed() -> None:
    assert Evaluate("validation").seconds == TrialSettings("policy").seconds == AttemptConfig().seconds
