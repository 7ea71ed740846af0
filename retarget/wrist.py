"""An operator's wrist to the arm: clutch, scaling, soft limits, inverse kinematics, smooth joints.

While the clutch is engaged the palm repeats the *movement* of the operator's wrist since it was engaged, from where
the palm then was: nothing jumps, whatever the operator did in between. Positions and rotations are those of the rig's
world (``docs/conventions.md``); an input device with axes of its own is turned by ``world_R_operator``.

The target is saturated smoothly, before the inverse kinematics: at the workspace box, and at the sphere that the
arm's wrist can reach, so that pulling beyond either slows the arm down instead of shaking it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..hardware.description import ArmMount
from ..hardware.errors import BadInput
from ..hardware.geometry import Transform, interpolate, inverse, pose_error, rotation_exp, rotation_log, transform
from ..hardware.kinematics import ArmKinematics, IkStatus
from .filters import Follower, FollowerConfig, OneEuroConfig, OneEuroPose

Array = NDArray[np.float64]

STILL_M, STILL_RAD = 1e-6, 1e-6
LONG_GAP_S = 0.5  # after a longer pause between samples the arm does not try to make up for it


@dataclass(frozen=True)
class WristRetargetConfig:
    """How a wrist is followed."""

    translation_scale: float = 1.0
    """Metres of the palm per metre of the operator's wrist."""
    rotation_scale: float = 1.0
    world_R_operator: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    """Rotation of the operator's axes in the rig's world, row by row."""
    soft_margin_m: float = 0.04
    """Width of the band inside the workspace box in which the palm is slowed down."""
    reach_margin_m: float = 0.02
    """The same inside the arm's reach; the arm is never stretched out, where it is singular."""
    speed_limit_m_s: float = 0.6
    turn_limit_rad_s: float = 2.0
    jump_rad: float = 0.5
    """A solution farther than this from the last is another branch: the arm stops short of it."""
    position_filter: OneEuroConfig | None = field(default_factory=lambda: OneEuroConfig(1.5, 30.0))
    """Against the tracker's jitter, Hz per m/s; None = the wrist is free of noise (neither filter)."""
    rotation_filter: OneEuroConfig | None = field(default_factory=lambda: OneEuroConfig(1.5, 6.0))
    """The same for rotation, Hz per rad/s."""
    follower: FollowerConfig | None = field(
        default_factory=lambda: FollowerConfig(
            stiffness_rad_s=15.0,
            stiffness_per_speed=4.0,
            lead=0.6,
            speed_cutoff_hz=3.0,
            # 400 deg/s2 and 240 rad/s3 at a joint of 225 deg/s: inside what SafeRobot lets through, with room for
            # ticks that come late.
            acceleration_limit=1.8,
            jerk_limit=60.0,
            speed_limit=0.78,
        )
    )
    """Smoothing of the joints, in units of each joint's top speed. None = unfiltered."""

    def __post_init__(self) -> None:
        rotation = np.array(self.world_R_operator, float)
        if rotation.shape != (9,) or np.abs(rotation.reshape(3, 3) @ rotation.reshape(3, 3).T - np.eye(3)).max() > 1e-6:
            raise BadInput(
                f"world_R_operator is {self.world_R_operator}: expected nine numbers of a rotation, by rows."
            )
        if not (0 < self.translation_scale <= 5 and 0 <= self.rotation_scale <= 3):
            raise BadInput(
                f"Wrist scales are {self.translation_scale} and {self.rotation_scale}: expected up to 5 and up to 3."
            )
        if (self.position_filter is None) != (self.rotation_filter is None):
            raise BadInput("Filters of the wrist's position and rotation go together: give both or neither.")
        if min(self.soft_margin_m, self.reach_margin_m, self.speed_limit_m_s, self.turn_limit_rad_s) <= 0:
            raise BadInput(f"Margins and speed limits of the wrist must be positive, got {self}.")


@dataclass(frozen=True, slots=True)
class WristResult:
    """What one sample came to."""

    arm_q: Array  # (7,) rad, command
    world_T_palm: Transform  # (4, 4) the pose that was aimed at, after saturation
    status: IkStatus
    engaged: bool  # False: ``arm_q`` is held
    saturated_m: float  # how far the wish lies outside of what is aimed at


class WristRetargeter:
    """Wrist poses in, joint angles out, one call per sample. Not thread-safe."""

    def __init__(
        self,
        mount: ArmMount,
        workspace_m: tuple[float, ...],
        config: WristRetargetConfig | None = None,
        kinematics: ArmKinematics | None = None,
    ) -> None:
        """``workspace_m``: x0, x1, y0, y1, z0, z1 of the box in the world that the palm's origin stays in."""
        self.config = config or WristRetargetConfig()
        self.kinematics = kinematics or ArmKinematics(mount.arm)
        self._base_T_world = inverse(mount.world_T_base)
        self._world_T_base = mount.world_T_base
        self._flange_T_palm = mount.flange_T_palm
        self._palm_T_flange = inverse(mount.flange_T_palm)
        box = np.array(workspace_m, float)
        self._low, self._high = box[::2], box[1::2]
        self._shoulder_m, self._reach_m, self._tool_m = _reach_of(mount)  # (3,), (2,) nearest and farthest, scalar
        self._speeds = mount.arm.speeds
        self._align = np.array(self.config.world_R_operator).reshape(3, 3)
        self._follower = Follower(self.config.follower) if self.config.follower else None
        jitter = (self.config.position_filter, self.config.rotation_filter)
        self._calm = OneEuroPose(*jitter) if None not in jitter else None
        self._q: Array | None = None  # last command
        self._solved: Array | None = None  # last solution, which the follower is on its way to
        self.engaged = False

    def world_T_palm(self, arm_q: Array) -> Transform:
        """Pose of the palm (4, 4) at joint angles (7,)."""
        return self._world_T_base @ self.kinematics.fk(arm_q) @ self._flange_T_palm

    def reset(self, arm_q: Array) -> None:
        """New episode: the arm stands at ``arm_q`` (7,) rad, the clutch is open."""
        self._q = np.array(arm_q, float)
        self._solved = self._q.copy()
        self.engaged = False
        if self._follower:
            self._follower.reset(self._q / self._speeds)

    def engage(self) -> None:
        """Close the clutch: the next pose counts as the wrist's zero, the palm stays where it is."""
        if self._q is None:
            raise BadInput("The arm's position is not known: call reset(arm_q) before engage().")
        self.reset(self._q)
        self._palm0 = self.world_T_palm(self._q)
        self._aimed = self._palm0
        self._hand0: Transform | None = None
        self._sampled_s = self._time_s = 0.0  # of the last sample, of the last output
        self.engaged = True

    def release(self) -> None:
        """Open the clutch: hold."""
        self.engaged = False

    def retarget(self, operator_T_hand: Transform, time_s: float) -> WristResult:
        """One sample: the wrist's pose (4, 4) in the operator's axes and its capture time.

        A pose that is not finite (wrist lost) opens the clutch and holds. Raises BadInput before :meth:`reset`.
        """
        if self._q is None:
            raise BadInput("The arm's position is not known: call reset(arm_q) before retarget().")
        pose = np.asarray(operator_T_hand, float)
        if pose.shape != (4, 4):
            raise BadInput(f"The wrist's pose has shape {pose.shape}: expected (4, 4).")
        if not np.isfinite(pose).all():
            self.release()
        if not self.engaged:
            return WristResult(self._q.copy(), self.world_T_palm(self._q), IkStatus.OK, False, 0.0)
        if self._hand0 is None:
            self._hand0 = pose
            self._sampled_s = self._time_s = time_s
            if self._calm:
                self._calm.reset(pose)
        since_s = min(max(time_s - self._sampled_s, 0.0), LONG_GAP_S)
        self._sampled_s = time_s
        wish = self._wish(self._calm(pose, since_s) if self._calm else pose)
        aim = self._limited(self._reachable(self._inside(wish)), since_s)
        status = self._solve(aim)
        self._step(time_s)
        missed = float(np.linalg.norm(wish[:3, 3] - self._aimed[:3, 3]))
        return WristResult(self._q.copy(), self._aimed, status, True, missed)

    def _wish(self, operator_T_hand: Transform) -> Transform:
        """World_T_palm that the operator's movement since engaging asks for, unlimited."""
        assert self._hand0 is not None
        config = self.config
        moved = config.translation_scale * (self._align @ (operator_T_hand[:3, 3] - self._hand0[:3, 3]))
        turned = rotation_log(operator_T_hand[:3, :3] @ self._hand0[:3, :3].T)
        rotation = rotation_exp(config.rotation_scale * (self._align @ turned)) @ self._palm0[:3, :3]
        return transform(rotation, self._palm0[:3, 3] + moved)

    def _inside(self, world_T_palm: Transform) -> Transform:
        """The pose drawn smoothly into the workspace box, which always contains the pose of engagement."""
        low = np.minimum(self._low, self._palm0[:3, 3] - self.config.soft_margin_m)
        high = np.maximum(self._high, self._palm0[:3, 3] + self.config.soft_margin_m)
        position = soft_clip(world_T_palm[:3, 3], low, high, self.config.soft_margin_m)
        return transform(world_T_palm[:3, :3], position)

    def _reachable(self, world_T_palm: Transform) -> Transform:
        """The pose moved towards the shoulder, orientation kept, so that the arm's wrist stays within reach."""
        base_T_flange = self._base_T_world @ world_T_palm @ self._palm_T_flange
        wrist = base_T_flange[:3, 3] - self._tool_m * base_T_flange[:3, 2]
        arm = wrist - self._shoulder_m
        distance = float(np.linalg.norm(arm))
        margin = self.config.reach_margin_m
        within = float(soft_clip(np.array([distance]), self._reach_m[:1], self._reach_m[1:], margin)[0])
        if within == distance:
            return world_T_palm
        shift = self._world_T_base[:3, :3] @ (arm * (within / distance - 1.0))
        return transform(world_T_palm[:3, :3], world_T_palm[:3, 3] + shift)

    def _limited(self, world_T_palm: Transform, dt_s: float) -> Transform:
        """As far towards the pose as the speed limits of the palm allow from the last aim."""
        move, turn = pose_error(self._aimed, world_T_palm)
        limits = self.config.speed_limit_m_s * dt_s, self.config.turn_limit_rad_s * dt_s
        share = min(1.0, limits[0] / max(float(move), 1e-12), limits[1] / max(float(turn), 1e-12))
        return world_T_palm if share >= 1.0 else interpolate(self._aimed, world_T_palm, share)

    def _solve(self, aim: Transform) -> IkStatus:
        """Set the solution for the farthest pose between the last aim and this one that needs no change of branch."""
        assert self._solved is not None
        last, share, whole = self._aimed, 1.0, True
        move, turn = pose_error(last, aim)
        if move < STILL_M and turn < STILL_RAD:
            return IkStatus.OK  # an operator who holds still does not see the elbow wander
        for _ in range(4):
            pose = aim if whole else interpolate(last, aim, share)
            result = self.kinematics.ik(self._base_T_world @ pose @ self._palm_T_flange, self._solved)
            if np.abs(result.q - self._solved).max() <= self.config.jump_rad:
                self._solved = result.q
                self._aimed = self._world_T_base @ result.base_T_flange @ self._flange_T_palm
                return result.status if whole else IkStatus.JOINT_LIMIT
            share, whole = 0.5 * share, False
        return IkStatus.JOINT_LIMIT

    def advance(self, time_s: float) -> Array:
        """Joint angles (7,) at ``time_s``, with no new sample: the joints go on. BadInput before :meth:`reset`."""
        if self._q is None:
            raise BadInput("The arm's position is not known: call reset(arm_q) before advance().")
        if self.engaged and self._hand0 is not None and self._follower and time_s > self._time_s:
            self._set(self._follower.coast(min(time_s - self._time_s, LONG_GAP_S)))
            self._time_s = time_s
        return self._q.copy()

    def _step(self, time_s: float) -> None:
        assert self._solved is not None
        if self._follower:
            dt_s = min(max(time_s - self._time_s, 0.0), LONG_GAP_S)
            self._set(self._follower(self._solved / self._speeds, dt_s))
        else:
            self._q = self._solved.copy()
        self._time_s = time_s

    def _set(self, followed: Array) -> None:
        limits = self.kinematics.limits
        self._q = np.clip(followed * self._speeds, limits[:, 0], limits[:, 1])


def soft_clip(value: Array, low: Array, high: Array, margin: float) -> Array:
    """Identity inside [low + margin, high - margin], then an exponential approach to the bound; slope continuous."""
    above = np.maximum(value - (high - margin), 0.0)
    below = np.maximum((low + margin) - value, 0.0)
    drawn_in = above - margin * -np.expm1(-above / margin)
    drawn_up = below - margin * -np.expm1(-below / margin)
    return np.minimum(np.maximum(value - drawn_in + drawn_up, low), high)


def _reach_of(mount: ArmMount) -> tuple[Array, Array, float]:
    """Shoulder (3,) m in the base, least and greatest distance (2,) m of the wrist from it, wrist to flange m.

    Of a spherical-roll-spherical arm: greatest with the elbow straight, least with the elbow at its limit.
    """
    links = mount.arm.links
    upper, lower, tool = (float(np.linalg.norm(links[i].origin_m)) for i in (2, 4, 6))
    least = np.sqrt(upper**2 + lower**2 + 2 * upper * lower * np.cos(links[3].limit_rad))
    return np.array(links[0].origin_m), np.array([least, upper + lower]), tool
