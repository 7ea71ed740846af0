"""Where data sets live, and how a user names one and an episode in it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..hardware.errors import BadInput

JOURNALS = "journals"
RAW = "raw"  # kept episodes' streams at their own rates, named as their journals, without pictures


def home() -> Path:
    """``DEXLOOP_HOME``, or the current folder."""
    return Path(os.environ.get("DEXLOOP_HOME") or ".").expanduser()


def resolve(name_or_path: str) -> Path:
    """A path (with a slash, or ``.``) as it is; a bare name under ``recordings/`` of :func:`home`."""
    if not name_or_path.strip():
        raise BadInput("--dataset is empty: give a name under recordings/ or a path.")
    if "/" in name_or_path or os.sep in name_or_path or name_or_path in (".", ".."):
        return Path(name_or_path).expanduser()
    return home() / "recordings" / name_or_path


def resolve_existing(name_or_path: str) -> Path:
    """As :func:`resolve`; raises BadInput unless a data set (or the journals of one) is there."""
    root = resolve(name_or_path)
    if (root / "meta" / "info.json").exists() or (root / JOURNALS).is_dir() or (root / "meta").is_dir():
        return root
    known = sorted(path.parent.parent.name for path in (home() / "recordings").glob("*/meta/info.json"))
    have = f"recordings/ has {', '.join(known)}" if known else "recordings/ is empty: record with `collect`"
    raise BadInput(f"there is no data set at {root}; {have}.")


def journals_dir(root: Path) -> Path:
    """Where the journals of episodes that are being recorded into ``root`` are kept."""
    return root / JOURNALS


def raw_file(root: Path, source: str) -> Path:
    """Where the streams of the episode that was recorded as the journal ``source`` are kept."""
    return root / RAW / f"{source.removesuffix('.journal.h5')}.h5"


def parse_episode(text: str, total: int) -> int:
    """``episode_42`` or ``42`` -> 42. Raises BadInput, saying which there are."""
    match = re.fullmatch(r"(?:episode_)?(\d+)", text.strip())
    have = f"the data set has {f'0..{total - 1}' if total > 1 else 'only 0' if total else 'no episodes'}"
    if match is None:
        raise BadInput(f"{text!r} is not an episode: write episode_3 or 3; {have}.")
    index = int(match[1])
    if index >= total:
        raise BadInput(f"episode {index} does not exist: {have}.")
    return index
