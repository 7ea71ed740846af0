"""Where pressed keys come from: a display's key events (pynput), or a plain terminal's bytes.

A terminal tells neither when a key is released nor that two are held; it repeats the last one. So there a key counts
as held for a moment after each of its bytes and then fades out: a tap is a small step, holding is a steady motion.
"""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
import time
import tty
from collections import deque
from typing import Any, Protocol

from ...hardware.errors import BadInput

ESCAPE = "\x1b"
SPECIAL = {"\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace", " ": "space"}
ARROWS = {"A": "up", "B": "down", "C": "right", "D": "left"}


class KeySource(Protocol):
    """Keys by name: a lower-case character, or enter, backspace, space, up, down, left, right."""

    def strength(self, key: str) -> float:
        """How strongly ``key`` is held now, 0..1."""
        ...

    def taps(self) -> list[str]:
        """Keys pressed since the last call, in order. A held key counts once (a display) or per repeat (a terminal)."""
        ...

    def close(self) -> None:
        """Give the device back as it was. Safe to call twice."""
        ...


class TerminalKeys:
    """Keys from a terminal, read without waiting. Raises BadInput when the file is none."""

    def __init__(self, fd: int | None = None, hold_s: float = 0.12, fade_s: float = 0.10) -> None:
        self._fd = sys.stdin.fileno() if fd is None else fd
        self._hold_s, self._fade_s = hold_s, fade_s
        self._pressed_s: dict[str, float] = {}
        self._taps: list[str] = []
        self._pending = ""
        if not os.isatty(self._fd):
            raise BadInput(
                "The keyboard operator needs a terminal or a display: standard input is neither. Run it in one."
            )
        try:
            self._before: list[Any] | None = termios.tcgetattr(self._fd)
            # Single keys without echo; Ctrl-C keeps its meaning.
            tty.setcbreak(self._fd)
        except (termios.error, OSError) as error:
            raise BadInput(
                f"The terminal cannot be read key by key ({error}): run in the foreground of a terminal of your own."
            ) from error

    def strength(self, key: str) -> float:
        """1 for ``hold_s`` after the key's last byte, then down to 0 over ``fade_s``."""
        self._read()
        since_s = time.monotonic() - self._pressed_s.get(key, -1e9)
        return min(1.0, max(0.0, 1.0 - (since_s - self._hold_s) / self._fade_s))

    def taps(self) -> list[str]:
        self._read()
        taken, self._taps = self._taps, []
        return taken

    def close(self) -> None:
        if self._before is not None:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)
            self._before = None

    def _read(self) -> None:
        if self._before is None:
            return
        while select.select([self._fd], [], [], 0)[0]:
            try:
                data = os.read(self._fd, 1024)
            except OSError as error:
                raise BadInput(f"The terminal went away ({error}): start again in a new one.") from error
            if not data:
                raise BadInput("The terminal's input was closed: start again in a new one.")
            for key in self._decode(data.decode("ascii", errors="ignore")):
                self._pressed_s[key] = time.monotonic()
                self._taps.append(key)

    def _decode(self, text: str) -> list[str]:
        """Names of the keys in a run of characters. An escape sequence may be cut: its head waits for the rest."""
        text, keys, i = self._pending + text, [], 0
        self._pending = ""
        while i < len(text):
            if text[i] == ESCAPE:
                sequence = text[i : i + 3]
                if len(sequence) < 3 and sequence in (ESCAPE, ESCAPE + "[", ESCAPE + "O"):
                    self._pending = sequence
                    break
                if sequence[1] in "[O":
                    if sequence[2] in ARROWS:
                        keys.append(ARROWS[sequence[2]])
                    i += 3
                else:
                    i += 1
                continue
            keys.append(SPECIAL.get(text[i], text[i].lower()))
            i += 1
        return keys


class DisplayKeys:
    """Keys from the display's events, by pynput. They arrive whichever window has the focus."""

    def __init__(self) -> None:
        try:
            from pynput import keyboard
        except ImportError as error:
            raise BadInput(f"The display's keys cannot be read ({str(error).splitlines()[0]}).") from error
        self._held: set[str] = set()
        self._taps: deque[str] = deque()
        self._lock = threading.Lock()
        self._names = {
            getattr(keyboard.Key, name): name for name in ("enter", "backspace", "space", "up", "down", "left", "right")
        }
        self._listener = keyboard.Listener(on_press=self._press, on_release=self._release)
        self._listener.start()
        self._listener.wait()
        self._terminal = _quiet_terminal()

    def strength(self, key: str) -> float:
        with self._lock:
            return 1.0 if key in self._held else 0.0

    def taps(self) -> list[str]:
        if not self._listener.running:
            raise BadInput("The display's key events stopped: is the display still there? Start again.")
        with self._lock:
            taken = list(self._taps)
            self._taps.clear()
        return taken

    def close(self) -> None:
        self._listener.stop()
        if self._terminal is not None:
            fd, before = self._terminal
            # What was typed for the robot is not for the shell.
            termios.tcsetattr(fd, termios.TCSAFLUSH, before)
            self._terminal = None

    def _name(self, key: Any) -> str | None:
        if key in self._names:
            return self._names[key]
        character = getattr(key, "char", None)
        return character.lower() if character else None

    def _press(self, key: Any) -> None:
        name = self._name(key)
        if name is None:
            return
        with self._lock:
            if name not in self._held:  # the display repeats held keys too
                self._taps.append(name)
            self._held.add(name)

    def _release(self, key: Any) -> None:
        name = self._name(key)
        with self._lock:
            self._held.discard(name or "")


def _quiet_terminal() -> tuple[int, list[Any]] | None:
    """Stop the terminal from echoing what is typed; (fd, settings before), None where there is no terminal."""
    try:
        fd = sys.stdin.fileno()
        before = termios.tcgetattr(fd)
        tty.setcbreak(fd)
    except (termios.error, OSError, ValueError):
        return None
    return fd, before


def open_keys(prefer_display: bool | None = None) -> KeySource:
    """The display's keys where there is a display, else the terminal's. Raises BadInput where there is neither.

    ``prefer_display`` False takes the terminal in any case, True insists on the display.
    """
    display = bool(os.environ.get("DISPLAY")) if prefer_display is None else prefer_display
    if not display:
        return TerminalKeys()
    try:
        return DisplayKeys()
    except BadInput:
        if prefer_display:
            raise
        return TerminalKeys()
