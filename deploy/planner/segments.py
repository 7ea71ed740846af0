"""Objects on the table: clusters of pixels above its plane, cut where two things touch (``cuts.py``)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .base import Box
from .cuts import Cutter, SegmentConfig
from .table import Array, Mask, Table

_CELL_M = 0.006  # squares of the table on which an object's points hang together
_LEAST_PIECE = 0.1  # of the points: a smaller piece that hangs apart is of another thing


@dataclass(frozen=True)
class Cluster:
    """The pixels of one thing, and where they are."""

    mask: Mask  # (H, W)
    box: Box
    points: NDArray[np.float32]  # (N, 3) m, world
    height_m: NDArray[np.float32]  # (N,) above the plane, in the order of points
    centroid_m: Array  # (3,) middle of its footprint, half of its height
    pixels: NDArray[np.intp]  # (N,) flat index of each point's pixel

    @property
    def area_px(self) -> int:
        return int(self.mask.sum())

    @property
    def top_m(self) -> float:
        """Its highest point above the table, noise left aside."""
        return float(np.percentile(self.height_m, 97))


def clusters(table: Table, lab: NDArray[np.float32], config: SegmentConfig | None = None) -> tuple[Cluster, ...]:
    """What stands on the table, from left to right in the picture. ``lab`` (H, W, 3) of the same exposure."""
    config = config or SegmentConfig()
    smallest = config.smallest_px(lab.shape[1])
    found = []
    for mask in islands(table, config, smallest):
        for part in _cut_up(mask, table, lab, config, smallest):
            cluster = make_cluster(part, table)
            if cluster is not None:
                found.append(cluster)
    return tuple(sorted(found, key=lambda cluster: cluster.box[0]))


def make_cluster(mask: Mask, table: Table) -> Cluster | None:
    """None where nothing of ``mask`` has a depth. What lies clearly apart from the rest of it is left out."""
    known = mask & table.valid
    if known.sum() < 12:
        return None
    together = hang_together(table.points[known][:, :2])
    if not together.all():
        stray = np.zeros_like(mask)
        stray[known] = ~together
        mask, known = mask & ~stray, known & ~stray
    rows, columns = np.nonzero(mask)
    points, height = table.points[known], table.height_m[known]
    low, high = np.percentile(points[:, :2], [2, 98], axis=0)
    centroid = np.array([*(low + high) / 2, 0.0], float)
    top = float(np.percentile(height, 97))
    centroid[2] = (table.plane.offset_m - table.plane.normal[:2] @ centroid[:2]) / table.plane.normal[2] + top / 2
    box = (float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
    return Cluster(mask, box, points, height, centroid, np.flatnonzero(known))


def hang_together(xy: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(N,): which of points (N, 2) m, seen from above, are of a piece that is more than a sliver.

    A cut through a cluster leaves a few pixels of one thing's rim on the other; they are beside it in the picture, and
    as far behind it on the table as one hides of the other.
    """
    cells = np.floor((xy - xy.min(0)) / _CELL_M).astype(int)
    count = np.zeros(cells.max(0) + 1, int)
    np.add.at(count, (cells[:, 0], cells[:, 1]), 1)
    _, pieces = cv2.connectedComponents((count > 1).astype(np.uint8), connectivity=8)
    piece = pieces[cells[:, 0], cells[:, 1]]
    size = np.bincount(piece)
    kept = size >= _LEAST_PIECE * len(xy)
    kept[0] = False
    return np.asarray(kept[piece]) if kept.any() else np.ones(len(xy), bool)


def to_lab(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """sRGB (..., 3) uint8 -> CIE L*a*b* (..., 3), L in 0..100."""
    if not rgb.size:
        return np.zeros(rgb.shape, np.float32)
    flat = np.ascontiguousarray(rgb).reshape(-1, 1, 3).astype(np.float32) / 255.0
    return np.asarray(cv2.cvtColor(flat, cv2.COLOR_RGB2LAB)).reshape(rgb.shape)


def islands(table: Table, config: SegmentConfig, smallest: int) -> list[Mask]:
    """Connected pixels above the plane, one mask each, with the small holes of stereo filled."""
    with np.errstate(invalid="ignore"):
        high = table.on_table & (table.height_m > config.grow_m) & (table.height_m < config.top_m)
        seeds = table.on_table & (table.height_m > config.seed_m)
    # Stereo leaves no depth along edges: a pixel or two that must not part a rim from its cup.
    closed = cv2.morphologyEx(high.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    closed &= ~(table.robot.astype(np.uint8)) & 1
    flat = table.valid & ~high
    count, labels = cv2.connectedComponents(closed & ~flat.astype(np.uint8) & 1, connectivity=4)
    seeded = np.bincount(labels[seeds], minlength=count)
    sizes = np.bincount(labels.ravel(), minlength=count)
    found = []
    for label in range(1, count):
        if sizes[label] >= smallest and seeded[label] >= 0.25 * smallest:
            found.append(_filled(labels == label, table.robot))
    return found


def _filled(mask: Mask, robot: Mask) -> Mask:
    """The mask without its holes: what a rim encloses is the cup's inside."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    out = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(out, contours, -1, 1, cv2.FILLED)
    return out.astype(bool) & ~robot


def _cut_up(mask: Mask, table: Table, lab: NDArray[np.float32], config: SegmentConfig, smallest: int) -> list[Mask]:
    """The mask, or the parts that it falls into."""
    cutter, window = cutter_for(mask, table, lab, smallest)
    parts = []
    for part in cutter.parts(mask[window], config):
        whole = np.zeros_like(mask)
        whole[window] = part
        parts.append(whole)
    return parts


def cutter_for(mask: Mask, table: Table, lab: NDArray[np.float32], smallest: int) -> tuple[Cutter, tuple[slice, slice]]:
    """The cutter of an island, and the window (rows, columns) that it works in."""
    rows, columns = np.nonzero(mask)
    window = (
        slice(max(int(rows.min()) - 3, 0), int(rows.max()) + 4),
        slice(max(int(columns.min()) - 3, 0), int(columns.max()) + 4),
    )
    height = np.nan_to_num(table.height_m[window])
    return Cutter(table.points[window], height, table.valid[window], lab[window], smallest), window
