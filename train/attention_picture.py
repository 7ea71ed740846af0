"""Pictures of where a controller looks: heat over head and wrist view, the target's outline, what got how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .attention_maps import Grid
from .views import Observation, cut

Picture = NDArray[np.uint8]  # (H, W, 3) RGB
HEIGHT = 480  # of a view, px
_BAR = 96  # width of the colour bar with its numbers
_FOOT = 84
_TARGET = (90, 255, 120)
_TEXT, _GROUND = (235, 235, 235), (24, 24, 24)
_GROUPS = (
    (76, 114, 176),
    (221, 132, 82),
    (85, 168, 104),
    (196, 78, 82),
    (129, 114, 179),
    (147, 120, 96),
    (140, 140, 140),
)


@dataclass(frozen=True)
class Look:
    """What is drawn over one moment."""

    row: int
    maps: Mapping[str, NDArray[np.floating]]  # picture group -> (rows, columns) of attention
    origins: Mapping[str, tuple[int, int]]  # picture group -> corner of its window, where it has one
    shares: Mapping[str, float]  # of every token group; they add to 1
    on_target: Mapping[str, tuple[float, float]]  # picture group -> share of its attention, share of its area
    title: str


def density(attention: NDArray[np.floating]) -> NDArray[np.float32]:
    """Attention of a picture's places, as multiples of what each would get if all got the same."""
    return np.asarray(attention / max(float(attention.mean()), 1e-12), np.float32)


def spread(
    heat: NDArray[np.float32], grid: Grid, origin: tuple[int, int] | None, size: tuple[int, int]
) -> NDArray[np.float32]:
    """(rows, columns) -> (height, width) of a camera's picture of ``size`` (width, height); NaN where a window does
    not reach."""
    view = grid.view
    inside = (view.window, view.window) if view.window else (view.width, view.height)
    smooth = cv2.resize(heat, inside, interpolation=cv2.INTER_LINEAR)
    if origin is None:
        return cv2.resize(smooth, size, interpolation=cv2.INTER_LINEAR)
    # The picture's corner in the window is minus the window's corner in the picture.
    back, side = (-origin[0], -origin[1]), max(view.width, view.height)
    whole = cut(smooth, back, side)[: view.height, : view.width]
    reached = cut(np.ones_like(smooth, np.uint8), back, side)[: view.height, : view.width]
    out = cv2.resize(whole.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    out[cv2.resize(reached.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) == 0] = np.nan
    return out


def draw(look: Look, moment: Observation, grids: Mapping[str, Grid], most: float, mask_camera: str = "head") -> Picture:
    """The views side by side, that of ``mask_camera`` also where it has no tokens of its own. ``most``: the density
    that gets the colour bar's last colour."""
    panels = [_panel(name, grid, look, moment, most, mask_camera) for name, grid in grids.items()]
    if mask_camera not in {grid.view.camera for grid in grids.values()}:
        panels.insert(0, _bare_panel(moment, mask_camera))
    body = np.concatenate([*panels, _colour_bar(most)], 1)
    out = np.concatenate([_title(look.title, body.shape[1]), body, _foot(look, body.shape[1])], 0)
    return np.ascontiguousarray(out[: out.shape[0] // 2 * 2, : out.shape[1] // 2 * 2])  # H.264 wants even sides


def _panel(name: str, grid: Grid, look: Look, moment: Observation, most: float, mask_camera: str) -> Picture:
    rgb = moment.rgb[grid.view.camera]
    height, width = rgb.shape[:2]
    size = (round(HEIGHT * width / height), HEIGHT)
    heat = spread(density(look.maps[name]), grid, look.origins.get(name), size)
    shown = np.nan_to_num(np.clip(heat / most, 0, 1))
    colours = cv2.cvtColor(cv2.applyColorMap((255 * shown).astype(np.uint8), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    # Little attention leaves the picture as it is; where the window does not reach, it is dimmed.
    opacity = np.where(np.isnan(heat), 0.0, 0.15 + 0.6 * np.sqrt(shown))[..., None]
    picture = cv2.resize(rgb, size, interpolation=cv2.INTER_LINEAR).astype(np.float32)
    picture *= np.where(np.isnan(heat), 0.45, 1.0)[..., None]
    out = (picture * (1 - opacity) + colours * opacity).round().astype(np.uint8)
    if grid.view.camera == mask_camera:
        _outline(out, moment)
    words = f"{name} {look.shares[name]:.0%}"
    if name in look.on_target:
        attention, area = look.on_target[name]
        words += f", of it {attention:.0%} on the target, which covers {area:.1%}"
    return _caption(out, words)


def _bare_panel(moment: Observation, camera: str) -> Picture:
    """A picture that the controller knows by the target's geometry only."""
    rgb = moment.rgb[camera]
    out = cv2.resize(rgb, (round(HEIGHT * rgb.shape[1] / rgb.shape[0]), HEIGHT), interpolation=cv2.INTER_LINEAR)
    _outline(out, moment)
    return _caption(out, f"{camera}: no tokens of its own")


def _outline(picture: Picture, moment: Observation) -> None:
    mask = cv2.resize(moment.mask.astype(np.uint8), picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, _TARGET, 2, cv2.LINE_AA)


def _caption(picture: Picture, words: str) -> Picture:
    cv2.rectangle(picture, (0, 0), (16 + 9 * len(words), 28), _GROUND, -1)
    return _write(picture, words, (8, 20))


def _colour_bar(most: float) -> Picture:
    out = np.full((HEIGHT, _BAR, 3), _GROUND, np.uint8)
    ramp = np.linspace(255, 0, HEIGHT - 80).astype(np.uint8)[:, None].repeat(20, 1)
    out[56:-24, 8:28] = cv2.cvtColor(cv2.applyColorMap(ramp, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    _write(out, "times", (8, 20))
    _write(out, "even", (8, 40))
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = round(56 + (1 - share) * (HEIGHT - 81))
        _write(out, f"{share * most:.1f}", (34, y + 5))
    return out


def _title(text: str, width: int) -> Picture:
    return _write(np.full((32, width, 3), _GROUND, np.uint8), text, (8, 21))


def _foot(look: Look, width: int) -> Picture:
    """A bar that is divided among the token groups, and their names under it."""
    out = np.full((_FOOT, width, 3), _GROUND, np.uint8)
    at, x = 8.0, 8
    for i, (name, share) in enumerate(look.shares.items()):
        colour, following = _GROUPS[i % len(_GROUPS)], at + share * (width - 16)
        cv2.rectangle(out, (round(at), 10), (max(round(following) - 1, round(at)), 36), colour, -1)
        at = following
        cv2.rectangle(out, (x, 52), (x + 13, 65), colour, -1)
        words = f"{name} {share:.1%}"
        _write(out, words, (x + 20, 64))
        x += 44 + 9 * len(words)
    return out


def _write(picture: Picture, text: str, at: tuple[int, int]) -> Picture:
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.47, _TEXT, 1, cv2.LINE_AA)
    return picture
