"""Follows the target at the control rate without weights: points of the first picture, moved rigidly, checked by
colour and depth.

A target on the table stays where it is until the picture contradicts it; then it moves with the palm, or as the
optical flow says. What the robot's silhouette covers is occluded, not background. The head camera stands still, so the
first picture also says what every pixel looks like without the target.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from ...hardware.description import RigDescription
from ...hardware.errors import BadInput
from ...hardware.geometry import Transform, inverse, transform
from ...hardware.rig import DEXGRASPVLA_RIG
from ..planner.base import Box
from .appearance import Bins, Colours, Floats, bins_of, depth_noise_m, lab_of
from .base import Depth, Mask, Rgb, State, TargetMask, check_box, check_moment
from .pose import Evidence, ObjectPoints, PoseSearch, Score, SearchConfig, spread
from .segment import SegmentConfig, segment_box, table_depth
from .silhouette import Silhouette, Window

_FLOOR_PER_M = 1.0  # density of depths that no surface explains
_UNKNOWN_PER_M = 2.0  # density of depths where nothing is known of what lies there


@dataclass(frozen=True)
class TrackerConfig:
    """How the target is followed. Pixels are of a picture 640 wide."""

    segment: SegmentConfig = field(default_factory=SegmentConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    margin_px: int = 40
    """Looked at around where the target may be."""
    reach_px: float = 3.0
    """How fast the target's prior falls outside of its points' outline."""
    silhouette_px: float = 4.0
    """How far the robot's outline may be off: calibration, and shapes that are simpler than the robot."""
    smoothness: float = 1.5
    """Log odds that neighbours give each other."""
    grip_m: float = 0.22
    """Only a target within this of the palm's origin moves with it."""
    closed: float = 0.7
    """And only while the fingers' mean opening is below this."""
    risen_m: float = 0.012
    """A hidden target in a closed hand counts as lifted once the palm rose by this."""
    contradicted: float = 0.5
    """A pose is doubted when its score falls below this share of the first picture's."""
    blind: float = 0.12
    """With a smaller share of the points to be checked, nothing is concluded."""
    fade: float = 0.985
    """Confidence is multiplied by this for each picture in which nothing can be checked."""
    lost: float = 0.2
    """Lost below this confidence."""

    def __post_init__(self) -> None:
        shares = (self.contradicted, self.blind, self.fade, self.lost)
        if not all(0 < share < 1 for share in shares):
            raise BadInput(f"tracker contradicted, blind, fade and lost are {shares}: expected each in 0..1.")
        if min(self.margin_px, self.reach_px, self.silhouette_px, self.grip_m) <= 0 or self.smoothness < 0:
            raise BadInput("tracker margin_px, reach_px, silhouette_px and grip_m are above 0, smoothness 0 or more.")


@dataclass
class _Target:
    """What is known of the target and its surroundings since the start."""

    search: PoseSearch
    colours: Colours
    around: Colours
    robot: Colours
    still_lab: NDArray[np.uint8]  # (H, W, 3) of the first picture
    still_m: Floats  # (H, W) depth of what stands behind the target, 0 = unknown
    still_known: Mask  # (H, W) the first picture shows what stands there
    reference: float  # score of the first picture
    pose: Transform  # camera-now from camera-at-start
    anchor: Transform  # the last pose that was checked
    anchor_palm: Transform  # where the palm was when the target was last there, world_T_palm
    before: tuple[NDArray[np.uint8], Mask, Depth]  # grey, visible mask and depth of the last picture
    held: bool = False  # moves with the palm
    confidence: float = 1.0


class RigidTracker:
    """A ``MaskTracker`` for a target that keeps its shape, before a camera that stands still."""

    def __init__(self, config: TrackerConfig | None = None, rig: RigDescription = DEXGRASPVLA_RIG) -> None:
        self.config = config or TrackerConfig()
        self._camera = rig.camera("head")
        self._silhouette = Silhouette(rig)
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._target: _Target | None = None

    def start(self, rgb: Rgb, depth_m: Depth, box: Box, state: State) -> TargetMask:
        check_moment(rgb, depth_m, state)
        height, width = depth_m.shape
        x0, y0, x1, y1 = check_box(box, height, width)
        intrinsics = self._camera.intrinsics.scaled(width, height)
        robot = self._silhouette.covers(state, intrinsics)
        mask = segment_box(rgb, depth_m, box, robot, self.config.segment, self._camera)
        lab = lab_of(rgb)
        bins = bins_of(lab)
        pad = round(0.6 * max(x1 - x0, y1 - y0)) + 8
        near = np.zeros(mask.shape, bool)
        near[max(0, y0 - pad) : y1 + pad, max(0, x0 - pad) : x1 + pad] = True
        plane = table_depth(depth_m, near & ~mask & ~robot, self._camera)
        if plane is None:
            plane = table_depth(depth_m, ~mask & ~robot, self._camera)
        points = ObjectPoints(mask, depth_m, plane, intrinsics)
        colours, around = Colours(), Colours()
        colours.add(bins[mask])
        around.add(bins[near & ~mask & ~robot])
        wide = cv2.dilate((mask | robot).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        still = depth_m.astype(np.float32).copy()
        if plane is not None:
            flat = (np.abs(still - plane) < 4 * depth_noise_m(plane, self._camera)) | (mask & ~robot)
            still[flat] = plane[flat]
        still[robot] = 0
        pose = np.eye(4)
        palm = self._silhouette.world_T_palm(state)
        before = (cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), mask, depth_m.copy())
        target = _Target(
            PoseSearch(points, self.config.search), colours, around, Colours(), lab, still, ~wide, 1.0, pose, pose,
            palm, before,
        )  # fmt: skip
        self._target = target
        window = self._window([pose], target, (height, width))
        evidence, _ = self._look(target, lab, bins, depth_m, state, window)
        [score] = target.search.score(pose[None], evidence)
        target.reference = max(score.each, 0.5)
        return TargetMask(mask, mask.copy(), 0.0, 1.0)

    def update(self, rgb: Rgb, depth_m: Depth, state: State) -> TargetMask:
        target = self._target
        if target is None:
            raise BadInput("there is no target yet: call start with its box first.")
        size = target.still_m.shape
        check_moment(rgb, depth_m, state, (size[0], size[1]))
        palm = self._silhouette.world_T_palm(state)
        camera_T_world = self._silhouette.camera_T_world
        carried = camera_T_world @ palm @ inverse(target.anchor_palm) @ inverse(camera_T_world) @ target.anchor
        window = self._window([target.pose, carried], target, (size[0], size[1]))
        cut = np.s_[window[1] : window[3], window[0] : window[2]]
        lab = lab_of(np.ascontiguousarray(rgb[cut]))
        bins = bins_of(lab)
        evidence, robot_m = self._look(target, lab, bins, depth_m[cut], state, window)
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        score = self._move(target, evidence, carried, palm, self._gripping(target, palm, state), grey)
        amodal, object_m = target.search.points.draw(target.pose, window)
        visible = self._label(target, evidence, robot_m, lab, bins, amodal, object_m)
        self._learn(target, evidence, robot_m, bins, amodal)
        self._trust(target, score)
        return self._answer(target, amodal | visible, visible, window, grey, depth_m)

    # -- evidence --------------------------------------------------------------------------------------------------

    def _gripping(self, target: _Target, palm: Transform, state: State) -> bool:
        """Whether the hand could be holding the target: it is closed, and the target near the palm."""
        centre = target.pose[:3, :3] @ target.search.points.centre + target.pose[:3, 3]
        away = self._silhouette.camera_T_world @ palm[:, 3] - np.append(centre, 1)
        closed = float(np.mean(np.asarray(state)[8:12])) < self.config.closed
        return closed and float(np.linalg.norm(away)) < self.config.grip_m

    def _window(self, poses: list[Transform], target: _Target, size: tuple[int, int]) -> Window:
        """Where the target may be, inside the picture and never empty."""
        height, width = size
        boxes = np.array([target.search.points.box(pose) for pose in poses])
        margin = max(8, round(self.config.margin_px * width / 640))
        x0, y0 = np.clip(boxes[:, :2].min(0) - margin, 0, [width - 2 * margin, height - 2 * margin])
        x1, y1 = np.clip(boxes[:, 2:].max(0) + margin, [x0 + 2 * margin, y0 + 2 * margin], [width, height])
        return int(x0), int(y0), int(x1), int(y1)

    def _look(
        self, target: _Target, lab: NDArray[np.uint8], bins: Bins, depth_m: Depth, state: State, window: Window
    ) -> tuple[Evidence, Floats]:
        """Evidence of a window, and the robot's depth in it. Arrays are the window's, or the whole picture's."""
        cut = np.s_[window[1] : window[3], window[0] : window[2]]
        if depth_m.shape == target.still_m.shape:
            lab, bins, depth_m = lab[cut], bins[cut], depth_m[cut]
        intrinsics = target.search.points.intrinsics
        robot_m = self._silhouette.draw(state, intrinsics, window)
        noise = float(depth_noise_m(np.float32(target.search.points.centre[2]), self._camera))
        own = target.colours.likelihood(bins)
        behind = self._background_colour(target, lab, bins, cut)
        arm = target.robot.likelihood(bins)
        covered = np.isfinite(robot_m)
        prior = self._near_robot(robot_m, depth_m.shape, intrinsics.width)
        # The robot against everything else, by depth where there is one and by colour.
        robot_front = np.where(covered, robot_m, spread(np.where(covered, robot_m, 0), 2.0)[0])
        as_robot = _density(depth_m, robot_front, 0.012) * arm
        still = target.still_m[cut]
        as_other = np.maximum(_density(depth_m, still, noise) * behind, _UNKNOWN_PER_M * own)
        as_other = np.where(depth_m > 0, as_other, np.maximum(behind, own))
        as_robot = np.where(depth_m > 0, as_robot, arm)
        robot = prior * as_robot / (prior * as_robot + (1 - prior) * as_other + 1e-9)
        odds = np.log(own / np.maximum(0.5 * (behind + arm), 1e-5)).astype(np.float32)
        return Evidence(window, depth_m, odds, robot.astype(np.float32), noise), robot_m

    def _near_robot(self, robot_m: Floats, shape: tuple[int, ...], width: int) -> Floats:
        """0..1 that a pixel is the robot's by the silhouette alone: soft at its outline."""
        covered = np.isfinite(robot_m).astype(np.float32)
        if not covered.any():
            return np.full(shape, 0.002, np.float32)
        sigma = max(self.config.silhouette_px * width / 640 / 1.5, 0.6)
        return np.clip(cv2.GaussianBlur(covered, (0, 0), sigma), 0.002, 0.95)

    def _background_colour(
        self, target: _Target, lab: NDArray[np.uint8], bins: Bins, cut: tuple[slice, slice]
    ) -> Floats:
        """Likelihood of each pixel's colour if nothing covers what stood there in the first picture."""
        common = target.around.likelihood(bins)
        off = np.square(lab.astype(np.float32) - target.still_lab[cut].astype(np.float32)).sum(-1)
        same = np.exp(off * np.float32(-0.5 / 8.0**2))
        return np.where(target.still_known[cut], 0.5 * same + 0.5 * common, common).astype(np.float32)

    # -- where the target is ---------------------------------------------------------------------------------------

    def _move(
        self,
        target: _Target,
        evidence: Evidence,
        carried: Transform,
        palm: Transform,
        gripping: bool,
        grey: NDArray[np.uint8],
    ) -> Score:
        """Choose and improve the target's pose; answers how well it explains the picture."""
        config, search = self.config, target.search
        [stays, goes] = search.score(np.stack([target.anchor, carried]), evidence)
        risen_m = float(palm[2, 3] - target.anchor_palm[2, 3])
        if max(stays.checked, goes.checked) < config.blind or (gripping and stays.checked < config.blind):
            # Nothing to see of either: a closed hand that rises has taken the target along.
            moves = target.held or (gripping and risen_m > config.risen_m)
            moves = moves and stays.total < goes.total + 0.1
        else:
            moves = (target.held or gripping) and goes.total > stays.total + (-0.1 if target.held else 0.1)
        pose, score = (carried, goes) if moves else (target.anchor, stays)
        good = config.contradicted * target.reference
        if score.checked >= config.blind:
            if score.each < good:
                flowed = self._flowed(target, evidence, grey)
                if flowed is not None:
                    [flow_score] = search.score(flowed[None], evidence)
                    if flow_score.total > score.total + 0.05:
                        pose, score = flowed, flow_score
            if moves or score.each < 0.85 * target.reference:
                pose, score = search.improve(pose, evidence)
        target.pose = pose
        checked = score.checked >= config.blind and score.each >= good
        target.held = moves or (target.held and gripping)
        # While the target is seen, its place and the palm's are known together. While it is not, they still are, as
        # long as the hand cannot have lifted it.
        if checked:
            target.anchor, target.anchor_palm = pose, palm
        elif not target.held and not (gripping and risen_m > 0.25 * config.risen_m):
            target.anchor_palm = palm
        return score

    def _flowed(self, target: _Target, evidence: Evidence, grey: NDArray[np.uint8]) -> Transform | None:
        """The last pose shifted as the pixels of the last visible mask moved; None where that cannot be told."""
        before, mask, depth_before = target.before
        x0, y0, x1, y1 = evidence.window
        cut = np.s_[y0:y1, x0:x1]
        rows, columns = np.nonzero(mask[cut])
        if len(rows) < 12:
            return None
        flow = self._flow.calc(np.ascontiguousarray(before[cut]), np.ascontiguousarray(grey[cut]), None)
        u, v = np.median(flow[rows, columns], axis=0)
        to = np.rint(rows + v).astype(int), np.rint(columns + u).astype(int)
        inside = (to[0] >= 0) & (to[0] < y1 - y0) & (to[1] >= 0) & (to[1] < x1 - x0)
        was = depth_before[cut][rows[inside], columns[inside]]
        now = evidence.depth_m[to[0][inside], to[1][inside]]
        both = (was > 0) & (now > 0)
        if both.sum() < 8:
            return None
        nearer = float(np.median(now[both] - was[both]))
        camera, z = target.search.points.intrinsics, float(np.median(was[both]))
        scale = 1 + nearer / z
        middle = target.pose[:3, :3] @ target.search.points.centre + target.pose[:3, 3]
        sideways = np.array([u / camera.fx, v / camera.fy, 0.0]) * z * scale + middle * nearer / z
        return transform(translation=sideways) @ target.pose

    # -- what of it is seen ----------------------------------------------------------------------------------------

    def _label(
        self,
        target: _Target,
        evidence: Evidence,
        robot_m: Floats,
        lab: NDArray[np.uint8],
        bins: Bins,
        amodal: Mask,
        object_m: Floats,
    ) -> Mask:
        """(h, w) the window's pixels that are more likely the target's than the robot's or the background's."""
        config, depth = self.config, evidence.depth_m
        x0, y0, x1, y1 = evidence.window
        cut = np.s_[y0:y1, x0:x1]
        width = target.still_m.shape[1]
        reach = max(config.reach_px * width / 640, 0.8)
        shape = amodal.astype(np.uint8)
        outside = cv2.distanceTransform(1 - shape, cv2.DIST_L2, 3)
        inside = cv2.distanceTransform(np.pad(shape, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
        signed = (inside - outside + np.where(amodal, -0.5, 0.5)) / reach
        prior_object = 0.98 / (1 + np.exp(np.clip(-2 * signed, -30, 14)))
        carried_on, weight = spread(object_m, 2.5 * reach)
        front = np.where(amodal & (object_m > 0), object_m, np.where(weight > 1e-3, carried_on, 0))
        sigma = np.hypot(evidence.noise_m, 0.006)
        covered = np.isfinite(robot_m)
        robot_front = np.where(covered, robot_m, spread(np.where(covered, robot_m, 0), 2.0)[0])
        prior_robot = self._near_robot(robot_m, depth.shape, width)
        # Which of the two is in front, where both may be.
        hides = 1 / (1 + np.exp(np.clip((robot_front - front) / 0.008, -15, 15)))
        prior_robot = prior_robot * np.where((front > 0) & (robot_front > 0), np.clip(hides, 0.1, 1), 1)
        prior_object = prior_object * (1 - prior_robot)
        prior_still = np.clip(1 - prior_object - prior_robot, 0.01, 1)
        has = depth > 0
        behind = self._background_colour(target, lab, bins, cut)
        still = target.still_m[cut]
        as_object = prior_object * target.colours.likelihood(bins) * np.where(has, _density(depth, front, sigma), 1)
        as_robot = prior_robot * target.robot.likelihood(bins) * np.where(has, _density(depth, robot_front, 0.01), 1)
        as_still = prior_still * behind * np.where(has, _density(depth, still, evidence.noise_m), 1)
        odds = np.log((as_object + 1e-9) / (as_robot + as_still + 1e-9))
        odds = np.clip(odds, -6, 6).astype(np.float32)
        belief = odds
        for _ in range(2):
            pull = cv2.GaussianBlur(np.tanh(0.5 * belief), (0, 0), 0.8 if width <= 400 else 1.2)
            belief = odds + config.smoothness * pull
        return np.asarray((belief > 0) & (prior_object + prior_robot > 0.01))

    def _learn(self, target: _Target, evidence: Evidence, robot_m: Floats, bins: Bins, amodal: Mask) -> None:
        """The robot's colours, from pixels that are surely its own."""
        clear = cv2.dilate(amodal.astype(np.uint8), np.ones((9, 9), np.uint8)) == 0
        own = clear & (np.abs(evidence.depth_m - robot_m) < 0.012) & (evidence.depth_m > 0)
        if own.sum() > 20:
            target.robot.add(bins[own], fade=0.9)

    def _trust(self, target: _Target, score: Score) -> None:
        """Confidence follows the score of what could be checked, and fades where nothing could."""
        if score.checked < self.config.blind:
            # What a closed hand carries stays in it more surely than what lies on a table stays there.
            target.confidence *= self.config.fade ** (0.25 if target.held else 1.0)
            return
        agrees = float(np.clip(score.each / target.reference, 0, 1))
        weight = 0.5 * min(1.0, score.checked / 0.3)
        target.confidence += weight * (agrees - target.confidence)

    def _answer(
        self, target: _Target, amodal: Mask, visible: Mask, window: Window, grey: NDArray[np.uint8], depth_m: Depth
    ) -> TargetMask:
        cut = np.s_[window[1] : window[3], window[0] : window[2]]
        whole = np.zeros((2, *target.still_m.shape), bool)
        whole[0][cut], whole[1][cut] = visible, amodal
        target.before = (grey, whole[0].copy(), depth_m.copy())
        occluded = 1.0 - float(visible.sum()) / max(1, int(amodal.sum()))
        return TargetMask(
            whole[0], whole[1], occluded, float(np.clip(target.confidence, 0, 1)),
            target.confidence < self.config.lost,
        )  # fmt: skip


def _density(depth_m: Floats, surface_m: Floats, sigma_m: float | np.floating) -> Floats:
    """Likelihood per m of each measured depth if the pixel shows the surface; even where none is known (0)."""
    off = (depth_m - surface_m) / np.float32(sigma_m)
    peak = np.exp(np.float32(-0.5) * np.square(off)) / np.float32(sigma_m * 2.5066)
    return np.where(surface_m > 0, np.float32(0.95) * peak + np.float32(_FLOOR_PER_M), np.float32(_UNKNOWN_PER_M))
