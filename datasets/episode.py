"""An episode on its way from the recorder to the data set: rows at the data set's rate, videos already encoded.

Images are encoded once, at capture, as *all-intra* H.264: every packet decodes by itself, so aligning a 30 Hz camera
to a 20 Hz data set is a choice of packets, saving is a remux, and a journal that was cut off loses nothing but its
tail.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

LEARN_FROM = "learn_from_s"
"""Key of :attr:`EpisodeInfo.extra`: seconds from the first row on that a policy moved the robot, before a demonstrator
took over. What was done until then is shown, not to be imitated. Not there: everything is a demonstration."""


@dataclass(frozen=True)
class EncodedVideo:
    """One packet per row, in row order; the same packet stands twice where a camera was slower than the rows."""

    codec: str  # "h264" for colour; depth names its own
    pix_fmt: str
    width: int
    height: int
    extradata: bytes  # codec private data (SPS and PPS for H.264)
    packets: tuple[bytes, ...]  # len == rows
    is_depth: bool = False
    depth_unit_m: float = 0.0  # metres per count, depth only
    stats_frames: NDArray[np.generic] | None = None  # (M, H, W, 3 | 1): frames kept for the statistics, subsampled


@dataclass(frozen=True)
class EpisodeInfo:
    """What is known of an episode beside its rows."""

    task: str  # the language instruction
    success: bool | None = None  # None = not labelled
    note: str = ""
    operator: str = ""
    robot_type: str = "rm75_gor"
    seed: int | None = None
    extra: dict[str, object] = field(default_factory=dict)  # JSON: scene, target object, resolved configuration


@dataclass(frozen=True)
class AlignedEpisode:
    """Rows ready to append. ``columns`` holds every non-video feature of ``schema``, (rows, ...) each."""

    rate_hz: float
    columns: dict[str, NDArray[np.generic]]  # string columns are object arrays of str
    videos: dict[str, EncodedVideo]  # by feature key, e.g. observation.images.head
    info: EpisodeInfo

    @property
    def rows(self) -> int:
        return len(self.columns["timing.row_ns"])
