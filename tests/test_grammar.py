"""The grammar of requests: what it reads, and that it refuses the rest."""

from __future__ import annotations

import pytest
from dexloop.deploy.planner import words
from dexloop.deploy.planner.grammar import Query, Relation, parse
from dexloop.hardware.errors import BadInput
from hypothesis import given
from hypothesis import strategies as st

BOX = Query(nouns=("box",))
READS = {
    "the red cup on the right": Query(nouns=("cup",), colours=("red",), places=("right",)),
    "pick up the yellow banana": Query(nouns=("banana",), colours=("yellow",)),
    "Clear the table.": Query(every=True),
    "all green objects": Query(every=True, colours=("green",)),
    "everything round": Query(every=True, shapes=("round",)),
    "the leftmost box": Query(nouns=("box",), superlative="left"),
    "the biggest object": Query(superlative="big"),
    "the cup behind the box": Query(nouns=("cup",), relation=Relation("far", (BOX,))),
    "the cup to the left of the box": Query(nouns=("cup",), relation=Relation("left", (BOX,))),
    "the cup in front of the box": Query(nouns=("cup",), relation=Relation("near", (BOX,))),
    "the can between the box and the red cup": Query(
        nouns=("can",), relation=Relation("between", (BOX, Query(nouns=("cup",), colours=("red",))))
    ),
    "put all cans in the bin": Query(every=True, nouns=("can",)),
    "put the cans in the bin": Query(every=True, nouns=("can",)),
    "everything except the red cup": Query(every=True, excluded=Query(nouns=("cup",), colours=("red",))),
    "lift the green block farthest from the robot": Query(nouns=("block",), colours=("green",), superlative="far"),
    "pick up the orange": Query(nouns=("orange",)),
    "pick up the orange object": Query(colours=("orange",)),
    "the orange cup": Query(nouns=("cup",), colours=("orange",)),
    "take the bar of soap": Query(nouns=("bar of soap",)),
    "清理桌面": Query(every=True),
    "拿起右边的红色杯子": Query(nouns=("cup",), colours=("red",), places=("right",)),
    "所有绿色的物体": Query(every=True, colours=("green",)),
    "把所有罐子放进垃圾桶": Query(every=True, nouns=("can",)),
    "盒子左边的杯子": Query(nouns=("cup",), relation=Relation("left", (BOX,))),
    "最大的盒子": Query(nouns=("box",), superlative="big"),
    "除了红色杯子以外的所有东西": Query(every=True, excluded=Query(nouns=("cup",), colours=("red",))),
}


@pytest.mark.parametrize("text", READS)
def test_reads(text: str) -> None:
    assert parse(text) == READS[text]


@pytest.mark.parametrize(
    "text",
    ["", "   ", "grasp", "the unicorn", "pick up the red cup and sing", "the red cup the box", "拿起独角兽", "x" * 500,
     "the leftmost biggest cup", "the red cup except the box", "the cup behind", "!!!"],
)  # fmt: skip
def test_refuses_what_it_does_not_understand(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse(text)
    assert "expected" in str(caught.value)


def test_says_which_word_and_what_it_knows() -> None:
    with pytest.raises(BadInput, match="'unicorn'.*colours.*relations"):
        parse("the purple unicorn")


def test_a_point_on_the_table() -> None:
    assert parse("grasp the red object at x 0.32 y -0.10 m").point_m == (0.32, -0.10)


def test_reads_every_instruction_that_demonstrations_carry() -> None:
    from dexloop.hardware.twin.instructions import VERBS
    from dexloop.hardware.twin.objects.catalogue import FAMILIES

    for family in FAMILIES.values():
        for colour in family.colours:
            name = family.noun if colour == family.noun else f"{colour} {family.noun}"
            for where in ("", " on the left", " on the right", " nearest to the robot", " farthest from the robot"):
                query = parse(f"{VERBS[0]} the {name}{where}")
                assert query.nouns == (family.noun,), name
                assert query.colours == (() if colour == family.noun else (colour,)), name
                assert bool(query.places or query.superlative) == bool(where)


@given(
    st.sampled_from(sorted(words.COLOURS)), st.sampled_from(sorted(set(words.NOUNS) - {"object", "fruit", "tool"})),
    st.sampled_from(["left", "right"]), st.sampled_from(["take", "grasp", "please pick up"]),
)  # fmt: skip
def test_english_and_chinese_agree(colour: str, noun: str, side: str, verb: str) -> None:
    english = parse(f"{verb} the {colour} {noun} on the {side}")
    chinese = parse(f"拿起{ {'left': '左边', 'right': '右边'}[side] }的{words.COLOURS[colour][-1]}的{noun}")
    assert english == chinese


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    message = ""
    try:
        parse(text)
    except BadInput as error:
        message = str(error)
    assert not message or "expected" in message
