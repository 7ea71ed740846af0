"""What happened, for people: a folder with ``report.html``, a video of the head camera, and the timeline as JSON."""

from __future__ import annotations

import html
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


def write_report(folder: Path, result: SessionResult, about: dict[str, Any]) -> Path:
    """Write everything about ``result`` into ``folder`` (made if need be). ``about``: settings to keep beside it, JSON.
    Returns the page's path."""
    (folder / PICTURES).mkdir(parents=True, exist_ok=True)
    lines, rows = [], []
    for number, event in enumerate(result.events):
        picture = _picture(folder, number, event)
        lines.append(json.dumps(_plain(event, picture)))
        rows.append(_row(event, picture))
    (folder / TIMELINE).write_text("\n".join(lines) + "\n")
    (folder / "about.json").write_text(json.dumps(about, indent=2, default=str) + "\n")
    page = folder / PAGE
    temporary = page.with_name(f".{PAGE}.tmp")
    temporary.write_text(_page(result, rows, (folder / VIDEO).exists()))
    temporary.replace(page)
    return page


def _picture(folder: Path, number: int, event: Event) -> str:
    """Its path in the folder, empty where the event has none."""
    if event.look is None:
        return ""
    image = Image.fromarray(outlined(event.look.head, event.look.target))
    if event.box is not None:
        ImageDraw.Draw(image).rectangle(event.box, outline=OUTLINE, width=2)
    name = f"{PICTURES}/{number:03d}_{event.kind}.jpg"
    image.save(folder / name, quality=88)
    return name


def _plain(event: Event, picture: str) -> dict[str, Any]:
    out: dict[str, Any] = {"at_s": round(event.at_s, 3), "kind": event.kind, "text": event.text}
    if event.box is not None:
        out["box"] = [round(float(value), 1) for value in event.box]
    if picture:
        out["picture"] = picture
    if event.attempt is not None:
        out["attempt"] = asdict(event.attempt) | {"ending": event.attempt.ending.name.lower()}
    return out


def _row(event: Event, picture: str) -> str:
    more = ""
    if event.attempt is not None:
        attempt, counts = event.attempt, event.attempt.counts
        more = (
            f"<small>{attempt.ticks} ticks, {attempt.late_ticks} late; SafeRobot changed {attempt.changed}; "
            f"{counts.chunks} chunks, median {np.median(counts.chunk_ms or [0]):.0f} ms, {counts.overdue} overdue, "
            f"{counts.starved_ticks} ticks without one</small>"
        )
    shown = f'<img src="{picture}" alt="">' if picture else ""
    return (
        f'<tr class="{event.kind}"><td>{event.at_s:.1f} s</td><td>{event.kind}</td>'
        f"<td>{html.escape(event.text)}<br>{more}</td><td>{shown}</td></tr>"
    )


def _page(result: SessionResult, rows: list[str], video: bool) -> str:
    end = result.end.value if result.end is not None else "stopped by an error"
    attempts = [event.attempt for event in result.events if event.attempt is not None]
    seconds = result.events[-1].at_s if result.events else 0.0
    film = f'<video src="{VIDEO}" controls muted></video>' if video else ""
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(result.prompt)}</title>
<style>body{{font:15px/1.45 sans-serif;margin:2em auto;max-width:60em;padding:0 1em}}table{{border-collapse:collapse;
width:100%}}td{{border-top:1px solid #ccc;padding:.4em;vertical-align:top}}img,video{{max-width:20em}}
.error td{{background:#fdd}}small{{color:#555}}</style>
<h1>{html.escape(result.prompt)}</h1>
<p><b>{html.escape(end)}</b>: {len(result.grasped)} grasped in {len(attempts)} attempts, {len(result.failed)} given up,
{seconds:.0f} s of the rig's time.</p>{film}<table>{"".join(rows)}</table></html>
"""
