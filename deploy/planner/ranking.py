"""Which of the things on the table a request means, and how sure that is.

Every thing has a probability m of being what the words describe. From these follows how likely each thing is the one
that is meant, against two other readings: that several fit and the words do not tell them apart, and that none does.
People who speak of one thing mostly have one that fits, so those readings begin with little weight, and evidence has to
speak for them: two red cups, or nothing red at all. Who is not the likely one by a clear majority is not taken: nobody
guesses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...hardware.errors import BadInput
from .attributes import Thing
from .grammar import Query, Relation

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class RankingConfig:
    """When a thing fits, and when it is the one that is meant. Probabilities, chosen on 140 scenes of the twin's
    validation split (100 of them from seed 950000), ``several`` and ``none`` on 120 others, half of them under coloured
    lamps; three of its kinds the recogniser has never seen."""

    sure: float = 0.6
    """A thing is taken when it is the one that is meant with this probability."""
    several: float = 0.35
    """How often, before anything is seen, words fit several things though one is spoken of."""
    several_placed: float = 0.3
    """The same where a place or superlative was said and two things are equally far out."""
    none: float = 0.006
    """How often words fit nothing on the table."""
    plausible: float = 0.15
    """Where it is asked which, one of them fits with this probability: else nothing does."""
    redundant: float = 0.6
    """How often a place is said though only one thing fits without it."""
    colour_slip: float = 0.006
    """How often a thing is called by a colour that the classifier excludes."""
    noun_slip: float = 0.002
    """The same for its kind: shapes seen from above mislead, and people's names for things vary."""
    loose: float = 0.5
    """How readily a thing is called by a noun that people use for its like, a mug a cup."""
    loose_placed: float = 0.95
    """The same where a place or superlative was said: it is there to tell the thing from those like it."""
    noun_weight: float = 0.9
    """Power that a kind's probability is raised to: less than 1, since the classifier has not seen all kinds."""
    every: float = 0.2
    """Where all of a kind are meant, those are that fit with this probability."""
    shape: float = 0.5
    """Least fit of a shape word (0..1), where all are meant or one."""
    place_m: float = 0.025
    """A thing is the leftmost, nearest ... only when it is so by this much."""
    size_ratio: float = 1.12
    """The biggest or tallest is so by this ratio."""

    def __post_init__(self) -> None:
        for name in ("sure", "several", "several_placed", "none", "plausible", "redundant", "colour_slip",
                     "noun_slip", "loose", "loose_placed", "every", "shape"):  # fmt: skip
            if not 0.0 < getattr(self, name) < 1.0:
                raise BadInput(f"RankingConfig.{name} is {getattr(self, name)}: expected more than 0 and less than 1")
        if not 0.0 < self.noun_weight <= 1.0:
            raise BadInput(f"RankingConfig.noun_weight is {self.noun_weight}: expected more than 0 and at most 1")
        if self.place_m < 0.0 or self.size_ratio < 1.0:
            raise BadInput(
                f"RankingConfig.place_m is {self.place_m}, size_ratio {self.size_ratio}: expected 0 or more, and 1 or "
                "more"
            )


@dataclass(frozen=True)
class Answer:
    """Indices of what a request means. One thing: ``chosen`` has it, or is empty and ``rivals`` has the ones that fit
    alike, or none fits. All of a kind: ``chosen`` has every one."""

    chosen: tuple[int, ...] = ()
    rivals: tuple[int, ...] = ()
    confidence: float = 0.0
    reason: str = ""


class Ranking:
    """Answers requests about one moment's things."""

    def __init__(self, things: Sequence[Thing], config: RankingConfig | None = None) -> None:
        self.things = tuple(things)
        self.config = config or RankingConfig()

    def answer(self, query: Query) -> Answer:
        """What ``query`` means here."""
        if not self.things:
            return Answer(reason="nothing stands on the table")
        if query.point_m is not None:
            return self._at_point(query.point_m)
        return self._all(query) if query.every else self._one(query)

    def fits(self, query: Query) -> Array:
        """(n,) probability that each thing is what the words of ``query`` describe, places and relations left aside."""
        out = np.ones(len(self.things))
        placed = bool(query.places or query.superlative)
        for k, thing in enumerate(self.things):
            out[k] *= self._colours(thing, query)
            for word in query.shapes:
                # Big and tall are said among others: "the big box" is the bigger one of the boxes.
                fit = self._relative(word, k) if word in ("big", "small", "tall", "short") else thing.shape_fit(word)
                out[k] *= fit if fit >= self.config.shape else 0.0
            if query.nouns:
                # A colour singles a thing out that looks like another kind; by its kind alone nothing else does.
                slip = self.config.noun_slip if query.colours else self.config.colour_slip
                loose = 0.0 if query.every else self.config.loose_placed if placed else self.config.loose
                fit = min(1.0, sum(thing.noun_fit(noun, loose) for noun in query.nouns))
                out[k] *= slip + (1.0 - slip) * fit**self.config.noun_weight
        return out

    def _colours(self, thing: Thing, query: Query) -> float:
        if not query.colours:
            return 1.0
        if query.every:  # all red and all blue things
            fit = min(1.0, sum(thing.colour_fit(name) for name in query.colours))
        else:  # one thing, red and white
            fit = float(np.prod([thing.colour_fit(name, len(query.colours) == 1) for name in query.colours]))
        return self.config.colour_slip + (1.0 - self.config.colour_slip) * fit

    # -- one ----------------------------------------------------------------------------------------------------

    def _one(self, query: Query) -> Answer:
        fits = self.fits(query)
        if query.relation is not None:
            anchors = self._anchors(query.relation)
            if isinstance(anchors, Answer):
                return anchors
            n = len(fits)
            kind = query.relation.kind
            beside = np.array([0.0 if k in anchors else self._relation_fit(kind, k, anchors) for k in range(n)])
            if (fits * (beside > _RELATED)).max() < self.config.none:
                return Answer(reason=f"nothing that fits is {_SAID[kind]} that")
            # People mean the one that is most so: half as much is an eighth as likely.
            fits = fits * (beside / beside.max()) ** 3
        elif len(self.things) == 1 and not query.shapes and self._colours(self.things[0], query) > 0.5:
            # What it is called cannot tell it from another.
            return Answer((0,), confidence=max(0.5, float(fits[0])), reason="it is the only thing on the table")
        keys = [query.superlative] if query.superlative else list(query.places)
        return self._decide(query, np.clip(fits, 1e-4, 0.97), keys)

    def _decide(self, query: Query, fits: Array, keys: list[str]) -> Answer:
        """The one that is meant, of things that fit so well (n,), or the rivals."""
        config = self.config
        odds, missing = fits / (1.0 - fits), float(np.prod(1.0 - fits))
        beyond, tied = self._order(keys) if keys else (np.zeros((len(fits),) * 2, bool), ~np.eye(len(fits), dtype=bool))
        # meant[k]: it fits, and nothing does that is as far out or farther; for no place, nothing else does at all.
        meant = fits * np.array([np.prod((1.0 - fits)[beyond[k] | tied[k]]) for k in range(len(fits))])
        if keys:
            others = 1.0 - missing / (1.0 - fits)
            meant = meant * (config.redundant + (1.0 - config.redundant) * others)
        unsettled = max(1.0 - missing - float(meant.sum()), 0.0) if not keys else self._tied(fits, beyond, tied)
        weights = [*meant, (config.several_placed if keys else config.several) * unsettled, config.none * missing]
        total = np.array(weights) / max(sum(weights), 1e-12)
        best = int(np.argmax(total[: len(fits)]))
        if total[best] >= config.sure:
            return Answer((best,), confidence=round(float(total[best]), 4))
        if total[-1] >= total[:-1].max() or odds[best] < 2.0 * config.none:
            return Answer(reason=self._why_none(query))
        rivals = self._rivals(fits, meant, beyond, tied, best)
        if len(rivals) < 2 or max(fits[k] for k in rivals) < config.plausible:
            return Answer(reason=self._why_none(query))
        return Answer((), rivals, reason=f"{len(rivals)} things fit alike")

    def _tied(self, fits: Array, beyond: Flags, tied: Flags) -> float:
        """Probability that two things fit that are equally far out, and nothing does that is farther."""
        out = 0.0
        for j, k in zip(*np.nonzero(np.triu(tied)), strict=True):
            out += float(fits[j] * fits[k] * np.prod((1.0 - fits)[(beyond[j] | beyond[k])]))
        return min(out, 1.0)

    def _rivals(self, fits: Array, meant: Array, beyond: Flags, tied: Flags, best: int) -> tuple[int, ...]:
        """What might be meant as well as ``best``."""
        near = [k for k in range(len(fits)) if k == best or tied[best, k] or meant[k] > 0.1 * meant[best]]
        odds = fits / (1.0 - fits)
        alike = tuple(k for k in near if odds[k] > 0.1 * max(odds[j] for j in near))
        # One that surely fits beside one that well may: whether there is one or two, only the user can tell.
        return alike if len(alike) > 1 else tuple(k for k in near if fits[k] >= self.config.plausible)

    def _order(self, keys: list[str]) -> tuple[Flags, Flags]:
        """(n, n) twice: [k, j] j is clearly farther out than k by the keys; neither is."""
        n = len(self.things)
        further = np.zeros((n, n), bool)
        nearer = np.zeros((n, n), bool)
        for key in keys:
            values = np.array([self._measure(key, thing) for thing in self.things])
            if key in ("left", "right", "near", "far", "middle"):
                by = values[None] > values[:, None] + self.config.place_m
            else:
                larger, smaller = np.maximum(values[None], values[:, None]), np.minimum(values[None], values[:, None])
                ratio = np.where(larger > 0, larger / np.maximum(smaller, 1e-9), smaller / np.minimum(larger, -1e-9))
                by = (values[None] > values[:, None]) & (ratio > self.config.size_ratio)
            further |= by
            nearer |= by.T
        beyond = further & ~nearer  # by one key more, by no key less
        return beyond, ~(beyond | beyond.T | np.eye(n, dtype=bool))

    def _relative(self, word: str, k: int) -> float:
        others = [t for j, t in enumerate(self.things) if j != k]
        if not others:
            return 1.0
        value, rest = self._measure(word, self.things[k]), [self._measure(word, t) for t in others]
        return float(np.mean([value > r for r in rest]) * 0.6 + 0.4 * self.things[k].shape_fit(word))

    def _measure(self, key: str, thing: Thing) -> float:
        """How much so: more is more. Places in m, sizes in their unit."""
        x, y, _ = thing.centroid_m
        ys = [float(t.centroid_m[1]) for t in self.things]
        simple = {
            "left": y, "right": -y, "near": -x, "far": x, "middle": -abs(y - 0.5 * (min(ys) + max(ys))),
            "big": thing.volume_m3, "small": -thing.volume_m3, "tall": thing.height_m, "short": -thing.height_m,
            "long": thing.size_m[0], "flat": -thing.height_m, "round": thing.shape_fit("round"),
        }  # fmt: skip
        return float(simple[key])

    # -- relations ----------------------------------------------------------------------------------------------

    def _anchors(self, relation: Relation) -> list[int] | Answer:
        found: list[int] = []
        for to in relation.to:
            answer = self._one(to) if not to.every else self._all(to)
            if not answer.chosen and relation.kind == "between" and len(answer.rivals) == 2:
                return list(answer.rivals)
            if not answer.chosen:
                which = "more than one thing" if answer.rivals else "nothing"
                return Answer((), answer.rivals, reason=f"{which} on the table fits what it is said to be beside")
            found += answer.chosen
        return found

    def _relation_fit(self, kind: str, k: int, anchors: list[int]) -> float:
        """0..1: how rightly thing ``k`` is said to be so of the anchors."""
        here = self.things[k].centroid_m[:2]
        places = np.stack([self.things[a].centroid_m[:2] for a in anchors])
        if kind == "between":
            if len(places) < 2:
                return 0.0
            line = places[1] - places[0]
            t = float((here - places[0]) @ line / max(float(line @ line), 1e-9))
            aside = float(np.linalg.norm(here - places[0] - t * line))
            return float(0.1 < t < 0.9) * float(np.exp(-((aside / 0.08) ** 2)))
        offset = here - places.mean(0)
        distance = float(np.linalg.norm(offset))
        if kind == "beside":
            return float(np.exp(-((distance / 0.18) ** 2)))
        direction = {"left": (0.0, 1.0), "right": (0.0, -1.0), "near": (-1.0, 0.0), "far": (1.0, 0.0)}[kind]
        along = float(offset @ np.array(direction))
        if along < 0.02:
            return 0.0
        return float((along / max(distance, 1e-9)) ** 2 * np.exp(-((distance / 0.45) ** 2)))

    # -- all, and a point ---------------------------------------------------------------------------------------

    def _all(self, query: Query) -> Answer:
        fits = self.fits(query)
        chosen = [k for k in range(len(self.things)) if fits[k] >= self.config.every]
        if query.relation is not None:
            anchors = self._anchors(query.relation)
            if isinstance(anchors, Answer):
                return anchors
            relation = query.relation
            chosen = [
                k for k in chosen if k not in anchors and self._relation_fit(relation.kind, k, anchors) > _RELATED
            ]
        ys = [t.centroid_m[1] for t in self.things]
        xs = [t.centroid_m[0] for t in self.things]
        for place in query.places:  # "all things on the left": that half of what stands there
            value = {"left": 1.0, "right": -1.0}.get(place, 0.0)
            if value:
                chosen = [k for k in chosen if value * (ys[k] - 0.5 * (min(ys) + max(ys))) > 0 or len(ys) == 1]
            elif place in ("near", "far"):
                sign = 1.0 if place == "far" else -1.0
                chosen = [k for k in chosen if sign * (xs[k] - 0.5 * (min(xs) + max(xs))) > 0 or len(xs) == 1]
        if query.superlative and chosen:
            beyond, _ = self._order([query.superlative])
            chosen = [k for k in chosen if not beyond[k][chosen].any()]
        if query.excluded is not None:
            spared = self.answer(query.excluded)
            if not spared.chosen and spared.rivals:
                return Answer((), spared.rivals, reason="more than one thing fits what is to be left")
            chosen = [k for k in chosen if k not in spared.chosen]
        return Answer(tuple(chosen), confidence=0.9 if chosen else 0.0, reason="" if chosen else self._why_none(query))

    def _at_point(self, point_m: tuple[float, float]) -> Answer:
        distance = [float(np.linalg.norm(t.centroid_m[:2] - np.array(point_m))) for t in self.things]
        best = int(np.argmin(distance))
        if distance[best] > 0.06:
            return Answer(reason=f"nothing stands within 6 cm of x {point_m[0]:.2f}, y {point_m[1]:.2f} m")
        rivals = tuple(k for k, d in enumerate(distance) if d < distance[best] + 0.01)
        if len(rivals) > 1:
            return Answer((), rivals, reason="two things stand equally near to that point")
        return Answer((best,), confidence=0.9)

    def _why_none(self, query: Query) -> str:
        wanted = " or ".join(query.colours)
        seen = ", ".join(sorted({t.colour for t in self.things}))
        if query.colours and not any(t.colour == c for t in self.things for c in query.colours):
            return f"nothing {wanted} stands on the table (colours seen: {seen})"
        return f"nothing on the table fits ({len(self.things)} things of the colours {seen})"


_RELATED = 0.35  # least fit of a relation
_SAID = {"left": "left of", "right": "right of", "near": "in front of", "far": "behind", "beside": "next to",
         "between": "between"}  # fmt: skip
