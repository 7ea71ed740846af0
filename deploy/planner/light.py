"""The light on the table: its tint, judged by the robot's own neutral housing, and how it changes over the table.

A table is of one material: where it looks redder or darker than elsewhere, the light is. Patterns average out of a
surface of second order through all its pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .table import Array, Mask, Table

_FLAT_M = 0.006  # above or below the plane: the table's own surface
_FEW = 3000  # pixels that the surface is fitted to
_MIDDLE_M, _UNIT_M = np.array([0.40, 0.0]), np.array([0.30, 0.40])  # table coordinates of about -1..1
_FARTHEST = 1.3  # beyond it the surface is not followed
_STRONGEST = float(np.log(3.0))  # change of light that is taken out
_DARKEST = 0.02  # sRGB value below which a channel holds noise alone


@dataclass(frozen=True)
class Light:
    """The light on the table in one picture. Factors are of linear RGB."""

    tint: Array  # (3,) logarithm of what makes the housing grey; 0 where it is not in view
    level: float  # 0..1, sRGB value of the housing's bright half; 0 where it is not in view
    field: Array  # (6, 3) logarithm of the light at a place on the table, above its median: coefficients of _terms
    spread: Array  # (3,) deviation of that over the table

    @classmethod
    def of(cls, rgb: NDArray[np.uint8], table: Table) -> Light:
        """Of a picture (H, W, 3) and its table."""
        tint, level = np.zeros(3), 0.0
        seen = rgb[table.robot]
        if len(seen) >= 0.0025 * table.robot.size:
            bright = seen.astype(np.float32).sum(1)
            half = np.median(seen[bright >= np.percentile(bright, 50)], axis=0) / 255.0
            linear = np.maximum(half, _DARKEST) ** 2.2
            tint, level = np.log(linear.mean() / linear), float(linear.mean() ** (1 / 2.2))
        field, spread = _field(rgb, table)
        return cls(tint, level, field, spread)

    def balanced(self, rgb: NDArray[np.uint8], table: Table | None = None) -> NDArray[np.uint8]:
        """The picture (..., 3) as under white light; with its ``table``, as under light that is also even.

        Of the tint at most a third is taken out per channel; how bright it is all over is left, since shading tells
        as well.
        """
        linear = (rgb / np.float32(255.0)) ** np.float32(2.2) * np.clip(np.exp(self.tint), 0.67, 1.5).astype(np.float32)
        if table is not None:
            linear[table.valid] *= np.exp(-self._over_median(table.points[table.valid])).astype(np.float32)
        out = 255.0 * np.clip(linear, 0.0, 1.0) ** np.float32(1 / 2.2)
        return np.asarray(out.round(), np.uint8)

    def at(self, point_m: Array) -> Array:
        """(9,) what is known of the light at a point: how it differs from the table's median and from white, and how
        much it changes over the table."""
        return np.concatenate([self._over_median(point_m), self.tint, self.spread])

    def _over_median(self, points: NDArray[np.floating]) -> Array:
        return np.clip(_terms(points) @ self.field, -_STRONGEST, _STRONGEST)


def _field(rgb: NDArray[np.uint8], table: Table) -> tuple[Array, Array]:
    on_plane: Mask = table.on_table & (np.abs(np.nan_to_num(table.height_m, nan=1.0)) < _FLAT_M)
    chosen = np.flatnonzero(on_plane)
    if len(chosen) < 500:
        return np.zeros((6, 3)), np.zeros(3)
    chosen = chosen[:: max(1, len(chosen) // _FEW)]
    terms = _terms(table.points.reshape(-1, 3)[chosen].astype(float))
    value = np.log(np.maximum(rgb.reshape(-1, 3)[chosen] / 255.0, _DARKEST) ** 2.2)
    weight = np.ones(len(chosen))
    field = np.zeros((6, 3))
    for _ in range(6):  # what is off, print and shadow, counts less
        weighted = weight[:, None] * terms
        field = np.linalg.lstsq(weighted.T @ terms, weighted.T @ value, rcond=None)[0]
        off = np.linalg.norm(value - terms @ field, axis=1)
        weight = 1.0 / np.maximum(1.0, off / (1.5 * np.median(off) + 1e-6))
    fitted = terms @ field
    field[0] -= np.median(fitted, axis=0)
    return field, fitted.std(0)


def _terms(points: NDArray[np.floating]) -> Array:
    """(..., 2 or 3) m -> (..., 6)."""
    x, y = np.moveaxis(np.clip((points[..., :2] - _MIDDLE_M) / _UNIT_M, -_FARTHEST, _FARTHEST), -1, 0)
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], -1)
