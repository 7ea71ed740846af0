"""Fit of an operator's hand to the robot's: one scale per finger and a rigid wrist frame.

Model: ``target_tip = palm_T_hand @ (scale_f * tip)``, tips in the palm's axes (:func:`.keypoints.in_palm_axes`). The
eleven numbers are those with which the robot's tips can come nearest to the operator's over a few seconds of any
movement; the robot's posture in each frame is solved for at the same time and projected out of the normal equations
(variable projection, Golub and Pereyra 1973). Gaussian priors hold what the frames leave open.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..hardware.errors import BadInput
from ..hardware.geometry import Transform, rotation_exp, rotation_log, transform
from ..hardware.hand_kinematics import HandKinematics
from .hand_objective import UNIT_M, HandObjective, HandTarget, ObjectiveConfig
from .keypoints import FINGERS, THUMB_TIP, TIPS, bone_lengths_m, in_palm_axes, is_tracked

Array = NDArray[np.float64]

DEFAULT_SCALE = 1.15  # GO-R to an average adult hand
DEFAULT_CONTACT_M = 0.025  # thumb tip to fingertip of a closed pinch, as trackers see it: landmarks lie inside


@dataclass(frozen=True)
class HandCalibration:
    """How an operator's hand is brought onto the robot's. The default is uncalibrated: one scale, wrists aligned."""

    scale: Array = field(default_factory=lambda: np.full(5, DEFAULT_SCALE))  # (5,) order FINGERS
    palm_T_hand: Transform = field(default_factory=lambda: np.eye(4))  # (4, 4) correction in palm axes
    contact_m: float = DEFAULT_CONTACT_M  # operator's own tip distance in a closed pinch

    def __post_init__(self) -> None:
        if self.scale.shape != (5,) or not (np.isfinite(self.scale) & (self.scale > 0.3) & (self.scale < 3)).all():
            raise BadInput(f"Hand calibration scale is {self.scale.tolist()}: expected five numbers from 0.3 to 3.")
        if self.palm_T_hand.shape != (4, 4) or not np.isfinite(self.palm_T_hand).all():
            raise BadInput(f"Hand calibration palm_T_hand is {self.palm_T_hand.tolist()}: expected a 4x4 transform.")
        if not 0.0 <= self.contact_m <= 0.05:
            raise BadInput(f"Hand calibration contact_m is {self.contact_m}: expected 0 to 0.05 m.")

    def tips_m(self, palm_axes_m: Array) -> Array:
        """Key points (..., 21, 3) in palm axes -> targets of the robot's tips (..., 5, 3) in the palm frame."""
        scaled = palm_axes_m[..., TIPS, :] * self.scale[:, None]
        return scaled @ self.palm_T_hand[:3, :3].T + self.palm_T_hand[:3, 3]

    def save(self, path: Path) -> None:
        """Write as JSON."""
        data = {
            "scale": self.scale.tolist(),
            "palm_T_hand": self.palm_T_hand.tolist(),
            "contact_m": self.contact_m,
        }
        path.write_text(json.dumps(data, indent=2) + "\n")

    @staticmethod
    def load(path: Path) -> HandCalibration:
        """Read what :meth:`save` wrote. Raises BadInput."""
        try:
            data = json.loads(path.read_text())
            return HandCalibration(
                np.array(data["scale"], float), np.array(data["palm_T_hand"], float), float(data["contact_m"])
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{path} is not a hand calibration ({error}): calibrate again.") from error


@dataclass(frozen=True)
class CalibrationConfig:
    """How a calibration is fitted."""

    frames: int = 40
    """Frames used, evenly spaced over what was recorded."""
    iterations: int = 15
    scale_sigma: float = 0.12
    """Prior spread of each finger's scale about the ratio of hand lengths."""
    rotation_sigma_rad: float = 0.2
    translation_sigma_m: float = 0.025
    tip_sigma_m: float = 0.01
    """Spread of one tip's misfit that the priors are weighed against, for the whole set of frames. With less, or with
    wider priors, tips fit better still, but a fist no longer closes (docs/decisions/60-hand-retargeting.md)."""

    def __post_init__(self) -> None:
        if self.frames < 1 or self.iterations < 1:
            raise BadInput(f"A hand calibration needs at least one frame and one iteration, got {self}.")
        if min(self.scale_sigma, self.rotation_sigma_rad, self.translation_sigma_m, self.tip_sigma_m) <= 0:
            raise BadInput(f"The spreads of a hand calibration must be positive, got {self}.")


def hand_length_scale(keypoints_m: Array, kinematics: HandKinematics) -> float:
    """Ratio of the robot's hand length to the operator's: wrist to middle tip along the bones, median over frames."""
    bones = np.arange(8, 12)  # wrist-MCP, MCP-PIP, PIP-DIP, DIP-tip of the middle finger
    human = float(np.median(bone_lengths_m(keypoints_m[is_tracked(keypoints_m)])[:, bones].sum(-1)))
    robot = float(bone_lengths_m(kinematics.keypoints(np.ones(6)))[bones].sum())
    return robot / human


def calibrate(
    keypoints_m: Array, kinematics: HandKinematics, config: CalibrationConfig | None = None
) -> HandCalibration:
    """Fit a calibration to key points (N, 21, 3) of one operator, any frame, NaN where lost.

    Raises BadInput when no frame has a hand.
    """
    config = config or CalibrationConfig()
    points = np.asarray(keypoints_m, float)
    points = points[is_tracked(points)]
    if len(points) == 0:
        raise BadInput("No tracked hand to calibrate with: show the hand to the camera and move the fingers.")
    chosen = np.unique(np.linspace(0, len(points) - 1, min(config.frames, len(points))).round().astype(int))
    palm_axes = in_palm_axes(points[chosen])
    prior_scale = hand_length_scale(points, kinematics)
    start = HandCalibration(scale=np.full(5, prior_scale), contact_m=contact_distance_m(points))
    objective = HandObjective(
        kinematics,
        ObjectiveConfig(
            pinch_weight=0.0, clearance_weight=0.0, step_weight=1e-2, max_iterations=30, cost_tolerance=1e-6
        ),
    )
    return _fit(palm_axes, start, prior_scale, objective, config)


def contact_distance_m(keypoints_m: Array) -> float:
    """Tip distance of the operator's closed pinch, from the nearest that thumb and a finger came. (N, 21, 3)."""
    tips = keypoints_m[:, TIPS[1:]]
    gap = np.linalg.norm(tips - keypoints_m[:, [THUMB_TIP]], axis=-1)
    nearest = float(np.percentile(gap.min(axis=-1), 2))
    # Who never pinched in what was seen keeps the default; landmarks of a real pinch are 1 to 3 cm apart.
    return nearest if 0.008 <= nearest <= 0.03 else DEFAULT_CONTACT_M


def _fit(
    palm_axes: Array, start: HandCalibration, prior_scale: float, objective: HandObjective, config: CalibrationConfig
) -> HandCalibration:
    count = len(palm_axes)
    scale: Array = start.scale.copy()
    rotation: Array = np.eye(3)
    shift: Array = np.zeros(3)
    openings = np.full((count, 6), 0.7)
    prior = np.concatenate(
        [np.full(5, config.scale_sigma), np.full(3, config.rotation_sigma_rad), np.full(3, config.translation_sigma_m)]
    )
    for _ in range(config.iterations):
        calibration = HandCalibration(scale, transform(rotation, shift), start.contact_m)
        targets = calibration.tips_m(palm_axes)
        normal: Array = np.zeros((11, 11))
        gradient: Array = np.zeros(11)
        for k in range(count):
            target = HandTarget(targets[k], np.zeros(4), np.zeros(4))
            openings[k] = objective.solve(target, openings[k]).opening
            residual, jacobian = _projected(palm_axes[k], scale, rotation, targets[k], openings[k], objective)
            normal += jacobian.T @ jacobian
            gradient += jacobian.T @ residual
        weight = 1.0 / (count * config.tip_sigma_m**2)
        state = np.concatenate([scale - prior_scale, rotation_log(rotation), shift])
        step = np.linalg.solve(weight * normal + np.diag(prior**-2.0), -(weight * gradient + state / prior**2))
        scale = scale + step[:5]
        rotation = rotation_exp(step[5:8]) @ rotation
        shift = shift + step[8:]
        if np.abs(step).max() < 1e-4:
            break
    return HandCalibration(scale, transform(rotation, shift), start.contact_m)


def _projected(
    palm_axes: Array, scale: Array, rotation: Array, target: Array, opening: Array, objective: HandObjective
) -> tuple[Array, Array]:
    """Tip misfit (15,) m of one frame and its derivative (15, 11) by the calibration, less what the hand can follow."""
    kinematics = objective.kinematics
    tips = kinematics.keypoints(opening)[list(TIPS)]
    residual: Array = (target - tips).ravel()
    turned = (palm_axes[list(TIPS)] * scale[:, None]) @ rotation.T  # (5, 3)
    jacobian = np.zeros((5, 3, 11))
    for f in range(len(FINGERS)):
        jacobian[f, :, f] = palm_axes[TIPS[f]] @ rotation.T
        x, y, z = turned[f]
        jacobian[f, :, 5:8] = np.array([[0.0, z, -y], [-z, 0.0, x], [y, -x, 0.0]])  # d (w x v) / d w
        jacobian[f, :, 8:] = np.eye(3)
    flat: Array = jacobian.reshape(15, 11)
    free = (opening > 1e-6) & (opening < 1 - 1e-6)
    if free.any():
        moves = kinematics.keypoints_jacobian(opening)[list(TIPS)].reshape(15, 6)[:, free] / UNIT_M
        basis, _ = np.linalg.qr(moves)
        flat = flat - basis @ (basis.T @ flat)
        residual = residual - basis @ (basis.T @ residual)
    return residual, flat
