"""A chat server over a real socket that answers, or misbehaves, as a test tells it."""

from __future__ import annotations

import base64
import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np
from dexloop.deploy.planner.base import Box
from dexloop.deploy.planner.vlm_boxes import Convention, Size, from_picture

Request = dict[str, Any]
Behaviour = Callable[["Handler", Request], None]
COLOURS = {"red": (214, 32, 36), "green": (24, 150, 60), "blue": (28, 64, 204), "yellow": (240, 208, 28)}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        script = self.server.script
        with script.lock:
            script.requests.append(body)
            script.headers.append({name.lower(): value for name, value in self.headers.items()})
            behaviour = script.next.pop(0) if script.next else script.otherwise
        with suppress(OSError):  # the client may have given up
            behaviour(self, body)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def send(self, code: int, body: bytes, **headers: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    script: Script

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.open: set[socket.socket] = set()
        super().__init__(address, handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self.open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """On everyone: a client keeps its connection for the next request."""
        for connection in list(self.open):
            with suppress(OSError):  # it may have ended just now
                connection.shutdown(socket.SHUT_RDWR)


@dataclass
class Script:
    """What a server does: ``next``, one behaviour for each request, then ``otherwise`` for all others."""

    otherwise: Behaviour
    next: list[Behaviour] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class ChatServer:
    """``with ChatServer(behaviour) as server``: ``server.url`` answers until ``server.stop()`` or the end."""

    def __init__(self, otherwise: Behaviour) -> None:
        self.script = Script(otherwise)
        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.script = self.script
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def then(self, *behaviours: Behaviour) -> None:
        self.script.next.extend(behaviours)

    def stop(self) -> None:
        self._server.shutdown()
        socketserver.TCPServer.server_close(self._server)  # without waiting for requests that never end
        self._server.hang_up()

    def __enter__(self) -> ChatServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def completion(text: str, finish_reason: str = "stop") -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 1500, "completion_tokens": 30, "total_tokens": 1530}
    return json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()


def says(answer: str | dict[str, Any], finish_reason: str = "stop") -> Behaviour:
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return lambda handler, _: handler.send(200, completion(text, finish_reason))


def refuses(code: int, message: str = "no", **headers: str) -> Behaviour:
    body = json.dumps({"error": {"message": message, "type": "x", "code": str(code)}}).encode()
    return lambda handler, _: handler.send(code, body, **headers)


def late(seconds: float) -> Behaviour:
    return lambda handler, _: time.sleep(seconds)


def hangs_up(handler: Handler, _: Request) -> None:
    handler.close_connection = True
    handler.connection.close()


def half_a_body(handler: Handler, _: Request) -> None:
    """Promises more than it sends."""
    whole = completion('{"reason": "", "held": true}')
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(whole)))
    handler.end_headers()
    handler.wfile.write(whole[: len(whole) // 2])
    handler.close_connection = True


def trickles_headers(handler: Handler, _: Request) -> None:
    """A header line without end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    _trickle(handler, b"a")


def trickles_body(handler: Handler, _: Request) -> None:
    """Blanks, which JSON allows before the answer, without end."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    _trickle(handler, b" ")


def _trickle(handler: Handler, byte: bytes) -> None:
    for _ in range(2000):
        handler.wfile.write(byte)
        handler.wfile.flush()
        time.sleep(0.02)


def pours(handler: Handler, _: Request) -> None:
    """Bytes as fast as they go, without end."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(10**12))
    handler.end_headers()
    block = b" " * 65536
    while True:
        handler.wfile.write(block)


def pictures(request: Request) -> list[np.ndarray]:
    """The request's pictures, (H, W, 3) RGB each, as a server decodes them."""
    found = []
    for message in request["messages"]:
        content = message["content"]
        for part in content if isinstance(content, list) else []:
            if part["type"] == "image_url":
                kind, data = part["image_url"]["url"].split(",", 1)
                assert kind == "data:image/jpeg;base64"
                bgr = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
                found.append(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
    return found


def texts(request: Request) -> str:
    parts: list[str] = []
    for message in request["messages"]:
        content = message["content"]
        if isinstance(content, str):
            parts.append(content)
        else:
            parts += [part["text"] for part in content if part["type"] == "text"]
    return "\n".join(parts)


def blob(picture: np.ndarray, colour: str) -> Box | None:
    """Where ``colour`` is in a picture."""
    low, high = (np.array(COLOURS[colour]) + off for off in (-40, 40))
    near = cv2.inRange(picture, low.astype(float), high.astype(float)) > 0
    rows, columns = np.flatnonzero(near.mean(1) > 0.005), np.flatnonzero(near.mean(0) > 0.005)
    if not len(rows) or not len(columns):
        return None
    return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


@dataclass(frozen=True)
class SeeingModel:
    """Looks at the pictures that it is sent and boxes coloured things in a convention of its own."""

    convention: Convention
    resize: float = 1.0  # by which its server resizes pictures once more
    blind_to: tuple[str, ...] = ()

    def __call__(self, handler: Handler, request: Request) -> None:
        handler.send(200, completion(json.dumps(self.answer(request))))

    def answer(self, request: Request) -> dict[str, Any]:
        words, picture = texts(request), pictures(request)[-1]
        if "squares" in words:
            found = {colour: self.box(picture, colour) for colour in COLOURS}
            return {"squares": [{"label": colour, "bbox_2d": box} for colour, box in found.items() if box]}
        if "bounding box" in words:
            instruction = words.split("The instruction:")[1].split("\n")[0]
            colour = next(colour for colour in COLOURS if colour in instruction)
            box = self.box(picture, colour)
            return {"reason": "I looked", "visible": bool(box), "label": f"{colour} block", "bbox_2d": box or []}
        if '"held"' in words:
            return {"reason": "it is in the hand", "held": True}
        if '"done"' in words:
            return {"reason": "one is left", "done": False}
        return {"reason": "it is free", "decision": "grasp", "instruction": "grasp the red block", "question": ""}

    def box(self, picture: np.ndarray, colour: str) -> list[int] | None:
        found = None if colour in self.blind_to else blob(picture, colour)
        if found is None:
            return None
        size: Size = (picture.shape[1], picture.shape[0])
        seen: Size = (round(size[0] * self.resize), round(size[1] * self.resize))
        return [round(v) for v in from_picture(found, self.convention, seen, size)]
