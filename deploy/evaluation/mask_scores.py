"""How good a tracked mask is, by how much of the target is hidden: J, the intersection over union with the truth.

J is the region similarity of DAVIS (Perazzi et al. 2016); a frame in which nothing of the target shows and nothing is
claimed counts 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..masks.base import Mask

GROUPS = ("none", "0-50 %", "> 50 %", "all")
NONE_BELOW = 0.03  # a pixel of the outline more or less is no occlusion


@dataclass(frozen=True)
class MaskFrame:
    """One tracked picture."""

    hidden: float  # share of the target that something is in front of, 0..1
    j: float  # of the visible mask
    amodal_j: float  # of the mask with what is hidden; NaN where its truth is not known
    cpu_ms: float  # of the tracker, one thread
    lost: bool  # the tracker says so

    @property
    def group(self) -> str:
        return group_of(self.hidden)


def mask_iou(a: Mask, b: Mask) -> float:
    """Of two masks (H, W); 1 where both are empty."""
    union = int((a | b).sum())
    return 1.0 if union == 0 else int((a & b).sum()) / union


def group_of(hidden: float) -> str:
    """The bin of a hidden share."""
    if hidden >= 1.0:
        return "all"
    return "none" if hidden < NONE_BELOW else "0-50 %" if hidden <= 0.5 else "> 50 %"


def mask_figures(clips: Sequence[Sequence[MaskFrame]]) -> dict[str, Any]:
    """The figures of several clips, ready for JSON. J of a group is the mean of its frames; the interval is over clips
    (frames of one clip are not independent): the mean of the clips' own means, plus and minus 1.96 of its error."""
    frames = [frame for clip in clips for frame in clip]
    times = [frame.cpu_ms for frame in frames] or [0.0]
    out: dict[str, Any] = {"clips": len(clips), "frames": len(frames), "j": {}}
    for group in GROUPS:
        own = [frame for frame in frames if frame.group == group]
        if not own:
            continue
        means = [mean for clip in clips if (mean := _mean(f.j for f in clip if f.group == group)) is not None]
        amodal = [frame.amodal_j for frame in own if not np.isnan(frame.amodal_j)]
        out["j"][group] = {
            "frames": len(own),
            "clips": len(means),
            "mean": round(float(np.mean([frame.j for frame in own])), 4),
            "median": round(float(np.median([frame.j for frame in own])), 4),
            "per_clip": [round(value, 4) for value in _spread(means)],
            "amodal_mean": round(float(np.mean(amodal)), 4) if amodal else None,
            "lost": round(float(np.mean([frame.lost for frame in own])), 4),
        }
    out["lost"] = round(float(np.mean([float(frame.lost) for frame in frames] or [0.0])), 4)
    out["cpu_ms"] = {"mean": round(float(np.mean(times)), 2)} | {
        f"p{p}": round(float(np.percentile(times, p)), 2) for p in (50, 95, 99)
    }
    return out


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return float(np.mean(found)) if found else None


def _spread(means: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and its ends."""
    middle = float(np.mean(means))
    half = 1.96 * float(np.std(means, ddof=1)) / np.sqrt(len(means)) if len(means) > 1 else 1.0
    return middle, max(0.0, middle - half), min(1.0, middle + half)


def mask_text(figures: dict[str, Any]) -> str:
    """The figures as lines of text."""
    lines = [
        f"{figures['clips']} clips, {figures['frames']} pictures",
        "hidden      J mean  median  amodal   lost   pictures   mean of clips",
    ]
    for group, found in figures["j"].items():
        middle, low, high = found["per_clip"]
        amodal = "      -" if found["amodal_mean"] is None else f"{found['amodal_mean']:7.3f}"
        lines.append(
            f"{group:10s} {found['mean']:7.3f} {found['median']:7.3f} {amodal} {found['lost']:6.1%} "
            f"{found['frames']:10d}   {middle:.3f} ({low:.3f}..{high:.3f}) of {found['clips']}"
        )
    spent = figures["cpu_ms"]
    lines.append("(hidden all: J is 1 where the tracker shows nothing either)")
    lines.append(
        f"CPU of one thread: mean {spent['mean']:.1f} ms, p50 {spent['p50']:.1f}, p95 {spent['p95']:.1f}, "
        f"p99 {spent['p99']:.1f} a picture"
    )
    return "\n".join(lines)
