"""Closed-form inverse kinematics of a spherical-roll-spherical arm with the arm angle as free parameter.

An arm whose axes are Z Y Z - Y - Z Y Z with offsets along z only (the RM75: base 240.5, upper 256, fore 210, tool
172.5 mm) has its shoulder, elbow and wrist as points. The wrist's distance fixes joint 4; the elbow then turns about
the shoulder-wrist line by the arm angle psi, and joints 1-3 and 5-7 are the Z-Y-Z angles of two rotations that are
known once psi is (Shimizu, Kakuya, Yoon, Kitagaki, Kosuge 2008, "Analytical inverse kinematic computation for 7-DOF
redundant manipulators with joint limits", IEEE T-RO 24(5), sections III and IV). We deviate in two ways: psi is
measured as RealMan's SDK does, and each third Z-Y-Z angle is taken after the first is undone, so that rotation
errors stay at rounding level through the shoulder's and wrist's singularities.

Notation: shoulder-wrist direction ``w`` = (sin g cos f, sin g sin f, cos g) in the base frame; ``v`` = base z made
square to it; ``u = w x v``. ``a`` (and ``b = q4 - a``) are the angles of upper (fore) arm against ``w``, signed like
joint 4. The elbow lies at psi from ``v`` about ``w``, plus pi where q4 < 0: the axis of joint 4 is
``sin psi v - cos psi u`` in both cases.

The formulas are written once: with ``math`` they solve one pose on floats, with ``numpy`` arrays of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .description import ArmDescription
from .errors import BadInput

Array = NDArray[np.float64]
Real = Any  # a float, or an array where the module is numpy

TWO_PI = 2.0 * math.pi
# Below this sine of joint 2 (6) only the sum of its neighbours matters, and the pose error of taking the near value
# for one of them is below 1e-9 rad.
ARBITRARY = 4e-10
SINGULAR = 1e-6  # sine of joint 2, 4 or 6 below which an answer is called singular


@dataclass(frozen=True)
class ArmLengths:
    """The four offsets along z, m, and what follows from them and joint 4's range."""

    base: float
    upper: float
    fore: float
    tool: float
    reach_min: float  # shoulder to wrist, at joint 4's limit
    reach_max: float  # arm straight

    @staticmethod
    def of(arm: ArmDescription) -> ArmLengths:
        """Raises BadInput for an arm of another build."""
        rolls = [0.0, -math.pi / 2, math.pi / 2, -math.pi / 2, math.pi / 2, -math.pi / 2, math.pi / 2]
        links = arm.links
        square = len(links) == 7 and np.allclose([link.origin_roll_rad for link in links], rolls, atol=1e-12)
        if not square:
            raise BadInput(
                f"arm {arm.name!r} is not a 7-joint arm with alternating square axes: its inverse kinematics has no "
                "closed form here, use a spherical-roll-spherical description"
            )
        origins = np.array([link.origin_m for link in links])
        base, upper, fore, tool = origins[0, 2], -origins[2, 1], -origins[4, 1], -origins[6, 1]
        straight = np.zeros((7, 3))
        straight[0, 2], straight[2, 1], straight[4, 1], straight[6, 1] = base, -upper, -fore, -tool
        if not np.array_equal(origins, straight) or min(upper, fore) <= 0.0:
            raise BadInput(
                f"arm {arm.name!r} has joint origins off the common axes: shoulder and wrist must be points for the "
                "closed form"
            )
        limit = min(links[3].limit_rad, math.pi)
        nearest = math.sqrt(upper**2 + fore**2 + 2.0 * upper * fore * math.cos(limit))
        return ArmLengths(float(base), float(upper), float(fore), float(tool), nearest, float(upper + fore))


@dataclass(frozen=True, slots=True)
class Swivel:
    """What is left of a pose once joint 4 is known: everything else is a function of psi."""

    azimuth: Real  # f, rad
    sin_g: Real
    cos_g: Real
    q4: Real
    sin_a: Real
    cos_a: Real
    sin_b: Real
    cos_b: Real
    # The flange's x, y and z axes, each as its components along v, u, w.
    x: tuple[Real, Real, Real]
    y: tuple[Real, Real, Real]
    z: tuple[Real, Real, Real]


def swivel(m: ModuleType, size: ArmLengths, wrist: Any, axes: Any, elbow: Real) -> Swivel:
    """``wrist``: (x, y, z) from the shoulder, within reach; ``axes``: the flange's x, y, z axes, each (x, y, z) in
    the base frame; ``elbow``: +1 or -1, the sign of joint 4."""
    wx, wy, wz = wrist
    flat = m.hypot(wx, wy)
    distance = m.hypot(flat, wz)
    azimuth, sin_g, cos_g = m.atan2(wy, wx), flat / distance, wz / distance
    # Half-angle form of the law of cosines: exact at a straight elbow, where acos loses half of the digits. A distance
    # within rounding of the full reach counts as straight, or its noise of 1e-8 rad would decide on joints 1 and 3.
    over = size.reach_max**2 * (1.0 - 1e-14) - distance**2
    under = distance**2 - (size.upper - size.fore) ** 2
    q4 = elbow * 2.0 * m.atan2(m.sqrt(0.5 * (over + abs(over))), m.sqrt(0.5 * (under + abs(under))))
    sin_4, cos_4 = m.sin(q4), m.cos(q4)
    across, along = size.fore * sin_4, size.upper + size.fore * cos_4
    length = m.hypot(across, along)
    sin_a, cos_a = across / length, along / length
    sin_f, cos_f = m.sin(azimuth), m.cos(azimuth)
    columns = []
    for ax, ay, az in axes:
        outward = cos_f * ax + sin_f * ay
        columns.append((sin_g * az - cos_g * outward, sin_f * ax - cos_f * ay, sin_g * outward + cos_g * az))
    return Swivel(
        azimuth, sin_g, cos_g, q4, sin_a, cos_a,
        sin_4 * cos_a - cos_4 * sin_a, cos_4 * cos_a + sin_4 * sin_a,
        columns[0], columns[1], columns[2],
    )  # fmt: skip


def principal(m: ModuleType, at: Swivel, psi: Real) -> tuple[Real, Real, Real, Real, Real, Real, Real]:
    """The seven joint angles of the branch with q2 >= 0 and q6 >= 0; joints 1, 3, 5, 7 not wrapped."""
    c, s = m.cos(psi), m.sin(psi)
    # Shoulder: R03 = Rz(q1) Ry(q2) Rz(q3), in the frame turned by the azimuth.
    zx, zy = at.cos_a * at.sin_g - at.sin_a * at.cos_g * c, -at.sin_a * s
    turn = m.atan2(zy, zx)
    q2 = m.atan2(m.hypot(zx, zy), at.sin_a * at.sin_g * c + at.cos_a * at.cos_g)
    c1, s1 = m.cos(turn), m.sin(turn)
    xx, xy = at.cos_a * at.cos_g * c + at.sin_a * at.sin_g, at.cos_a * s
    q3 = m.atan2(c1 * xy - s1 * xx, s1 * s * at.cos_g + c1 * c)
    # Wrist: R47 = R04^T R07 = Rz(q5) Ry(q6) Rz(q7).
    zv, zu, zw = at.z
    xv, xu, xw = at.x
    yv, yu, yw = at.y
    swing = c * zv + s * zu
    ex, ey = -at.cos_b * swing - at.sin_b * zw, s * zv - c * zu
    q5 = m.atan2(ey, ex)
    q6 = m.atan2(m.hypot(ex, ey), at.cos_b * zw - at.sin_b * swing)
    c5, s5 = m.cos(q5), m.sin(q5)
    q7 = m.atan2(
        c5 * (s * xv - c * xu) + s5 * (at.cos_b * (c * xv + s * xu) + at.sin_b * xw),
        c5 * (s * yv - c * yu) + s5 * (at.cos_b * (c * yv + s * yu) + at.sin_b * yw),
    )
    return at.azimuth + turn, q2, q3, at.q4, q5, q6, q7


def swivel_rates(at: Swivel, q: Any) -> tuple[float, float, float, float, float, float, float]:
    """d q / d psi at fixed pose: the arm's self-motion, for the configuration ``q`` of any branch.

    The upper arm turns about w at 1 rad per rad; the hand seen from the forearm turns back by the same.
    """
    sin_1, cos_1 = math.sin(q[0] - at.azimuth), math.cos(q[0] - at.azimuth)
    sin_2, sin_6 = _away_from_zero(math.sin(q[1])), _away_from_zero(math.sin(q[5]))
    d3 = cos_1 * at.sin_g / sin_2
    d7 = math.cos(q[4]) * at.sin_b / sin_6
    return (
        at.cos_g - d3 * math.cos(q[1]),
        -sin_1 * at.sin_g,
        d3,
        0.0,
        -at.cos_b - d7 * math.cos(q[5]),
        -math.sin(q[4]) * at.sin_b,
        d7,
    )


def limit_roots(at: Swivel, limits: Array) -> Array:
    """All arm angles (..., 20) rad in (-pi, pi] at which some joint may meet its limit; NaN where there is none.

    Every joint's limit is met where A sin psi + B cos psi + C = 0: the cosine of joints 2 and 6 is of that form, and
    so are numerator and denominator of the tangent of joints 1, 3, 5 and 7 (Shimizu 2008, section IV). The sines'
    signs drop out of it, so that one set serves the four shoulder and wrist branches. ``at`` holds (...) arrays,
    ``limits`` is (7,) rad, symmetric.
    """
    zv, zu, zw = at.z
    xv, xu, xw = at.x
    yv, yu, yw = at.y
    sa, ca, sb, cb, sg, cg = at.sin_a, at.cos_a, at.sin_b, at.cos_b, at.sin_g, at.cos_g
    # Numerator and denominator of joints 1, 3, 5, 7 as (A, B, C); a limit t is met where n cos t - d sin t = 0.
    forms = (
        ((-sa, 0.0, 0.0), (0.0, -sa * cg, ca * sg), at.azimuth, limits[0]),
        ((sg, 0.0, 0.0), (0.0, ca * sg, -sa * cg), 0.0, limits[2]),
        ((zv, -zu, 0.0), (-cb * zu, -cb * zv, -sb * zw), 0.0, limits[4]),
        ((-sb * yu, -sb * yv, cb * yw), (sb * xu, sb * xv, -cb * xw), 0.0, limits[6]),
    )
    terms = np.zeros((3, *np.broadcast_shapes(np.shape(sg), np.shape(sa)), 10))  # A, B, C
    terms[1, ..., 0], terms[2, ..., 0] = sa * sg, ca * cg - np.cos(limits[1])
    terms[0, ..., 1], terms[1, ..., 1], terms[2, ..., 1] = -sb * zu, -sb * zv, cb * zw - np.cos(limits[5])
    for joint, (numerator, denominator, offset, limit) in enumerate(forms):
        for side, angle in enumerate((limit - offset, -limit - offset)):
            c, s = np.cos(angle), np.sin(angle)
            for i in range(3):
                terms[i, ..., 2 + 2 * joint + side] = numerator[i] * c - denominator[i] * s
    a, b, k = terms
    size = np.hypot(a, b)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.arccos(-k / size)  # NaN where the limit is never met
    middle = np.arctan2(a, b)
    return wrapped(np.concatenate([middle - spread, middle + spread], -1))


def wrapped(angle: Array) -> Array:
    """The same angle in (-pi, pi]."""
    return math.pi - np.mod(math.pi - angle, TWO_PI)


def _away_from_zero(sine: float) -> float:
    return sine if abs(sine) > 1e-9 else math.copysign(1e-9, sine)
