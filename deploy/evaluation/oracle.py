"""What the simulator knows, for those who score, and for ablations: a planner and masks that are never wrong.

Only this module and ``trial.py`` may look at the twin's truth. Nothing here can be had on a real rig.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...hardware.errors import BadInput
from ...hardware.twin.scene_spec import SceneSpec
from ...hardware.twin.world import TwinWorld
from ..masks.base import Depth, Mask, Rgb, State, TargetMask, check_box, check_moment
from ..planner.base import Box, FullLook, Grounding, Look, PlannerError, Proposal, Verdict

HELD_M = 0.03
"""An object that a hand touches and that is so far above where it stood is held."""


class Truth:
    """The twin's objects as they are now, by their index in the scene."""

    def __init__(self, world: TwinWorld, scene: SceneSpec) -> None:
        self.world, self.scene = world, scene
        x0, x1, y0, y1, _, top = world.rig.table_box_m
        self._low, self._high = np.array([x0, y0, top - 0.03]), np.array([x1, y1, np.inf])

    @property
    def count(self) -> int:
        return len(self.scene.objects)

    def segmentation(self) -> NDArray[np.int32]:
        """(H, W) of the head camera now: object index + 1, robot -1, anything else 0."""
        body = self.world.draw("head", self.world.data.qpos, depth=False, bodies=True).body_id
        assert body is not None
        return self.world.segment_of_body[body]

    def alone(self, index: int) -> Mask:
        """(H, W) where object ``index`` would be seen now if nothing else were there."""
        model, hidden = self.world.model, 5  # a group that is never drawn
        others = self.world.segment_of_body[model.geom_bodyid] != index + 1
        with self.world.scene_lock:
            kept = model.geom_group.copy()
            model.geom_group[others] = hidden
            try:
                return self.segmentation() == index + 1
            finally:
                model.geom_group[:] = kept

    def boxes(self) -> dict[int, Box]:
        """The box of every object of which the head camera sees something."""
        picture = self.segmentation()
        return {index: box for index in range(self.count) if (box := box_of(picture == index + 1)) is not None}

    def held(self, index: int) -> bool:
        return self.world.object_lift_m(index) > HELD_M and bool(self.world.hand_contacts(index))

    def on_table(self, index: int) -> bool:
        """Over the table, lying or in the hand."""
        position = self.world.object_pose(index)[:3, 3]
        return bool((position > self._low).all() and (position < self._high).all())

    def in_bin(self, index: int) -> bool:
        rig = self.world.rig
        off = np.abs(self.world.object_pose(index)[:3, 3] - np.array(rig.bin_center_m))
        return bool((off < np.array(rig.bin_size_m) / 2 + (0.0, 0.0, 0.03)).all())


def box_of(mask: Mask) -> Box | None:
    """Around all of ``mask`` (H, W), corner to corner; None where it is empty."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(columns):
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0..1."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def aimed_at(box: Box, boxes: dict[int, Box]) -> tuple[int, float]:
    """Which of ``boxes`` is meant by ``box``, and their IoU; (-1, 0) where it overlaps none."""
    best = max(boxes, key=lambda index: iou(box, boxes[index]), default=-1)
    share = iou(box, boxes[best]) if best >= 0 else 0.0
    return (best, share) if share > 0 else (-1, 0.0)


class OraclePlanner:
    """A ``Planner`` that knows: the next of ``wanted`` objects that can be taken, its true box, whether it is held."""

    name = "oracle"

    def __init__(self, truth: Truth, wanted: Sequence[int]) -> None:
        self._truth, self._wanted = truth, tuple(wanted)

    def propose(self, prompt: str, first: Look, now: Look, failed: tuple[str, ...] = ()) -> Proposal:
        """Nearest to the robot's right first: what lies there blocks the arm on its way to the rest."""
        left = [index for index in self._left() if self._name(index) not in failed]
        if not left:
            return Proposal(nothing_left=True, reason="every object that is wanted is off the table, or was given up")
        chosen = min(left, key=lambda index: float(self._truth.world.object_pose(index)[1, 3]))
        return Proposal(self._name(chosen))

    def ground(self, instruction: str, now: Look) -> Grounding:
        index = self._index(instruction)
        box = self._truth.boxes().get(index)
        if box is not None:  # pixels of the picture that was asked about
            height, width = now.head.shape[:2]
            drawn_width, drawn_height = self._truth.world.config.camera_size
            scale = width / drawn_width, height / drawn_height
            box = box[0] * scale[0], box[1] * scale[1], box[2] * scale[0], box[3] * scale[1]
        return Grounding(box, instruction, reason="" if box else "it is hidden")

    def verify(self, instruction: str, before: Look, now: FullLook) -> Verdict:
        return Verdict(self._truth.held(self._index(instruction)), "the simulator's truth")

    def complete(self, prompt: str, first: Look, now: Look) -> Verdict:
        return Verdict(not self._left(), "the simulator's truth")

    def _left(self) -> list[int]:
        return [index for index in self._wanted if self._truth.on_table(index)]

    def _name(self, index: int) -> str:
        item = self._truth.scene.objects[index].object
        return f"object {index}: the {item.colour} {item.noun}"

    def _index(self, instruction: str) -> int:
        for index in self._wanted:
            if self._name(index) == instruction:
                return index
        raise PlannerError(f"the oracle knows only what it proposed, not {instruction!r}: hand on its own instruction.")


class OracleMasks:
    """A ``MaskTracker`` that knows: the pixels of the object that the box means, of the same exposure as the picture.

    ``wrong``: of another object, for the ablation "wrong target".
    """

    def __init__(self, truth: Truth, wrong: bool = False) -> None:
        self._truth, self._wrong = truth, wrong
        self._camera = truth.world.cameras["head"]
        self._camera.segmentation = True
        self._index: int | None = None

    def start(self, rgb: Rgb, depth_m: Depth, box: Box, state: State) -> TargetMask:
        check_moment(rgb, depth_m, state)
        check_box(box, *depth_m.shape)
        boxes = self._truth.boxes()
        index, _ = aimed_at(box, boxes)
        if index < 0:
            raise BadInput(f"the box {box} holds none of the scene's objects: give one of {boxes}.")
        if self._wrong:
            index = _farthest_from(index, boxes)
        self._index = index
        return self.update(rgb, depth_m, state)

    def update(self, rgb: Rgb, depth_m: Depth, state: State) -> TargetMask:
        if self._index is None:
            raise BadInput("the oracle was asked to go on before start(): give it a box first.")
        frame = self._camera.latest()
        if frame.segmentation is None:  # this exposure was drawn before it was asked to
            visible = self._truth.segmentation() == self._index + 1
        else:
            visible = frame.segmentation == self._index + 1
        return TargetMask(visible, visible, 0.0, 1.0)


def _farthest_from(index: int, boxes: dict[int, Box]) -> int:
    """The object whose box lies farthest away in the picture; ``index`` itself where there is no other."""

    def distance(other: int) -> float:
        a, b = np.array(boxes[index]), np.array(boxes[other])
        return float(np.linalg.norm(a - b))

    return max(boxes, key=distance)
