"""The masks suite: J by what is hidden, a tracker watched beside the truth, a real clip."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from dexloop.deploy.evaluation.command import Evaluate
from dexloop.deploy.evaluation.mask_scores import MaskFrame, group_of, mask_figures, mask_iou, mask_text
from dexloop.deploy.evaluation.mask_study import MaskResult, WatchedTracker, text, watch_scene, write_masks
from dexloop.deploy.evaluation.oracle import Truth
from dexloop.deploy.evaluation.suites import load
from dexloop.deploy.evaluation.values import Trial, TrialSettings
from dexloop.deploy.masks.base import TargetMask
from dexloop.deploy.masks.tracker import RigidTracker
from dexloop.hardware.errors import BadInput
from dexloop.hardware.geometry import transform
from dexloop.hardware.twin.world import TwinConfig, TwinWorld
from dexloop.tests.evaluation_fixtures import STATE, Still, look

SIZE = (160, 120)
ROW = replace(load("masks-validation").rows[0], objects=3)


@pytest.fixture(scope="module")
def truth() -> Iterator[Truth]:
    scene = ROW.scene()
    world = TwinWorld(TwinConfig(camera_size=SIZE, camera_rate_hz=20.0), scene)
    yield Truth(world, scene)
    world.close()


@pytest.mark.parametrize(
    ("hidden", "group"),
    [
        (0.0, "none"),
        (0.029, "none"),
        (0.03, "0-50 %"),
        (0.5, "0-50 %"),
        (0.51, "> 50 %"),
        (0.999, "> 50 %"),
        (1, "all"),
    ],
)
def test_bins(hidden: float, group: str) -> None:
    assert group_of(hidden) == group


def test_j_is_the_overlap_and_nothing_for_nothing_is_right() -> None:
    a, b = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    assert mask_iou(a, b) == 1.0
    a[:, :4] = True
    assert mask_iou(a, b) == 0.0
    b[:, 2:6] = True
    assert mask_iou(a, b) == pytest.approx(20 / 60)


def frames(*pairs: tuple[float, float]) -> list[MaskFrame]:
    return [MaskFrame(hidden, j, math.nan, 4.0, False) for hidden, j in pairs]


def test_figures_are_means_of_frames_with_the_spread_of_clips() -> None:
    figures = mask_figures([frames((0.0, 1.0), (0.0, 0.8), (0.7, 0.5)), frames((0.0, 0.6))])
    found = figures["j"]["none"]
    assert found["mean"] == pytest.approx(0.8)
    assert (found["frames"], found["clips"]) == (3, 2)
    middle, low, high = found["per_clip"]
    assert middle == pytest.approx(0.75)
    assert low < middle < high
    assert figures["j"]["> 50 %"]["mean"] == 0.5
    assert found["amodal_mean"] is None
    assert "0-50 %" not in figures["j"]
    assert "none" in mask_text(figures)
    assert mask_figures([])["frames"] == 0


def test_an_object_alone_is_what_shows_when_nothing_stands_before_it(truth: Truth) -> None:
    world = truth.world
    before = truth.segmentation()
    whole = truth.alone(0)
    assert ((before == 1) & ~whole).sum() == 0
    kept = world.object_pose(1)
    pose = world.object_pose(0)
    behind = pose[:3, 3] - [0.07, 0.0, 0.0]  # between it and the camera, which looks from the robot's side or above
    try:
        for shift in (behind, pose[:3, 3] + [0.0, 0.0, 0.06]):
            world.set_object_pose(1, transform(np.eye(3), shift))
            assert np.array_equal(truth.alone(0), whole)
        assert (truth.segmentation() == 1).sum() < whole.sum()
    finally:
        world.set_object_pose(1, kept)
    assert np.array_equal(truth.segmentation(), before)  # nothing stays hidden


class Shifted:
    """A tracker whose masks are the truth's, moved by some pixels; or one that sees nothing in a box."""

    def __init__(self, truth: Truth, pixels: int, blind: bool = False) -> None:
        self.truth, self.pixels, self.blind = truth, pixels, blind

    def start(self, *_: object) -> TargetMask:
        if self.blind:
            raise BadInput("nothing there")
        return self.update()

    def update(self, *_: object) -> TargetMask:
        mask = np.roll(self.truth.segmentation() == 1, self.pixels, 1)
        return TargetMask(mask, mask, 0.0, 1.0, lost=self.pixels > 50)


@pytest.mark.parametrize(
    ("pixels", "blind", "low", "high"), [(0, False, 1, 1), (2, False, 0.3, 0.98), (60, True, 0, 0)]
)
def test_a_tracker_is_held_against_the_truth_and_steers_nothing(
    truth: Truth, pixels: int, blind: bool, low: float, high: float
) -> None:
    moment, box = look(truth), truth.boxes()[0]
    watched = WatchedTracker(truth, 0, Shifted(truth, pixels, blind))  # type: ignore[arg-type]
    answers = [watched.start(moment.head, moment.head_depth_m, box, STATE)]
    answers.append(watched.update(moment.head, moment.head_depth_m, STATE))
    assert all(np.array_equal(answer.visible, truth.segmentation() == 1) for answer in answers)
    [frame] = watched.frames
    assert low <= frame.j <= high
    assert frame.lost == blind
    assert watched.started != blind


def test_a_real_clip_is_watched_and_written(tmp_path: Path) -> None:
    settings = TrialSettings("nowhere", seconds=1.0, camera_size=SIZE)
    result = watch_scene(Trial(settings, ROW), Still(), 20.0, RigidTracker())  # type: ignore[arg-type]
    assert result.started
    assert result.end == "timeout"
    assert 15 <= len(result.frames) <= 20
    assert np.mean([frame.j for frame in result.frames]) > 0.7  # at rest, of 160 x 120
    assert MaskResult.from_json(json.loads(json.dumps(result.to_json()))) == result
    figures = write_masks(tmp_path, [result, replace(result, id="again", started=False)], settings, {}, {})
    assert figures["not_started"] == ["again"]
    assert json.loads((tmp_path / "summary.json").read_text()) == figures
    rows = pq.read_table(tmp_path / "trials.parquet").to_pylist()
    assert len(rows) == 2 * len(result.frames)
    assert rows[0]["group"] == result.frames[0].group
    assert (tmp_path / "masks.png").read_bytes()[:4] == b"\x89PNG"
    told = text(figures, "masks")
    assert "J mean" in told
    assert "saw nothing in the box of again" in told


def test_what_means_nothing_here_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--planner has no meaning for the suite masks"):
        Evaluate("masks-validation", 1, planner="oracle", out=tmp_path / "out").run()
    with pytest.raises(BadInput, match="--videos has no meaning"):
        Evaluate("masks-validation", 1, videos=True, out=tmp_path / "out").run()
