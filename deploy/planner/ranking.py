"""Which of the things on the table a request means, and how sure that is.

Colours and places decide; a noun's shape is weak evidence, so it tells apart only what it fits clearly better. Where
two things fit alike the answer is "ambiguous" and names both: nobody guesses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...hardware.errors import BadInput
from .attributes import Thing
from .grammar import Query, Relation


@dataclass(frozen=True)
class RankingConfig:
    """When a thing fits, and when it fits better than the next."""

    colour: float = 0.24
    """Least fit of a colour word (0..1) for one thing; a better fit elsewhere still wins."""
    colour_all: float = 0.42
    """Least fit of a colour word where all of a colour are meant."""
    noun: float = 0.02
    """Least fit of a noun for one thing; far below, because shapes seen from above mislead."""
    noun_all: float = 0.12
    """Least fit of a noun where all of a kind are meant."""
    shape: float = 0.5
    """Least fit of a shape word."""
    margin: float = 0.55
    """The best must beat the next by this much, in logarithms of fit."""
    margin_placed: float = 0.8
    """The same where a place or superlative was said, because the rest fits more than one thing; nouns then count
    half."""
    noun_weight: float = 0.42
    """How much the logarithm of a noun's fit counts against a colour's."""
    place_m: float = 0.025
    """A thing is the leftmost, nearest ... only when it is so by this much."""
    size_ratio: float = 1.12
    """The biggest or tallest is so by this ratio."""

    def __post_init__(self) -> None:
        for name in ("colour", "colour_all", "noun", "noun_all", "shape"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise BadInput(f"RankingConfig.{name} is {getattr(self, name)}: expected a fit between 0 and 1")
        if min(self.margin, self.margin_placed) <= 0.0 or self.place_m < 0.0 or self.size_ratio < 1.0:
            raise BadInput("RankingConfig: expected margin and margin_placed > 0, place_m >= 0 and size_ratio >= 1")


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

    # -- one ----------------------------------------------------------------------------------------------------

    def _one(self, query: Query) -> Answer:
        fits = self._fits(query)
        fitting = [k for k in range(len(self.things)) if np.isfinite(fits[k])]
        if not fitting and len(self.things) == 1 and not query.colours and not query.shapes and not query.relation:
            return Answer((0,), confidence=0.5, reason="it is the only thing on the table")
        if not fitting:
            return Answer(reason=self._why_none(query))
        if query.relation is not None:
            return self._related(query.relation, fitting, fits)
        best = max(fits[k] for k in fitting)
        keys = [query.superlative] if query.superlative else list(query.places)
        margin = self.config.margin_placed if keys else self.config.margin
        close = [k for k in fitting if fits[k] > best - margin]
        for key in keys:
            if len(close) > 1:
                close = self._extreme(key, close)
        if len(close) == 1:
            runner_up = max((fits[k] for k in fitting if k != close[0]), default=-4.0)
            lead = float(fits[close[0]] - runner_up) if not keys else self.config.margin + 1.0
            return Answer((close[0],), confidence=_confidence(fits[close[0]], lead))
        return Answer((), tuple(close), reason=f"{len(close)} things fit alike")

    def _fits(self, query: Query) -> np.ndarray:
        """(n,) logarithm of how well each thing fits colours, shapes and nouns; -inf where it does not."""
        config = self.config
        placed = bool(query.superlative or query.places) and not query.every
        noun_weight = config.noun_weight * (0.5 if placed else 1.0)
        out = np.zeros(len(self.things))
        alone = len(self.things) == 1
        for k, thing in enumerate(self.things):
            total = 0.0
            colours = [thing.colour_fit(name) for name in query.colours]
            if colours:
                fit = max(colours) if query.every else min(colours)
                limit = config.colour_all if query.every else config.colour
                total += np.log(fit) if fit >= limit else -np.inf
            for word in query.shapes:
                # Big and tall are said among others: "the big box" is the bigger one of the boxes.
                fit = self._relative(word, k) if word in ("big", "small", "tall", "short") else thing.shape_fit(word)
                total += np.log(fit) if fit >= config.shape else -np.inf
            if query.nouns:
                fit = max(thing.noun_fit(noun) for noun in query.nouns)
                least = config.noun_all if query.every else config.noun
                if fit >= least:
                    total += noun_weight * np.log(fit)
                elif query.colours and not query.every:
                    total += noun_weight * np.log(least) - config.margin  # its colour may still single it out
                elif not alone:
                    total = -np.inf
            out[k] = total
        return out

    def _relative(self, word: str, k: int) -> float:
        others = [t for j, t in enumerate(self.things) if j != k]
        if not others:
            return 1.0
        value, rest = self._measure(word, self.things[k]), [self._measure(word, t) for t in others]
        return float(np.mean([value > r for r in rest]) * 0.6 + 0.4 * self.things[k].shape_fit(word))

    def _extreme(self, key: str, among: list[int]) -> list[int]:
        """The one of ``among`` that is most so; several where they are so alike."""
        values = np.array([self._measure(key, self.things[k]) for k in among])
        best = float(values.max())
        if key in ("left", "right", "near", "far", "middle"):
            return [k for k, value in zip(among, values, strict=True) if value > best - self.config.place_m]
        if best > 0:
            return [k for k, value in zip(among, values, strict=True) if value * self.config.size_ratio > best]
        return [k for k, value in zip(among, values, strict=True) if value > best * self.config.size_ratio]

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

    def _related(self, relation: Relation, fitting: list[int], fits: np.ndarray) -> Answer:
        anchors = self._anchors(relation)
        if isinstance(anchors, Answer):
            return anchors
        candidates = [k for k in fitting if k not in anchors]
        scores = {k: self._relation_fit(relation.kind, k, anchors) for k in candidates}
        good = [k for k in candidates if scores[k] > 0.35]
        if not good:
            return Answer(reason=f"nothing that fits is {_SAID[relation.kind]} that")
        total = {k: float(fits[k]) + 1.5 * float(np.log(scores[k])) for k in good}
        best = max(total.values())
        close = [k for k in good if total[k] > best - self.config.margin]
        if len(close) > 1:
            return Answer((), tuple(close), reason=f"{len(close)} things fit alike")
        return Answer((close[0],), confidence=_confidence(best, self.config.margin + 0.5))

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
        fits = self._fits(query)
        chosen = [k for k in range(len(self.things)) if np.isfinite(fits[k])]
        if query.relation is not None:
            anchors = self._anchors(query.relation)
            if isinstance(anchors, Answer):
                return anchors
            relation = query.relation
            chosen = [k for k in chosen if k not in anchors and self._relation_fit(relation.kind, k, anchors) > 0.35]
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
            chosen = self._extreme(query.superlative, chosen)
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
        if query.colours and not any(t.colour_fit(c) >= self.config.colour for t in self.things for c in query.colours):
            return f"nothing {wanted} stands on the table (colours seen: {seen})"
        return f"nothing on the table fits ({len(self.things)} things of the colours {seen})"


_SAID = {"left": "left of", "right": "right of", "near": "in front of", "far": "behind", "beside": "next to",
         "between": "between"}  # fmt: skip


def _confidence(fit: float, margin: float) -> float:
    """0..1 from the logarithm of the fit and the lead over the next."""
    return float(np.clip(np.exp(0.5 * fit) * (1.0 - np.exp(-max(margin, 0.0) * 1.5)), 0.05, 0.99))
