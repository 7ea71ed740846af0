"""Where things are: the palm from the joints, and the target from masked depth, in the world frame of the rig.

Torch in, torch out, batched over the leading axis, without gradients. Lengths in m. A mask without valid depth gives
zeros with ``seen`` False, never NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...hardware.kinematics import ArmKinematics
from ...hardware.rig import DEXGRASPVLA_RIG
from .draws import Draws

ARM_DOF = 7
FINGERS = slice(ARM_DOF + 1, ARM_DOF + 5)
"""Of a command or state: the openings of the four fingers."""
CLOSING = 0.67
"""Mean opening of the four fingers below which a hand has begun to close; every preshape is wider."""
TABLE_M = 0.012
"""What the mask holds up to this height is taken for the table: a mask bleeds over the target's edge, and a camera is
calibrated to a few mm. No object to grasp is as flat."""
NEAR_M, FAR_M = 0.05, 0.2
"""What becomes 1 in features: sizes of objects and clearances; distances of the hand."""
NOWHERE = (0.4, 0.0, 0.05)
"""Where an object that was never seen is taken to be (m, world): over the middle of the table. Its tokens say so."""
AROUND_M = 0.15
"""How near something stands that the hand may have to mind: the open hand is 0.2 m across."""
_RIM_PX = 3  # mask and depth disagree about so many pixels at an edge
_EDGE = 0.05  # share of the points that lies outside of ``low`` and ``high`` on either side: flying pixels
_ARM = DEXGRASPVLA_RIG.arms[0]
_KINEMATICS = ArmKinematics(_ARM.arm)

# -- the palm ----------------------------------------------------------------------------------------------------------


def world_T_palm(arm_q: Tensor) -> Tensor:
    """(..., 7) rad -> (..., 4, 4) float64, by forward kinematics."""
    base_T_flange = _KINEMATICS.fk(arm_q.detach().cpu().double().numpy())
    return torch.from_numpy(_ARM.world_T_base @ base_T_flange @ _ARM.flange_T_palm).to(arm_q.device)


def rotation_to_six(rotation: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 6): the first column, then the second (1812.07035)."""
    return torch.cat([rotation[..., 0], rotation[..., 1]], -1)


def six_to_rotation(six: Tensor) -> Tensor:
    """(..., 6), any numbers -> (..., 3, 3) orthonormal, by Gram-Schmidt (1812.07035, eq. 15). Where the two columns
    do not span a plane, an axis of the frame stands in for the missing one."""
    first = _unit(six[..., :3], six.new_tensor([1.0, 0.0, 0.0]))
    least = torch.nn.functional.one_hot(first.abs().argmin(-1), 3).to(six)  # surely not along ``first``
    spare = least - (least * first).sum(-1, keepdim=True) * first
    second = _unit(six[..., 3:] - (six[..., 3:] * first).sum(-1, keepdim=True) * first, spare)
    # Once more: what rounding left of the first column in a short second one.
    second = _unit(second - (second * first).sum(-1, keepdim=True) * first, spare)
    return torch.stack([first, second, torch.linalg.cross(first, second)], -1)


def heading(rotation: Tensor) -> Tensor:
    """(B, 3, 3) world_R_palm -> (B, 3, 3) world_R_level: upright, its x axis over the table as the palm's points. Where
    the palm points straight up or down its heading is that of the world."""
    x = _unit(rotation[:, :2, 0], rotation.new_tensor([1.0, 0.0]))
    out = torch.zeros_like(rotation)
    out[:, :2, 0] = x
    out[:, 0, 1], out[:, 1, 1] = -x[:, 1], x[:, 0]
    out[:, 2, 2] = 1
    return out


def _unit(vector: Tensor, otherwise: Tensor) -> Tensor:
    length = vector.norm(dim=-1, keepdim=True)
    other = otherwise / otherwise.norm(dim=-1, keepdim=True)
    return torch.where(length > 1e-9, vector / length.clamp_min(1e-9), other)


# -- the target --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HeadCamera:
    """The rig's head camera, its picture squashed to ``size``. Where it stands is the rig's nominal place: a policy
    does not know better."""

    size: tuple[int, int]  # width, height

    def heights(self, depth: Tensor, origin: Tensor) -> Tensor:
        """Window of depth (B, h, w), its corner (B, 2) px -> height above the table (B, h, w); where depth is invalid
        (0) it means nothing."""
        x = torch.arange(depth.shape[2], device=depth.device) + origin[:, :1]  # (B, w)
        y = torch.arange(depth.shape[1], device=depth.device) + origin[:, 1:]  # (B, h)
        fx, fy, cx, cy = self._intrinsics()
        turn, eye = self._pose(depth)
        per_metre = (turn[2, 0] * (x - cx) / fx)[:, None, :] + (turn[2, 1] * (y - cy) / fy + turn[2, 2])[:, :, None]
        return depth * per_metre + eye[2]

    def points(self, pixels: Tensor, depth: Tensor) -> Tensor:
        """Pixels (B, N, 2) (x, y) of the resized picture, their depth (B, N) -> world (B, N, 3)."""
        fx, fy, cx, cy = self._intrinsics()
        turn, eye = self._pose(depth)
        ray = torch.stack([(pixels[..., 0] - cx) / fx, (pixels[..., 1] - cy) / fy, torch.ones_like(depth)], -1)
        return (ray * depth[..., None]) @ turn.T + eye

    def _intrinsics(self) -> tuple[float, float, float, float]:
        camera = DEXGRASPVLA_RIG.camera("head").intrinsics.scaled(*self.size)
        return camera.fx, camera.fy, camera.cx, camera.cy

    @staticmethod
    def _pose(like: Tensor) -> tuple[Tensor, Tensor]:
        world_T_camera = torch.as_tensor(DEXGRASPVLA_RIG.camera("head").parent_T_camera).to(like)
        return world_T_camera[:3, :3], world_T_camera[:3, 3]


@dataclass(frozen=True)
class Target:
    """What masked depth says about an object. In world axes as :func:`look` gives it; all zeros where not ``seen``."""

    points: Tensor  # (B, N, 3) m, on its visible surface
    centre: Tensor  # (B, 3) m, median of the points: mask and depth errors at the edge do not move it
    low: Tensor  # (B, 3) m, box of the visible surface without its outermost points
    high: Tensor  # (B, 3) m
    covariance: Tensor  # (B, 3) m2, xx, xy, yy of the points seen from above
    pixels: Tensor  # (B,) how many pixels show it
    seen: Tensor  # (B,) bool

    @staticmethod
    def of(points: Tensor, pixels: Tensor) -> Target:
        """Describe points (B, N, 3) m, which ``pixels`` (B,) were chosen from."""
        seen = pixels > 0
        points = torch.where(seen[:, None, None], points, 0.0)
        count = points.shape[1]
        ordered = points.sort(1).values
        edge = int(_EDGE * count)
        low, high = ordered[:, edge], ordered[:, count - 1 - edge]
        centre = (ordered[:, (count - 1) // 2] + ordered[:, count // 2]) / 2
        # Around the median, of points inside the box only: an edge pixel far behind counts as if at the box's side.
        spread = (torch.minimum(torch.maximum(points, low[:, None]), high[:, None]) - centre[:, None])[..., :2]
        moment = spread.transpose(1, 2) @ spread / count
        covariance = torch.stack([moment[:, 0, 0], moment[:, 0, 1], moment[:, 1, 1]], -1)
        return Target(points, centre, low, high, covariance, pixels, seen)

    def seen_from(self, origin: Tensor, axes: Tensor) -> Target:
        """The same from a frame at ``origin`` (B, 3) with ``axes`` (B, 3, 3) as columns: its box is along them."""
        return Target.of((self.points - origin[:, None]) @ axes, self.pixels)

    @property
    def anchor(self) -> Tensor:
        """(B, 3) m, the middle of an object that stands on the table: of its box, half as high as its top. Nearer to
        its centre than the points' median, which is on the side of the camera. In world axes only."""
        middle = (self.low + self.high) / 2
        return torch.cat([middle[:, :2], self.high[:, 2:] / 2], 1)


def look(
    camera: HeadCamera, depth: Tensor, mask: Tensor, origin: Tensor, points: int, draws: Draws | None = None
) -> Target:
    """The target in a window: depth (B, h, w) m, 0 invalid; mask (B, h, w) bool; origin (B, 2) px; by ``points``
    pixels of it, evenly over the mask in reading order, with ``draws`` each at random in its share."""
    valid = mask & (depth > 0)
    above = valid & (camera.heights(depth, origin) > TABLE_M)
    # All that is left of a target pressed flat by a bad calibration is better than nothing.
    enough = above.flatten(1).sum(1) > 0.1 * valid.flatten(1).sum(1)
    valid = torch.where(enough[:, None, None], above, valid)
    place = _choose(valid.flatten(1), points, draws)  # (B, N) into the window
    width = depth.shape[2]
    xy = torch.stack([place % width, place // width], -1) + origin[:, None]
    cloud = camera.points(xy.to(depth), depth.flatten(1).gather(1, place))
    return Target.of(cloud, valid.flatten(1).sum(1))


def look_around(
    camera: HeadCamera,
    depth: Tensor,
    mask: Tensor,
    origin: Tensor,
    centre: Tensor,
    points: int,
    draws: Draws | None = None,
) -> tuple[Tensor, Tensor]:
    """What stands on the table beside the target: (B, N, 3) m world points, at most :data:`AROUND_M` from ``centre``
    (B, 3) as seen from above, and whether there is any (B,) bool. The rest as for :func:`look`; the mask grows first,
    so that the target's own edge is not taken for a neighbour."""
    for _ in range(_RIM_PX):
        mask = grown(mask)
    # Every other pixel of every other row is enough for something that is centimetres wide.
    depth, mask = depth[:, ::2, ::2], mask[:, ::2, ::2]
    height, width = depth.shape[1:]
    place = torch.arange(height * width, device=depth.device)
    xy = 2 * torch.stack([place % width, place // width], -1)[None] + origin[:, None]
    cloud = camera.points(xy.to(depth), depth.flatten(1))  # (B, h w, 3)
    near = (cloud[..., :2] - centre[:, None, :2]).norm(dim=-1) < AROUND_M
    valid = near & (cloud[..., 2] > TABLE_M) & (depth > 0).flatten(1) & ~mask.flatten(1)
    chosen = _choose(valid, points, draws)
    there = valid.any(1)
    return cloud.gather(1, chosen[..., None].expand(-1, -1, 3)) * there[:, None, None], there


def grown(mask: Tensor) -> Tensor:
    """(B, H, W) bool, true in the 3 x 3 pixels around what was true."""
    wide = mask.clone()
    wide[:, :, 1:] |= mask[:, :, :-1]
    wide[:, :, :-1] |= mask[:, :, 1:]
    tall = wide.clone()
    tall[:, 1:] |= wide[:, :-1]
    tall[:, :-1] |= wide[:, 1:]
    return tall


def _choose(valid: Tensor, points: int, draws: Draws | None) -> Tensor:
    """(B, P) bool -> (B, N) indices of true entries, the i-th from the i-th N-th of them; 0 where none is true."""
    counted = valid.cumsum(1, dtype=torch.int32)
    share = torch.full((len(valid), points), 0.5) if draws is None else draws.uniform(points)
    rank = (torch.arange(points) + share).to(valid.device) / points * counted[:, -1:]
    place = torch.searchsorted(counted, rank.to(torch.int32) + 1)
    return torch.where(counted[:, -1:] > 0, place.clamp_max(valid.shape[1] - 1), 0)
