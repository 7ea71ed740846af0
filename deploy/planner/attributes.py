"""What can be said of an object on the table: its colours, size, shape, place, and how well a word fits it.

All answers are degrees from 0 to 1. What colour it is called and what kind of thing it is, a network says that was
fitted to the twin's training split (``recognition.py``); of names that it does not know, the size that such things
usually have (``shapes.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .features import measure, shares
from .fitted import fitted
from .light import Light
from .recognition import patch, recogniser
from .segments import Cluster
from .shapes import colour_fit, looks_fit, typical_fit
from .table import Array
from .words import COLOURS as COLOUR_WORDS
from .words import alike

COLOURS = tuple(COLOUR_WORDS)


@dataclass(frozen=True)
class Thing:
    """An object on the table, and what can be said of it."""

    cluster: Cluster
    colours: dict[str, float]  # part of its surface in each colour of COLOURS; adds up to 1
    length_m: float  # of its footprint
    width_m: float
    height_m: float
    fill: float  # footprint area over that of its smallest rectangle: 0.79 a disc, 1 a rectangle
    convexity: float  # of its outline, 0..1
    hollow_m: float  # how far its middle lies below its rim
    called: dict[str, float]  # how likely each colour is the one that it is called by; adds up to 1
    kinds: dict[str, float]  # how likely it is of each kind that the network knows; adds up to 1
    blocked_m: float = 1.0  # free space to its nearest neighbour

    @property
    def centroid_m(self) -> Array:
        """(3,) world."""
        return self.cluster.centroid_m

    @cached_property
    def colour(self) -> str:
        """The one word for it."""
        return max(self.called, key=lambda name: self.called[name])

    def colour_fit(self, name: str, alone: bool = True) -> float:
        """0..1: how likely it is called so; with ``alone`` False, beside other colours."""
        return self.called[name] if alone else max(self.called[name], min(1.0, self.colours[name] / 0.3))

    @property
    def size_m(self) -> tuple[float, float, float]:
        """Its three sides, longest first, however it lies."""
        long, middle, short = sorted((self.length_m, self.width_m, self.height_m), reverse=True)
        return long, middle, short

    @property
    def volume_m3(self) -> float:
        """Of its bounding box: what "big" means."""
        return self.length_m * self.width_m * self.height_m

    def shape_fit(self, word: str) -> float:
        """0..1: how rightly it is called round, long, flat, square, tall, short, big or small."""
        long, middle, short = self.size_m
        ratio = self.length_m / max(self.width_m, 1e-3)
        if word == "round":
            return _between(ratio, 0.9, 1.25, 0.25) * _between(self.fill, 0.60, 0.88, 0.06) * self.convexity**2
        if word == "long":
            return _above(long / max(middle, 1e-3), 2.2, 0.5)
        if word == "flat":
            return _below(self.height_m / max(self.width_m, 1e-3), 0.55, 0.15) * _below(self.height_m, 0.055, 0.015)
        if word == "square":
            return _above(self.fill, 0.88, 0.04) * _below(self.hollow_m, 0.015, 0.01)
        if word == "tall":
            return _above(self.height_m, 0.10, 0.02)
        if word == "short":
            return _below(self.height_m, 0.07, 0.02)
        size = long * middle
        return _above(size, 0.011, 0.003) if word == "big" else _below(size, 0.006, 0.002)

    def noun_fit(self, noun: str, loose: float = 0.0) -> float:
        """0..1: how likely it is such a thing; or, where ``loose``, to that part one that people use the noun for."""
        like = sum(self._is(other) for other in alike(noun)) if loose else 0.0
        return min(1.0, self._is(noun) + loose * like * colour_fit(noun, self.colours))

    def _is(self, noun: str) -> float:
        if noun in self.kinds:
            return self.kinds[noun] * colour_fit(noun, self.colours)
        typical = typical_fit(noun, self.size_m, self.hollow_m, self.convexity, self.fill, self.colours)
        return typical * looks_fit(noun, self.kinds)

    @cached_property
    def shape_word(self) -> str:
        """The most telling shape word, empty where none fits well."""
        order = ("round", "long", "square", "tall", "flat")
        best = max(order, key=self.shape_fit)
        return best if self.shape_fit(best) > 0.7 else ""


def describe(clusters: tuple[Cluster, ...], lab: NDArray[np.float32], light: Light) -> tuple[Thing, ...]:
    """What the pictures say of each cluster. ``lab`` (H, W, 3) of the head picture as under even light."""
    if not clusters:
        return ()
    palette, network = fitted().palette, recogniser()
    measures = [measure(cluster, lab, light, palette) for cluster in clusters]
    kinds, called = network.recognise(
        np.stack([patch(cluster, lab) for cluster in clusters]),
        np.stack([m.of_kind for m in measures]),
        np.stack([m.of_colour for m in measures]),
    )
    things = []
    for cluster, m, kind, colour in zip(clusters, measures, kinds, called, strict=True):
        gaps = [gap_m(cluster, other) for other in clusters if other is not cluster]
        things.append(
            Thing(
                cluster, dict(zip(palette.words, m.words.tolist(), strict=True)), m.length_m, m.width_m,
                cluster.top_m, m.fill, m.convexity, m.hollow_m,
                dict(zip(network.colours, colour.tolist(), strict=True)),
                dict(zip(network.kinds, kind.tolist(), strict=True)), min(gaps, default=1.0),
            )
        )  # fmt: skip
    return tuple(things)


def colour_shares(lab: NDArray[np.float32]) -> dict[str, float]:
    """Part of the pixels (N, 3) Lab in each colour word; each pixel is shared out softly. Adds up to 1."""
    palette = fitted().palette
    return dict(zip(palette.words, palette.by_word(shares(lab, palette.centres)).tolist(), strict=True))


def gap_m(a: Cluster, b: Cluster) -> float:
    """Free space between two clusters' points on the table, about."""
    one, other = (c.points[:: max(1, len(c.points) // 150), :2] for c in (a, b))
    return float(np.sqrt(((one[:, None] - other) ** 2).sum(-1).min()))


def _above(value: float, limit: float, soft: float) -> float:
    return float(1.0 / (1.0 + np.exp(-np.clip((value - limit) / soft * 3.0, -30.0, 30.0))))


def _below(value: float, limit: float, soft: float) -> float:
    return 1.0 - _above(value, limit, soft)


def _between(value: float, low: float, high: float, soft: float) -> float:
    return min(_above(value, low - soft / 3, soft), _below(value, high + soft / 3, soft))
