"""Procedural pictures: what objects, table, floor and walls are painted with. Every picture is a function of a seed."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Picture = NDArray[np.uint8]  # (H, W, 3), first row at the top
Rgb = tuple[float, float, float]

# Named colours, sRGB in [0, 1]: the words of the language instruction.
COLOURS: dict[str, Rgb] = {
    "red": (0.78, 0.10, 0.10),
    "orange": (0.93, 0.48, 0.08),
    "yellow": (0.93, 0.80, 0.14),
    "green": (0.16, 0.56, 0.20),
    "blue": (0.12, 0.26, 0.72),
    "turquoise": (0.16, 0.68, 0.70),
    "purple": (0.45, 0.18, 0.60),
    "pink": (0.93, 0.52, 0.66),
    "white": (0.92, 0.92, 0.90),
    "black": (0.09, 0.09, 0.10),
    "grey": (0.50, 0.51, 0.53),
    "brown": (0.44, 0.27, 0.14),
}


def stable_seed(*keys: str | int) -> list[int]:
    """Entropy for a SeedSequence from words and numbers: the same in every process, unlike ``hash``."""
    return [zlib.crc32(key.encode()) if isinstance(key, str) else key for key in keys]


def _bytes(rgb: Rgb) -> tuple[int, int, int]:
    r, g, b = (int(np.clip(round(255 * channel), 0, 255)) for channel in rgb)
    return r, g, b


def _flat(rgb: Rgb, height: int, width: int) -> Picture:
    return np.broadcast_to(np.array(_bytes(rgb), np.uint8), (height, width, 3)).copy()


def smooth_noise(rng: Generator, height: int, width: int, cells: int, stretch: int = 1) -> NDArray[np.float64]:
    """Cloudy noise (H, W) in [0, 1] that tiles; ``stretch`` > 1 draws it out along the width, as wood grain."""
    grid = rng.random((cells * stretch, cells))
    grid = np.pad(grid, ((0, 1), (0, 1)), mode="wrap")
    rows = np.linspace(0, cells * stretch, height, endpoint=False)
    columns = np.linspace(0, cells, width, endpoint=False)
    r0, c0 = rows.astype(int), columns.astype(int)
    fr, fc = (rows - r0)[:, None], (columns - c0)[None]
    fr, fc = fr * fr * (3 - 2 * fr), fc * fc * (3 - 2 * fc)
    top = grid[r0][:, c0] * (1 - fc) + grid[r0][:, c0 + 1] * fc
    low = grid[r0 + 1][:, c0] * (1 - fc) + grid[r0 + 1][:, c0 + 1] * fc
    return top * (1 - fr) + low * fr


def _blend(base: Rgb, other: Rgb, amount: NDArray[np.float64]) -> Picture:
    """Mix two colours by (H, W) amounts in [0, 1]."""
    mix = np.array(base) + (np.array(other) - np.array(base)) * np.clip(amount, 0, 1)[..., None]
    return np.clip(mix * 255, 0, 255).astype(np.uint8)


def shade(rgb: Rgb, factor: float) -> Rgb:
    r, g, b = (float(np.clip(channel * factor, 0, 1)) for channel in rgb)
    return r, g, b


def _text_lines(
    draw: ImageDraw.ImageDraw, rng: Generator, area: tuple[int, int, int, int], ink: tuple[int, int, int]
) -> None:
    """Rows of little strokes that read as print from half a metre away."""
    x0, y0, x1, y1 = area
    y = y0
    while y + 4 <= y1:
        height = int(rng.integers(3, 7))
        x = x0 + int(rng.integers(0, 6))
        while x < x1 - 4:
            word = int(rng.integers(4, 16))
            for k in range(x, min(x + word, x1), 3):
                draw.rectangle((k, y + int(rng.integers(0, 2)), k + 1, y + height - 1), fill=ink)
            x += word + 4
        y += height + 4


def _logo(
    draw: ImageDraw.ImageDraw, rng: Generator, center: tuple[int, int], radius: int, ink: tuple[int, int, int]
) -> None:
    x, y = center
    kind = int(rng.integers(0, 4))
    frame = (x - radius, y - radius, x + radius, y + radius)
    if kind == 0:
        draw.ellipse(frame, fill=ink)
    elif kind == 1:
        draw.rectangle(frame, outline=ink, width=max(radius // 4, 2))
        draw.line((x - radius, y + radius, x + radius, y - radius), fill=ink, width=max(radius // 4, 2))
    elif kind == 2:
        turn = rng.uniform(0, 2 * np.pi)
        star = [
            (x + radius * (1.0 if k % 2 == 0 else 0.45) * np.cos(turn + k * np.pi / 5),
             y + radius * (1.0 if k % 2 == 0 else 0.45) * np.sin(turn + k * np.pi / 5))
            for k in range(10)
        ]  # fmt: skip
        draw.polygon(star, fill=ink)
    else:
        draw.polygon([(x, y - radius), (x + radius, y + radius), (x - radius, y + radius)], fill=ink)


def _plain(rng: Generator, size: int, base: Rgb, accent: Rgb) -> Picture:
    return _blend(base, shade(base, 0.85), 0.5 * smooth_noise(rng, size, size, 4))


def _label(rng: Generator, size: int, base: Rgb, accent: Rgb) -> Picture:
    image = Image.fromarray(_flat(base, size, size))
    draw = ImageDraw.Draw(image)
    top, low = int(size * rng.uniform(0.28, 0.4)), int(size * rng.uniform(0.68, 0.8))
    paper = _bytes(accent)
    ink = _bytes(shade(base, 0.6))
    draw.rectangle((0, top, size, low), fill=paper)
    for k in range(2):  # twice around, so that one is always in sight
        x = int(size * (0.25 + 0.5 * k))
        _logo(draw, rng, (x - size // 9, (top + low) // 2), (low - top) // 4, ink)
        _text_lines(draw, rng, (x, top + size // 24, x + size // 5, low - size // 24), ink)
    return np.asarray(image).copy()


def _logo_only(rng: Generator, size: int, base: Rgb, accent: Rgb) -> Picture:
    image = Image.fromarray(_flat(base, size, size))
    draw = ImageDraw.Draw(image)
    kind = rng.integers(0, 2**31)
    for k in range(2):
        _logo(
            draw,
            np.random.default_rng(kind),
            (int(size * (0.25 + 0.5 * k)), int(size * 0.55)),
            size // 7,
            _bytes(accent),
        )
    _text_lines(draw, rng, (int(size * 0.1), int(size * 0.78), int(size * 0.9), int(size * 0.9)), _bytes(accent))
    return np.asarray(image).copy()


def _stripes(vertical: bool) -> Callable[[Generator, int, Rgb, Rgb], Picture]:
    def paint(rng: Generator, size: int, base: Rgb, accent: Rgb) -> Picture:
        count = int(rng.integers(4, 9))
        phase = (np.arange(size) / size * count) % 1.0 < rng.uniform(0.25, 0.4)  # base colour keeps the majority
        line = phase.astype(float)
        return _blend(base, accent, np.tile(line, (size, 1)) if vertical else np.tile(line[:, None], (1, size)))

    return paint


def _two_tone(rng: Generator, size: int, base: Rgb, accent: Rgb) -> Picture:
    rows = np.linspace(1, 0, size)[:, None]
    edge = rng.uniform(0.18, 0.3)
    flip = rng.random() < 0.5
    return _blend(base, accent, np.tile((rows > 1 - edge) if flip else (rows < edge), (1, size)).astype(float))


def _dots(rng: Generator, size: int, base: Rgb, accent: Rgb) -> Picture:
    count = int(rng.integers(5, 9))
    y, x = np.mgrid[0:size, 0:size] / size * count
    x = x + 0.5 * (np.floor(y) % 2)
    return _blend(base, accent, (np.hypot(x % 1 - 0.5, y % 1 - 0.5) < rng.uniform(0.18, 0.27)).astype(float))


def _wood(rng: Generator, size: int, base: Rgb, accent: Rgb) -> Picture:
    grain = smooth_noise(rng, size, size, 3, 10) * 0.6 + smooth_noise(rng, size, size, 5, 24) * 0.4
    return _blend(shade(base, 1.12), shade(base, 0.62), (np.sin(grain * 22.0) * 0.5 + 0.5) * 0.6)


def _fabric(rng: Generator, size: int, base: Rgb, accent: Rgb) -> Picture:
    y, x = np.mgrid[0:size, 0:size]
    weave = 0.5 + 0.25 * np.sin(x * np.pi / 2) + 0.25 * np.sin(y * np.pi / 2)
    return _blend(shade(base, 1.06), shade(base, 0.75), 0.6 * weave + 0.4 * smooth_noise(rng, size, size, 16))


def _speckle(rng: Generator, size: int, base: Rgb, accent: Rgb) -> Picture:
    fine = (smooth_noise(rng, size, size, size // 4) > 0.72) * 0.55
    return _blend(shade(base, 1.04), shade(base, 0.7), fine + 0.35 * smooth_noise(rng, size, size, 6))


def _marble(rng: Generator, size: int, base: Rgb, accent: Rgb) -> Picture:
    warp = (
        smooth_noise(rng, size, size, 4)
        + 0.5 * smooth_noise(rng, size, size, 9)
        + 0.25 * smooth_noise(rng, size, size, 20)
    )
    veins = np.exp(-((np.abs(np.sin(warp * 9.0))) / 0.09))
    return _blend(base, shade(base, 0.5), 0.75 * veins + 0.2 * smooth_noise(rng, size, size, 5))


def _blush(rng: Generator, size: int, base: Rgb, accent: Rgb) -> Picture:
    warm = (0.5 * base[0] + 0.45, 0.75 * base[1] + 0.1, 0.5 * base[2])
    return _blend(base, warm, np.clip(smooth_noise(rng, size, size, 3) * 1.6 - 0.9, 0, 0.6))


def _rings(rng: Generator, size: int, base: Rgb, accent: Rgb) -> Picture:
    rows = smooth_noise(rng, size, size, 2, 12)
    return _blend(base, shade(base, 0.7), (rows > 0.72) * 0.6)


def _checks(rng: Generator, size: int, base: Rgb, accent: Rgb) -> Picture:
    y, x = np.mgrid[0:size, 0:size] * 8 // size
    return _blend(base, accent, 0.5 * (x % 2) + 0.5 * (y % 2))


def _tiles(rng: Generator, size: int, base: Rgb, accent: Rgb) -> Picture:
    y, x = np.mgrid[0:size, 0:size] / size * 4
    joint = (np.minimum(x % 1, y % 1) < 0.04).astype(float)
    return _blend(base, accent, np.maximum(joint, 0.15 * smooth_noise(rng, size, size, 12)))


def _print_cloth(rng: Generator, size: int, base: Rgb, accent: Rgb) -> Picture:
    image = Image.fromarray(_fabric(rng, size, base, accent))
    draw = ImageDraw.Draw(image)
    petal = _bytes(accent)
    for _ in range(26):
        x, y = (int(v) for v in rng.integers(0, size, 2))
        radius = int(rng.integers(size // 40, size // 18))
        for k in range(5):
            a = 2 * np.pi * k / 5
            cx, cy = x + radius * np.cos(a), y + radius * np.sin(a)
            draw.ellipse((cx - radius * 0.6, cy - radius * 0.6, cx + radius * 0.6, cy + radius * 0.6), fill=petal)
        draw.ellipse(
            (x - radius // 2, y - radius // 2, x + radius // 2, y + radius // 2), fill=_bytes(shade(base, 0.7))
        )
    return np.asarray(image).copy()


PATTERNS: dict[str, Callable[[Generator, int, Rgb, Rgb], Picture]] = {
    "plain": _plain,
    "label": _label,
    "logo": _logo_only,
    "stripes_up": _stripes(True),
    "stripes_across": _stripes(False),
    "two_tone": _two_tone,
    "dots": _dots,
    "wood": _wood,
    "fabric": _fabric,
    "speckle": _speckle,
    "marble": _marble,
    "blush": _blush,
    "rings": _rings,
    "checks": _checks,
    "tiles": _tiles,
    "flowers": _print_cloth,
}


def paint(pattern: str, base: Rgb, accent: Rgb, seed: int, size: int = 128) -> Picture:
    """A square picture (size, size, 3) of one of ``PATTERNS``; the same for the same arguments."""
    rng = np.random.default_rng(stable_seed("texture", pattern, seed))
    return PATTERNS[pattern](rng, size, base, accent)
