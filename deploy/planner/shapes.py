"""How big things of a name usually are, for the names that ``recognition.py`` has seen no example of.

Ordinary household sizes: weak evidence, since many things share a size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Range = tuple[float, float]


@dataclass(frozen=True)
class Shape:
    """What a thing measures, however it lies."""

    sides_m: tuple[Range, Range, Range]  # its three sides, longest first
    hollow: float = 0.0  # share of such things whose middle lies more than 2 cm below the rim
    convexity: float = 0.9  # its outline is rarely less convex than this
    fill: Range = (0.0, 1.0)  # part of the smallest rectangle that its footprint fills: 0.79 a disc


NOUN_SHAPES: dict[str, Shape] = {
    "apple": Shape(((0.062, 0.081), (0.059, 0.077), (0.053, 0.068)), 0.0, 0.90, (0.66, 0.88)),
    "bag": Shape(((0.090, 0.142), (0.062, 0.097), (0.034, 0.055)), 0.1, 0.94),
    "ball": Shape(((0.043, 0.078), (0.041, 0.075), (0.039, 0.072)), 0.0, 0.94, (0.66, 0.88)),
    "banana": Shape(((0.147, 0.203), (0.041, 0.054), (0.030, 0.038)), 0.0, 0.74),
    "bar of soap": Shape(((0.070, 0.093), (0.049, 0.060), (0.025, 0.039)), 0.1, 0.93),
    "bell pepper": Shape(((0.062, 0.105), (0.056, 0.084), (0.052, 0.082)), 0.2, 0.86, (0.66, 0.88)),
    "block": Shape(((0.039, 0.103), (0.031, 0.059), (0.027, 0.051)), 0.1, 0.90, (0.86, 1.0)),
    "book": Shape(((0.126, 0.168), (0.096, 0.127), (0.025, 0.036)), 0.1, 0.90, (0.86, 1.0)),
    "bottle": Shape(((0.132, 0.234), (0.047, 0.086), (0.043, 0.080)), 0.6, 0.88),
    "bowl": Shape(((0.076, 0.095), (0.074, 0.093), (0.039, 0.050)), 0.8, 0.95, (0.66, 0.88)),
    "box": Shape(((0.094, 0.178), (0.057, 0.121), (0.030, 0.083)), 0.2, 0.94, (0.86, 1.0)),
    "brush": Shape(((0.165, 0.200), (0.041, 0.058), (0.022, 0.031)), 0.0, 0.75),
    "can": Shape(((0.075, 0.141), (0.053, 0.082), (0.052, 0.080)), 0.2, 0.94),
    "candle": Shape(((0.066, 0.130), (0.042, 0.074), (0.041, 0.067)), 0.2, 0.94),
    "carrot": Shape(((0.144, 0.221), (0.030, 0.039), (0.029, 0.036)), 0.0, 0.87),
    "carton": Shape(((0.103, 0.179), (0.056, 0.083), (0.054, 0.079)), 0.6, 0.93, (0.86, 1.0)),
    "cucumber": Shape(((0.114, 0.189), (0.033, 0.047), (0.033, 0.045)), 0.0, 0.95, (0.86, 1.0)),
    "cup": Shape(((0.067, 0.110), (0.064, 0.085), (0.062, 0.084)), 0.8, 0.94),
    "goblet": Shape(((0.100, 0.155), (0.058, 0.085), (0.055, 0.085)), 0.6, 0.60),
    "hammer": Shape(((0.191, 0.248), (0.082, 0.104), (0.027, 0.034)), 0.0, 0.47),
    "jar": Shape(((0.072, 0.119), (0.052, 0.083), (0.052, 0.081)), 0.2, 0.94),
    "lemon": Shape(((0.056, 0.071), (0.049, 0.065), (0.046, 0.060)), 0.0, 0.92, (0.66, 0.88)),
    "light bulb": Shape(((0.085, 0.120), (0.048, 0.072), (0.045, 0.072)), 0.0, 0.86),
    "marker": Shape(((0.127, 0.153), (0.021, 0.026), (0.020, 0.025)), 0.0, 0.86),
    "mug": Shape(((0.086, 0.109), (0.073, 0.100), (0.068, 0.088)), 0.7, 0.90),
    "orange": Shape(((0.062, 0.082), (0.059, 0.078), (0.055, 0.075)), 0.0, 0.95, (0.66, 0.88)),
    "paper roll": Shape(((0.065, 0.104), (0.061, 0.083), (0.054, 0.079)), 0.0, 0.95),
    "pear": Shape(((0.075, 0.115), (0.053, 0.078), (0.050, 0.075)), 0.0, 0.88, (0.66, 0.88)),
    "piece of cheese": Shape(((0.070, 0.130), (0.045, 0.090), (0.025, 0.060)), 0.0, 0.92),
    "plate": Shape(((0.120, 0.260), (0.120, 0.260), (0.010, 0.035)), 0.0, 0.94),
    "pouch": Shape(((0.090, 0.170), (0.060, 0.110), (0.018, 0.055)), 0.1, 0.90),
    "remote control": Shape(((0.139, 0.186), (0.043, 0.058), (0.023, 0.029)), 0.0, 0.92, (0.86, 1.0)),
    "screwdriver": Shape(((0.165, 0.217), (0.028, 0.037), (0.025, 0.035)), 0.0, 0.73),
    "sponge": Shape(((0.090, 0.120), (0.059, 0.073), (0.032, 0.048)), 0.4, 0.93, (0.86, 1.0)),
    "spoon": Shape(((0.164, 0.230), (0.035, 0.044), (0.020, 0.024)), 0.0, 0.62),
    "torch": Shape(((0.110, 0.200), (0.028, 0.055), (0.026, 0.050)), 0.0, 0.84),
    "toy car": Shape(((0.070, 0.140), (0.038, 0.075), (0.026, 0.060)), 0.0, 0.86),
    "tube": Shape(((0.127, 0.173), (0.038, 0.055), (0.033, 0.048)), 0.2, 0.92),
}

# Things that come in few colours.
NOUN_COLOURS: dict[str, tuple[str, ...]] = {
    "apple": ("red", "green", "yellow", "orange", "brown"),
    "banana": ("yellow", "green", "orange"),
    "bell pepper": ("red", "green", "yellow", "orange"),
    "carrot": ("orange", "red", "brown"),
    "cucumber": ("green",),
    "lemon": ("yellow", "green", "orange"),
    "orange": ("orange", "red", "brown"),
    "paper roll": ("white", "grey", "brown"),
    "pear": ("green", "yellow", "brown"),
    "piece of cheese": ("yellow", "orange", "white"),
    "light bulb": ("white", "yellow", "grey"),
}
# What one who has never seen such a thing takes it for: kinds of like build that the classifier knows.
LOOKS_LIKE: dict[str, tuple[str, ...]] = {
    "bell pepper": ("apple", "orange", "lemon", "ball"),
    "goblet": ("cup", "mug", "bowl", "bottle", "can", "candle", "jar", "hammer", "paper roll"),
    "light bulb": ("lemon", "apple", "orange", "ball", "bottle", "banana", "carrot", "jar", "candle"),
    "pear": ("apple", "lemon", "orange", "ball", "bottle", "candle"),
    "piece of cheese": ("block", "sponge", "bar of soap", "box", "bag", "carton"),
    "plate": ("bowl", "book"),
    "pouch": ("bag", "box", "book", "sponge", "bottle", "tube", "bowl", "carton", "bar of soap", "hammer"),
    "torch": ("marker", "screwdriver", "carrot", "cucumber", "bottle", "candle", "tube", "can", "brush"),
    "toy car": ("block", "bar of soap", "sponge", "remote control", "box", "bag", "brush"),
}
_SPREAD = 0.18  # standard deviation of the logarithm of a side beyond its range
_MISTAKEN = 0.006  # how often what is new is taken for a kind of another build
_USUAL = 0.5  # a thing that is just as such things are may still be another


def looks_fit(noun: str, kinds: Mapping[str, float]) -> float:
    """0..1: how well a name that the classifier does not know suits what it takes a thing for."""
    if noun not in LOOKS_LIKE:
        return 1.0
    return _MISTAKEN + (1.0 - _MISTAKEN) * min(1.0, sum(kinds.get(kind, 0.0) for kind in LOOKS_LIKE[noun]) / 0.5)


def typical_fit(
    noun: str,
    sides_m: tuple[float, float, float],
    hollow_m: float,
    convexity: float,
    fill: float,
    colours: Mapping[str, float],
) -> float:
    """0..1: how well sides (m, longest first), build and colour suit such a thing; 0.25 for a name without a range."""
    shape = NOUN_SHAPES.get(noun)
    if shape is None:
        return 0.5 * _USUAL
    beyond = [max(np.log(low / max(side, 1e-3)), np.log(max(side, 1e-3) / high), 0.0)
              for side, (low, high) in zip(sides_m, shape.sides_m, strict=True)]  # fmt: skip
    fit = _USUAL * float(np.exp(-np.square(beyond).sum() / (2 * _SPREAD**2)))
    hollow = hollow_m > 0.02
    if hollow and shape.hollow < 0.5:
        fit *= 0.4
    if convexity < shape.convexity - 0.04 or not shape.fill[0] - 0.06 <= fill <= shape.fill[1] + 0.06:
        fit *= 0.4
    return fit * colour_fit(noun, colours)


def colour_fit(noun: str, colours: Mapping[str, float]) -> float:
    """0..1: how well the colours of its surface suit a thing that comes in few; 1 for others."""
    if noun not in NOUN_COLOURS:
        return 1.0
    return 0.08 + 0.92 * min(1.0, sum(colours[name] for name in NOUN_COLOURS[noun]) / 0.5)
