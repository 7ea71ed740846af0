"""How sure a share is."""

from __future__ import annotations

import math

from ...hardware.errors import BadInput

Z_95 = 1.959964


def interval(successes: int, count: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's interval (1927) of a proportion, 95 % unless ``z`` says otherwise. (0, 1) where nothing was counted.

    Unlike p +- z s it stays within 0..1 and is honest at 0 and at all of ``count``. Raises BadInput for counts that
    cannot be.
    """
    if not 0 <= successes <= count:
        raise BadInput(f"{successes} successes of {count}: expected 0 to as many as were counted.")
    if count == 0:
        return 0.0, 1.0
    share, square = successes / count, z * z / count
    middle = (share + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(share * (1 - share) / count + square / (4 * count))
    # At the ends one side is exactly 0 or 1: rounding must not say otherwise.
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    return low, 1.0 if successes == count else min(1.0, middle + half)
