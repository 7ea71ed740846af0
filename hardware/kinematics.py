"""The arm's kinematics: forward, Jacobian, and inverse in closed form with typed answers.

Frames: ``base`` is the arm's mounting face, ``flange`` the last link's origin with +z outward. Angles in rad, order
ARM_JOINTS. The arm angle is RealMan's: about the shoulder-wrist line from base z to the elbow, plus pi where q4 < 0.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arm_ik import ArmLengths, Array, swivel
from .arm_solver import ArmSolver, Target, singular
from .description import RM75_6F, ArmDescription, link_origin
from .errors import BadInput
from .geometry import Transform, rotation_log

_REACH_SLACK_M = 1e-10  # a wrist this far outside is rounding
_RIGID_SLACK = 1e-6  # largest |R^T R - 1| of a pose that counts as rigid
# Nearest feasible pose: 1 rad of orientation error weighs as much as 0.2 m (the hand's length) of position error.
_ROTATION_WEIGHT_M = 0.2
_STAY_M2 = (
    1e-6  # its pull to stay at the start, m2 per rad2: decides where the pose does not, such as at a stretched arm
)
_MAX_STEPS = 40
_CHUNK = 500  # poses per array of the free arm angle's candidates


class IkStatus(enum.Enum):
    """How an inverse kinematics request was answered."""

    OK = "ok"
    SINGULAR = "singular"  # solved; shoulder, elbow or wrist is stretched out and a joint's value arbitrary
    OUT_OF_REACH = "out_of_reach"  # answered with the nearest wrist position that the arm reaches
    JOINT_LIMIT = "joint_limit"  # answered with the nearest configuration inside the limits


@dataclass(frozen=True)
class IkResult:
    """Answer for one pose. ``q`` is always inside the limits and ``base_T_flange`` is what it really reaches."""

    status: IkStatus
    q: Array  # (7,) rad, order ARM_JOINTS
    base_T_flange: Transform  # (4, 4) reached
    arm_angle: float  # rad, of q
    position_error_m: float  # from the requested pose
    rotation_error_rad: float

    @property
    def ok(self) -> bool:
        """The requested pose (and arm angle, where one was given) is reached, to rounding."""
        return self.status in (IkStatus.OK, IkStatus.SINGULAR)


@dataclass(frozen=True)
class IkBatch:
    """Answers for N poses, each as in :class:`IkResult`."""

    status: tuple[IkStatus, ...]  # N
    q: Array  # (N, 7) rad
    arm_angle: Array  # (N,) rad, of q
    position_error_m: Array  # (N,)
    rotation_error_rad: Array  # (N,)

    @property
    def ok(self) -> NDArray[np.bool_]:
        """(N,)"""
        return np.array([status in (IkStatus.OK, IkStatus.SINGULAR) for status in self.status], bool)


class ArmKinematics:
    """Kinematics of a spherical-roll-spherical arm. Raises BadInput for an arm of another build."""

    def __init__(self, arm: ArmDescription = RM75_6F) -> None:
        self.arm = arm
        self.limits = arm.limits  # (7, 2) rad
        self._size = ArmLengths.of(arm)
        self._solver = ArmSolver(self._size, arm.limits)
        origins = np.stack([link_origin(link) for link in arm.links])  # (7, 4, 4)
        # parent_T_link(q) = still + cos q * c_part + sin q * s_part, since each joint turns about its own z.
        self._cos_part, self._sin_part, self._still = np.zeros((3, 7, 4, 4))
        self._cos_part[:, :, :2] = origins[:, :, :2]
        self._sin_part[:, :, 0], self._sin_part[:, :, 1] = origins[:, :, 1], -origins[:, :, 0]
        self._still[:, :, 2:] = origins[:, :, 2:]

    # -- forward ---------------------------------------------------------------------------------------------------

    def fk(self, q: ArrayLike) -> Transform:
        """base_T_flange (..., 4, 4) of (..., 7) rad."""
        return self._chain(q)[-1]

    def fk_links(self, q: ArrayLike) -> Transform:
        """base_T_link (..., 8, 4, 4) of (..., 7) rad: the base itself (identity), then links 1 to 7."""
        frames = self._chain(q)
        return np.stack([np.broadcast_to(np.eye(4), frames[0].shape), *frames], -3)

    def jacobian(self, q: ArrayLike) -> Array:
        """Geometric Jacobian (..., 6, 7) at (..., 7) rad: the flange's velocity (m/s) over its angular velocity
        (rad/s), both in the base frame, per rad/s of each joint."""
        frames = np.stack(self._chain(q), -3)  # (..., 7, 4, 4)
        axes, arms = frames[..., :3, 2], frames[..., -1:, :3, 3] - frames[..., :3, 3]
        return np.concatenate([np.cross(axes, arms), axes], -1).swapaxes(-1, -2)

    def arm_angle(self, q: ArrayLike) -> Array:
        """(...,) rad in (-pi, pi] of (..., 7) rad: from base z (made square to the shoulder-wrist line) to the elbow
        about that line, plus pi where q4 < 0. Where the line is upright, base -x (+x below) stands in for base z."""
        frames = self._chain(q)
        return self._arm_angle(frames[0], frames[3], frames[4])

    def _arm_angle(self, shoulder: Transform, elbow: Transform, wrist: Transform) -> Array:
        line = wrist[..., :3, 3] - shoulder[..., :3, 3]
        axis = elbow[..., :3, 2]  # of joint 4 = sin psi v - cos psi u, whatever the sign of q4
        flat = np.hypot(line[..., 0], line[..., 1])
        azimuth = np.arctan2(line[..., 1], line[..., 0])
        distance = np.hypot(flat, line[..., 2])
        outward = np.cos(azimuth) * axis[..., 0] + np.sin(azimuth) * axis[..., 1]
        along_v = (flat * axis[..., 2] - line[..., 2] * outward) / distance
        along_u = np.sin(azimuth) * axis[..., 0] - np.cos(azimuth) * axis[..., 1]
        return np.arctan2(along_v, -along_u)

    def _chain(self, q: ArrayLike) -> list[Transform]:
        """base_T_link of links 1 to 7, each (..., 4, 4)."""
        q = np.asarray(q, float)
        if q.shape[-1:] != (7,):
            raise BadInput(f"got joint angles of shape {q.shape}, expected (..., 7) in the order of ARM_JOINTS")
        angle = q[..., None, None]
        local = self._still + np.cos(angle) * self._cos_part + np.sin(angle) * self._sin_part  # (..., 7, 4, 4)
        frames = [local[..., 0, :, :]]
        for i in range(1, 7):
            frames.append(frames[-1] @ local[..., i, :, :])
        return frames

    # -- inverse ---------------------------------------------------------------------------------------------------

    def ik(self, base_T_flange: Transform, q_near: ArrayLike, arm_angle: float | None = None) -> IkResult:
        """The solution nearest to ``q_near`` (7,) rad, for a control loop: continuous along a path.

        With an ``arm_angle`` the elbow is put there, or as near as the limits allow (JOINT_LIMIT, pose still exact).
        Without one, the self-motion is the one that moves the joints least from ``q_near``, with a gentle pull away
        from joint limits; other branches are searched only where that one ends at a limit.

        A pose that cannot be reached is answered with the nearest: OUT_OF_REACH moves the wrist along its line to
        the shoulder and keeps the orientation (as far as the limits allow), JOINT_LIMIT minimises position and
        orientation error together. Raises BadInput for a pose or q_near that is not finite or not rigid.
        """
        pose = _rigid(base_T_flange)[0]
        near = np.clip(_finite(q_near, "q_near"), self.limits[:, 0], self.limits[:, 1]).tolist()
        target, in_reach = self._target(pose, near)
        given_up = False
        if arm_angle is None:
            q = self._solver.nearest(target, near)
        else:
            psi = float(_finite(arm_angle, "arm_angle"))
            options = self._solver.at_arm_angle(target, psi, near)
            q = min(options, key=lambda o: math.dist(o, near)) if options else None
            if q is None:
                given_up, q = True, self._solver.nearest_arm_angle(target, psi, near)
        if q is None:
            return self._result(IkStatus.JOINT_LIMIT, self._closest(pose, target, near), pose)
        if not in_reach:
            status = IkStatus.OUT_OF_REACH
        elif given_up:
            status = IkStatus.JOINT_LIMIT
        else:
            status = IkStatus.SINGULAR if singular(q) else IkStatus.OK
        return self._result(status, np.array(q), pose)

    def ik_all(self, base_T_flange: Transform, arm_angle: float) -> Array:
        """Every solution inside the limits at this arm angle, (K, 7) rad with K <= 8; joint 7 in (-pi, pi].

        Empty where the pose is out of reach or every branch breaks a limit.
        """
        target, in_reach = self._target(_rigid(base_T_flange)[0], [0.0] * 7)
        found = self._solver.at_arm_angle(target, float(_finite(arm_angle, "arm_angle")), [0.0] * 7)
        return np.array(found if in_reach else []).reshape(-1, 7)

    def ik_batch(
        self, poses: Transform, arm_angle: ArrayLike | None = None, q_near: ArrayLike | None = None
    ) -> IkBatch:
        """Solve (N, 4, 4) poses at once, each on its own (no continuity between them).

        ``arm_angle`` (N,) rad fixes the elbows; None leaves them free. Among the solutions inside the limits the
        nearest to ``q_near`` (N, 7) or (7,) is taken, or without it the one furthest from all joint limits. Poses
        with none are answered one by one as :meth:`ik` does, with the nearest feasible configuration.
        """
        poses = _rigid(np.reshape(poses, (-1, 4, 4)))
        n = len(poses)
        near = None if q_near is None else np.broadcast_to(_finite(q_near, "q_near"), (n, 7))
        angle = None if arm_angle is None else np.broadcast_to(_finite(arm_angle, "arm_angle"), (n,))
        q = np.zeros((n, 7))
        solved = np.zeros(n, bool)
        for start in range(0, n, _CHUNK if angle is None else 20 * _CHUNK):
            part = slice(start, start + (_CHUNK if angle is None else 20 * _CHUNK))
            q[part], solved[part] = self._solve_many(
                poses[part], None if angle is None else angle[part], None if near is None else near[part]
            )
        frames = self._chain(q)
        reached = frames[-1]
        angles = self._arm_angle(frames[0], frames[3], frames[4])
        position, rotation = _pose_distance(reached, poses)
        sines = np.abs(np.sin(q[:, [1, 3, 5]])).min(-1)
        status = [IkStatus.SINGULAR if s < 1e-6 else IkStatus.OK for s in sines]
        for i in np.flatnonzero(~solved):
            start_q = np.zeros(7) if near is None else near[i]
            one = self.ik(poses[i], start_q, None if angle is None else float(angle[i]))
            status[i], q[i], angles[i] = one.status, one.q, one.arm_angle
            position[i], rotation[i] = one.position_error_m, one.rotation_error_rad
        return IkBatch(tuple(status), q, angles, position, rotation)

    def _solve_many(self, poses: Transform, angle: Array | None, near: Array | None) -> tuple[Array, NDArray[np.bool_]]:
        """(N, 7) rad and whether they solve the poses inside the limits (N,)."""
        wrist = poses[:, :3, 3] - self._size.tool * poses[:, :3, 2] - [0.0, 0.0, self._size.base]
        distance = np.linalg.norm(wrist, axis=-1)
        within = np.clip(distance, self._size.reach_min, self._size.reach_max)
        reachable = np.abs(distance - within) <= _REACH_SLACK_M
        safe = distance > 1e-9
        wrist = np.where(safe[:, None], wrist * (within / np.where(safe, distance, 1.0))[:, None], [0, 0, within[0]])
        w = tuple(wrist.T)
        axes = [tuple(poses[:, :3, k].T) for k in range(3)]
        about = np.zeros(7) if near is None else near
        if angle is None:
            q, inside, _ = self._solver.candidates((w, axes), about)
        else:
            at = [swivel(np, self._size, w, axes, elbow) for elbow in (1.0, -1.0)]
            both = [self._solver.branches(a, angle, about) for a in at]
            q, inside = np.stack([b[0] for b in both], 1), np.stack([b[1] for b in both], 1)
        q, inside = q.reshape(len(poses), -1, 7), inside.reshape(len(poses), -1)
        # Without a near configuration: the least relative margin to a limit, the larger the better.
        away = np.abs(q) / self.limits[:, 1]
        cost = away.max(-1) if near is None else ((q - near[:, None, :]) ** 2).sum(-1)
        best = np.argmin(np.where(inside, cost, np.inf), -1)
        rows = np.arange(len(poses))
        return q[rows, best], inside[rows, best] & reachable

    def _target(self, pose: Transform, near: list[float]) -> tuple[Target, bool]:
        """The pose for the solver with its wrist brought within reach, and whether it was."""
        size = self._size
        axes = tuple(pose[:3, :3].T.tolist())
        z = axes[2]
        x, y, height = pose[:3, 3].tolist()
        wrist = (x - size.tool * z[0], y - size.tool * z[1], height - size.tool * z[2] - size.base)
        distance = math.hypot(*wrist)
        within = max(size.reach_min, min(size.reach_max, distance))
        if distance == within:
            return Target(wrist, axes), True
        if distance < 1e-6:  # no direction of its own: the present one
            frames = self._chain(near)
            wrist = tuple((frames[4][:3, 3] - frames[0][:3, 3]).tolist())
        scale = within / math.hypot(*wrist)
        moved = (wrist[0] * scale, wrist[1] * scale, wrist[2] * scale)
        return Target(moved, axes), abs(distance - within) <= _REACH_SLACK_M

    def _result(self, status: IkStatus, q: Array, pose: Transform) -> IkResult:
        frames = self._chain(q)
        position, rotation = _pose_distance(frames[-1], pose)
        angle = self._arm_angle(frames[0], frames[3], frames[4])
        return IkResult(status, q, frames[-1], float(angle), float(position), float(rotation))

    def _closest(self, pose: Transform, target: Target, near: list[float]) -> Array:
        """Local minimum of the pose error inside the limits, by projected Levenberg-Marquardt from ``near``.

        Started from ``near`` and nowhere else, so that the answer moves continuously while a target is dragged
        through poses that the limits forbid.
        """
        lower, upper = self.limits.T
        start = q = np.array(near)
        damping, (error, cost) = 1e-4, self._pose_error(pose, q)
        for _ in range(_MAX_STEPS):
            jacobian = self.jacobian(q)
            jacobian[3:] *= _ROTATION_WEIGHT_M
            gradient = jacobian.T @ error - _STAY_M2 * (q - start)
            free = ~(((q <= lower) & (gradient < 0.0)) | ((q >= upper) & (gradient > 0.0)))
            normal = jacobian[:, free].T @ jacobian[:, free] + (damping + _STAY_M2) * np.eye(int(free.sum()))
            step = np.zeros(7)
            step[free] = np.linalg.solve(normal, gradient[free])
            trial = np.clip(q + np.clip(step, -0.3, 0.3), lower, upper)
            trial_error, trial_cost = self._pose_error(pose, trial)
            trial_cost += 0.5 * _STAY_M2 * float(((trial - start) ** 2).sum())
            if trial_cost < cost:
                gained = cost - trial_cost
                q, error, cost, damping = trial, trial_error, trial_cost, max(damping * 0.2, 1e-9)
                if gained < 1e-12 + 1e-5 * cost:
                    break
            else:
                damping *= 8.0
                if damping > 1e3:
                    break
        return q

    def _pose_error(self, pose: Transform, q: Array) -> tuple[Array, float]:
        """(6,) m from the reached to the requested pose (rotation weighted), and half its square."""
        reached = self.fk(q)
        turn = rotation_log(pose[:3, :3] @ reached[:3, :3].T)
        error = np.concatenate([pose[:3, 3] - reached[:3, 3], _ROTATION_WEIGHT_M * turn])
        return error, 0.5 * float(error @ error)


def _pose_distance(a: Transform, b: Transform) -> tuple[Array, Array]:
    """(position m, rotation rad) between (..., 4, 4); from |A - B| of the rotations, exact for small angles."""
    position = np.sqrt(((a[..., :3, 3] - b[..., :3, 3]) ** 2).sum(-1))
    half_sine = np.sqrt(((a[..., :3, :3] - b[..., :3, :3]) ** 2).sum((-1, -2)) / 8.0)
    return position, 2.0 * np.arcsin(np.minimum(half_sine, 1.0))


def _rigid(poses: Transform) -> Transform:
    """(..., 4, 4) -> (N, 4, 4), checked. Raises BadInput."""
    poses = np.asarray(poses, float)
    if poses.shape[-2:] != (4, 4):
        raise BadInput(f"got a pose of shape {poses.shape}, expected (..., 4, 4)")
    poses = poses.reshape(-1, 4, 4)
    rotation = poses[:, :3, :3]
    off = np.abs(rotation.swapaxes(-1, -2) @ rotation - np.eye(3)).max(initial=0.0)
    # Written so that NaN fails too.
    if not (off <= _RIGID_SLACK and np.isfinite(poses).all() and (np.linalg.det(rotation) > 0.0).all()):
        raise BadInput("got a pose that is not finite or whose rotation is not orthonormal: give a rigid transform")
    return poses


def _finite(values: ArrayLike, name: str) -> Array:
    values = np.asarray(values, float)
    if not np.isfinite(values).all():
        raise BadInput(f"got {name} = {values.tolist()}, expected finite angles in rad")
    if name == "q_near" and values.shape[-1:] != (7,):
        raise BadInput(f"got q_near of shape {values.shape}, expected (..., 7) in the order of ARM_JOINTS")
    return values
