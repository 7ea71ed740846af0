"""A small grammar of requests, English and Chinese: what to take, one or all, of which colour, size, shape and place.

    request  = [one | all] description [except description]
    description = [colour | size | shape | superlative | place]* [noun] [place | superlative | relation description]

Left and right are the robot's own, as in the instructions that demonstrations are recorded with. A word that is not
known is an error that lists the known ones: nothing is guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache

from ...hardware.errors import BadInput
from . import words

_POINT = re.compile(r"at\s*\(?\s*x\s*=?\s*(-?\d+(?:\.\d+)?)\s*(?:m)?\s*,?\s*y\s*=?\s*(-?\d+(?:\.\d+)?)\s*m?\s*\)?")
_CHINESE = re.compile(r"[\u4e00-\u9fff]")


@dataclass(frozen=True)
class Relation:
    """Where a thing is, seen from another (or, for "between", from two)."""

    kind: str  # a key of words.RELATIONS
    to: tuple[Query, ...]


@dataclass(frozen=True)
class Query:
    """What was asked for. Names are keys of the tables in ``words.py``; an empty field asks for nothing."""

    every: bool = False
    nouns: tuple[str, ...] = ()  # any of them
    colours: tuple[str, ...] = ()  # any of them where every, else each of them
    shapes: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    superlative: str = ""
    relation: Relation | None = None
    excluded: Query | None = None
    point_m: tuple[float, float] | None = None  # x, y on the table: the planner's own last resort
    text: str = field(default="", compare=False)

    @property
    def specific(self) -> bool:
        """Whether it tells things apart at all."""
        return bool(
            self.nouns
            or self.colours
            or self.shapes
            or self.places
            or self.superlative
            or self.relation
            or self.point_m
        )


@dataclass(frozen=True)
class _Token:
    kind: str
    value: str
    word: str


@lru_cache(maxsize=1)
def _phrases() -> dict[str, _Token]:
    """Phrase -> token. Where two tables hold a word, the later one has it: relations before places."""
    out: dict[str, _Token] = {}
    for word in words.IGNORED:
        out[word] = _Token("skip", "", word)
    for kind, table in (
        ("noun", words.NOUNS),
        ("shape", words.SHAPES),
        ("colour", words.COLOURS),
        ("place", words.PLACES),
        ("superlative", words.SUPERLATIVES),
        ("relation", words.RELATIONS),
    ):
        for value, forms in table.items():
            for form in forms:
                out[form] = _Token(kind, value, form)
    for kind, forms in (
        ("all", words.ALL),
        ("everything", words.EVERYTHING),
        ("clear", words.CLEAR),
        ("except", words.EXCEPT),
        ("and", words.AND),
    ):
        for form in forms:
            out[form] = _Token(kind, "", form)
    return out


def understood() -> str:
    """The words that a request may hold, for an error message."""

    def english(table: dict[str, tuple[str, ...]]) -> str:
        return ", ".join(table)

    return (
        f"things ({english(words.NOUNS)}), colours ({english(words.COLOURS)}), sizes and shapes "
        f"({english(words.SHAPES)}), places (on the left, on the right, in the middle, in front, at the back), "
        "superlatives (leftmost, nearest, biggest, tallest, ...), relations (left of, right of, behind, in front of, "
        "next to, between), all / every / everything, except, and 'clear the table'; the same in Chinese"
    )


def parse(text: str) -> Query:
    """The request in ``text``. Raises BadInput with what is understood where a word or the order of words is not."""
    cleaned = text.strip().lower()
    if not cleaned:
        raise BadInput(f"the instruction is empty: expected something like 'the red cup on the right'; {understood()}")
    if len(cleaned) > 400:
        raise BadInput(f"the instruction has {len(cleaned)} characters: expected at most 400, one request")
    point = _POINT.search(cleaned)
    if point:
        cleaned = cleaned[: point.start()] + " " + cleaned[point.end() :]
    tokens = _tokens(cleaned, text)
    query = _Parser(tokens, text).request()
    if point:
        query = replace(query, point_m=(float(point[1]), float(point[2])))
    if not query.specific and not query.every and not any(token.value == "object" for token in tokens):
        raise BadInput(f"{text!r} names nothing to take: expected something like 'the red cup'; {understood()}")
    return replace(query, text=text.strip())


def _tokens(cleaned: str, text: str) -> list[_Token]:
    table = _phrases()
    longest = max(len(phrase) for phrase in table)
    cleaned = re.sub(r"[-_]+", " ", cleaned)
    cleaned = re.sub(r"[.,;:!?，。！？、；：\"'“”()（）]+", " ", cleaned)
    cleaned = re.sub(r"\s+", " ", cleaned).strip()
    tokens: list[_Token] = []
    at = 0
    while at < len(cleaned):
        if cleaned[at] == " ":
            at += 1
            continue
        chinese = bool(_CHINESE.match(cleaned[at]))
        for size in range(min(longest, len(cleaned) - at), 0, -1):
            phrase = cleaned[at : at + size]
            ends = (
                at + size == len(cleaned)
                or chinese
                or not cleaned[at + size].isalnum()
                or bool(_CHINESE.match(cleaned[at + size]))
            )
            if phrase in table and ends:
                tokens.append(table[phrase])
                at += size
                break
        else:
            word = cleaned[at] if chinese else re.split(r"\s|[\u4e00-\u9fff]", cleaned[at:])[0]
            raise BadInput(f"{word!r} in {text!r} is not understood: expected {understood()}")
    return [token for token in tokens if token.kind != "skip"]


class _Parser:
    def __init__(self, tokens: list[_Token], text: str) -> None:
        self._tokens, self._text = tokens, text
        self._at = 0

    def request(self) -> Query:
        excluded: Query | None = None
        # Chinese puts the exception first: 除了红色杯子以外的所有东西.
        if self._kind() == "except":
            first = self._tokens[0].word
            if not _CHINESE.search(first):
                raise self._wrong("starts with an exception")
            self._at += 1
            split = next((k for k, t in enumerate(self._tokens) if t.kind in ("all", "everything", "clear")), None)
            if split is None:
                raise self._wrong("has an exception but does not say from what")
            excluded = _Parser(self._tokens[1:split], self._text).description()
            self._at = split
        query = self.description()
        if self._kind() == "except":
            self._at += 1
            excluded = self.description()
        if self._at < len(self._tokens):
            raise self._wrong(f"goes on with {self._tokens[self._at].word!r} after it could end")
        if excluded is not None and not query.every:
            raise self._wrong("excepts something from one single thing: say 'all' or 'everything'")
        return replace(query, excluded=excluded)

    def description(self) -> Query:
        every = False
        nouns: list[str] = []
        colours: list[str] = []
        shapes: list[str] = []
        places: list[str] = []
        superlatives: list[str] = []
        relation: Relation | None = None
        start = self._at
        while (kind := self._kind()) not in ("", "except"):
            token = self._tokens[self._at]
            if kind == "relation":
                if relation is not None:
                    raise self._wrong("has two relations; say one")
                relation = self._relation(token)
                continue
            self._at += 1
            if kind in ("all", "everything", "clear"):
                every = True
            elif kind == "noun":
                following = self._tokens[self._at].kind if self._at < len(self._tokens) else ""
                # "the cup the box": two things with nothing between them, unless Chinese 盒子左边的杯子.
                if self._chinese_reference(token):
                    inner = Query(False, _things(token.value), tuple(colours), tuple(shapes), tuple(places))
                    colours, shapes, places = [], [], []
                    side = self._tokens[self._at]
                    self._at += 1
                    relation = Relation(side.value, (inner,))
                    continue
                if nouns and following != "relation" and self._tokens[self._at - 2].kind != "and":
                    raise self._wrong(
                        f"names {token.word!r} besides {nouns[-1]!r} without saying how they belong together"
                    )
                nouns.append(token.value)
                every |= _plural(token.word)  # "the cans" are all of them
            elif kind == "colour":
                colours.append(token.value)
            elif kind == "shape":
                shapes.append(token.value)
            elif kind == "place":
                places.append(token.value)
            elif kind == "superlative":
                superlatives.append(token.value)
            elif kind == "and" and self._at - 1 == start:
                raise self._wrong(f"starts with {token.word!r}")
        if self._at == start:
            raise self._wrong("names nothing to take")
        if len(superlatives) > 1:
            raise self._wrong("has two superlatives; say one")
        kinds = tuple(noun for noun in nouns for noun in _things(noun))
        colours, kinds = _orange(colours, kinds, bool(nouns))
        return Query(every, kinds, tuple(dict.fromkeys(colours)), tuple(dict.fromkeys(shapes)),
                     tuple(dict.fromkeys(places)), "".join(superlatives), relation)  # fmt: skip

    def _relation(self, token: _Token) -> Relation:
        self._at += 1
        rest = _Parser(self._tokens[self._at :], self._text)
        if token.value == "between":
            split = next((k for k, t in enumerate(rest._tokens) if t.kind == "and"), None)
            if split is None:
                both = rest.description()  # "between the two boxes" and "between the boxes"
                self._at += rest._at
                return Relation("between", (both, both))
            first = _Parser(rest._tokens[:split], self._text).description()
            second_parser = _Parser(rest._tokens[split + 1 :], self._text)
            second = second_parser.description()
            self._at += split + 1 + second_parser._at
            return Relation("between", (first, second))
        to = rest.description()
        self._at += rest._at
        return Relation(token.value, (to,))

    def _chinese_reference(self, token: _Token) -> bool:
        """Whether a noun is followed by a side and then by more: 盒子左边的杯子."""
        rest = self._tokens[self._at :]
        return (
            bool(_CHINESE.search(token.word))
            and len(rest) >= 2
            and rest[0].kind in ("place", "relation")
            and bool(_CHINESE.search(rest[0].word))
            and rest[0].value != "middle"
            and any(t.kind in ("noun", "colour") for t in rest[1:])
        )

    def _kind(self) -> str:
        return self._tokens[self._at].kind if self._at < len(self._tokens) else ""

    def _wrong(self, what: str) -> BadInput:
        return BadInput(
            f"the instruction {self._text!r} {what}: expected one thing, or all things of a kind, such as 'the red cup "
            f"left of the box' or 'all green objects'; {understood()}"
        )


def _plural(word: str) -> bool:
    """Whether the table of words holds its singular too."""
    table = _phrases()
    return (word.endswith("s") and word[:-1] in table) or (word.endswith("es") and word[:-2] in table)


def _things(noun: str) -> tuple[str, ...]:
    """ "object" stands for anything, and so for no noun at all; fruit and tools for their kinds."""
    if noun == "object":
        return ()
    if noun == "fruit":
        return ("apple", "orange", "lemon", "pear", "banana")
    if noun == "tool":
        return ("screwdriver", "hammer", "brush", "torch")
    return (noun,)


def _orange(colours: list[str], nouns: tuple[str, ...], named: bool) -> tuple[list[str], tuple[str, ...]]:
    """ "The orange" is a fruit, "the orange cup" and "the orange one" are not."""
    if not named and colours == ["orange"]:
        return [], ("orange",)
    return colours, nouns
