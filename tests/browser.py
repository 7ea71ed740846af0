"""A real browser for tests, by its own wire protocol (Chrome DevTools over a socket): no driver is needed.

``DEXLOOP_BROWSER`` names a Chromium or Chrome; without it the usual names are looked for.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "headless_shell")
_FLAGS = (
    "--headless", "--no-sandbox", "--no-zygote", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0",
)  # fmt: skip


def find() -> str | None:
    """The browser's program, None where there is none."""
    named = os.environ.get("DEXLOOP_BROWSER")
    return named or next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """``with Browser(program) as browser``: one tab."""

    def __init__(self, program: str, size: tuple[int, int] = (1000, 900)) -> None:
        from websockets.sync.client import connect

        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        flags = [*_FLAGS, f"--window-size={size[0]},{size[1]}", f"--user-data-dir={self._folder.name}", "about:blank"]
        self._process = subprocess.Popen([program, *flags], stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        line = next((line for line in self._process.stderr if "DevTools listening on" in line), "")
        port = line.split(":")[-1].split("/")[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as reply:
            tabs = json.load(reply)
        self._socket = connect(
            next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page"), max_size=None
        )
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def call(self, method: str, **values: Any) -> dict[str, Any]:
        """One request of the protocol."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": values}))
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def go(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def value(self, expression: str) -> Any:
        """Of a line of JavaScript."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"]
        return result.get("value")

    def wait(self, expression: str, seconds: float = 60.0) -> Any:
        """Until a line of JavaScript is true; its value."""
        end = time.monotonic() + seconds
        while not (found := self.value(expression)):
            assert time.monotonic() < end, f"never true: {expression}; the page says {self.value(TEXT)!r}"
            time.sleep(0.05)
        return found

    def place(self, selector: str) -> tuple[float, float, float, float]:
        """x, y, width, height of an element in the window."""
        box = self.value(f"(() => {{const b = document.querySelector('{selector}').getBoundingClientRect();"
                         "return [b.x, b.y, b.width, b.height]})()")  # fmt: skip
        return tuple(box)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """With the left button, in four steps."""
        self._mouse("mousePressed", start)
        for k in range(1, 5):
            x, y = (a + (b - a) * k / 4 for a, b in zip(start, end, strict=True))
            self._mouse("mouseMoved", (x, y))
        self._mouse("mouseReleased", end)

    def touch_drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """With a finger."""
        self._touch("touchStart", [start])
        for k in range(1, 5):
            x, y = (a + (b - a) * k / 4 for a, b in zip(start, end, strict=True))
            self._touch("touchMove", [(x, y)])
        self._touch("touchEnd", [])

    def click(self, selector: str) -> None:
        x, y, width, height = self.place(selector)
        self._mouse("mousePressed", (x + width / 2, y + height / 2))
        self._mouse("mouseReleased", (x + width / 2, y + height / 2))

    def picture(self, path: Path) -> None:
        """A PNG of the tab."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _mouse(self, kind: str, at: tuple[float, float]) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", buttons=1, clickCount=1)

    def _touch(self, kind: str, points: list[tuple[float, float]]) -> None:
        self.call("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": x, "y": y} for x, y in points])


TEXT = "document.getElementById('sentence').textContent"
