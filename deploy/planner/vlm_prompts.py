"""What the model is asked, in our words, and the JSON schema of each answer.

The rules of a proposal (right before centre before left; nothing that is blocked; topple nothing; one object, told by
colour, shape and place) are DexGraspVLA's (arXiv 2502.20900); the words are not. ``reason`` comes before the verdict
in every schema, so that a model decides after it has looked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .vlm_boxes import Scale, Size

Schema = dict[str, Any]

SYSTEM = (
    "You are the eyes of a robot with one arm and one five-fingered right hand. It takes objects off a table one at a "
    "time and puts them into a bin beside the table. The head camera looks down at the table from the robot's side: "
    "left and right in its picture are the robot's left and right, and the top of the picture is far from the robot. "
    "The wrist camera looks along the fingers. Say only what you can see. Answer with one JSON object and nothing else."
)

_TEXT = {"type": "string"}
_BOX = {"type": "array", "items": {"type": "integer"}, "maxItems": 4}


def _schema(**properties: Any) -> Schema:
    return {
        "type": "object",
        "properties": {"reason": _TEXT, **properties},
        "required": ["reason", *properties],
        "additionalProperties": False,
    }


PROPOSE_SCHEMA = _schema(
    decision={"type": "string", "enum": ["grasp", "ask", "nothing_left"]}, instruction=_TEXT, question=_TEXT
)
GROUND_SCHEMA = _schema(visible={"type": "boolean"}, label=_TEXT, bbox_2d=_BOX)
VERIFY_SCHEMA = _schema(held={"type": "boolean"})
COMPLETE_SCHEMA = _schema(done={"type": "boolean"})


def self_test_schema(count: int) -> Schema:
    square = {
        "type": "object",
        "properties": {"label": _TEXT, "bbox_2d": {**_BOX, "minItems": 4}},
        "required": ["label", "bbox_2d"],
        "additionalProperties": False,
    }
    squares = {"type": "array", "items": square, "maxItems": count}
    return {
        "type": "object",
        "properties": {"squares": squares},
        "required": ["squares"],
        "additionalProperties": False,
    }


def _words(text: str) -> str:
    """As a JSON string: what a person typed stays a quotation, whatever is in it."""
    return json.dumps(text, ensure_ascii=False)


def propose(prompt: str, failed: Sequence[str]) -> str:
    tried = ""
    if failed:
        tried = (
            "\nThe robot has failed at these and must not try them again; choose another object, or say that nothing "
            "is left if they were all that remained: " + "; ".join(_words(each) for each in failed)
        )
    return f"""Picture 1 is the table as it was at the start, picture 2 as it is now.
The user's request: {_words(prompt)}{tried}

Choose the next object to take off the table for this request.
1. Only objects that the request covers and that are on the table in picture 2. What lies in the bin is done with.
2. Among those prefer the ones on the right, then in the centre, then on the left.
3. Leave an object for later while another blocks the way to it or lies on it.
4. Never choose one whose grasp would topple another object, if any other can be chosen.
5. Name exactly one object, so that nobody could mean another: colour, shape or kind, and its place relative to the
   table or to its neighbours. For example: grasp the red cup on the right.

"decision": "grasp" with that sentence, in English, in "instruction"; "ask" with a short question in the user's own
language in "question", only where the request fits several things and does not say which; "nothing_left" where no
object that the request covers is left on the table. Leave the other strings empty. "reason": one short sentence.
JSON: {{"reason": "...", "decision": "grasp", "instruction": "...", "question": ""}}"""


def box_units(scale: Scale | None, sent: Size) -> str:
    """How boxes are asked for: in the way that the family was trained on. What the model then does is measured."""
    if scale == "thousand":
        return "[x1, y1, x2, y2], scaled so that the picture is 1000 wide and 1000 high"
    return f"[x1, y1, x2, y2] in pixels of the picture, which is {sent[0]} wide and {sent[1]} high"


def ground(instruction: str, scale: Scale | None, sent: Size) -> str:
    return f"""The picture is the head camera's.
The instruction: {_words(instruction)}

Find the one object that the instruction means and give its bounding box, tight around what can be seen of it, as
{box_units(scale, sent)}: its left, top, right and bottom edge. The robot's arm and hand are not objects.
If the object is not to be seen in the picture, "visible" is false and "bbox_2d" is [].
"label": the object in a few words. "reason": one short sentence.
JSON: {{"reason": "...", "visible": true, "label": "...", "bbox_2d": [x1, y1, x2, y2]}}"""


def verify(instruction: str, state: NDArray[np.floating]) -> str:
    fingers = ("thumb", "index", "middle", "ring", "little")
    openings = ", ".join(f"{finger} {value:.2f}" for finger, value in zip(fingers, state[7:12], strict=True))
    return f"""Picture 1 is the table before the attempt (head camera), picture 2 the table now (head camera),
picture 3 the view from the wrist now.
The attempt: {_words(instruction)}
The fingers now, 1 = straight and 0 = bent: {openings}

Does the hand hold that object now, lifted off the table? It does only if the object is between the fingers and no
longer stands or lies where it was. A closed hand with nothing in it, an object that was only pushed, and another
object in the hand are failures: "held" is false. If you cannot tell, "held" is false.
"reason": one short sentence.
JSON: {{"reason": "...", "held": false}}"""


def complete(prompt: str) -> str:
    return f"""Picture 1 is the table as it was at the start, picture 2 as it is now.
The user's request: {_words(prompt)}

Is the request done? It is when none of the objects that it covers is left on the table or in the hand. Objects that
the request does not cover do not matter. If you cannot tell, "done" is false.
"reason": one short sentence that names what is left, if anything is.
JSON: {{"reason": "...", "done": false}}"""


def self_test(colours: Sequence[str], scale: Scale | None, sent: Size) -> str:
    return f"""The picture shows {len(colours)} squares on grey: {", ".join(colours)}.
Give the bounding box of each, as {box_units(scale, sent)}: its left, top, right and bottom edge. "label" is its colour.
JSON: {{"squares": [{{"label": "{colours[0]}", "bbox_2d": [x1, y1, x2, y2]}}, ...]}}"""


def ask_again(fault: str) -> str:
    return f"That answer cannot be used: {fault}. Look again and answer with one JSON object of the form asked for."
