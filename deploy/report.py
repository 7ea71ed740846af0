"""What happened, for people: a folder with ``report.html``, a video of the head camera, and the timeline as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .eyes import Sight
from .planner.base import FullLook
from .report_page import page
from .session import Event, SessionResult

VIDEO, TIMELINE, PAGE, PICTURES = "head.mp4", "timeline.jsonl", "report.html", "pictures"
OUTLINE = (255, 0, 255)


class Video:
    """The head camera's pictures of all attempts with the target's outline, as H.264. Close it to finish the file."""

    def __init__(self, path: Path, rate_hz: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(path), "w", options={"movflags": "faststart"})
        self._rate = Fraction(rate_hz).limit_denominator(1000)
        self._stream: Any = None
        self._last_ns = -1
        self.frames = 0

    def add(self, sight: Sight) -> None:
        """The next picture; the same one twice counts once."""
        if sight.look.captured_ns == self._last_ns:
            return
        self._last_ns = sight.look.captured_ns
        picture = outlined(sight.look.head, None if sight.mask is None else sight.mask.visible)
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=self._rate)
            self._stream.height, self._stream.width = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
            self._stream.pix_fmt = "yuv420p"
        even = np.ascontiguousarray(picture[: self._stream.height, : self._stream.width])
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(even, "rgb24")))
        self.frames += 1

    def close(self) -> None:
        """Safe to call twice."""
        if self._container is None:
            return
        if self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()
        self._container = None

    def __enter__(self) -> Video:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def outlined(picture: NDArray[np.uint8], mask: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
    """(H, W, 3) with the border of ``mask`` (H, W) drawn."""
    out = picture.copy()
    if mask is not None and mask.any():
        out[(mask ^ np.roll(mask, 1, 0)) | (mask ^ np.roll(mask, 1, 1))] = OUTLINE
    return out


def write_report(folder: Path, result: SessionResult, about: dict[str, Any], rate_hz: float | None = None) -> Path:
    """Write everything about ``result`` into ``folder`` (made if need be). ``about``: settings to keep beside it, JSON;
    ``rate_hz``: of the commands, to tell what late ticks cost. Returns the page's path."""
    (folder / PICTURES).mkdir(parents=True, exist_ok=True)
    pictures = [_pictures(folder, number, event) for number, event in enumerate(result.events)]
    lines = [json.dumps(_plain(event, shown)) for event, shown in zip(result.events, pictures, strict=True)]
    (folder / TIMELINE).write_text("".join(f"{line}\n" for line in lines))
    (folder / "about.json").write_text(json.dumps(about, indent=2, default=str) + "\n")
    film = VIDEO if (folder / VIDEO).exists() else ""
    target = folder / PAGE
    temporary = target.with_name(f".{PAGE}.tmp")
    temporary.write_text(page(result, pictures, film, about, rate_hz))
    temporary.replace(target)
    return target


def _pictures(folder: Path, number: int, event: Event) -> list[str]:
    """Paths in the folder of what was seen: the head camera, and after an attempt the wrist's, which shows the hand."""
    if event.look is None:
        return []
    head = Image.fromarray(outlined(event.look.head, event.look.target))
    if event.box is not None:
        ImageDraw.Draw(head).rectangle(event.box, outline=OUTLINE, width=2)
    shown = {"head": head}
    if event.attempt is not None and isinstance(event.look, FullLook):
        shown["wrist"] = Image.fromarray(event.look.wrist)
    names = []
    for camera, image in shown.items():
        names.append(f"{PICTURES}/{number:03d}_{event.kind}_{camera}.jpg")
        image.save(folder / names[-1], quality=90)
    return names


def _plain(event: Event, pictures: list[str]) -> dict[str, Any]:
    out: dict[str, Any] = {"at_s": round(event.at_s, 3), "kind": event.kind, "text": event.text}
    if event.box is not None:
        out["box"] = [round(float(value), 1) for value in event.box]
    if pictures:
        out["pictures"] = pictures
    if event.attempt is not None:
        out["attempt"] = asdict(event.attempt) | {"ending": event.attempt.ending.name.lower()}
    return out
