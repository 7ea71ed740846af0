"""A small page on this machine on which a person sees the head camera's picture and draws a box.

It asks one thing at a time and knows nothing of grasping. Served on 127.0.0.1 alone: elsewhere, tunnel the port
(``ssh -L``). A page that moves a robot must not be driven by other pages of the same browser, so requests that were
not sent by it are refused.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..hardware.errors import BadInput
from .planner.base import Box

HTML = Path(__file__).with_name("page.html")
LINES = 14  # of the log that are kept on the page
_HOLD_S = 15.0  # a request for news waits so long for some
_POLL_S = 0.1  # Python handles Ctrl-C between two waits
_MAX_BODY = 4096
_JPEG_QUALITY = 90


@dataclass(frozen=True)
class Choice:
    """A button."""

    name: str
    text: str
    main: bool = False  # the one that the Enter key presses


@dataclass(frozen=True)
class Answer:
    """What the person did: pressed a button, or drew a box, which is answered at once by ``choice`` "box"."""

    choice: str
    box: Box | None = None  # pixels of the picture that was shown


@dataclass(frozen=True)
class _State:
    """All that the page shows."""

    number: int = 0
    sentence: str = "The robot is getting ready."
    bad: bool = False  # the sentence says what is wrong
    choices: tuple[Choice, ...] = ()
    drawing: bool = False  # boxes may be drawn
    picture: int = 0
    size: tuple[int, int] = (0, 0)  # width, height
    box: Box | None = None
    ended: bool = False
    lines: tuple[str, ...] = ()


@dataclass
class _Shared:
    """What the server's threads and the loop's have in common."""

    stop: Callable[[], None]
    state: _State = field(default_factory=_State)
    jpeg: bytes = b""
    changed: threading.Condition = field(default_factory=threading.Condition)
    answers: queue.Queue[Answer] = field(default_factory=queue.Queue)
    told_end: threading.Event = field(default_factory=threading.Event)


class Page:
    """Serves until :meth:`close`. ``stop`` is called, in a thread of the server, when the person presses "stop"."""

    def __init__(self, port: int = 0, stop: Callable[[], None] = lambda: None) -> None:
        self._shared = _Shared(stop)
        try:
            self._server = _Server(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise BadInput(f"port {port} of 127.0.0.1 cannot be used ({error.strerror}): choose another.") from error
        self._server.shared = self._shared
        self.port = int(self._server.server_address[1])
        self.address = f"http://127.0.0.1:{self.port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="page", daemon=True)
        self._thread.start()

    def show(self, picture: NDArray[np.uint8], sentence: str | None = None) -> None:
        """Show a picture (H, W, 3) RGB, and a sentence beside it, with nothing to do."""
        self._change(picture, sentence=sentence, choices=(), drawing=False, bad=False, box=None)

    def tell(self, line: str) -> None:
        """Add a line to the log."""
        with self._shared.changed:
            lines = (*self._shared.state.lines, line)[-LINES:]
        self._change(None, lines=lines)

    def ask(
        self,
        picture: NDArray[np.uint8],
        sentence: str,
        choices: tuple[Choice, ...],
        box: Box | None = None,
        bad: bool = False,
    ) -> Answer:
        """Wait for one of ``choices`` or a box in ``picture`` (H, W, 3) RGB. ``bad``: the sentence is a complaint."""
        with suppress(queue.Empty):  # what was pressed before the question is no answer to it
            while True:
                self._shared.answers.get_nowait()
        self._change(picture, sentence=sentence, choices=choices, drawing=True, box=box, bad=bad)
        while True:
            with suppress(queue.Empty):
                return self._shared.answers.get(timeout=_POLL_S)

    def end(self, sentence: str) -> None:
        """Nothing more will be asked."""
        self._change(None, sentence=sentence, choices=(), drawing=False, ended=True)

    def close(self) -> None:
        """Stop serving; a page that is open gets the end told first. Safe to call twice."""
        if self._shared.state.ended:
            self._shared.told_end.wait(1.0)
        self._server.shutdown()
        self._server.server_close()

    def _change(self, picture: NDArray[np.uint8] | None, **changes: Any) -> None:
        shared = self._shared
        with shared.changed:
            if picture is not None:
                done, jpeg = cv2.imencode(
                    ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
                )
                assert done, "JPEG takes any picture"
                shared.jpeg = jpeg.tobytes()
                changes |= {"picture": shared.state.picture + 1, "size": (picture.shape[1], picture.shape[0])}
            if changes.get("sentence", "") is None:
                del changes["sentence"]
            state = {**shared.state.__dict__, **changes, "number": shared.state.number + 1}
            shared.state = _State(**state)
            shared.changed.notify_all()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    shared: _Shared


class _Handler(BaseHTTPRequestHandler):
    """The requests of ``page.html``."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if not self._ours():
            return
        if path == "/":
            self._send(HTTPStatus.OK, HTML.read_bytes(), "text/html; charset=utf-8")
        elif path == "/picture":
            with self.server.shared.changed:
                jpeg = self.server.shared.jpeg
            self._send(HTTPStatus.OK if jpeg else HTTPStatus.NOT_FOUND, jpeg, "image/jpeg")
        elif path == "/state":
            self._state(query)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, f"there is no {path}.")

    def do_POST(self) -> None:
        if not self._ours():
            return
        if self.path == "/stop":
            self.server.shared.stop()
            self._json({"ok": True})
        elif self.path == "/answer":
            self._answer()
        else:
            self._refuse(HTTPStatus.NOT_FOUND, f"there is no {self.path}.")

    def _state(self, query: str) -> None:
        """What is new after state ``after``; waits for it."""
        shared = self.server.shared
        after = int(query.removeprefix("after=")) if query.removeprefix("after=").isdigit() else -1
        with shared.changed:
            shared.changed.wait_for(lambda: shared.state.number != after, _HOLD_S)
            state = shared.state
        values = {**state.__dict__, "choices": [choice.__dict__ for choice in state.choices]}
        self._json(values)
        if state.ended:
            shared.told_end.set()

    def _answer(self) -> None:
        shared = self.server.shared
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > _MAX_BODY:
            self.close_connection = True
            self._refuse(HTTPStatus.BAD_REQUEST, f"expected at most {_MAX_BODY} bytes of JSON.")
            return
        try:
            body = json.loads(self.rfile.read(int(length)))
            box = None if body.get("box") is None else _box(body["box"])
            choice, picture = str(body["choice"]), int(body["picture"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._refuse(HTTPStatus.BAD_REQUEST, f"an answer has a choice, a picture and a box ({error!r}).")
            return
        state = shared.state
        names = {each.name for each in state.choices} | ({"box"} if state.drawing and box is not None else set())
        if choice not in names or picture != state.picture:
            self._refuse(HTTPStatus.CONFLICT, "that was not asked any more: look at the page again.")
            return
        shared.answers.put(Answer(choice, box))
        self._json({"ok": True})

    def _ours(self) -> bool:
        """Refuse what another page, or another name for this machine, sends."""
        hosts = {f"{name}:{self.server.server_address[1]}" for name in ("127.0.0.1", "localhost")}
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if host in hosts and (origin is None or origin.removeprefix("http://") in hosts):
            kind = self.headers.get("Content-Type", "")
            if self.command == "GET" or kind.startswith("application/json"):
                return True
        self.close_connection = True
        self._refuse(HTTPStatus.FORBIDDEN, "only the page itself, on this machine, may ask.")
        return False

    def _json(self, values: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(status, json.dumps(values).encode(), "application/json")

    def _refuse(self, status: HTTPStatus, sentence: str) -> None:
        self._json({"ok": False, "sentence": sentence}, status)

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        with suppress(ConnectionError):  # the browser has gone
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """The terminal belongs to the session's lines."""


def _box(values: Any) -> Box:
    x0, y0, x1, y1 = (float(value) for value in values)
    if not np.isfinite([x0, y0, x1, y1]).all():
        raise ValueError(f"the box {values} is not finite")
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)
