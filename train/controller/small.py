"""The small encoder: the mask is turned into geometry first. Tokens say where the target is and was, how it is shaped,
how the hand stands to it, and what the surroundings of target and wrist look like.

The arm's joints are not among them: the same pose of the hand has many, and which one says little about what to do.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..views import View
from .config import NO_GOAL, GoalConfig, SmallEncoderConfig
from .corruption import corrupt_depth, corrupt_edges, corrupt_tracking, jitter_colours, moved
from .draws import Draws
from .geometry import (
    ARM_DOF,
    FAR_M,
    NEAR_M,
    NOWHERE,
    HeadCamera,
    Target,
    heading,
    look,
    look_around,
    rotation_to_six,
    six_to_rotation,
    world_T_palm,
)
from .parts import Batch
from .point_set import PointSet

HAND_FEATURES, TARGET_FEATURES, POINT_FEATURES, GOAL_FEATURES = 21, 29, 6, 27
_CLOSE_M = 0.03  # distance to the goal that becomes 0.76: millimetres count there
_TOLD = 0.7  # share of the target that must be seen to tell whether it has moved
_WRIST_M = 0.3  # wrist depth that becomes 1


class SmallEncoder(nn.Module):
    """State, geometry now and at the reference, shapes, and optionally crop and wrist view -> tokens."""

    def __init__(self, config: SmallEncoderConfig, width: int, goal: GoalConfig = NO_GOAL) -> None:
        super().__init__()
        self.config = config
        head, wrist = config.head_size, config.wrist_size
        self._camera = HeadCamera(head)
        self._window = View("window", "head", *head, window=config.window, rgb=config.crop, depth=True, mask=True)
        self._wrist = View("wrist", "wrist", *wrist, depth=True)
        self.hand = _perceptron(HAND_FEATURES, width)
        self.now = _perceptron(TARGET_FEATURES, width)
        self.reference = _perceptron(TARGET_FEATURES, width)
        self.points = PointSet(POINT_FEATURES, width) if config.points else None
        self.around = PointSet(POINT_FEATURES, width) if config.around else None
        self.goal = _perceptron(GOAL_FEATURES, width) if goal.kind == "grasp" else None
        self._jitter_m = goal.jitter_m
        self.crop = _Picture(6, (config.window, config.window), width) if config.crop else None
        self.wrist = _Picture(5, (wrist[1], wrist[0]), width) if config.wrist else None
        sizes = {
            "hand": 1,
            "target": 2 + 2 * bool(config.points),
            "around": int(bool(config.around)),
            "goal": int(self.goal is not None),
            "head": self.crop.tokens if self.crop else 0,
            "wrist": self.wrist.tokens if self.wrist else 0,
        }
        ends = torch.tensor(list(sizes.values())).cumsum(0).tolist()
        self.groups = {
            name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True) if size
        }
        self.tokens: int = ends[-1]
        self.place = nn.Parameter(0.02 * torch.randn(self.tokens, width))

    @property
    def views(self) -> tuple[View, ...]:
        return (self._window, self._wrist) if self.config.wrist else (self._window,)

    @property
    def reference_views(self) -> tuple[View, ...]:
        return (self._window,)

    def fit(self, states: Tensor) -> None:
        """Nothing to learn: features have fixed scales."""

    # -- what is seen ----------------------------------------------------------------------------------------------

    def prepare(self, batch: Batch, draws: Draws | None) -> Batch:
        """The features that :meth:`forward` takes, and ``anchor`` (B, 3): where the target was at the reference (m,
        world), as it was seen, so that what is learnt and what is seen agree."""
        noise = self.config.noise if draws else 0.0
        points = self.config.points or 64  # without a shape token, enough for a median
        before, first_depth, first_mask = self._look(batch, "reference.window", points, noise, draws)
        now, depth, mask = self._look(batch, "window", points, noise, draws)
        palm = world_T_palm(batch["state"][:, :ARM_DOF]).to(before.centre)
        anchor = torch.where(before.seen[:, None], before.anchor, before.centre.new_tensor(NOWHERE))
        # All positions from the anchor, along upright axes that are turned with the palm's heading: what was shown at
        # one heading is then the same at every other.
        axes = heading(palm[:, :3, :3])
        offset = ((palm[:, None, :3, 3] - anchor[:, None]) @ axes)[:, 0]
        tilt = axes.transpose(1, 2) @ palm[:, :3, :3]
        before_world, beside_world = before, None
        before, now = before.seen_from(anchor, axes), now.seen_from(anchor, axes)
        out = {
            "state": batch["state"],
            "anchor": anchor,
            "hand": _hand(batch["state"], offset, tilt, axes, anchor),
            "now": _target(now, before, offset, tilt, anchor),
            "reference": _target(before, before, offset, tilt, anchor),
        }
        if self.points is not None:
            out["points.now"] = _points(now, offset, tilt)
            out["points.reference"] = _points(before, offset, tilt)
        if self.around is not None:
            origin = batch["reference.window.origin"].long()
            beside_world, there = look_around(
                self._camera, first_depth, first_mask, origin, anchor, self.config.around, draws
            )
            beside = (beside_world - anchor[:, None]) @ axes
            out["around"] = _seen_from_both(beside, offset, tilt, there & before.seen, FAR_M / 2)
        if self.goal is not None:
            out |= self._scene(before_world, anchor, beside_world)
        if self.goal is not None and "goal" in batch:  # there is none yet where one is to be chosen
            goal = batch["goal"].to(anchor) if draws is None else self._jittered(batch["goal"].to(anchor), draws)
            out["goal"] = _goal(goal, anchor, axes, palm)
        if self.crop is not None:
            heights = self._camera.heights(depth, batch["window.origin"]) - anchor[:, 2, None, None]
            out["crop"] = self._crop(batch["window.rgb"], depth, mask, heights, draws)
        if self.wrist is not None:
            out["wrist"] = self._see_wrist(batch["wrist.rgb"], batch["wrist.depth"], noise, draws)
        return out

    def _scene(self, target: Target, anchor: Tensor, around: Tensor | None) -> Batch:
        """What a grasp is chosen from (:class:`.goal.GraspGoal`): the target as the attempt began, from its anchor
        along the world's axes, since where it stands decides what the arm can do."""
        centred = target.seen_from(anchor, torch.eye(3).to(anchor).expand(len(anchor), 3, 3))
        box = torch.cat([centred.centre, centred.low, centred.high], 1) / NEAR_M
        room = (anchor - anchor.new_tensor(NOWHERE)) / FAR_M
        seen = target.seen.to(anchor)[:, None]
        shown = torch.log1p(target.pixels.to(anchor))[:, None] / 5
        scene = torch.cat([box * seen, _lying(centred.covariance) * seen, room, anchor[:, 2:] / NEAR_M, shown, seen], 1)
        out = {"scene": scene, "scene.points": centred.points / NEAR_M * seen[:, None]}
        if around is not None:
            there = around.abs().sum((1, 2), keepdim=True) > 0
            out["scene.around"] = (around - anchor[:, None]) / (FAR_M / 2) * there
        return out

    def _jittered(self, goal: Tensor, draws: Draws) -> Tensor:
        """Not quite where the hand will close, so that what is seen of the target counts too."""
        noise = self._jitter_m * draws.normal(9).to(goal)
        six = rotation_to_six(six_to_rotation(goal[:, 3:9] + 5 * noise[:, 3:]))
        return torch.cat([goal[:, :3] + noise[:, :3], six, goal[:, 9:]], 1)

    def moved(self, batch: Batch) -> Tensor:
        """(B, 3) m, world: how far the target has moved over the table since the attempt began; NaN where too little of
        it is seen to tell."""
        points = self.config.points or 64
        before = self._look(batch, "reference.window", points, 0.0, None)[0]
        now = self._look(batch, "window", points, 0.0, None)[0]
        off = now.centre - before.centre
        off = torch.cat([off[:, :2], torch.zeros_like(off[:, 2:])], 1)
        told = before.seen & (now.pixels > _TOLD * before.pixels)
        return torch.where(told[:, None], off, float("nan"))

    def _look(
        self, batch: Batch, view: str, points: int, noise: float, draws: Draws | None
    ) -> tuple[Target, Tensor, Tensor]:
        """The target in a window, with the window's depth and mask as they were seen."""
        depth, mask, origin = batch[f"{view}.depth"], batch[f"{view}.mask"], batch[f"{view}.origin"].long()
        if draws is not None and noise:
            depth = corrupt_depth(depth, noise, draws)
            if view == "window":  # an attempt begins with a mask of now and of the right thing, or not at all
                late = batch.get("lagged.window.mask")
                if late is not None:
                    late = moved(late, batch["lagged.window.origin"].long() - origin)
                mask = corrupt_tracking(mask, late, noise, draws)
            mask = corrupt_edges(mask, noise, draws)
        return look(self._camera, depth, mask, origin, points, draws), depth, mask

    def _crop(self, rgb: Tensor, depth: Tensor, mask: Tensor, heights: Tensor, draws: Draws | None) -> Tensor:
        """(B, 6, h, w): colours, height over the anchor, whether depth is valid, mask."""
        valid = depth > 0
        height = torch.where(valid, (heights / NEAR_M).clamp(-4, 4), 0.0)
        return torch.cat([self._colours(rgb, draws), torch.stack([height, valid.float(), mask.float()], 1)], 1)

    def _see_wrist(self, rgb: Tensor, depth: Tensor, noise: float, draws: Draws | None) -> Tensor:
        """(B, 5, h, w): colours, depth, whether it is valid."""
        if draws is not None and noise:
            depth = corrupt_depth(depth, noise, draws)
        valid = depth > 0
        near = torch.where(valid, (depth / _WRIST_M).clamp(0, 3) - 1, 0.0)
        return torch.cat([self._colours(rgb, draws), torch.stack([near, valid.float()], 1)], 1)

    def _colours(self, rgb: Tensor, draws: Draws | None) -> Tensor:
        picture = rgb.movedim(-1, 1).float() / 255
        if draws is not None and any(self.config.jitter):
            picture = jitter_colours(picture, self.config.jitter, draws)
        return 2 * picture - 1

    # -- what it becomes -------------------------------------------------------------------------------------------

    def forward(self, prepared: Batch) -> Tensor:
        """(B, tokens, width)."""
        tokens = [
            self.hand(prepared["hand"])[:, None],
            self.now(prepared["now"])[:, None],
            self.reference(prepared["reference"])[:, None],
        ]
        if self.points is not None:
            tokens += [self.points(prepared["points.now"])[:, None], self.points(prepared["points.reference"])[:, None]]
        if self.around is not None:
            tokens.append(self.around(prepared["around"])[:, None])
        if self.goal is not None:
            tokens.append(self.goal(prepared["goal"])[:, None])
        if self.crop is not None:
            tokens.append(self.crop(prepared["crop"]))
        if self.wrist is not None:
            tokens.append(self.wrist(prepared["wrist"]))
        return torch.cat(tokens, 1) + self.place


def _hand(state: Tensor, offset: Tensor, tilt: Tensor, axes: Tensor, anchor: Tensor) -> Tensor:
    """(B, 21): the palm from the anchor, its tilt (6), its height, the anchor in the palm frame, openings, heading."""
    return torch.cat(
        [
            offset / FAR_M,
            rotation_to_six(tilt),
            (offset + anchor)[:, 2:] / FAR_M,
            _turned(tilt, -offset) / FAR_M,
            2 * state[:, ARM_DOF:] - 1,
            axes[:, :2, 0],
        ],
        1,
    )


def _target(target: Target, reference: Target, offset: Tensor, tilt: Tensor, anchor: Tensor) -> Tensor:
    """(B, 29): box and centre from the anchor, in the palm frame, and over the table; how long and which way it lies;
    how much of it shows; where the anchor is. Zeros but for the last five where it is not seen."""
    box = torch.stack([target.centre, target.low, target.high], 1)  # (B, 3, 3)
    middle = (target.low + target.high) / 2
    in_palm = torch.cat([_turned(tilt, target.centre - offset), _turned(tilt, middle - offset)], 1)
    shown = torch.log1p(target.pixels.to(anchor))[:, None]
    share = (target.pixels / reference.pixels.clamp_min(1)).clamp(0, 2).to(anchor)[:, None]
    sizes = [
        box.flatten(1) / NEAR_M,
        in_palm / FAR_M,
        (box[:, :, 2] + anchor[:, 2:]) / NEAR_M,
        _lying(target.covariance),
        shown / 5,
        share,
    ]
    seen = target.seen.to(anchor)[:, None]
    room = (anchor - anchor.new_tensor(NOWHERE)) / FAR_M
    return torch.cat([torch.cat(sizes, 1) * seen, seen, room, anchor[:, 2:] / NEAR_M], 1)


def _lying(covariance: Tensor) -> Tensor:
    """(B, 3) xx, xy, yy m2 -> (B, 4): deviation along the long and the short axis, and twice the long one's angle as a
    vector that is as long as the object is slender (an angle would jump, and mean nothing for what is round)."""
    xx, xy, yy = covariance.unbind(1)
    mean, half = (xx + yy) / 2, (xx - yy) / 2
    radius = torch.hypot(half, xy)
    axes = torch.stack([mean + radius, mean - radius], 1).clamp_min(0).sqrt()
    direction = torch.stack([half, xy], 1) / mean.clamp_min(1e-8)[:, None]
    return torch.cat([axes / NEAR_M, direction], 1)


def _points(target: Target, offset: Tensor, tilt: Tensor) -> Tensor:
    """(B, N, 6): points from the anchor, and in the palm frame. Zeros where the target is not seen."""
    return _seen_from_both(target.points, offset, tilt, target.seen, NEAR_M)


def _seen_from_both(points: Tensor, offset: Tensor, tilt: Tensor, there: Tensor, unit_m: float) -> Tensor:
    from_palm = (points - offset[:, None]) @ tilt
    return torch.cat([points / unit_m, from_palm / FAR_M], -1) * there.to(offset)[:, None, None]


def _goal(goal: Tensor, anchor: Tensor, axes: Tensor, palm: Tensor) -> Tensor:
    """(B, 27): the goal's palm from the anchor, how far it still is (far and near), the turn to it, its tilt, and the
    openings to arrive with."""
    palm = palm.to(anchor)
    rotation = six_to_rotation(goal[:, 3:9])
    left = ((goal[:, :3] - palm[:, :3, 3])[:, None] @ axes)[:, 0]
    return torch.cat(
        [
            ((goal[:, :3] - anchor)[:, None] @ axes)[:, 0] / FAR_M,
            left / FAR_M,
            torch.tanh(left / _CLOSE_M),
            rotation_to_six(palm[:, :3, :3].transpose(1, 2) @ rotation),
            rotation_to_six(axes.transpose(1, 2) @ rotation),
            4 * goal[:, 9:] - 3,
        ],
        1,
    )


def _turned(rotation: Tensor, vector: Tensor) -> Tensor:
    """(B, 3) -> in the frame whose axes are the columns of rotation (B, 3, 3)."""
    return (vector[:, None] @ rotation)[:, 0]


def _perceptron(features: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(features, width), nn.GELU(), nn.Linear(width, width), nn.LayerNorm(width))


class _Picture(nn.Module):
    """A few tokens of a small picture: four strided convolutions, a token for each place that is left."""

    def __init__(self, channels: int, size: tuple[int, int], width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, 32, 6, 4, 1), nn.GroupNorm(4, 32), nn.GELU()]
        for before, after in ((32, 64), (64, 96), (96, 128)):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(8, after), nn.GELU()]
        self.layers = nn.Sequential(*layers)
        with torch.no_grad():
            rows, columns = self.layers(torch.zeros(1, channels, *size)).shape[2:]
        self.tokens = rows * columns
        self.out = nn.Sequential(nn.Linear(128, width), nn.LayerNorm(width))

    def forward(self, picture: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, tokens, width)."""
        return self.out(self.layers(picture).flatten(2).transpose(1, 2))
