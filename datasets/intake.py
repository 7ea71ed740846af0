"""From a finished journal to an episode of the set, for everything that records."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .align import align
from .episode import AlignedEpisode, EpisodeInfo
from .home import raw_file
from .journal import compact
from .writer import DatasetWriter


def take_in(
    writer: DatasetWriter,
    journal: Path,
    info: EpisodeInfo,
    statistics: Mapping[str, NDArray[np.generic]] | None = None,
) -> tuple[int, AlignedEpisode]:
    """Append the journal's episode, keep its streams under ``raw/``, and remove the journal. Returns its index.

    ``info`` replaces the journal's; ``statistics`` as for :func:`.align.align`. Raises DatasetError where the journal
    holds too little for a row: then it is left where it is.
    """
    episode = align(journal, float(writer.schema.rate_hz), info, statistics)
    index = writer.append(episode, source=journal.name)
    # Named after the recording, not the episode: indices move when episodes are deleted, `source` stays.
    raw = raw_file(writer.root, journal.name)
    raw.parent.mkdir(exist_ok=True)
    compact(journal, raw, info)
    journal.unlink()
    return index, episode
