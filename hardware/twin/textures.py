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
Shape2 = tuple[int, int]  # (height, width) px
Pattern = Callable[[Generator, Shape2, Rgb, Rgb], Picture]

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


def smooth_noise(rng: Generator, height: int, width: int, cells: int, stretch: float = 1.0) -> NDArray[np.float64]:
    """Cloudy noise (H, W) in [0, 1] that tiles, ``cells`` along the width.

    ``stretch`` below 1 draws it out upwards (wood grain), above 1 squeezes it (rings).
    """
    down = max(int(round(cells * stretch)), 1)
    grid = np.pad(rng.random((down, cells)), ((0, 1), (0, 1)), mode="wrap")
    rows = np.linspace(0, down, height, endpoint=False)
    columns = np.linspace(0, cells, width, endpoint=False)
    r0, c0 = rows.astype(int), columns.astype(int)
    fr, fc = (rows - r0)[:, None], (columns - c0)[None]
    fr, fc = fr * fr * (3 - 2 * fr), fc * fc * (3 - 2 * fc)
    top = grid[r0][:, c0] * (1 - fc) + grid[r0][:, c0 + 1] * fc
    low = grid[r0 + 1][:, c0] * (1 - fc) + grid[r0 + 1][:, c0 + 1] * fc
    return top * (1 - fr) + low * fr


def _blend(base: Rgb, other: Rgb, amount: NDArray[np.floating]) -> Picture:
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
        reach = [radius * (1.0 if k % 2 == 0 else 0.45) for k in range(10)]
        angle = [turn + k * np.pi / 5 for k in range(10)]
        draw.polygon([(x + r * np.cos(a), y + r * np.sin(a)) for r, a in zip(reach, angle, strict=True)], fill=ink)
    else:
        draw.polygon([(x, y - radius), (x + radius, y + radius), (x - radius, y + radius)], fill=ink)


def _plain(rng: Generator, shape: Shape2, base: Rgb, accent: Rgb) -> Picture:
    return _blend(base, shade(base, 0.85), 0.5 * smooth_noise(rng, *shape, 4))


def _label(rng: Generator, shape: Shape2, base: Rgb, accent: Rgb) -> Picture:
    height, width = shape
    image = Image.fromarray(_flat(base, *shape))
    draw = ImageDraw.Draw(image)
    top, low = int(height * rng.uniform(0.26, 0.38)), int(height * rng.uniform(0.66, 0.8))
    ink = _bytes(shade(base, 0.6))
    draw.rectangle((0, top, width, low), fill=_bytes(accent))
    fronts = _fronts(shape)
    style, radius = int(rng.integers(2**31)), (low - top) // 3
    for x in fronts:  # round things show the front twice, so that one is always in sight
        _logo(draw, np.random.default_rng(style), (x - radius, (top + low) // 2), radius, ink)
        lines = (x + radius // 3, top + radius // 2, x + int(0.42 * width / len(fronts)), low - radius // 2)
        _text_lines(draw, rng, lines, ink)
    return np.asarray(image).copy()


def _fronts(shape: Shape2) -> list[int]:
    """Columns that a print is centred on: one on a narrow picture, two on one that goes round."""
    height, width = shape
    return [width // 2] if width < 1.6 * height else [width // 4, 3 * width // 4]


def _logo_only(rng: Generator, shape: Shape2, base: Rgb, accent: Rgb) -> Picture:
    height, width = shape
    image = Image.fromarray(_flat(base, *shape))
    draw = ImageDraw.Draw(image)
    style, ink = int(rng.integers(2**31)), _bytes(accent)
    fronts = _fronts(shape)
    radius = int(min(height, width / len(fronts)) * rng.uniform(0.18, 0.27))
    for x in fronts:
        _logo(draw, np.random.default_rng(style), (x, int(height * 0.42)), radius, ink)
        half = int(0.36 * width / len(fronts))
        _text_lines(draw, rng, (x - half, int(height * 0.76), x + half, int(height * 0.9)), ink)
    return np.asarray(image).copy()


def _stripes(vertical: bool) -> Pattern:
    def paint(rng: Generator, shape: Shape2, base: Rgb, accent: Rgb) -> Picture:
        height, width = shape
        length = width if vertical else height
        count = max(int(round(length / rng.uniform(22, 40))), 2)
        phase = (np.arange(length) / length * count) % 1.0
        line = (phase < rng.uniform(0.22, 0.38)).astype(float)  # the base colour keeps the majority
        return _blend(base, accent, np.tile(line, (height, 1)) if vertical else np.tile(line[:, None], (1, width)))

    return paint


def _two_tone(rng: Generator, shape: Shape2, base: Rgb, accent: Rgb) -> Picture:
    height, width = shape
    rows = np.linspace(1, 0, height)[:, None]
    edge = rng.uniform(0.18, 0.3)
    other = rows > 1 - edge if rng.random() < 0.5 else rows < edge
    return _blend(base, accent, np.tile(other, (1, width)).astype(float))


def _dots(rng: Generator, shape: Shape2, base: Rgb, accent: Rgb) -> Picture:
    height, width = shape
    pitch = rng.uniform(18, 30)
    columns, rows = max(round(width / pitch), 2), max(round(height / pitch / 2) * 2, 2)
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width])[:, None, None]
    y, x = y * rows, x * columns
    x = x + 0.5 * (np.floor(y) % 2)
    return _blend(base, accent, (np.hypot(x % 1 - 0.5, y % 1 - 0.5) < rng.uniform(0.18, 0.27)).astype(float))


def _wood(rng: Generator, shape: Shape2, base: Rgb, accent: Rgb) -> Picture:
    grain = smooth_noise(rng, *shape, 3, 0.2) * 0.7 + smooth_noise(rng, *shape, 6, 0.12) * 0.3
    rings = np.sin(grain * 26.0) * 0.5 + 0.5
    fibre = smooth_noise(rng, *shape, 60, 0.04)
    return _blend(shade(base, 1.1), shade(base, 0.68), 0.45 * rings + 0.4 * fibre)


def _fabric(rng: Generator, shape: Shape2, base: Rgb, accent: Rgb) -> Picture:
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    weave = 0.5 + 0.25 * np.sin(x * np.pi / 2) + 0.25 * np.sin(y * np.pi / 2)
    return _blend(shade(base, 1.06), shade(base, 0.78), 0.7 * weave + 0.3 * smooth_noise(rng, *shape, 40))


def _speckle(rng: Generator, shape: Shape2, base: Rgb, accent: Rgb) -> Picture:
    fine = (smooth_noise(rng, *shape, shape[0] // 4) > 0.78) * 0.45
    return _blend(shade(base, 1.04), shade(base, 0.72), fine + 0.35 * smooth_noise(rng, *shape, 6))


def _marble(rng: Generator, shape: Shape2, base: Rgb, accent: Rgb) -> Picture:
    warp = np.zeros(shape)
    for cells, scale in ((3, 1), (7, 2), (15, 4), (40, 10)):
        warp += smooth_noise(rng, *shape, cells) / scale
    veins = np.exp(-np.abs(np.sin(warp * 6.0)) / 0.05) * smooth_noise(rng, *shape, 4)
    return _blend(base, shade(base, 0.45), 1.1 * veins + 0.3 * smooth_noise(rng, *shape, 3))


def _blush(rng: Generator, shape: Shape2, base: Rgb, accent: Rgb) -> Picture:
    warm = (0.5 * base[0] + 0.42, 0.75 * base[1] + 0.08, 0.5 * base[2])
    return _blend(base, warm, np.clip(smooth_noise(rng, *shape, 3) * 1.4 - 0.9, 0, 0.4))


def _rings(rng: Generator, shape: Shape2, base: Rgb, accent: Rgb) -> Picture:
    return _blend(base, shade(base, 0.75), (smooth_noise(rng, *shape, 2, 12) > 0.72) * 0.6)


def _checks(rng: Generator, shape: Shape2, base: Rgb, accent: Rgb) -> Picture:
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]] * 8 // np.array(shape)[:, None, None]
    return _blend(base, accent, 0.5 * (x % 2) + 0.5 * (y % 2))


def _tiles(rng: Generator, shape: Shape2, base: Rgb, accent: Rgb) -> Picture:
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]] / np.array(shape)[:, None, None] * 4
    joint = (np.minimum(x % 1, y % 1) < 0.04).astype(float)
    return _blend(base, accent, np.maximum(joint, 0.15 * smooth_noise(rng, *shape, 12)))


def _flowers(rng: Generator, shape: Shape2, base: Rgb, accent: Rgb) -> Picture:
    height, width = shape
    image = Image.fromarray(_fabric(rng, shape, base, accent))
    draw = ImageDraw.Draw(image)
    for _ in range(22):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        radius = int(rng.integers(height // 40, height // 18))
        for k in range(5):
            cx, cy = x + radius * np.cos(2 * np.pi * k / 5), y + radius * np.sin(2 * np.pi * k / 5)
            petal = 0.6 * radius
            draw.ellipse((cx - petal, cy - petal, cx + petal, cy + petal), fill=_bytes(accent))
        draw.ellipse(
            (x - radius // 2, y - radius // 2, x + radius // 2, y + radius // 2), fill=_bytes(shade(base, 0.7))
        )
    return np.asarray(image).copy()


PATTERNS: dict[str, Pattern] = {
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
    "flowers": _flowers,
}


def paint(pattern: str, base: Rgb, accent: Rgb, seed: int, size: int = 128, aspect: float = 1.0) -> Picture:
    """A picture of one of ``PATTERNS``; the same for the same arguments.

    ``aspect`` is the width over the height of what it is put on; the picture has about ``size`` squared pixels.
    """
    stretch = float(np.sqrt(np.clip(aspect, 0.25, 4.0)))
    shape = max(int(round(size / stretch)), 16), max(int(round(size * stretch)), 16)
    rng = np.random.default_rng(stable_seed("texture", pattern, seed))
    return PATTERNS[pattern](rng, shape, base, accent)
