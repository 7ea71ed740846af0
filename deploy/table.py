"""Planes in depth pictures: one fit for the planner's table, the check of a model's boxes, and the masks.

To a pinhole camera a plane is linear, 1 / z = a u + b v + c, whatever its intrinsics are; in the world a nearly level
one is, too, z = a x + b y + c. So all of them are one linear fit that leaves objects out: planes through three points
(RANSAC, scored as in MSAC: Torr and Zisserman 2000), then least squares over what lies in the best.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..hardware.errors import BadInput

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
DepthPicture = NDArray[np.float32]  # (H, W) m, 0 = invalid

SAMPLES = 3000  # points that a plane is fitted to
_LEAST = 30  # inliers
_SLIVER = 1e-6  # volume that three normalised points and the origin must span
_FARTHEST = 1e-6  # 1/m: rays that meet the plane beyond 1000 km do not meet it


@dataclass(frozen=True)
class LinearFit:
    """values = terms @ coefficients, for those that are inliers."""

    coefficients: Array  # (3,)
    inliers: Mask  # (N,)

    @property
    def share(self) -> float:
        """Of all values that are inliers, 0..1."""
        return float(self.inliers.mean())


def through_three(
    terms: Array, values: Array, tolerance: Array, rounds: int = 120, seed: int = 0, steepest: float = np.inf
) -> Array | None:
    """The coefficients (3,) through three of the rows that the most agree with: ``terms`` (N, 3), ``values`` (N,),
    ``tolerance`` (N,) or (1,) of a value, within which it counts. Of coefficients whose first two are longer than
    ``steepest`` none is tried. The same rows give the same answer; None where there is none.
    """
    triples = np.random.default_rng(seed).integers(len(values), size=(rounds, 3))
    corners = terms[triples]  # (rounds, 3, 3)
    size = np.maximum(np.abs(terms).max(0), 1e-12)
    sound = np.abs(np.linalg.det(corners / size)) > _SLIVER
    if not sound.any():
        return None
    tried = np.linalg.solve(corners[sound], values[triples[sound]][..., None])[..., 0]  # (m, 3)
    tried = tried[np.hypot(tried[:, 0], tried[:, 1]) <= steepest]
    if not len(tried):
        return None
    off = (tried @ terms.T - values) / tolerance  # (m, N)
    # Truncated squares, not a count: among planes with as many inliers the middle one wins.
    return np.asarray(tried[int(np.maximum(1.0 - off**2, 0.0).sum(1).argmax())])


def refined(terms: Array, values: Array, tolerance: Array, start: Mask, widths: tuple[float, ...]) -> LinearFit | None:
    """Least squares over the rows ``start`` (N,), then over those within each of ``widths`` tolerances of it. None
    where fewer than 30 agree."""
    fit = LinearFit(np.zeros(3), start)
    for width in widths:
        if fit.inliers.sum() < _LEAST:
            return None
        solved = np.linalg.lstsq(terms[fit.inliers], values[fit.inliers], rcond=None)[0]
        coefficients = np.asarray(solved, np.float64)
        fit = LinearFit(coefficients, np.abs(terms @ coefficients - values) < width * tolerance)
    return fit


@dataclass(frozen=True)
class PlaneDepth:
    """A plane as a pinhole camera sees it: 1 / z = a u + b v + c, whatever the intrinsics are."""

    coefficients: Array  # (3,) 1/m per pixel, 1/m per pixel, 1/m
    noise_m: float = 0.0  # standard deviation of the depth of what lies on it
    share: float = 1.0  # of the pixels that were looked at and lie on it

    def __call__(self, u: NDArray[np.integer], v: NDArray[np.integer]) -> Array:
        """Depth in m of the plane at pixels (u, v); infinite where it does not cross the ray."""
        inverse = u * self.coefficients[0] + v * self.coefficients[1] + self.coefficients[2]
        return np.where(inverse > _FARTHEST, 1.0 / np.maximum(inverse, _FARTHEST), np.inf)

    def picture(self, height: int, width: int) -> DepthPicture:
        """(H, W) m: the plane's depth at every pixel."""
        return np.asarray(self(np.arange(width)[None], np.arange(height)[:, None]), np.float32)


def plane_in(depth_m: DepthPicture, near_m: float, chosen: Mask | None = None, seed: int = 0) -> PlaneDepth | None:
    """The plane on which most of a depth picture lies, of the pixels ``chosen`` (H, W) or of all; what is within
    ``near_m`` of it is on it. None where fewer than 30 are."""
    rows, columns, z = _some(depth_m, chosen, seed)
    if len(z) < 100:
        return None
    terms, values = _picture_terms(rows, columns), 1.0 / z
    tolerance = near_m / z**2  # of 1 / z
    start = through_three(terms, values, tolerance, seed=seed)
    if start is None:
        return None
    fit = refined(terms, values, tolerance, np.abs(terms @ start - values) < tolerance, (1.0, 1.0))
    return None if fit is None else _plane(fit, z, terms)


def plane_of(depth_m: DepthPicture, chosen: Mask, sigma_per_m: float) -> PlaneDepth | None:
    """The plane through the pixels ``chosen`` (H, W), most of which lie on it; ``sigma_per_m`` is the standard
    deviation of 1 / z, which stereo has the same everywhere. None where they are too few or hold no plane."""
    rows, columns, z = _some(depth_m, chosen, None)
    if len(z) < _LEAST:
        return None
    terms, values = _picture_terms(rows, columns), 1.0 / z
    tolerance = np.full(1, sigma_per_m)
    start = np.abs(values - np.median(values)) < 0.3
    fit = refined(terms, values, tolerance, start, (10.0, 5.0, 3.0, 3.0))
    return None if fit is None else _plane(fit, z, terms)


def _some(depth_m: DepthPicture, chosen: Mask | None, seed: int | None) -> tuple[Array, Array, Array]:
    """Rows, columns and depths of at most ``SAMPLES`` pixels that have one, evenly, or at random for a ``seed``."""
    if depth_m.ndim != 2 or (chosen is not None and chosen.shape != depth_m.shape):
        shape = None if chosen is None else chosen.shape
        raise BadInput(f"a depth picture of {depth_m.shape} and pixels of {shape}: expected (H, W), both alike")
    seen = np.isfinite(depth_m) & (depth_m > 0)
    rows, columns = np.nonzero(seen if chosen is None else seen & chosen)
    if seed is None:
        some = slice(None, None, max(1, len(rows) // SAMPLES))
        rows, columns = rows[some], columns[some]
    elif len(rows) > SAMPLES:
        drawn = np.random.default_rng(seed).choice(len(rows), SAMPLES, replace=False)
        rows, columns = rows[drawn], columns[drawn]
    return rows.astype(float), columns.astype(float), depth_m[rows, columns].astype(float)


def _picture_terms(rows: Array, columns: Array) -> Array:
    return np.stack([columns, rows, np.ones_like(rows)], -1)


def _plane(fit: LinearFit, z: Array, terms: Array) -> PlaneDepth:
    inverse = np.maximum(terms[fit.inliers] @ fit.coefficients, _FARTHEST)
    off = np.abs(1.0 / inverse - z[fit.inliers])
    # Of a normal distribution, whatever else is among the inliers.
    noise_m = 1.4826 * float(np.median(off)) if len(off) else 0.0
    return PlaneDepth(fit.coefficients, noise_m, fit.share)
