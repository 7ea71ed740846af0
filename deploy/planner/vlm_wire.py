"""One question to an OpenAI-compatible server and its answer, or an error within a known time.

HTTP libraries time each *read*, so a server that sends a byte now and then holds a client for ever. Here a request
runs in a thread of its own and is given up at its deadline, whatever it is doing; its connection is closed and the
thread ends with it.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from ...hardware.errors import BadInput
from .base import PlannerError
from .vlm_boxes import Size
from .vlm_config import Structured, VlmConfig
from .vlm_log import RequestLog, without

_MAX_BODY = 4_000_000  # bytes of an answer; ours have about a thousand
_CONNECT_S = 5.0  # a server that does not accept by then is not there
_LESS: dict[Structured, Structured] = {"schema": "object", "object": "text"}
_REFUSES_FORMAT = ("response_format", "json_schema", "json_object", "guided", "structured", "grammar")


@dataclass(frozen=True)
class Picture:
    """As it is sent."""

    jpeg: bytes
    size: Size


@dataclass(frozen=True)
class Turn:
    role: Literal["system", "user", "assistant"]
    parts: tuple[str | Picture, ...]


@dataclass(frozen=True)
class Question:
    """``kind``: propose, ground, verify, complete or self-test. ``number`` ties the lines of one request together."""

    kind: str
    number: int
    turns: tuple[Turn, ...]
    schema: Mapping[str, Any]


@dataclass(frozen=True)
class Reply:
    text: str
    finish_reason: str  # "stop"; "length" where the answer was cut at max_tokens
    usage: Mapping[str, Any] = field(default_factory=dict)


class _Trouble(Exception):
    """One attempt failed in a way that another may not. ``wait_s``: what the server asked for."""

    def __init__(self, what: str, advice: str, wait_s: float | None = None) -> None:
        super().__init__(what)
        self.advice = advice
        self.wait_s = wait_s


class _LessStructure(Exception):
    """The server refuses the answer's format: ask for less of it."""


class _Attempt:
    """A call in a thread of its own."""

    def __init__(self, call: Callable[[], Reply]) -> None:
        self.done = threading.Event()
        self._call = call
        self._reply: Reply | None = None
        self._error: BaseException | None = None
        # A daemon: a server without end must not hold the program when it wants to stop.
        threading.Thread(target=self._run, name="vlm request", daemon=True).start()

    def _run(self) -> None:
        try:
            self._reply = self._call()
        except BaseException as error:  # handed to whoever waits
            self._error = error
        finally:
            self.done.set()

    def result(self) -> Reply | None:
        """None while there is none."""
        if self._error is not None:
            raise self._error
        return self._reply


class Wire:
    """Asks until there is an answer, patiently and not for ever. ``sleep`` is for tests; by default a wait ends when
    the wire is closed."""

    def __init__(self, config: VlmConfig, log: RequestLog, sleep: Callable[[float], object] | None = None) -> None:
        self._config = config
        self._key = config.api_key()
        self._log = log
        self._closed = threading.Event()
        self._sleep = sleep or self._closed.wait
        self._lock = threading.Lock()
        self._structured = config.structured
        self._attempts: set[_Attempt] = set()
        self._openai = _import_openai()
        self._client = self._connect()

    def close(self) -> None:
        """End whatever is under way, from any thread: its caller gets a PlannerError at once."""
        self._closed.set()
        with self._lock:
            for attempt in self._attempts:
                attempt.done.set()
        self._client.close()

    def ask(self, question: Question, deadline_s: float) -> Reply:
        """``deadline_s`` on ``time.monotonic``. Raises PlannerError where no answer comes by then, or none can come."""
        began_s, tries, waits = time.monotonic(), 0, 0
        while True:
            tries += 1
            try:
                return self._logged(question, tries, deadline_s)
            except _LessStructure:
                continue
            except _Trouble as trouble:
                wait_s = self._wait_s(waits, trouble.wait_s)
                waits += 1
                spent_s = time.monotonic() - began_s
                if waits > self._config.retries or time.monotonic() + wait_s >= deadline_s:
                    raise PlannerError(
                        f"the planner's server at {self._config.base_url} gave no answer to {question.kind!r} in "
                        f"{tries} tries and {spent_s:.1f} s; the last time {trouble}. {trouble.advice}"
                    ) from None
            self._sleep(wait_s)
            self._raise_if_closed()

    def _wait_s(self, waits: int, asked_s: float | None) -> float:
        own_s = self._config.backoff_s * 2.0 ** min(waits, 30)
        return min(own_s if asked_s is None else max(asked_s, 0.0), self._config.backoff_max_s)

    def _raise_if_closed(self) -> None:
        if self._closed.is_set():
            raise PlannerError("the planner was closed while it waited for its server: connect it again.")

    def _logged(self, question: Question, tries: int, deadline_s: float) -> Reply:
        record: dict[str, Any] = {
            "request": question.number,
            "kind": question.kind,
            "try": tries,
            "model": self._config.model,
            "structured": self._structured,
            "turns": [
                {"role": turn.role, "parts": [self._for_log(part) for part in turn.parts]} for turn in question.turns
            ],
        }
        began_s = time.monotonic()
        try:
            reply = self._once(question, deadline_s)
        except BaseException as error:
            self._log.write({**record, "seconds": round(time.monotonic() - began_s, 3), "error": str(error)})
            raise
        answer = {"answer": reply.text, "finish_reason": reply.finish_reason, "usage": reply.usage}
        self._log.write({**record, "seconds": round(time.monotonic() - began_s, 3), **answer})
        return reply

    def _for_log(self, part: str | Picture) -> Any:
        return part if isinstance(part, str) else {"picture": self._log.picture(part.jpeg), "size": part.size}

    def _once(self, question: Question, deadline_s: float) -> Reply:
        limit_s = min(self._config.timeout_s, deadline_s - time.monotonic())
        late = _Trouble(
            f"it had not answered after {max(limit_s, 0):.1f} s",
            "Look whether it is busy or still loading its model, or raise --vlm.timeout-s and --vlm.total-s.",
        )
        self._raise_if_closed()
        if limit_s <= 0:
            raise late
        with self._lock:
            client = self._client
        attempt = _Attempt(lambda: self._call(client, question, limit_s))
        with self._lock:
            self._attempts.add(attempt)
        try:
            self._raise_if_closed()
            attempt.done.wait(limit_s)
            self._raise_if_closed()
            reply = attempt.result()
        finally:
            with self._lock:
                self._attempts.discard(attempt)
        if reply is None:
            self._drop(client)
            raise late
        return reply

    def _drop(self, client: Any) -> None:
        """Close a client whose request goes on, so that its thread ends, and take a new one."""
        with self._lock:
            if self._client is client and not self._closed.is_set():
                self._client = self._connect()
        client.close()

    def _connect(self) -> Any:
        # Retries are ours: counted, capped, logged and ended by close().
        return self._openai.OpenAI(base_url=self._config.base_url, api_key=self._key or "none", max_retries=0)

    def _call(self, client: Any, question: Question, limit_s: float) -> Reply:
        """In the attempt's thread."""
        openai = self._openai
        structured = self._structured
        wanted = _response_format(structured, question)
        try:
            with client.chat.completions.with_streaming_response.create(
                model=self._config.model,
                messages=[_message(turn) for turn in question.turns],
                max_tokens=self._config.max_tokens,
                temperature=0.0,
                timeout=openai.Timeout(limit_s, connect=min(_CONNECT_S, limit_s)),
                **({"response_format": wanted} if wanted else {}),
            ) as response:
                return _reply(_body(response, limit_s))
        except openai.APIStatusError as error:
            raise self._status(error, structured) from None
        except openai.APITimeoutError:
            raise _Trouble(
                f"it had not answered after {limit_s:.1f} s", "Look whether it runs and is not busy."
            ) from None
        except _Trouble:
            raise
        except Exception as error:  # the HTTP library's own, of which there are several
            cause = error.__cause__ or error
            raise _Trouble(
                f"the connection failed ({type(cause).__name__}: {_short(str(cause), self._key)})",
                "Look whether the server runs and whether --vlm.base-url is its address.",
            ) from None

    def _status(self, error: Any, structured: Structured) -> Exception:
        code, said = error.status_code, _short(str(error.message), self._key)
        what = f"the server answered {code}: {said}"
        if code == 429:
            return _Trouble(what, "Wait, ask for a higher rate limit, or raise --vlm.retries.", _retry_after_s(error))
        if code >= 500 or code in (408, 409):
            return _Trouble(what, "Look into the server's own log.", _retry_after_s(error))
        if (
            code in (400, 422)
            and structured in _LESS
            and any(word in str(error.message).lower() for word in _REFUSES_FORMAT)
        ):
            with self._lock:
                if self._structured == structured:
                    self._structured = _LESS[structured]
            return _LessStructure(what)
        where = f"the planner's server at {self._config.base_url}"
        if code in (401, 403):
            return PlannerError(
                f"{where} refuses the key ({code}: {said}): put a valid one into an environment variable and name it "
                "with --vlm.api-key-env."
            )
        if code == 404:
            return PlannerError(
                f"{where} does not know the model {self._config.model!r} or the address ({said}): expected a name that "
                f"{self._config.base_url.rstrip('/')}/models lists, and the address that the server's manual gives."
            )
        return PlannerError(
            f"{where} refuses the request ({code}: {said}): expected a model that takes several pictures at "
            f"{self._config.max_image_tokens} tokens each (vLLM: --limit-mm-per-prompt, --max-model-len)."
        )


def _import_openai() -> Any:
    try:
        import openai  # late: only this planner needs it, and it takes a second
    except ImportError:
        raise BadInput("--planner vlm needs the package openai, which is not installed: pip install openai.") from None
    return openai


def _message(turn: Turn) -> dict[str, Any]:
    if len(turn.parts) == 1 and isinstance(turn.parts[0], str):
        return {"role": turn.role, "content": turn.parts[0]}
    content: list[dict[str, Any]] = []
    for part in turn.parts:
        if isinstance(part, str):
            content.append({"type": "text", "text": part})
        else:
            url = "data:image/jpeg;base64," + base64.b64encode(part.jpeg).decode()
            content.append({"type": "image_url", "image_url": {"url": url}})
    return {"role": turn.role, "content": content}


def _response_format(structured: Structured, question: Question) -> dict[str, Any] | None:
    if structured == "schema":
        named = {"name": question.kind.replace("-", "_"), "schema": question.schema, "strict": True}
        return {"type": "json_schema", "json_schema": named}
    return {"type": "json_object"} if structured == "object" else None


def _body(response: Any, limit_s: float) -> bytes:
    ends_s = time.monotonic() + limit_s
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > _MAX_BODY:
            raise _Trouble(
                f"it sent more than {_MAX_BODY // 1_000_000} MB",
                "Look whether --vlm.base-url is a chat server's address.",
            )
        if time.monotonic() > ends_s:
            raise _Trouble(f"it was still sending after {limit_s:.1f} s", "Look whether the server is stuck.")
    return bytes(body)


def _reply(body: bytes) -> Reply:
    advice = "Look whether --vlm.base-url is the address of an OpenAI-compatible server."
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise _Trouble(f"it sent {len(body)} bytes that are not JSON", advice) from None
    choices = data.get("choices") if isinstance(data, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    if not isinstance(first, dict) or not isinstance(message, dict):
        error = data.get("error") if isinstance(data, dict) else None
        said = f"an error: {str(error)[:200]}" if error else "JSON that is no chat completion"
        raise _Trouble(f"it sent {said}", advice)
    content = message.get("content")
    if isinstance(content, list):  # some servers answer in parts
        content = "".join(part.get("text") or "" for part in content if isinstance(part, dict))
    usage = data.get("usage")
    return Reply(
        content if isinstance(content, str) else "",
        str(first.get("finish_reason") or ""),
        usage if isinstance(usage, dict) else {},
    )


def _retry_after_s(error: Any) -> float | None:
    """Seconds from the header Retry-After, a number or a date (RFC 9110, 10.2.3); None where there is none."""
    value = str(error.response.headers.get("retry-after") or "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return seconds if 0 <= seconds < float("inf") else None


def _short(text: str, key: str, length: int = 300) -> str:
    text = " ".join(str(without(key, text)).split())
    return text if len(text) <= length else text[:length] + "..."


def question_turns(system: str, parts: Sequence[str | Picture]) -> tuple[Turn, ...]:
    return (Turn("system", (system,)), Turn("user", tuple(parts)))
