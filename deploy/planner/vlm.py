"""The planner that asks a vision-language model behind any OpenAI-compatible endpoint (vLLM, Ollama, DashScope).

Deviations from DexGraspVLA's own client, each a fault that was measured there: pictures are resized here and boxes
scaled back, the convention of boxes is tested before the first grasp, verdicts are JSON booleans, every request ends
in a known time. ``connect`` is the way in: a planner that has not passed the self-test answers nothing.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from ...hardware.errors import BadInput
from . import vlm_prompts as prompts
from .base import FullLook, Grounding, Look, PlannerError, Proposal, Verdict
from .vlm_answers import AnswerError, BoxAnswer, read_box, read_proposal, read_squares, read_verdict
from .vlm_boxes import (
    Convention,
    Family,
    Scale,
    SelfTest,
    family_of,
    fit_size,
    resized,
    score,
    self_test_picture,
    stretch,
    to_picture,
)
from .vlm_checks import check_box
from .vlm_config import VlmConfig
from .vlm_log import RequestLog
from .vlm_wire import Picture, Question, Turn, Wire, question_turns

__all__ = ["VlmConfig", "VlmPlanner", "connect"]

_T = TypeVar("_T")
_MAX_PROMPT = 2000
_JPEG_QUALITY = 92
_QUOTED_BACK = 1000  # characters of a bad answer that the model is shown again


def connect(config: VlmConfig, sleep: Callable[[float], object] | None = None) -> VlmPlanner:
    """A planner that has passed its self-test. ``sleep`` replaces the waits between retries (for tests).

    Raises BadInput for a key or a log folder that is not there, PlannerError where the server does not answer or its
    boxes fit no convention.
    """
    planner = VlmPlanner(config, sleep)
    try:
        planner.self_test()
    except BaseException:
        planner.close()
        raise
    return planner


class VlmPlanner:
    """See :class:`..base.Planner`. Several threads may ask at once; ``close`` may come from any."""

    name = "vlm"

    def __init__(self, config: VlmConfig, sleep: Callable[[float], object] | None = None) -> None:
        self.config = config
        self.family: Family = family_of(config.model)
        self.convention: Convention | None = None  # what the self-test found
        self._log = RequestLog(config.log, config.api_key())
        self._wire = Wire(config, self._log, sleep)
        self._numbers = itertools.count(1)

    def close(self) -> None:
        """End what is under way and hang up."""
        self._wire.close()

    def self_test(self) -> Convention:
        """Ask for the boxes of known squares and keep the convention that explains them.

        Raises PlannerError where none does to ``config.min_self_test_iou``, saying how well each did.
        """
        config = self.config
        test = self_test_picture(self.family.multiple, config.min_image_tokens, config.max_image_tokens)
        colours = tuple(test.boxes)
        words = prompts.self_test(colours, self._scale_asked, test.size)
        parts = (self._encoded(test.picture, test.size), words)
        answers = self._ask("self-test", parts, prompts.self_test_schema(len(colours)), read_squares)
        means = {
            convention: mean
            for convention, mean in score(test, answers).items()
            if config.box_convention in ("auto", convention.scale)
        }
        best, mean = next(iter(means.items()))
        self._log.write(
            {
                "event": "self-test",
                "config": {name: str(value) for name, value in asdict(config).items()},
                "family": self.family.name,
                "size": test.size,
                "iou": {str(convention): round(value, 4) for convention, value in means.items()},
            }
        )
        if mean < config.min_self_test_iou:
            raise PlannerError(self._refusal(test, answers, means))
        self.convention = best
        return best

    def propose(self, prompt: str, first: Look, now: Look, failed: tuple[str, ...] = ()) -> Proposal:
        prompt = _checked_words(prompt, "the prompt")
        spent = {_plain(instruction) for instruction in failed}

        def read(text: str) -> Proposal:
            proposal = read_proposal(text)
            if _plain(proposal.instruction) in spent:
                raise _FailedAgain(f'"instruction" is {proposal.instruction!r}, at which the robot has already failed')
            return proposal

        parts = self._labelled(first.head, now.head)
        try:
            return self._ask("propose", (*parts, prompts.propose(prompt, failed)), prompts.PROPOSE_SCHEMA, read)
        except _Unanswered as error:
            if not isinstance(error.fault, _FailedAgain):
                raise
            # The model insists. Neither a fourth attempt nor "nothing is left" would be true: let the user say.
            return Proposal(
                question=f"All attempts at {failed[-1]!r} failed and I see nothing else to take. What shall I do?",
                reason=str(error.fault),
            )

    def ground(self, instruction: str, now: Look) -> Grounding:
        instruction = _checked_words(instruction, "the instruction")
        convention = self._tested()
        height, width = now.head.shape[:2]
        if now.head_depth_m.shape != (height, width):
            raise BadInput(
                f"the head depth is {now.head_depth_m.shape[::-1]}, the head picture {(width, height)}: expected one "
                "depth pixel for each picture pixel."
            )
        picture = self._encoded(now.head)

        def read(text: str) -> Grounding:
            answer = read_box(text)
            if answer.numbers is None:
                return Grounding(None, answer.label, 1.0, answer.reason or "the model does not see it")
            return self._grounded(answer, convention, picture, now.head_depth_m)

        words = prompts.ground(instruction, self._scale_asked, picture.size)
        try:
            return self._ask("ground", (picture, words), prompts.GROUND_SCHEMA, read)
        except _Unanswered as error:
            if isinstance(error.fault, _BadBox):
                return Grounding(None, error.fault.label, 0.0, f"no box that could be an object: {error.fault}")
            raise

    def verify(self, instruction: str, before: Look, now: FullLook) -> Verdict:
        instruction = _checked_words(instruction, "the instruction")
        parts = self._labelled(before.head, now.head, now.wrist)
        words = prompts.verify(instruction, now.state)
        return self._ask("verify", (*parts, words), prompts.VERIFY_SCHEMA, lambda text: read_verdict(text, "held"))

    def complete(self, prompt: str, first: Look, now: Look) -> Verdict:
        prompt = _checked_words(prompt, "the prompt")
        parts = self._labelled(first.head, now.head)
        words = prompts.complete(prompt)
        return self._ask("complete", (*parts, words), prompts.COMPLETE_SCHEMA, lambda text: read_verdict(text, "done"))

    def _ask(self, kind: str, parts: Sequence[str | Picture], schema: prompts.Schema, read: Callable[[str], _T]) -> _T:
        """Ask, read, and where the answer cannot be read ask once more with what was wrong with it."""
        if kind != "self-test":
            self._tested()
        deadline_s = time.monotonic() + self.config.total_s
        number = next(self._numbers)
        turns = question_turns(prompts.SYSTEM, parts)
        for again in (False, True):
            reply = self._wire.ask(Question(kind, number, turns, schema), deadline_s)
            try:
                if reply.finish_reason not in ("stop", ""):
                    raise AnswerError(_cut_short(reply.finish_reason, self.config.max_tokens))
                result = read(reply.text)
            except AnswerError as fault:
                self._log.write({"event": "unusable", "request": number, "kind": kind, "fault": str(fault)})
                if again:
                    raise _Unanswered(kind, self.config, fault, reply.text) from None
                said = reply.text[:_QUOTED_BACK] or "(nothing)"
                turns = (*turns, Turn("assistant", (said,)), Turn("user", (prompts.ask_again(str(fault)),)))
            else:
                self._log.write({"event": "result", "request": number, "kind": kind, "result": repr(result)})
                return result
        raise AssertionError("the second answer returns or raises")

    def _grounded(
        self, answer: BoxAnswer, convention: Convention, picture: Picture, depth_m: NDArray[np.float32]
    ) -> Grounding:
        assert answer.numbers is not None
        box = to_picture(answer.numbers, convention, picture.size, (depth_m.shape[1], depth_m.shape[0]))
        checked = check_box(box, depth_m, self.config)
        if checked.box is None:
            raise _BadBox(
                f'"bbox_2d" {[round(v) for v in answer.numbers]} cannot be right: {checked.fault}', answer.label
            )
        # The model states no confidence worth having; the checks are yes or no.
        return Grounding(checked.box, answer.label, 1.0, answer.reason)

    @property
    def _scale_asked(self) -> Scale:
        """The units that the prompt names: the user's, or those that the family was trained on."""
        wanted = self.config.box_convention
        return (self.family.scale or "pixels") if wanted == "auto" else wanted

    def _tested(self) -> Convention:
        if self.convention is None:
            raise PlannerError(
                "the vlm planner has not passed its self-test: make it with connect(), or call self_test()."
            )
        return self.convention

    def _refusal(
        self, test: SelfTest, answers: dict[str, tuple[float, float, float, float]], means: dict[Convention, float]
    ) -> str:
        each = ", ".join(f"{convention} {mean:.2f}" for convention, mean in means.items())
        missing = [colour for colour in test.boxes if colour not in answers]
        text = (
            f"the model {self.config.model!r} does not find the {len(test.boxes)} squares of the self-test picture: "
            f"mean IoU {each}; expected at least {self.config.min_self_test_iou} under one of them."
        )
        if missing:
            text += f" It gave no box for {', '.join(missing)}."
        factors = stretch(test, answers)
        if factors is not None and max(abs(factor - 1) for factor in factors) > 0.05:
            text += (
                f" Its boxes fit a picture {factors[0]:.2f} times as wide and {factors[1]:.2f} times as high: the "
                "server resizes; raise its max_pixels or lower --vlm.max-image-tokens and --vlm.min-image-tokens."
            )
        return (
            text + " Use a model that grounds (Qwen2.5-VL, Qwen3-VL), or --vlm.box-convention auto if it is not set so."
        )

    def _labelled(self, *pictures: NDArray[np.uint8]) -> tuple[str | Picture, ...]:
        """The pictures, each after its number."""
        parts: list[str | Picture] = []
        for number, picture in enumerate(pictures, 1):
            parts += [f"Picture {number}:", self._encoded(picture)]
        return tuple(parts)

    def _encoded(self, picture: NDArray[np.uint8], size: tuple[int, int] | None = None) -> Picture:
        """At a size that the server leaves alone, as JPEG with full colour resolution."""
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise BadInput(f"a picture of shape {picture.shape}, {picture.dtype}: expected (H, W, 3) uint8 RGB.")
        config = self.config
        if size is None:
            own = (picture.shape[1], picture.shape[0])
            size = fit_size(own, self.family.multiple, config.min_image_tokens, config.max_image_tokens)
        bgr = cv2.cvtColor(resized(picture, size), cv2.COLOR_RGB2BGR)
        full_colour = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
        done, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY, *full_colour])
        assert done
        return Picture(jpeg.tobytes(), size)


class _BadBox(AnswerError):
    """A box in which no object can be."""

    def __init__(self, fault: str, label: str) -> None:
        super().__init__(fault)
        self.label = label


class _FailedAgain(AnswerError):
    """A proposal of what has failed."""


class _Unanswered(PlannerError):
    """Two answers, neither to be used. ``fault``: the second one's."""

    def __init__(self, kind: str, config: VlmConfig, fault: AnswerError, text: str) -> None:
        said = " ".join(text.split())[:120]
        super().__init__(
            f"the model {config.model!r} answered {kind!r} twice with what cannot be used; the last time {fault} "
            f"({said!r}). Use a larger model or a server that enforces JSON schemas"
            + (f"; all answers are in {config.log}." if config.log else ", or see its answers with --vlm.log FOLDER.")
        )
        self.fault = fault


def _cut_short(finish_reason: str, max_tokens: int) -> str:
    if finish_reason == "length":
        return f"the answer was cut off at {max_tokens} tokens; answer shorter (or raise --vlm.max-tokens)"
    return f"the answer ended by {finish_reason!r}; expected a complete JSON object"


def _plain(words: str) -> str:
    return " ".join(words.lower().strip(" .!").split())


def _checked_words(words: str, what: str) -> str:
    words = words.strip()
    if not words:
        raise BadInput(f"{what} is empty: expected a sentence, for example 'clear the table'.")
    if len(words) > _MAX_PROMPT:
        raise BadInput(f"{what} has {len(words)} characters: expected at most {_MAX_PROMPT}.")
    return words
