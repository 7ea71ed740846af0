"""``deploy --manual``: a person draws the box on a page, over plain HTTP and, where there is one, in a real browser."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dexloop.datasets.check import run_check
from dexloop.datasets.reader import DatasetReader
from dexloop.deploy.command import Deploy
from dexloop.deploy.evaluation.oracle import Truth
from dexloop.deploy.eyes import Eyes
from dexloop.deploy.manual import ManualPlanner
from dexloop.deploy.page import Page
from dexloop.deploy.planner.base import Box, Look
from dexloop.deploy.planner.grammar import parse
from dexloop.deploy.rig import twin_rig
from dexloop.hardware.errors import BadInput
from dexloop.hardware.twin.scenes import sample_scene
from dexloop.tests import browser as br

SEED, COUNT = 12, 3


class Person:
    """Sits before the page, over plain HTTP."""

    def __init__(self, address: str) -> None:
        self.address, self.state = address, {"number": -1}

    def get(self, path: str, **headers: str) -> bytes:
        request = urllib.request.Request(self.address + path, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.read()

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | headers
        request = urllib.request.Request(self.address + path, data, headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def wait(self, words: str) -> dict[str, Any]:
        """Follow the page until it says ``words``."""
        for _ in range(500):
            self.state = json.loads(self.get(f"state?after={self.state['number']}"))
            if words in self.state["sentence"]:
                return self.state
        raise AssertionError(f"the page never said {words!r}, but {self.state['sentence']!r}")

    def answer(self, choice: str, box: Box | None = None) -> tuple[int, dict[str, Any]]:
        return self.post("answer", {"choice": choice, "picture": self.state["picture"], "box": box})


@pytest.fixture(scope="module")
def scene() -> Iterator[tuple[Look, list[Box]]]:
    """A look at three objects, and their true boxes."""
    spec = sample_scene(SEED, "validation", COUNT)
    with twin_rig(spec, (320, 240), 20.0, real_time=False) as (rig, world):
        boxes = Truth(world, spec).boxes()
        yield Eyes(rig.robot, rig.cameras, rig.tracker).look(), [boxes[k] for k in range(COUNT)]


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page()
    yield page
    page.close()


class Asked:
    """A request to the planner in a thread of its own, as the session waits for it."""

    def __init__(self, call: Any, *values: Any) -> None:
        self.answer: Any = None
        self._thread = threading.Thread(target=lambda: setattr(self, "answer", call(*values)), daemon=True)
        self._thread.start()

    def result(self) -> Any:
        self._thread.join(30)
        assert not self._thread.is_alive(), "still waiting for the page"
        return self.answer


def test_a_drawn_box_is_what_is_grasped(page: Page, scene: tuple[Look, list[Box]]) -> None:
    look, boxes = scene
    planner, person = ManualPlanner(page), Person(page.address)
    asked = Asked(planner.propose, "x", look, look)
    state = person.wait("Draw a box")
    assert [choice["name"] for choice in state["choices"]] == ["done"]
    assert state["size"] == [320, 240]
    assert person.get("picture")[:2] == b"\xff\xd8"
    assert person.answer("box", boxes[0])[0] == 200
    state = person.wait("This is it")
    assert [choice["name"] for choice in state["choices"]] == ["grasp", "done"]
    assert person.answer("grasp")[0] == 200
    proposal = asked.result()
    grounding = planner.ground(proposal.instruction, look)
    assert grounding.box == boxes[0]
    assert parse(proposal.instruction).point_m is not None, "the offline planner can verify it without words"
    assert planner._offline.ground(proposal.instruction, look).box == pytest.approx(boxes[0], abs=6)


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((-20, 10, 50, 60), "leaves the picture"),
        ((100, 100, 102, 140), "too small"),
        ((10, 10, 200, 200), "too large"),
        ((8, 180, 40, 210), "nothing in that box"),
    ],
)
def test_bad_boxes_are_told_on_the_page(page: Page, scene: tuple[Look, list[Box]], box: Box, words: str) -> None:
    look, boxes = scene
    person = Person(page.address)
    asked = Asked(ManualPlanner(page).propose, "x", look, look)
    person.wait("Draw a box")
    person.answer("box", box)
    state = person.wait(words)
    assert state["bad"]
    assert "grasp" not in [choice["name"] for choice in state["choices"]]
    person.answer("box", boxes[1])
    person.wait("This is it")
    person.answer("grasp")
    assert asked.result().instruction


def test_done_skip_and_a_new_picture(page: Page, scene: tuple[Look, list[Box]]) -> None:
    look, boxes = scene
    looks: list[int] = []
    planner, person = ManualPlanner(page, lambda: looks.append(1) or look), Person(page.address)  # type: ignore[func-returns-value]
    asked = Asked(planner.propose, "x", look, look)
    first = person.wait("Draw a box")["picture"]
    person.answer("look")
    while person.wait("Draw a box")["picture"] == first:
        pass
    person.answer("done")
    assert asked.result().nothing_left
    assert looks == [1]
    asked = Asked(planner.ground, "grasp the object at x 0.40 y 0.00 m", look)  # after an attempt that failed
    person.wait("Where is it now?")
    person.answer("skip")
    assert asked.result().reason == "the user gave it up"


def test_only_the_page_itself_may_ask(page: Page, scene: tuple[Look, list[Box]]) -> None:
    look, _ = scene
    person = Person(page.address)
    asked = Asked(ManualPlanner(page).propose, "x", look, look)
    person.wait("Draw a box")
    assert person.post("answer", {"choice": "done"}, Origin="http://evil.example")[0] == 403
    assert person.post("answer", {"choice": "done"}, Host="evil.example")[0] == 403
    assert person.post("answer", b"choice=done", **{"Content-Type": "text/plain"})[0] == 403
    assert person.post("answer", b"[]")[0] == 400
    assert person.post("answer", b" " * 5000)[0] == 400
    assert person.post("answer", {"choice": "done", "picture": 0})[0] == 409, "of a picture that is gone"
    assert person.post("answer", {"choice": "fly", "picture": person.state["picture"]})[0] == 409
    assert person.post("nothing", {})[0] == 404
    person.answer("done")
    assert asked.result().nothing_left


def test_stop_is_called_at_once(scene: tuple[Look, list[Box]]) -> None:
    stopped = threading.Event()
    page = Page(stop=stopped.set)
    try:
        assert Person(page.address).post("stop", {}) == (200, {"ok": True})
        assert stopped.is_set()
    finally:
        page.close()


def test_a_port_that_is_taken_is_said(page: Page) -> None:
    with pytest.raises(BadInput, match=f"port {page.port} of 127.0.0.1 cannot be used"):
        Page(page.port)


@pytest.mark.parametrize(
    ("flags", "words"),
    [({"instruction": "the cup"}, "--manual goes without"), ({"manual_port": 70000}, "--manual-port is 70000")],
)
def test_flags_that_do_not_fit_are_refused(flags: dict, words: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=words):
        Deploy(manual=True, out=tmp_path / "run", **flags).run()


# -- a real browser ----------------------------------------------------------------------------------------------------


@pytest.fixture
def browser() -> Iterator[br.Browser]:
    pytest.importorskip("websockets")
    program = br.find()
    if program is None:
        pytest.skip("no Chromium or Chrome: name one with DEXLOOP_BROWSER")
    with br.Browser(program) as running:
        yield running


def corners(browser: br.Browser, box: Box) -> tuple[tuple[float, float], tuple[float, float]]:
    """Of a box in the picture's pixels, in the window."""
    x, y, width, height = browser.place("#picture")
    sx, sy = width / 320, height / 240
    return (x + box[0] * sx, y + box[1] * sy), (x + box[2] * sx, y + box[3] * sy)


@pytest.mark.parametrize("finger", [False, True], ids=["mouse", "touch"])
def test_in_a_browser(
    page: Page, scene: tuple[Look, list[Box]], browser: br.Browser, finger: bool, tmp_path: Path
) -> None:
    look, boxes = scene
    planner = ManualPlanner(page)
    asked = Asked(planner.propose, "x", look, look)
    page.tell("  12.3 s  a line of the session")
    browser.go(page.address)
    browser.wait(f"{br.TEXT}.includes('Draw a box') && image !== null")
    drag = browser.touch_drag if finger else browser.drag
    drag(*corners(browser, (8, 180, 40, 210)))
    browser.wait(f"{br.TEXT}.includes('nothing in that box')")
    drag(*corners(browser, boxes[0]))
    browser.wait(f"{br.TEXT}.includes('This is it')")
    shots = Path(os.environ.get("DEXLOOP_SCREENSHOTS", tmp_path))
    browser.wait("document.querySelector('#grasp') !== null")
    browser.picture(shots / f"manual_{'touch' if finger else 'mouse'}.png")
    browser.click("#grasp")
    proposal = asked.result()
    found = planner.ground(proposal.instruction, look).box
    assert found is not None
    assert np.abs(np.subtract(found, boxes[0])).max() < 1.0, "what was drawn, to the pixel"
    browser.wait(f"{br.TEXT}.includes('The robot is at it')")
    page.end("done")
    browser.wait(f"{br.TEXT} === 'done' && document.querySelector('button') === null")


@pytest.mark.slow
def test_the_command_grasps_what_is_drawn_and_records_it(tmp_path: Path, scene: tuple[Look, list[Box]]) -> None:
    """``cli.py deploy --manual --record``: the shipped policy, a person over HTTP, the report and the data set."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    boxes = scene[1]

    def sit() -> None:
        person = Person(f"http://127.0.0.1:{port}/")
        while True:
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                person.wait("Draw a box")
                break
        grasped = False
        while not person.state["ended"]:
            names = [choice["name"] for choice in person.state["choices"]]
            if "grasp" in names:
                grasped = True
                person.answer("grasp")
            elif "skip" in names and person.state["bad"]:  # it was pushed away
                person.answer("skip")
            elif "skip" in names or (names and not grasped):  # the first time, and wherever it failed
                person.answer("box", boxes[0])
            elif names:
                person.answer("done")
            person.wait(" ")

    threading.Thread(target=sit, daemon=True).start()
    command = Deploy(
        manual=True, manual_port=port, record=str(tmp_path / "set"), seed=SEED, split="validation", objects=COUNT,
        real_time=False, out=tmp_path / "run",
    )  # fmt: skip
    code = command.run()
    events = [json.loads(line) for line in (tmp_path / "run/timeline.jsonl").read_text().splitlines()]
    attempts = [event["attempt"]["ending"] for event in events if event["kind"] == "attempt"]
    assert attempts
    assert code == (0 if "held" in attempts else 1)
    assert "marked by hand: the" in next(event["text"] for event in events if event["kind"] == "grounding")
    report = run_check(tmp_path / "set")
    assert report.ok, str(report)
    infos = [meta.info for meta in DatasetReader(tmp_path / "set").episodes()]
    assert [info.success for info in infos] == [ending == "held" for ending in attempts]
