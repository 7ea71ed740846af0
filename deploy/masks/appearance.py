"""Colours as histograms in CIE Lab, and the noise and plane of a stereo camera's depth."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ...hardware.description import CameraDescription
from ..table import plane_of

Floats = NDArray[np.float32]
Bins = NDArray[np.int32]

_SHAPE = (16, 32, 32)  # L in steps of 16, a and b in steps of 8, of OpenCV's 0..255
_EVEN = 0.02  # share of every colour's probability that is spread over as many bins as a scene commonly fills
_COMMON_BINS = 500
_FARTHEST_M = 20.0  # what the plane's depth is called beyond the horizon


def lab_of(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) RGB -> (H, W, 3) Lab, each 0..255."""
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB))


def bins_of(lab: NDArray[np.uint8]) -> Bins:
    """(H, W, 3) Lab -> (H, W) index of each pixel's colour."""
    channels = lab.astype(np.int32)
    return (channels[..., 0] >> 4) << 10 | (channels[..., 1] >> 3) << 5 | channels[..., 2] >> 3


class Colours:
    """How often each colour was seen. Empty at first: then every colour is as likely as any."""

    def __init__(self) -> None:
        self._counts = np.zeros(_SHAPE, np.float32)
        self._table: Floats | None = None

    @property
    def total(self) -> float:
        return float(self._counts.sum())

    def add(self, bins: Bins, fade: float = 1.0) -> None:
        """Count colours (N,), after what was known is faded by a factor of 0..1."""
        self._counts *= np.float32(fade)
        self._counts += np.bincount(bins.ravel(), minlength=self._counts.size).astype(np.float32).reshape(_SHAPE)
        self._table = None

    def likelihood(self, bins: Bins) -> Floats:
        """Probability of each pixel's colour, of the shape of ``bins``."""
        if self._table is None:
            even = np.float32(1.0 / _COMMON_BINS)
            if self.total < 1.0:
                self._table = np.full(self._counts.size, even, np.float32)
            else:
                smooth = self._counts
                for axis in range(3):  # [1 2 1] / 4: light and noise move a colour by about a bin
                    padded = np.pad(smooth, [(1, 1) if k == axis else (0, 0) for k in range(3)], mode="edge")
                    low, high = (np.take(padded, range(s, s + _SHAPE[axis]), axis) for s in (0, 2))
                    smooth = 0.5 * smooth + 0.25 * (low + high)
                self._table = ((1 - _EVEN) * smooth.ravel() / smooth.sum() + _EVEN * even).astype(np.float32)
        return self._table[bins]


def depth_noise_m(depth_m: Floats | np.float32, camera: CameraDescription) -> Floats:
    """Standard deviation m of measured depths: z^2 s / (f B), a stereo camera's."""
    factor = camera.disparity_noise_px / (camera.depth_focal_px * camera.baseline_m)
    return np.asarray(np.float32(factor) * np.square(depth_m), np.float32)


def fit_plane(depth_m: Floats, chosen: NDArray[np.bool_], camera: CameraDescription) -> Floats | None:
    """Depth (H, W) m of the plane through the chosen pixels, or None where they are too few or hold no plane.

    Least squares, then again on what agrees within three deviations of the camera's noise.
    """
    sigma = camera.disparity_noise_px / (camera.depth_focal_px * camera.baseline_m)  # of 1 / z, the same everywhere
    plane = plane_of(depth_m, chosen, sigma)
    return None if plane is None else np.minimum(plane.picture(*depth_m.shape), np.float32(_FARTHEST_M))
