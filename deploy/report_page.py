"""The report's page: one HTML file with styles of its own, beside its pictures and the film."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from .attempt import AttemptResult, Ending
from .session import End, Event, SessionResult

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:66em;padding:0 1em;color:#1c1c1c}
h1{font-size:1.5em;margin:0 0 .2em}h2{font-size:1.1em;margin:1.8em 0 .4em}
.verdict{padding:.6em .9em;border-left:5px solid #b00020;background:#fbeaec;margin:.6em 0 1em}
.verdict.done{border-color:#1b7f3b;background:#e9f6ed}
table{border-collapse:collapse;width:100%}td,th{border-top:1px solid #ddd;padding:.35em .6em;vertical-align:top;
text-align:left}th{font-weight:600;border-top:0}td.n,th.n{text-align:right;
font-variant-numeric:tabular-nums}td.n,td.k,td.p{white-space:nowrap}table.attempts{font-size:.92em}
tr.error td{background:#fbeaec}tfoot td{border-top:2px solid #999;font-weight:600}
figure{display:inline-block;margin:0 .6em .4em 0}figcaption,small{color:#555;font-size:.85em}
img{height:9.5em;border-radius:4px;display:block}video{width:32em;max-width:100%;border-radius:4px;background:#222}
svg{width:100%;height:5.2em}pre{white-space:pre-wrap;font-size:.8em;background:#f6f6f6;padding:1em}
"""
_COLOURS = {Ending.HELD: "#1b7f3b", Ending.EMPTY: "#c77700", Ending.LOST: "#7a4fb5", Ending.TIMEOUT: "#666"}
_BROKEN = "#b00020"
_WIDTH = 1000.0  # of the timeline, in its own units


def page(
    result: SessionResult, pictures: Sequence[Sequence[str]], film: str, about: dict[str, Any], rate_hz: float | None
) -> str:
    """HTML of the report. ``pictures``: for each event its pictures' paths; ``film``: the video's path, "" = none;
    ``rate_hz``: of the commands, to tell what late ticks cost."""
    attempts = [event.attempt for event in result.events if event.attempt is not None]
    done = "done" if result.end is End.DONE else ""
    broken = ", one broken off" if _broken_off(result.events) is not None else ""
    counts = (
        f"{len(result.grasped)} grasped in {len(attempts)} attempt{'s' * (len(attempts) != 1)}{broken}, "
        f"{len(result.failed)} given up, {result.seconds:.0f} s of the rig's time"
    )
    rows = "".join(_event(event, shown) for event, shown in zip(result.events, pictures, strict=True))
    watch = f'<h2>Film of the attempts</h2><video src="{film}" controls muted></video>' if film else ""
    settings = html.escape(json.dumps(about, indent=2, default=str))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(result.prompt)}</title><style>{_STYLE}</style></head><body>
<h1>{html.escape(result.prompt)}</h1>
<p class="verdict {done}"><b>{html.escape(_capital(result.why))}</b></p>
<p>{counts}.</p>
{_timeline(result.events)}
{_attempts(result.events, rate_hz) if attempts else ""}
{watch}
<h2>What happened</h2>
<table>{rows}</table>
<h2>Settings</h2>
<details><summary>everything that it ran with</summary><pre>{settings}</pre></details>
</body></html>
"""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _event(event: Event, pictures: Sequence[str]) -> str:
    figures = "".join(
        f'<figure><img src="{name}" alt="{_camera(name)} camera"><figcaption>{_camera(name)}</figcaption></figure>'
        for name in pictures
    )
    return (
        f'<tr class="{event.kind}"><td class="n">{event.at_s:.1f} s</td><td class="k">{event.kind}</td>'
        f'<td>{html.escape(event.text)}</td><td class="p">{figures}</td></tr>\n'
    )


def _camera(name: str) -> str:
    return "wrist" if name.endswith("wrist.jpg") else "head"


def _broken_off(events: Sequence[Event]) -> Event | None:
    """The grounding of an attempt that an error ended, None where there is none."""
    if len(events) < 2 or events[-1].kind != "error" or events[-2].kind != "grounding" or events[-2].box is None:
        return None
    return events[-2]


def _timeline(events: Sequence[Event]) -> str:
    """Attempts as bars, everything else as ticks, over the session's time."""
    if not events or events[-1].at_s <= 0:
        return ""
    whole = events[-1].at_s
    x = [_WIDTH * event.at_s / whole for event in events]
    parts = []
    for event, at in zip(events, x, strict=True):
        title = f"<title>{event.at_s:.1f} s {html.escape(event.text)}</title>"
        if event.attempt is not None:
            width = max(_WIDTH * event.attempt.seconds / whole, 2.0)
            colour = _COLOURS[event.attempt.ending]
            parts.append(
                f'<rect x="{at - width:.1f}" y="8" width="{width:.1f}" height="26" fill="{colour}">{title}</rect>'
            )
        else:
            colour = "#b00020" if event.kind == "error" else "#14578c"
            parts.append(f'<rect x="{max(at - 1, 0):.1f}" y="4" width="2" height="34" fill="{colour}">{title}</rect>')
    broken = _broken_off(events)
    if broken is not None:
        at = _WIDTH * broken.at_s / whole
        parts.append(f'<rect x="{at:.1f}" y="8" width="{_WIDTH - at:.1f}" height="26" fill="{_BROKEN}"/>')
    step = next(step for step in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 10**6) if whole / step <= 12)
    for second in range(0, int(whole) + 1, step):
        at = _WIDTH * second / whole
        if at > 0.97 * _WIDTH:  # it would be cut off
            break
        parts.append(f'<text x="{at:.1f}" y="54" font-size="13" fill="#555">{second} s</text>')
    shown = {event.attempt.ending for event in events if event.attempt is not None}
    names = [(colour, ending.value) for ending, colour in _COLOURS.items() if ending in shown]
    names += [(_BROKEN, "broken off")] if broken is not None else []
    key = ", ".join(f'<tspan fill="{colour}">■</tspan> {html.escape(name)}' for colour, name in names)
    legend = f'<text x="0" y="76" font-size="14" fill="#333">{key}</text>' if key else ""
    return f'<svg viewBox="0 0 {_WIDTH:.0f} 80" role="img" aria-label="timeline">{"".join(parts)}{legend}</svg>'


_COLUMNS = (
    ("", "attempt"), ("", "how it ended"), ("", "re-grasps"), ("s", "time"), ("", "ticks"), ("", "late ticks"),
    ("s", "lost by them"), ("", "changed by SafeRobot"), ("", "chunks"), ("ms", "chunk, median"), ("ms", "chunk, 95 %"),
    ("", "chunks overdue"), ("", "ticks on an old chunk"),
)  # fmt: skip


def _attempts(events: Sequence[Event], rate_hz: float | None) -> str:
    """A line for every attempt: how it ended, and how well the loop kept its time."""
    results = [event.attempt for event in events if event.attempt is not None]
    head = "".join(
        f'<th class="{"n" if k > 1 else ""}">{name}{f", {unit}" if unit else ""}</th>'
        for k, (unit, name) in enumerate(_COLUMNS)
    )
    rows = "".join(
        f'<tr><td>{number}</td><td class="k">{result.ending.value}</td>{_numbers([result], rate_hz)}</tr>\n'
        for number, result in enumerate(results, 1)
    )
    total = f"<tfoot><tr><td></td><td>all</td>{_numbers(results, rate_hz)}</tr></tfoot>" if len(results) > 1 else ""
    return f'<h2>Attempts</h2><table class="attempts"><thead><tr>{head}</tr></thead>{rows}{total}</table>'


def _numbers(results: Sequence[AttemptResult], rate_hz: float | None) -> str:
    seconds, ticks = sum(result.seconds for result in results), sum(result.ticks for result in results)
    again = sum(result.regrasps for result in results)
    # Fixed motions between two grasps take time without a tick of the policy: then the rest is not lateness.
    lost = f"{max(seconds - ticks / rate_hz, 0.0):.2f}" if rate_hz and not again else ""
    counts = [result.counts for result in results]
    chunk_ms = [ms for count in counts for ms in count.chunk_ms] or [0.0]
    changed = sum(result.changed for result in results)
    values = (
        again, f"{seconds:.1f}", ticks, sum(result.late_ticks for result in results), lost,
        f"{changed} ({changed / max(ticks, 1):.0%})", sum(count.chunks for count in counts),
        f"{np.median(chunk_ms):.0f}", f"{np.percentile(chunk_ms, 95):.0f}", sum(count.overdue for count in counts),
        sum(count.overdue_ticks + count.starved_ticks for count in counts),
    )  # fmt: skip
    return "".join(f'<td class="n">{value}</td>' for value in values)
