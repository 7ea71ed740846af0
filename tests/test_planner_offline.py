"""The offline planner: what it grounds, asks, orders, verifies and calls done, on drawn tables and on the twin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from dexloop.deploy.planner.attributes import COLOURS
from dexloop.deploy.planner.base import FullLook, Grounding, Look
from dexloop.deploy.planner.grip import Grip, GripConfig
from dexloop.deploy.planner.offline import OfflineConfig, OfflinePlanner
from dexloop.deploy.planner.ranking import RankingConfig
from dexloop.deploy.planner.segments import hang_together
from dexloop.hardware.errors import BadInput

from .test_table import disc, look_of, slab

RED, BLUE, GREEN, YELLOW = (150, 25, 25), (25, 50, 140), (40, 110, 45), (190, 160, 30)
# Outline, height, colour: red box left, red can right, blue can in the middle, far; green long thing near.
RED_BOX = (slab(0.40, 0.14, 0.10, 0.15), 0.04, RED)
RED_CAN = (disc(0.40, -0.14, 0.033), 0.10, RED)
BLUE_CAN = (disc(0.50, 0.0, 0.033), 0.10, BLUE)
GREEN_BAR = (slab(0.28, 0.0, 0.035, 0.15), 0.035, GREEN)
TABLE = [BLUE_CAN, RED_BOX, RED_CAN, GREEN_BAR]


@pytest.fixture(scope="module")
def planner() -> OfflinePlanner:
    return OfflinePlanner()


@pytest.fixture(scope="module")
def table() -> Look:
    return look_of(TABLE)


def middle(grounding: Grounding) -> tuple[float, float]:
    assert grounding.box is not None, grounding.reason
    x0, y0, x1, y1 = grounding.box
    return (x0 + x1) / 2, (y0 + y1) / 2


def at(planner: OfflinePlanner, look: Look, x: float, y: float) -> tuple[float, float]:
    """The middle of the box of what stands at x, y m."""
    return middle(planner.ground(f"the object at x {x:.2f} y {y:.2f} m", look))


RED_LEFT, RED_RIGHT, BLUE_FAR, GREEN_NEAR = (0.40, 0.14), (0.40, -0.14), (0.50, 0.0), (0.28, 0.0)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("pick up the blue can", BLUE_FAR),
        ("grasp the green object", GREEN_NEAR),
        ("the red object on the right", RED_RIGHT),
        ("the leftmost object", RED_LEFT),
        ("the rightmost object", RED_RIGHT),
        ("the red box", RED_LEFT),
        ("the red can", RED_RIGHT),
        ("the object nearest to the robot", GREEN_NEAR),
        ("the object farthest from the robot", BLUE_FAR),
        ("the red object left of the blue can", RED_LEFT),
        ("the tall object behind the green object", BLUE_FAR),
        ("the object in front of the blue can", GREEN_NEAR),
        ("the object between the red box and the red can", None),  # blue or green: neither is clearly it
        ("the long object", GREEN_NEAR),
        ("拿起右边的红色物体", RED_RIGHT),
        ("绿色的东西", GREEN_NEAR),
        ("最左边的东西", RED_LEFT),
    ],
)
def test_grounds_what_is_meant(
    planner: OfflinePlanner, table: Look, text: str, place: tuple[float, float] | None
) -> None:
    answer = planner.ground(text, table)
    if place is None:
        assert answer.box is None or answer.confidence < 0.99
        return
    assert np.allclose(middle(answer), at(planner, table, *place), atol=1.0)
    assert 0.0 < answer.confidence <= 1.0
    assert answer.label


def test_abstains_and_asks_when_two_fit(planner: OfflinePlanner, table: Look) -> None:
    answer = planner.ground("the red object", table)
    assert answer.box is None
    assert "ambiguous" in answer.reason
    proposal = planner.propose("take the red object", table, table)
    assert "two red objects" in proposal.question
    assert "left" in proposal.question
    assert "right" in proposal.question


def test_what_was_meant_before_is_still_meant() -> None:
    """Another red thing comes to light beside the one that was proposed: words alone would not tell them apart."""
    planner, first = OfflinePlanner(), look_of([BLUE_CAN, RED_CAN])
    words = planner.propose("take the red object", first, first).instruction
    pushed = (disc(0.42, -0.10, 0.033), 0.10, RED)
    now = look_of([BLUE_CAN, (disc(0.40, 0.14, 0.033), 0.10, RED), pushed])
    assert np.allclose(middle(planner.ground(words, now)), at(planner, now, 0.42, -0.10), atol=1.0)
    assert OfflinePlanner().ground(words, now).box is None
    away = look_of([BLUE_CAN, (disc(0.40, 0.14, 0.033), 0.10, RED), (disc(0.40, 0.05, 0.033), 0.10, RED)])
    assert planner.ground("take the red object", away).box is None  # other words, never heard before


def test_what_stood_beside_it_is_not_what_was_meant() -> None:
    """Of two red cans the right one slips and falls off the table: "the red can on the right" is the left one by words
    alone, but it stands where it stood. Pushed away it is found."""
    left = (disc(0.40, 0.14, 0.033), 0.10, RED)
    planner, first = OfflinePlanner(), look_of([BLUE_CAN, left, RED_CAN])
    words = "grasp the red object on the right"
    assert np.allclose(middle(planner.ground(words, first)), at(planner, first, 0.40, -0.14), atol=1.0)
    gone = look_of([BLUE_CAN, left])
    assert np.allclose(middle(OfflinePlanner().ground(words, gone)), at(planner, gone, 0.40, 0.14), atol=1.0)
    grounding = planner.ground(words, gone)
    assert grounding.box is None
    assert "stood there before" in grounding.reason
    assert planner.propose("all red objects", first, gone, (words,)).instruction  # nobody tried the left one
    pushed = look_of([BLUE_CAN, left, (disc(0.43, -0.06, 0.033), 0.10, RED)])
    assert np.allclose(middle(planner.ground(words, pushed)), at(planner, pushed, 0.43, -0.06), atol=1.0)


def test_nothing_fits(planner: OfflinePlanner, table: Look) -> None:
    answer = planner.ground("the purple cup", table)
    assert answer.box is None
    assert "purple" in answer.reason
    proposal = planner.propose("all purple objects", table, table)
    assert proposal.nothing_left
    assert proposal.reason
    empty = look_of([])
    assert planner.ground("the red cup", empty).box is None
    assert planner.propose("clear the table", empty, empty).nothing_left
    assert planner.complete("clear the table", table, empty).yes


def test_a_noun_suffices_for_the_only_thing(planner: OfflinePlanner) -> None:
    look = look_of([BLUE_CAN])
    assert planner.ground("pick up the banana", look).box is not None
    assert planner.ground("pick up the red banana", look).box is None


def test_does_not_guess_what_it_cannot_read(planner: OfflinePlanner, table: Look) -> None:
    for request in (
        lambda: planner.ground("the frobnicator", table),
        lambda: planner.propose("sing a song", table, table),
        lambda: planner.verify("???", table, table),
        lambda: planner.complete("", table, table),
    ):
        with pytest.raises(BadInput, match="expected"):
            request()


def test_clears_the_table_from_right_to_left_and_its_instructions_are_unmistakable(planner: OfflinePlanner) -> None:
    left = list(TABLE)
    first = look_of(left)
    order = []
    for _ in range(5):
        now = look_of(left)
        proposal = planner.propose("clear the table", first, now)
        if proposal.nothing_left:
            break
        x, y = middle(planner.ground(proposal.instruction, now))
        places = [(thing, at(planner, now, *place)) for thing, place in (
            (BLUE_CAN, BLUE_FAR), (RED_BOX, RED_LEFT), (RED_CAN, RED_RIGHT), (GREEN_BAR, GREEN_NEAR),
        ) if any(thing is other for other in left)]  # fmt: skip
        taken = min(places, key=lambda entry: np.hypot(entry[1][0] - x, entry[1][1] - y))[0]
        left = [thing for thing in left if thing is not taken]
        order.append(taken)
        assert planner.complete("clear the table", first, now).yes is False
    assert len(order) == 4
    assert order[0] is RED_CAN
    assert order[-1] is RED_BOX
    assert planner.complete("clear the table", first, look_of([])).yes


def test_all_of_a_colour_leaves_the_rest(planner: OfflinePlanner, table: Look) -> None:
    proposal = planner.propose("put all red objects in the bin", table, table)
    assert np.allclose(middle(planner.ground(proposal.instruction, table)), at(planner, table, *RED_RIGHT), atol=1.0)
    rest = look_of([BLUE_CAN, GREEN_BAR])
    assert planner.propose("put all red objects in the bin", table, rest).nothing_left
    assert planner.complete("put all red objects in the bin", table, rest).yes
    assert not planner.complete("everything except the red can", table, rest).yes


def test_what_failed_is_not_proposed_again(planner: OfflinePlanner, table: Look) -> None:
    first = planner.propose("all red objects", table, table)
    second = planner.propose("all red objects", table, table, (first.instruction,))
    assert second.instruction
    assert second.instruction != first.instruction
    both = planner.propose("all red objects", table, table, (first.instruction, second.instruction))
    assert both.nothing_left
    assert "failed" in both.reason


def test_what_failed_is_known_by_its_place_and_not_by_words_that_fit_others_by_now(planner: OfflinePlanner) -> None:
    """ "On the right" is the other one when the right one has gone; and an attempt pushes things about."""
    first = look_of([RED_BOX, RED_CAN])
    failed = planner.propose("all red objects", first, first).instruction
    assert "right" in failed or "round" in failed
    pushed = look_of([RED_BOX, (disc(0.43, -0.08, 0.033), 0.10, RED)])
    other = planner.propose("all red objects", first, pushed, (failed,))
    assert np.allclose(middle(planner.ground(other.instruction, pushed)), at(planner, pushed, *RED_LEFT), atol=1.0)
    gone = look_of([RED_BOX])
    assert planner.propose("all red objects", first, gone, (failed,)).instruction


def test_what_was_asked_about_and_failed_leaves_the_other(planner: OfflinePlanner, table: Look) -> None:
    failed = planner.propose("the red can", table, table).instruction
    rest = planner.propose("the red object", table, table, (failed,))
    assert np.allclose(middle(planner.ground(rest.instruction, table)), at(planner, table, *RED_LEFT), atol=1.0)


def test_why_nothing_is_proposed_is_one_sentence(planner: OfflinePlanner, table: Look) -> None:
    failed = planner.propose("the green object", table, table).instruction
    for prompt, given_up, word in (
        ("the green object", (failed,), "every attempt at the"),
        ("the purple cup", (), "nothing purple"),
        ("all bananas", (), "nothing on the table fits"),
    ):
        proposal = planner.propose(prompt, table, table, given_up)
        assert proposal.nothing_left
        assert proposal.reason.startswith(word)
        assert ". " not in proposal.reason


def test_blocked_things_come_later(planner: OfflinePlanner) -> None:
    wall = (slab(0.40, -0.205, 0.12, 0.05), 0.08, YELLOW)  # beside the red can, which is the rightmost but this
    look = look_of([wall, RED_CAN, RED_BOX])
    proposal = planner.propose("all red objects", look, look)
    assert np.allclose(middle(planner.ground(proposal.instruction, look)), at(planner, look, *RED_LEFT), atol=1.0)


def test_one_thing_is_asked_for_once(planner: OfflinePlanner) -> None:
    first = look_of([RED_CAN, BLUE_CAN])
    now = look_of([BLUE_CAN])
    assert planner.propose("the red can", first, first).instruction
    assert planner.propose("the red can", first, now).nothing_left
    assert planner.complete("the red can", first, now).yes
    assert not planner.complete("the red can", first, first).yes


def test_verify_needs_the_object_gone_and_the_hand_full(planner: OfflinePlanner) -> None:
    before, gone = look_of(TABLE), look_of([RED_BOX, RED_CAN, GREEN_BAR])

    def with_fingers(look: Look, opening: float) -> Look:
        return replace(look, state=np.array([*look.state[:7], *[opening] * 5, 1.0]))

    assert not planner.verify("the blue can", before, with_fingers(before, 0.5)).yes
    closed = planner.verify("the blue can", before, with_fingers(gone, 0.02))
    assert not closed.yes
    assert "air" in closed.reason
    assert "open" in planner.verify("the blue can", before, with_fingers(gone, 0.95)).reason
    pushed = look_of([(disc(0.55, 0.12, 0.033), 0.10, BLUE), RED_BOX, RED_CAN, GREEN_BAR])
    moved = planner.verify("the blue can", before, with_fingers(pushed, 0.4))
    assert not moved.yes
    assert "pushed" in moved.reason


def test_another_thing_in_the_hand_is_not_what_was_asked_for(
    planner: OfflinePlanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both the blue can and the green bar are gone, and the hand is full."""
    before, now = look_of(TABLE), look_of([RED_BOX, RED_CAN])
    for colour, held in (("blue", True), ("green", False), ("white", False)):
        grip = Grip(True, 2000, {name: float(name == colour) for name in COLOURS}, "2000 depth points")
        monkeypatch.setattr(planner._grip, "sense", lambda *args, grip=grip: grip)
        verdict = planner.verify("the blue can", before, now)
        assert verdict.yes is held, verdict.reason
        assert held or "looks like the" in verdict.reason or "does not look like it" in verdict.reason


def test_the_tracked_target_is_what_the_attempt_was_at(planner: OfflinePlanner, table: Look) -> None:
    """Words that fit two things, as an earlier answer of the user may leave them: the mask says which."""
    blue = next(thing for thing in planner.see(table).things if thing.colour == "blue")
    before = replace(table, target=blue.cluster.mask)
    assert "still stands" in planner.verify("the red object", before, table).reason
    assert "more than one" in planner.verify("the red object", table, table).reason


def test_bad_settings_are_refused() -> None:
    with pytest.raises(BadInput, match="same_m"):
        OfflineConfig(same_m=0.0)
    with pytest.raises(BadInput, match="none"):
        RankingConfig(none=2.0)
    with pytest.raises(BadInput, match="volume_m"):
        GripConfig(volume_m=(1, 0, 0, 1, 0, 1))


# -- on the twin ------------------------------------------------------------------------------------------------------


def twin_look(world: object) -> tuple[FullLook, np.ndarray]:
    frames = {name: camera.latest() for name, camera in world.cameras.items()}  # type: ignore[attr-defined]
    state = world.robot.state()  # type: ignore[attr-defined]
    head, wrist = frames["head"], frames["wrist"]
    joints = np.concatenate([state.arm.q, state.hand.opening])
    look = FullLook(head.captured_ns, head.rgb, head.depth_m, joints, wrist=wrist.rgb, wrist_depth_m=wrist.depth_m)
    return look, head.segmentation


def overlap(box: tuple[float, float, float, float], mask: np.ndarray) -> float:
    rows, columns = np.nonzero(mask)
    truth = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    width = min(box[2], truth[2]) - max(box[0], truth[0])
    height = min(box[3], truth[3]) - max(box[1], truth[1])
    both = max(width, 0) * max(height, 0)
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, truth)]
    return both / (sum(areas) - both)


def test_boxes_on_rendered_scenes(planner: OfflinePlanner) -> None:
    from dexloop.hardware.twin.scenes import sample_scene
    from dexloop.hardware.twin.world import TwinConfig, TwinWorld

    seen = right = told = wrong = 0
    world = None
    for seed, count in ((800_003, 6), (800_010, 1), (800_025, 4), (900_037, 2)):
        scene = sample_scene(seed, "train" if seed < 900_000 else "validation", count)
        if world is None:
            world = TwinWorld(TwinConfig(segmentation=True), scene)
        else:
            world.reset(scene)
        look, truth = twin_look(world)
        things = planner.see(look).things
        for k in range(count):
            seen += 1
            right += max((overlap(t.cluster.box, truth == k + 1) for t in things), default=0.0) > 0.5
        answer = planner.ground(scene.instruction, look)
        hit = answer.box is not None and overlap(answer.box, truth == scene.target + 1) > 0.5
        told += hit
        wrong += answer.box is not None and not hit
    assert world is not None
    world.close()
    assert right >= seen - 1
    assert told >= 3
    assert wrong == 0


@pytest.mark.slow
def test_verifies_a_held_object_on_the_twin(planner: OfflinePlanner) -> None:
    """An object put between palm and fingers of a raised, half-closed hand is held; the same hand empty is not."""
    from dexloop.hardware.description import RETURN_ARM_Q
    from dexloop.hardware.geometry import transform
    from dexloop.hardware.twin.scenes import sample_scene
    from dexloop.hardware.twin.world import TwinConfig, TwinWorld

    scene = sample_scene(800_024, "train", 1)
    world = TwinWorld(TwinConfig(segmentation=True), scene)
    before, _ = twin_look(world)
    q, opening = np.array(RETURN_ARM_Q), np.array([0.6, 0.45, 0.45, 0.45, 0.45, 1.0])
    hand = planner._finder.collision.world_T_palm(q) @ transform(None, np.array([0.10, 0.0, -0.07]))
    world.set_arm_and_hand(q, opening)
    world.set_object_pose(0, hand)
    world.cameras["head"].expose(1)
    world.cameras["wrist"].expose(1)
    held, _ = twin_look(world)
    verdict = planner.verify(scene.instruction, before, held)
    assert verdict.yes, verdict.reason
    away = np.eye(4)
    away[:3, 3] = (0.27, -0.435, -0.1)
    world.set_object_pose(0, away)
    world.cameras["head"].expose(2)
    world.cameras["wrist"].expose(2)
    empty, _ = twin_look(world)
    verdict = planner.verify(scene.instruction, before, empty)
    assert not verdict.yes, verdict.reason
    world.close()


def test_a_sliver_that_lies_apart_is_of_another_thing() -> None:
    """A neighbour's rim behind a can; a hammer of which an arm hides the middle stays whole."""
    square = np.stack(np.meshgrid(np.linspace(0, 0.06, 30), np.linspace(0, 0.06, 30)), -1).reshape(-1, 2)
    sliver = np.column_stack([np.full(40, 0.12), np.linspace(0, 0.05, 40)])
    kept = hang_together(np.concatenate([square, sliver]).astype(np.float32))
    assert kept[:900].mean() > 0.99
    assert not kept[900:].any()
    assert hang_together(np.concatenate([square, square[:300] + 0.12]).astype(np.float32)).mean() > 0.99
