"""The sentence that names a scene's target, and only it.

"Left" and "right" are the robot's own: +y is left. "Nearest" and "farthest" are measured from the column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from numpy.random import Generator

if TYPE_CHECKING:
    from .objects import ObjectSpec
    from .scene_spec import PlacedObject

VERBS = ("pick up", "grasp", "take", "lift")
# Nouns that people use for one another: a red cup beside a red mug is not "the red cup" to everyone.
_ALIKE = ({"cup", "mug", "goblet"}, {"box", "carton", "block", "book", "bar of soap", "sponge"}, {"bag", "pouch"},
          {"ball", "orange", "apple"}, {"jar", "can", "candle"}, {"pear", "apple", "lemon"})  # fmt: skip
_MARGIN_M = 0.04  # how much farther out the target must lie than any that is alike


def phrase(obj: ObjectSpec) -> str:
    """Colour and noun; an orange is not called an orange orange."""
    return obj.noun if obj.colour == obj.noun else f"{obj.colour} {obj.noun}"


def alike(a: PlacedObject, b: PlacedObject) -> bool:
    """Whether "the <colour> <noun>" could mean either."""
    one, other = a.object, b.object
    if one.colour != other.colour:
        return False
    return one.noun == other.noun or any(one.noun in group and other.noun in group for group in _ALIKE)


def relation(placed: Sequence[PlacedObject], index: int) -> str | None:
    """What tells the target from those like it: "" when nothing is like it, None when nothing tells them apart."""
    target = placed[index]
    others = [item for k, item in enumerate(placed) if k != index and alike(target, item)]
    if not others:
        return ""
    x, y, _ = target.position_m
    xs, ys = [item.position_m[0] for item in others], [item.position_m[1] for item in others]
    if y > max(ys) + _MARGIN_M:
        return "on the left"
    if y < min(ys) - _MARGIN_M:
        return "on the right"
    if x < min(xs) - _MARGIN_M:
        return "nearest to the robot"
    if x > max(xs) + _MARGIN_M:
        return "farthest from the robot"
    return None


def instruction_for(rng: Generator, placed: Sequence[PlacedObject], index: int) -> str | None:
    """ "pick up the red cup on the left"; None when words cannot tell the target apart."""
    where = relation(placed, index)
    if where is None:
        return None
    obj = placed[index].object
    verb = str(rng.choice(VERBS))
    return f"{verb} the {phrase(obj)} {where}".strip()
