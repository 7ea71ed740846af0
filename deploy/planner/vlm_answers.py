"""From a model's text to an answer. Nothing is guessed: what cannot be read is an error that the model is told.

Servers that enforce the schema send clean JSON. The others wrap it in a fence, add a sentence, or write a Python
dictionary: that much is forgiven. A verdict is a JSON boolean and nothing else: "not true" is not True.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .base import Proposal, Verdict

_FENCE = re.compile(r"```[a-zA-Z]*\s*\n?(.*?)```", re.DOTALL)
_THOUGHTS = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)
_MAX_TEXT = 100_000
_MAX_INSTRUCTION = 300
_CONSTANTS = {"true": True, "false": False, "null": None}


class AnswerError(ValueError):
    """An answer that cannot be read. Its text is sent back to the model once."""


def read_object(text: str) -> dict[str, Any]:
    """The one JSON object in ``text``. Raises AnswerError where there is none, or more than one."""
    if len(text) > _MAX_TEXT:
        raise AnswerError(f"the answer has {len(text)} characters; expected one short JSON object")
    text = _THOUGHTS.sub("", text, count=1).strip()
    fences = _FENCE.findall(text)
    if len(fences) > 1:
        raise AnswerError(f"the answer holds {len(fences)} fenced blocks; expected one JSON object")
    body = (fences[0] if fences else text).strip()
    value, rest = _first_value(body)
    if "{" in rest:
        raise AnswerError("the answer holds more than one JSON object; expected exactly one")
    if isinstance(value, list) and len(value) == 1:
        value = value[0]  # models trained on grounding answer with a list, here of one
    if not isinstance(value, dict):
        raise AnswerError(f"the answer is a JSON {_kind(value)}; expected a JSON object")
    return value


def _first_value(body: str) -> tuple[Any, str]:
    """The first JSON object or list of ``body``, and what follows it."""
    starts = [at for at in (body.find("{"), body.find("[{")) if at >= 0]
    if not starts:
        raise AnswerError(f"the answer {_quoted(body)} holds no JSON object; expected one and nothing else")
    body = body[min(starts) :]
    decoder = json.JSONDecoder(object_pairs_hook=_no_twins, parse_constant=_no_constant)
    try:
        value, end = decoder.raw_decode(body)
        return value, body[end:]
    except RecursionError:
        raise AnswerError("the answer is nested too deeply; expected one flat JSON object") from None
    except AnswerError:
        raise
    except ValueError as error:  # also an integer of more digits than Python reads
        dictionary = _python_dictionary(body)
        if dictionary is not None:
            return dictionary
        raise AnswerError(f"the answer is not JSON ({error})") from None


def _python_dictionary(body: str) -> tuple[Any, str] | None:
    """As :func:`_first_value` for single quotes and True / False / None; None where it is no such thing."""
    closing = "]" if body.startswith("[") else "}"
    ends = [at + 1 for at, letter in enumerate(body) if letter == closing]
    for end in ends[:64]:  # the first that closes what was opened
        try:
            return _literal(ast.parse(body[:end], mode="eval").body), body[end:]
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            if isinstance(error, AnswerError):
                raise
    return None


def _literal(node: ast.expr) -> Any:
    """The value of a literal, with JSON's own constants. Raises ValueError for anything that is not one."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | bool | None):
        return node.value
    if isinstance(node, ast.Name) and node.id in _CONSTANTS:
        return _CONSTANTS[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _literal(node.operand)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return -value
    if isinstance(node, ast.List):
        return [_literal(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        return _no_twins(
            [(_literal(k) if k else None, _literal(v)) for k, v in zip(node.keys, node.values, strict=True)]
        )
    raise ValueError("not a literal")


def _no_twins(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if not isinstance(key, str):
            raise AnswerError(f"the key {key!r} is not a string")
        if key in result:
            raise AnswerError(f'the answer gives "{key}" twice; expected it once')
        result[key] = value
    return result


def _no_constant(name: str) -> Any:
    raise AnswerError(f"the answer holds {name}, which is not JSON; expected numbers")


def _kind(value: Any) -> str:
    names = {dict: "object", list: "list", str: "string", bool: "boolean", int: "number", float: "number"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def _quoted(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return json.dumps(text[:80] + ("..." if len(text) > 80 else ""), ensure_ascii=False)


def _boolean(answer: Mapping[str, Any], key: str) -> bool:
    value = _present(answer, key, "true or false")
    if not isinstance(value, bool):
        raise AnswerError(f'"{key}" is the {_kind(value)} {_quoted(value)}; expected the JSON boolean true or false')
    return value


def _present(answer: Mapping[str, Any], key: str, expected: str) -> Any:
    if key not in answer:
        have = ", ".join(f'"{name}"' for name in list(answer)[:8]) or "nothing"
        raise AnswerError(f'"{key}" is missing (the answer has {have}); expected "{key}": {expected}')
    return answer[key]


def _line(answer: Mapping[str, Any], key: str) -> str:
    """A string on one line; "" where it is missing or null."""
    value = answer.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise AnswerError(f'"{key}" is a {_kind(value)}; expected a string')
    return " ".join(value.split())


def _four(value: Any, key: str) -> tuple[float, float, float, float]:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    if not isinstance(value, list) or len(value) != 4:
        raise AnswerError(f'"{key}" is {_quoted(value)}; expected a list of four numbers')
    if any(isinstance(v, bool) or not isinstance(v, int | float) for v in value):
        raise AnswerError(f'"{key}" is {_quoted(value)}; expected four numbers and nothing else')
    # An integer of a thousand digits has no float.
    if any(abs(v) > 1e6 or not math.isfinite(v) for v in value):
        raise AnswerError(f'"{key}" holds numbers beyond any picture; expected a box inside it')
    a, b, c, d = (float(v) for v in value)
    return (a, b, c, d)


@dataclass(frozen=True)
class BoxAnswer:
    """What a model says of where an object is, in its own convention."""

    numbers: tuple[float, float, float, float] | None  # None: not to be seen
    label: str = ""
    reason: str = ""


def read_proposal(text: str) -> Proposal:
    answer = read_object(text)
    decision = _present(answer, "decision", '"grasp", "ask" or "nothing_left"')
    if decision not in ("grasp", "ask", "nothing_left"):
        raise AnswerError(f'"decision" is {_quoted(decision)}; expected "grasp", "ask" or "nothing_left"')
    reason = _line(answer, "reason")
    if decision == "nothing_left":
        return Proposal(nothing_left=True, reason=reason)
    key = "instruction" if decision == "grasp" else "question"
    words = _line(answer, key)
    if not words:
        raise AnswerError(f'"decision" is "{decision}" but "{key}" is empty; expected one sentence')
    if len(words) > _MAX_INSTRUCTION:
        raise AnswerError(f'"{key}" has {len(words)} characters; expected one sentence of at most {_MAX_INSTRUCTION}')
    return (
        Proposal(instruction=words, reason=reason) if key == "instruction" else Proposal(question=words, reason=reason)
    )


def read_box(text: str) -> BoxAnswer:
    answer = read_object(text)
    visible = _boolean(answer, "visible")
    label, reason = _line(answer, "label"), _line(answer, "reason")
    numbers = answer.get("bbox_2d")
    nothing = numbers is None or numbers == [] or numbers == [0, 0, 0, 0]
    if not visible:
        if not nothing:
            raise AnswerError('"visible" is false but "bbox_2d" holds a box; expected an empty list, or true')
        return BoxAnswer(None, label, reason)
    if nothing:
        raise AnswerError('"visible" is true but "bbox_2d" holds no box; expected four numbers, or "visible": false')
    return BoxAnswer(_four(numbers, "bbox_2d"), label, reason)


def read_verdict(text: str, key: str) -> Verdict:
    """``key``: the name of the boolean, "held" or "done"."""
    answer = read_object(text)
    return Verdict(_boolean(answer, key), _line(answer, "reason"))


def read_squares(text: str) -> dict[str, tuple[float, float, float, float]]:
    """Colour -> four numbers, of the self-test. Of two boxes of one colour neither counts."""
    answer = read_object(text)
    squares = _present(answer, "squares", "a list of boxes")
    if not isinstance(squares, list):
        raise AnswerError(f'"squares" is a {_kind(squares)}; expected a list')
    found: dict[str, tuple[float, float, float, float]] = {}
    twins: set[str] = set()
    for square in squares[:16]:
        if not isinstance(square, dict):
            raise AnswerError(f'"squares" holds a {_kind(square)}; expected objects with "label" and "bbox_2d"')
        colour = _line(square, "label").lower().removesuffix(" square")
        if colour in found:
            twins.add(colour)
        found[colour] = _four(_present(square, "bbox_2d", "four numbers"), "bbox_2d")
    return {colour: numbers for colour, numbers in found.items() if colour not in twins}
