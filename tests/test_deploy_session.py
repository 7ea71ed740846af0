"""The closed loop: when attempts end, what a session does next, and that the robot is safe whatever breaks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from dexloop.deploy.attempt import Attempt, AttemptConfig, AttemptResult, Ending, Monitor
from dexloop.deploy.chunks import FollowConfig, FollowCounts
from dexloop.deploy.eyes import Eyes, Sight
from dexloop.deploy.masks.base import TargetMask
from dexloop.deploy.masks.silhouette import Silhouette
from dexloop.deploy.motions import palm_height_m, upwards
from dexloop.deploy.planner.base import Box, FullLook, Grounding, Look, PlannerError, Proposal, Verdict
from dexloop.deploy.report import VIDEO, Video, write_report
from dexloop.deploy.session import End, Session, SessionConfig, SessionResult
from dexloop.hardware.clock import NS
from dexloop.hardware.errors import BadInput, DeviceError
from dexloop.hardware.kinematics import ArmKinematics
from dexloop.hardware.safety import SafeRobot
from dexloop.hardware.twin.scenes import sample_scene
from dexloop.hardware.twin.world import TwinConfig, TwinWorld

SIZE = (160, 120)
BOX: Box = (60, 40, 80, 60)
CONFIG = AttemptConfig(grasp_s=2.0, seconds=1.0, lost_s=0.3, follow=FollowConfig(background=False))


class Blind:
    """A tracker that says what it is told to."""

    def __init__(self) -> None:
        self.lost = False

    def start(self, rgb: Any, depth_m: Any, box: Box, state: Any) -> TargetMask:
        self.mask = np.zeros(rgb.shape[:2], bool)
        self.mask[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])] = True
        return TargetMask(self.mask, self.mask, 0.0, 1.0)

    def update(self, rgb: Any, depth_m: Any, state: Any) -> TargetMask:
        return TargetMask(self.mask, self.mask, 0.0, 0.0 if self.lost else 1.0, self.lost)


class Still:
    """A policy that stays where the robot is."""

    late_most = 4
    cameras = frozenset({"head"})

    error: Exception | None = None

    def __init__(self) -> None:
        self.observed: list[Any] = []

    def start(self, observation: Any) -> None:
        pass

    def again(self, observation: Any) -> None:
        pass

    def chunk(self, observation: Any, left: Any = None, late: int = 0) -> Any:
        self.observed.append(observation)
        if self.error is not None:
            raise self.error
        return np.repeat(np.asarray(observation.state, float)[None], 32, 0)


class Told:
    """A planner whose answers are given; what runs out repeats its last."""

    name = "told"

    def __init__(self, **answers: list[Any]) -> None:
        self.answers = {"complete": [Verdict(False)], "verify": [Verdict(False, "no")]} | answers
        self.failed: list[tuple[str, ...]] = []

    def _next(self, kind: str) -> Any:
        answers = self.answers[kind]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def propose(self, prompt: str, first: Look, now: Look, failed: tuple[str, ...] = ()) -> Proposal:
        self.failed.append(failed)
        return self._next("propose")

    def ground(self, instruction: str, now: Look) -> Grounding:
        return self._next("ground")

    def verify(self, instruction: str, before: Look, now: Look) -> Verdict:
        return self._next("verify")

    def complete(self, prompt: str, first: Look, now: Look) -> Verdict:
        return self._next("complete")


@pytest.fixture(scope="module")
def scenes() -> Any:
    return sample_scene(0, "train", 1)


@pytest.fixture
def world(scenes: Any) -> Iterator[TwinWorld]:
    world = TwinWorld(TwinConfig(camera_size=SIZE, camera_rate_hz=20), scenes)
    yield world
    world.close()


class Bench:
    """A session whose parts can be broken."""

    def __init__(self, world: TwinWorld, planner: Told, answer: Callable[[str], str] = lambda question: "") -> None:
        self.robot = SafeRobot(world.robot, world.rig)
        self.tracker, self.policy, self.seen = Blind(), Still(), []
        self.eyes = Eyes(self.robot, world.cameras, self.tracker)
        attempt = Attempt(self.robot, self.eyes, self.policy, planner, 20.0, CONFIG, self._watch)
        self.lines: list[str] = []
        config = SessionConfig(attempts=2)
        self.session = Session(self.robot, self.eyes, planner, attempt, 20.0, config, self.lines.append, answer)
        self.broken: Exception | None = None

    def _watch(self, sight: Sight) -> None:
        self.seen.append(sight)
        if self.broken is not None:
            raise self.broken


def at_rest(world: TwinWorld) -> bool:
    world.clock.sleep_until_ns(world.clock.now_ns() + NS)
    return bool(np.abs(world.robot.state().arm.dq).max() < 0.01)


# -- one attempt -------------------------------------------------------------------------------------------------------


def sight(opening: float, height_m: float, lost: bool = False) -> Sight:
    """A moment with the hand so far closed. Where the palm is, stands in the first joint: see ``palm``."""
    state = np.array([height_m, *[0.0] * 6, *[opening] * 6])
    empty, dark, far = np.zeros((2, 2), bool), np.zeros((2, 2, 3), np.uint8), np.ones((2, 2), np.float32)
    return Sight(Look(0, dark, far, state), TargetMask(empty, empty, 0.0, 0.5, lost))


@pytest.fixture
def palm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dexloop.deploy.attempt.palm_height_m", lambda state: float(state[0]))


def whole(look: Look) -> FullLook:
    nothing = np.zeros((2, 2), np.float32)
    return FullLook(**vars(look), wrist=look.head, wrist_depth_m=nothing)


def endings(planner: Told, moments: list[Sight]) -> list[tuple[Ending, str] | None]:
    monitor = Monitor(planner, "x", moments[0].look, whole, CONFIG)
    return [monitor.judge(moment, k * NS // 2) for k, moment in enumerate(moments)]


@pytest.mark.usefixtures("palm")
def test_an_attempt_ends_held_when_it_was_held_for_a_second() -> None:
    """Questions half a second apart: yes, no, then yes for a second."""
    yes = [Verdict(True, "yes"), Verdict(True, "yes"), Verdict(False), Verdict(True), Verdict(True)]
    planner = Told(verify=[*yes, Verdict(True, "still there")])
    ended = endings(planner, [sight(1.0, 0.0), sight(0.4, 0.0), *[sight(0.4, 0.12)] * 12])
    assert [kind for kind in ended if kind is not None][0] == (Ending.HELD, "still there")
    # Moment 2 asks first, and an answer is looked at in the moment after.
    assert ended.index((Ending.HELD, "still there")) == 2 + len(yes) + 1


@pytest.mark.usefixtures("palm")
def test_a_hand_that_closed_on_air_and_rose_is_noticed() -> None:
    ended = endings(Told(), [sight(1.0, 0.0), sight(0.3, 0.0), *[sight(0.3, 0.12)] * 4])
    assert (Ending.EMPTY, "no") in ended


@pytest.mark.usefixtures("palm")
def test_nobody_is_asked_before_the_hand_closed_and_rose() -> None:
    planner = Told(verify=[AssertionError("asked")])
    assert endings(planner, [sight(1.0, 0.0), sight(1.0, 0.15), sight(0.3, 0.15), sight(0.3, 0.18)]) == [None] * 4


@pytest.mark.usefixtures("palm")
def test_an_open_hand_loses_its_target_a_closed_one_hides_it() -> None:
    ended = endings(Told(), [sight(1.0, 0.0, lost=True)] * 3)
    assert ended[0] is None
    assert ended[1] == (Ending.LOST, "not seen for 0.3 s")
    assert endings(Told(), [sight(0.3, 0.0, lost=True)] * 3) == [None] * 3


@pytest.mark.usefixtures("palm")
@pytest.mark.parametrize("opening", [1.0, 0.4])
def test_a_hand_that_does_not_come_to_grasp_and_rise_is_noticed(opening: float) -> None:
    """Whether it moves or not: CONFIG gives it 2 s, moments are half a second apart."""
    circling = [sight(opening, 0.08 if k % 2 else 0.02) for k in range(6)]
    assert [at for at, ended in enumerate(endings(Told(), circling)) if ended and ended[0] is Ending.STUCK] == [4, 5]


@pytest.mark.usefixtures("palm")
def test_a_hand_that_is_up_with_what_it_may_hold_is_not_stuck() -> None:
    planner = Told(verify=[Verdict(True), Verdict(False)] * 4)
    ended = endings(planner, [sight(1.0, 0.0), sight(0.4, 0.0), *[sight(0.4, 0.12)] * 6])
    assert ended == [None] * 8


@pytest.mark.usefixtures("palm")
def test_what_the_planner_raises_reaches_the_loop() -> None:
    with pytest.raises(PlannerError, match="gone"):
        endings(Told(verify=[PlannerError("gone")]), [sight(0.3, 0.0), *[sight(0.3, 0.12)] * 3])


def test_the_palm_stands_where_the_twin_says(world: TwinWorld) -> None:
    height_m = float(world.data.body("palm").xpos[2])
    assert palm_height_m(np.append(world.robot.state().arm.q, np.ones(6))) == pytest.approx(height_m, abs=0.002)


class Grabs(Still):
    """Closes where it is, rises a little, and remembers in which state it was asked to do so again."""

    def __init__(self) -> None:
        self.asked_again: list[np.ndarray] = []

    def again(self, observation: Any) -> None:
        self.asked_again.append(np.array(observation.state, float))

    def chunk(self, observation: Any, left: Any = None, late: int = 0) -> Any:
        q = np.asarray(observation.state[:7], float)
        way = np.array(upwards(q, palm_height_m(np.asarray(observation.state)) + 0.06))
        arm = way[np.minimum(np.arange(32) // 8, len(way) - 1)]
        return np.concatenate([arm, np.full((32, 6), 0.3)], 1)


def test_a_hand_that_came_up_empty_opens_rises_and_grasps_again_in_the_same_attempt(world: TwinWorld) -> None:
    config = AttemptConfig(seconds=20.0, raised_m=0.03, regrasps=1, follow=FollowConfig(background=False))
    planner = Told(verify=[Verdict(False, "no"), Verdict(False, "no"), Verdict(True, "yes")])
    bench, policy = Bench(world, planner), Grabs()
    attempt = Attempt(bench.robot, bench.eyes, policy, planner, 20.0, config)
    result = attempt.run("grasp it", bench.eyes.aim(BOX))
    assert result.ending is Ending.HELD
    assert result.regrasps == 1
    (state,) = policy.asked_again
    assert state[8:12].mean() > 0.9
    assert world.robot.state().hand.opening[1:5].mean() < 0.5
    # And no oftener than it is allowed to.
    planner.answers["verify"] = [Verdict(False, "no")]
    bench.session._motions.to_start()
    result = attempt.run("grasp it", bench.eyes.aim(BOX))
    assert result.ending is Ending.EMPTY
    assert result.regrasps == 1


def test_a_straight_way_up_ends_where_it_should_and_turns_nothing(world: TwinWorld) -> None:
    q = world.robot.state().arm.q
    height_m = palm_height_m(q)
    way = upwards(q, height_m + 0.05)
    assert np.array_equal(way[0], q)
    assert palm_height_m(way[-1]) == pytest.approx(height_m + 0.05, abs=0.02)
    poses = [world.rig.arms[0].world_T_base @ ArmKinematics().fk(row) for row in way]
    assert all(np.allclose(pose[:3, :3], poses[0][:3, :3], atol=1e-4) for pose in poses)
    assert np.array_equal(np.array(upwards(q, height_m - 0.1)), q[None])


# -- a session ---------------------------------------------------------------------------------------------------------

GRASP = Proposal(instruction="grasp it")
SEEN = Grounding(BOX, "it")


def test_what_fails_too_often_is_named_to_the_planner(world: TwinWorld) -> None:
    planner = Told(propose=[GRASP, Proposal(nothing_left=True)], ground=[SEEN])
    bench = Bench(world, planner)
    result = bench.session.run("clear the table")
    assert result.end is End.FAILED
    assert result.failed == ["grasp it"]
    assert planner.failed == [(), ("grasp it",)]
    attempts = [event.attempt for event in result.events if event.attempt]
    assert [attempt.ending for attempt in attempts] == [Ending.TIMEOUT] * 2
    assert attempts[0].ticks == 20
    assert attempts[0].counts.chunks >= 2
    assert all(s.look.target is not None for s in bench.seen)


def test_picture_and_mask_are_of_the_same_moment(world: TwinWorld) -> None:
    bench = Bench(world, Told(propose=[GRASP, Proposal(nothing_left=True)], ground=[SEEN]))
    bench.session.run("x")
    times = [s.look.captured_ns for s in bench.seen]
    assert times == sorted(times)
    assert len(set(times)) >= 2 * 19
    sights = {id(s.look.head): s for s in bench.seen}
    during = [(o, sights[id(o.rgb["head"])]) for o in bench.policy.observed if id(o.rgb["head"]) in sights]
    assert len(during) >= 2  # the first one is of the moment in which the box was aimed at
    for observed, sight in during:
        assert sight.mask is not None
        assert observed.mask is sight.mask.visible
        assert np.allclose(observed.state, sight.look.state)


@pytest.mark.parametrize("cameras", [{"head"}, {"head", "wrist"}])
def test_the_wrist_camera_is_asked_when_somebody_looks_at_its_picture(
    world: TwinWorld, monkeypatch: pytest.MonkeyPatch, cameras: set[str]
) -> None:
    """By the session, and for chunks of a policy that looks at it; not in every tick: on the twin it is drawn then."""
    asked = {name: 0 for name in world.cameras}
    for name, camera in world.cameras.items():

        def latest(name: str = name, latest: Any = camera.latest) -> Any:
            asked[name] += 1
            return latest()

        monkeypatch.setattr(camera, "latest", latest)
    bench = Bench(world, Told(propose=[GRASP, Proposal(nothing_left=True)], ground=[SEEN]))
    bench.policy.cameras = frozenset(cameras)
    result = bench.session.run("x")
    shown = [event.look for event in result.events if event.attempt]
    assert all(isinstance(look, FullLook) for look in shown)  # the report shows the hand
    assert all(set(o.rgb) == set(o.depth_m) == cameras for o in bench.policy.observed)
    assert 0 < asked["wrist"] < asked["head"] / 2


def test_a_question_is_put_and_its_answer_is_the_prompt(world: TwinWorld) -> None:
    ask = Proposal(question="which cup?")
    asked: list[str] = []

    def answer(question: str) -> str:
        asked.append(question)
        return "the red one"

    result = Bench(world, Told(propose=[ask, Proposal(nothing_left=True)]), answer).session.run("the cup")
    assert (asked, result.prompt, result.end) == (["which cup?"], "the red one", End.NOTHING)
    assert Bench(world, Told(propose=[ask])).session.run("the cup").end is End.ASKED


def test_a_table_that_somebody_else_cleared_is_no_success(world: TwinWorld) -> None:
    planner = Told(propose=[GRASP], ground=[Grounding(None, reason="it is gone")], complete=[Verdict(True, "bare")])
    result = Bench(world, planner).session.run("clear the table")
    assert result.end is End.FAILED
    assert result.reason == "grasp it: it is gone"


def test_an_object_that_is_not_to_be_seen_is_given_up(world: TwinWorld) -> None:
    planner = Told(propose=[GRASP, Proposal(nothing_left=True)], ground=[Grounding(None, reason="no such thing")])
    result = Bench(world, planner).session.run("the unicorn")
    assert result.end is End.FAILED
    assert "no such thing" in [event.text for event in result.events]


def test_a_box_around_nothing_costs_an_attempt(world: TwinWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(world, Told(propose=[GRASP, Proposal(nothing_left=True)], ground=[SEEN]))
    start = bench.tracker.start
    boxes: list[Box] = []

    def once(rgb: Any, depth_m: Any, box: Box, state: Any) -> TargetMask:
        boxes.append(box)
        if len(boxes) == 1:
            raise BadInput("the box holds no object")
        return start(rgb, depth_m, box, state)

    monkeypatch.setattr(bench.tracker, "start", once)
    result = bench.session.run("x")
    assert len(boxes) == 2
    assert "the box holds no object" in [event.text for event in result.events]
    assert len([event for event in result.events if event.attempt]) == 1


def test_a_lost_target_is_looked_for_once_before_it_costs_an_attempt(world: TwinWorld) -> None:
    bench = Bench(world, Told(propose=[GRASP, Proposal(nothing_left=True)], ground=[SEEN]))
    bench.tracker.lost = True
    result = bench.session.run("x")
    told = [event.text[:9] for event in result.events if event.attempt]
    assert {event.attempt.ending for event in result.events if event.attempt} == {Ending.LOST}
    assert told == ["attempt 1", "attempt 1", "attempt 2", "attempt 2"]


def test_a_lost_target_that_is_found_again_is_grasped_in_the_same_attempt(world: TwinWorld) -> None:
    planner = Told(propose=[GRASP, Proposal(nothing_left=True)], ground=[SEEN, Grounding((20, 20, 40, 40), "moved")])
    bench = Bench(world, planner)
    bench.tracker.lost = True
    ground = planner.ground

    def look_again(instruction: str, now: Look) -> Grounding:
        found = ground(instruction, now)
        bench.tracker.lost = found is SEEN
        return found

    planner.ground = look_again  # type: ignore[method-assign]
    events = bench.session.run("x").events
    told = [(event.text[:9], event.attempt.ending) for event in events if event.attempt]
    assert told[:2] == [("attempt 1", Ending.LOST), ("attempt 1", Ending.TIMEOUT)]
    assert told[2][0] == "attempt 2"


def test_the_end_says_what_failed_and_why(world: TwinWorld) -> None:
    bench = Bench(world, Told(propose=[GRASP, Proposal(nothing_left=True)], ground=[SEEN]))
    result = bench.session.run("x")
    assert result.why == "what is left could not be grasped: grasp it: the time was up (1 s)"
    alone = Session(bench.robot, bench.eyes, Told(propose=[GRASP], ground=[Grounding(None, reason="it is hidden")]),
                    _never, 20.0, SessionConfig(objects=1))  # fmt: skip
    result = alone.run("x")
    assert result.end is End.FAILED, "one object was allowed, and it could not be grasped"
    assert result.why.endswith("grasp it: it is hidden")


def test_what_slips_on_the_way_to_the_bin_is_tried_again(world: TwinWorld) -> None:
    verdicts = [Verdict(False, "the hand is empty"), Verdict(True)]
    planner = Told(propose=[GRASP], ground=[SEEN], verify=verdicts, complete=[Verdict(True, "bare")])
    result = _holding(world, planner).run("x")
    assert (result.end, result.grasped, result.failed) == (End.DONE, ["grasp it"], [])
    kinds = [event.kind for event in result.events]
    assert kinds == ["proposal", "grounding", "attempt", "dropped", "grounding", "attempt", "placed", "end"]
    assert result.events[3].text == "dropped on the way to the bin (the hand is empty)"


def test_what_always_slips_is_given_up_and_the_end_says_so(world: TwinWorld) -> None:
    planner = Told(propose=[GRASP], ground=[SEEN], verify=[Verdict(False, "empty")], complete=[Verdict(True)])
    result = _holding(world, planner).run("x")
    assert (result.end, result.grasped, result.failed) == (End.FAILED, [], ["grasp it"])
    assert result.reason == "grasp it: dropped on the way to the bin (empty)"


def test_what_was_given_up_is_told_also_of_a_bare_table(world: TwinWorld) -> None:
    """The first thing was not to be seen again, the second was grasped, and then the table is bare."""
    gone, there = Proposal(instruction="grasp the one"), Proposal(instruction="grasp the other")
    planner = Told(propose=[gone, there], ground=[Grounding(None, reason="it rolled away"), SEEN],
                   complete=[Verdict(False), Verdict(True, "bare")], verify=[Verdict(True)])  # fmt: skip
    result = _holding(world, planner).run("clear the table")
    assert result.grasped == ["grasp the other"]
    assert (result.end, result.reason) == (End.FAILED, "grasp the one: it rolled away")


class _Holds:
    def run(self, instruction: str, first: Sight) -> AttemptResult:
        return AttemptResult(Ending.HELD, "", 1.0, 20, 0, 0, FollowCounts())


def _holding(world: TwinWorld, planner: Told) -> Session:
    bench = Bench(world, planner)
    return Session(bench.robot, bench.eyes, planner, _Holds(), 20.0, SessionConfig(attempts=2))


class _Never:
    def run(self, instruction: str, first: Sight) -> Any:
        raise AssertionError("nothing was to be attempted")


_never = _Never()


# -- faults ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["propose", "ground", "complete"])
def test_a_planner_that_is_gone_ends_the_session_safely(world: TwinWorld, kind: str) -> None:
    answers: dict[str, list[Any]] = {"propose": [GRASP], "ground": [SEEN]}
    bench = Bench(world, Told(**(answers | {kind: [PlannerError("the server is gone: start it again")]})))
    result = bench.session.run("x")
    assert result.end is None
    assert (result.events[-1].kind, result.events[-1].text) == ("error", "the server is gone: start it again")
    assert at_rest(world)


def test_a_policy_that_breaks_ends_the_session_safely(world: TwinWorld) -> None:
    bench = Bench(world, Told(propose=[GRASP], ground=[SEEN]))
    bench.policy.error = BadInput("the policy wants depth")
    result = bench.session.run("x")
    assert result.events[-1].text == "the policy wants depth"
    assert at_rest(world)


def test_a_camera_that_stalls_ends_the_session_safely(world: TwinWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(world, Told(propose=[GRASP], ground=[SEEN]))
    camera = world.cameras["head"]
    latest = camera.latest
    first: list[Any] = []

    def stalled() -> Any:
        first.append(latest() if len(first) < 10 else first[-1])
        return first[-1]

    monkeypatch.setattr(camera, "latest", stalled)
    result = bench.session.run("x")
    assert "the head camera's newest picture is" in result.events[-1].text
    assert at_rest(world)


def test_ctrl_c_stops_the_robot_first(world: TwinWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(world, Told(propose=[GRASP], ground=[SEEN]))
    stopped: list[bool] = []
    stop = bench.robot.stop
    monkeypatch.setattr(bench.robot, "stop", lambda: stopped.append(True) or stop())
    bench.broken = KeyboardInterrupt()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        bench.session.run("x")
    assert stopped  # by the attempt at once, and by the session once more
    assert bench.session.result.events[-1].kind == "error"
    assert bench.session.result.why == "stopped: the user stopped it (Ctrl-C)"
    assert at_rest(world)


def test_eyes_without_depth_or_camera_say_so(world: TwinWorld) -> None:
    robot = SafeRobot(world.robot, world.rig)
    with pytest.raises(DeviceError, match="there is no wrist camera, only head"):
        Eyes(robot, {"head": world.cameras["head"]}, Blind())
    world.cameras["head"].depth = False
    with pytest.raises(DeviceError, match="the head camera gives no depth"):
        Eyes(robot, world.cameras, Blind()).look()


def test_a_grasp_is_chosen_without_the_robot_in_the_picture(world: TwinWorld) -> None:
    eyes = Eyes(SafeRobot(world.robot, world.rig), world.cameras, Blind())
    with pytest.raises(DeviceError, match="no target is tracked"):
        eyes.see_past_robot({"head"})
    seen = eyes.aim((1.0, 1.0, 5.0, 5.0)).look.head_depth_m
    past = eyes.see_past_robot({"head"}).depth_m["head"]
    silhouette, (height, width) = Silhouette(), seen.shape
    camera = world.rig.camera("head").intrinsics.scaled(width, height)
    robot = silhouette.covers(eyes.look().state, camera)
    assert 0.01 < robot.mean() < 0.6
    assert (seen[robot] > 0).any()
    assert not past[robot].any()
    kept = past > 0
    assert (past[kept] == seen[kept]).all()
    assert (seen > 0).sum() - kept.sum() < 2.5 * robot.sum()


# -- the report --------------------------------------------------------------------------------------------------------


def test_a_report_tells_what_happened(world: TwinWorld, tmp_path: Path) -> None:
    bench = Bench(world, Told(propose=[GRASP, Proposal(nothing_left=True)], ground=[SEEN]))
    result = bench.session.run("take <it>")
    with Video(tmp_path / VIDEO, 20.0) as video:
        for moment in bench.seen:
            video.add(moment)
            video.add(moment)
    page = write_report(tmp_path, result, {"seed": 0}, 20.0).read_text()
    assert all(words in page for words in ("take &lt;it&gt;", "what is left could not be grasped", VIDEO))
    events = [json.loads(line) for line in (tmp_path / "timeline.jsonl").read_text().splitlines()]
    assert [event["kind"] for event in events].count("attempt") == 2
    shown = [name for event in events for name in event.get("pictures", [])]
    assert len(shown) == 6
    assert all((tmp_path / name).exists() for name in shown)
    assert all(name in page for name in shown)
    assert events[-1] == {"at_s": pytest.approx(result.events[-1].at_s, abs=1e-3), "kind": "end", "text": result.why}
    with av.open(str(tmp_path / VIDEO)) as container:
        assert len(list(container.decode(video=0))) == len({s.look.captured_ns for s in bench.seen})


def test_a_report_of_nothing_says_why(tmp_path: Path) -> None:
    result = SessionResult("x", reason="the policy's file is damaged")
    page = write_report(tmp_path, result, {}).read_text()
    assert "Stopped: the policy&#x27;s file is damaged" in page
    assert "<video" not in page


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(BadInput, match="attempts is 0"):
        SessionConfig(attempts=0)
    with pytest.raises(BadInput, match=r"attempt\.seconds is 0"):
        replace(CONFIG, seconds=0)
