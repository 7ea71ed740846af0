"""Which thing words mean: by how well each fits, and asked back where two fit alike."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from dexloop.deploy.planner import fitted
from dexloop.deploy.planner.attributes import COLOURS, Thing
from dexloop.deploy.planner.cuts import CUT_FEATURES
from dexloop.deploy.planner.grammar import parse
from dexloop.deploy.planner.ranking import Answer, Ranking, RankingConfig
from dexloop.deploy.planner.reach import Reach, ReachConfig
from dexloop.deploy.planner.recognition import recogniser
from dexloop.deploy.planner.segments import Cluster
from dexloop.deploy.planner.shapes import LOOKS_LIKE, NOUN_SHAPES
from dexloop.deploy.planner.words import ALIKE, NOUNS, alike
from dexloop.hardware.errors import BadInput
from dexloop.hardware.rig import DEXGRASPVLA_RIG
from hypothesis import given
from hypothesis import strategies as st


def thing(
    colour: str | dict[str, float], kind: str | dict[str, float], x: float = 0.4, y: float = 0.0,
    sides: tuple[float, float, float] = (0.08, 0.06, 0.07),
) -> Thing:  # fmt: skip
    """A block at x, y m that is called so, surely or with the given probabilities."""
    length, width, height = sides
    grid = np.stack(np.meshgrid(np.linspace(-0.5, 0.5, 12), np.linspace(-0.5, 0.5, 12)), -1).reshape(-1, 2)
    points = np.column_stack([grid * (length, width) + (x, y), np.full(144, height)]).astype(np.float32)
    mask = np.zeros((4, 4), bool)
    cluster = Cluster(
        mask, (0.0, 0.0, 4.0, 4.0), points, points[:, 2], np.array([x, y, height / 2]), np.zeros(144, np.intp)
    )
    called = {name: 0.001 for name in COLOURS} | ({colour: 0.99} if isinstance(colour, str) else colour)
    kinds = {name: 1e-4 for name in NOUNS if name not in LOOKS_LIKE} | ({kind: 0.9} if isinstance(kind, str) else kind)
    return Thing(cluster, dict(called), length, width, height, 0.95, 0.97, 0.0, called, kinds)


def ask(text: str, *things: Thing) -> Answer:
    return Ranking(things).answer(parse(text))


RED_CUP, BLUE_CUP = thing("red", "cup", 0.4, 0.1), thing("blue", "cup", 0.4, -0.1)
RED_BOX = thing("red", "box", 0.5, -0.2)


def test_colour_and_kind_single_it_out() -> None:
    assert ask("the red cup", RED_CUP, BLUE_CUP, RED_BOX).chosen == (0,)
    assert ask("the blue object", RED_CUP, BLUE_CUP, RED_BOX).chosen == (1,)
    assert ask("the box", RED_CUP, BLUE_CUP, RED_BOX).chosen == (2,)


def test_what_is_alike_is_asked_about() -> None:
    other = thing("red", "cup", 0.3, -0.1)
    answer = ask("the red cup", RED_CUP, BLUE_CUP, other)
    assert answer.chosen == ()
    assert set(answer.rivals) == {0, 2}
    assert ask("the red cup on the right", RED_CUP, BLUE_CUP, other).chosen == (2,)
    assert ask("the red object", RED_CUP, RED_BOX).rivals == (0, 1)


def test_a_clear_lead_is_enough_and_a_slight_one_is_not() -> None:
    """Both may be cups; one is so surely."""
    doubtful = thing("red", {"cup": 0.05, "box": 0.9}, 0.3, -0.1)
    assert ask("the red cup", RED_CUP, doubtful).chosen == (0,)
    likely = thing("red", {"cup": 0.7, "can": 0.2}, 0.3, -0.1)
    assert ask("the red cup", RED_CUP, likely).rivals == (0, 1)


def test_a_kind_that_no_classifier_knows_is_found_by_what_it_looks_like() -> None:
    """A pouch is taken for a bag, a torch for a carrot."""
    bag = thing("red", "bag", sides=(0.13, 0.08, 0.03))
    carrot = thing("red", "carrot", 0.3, sides=(0.15, 0.04, 0.04))
    assert ask("the red pouch", bag, BLUE_CUP).chosen == (0,)
    assert ask("the red torch", bag, carrot).chosen == (1,)


def test_a_colour_singles_out_what_the_camera_half_takes_for_another_kind() -> None:
    """Shapes seen from above mislead."""
    assert ask("the red cup", thing("red", {"can": 0.8, "cup": 0.1}), BLUE_CUP).chosen == (0,)


@pytest.mark.parametrize("noun", ["pouch", "hammer", "banana", "toy car"])
def test_another_kind_than_was_named_is_not_taken_for_its_colour(noun: str) -> None:
    other = thing("red", "can", 0.3, -0.1)
    assert not ask(f"the red {noun}", RED_CUP, BLUE_CUP).chosen
    assert not ask(f"the red {noun}", RED_CUP, other).chosen


def test_a_noun_may_mean_its_like_where_nothing_bears_it() -> None:
    mug, box = thing("red", "mug", 0.4, 0.1), thing("red", "box", 0.3, -0.2)
    assert ask("the red cup", mug, box).chosen == (0,)
    assert ask("the red cup", mug, RED_CUP).chosen == (1,)
    assert ask("all cups", mug, RED_CUP).chosen == (1,)


def test_a_sure_one_beside_a_likely_one_is_asked_about() -> None:
    likely = thing("red", {"can": 0.7, "bottle": 0.3}, 0.3, -0.1)
    assert set(ask("the can", thing("blue", {"can": 0.98}), likely).rivals) == {0, 1}


def test_a_place_tells_a_thing_from_its_like() -> None:
    """ "The cup on the left" is said where a mug on the right could be meant as well."""
    left, right = thing("red", {"cup": 0.4, "mug": 0.5}, y=0.1), thing("red", "mug", y=-0.1)
    assert ask("the red cup on the left", left, right).chosen == (0,)


def test_like_nouns_are_nouns_and_kinds_that_look_like_others_are_unknown() -> None:
    known = set(recogniser().kinds)
    assert set().union(*ALIKE) <= set(NOUNS)
    assert alike("cup") == {"mug", "goblet"}
    assert alike("spoon") == frozenset()
    assert not set(LOOKS_LIKE) & known
    assert all(set(kinds) <= known for kinds in LOOKS_LIKE.values())


def test_a_lid_does_not_make_it_another_colour() -> None:
    jar = thing({"yellow": 0.6, "grey": 0.35}, "jar")
    assert ask("the yellow jar", jar, BLUE_CUP, RED_BOX).chosen == (0,)


def test_nothing_of_the_kind_is_nothing() -> None:
    for words in ("the green object", "the green cup", "the purple box on the left"):
        answer = ask(words, RED_CUP, BLUE_CUP, RED_BOX)
        assert answer.chosen == answer.rivals == ()
        assert "nothing" in answer.reason
    assert "nothing" in ask("the red cup").reason


def test_two_at_one_place_are_asked_about_and_places_count_among_what_fits() -> None:
    beside = thing("red", "cup", 0.5, 0.11)
    assert set(ask("the red cup on the left", RED_CUP, beside, RED_BOX).rivals) == {0, 1}
    assert ask("the leftmost object", RED_CUP, BLUE_CUP, RED_BOX).chosen == (0,)
    assert ask("the red object on the right", RED_CUP, BLUE_CUP, RED_BOX).chosen == (2,)
    assert ask("the biggest object", RED_CUP, thing("blue", "box", sides=(0.2, 0.1, 0.1))).chosen == (1,)


def test_all_of_a_kind() -> None:
    assert ask("all red objects", RED_CUP, BLUE_CUP, RED_BOX).chosen == (0, 2)
    assert ask("all cups", RED_CUP, BLUE_CUP, RED_BOX).chosen == (0, 1)
    assert ask("everything except the red cup", RED_CUP, BLUE_CUP, RED_BOX).chosen == (1, 2)
    assert ask("all red and blue objects", RED_CUP, BLUE_CUP, RED_BOX).chosen == (0, 1, 2)
    assert ask("all green objects", RED_CUP, BLUE_CUP).chosen == ()


@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0)), min_size=2, max_size=6), st.booleans())
def test_any_fits_give_one_thing_or_rivals_or_a_reason(fits: list[tuple[float, float]], placed: bool) -> None:
    things = [thing({"red": c}, {"cup": n}, 0.25 + 0.05 * k, 0.05 * k) for k, (c, n) in enumerate(fits)]
    answer = ask("the red cup on the left" if placed else "the red cup", *things)
    assert len(answer.chosen) <= 1
    assert not (answer.chosen and answer.rivals)
    assert answer.chosen or answer.reason
    if answer.chosen:
        assert answer.confidence >= RankingConfig().sure
    assert len(answer.rivals) != 1


def test_the_more_it_fits_the_less_it_is_asked_about() -> None:
    """Where one thing alone fits better and better, the answer never goes back to a question."""
    rival = thing("red", {"cup": 0.1})
    chosen = [bool(ask("the red cup", thing("red", {"cup": p}), rival).chosen) for p in np.linspace(0.1, 0.99, 12)]
    assert chosen == sorted(chosen)
    assert not chosen[0]
    assert chosen[-1]


# -- the numbers ----------------------------------------------------------------------------------------------------


def test_the_fitted_numbers_know_every_colour_and_most_kinds() -> None:
    known, network = fitted.fitted(), recogniser()
    assert known.palette.words == COLOURS
    assert set(network.colours) == set(COLOURS)
    assert set(network.kinds) <= set(NOUNS)
    assert len(known.cuts.mean) == len(CUT_FEATURES)
    assert set(NOUNS) - {"object", "fruit", "tool"} <= set(network.kinds) | set(NOUN_SHAPES)


def test_damaged_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "fitted.json"
    with pytest.raises(BadInput, match=r"fit_offline_planner\.py"):
        fitted.load(path)
    data = json.loads(fitted.PATH.read_text())
    for broken in ({**data, "format": 99}, {**data, "cuts": {**data["cuts"], "classes": ["one"]}}, {}):
        path.write_text(json.dumps(broken))
        with pytest.raises(BadInput, match="numbers|classes"):
            fitted.load(path)
    path.write_text("{")
    with pytest.raises(BadInput, match="numbers"):
        fitted.load(path)
    with pytest.raises(BadInput, match="features of shape"):
        fitted.fitted().cuts(np.zeros((2, 3)))


# -- reach ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reach() -> Reach:
    return Reach(DEXGRASPVLA_RIG)


def test_the_middle_of_the_table_is_reached_and_its_far_end_is_not(reach: Reach) -> None:
    x0, x1, y0, y1 = DEXGRASPVLA_RIG.object_area_m
    near, far = thing("red", "cup", (x0 + x1) / 2, (y0 + y1) / 2), thing("red", "cup", 0.95, 0.60)
    assert reach.access(near, [near]).reachable
    assert not reach.access(far, [far]).reachable


def test_neighbours_on_all_sides_block(reach: Reach) -> None:
    cup = thing("red", "cup", sides=(0.06, 0.06, 0.08))
    around = [thing("blue", "box", 0.4 + dx, dy, (0.04, 0.04, 0.08))
              for dx in (-0.055, 0.0, 0.055) for dy in (-0.055, 0.0, 0.055) if dx or dy]  # fmt: skip
    assert reach.access(cup, [cup, *around]).free is False
    assert reach.access(cup, [cup, around[0]]).free
    flat = [thing("blue", "book", t.centroid_m[0], t.centroid_m[1], (0.04, 0.04, 0.01)) for t in around]
    assert reach.access(cup, [cup, *flat]).free


def test_bad_settings_of_reach_are_refused() -> None:
    with pytest.raises(BadInput, match="headings"):
        ReachConfig(headings=0)
    with pytest.raises(BadInput, match="thumb_m"):
        ReachConfig(thumb_m=-1.0)
    with pytest.raises(BadInput, match="sure"):
        RankingConfig(sure=1.5)
