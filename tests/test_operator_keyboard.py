"""The keyboard operator: keys to commands, a real pseudo-terminal, and a virtual display where there is one."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Iterator

import numpy as np
import pytest
from dexloop.collect.operators.base import Event, Operator, OperatorInput
from dexloop.collect.operators.keyboard import KeyboardConfig, KeyboardOperator, pinch_opening
from dexloop.collect.operators.keys import TerminalKeys
from dexloop.hardware.clock import NS
from dexloop.hardware.description import OPEN_HAND, RETURN_ARM_Q
from dexloop.hardware.errors import BadInput
from dexloop.hardware.hand_kinematics import HandKinematics
from dexloop.hardware.values import ArmState, HandState, RobotState


class FakeKeys:
    """Keys held and tapped by the test."""

    def __init__(self) -> None:
        self.held: set[str] = set()
        self.tapped: list[str] = []
        self.closed = 0

    def strength(self, key: str) -> float:
        return 1.0 if key in self.held else 0.0

    def taps(self) -> list[str]:
        taken, self.tapped = self.tapped, []
        return taken

    def close(self) -> None:
        self.closed += 1


def state() -> RobotState:
    arm = ArmState(0, np.array(RETURN_ARM_Q), np.zeros(7), np.zeros(7), np.zeros(6))
    return RobotState(arm, HandState(0, np.array(OPEN_HAND), np.zeros(6)))


class Desk:
    """An operator with fake keys, run at 60 Hz."""

    def __init__(self) -> None:
        self.keys = FakeKeys()
        self.shown: list[str] = []
        self.operator = KeyboardOperator(keys=self.keys, tell=self.shown.append)
        self.now_ns = 5 * NS
        self.operator.begin(state(), self.now_ns)

    def run(self, seconds: float, held: str = "", taps: tuple[str, ...] = ()) -> list[OperatorInput]:
        self.keys.held = set(held)
        self.keys.tapped = list(taps)
        answers = []
        for _ in range(round(seconds * 60)):
            self.now_ns += NS // 60
            answers.append(self.operator.act(state(), self.now_ns))
        return answers

    def palm(self, answer: OperatorInput) -> np.ndarray:
        return self.operator._wrist.world_T_palm(answer.command.arm_q)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_follows_the_protocol_and_shows_the_keys(desk: Desk) -> None:
    assert isinstance(desk.operator, Operator)
    assert "space" in desk.shown[0]
    desk.operator.close()
    assert desk.keys.closed == 1


def test_nothing_pressed_holds(desk: Desk) -> None:
    answers = desk.run(1.0)
    for answer in answers:
        assert np.allclose(answer.command.arm_q, RETURN_ARM_Q, atol=1e-6)
        assert np.allclose(answer.command.hand, OPEN_HAND)
        assert not answer.events


@pytest.mark.parametrize(("key", "axis", "sign"), [("s", 0, -1), ("a", 1, 1), ("d", 1, -1), ("f", 2, -1)])
def test_keys_move_the_palm_along_the_world(desk: Desk, key: str, axis: int, sign: int) -> None:
    before = desk.palm(desk.run(0.1)[-1])
    after = desk.palm(desk.run(0.6, key)[-1])
    moved = after[:3, 3] - before[:3, 3]
    assert sign * moved[axis] > 0.03
    assert np.abs(np.delete(moved, axis)).max() < 0.01
    stopped = desk.palm(desk.run(1.0)[-1])
    later = desk.palm(desk.run(0.5)[-1])
    assert np.allclose(stopped, later, atol=1e-3), "a released key stops the palm"


def test_keys_turn_the_palm(desk: Desk) -> None:
    before = desk.palm(desk.run(0.1)[-1])
    after = desk.palm(desk.run(0.5, "u")[-1])
    turned = before[:3, :3].T @ after[:3, :3]
    assert np.arccos((np.trace(turned) - 1) / 2) > 0.1
    assert turned[0, 0] > 0.99, "roll is about the palm's own x"


def test_hand_keys(desk: Desk) -> None:
    closed = desk.run(1.0, "g")[-1].command.hand
    assert (closed[:5] < 0.5).all()
    assert closed[5] == 1.0
    steps = np.diff([a.command.hand for a in desk.run(1.0, "h")], axis=0)
    assert steps.max() <= 1 / 60 + 1e-9, "no faster than the hand"
    thumb = desk.run(0.5, "b")[-1].command.hand
    assert thumb[5] < 0.8
    assert desk.run(0.7, "t")[-1].command.hand[5] == pytest.approx(1.0, abs=0.05)


def test_pinch_closes_thumb_and_index(desk: Desk) -> None:
    hand = desk.run(3.0, "p")[-1].command.hand
    kinematics = HandKinematics()
    tips = kinematics.tips(hand)
    assert np.linalg.norm(tips[1] - tips[0]) < 0.016
    assert np.allclose(hand[2:5], 1.0), "the other fingers stay"
    assert np.allclose(hand[[0, 1, 5]], pinch_opening(kinematics)[[0, 1, 5]], atol=0.05)


def test_speed_keys(desk: Desk) -> None:
    slow = desk.run(0.1, taps=("-", "-"))
    assert any("x0.25" in a.note for a in slow)
    a = desk.palm(desk.run(0.5, "s")[-1])
    before = desk.palm(desk.run(1.0)[-1])
    notes = desk.run(0.1, taps=("+",) * 9)
    assert any("x2" in n.note for n in notes)
    b = desk.palm(desk.run(0.5, "s")[-1])
    assert np.linalg.norm(b[:3, 3] - before[:3, 3]) > 2 * np.linalg.norm(before[:3, 3] - a[:3, 3])


def test_at_a_limit_turning_round_answers_at_once(desk: Desk) -> None:
    """Pressed against the workspace for long: the wish does not run away."""
    desk.run(6.0, "r")
    stuck = desk.palm(desk.run(0.2, "r")[-1])
    back = desk.palm(desk.run(0.8, "f")[-1])
    assert stuck[2, 3] - back[2, 3] > 0.02


def test_session_keys(desk: Desk) -> None:
    def events(*taps: str) -> list[Event]:
        return [event for answer in desk.run(0.05, taps=taps) for event in answer.events]

    assert events("space") == [Event.START]
    assert events("space") == [Event.PAUSE]
    assert events("space") == [Event.RESUME]
    assert events("y", "n") == [Event.SUCCESS, Event.FAILURE]
    assert events("enter") == [Event.STOP]
    assert events("space") == []
    assert events("enter") == [Event.KEEP]
    assert events("backspace", "z", "q") == [Event.DISCARD, Event.REDO, Event.QUIT]
    desk.keys.tapped = ["space"]
    desk.operator.begin(state(), desk.now_ns)
    assert events("space") == [Event.START], "a new episode starts anew, and old keys do not count"


def test_resume_keeps_the_grasp(desk: Desk) -> None:
    before = desk.run(1.0, "g")[-1].command.hand
    desk.operator.resume(state(), desk.now_ns)  # the measured hand stands wide open
    after = desk.run(0.1)[-1].command.hand
    assert np.allclose(after, before, atol=0.05)


def test_bad_config() -> None:
    with pytest.raises(BadInput, match="positive"):
        KeyboardConfig(speed_m_s=0.0)


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A pseudo-terminal: (our end, the operator's end)."""
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def test_terminal_keys_decode(terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    keys = TerminalKeys(theirs)
    os.write(ours, b"Wz \r\x7f\x1b[A\x1bOD\x1b[")
    assert taps_within(keys, 7) == ["w", "z", "space", "enter", "backspace", "up", "left"]
    os.write(ours, b"B?")
    assert taps_within(keys, 2) == ["down", "?"], "an escape sequence may be cut in two"
    keys.close()


def taps_within(keys: TerminalKeys, count: int, seconds: float = 2.0) -> list[str]:
    found: list[str] = []
    end_s = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < end_s:
        found += keys.taps()
        time.sleep(0.005)
    return found


def test_terminal_keys_hold_while_they_repeat_and_fade(terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    keys = TerminalKeys(theirs, hold_s=0.15, fade_s=0.10)
    for _ in range(10):
        os.write(ours, b"w")
        time.sleep(0.03)
        assert keys.strength("w") > 0.5
    assert keys.strength("s") == 0.0
    time.sleep(0.4)
    assert keys.strength("w") == 0.0
    keys.close()


def test_terminal_is_given_back(terminal: tuple[int, int]) -> None:
    _, theirs = terminal
    before = termios.tcgetattr(theirs)
    keys = TerminalKeys(theirs)
    assert termios.tcgetattr(theirs)[3] != before[3], "no echo, no line buffer"
    keys.close()
    keys.close()
    assert termios.tcgetattr(theirs) == before


def test_operator_on_a_real_terminal(terminal: tuple[int, int]) -> None:
    """Bytes in, commands out."""
    ours, theirs = terminal
    operator = KeyboardOperator(keys=TerminalKeys(theirs), tell=lambda line: None)
    operator.begin(state(), time.monotonic_ns())
    os.write(ours, b" ")
    events: list[Event] = []
    end_s = time.monotonic() + 0.8
    while time.monotonic() < end_s:
        os.write(ours, b"s")
        time.sleep(0.03)
        answer = operator.act(state(), time.monotonic_ns())
        events += answer.events
    assert events == [Event.START]
    moved = (
        operator._wrist.world_T_palm(answer.command.arm_q)[:3, 3]
        - operator._wrist.world_T_palm(np.array(RETURN_ARM_Q))[:3, 3]
    )
    assert moved[0] < -0.02
    assert answer.raw["keyboard"].shape == (12,)
    operator.close()


def test_a_pipe_is_no_terminal() -> None:
    read, write = os.pipe()
    with pytest.raises(BadInput, match="terminal"):
        TerminalKeys(read)
    os.close(read)
    os.close(write)


def test_a_closed_terminal_is_a_clear_message() -> None:
    ours, theirs = pty.openpty()
    keys = TerminalKeys(theirs)
    os.close(ours)
    with pytest.raises(BadInput, match="terminal"):
        taps_within(keys, 1)
    os.close(theirs)


HAS_DISPLAY_TOOLS = shutil.which("Xvfb") is not None and shutil.which("xdotool") is not None
ON_A_DISPLAY = """
import sys, time
from dexloop.collect.operators.keys import open_keys, DisplayKeys
keys = open_keys()
assert isinstance(keys, DisplayKeys), type(keys)
print("ready", flush=True)
end = time.monotonic() + 10
seen, held = [], False
while time.monotonic() < end and seen[-1:] != ["q"]:
    seen += keys.taps()
    held = held or keys.strength("w") == 1.0
    time.sleep(0.01)
keys.close()
print(seen, held, keys.strength("w"), flush=True)
"""


@pytest.mark.skipif(not HAS_DISPLAY_TOOLS, reason="Xvfb and xdotool are not installed")
def test_keys_of_a_display(tmp_path: object) -> None:
    """pynput on a virtual display, keys pressed by xdotool."""
    read, write = os.pipe()
    display = subprocess.Popen(["Xvfb", "-displayfd", str(write), "-nolisten", "tcp"], pass_fds=(write,))
    try:
        os.close(write)
        number = os.read(read, 16).decode().strip()
        environment = {**os.environ, "DISPLAY": f":{number}"}
        child = subprocess.Popen(
            [sys.executable, "-c", ON_A_DISPLAY], env=environment, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        for arguments in (["keydown", "w"], ["keyup", "w"], ["key", "space"], ["key", "Return"], ["key", "q"]):
            subprocess.run(["xdotool", *arguments], env=environment, check=True)
            time.sleep(0.1)
        said, _ = child.communicate(timeout=20)
        assert said.decode().strip() == "['w', 'space', 'enter', 'q'] True 0.0"
    finally:
        display.terminate()
        display.wait()


def test_a_note_is_typed_in_review_and_nothing_else_hears_it() -> None:
    desk = Desk()
    desk.run(0.1, taps=("m",))  # idle: not a note yet
    desk.run(0.1, taps=("space",))
    desk.run(0.1, taps=("enter",))
    answers = desk.run(0.1, taps=("m", "q", "x", "backspace", "space", "z", "enter"))
    assert [answer.remark for answer in answers if answer.remark is not None] == ["q z"]
    assert not any(answer.events for answer in answers), "q and z were typed, not asked for"
    assert any(Event.KEEP in answer.events for answer in desk.run(0.1, taps=("enter",)))
