"""A page of everything that failed: what was asked, what each attempt came to, and its film where one was kept."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from pathlib import Path

from .figures import grouped
from .values import AttemptScore, TrialResult, TrialSettings

PAGE = "failures.html"
_STYLE = """body{font:15px/1.45 sans-serif;margin:2em auto;max-width:75em;padding:0 1em}table{border-collapse:collapse;
width:100%}td,th{border-top:1px solid #ccc;padding:.4em;vertical-align:top;text-align:left}video{max-width:20em}
ol{margin:0;padding-left:1.4em}small{color:#555}"""


def write_failures(folder: Path, results: Sequence[TrialResult], settings: TrialSettings) -> Path:
    """``failures.html`` in ``folder``, by reason, the most frequent first. Returns its path."""
    failed = [result for result in results if not result.success_at(settings.attempts)]
    films = Path(settings.videos) if settings.videos else None
    by_reason = sorted(grouped(failed, lambda result: result.reason).items(), key=lambda entry: -len(entry[1]))
    body = "".join(
        f"<h2>{html.escape(reason)} ({len(own)})</h2><table>{''.join(_row(folder, r, films) for r in own)}</table>"
        for reason, own in by_reason
    )
    more = "" if films else "<p>Films of failures are kept with <code>--videos</code>.</p>"
    page = folder / PAGE
    temporary = page.with_name(f".{PAGE}.tmp")
    temporary.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Failures</title><style>{_STYLE}</style>'
        f"<h1>{len(failed)} of {len(results)} scenes failed</h1>{more}{body}</html>\n"
    )
    temporary.replace(page)
    return page


def _row(folder: Path, result: TrialResult, films: Path | None) -> str:
    attempts = "".join(f"<li>{_attempt(score)}</li>" for score in result.attempts)
    where = f"{result.objects} objects, {result.background}, {result.lighting}, seed {result.seed}"
    lifted = f"{result.lifted} of {result.wanted} lifted" if result.wanted > 1 else result.family
    film = _film(folder, films / f"{result.id}.mp4") if films else ""
    return (
        f'<tr id="{html.escape(result.id)}"><td><b>{html.escape(result.id)}</b><br><small>{html.escape(where)}</small>'
        f"</td><td>{html.escape(result.prompt)}<br><small>{html.escape(lifted)}</small></td>"
        f"<td><ol>{attempts}</ol><small>ended: {html.escape(result.end)}. {html.escape(result.detail)}</small></td>"
        f"<td>{film}</td></tr>"
    )


def _attempt(score: AttemptScore) -> str:
    came = "lifted" if score.success else score.reason
    how = f"box IoU {score.iou:.2f}, rose {100 * score.highest_m:.0f} cm, {score.seconds:.1f} s, {score.ending or '-'}"
    return f"{html.escape(score.instruction)}: <b>{html.escape(came)}</b> <small>({html.escape(how)})</small>"


def _film(folder: Path, path: Path) -> str:
    if not path.is_file():
        return ""
    link = html.escape(Path(os.path.relpath(path, folder)).as_posix())
    return f'<video src="{link}" controls muted preload="none"></video><br><a href="{link}">{link}</a>'
