"""Words for things: an instruction that means one and no other, a question that names the rivals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .attributes import Thing
from .grammar import Query, parse
from .ranking import Answer, Ranking

_UNMISTAKABLE = 0.75  # an instruction is used when the planner itself is so sure what it means
_PLACES = ("", "on the right", "on the left", "in the middle", "nearest to the robot", "farthest from the robot")
_SIZES = ("biggest", "smallest", "tallest", "shortest")


def name(thing: Thing) -> str:
    """ "long green object"."""
    word = thing.shape_word
    return f"{word} {thing.colour} object".strip() if word else f"{thing.colour} object"


def instruction(ranking: Ranking, k: int, query: Query) -> str:
    """The shortest instruction that this planner itself understands as thing ``k`` and nothing else."""
    for text in _descriptions(ranking.things[k], query):
        answer = ranking.answer(parse(text))
        if answer.chosen == (k,) and answer.confidence >= _UNMISTAKABLE:
            return text
    x, y, _ = ranking.things[k].centroid_m
    return f"grasp the {name(ranking.things[k])} at x {x:.2f} y {y:.2f} m"


def _descriptions(thing: Thing, query: Query) -> list[str]:
    noun = query.nouns[0] if len(query.nouns) == 1 else "object"
    colour = "" if noun == thing.colour else thing.colour
    names = [f"{colour} {noun}".strip()]
    if thing.shape_word:
        names.append(f"{thing.shape_word} {colour} {noun}".replace("  ", " "))
    out = [f"grasp the {said} {place}".strip() for place in _PLACES for said in names]
    return out + [f"grasp the {size} {names[0]}" for size in _SIZES]


def question(things: Sequence[Thing], answer: Answer) -> str:
    """Names the rivals and where they are."""
    rivals = [things[k] for k in answer.rivals]
    colours = {thing.colour for thing in rivals}
    what = f"{colours.pop()} objects" if len(colours) == 1 else "objects that fit"
    listed = [
        f"one {place}" if what != "objects that fit" else f"the {name(thing)} {place}"
        for thing, place in zip(rivals, _whereabouts(rivals), strict=True)
    ]
    return f"There are {_number(len(rivals))} {what}: {', '.join(listed[:-1])} and {listed[-1]}. Which one?"


def _number(count: int) -> str:
    return {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}.get(count, str(count))


def _whereabouts(things: list[Thing]) -> list[str]:
    """A place for each: along the wider spread of the two axes."""
    xy = np.array([thing.centroid_m[:2] for thing in things])
    spread = np.ptp(xy, axis=0)
    axis = 1 if spread[1] >= 0.7 * spread[0] else 0
    words = ("on the right", "in the middle", "on the left") if axis else ("in front", "in the middle", "at the back")
    order = np.argsort(np.argsort(xy[:, axis]))
    last = len(things) - 1
    return [words[0] if rank == 0 else words[2] if rank == last else words[1] for rank in order]
