"""What a real tracker and camera do to masks, depth and colours, for training.

Everything is drawn from :class:`.draws.Draws` and done for the whole batch at once; each function takes whole pictures
or windows alike. ``noise`` is a strength: 1 as a real tracker and camera, 0 changes nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .draws import Draws
from .geometry import grown

# Chances and sizes at strength 1.
EDGE_CHANCE = 0.7  # that a mask's edge is off by one or two pixels, inwards or outwards
HOLE_CHANCE, HOLE_SHARE = 0.3, 0.1  # that a mask or depth picture has holes, and the share of it that they take
DROP_CHANCE, WRONG_CHANCE, LAG_CHANCE = 0.03, 0.02, 0.3  # that a mask is empty, elsewhere, or of a few rows earlier
DEPTH_SMOOTH, DEPTH_PIXEL = 0.004, 0.002  # deviation of depth errors, m at 1 m: over 16 pixels, and of each pixel
_BLOB = 8  # pixels: how large holes are
_SMOOTH = 16  # pixels: over which smooth depth errors change

# YIQ (NTSC): brightness, then a plane of colours in which the hue is an angle.
_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def jitter_colours(rgb: Tensor, strength: tuple[float, float, float, float], draws: Draws) -> Tensor:
    """rgb (B, 3, H, W) in 0..1 -> the same, each picture with its own brightness, contrast, saturation (factors within
    1 -+ strength) and hue (turned by up to strength x 360 deg in YIQ, where it is linear and cheap, unlike in HSV)."""
    sides = (2 * draws.uniform(4) - 1).to(rgb) * torch.tensor(strength).to(rgb)  # (B, 4)
    brightness, contrast, saturation = (1 + sides[:, :3]).clamp_min(0).unbind(1)
    cos, sin = torch.cos(2 * torch.pi * sides[:, 3]), torch.sin(2 * torch.pi * sides[:, 3])
    turn = torch.zeros(len(rgb), 3, 3, device=rgb.device, dtype=rgb.dtype)
    turn[:, 0, 0] = 1
    turn[:, 1, 1], turn[:, 1, 2], turn[:, 2, 1], turn[:, 2, 2] = (
        saturation * cos,
        -saturation * sin,
        saturation * sin,
        saturation * cos,
    )
    yiq = _YIQ.to(rgb)
    gain = brightness * contrast
    matrix = torch.linalg.inv(yiq) @ turn @ yiq * gain[:, None, None]
    grey = (rgb.mean((2, 3)) @ yiq[0]) * brightness * (1 - contrast)  # (B,) what contrast adds to every channel
    return ((matrix @ rgb.flatten(2)).reshape(rgb.shape) + grey[:, None, None, None]).clamp(0, 1)


def corrupt_edges(mask: Tensor, noise: float, draws: Draws) -> Tensor:
    """mask (B, H, W) bool -> eroded or dilated by 0 to 2 pixels, with holes; never emptied by it."""
    if not noise:
        return mask
    pick, kind, holed = draws.uniform(), draws.integers(4), draws.uniform()
    kind = torch.where(pick < min(1.0, EDGE_CHANCE * noise), kind, 4).to(mask.device)
    out = mask
    for base, first in ((mask, 0), (~mask, 2)):  # what grows beside the target erodes it
        larger = base
        for which in (first, first + 1):
            larger = grown(larger)
            out = torch.where((kind == which)[:, None, None], larger ^ (first > 0), out)
    holes = _blobs(mask, HOLE_SHARE, draws) & (holed < HOLE_CHANCE * noise).to(mask.device)[:, None, None]
    out = out & ~holes
    left = out.flatten(1).any(1)
    return torch.where(left[:, None, None], out, mask)


def corrupt_tracking(mask: Tensor, lagged: Tensor | None, noise: float, draws: Draws) -> Tensor:
    """mask (B, H, W) bool -> lost, somewhere else, or late: then ``lagged`` (B, H, W), the mask of earlier, None where
    there is none."""
    if not noise:
        return mask
    fate, shift = draws.uniform().to(mask.device), draws.uniform(2).to(mask.device)
    late = draws.uniform().to(mask.device) < LAG_CHANCE * noise
    if lagged is not None:
        mask = torch.where(late[:, None, None], lagged, mask)
    wrong = fate < WRONG_CHANCE * noise
    # A tenth to a third of the picture away, to either side.
    side = torch.tensor([mask.shape[2], mask.shape[1]], device=mask.device)
    offset = ((0.1 + 0.23 * (2 * shift - 1).abs()) * side * (2 * shift - 1).sign()).round().long()
    mask = torch.where(wrong[:, None, None], moved(mask, offset), mask)
    lost = (fate >= WRONG_CHANCE * noise) & (fate < (WRONG_CHANCE + DROP_CHANCE) * noise)
    return mask & ~lost[:, None, None]


def moved(mask: Tensor, offset: Tensor) -> Tensor:
    """mask (B, H, W) bool moved by offset (B, 2) pixels (x, y), what comes in is empty."""
    height, width = mask.shape[1:]
    x = torch.arange(width, device=mask.device) - offset[:, :1]  # (B, W): where each column comes from
    y = torch.arange(height, device=mask.device) - offset[:, 1:]
    inside = ((x >= 0) & (x < width))[:, None, :] & ((y >= 0) & (y < height))[:, :, None]
    place = y.clamp(0, height - 1)[:, :, None] * width + x.clamp(0, width - 1)[:, None, :]
    return mask.flatten(1).gather(1, place.flatten(1)).reshape(mask.shape) & inside


def corrupt_depth(depth: Tensor, noise: float, draws: Draws) -> Tensor:
    """depth (B, H, W) m, 0 invalid -> with smooth and with pixel errors that grow with the square of the distance (as
    stereo's do), and holes. What is invalid stays so."""
    if not noise:
        return depth
    height, width = depth.shape[1:]
    coarse = draws.normal(1, -(-height // _SMOOTH) + 1, -(-width // _SMOOTH) + 1).to(depth)
    smooth = interpolate(coarse, size=(height, width), mode="bilinear", align_corners=True)[:, 0]
    error = DEPTH_SMOOTH * smooth + DEPTH_PIXEL * draws.normal(height, width).to(depth)
    holed = (draws.uniform() < HOLE_CHANCE * noise).to(depth.device)
    holes = _blobs(depth, HOLE_SHARE, draws) & holed[:, None, None]
    return torch.where((depth > 0) & ~holes, (depth + noise * error * depth**2).clamp_min(1e-3), 0.0)


def _blobs(like: Tensor, share: float, draws: Draws) -> Tensor:
    """(B, H, W) bool, true in blobs that take about ``share`` of the picture."""
    height, width = like.shape[1:]
    coarse = draws.uniform(1, -(-height // _BLOB), -(-width // _BLOB)).to(like.device)
    return interpolate(coarse, size=(height, width), mode="nearest")[:, 0] < share
