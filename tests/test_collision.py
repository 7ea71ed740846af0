"""Clearances: exact distances against dense sampling, and the model against poses whose distances are known."""

from dataclasses import replace

import numpy as np
import pytest
from dexloop.hardware.collision import CollisionModel, _box_distance, _segment_distance
from dexloop.hardware.description import HAND_MOTORS, OPEN_HAND, PLACE_ARM_Q, RETURN_ARM_Q, RIG_LIMITS_RAD, START_ARM_Q
from dexloop.hardware.errors import BadInput
from dexloop.hardware.geometry import inverse, rot_y, rot_z, transform
from dexloop.hardware.rig import DEXGRASPVLA_RIG
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

MODEL = CollisionModel(DEXGRASPVLA_RIG)
POINTS = arrays(float, (3,), elements=st.floats(-1.0, 1.0))
T = np.linspace(0.0, 1.0, 201)
MOUNT = DEXGRASPVLA_RIG.arms[0]


@settings(max_examples=200)
@example(np.array([-6e-8, 0, 0]), np.zeros(3), np.zeros(3), np.full(3, -1 / 128))  # far shorter than the other
@given(POINTS, POINTS, POINTS, POINTS)
def test_segment_distance_equals_dense_sampling(p1, q1, p2, q2) -> None:
    exact = _segment_distance(p1[None], q1[None], p2[None], q2[None])[0]
    first, second = p1 + T[:, None] * (q1 - p1), p2 + T[:, None] * (q2 - p2)
    sampled = np.linalg.norm(first[:, None] - second[None], axis=-1).min()
    assert exact <= sampled + 1e-9
    assert exact >= sampled - 0.02  # 3.5 m of segment in 200 steps


@settings(max_examples=200)
@given(POINTS, POINTS, POINTS, arrays(float, (3,), elements=st.floats(0.01, 1.0)))
def test_box_distance_equals_dense_sampling(start, end, low, size) -> None:
    high = low + size
    exact = _box_distance(start[None], end[None], low[None], high[None])[0]
    points = start + T[:, None] * (end - start)
    outside = np.linalg.norm(np.maximum(np.maximum(low - points, points - high), 0.0), axis=-1).min()
    if outside > 0.0:
        assert exact <= outside + 1e-9
        assert exact >= outside - 0.01
    else:
        assert exact <= 1e-9


def test_a_point_is_a_segment_of_no_length() -> None:
    point = np.array([[0.3, 0.4, 0.0]])
    assert _segment_distance(point, point, np.zeros((1, 3)), np.zeros((1, 3)))[0] == pytest.approx(0.5)
    low, high = np.array([[-1.0, -1.0, -1.0]]), np.array([[1.0, 1.0, -0.2]])
    assert _box_distance(point, point, low, high)[0] == pytest.approx(0.2)


@settings(max_examples=30, deadline=None)
@given(arrays(float, (7,), elements=st.floats(-1.0, 1.0)), arrays(float, (6,), elements=st.floats(0.0, 1.0)))
def test_clearance_is_the_smallest_of_all_pairs(unit, opening) -> None:
    """The pruned search against every capsule and box, sampled."""
    q = unit * np.array(RIG_LIMITS_RAD)
    clearance = MODEL.distances(q, opening)
    ends, radius, names = MODEL.capsules(q, opening)
    boxes = [np.array(DEXGRASPVLA_RIG.table_box_m), np.array(DEXGRASPVLA_RIG.column_box_m)]
    nearest = {"finger": np.inf, "body": np.inf}
    for k, name in enumerate(names):
        if name in ("base", "link 1"):
            continue
        points = ends[k, 0] + T[:, None] * (ends[k, 1] - ends[k, 0])
        for box in boxes:
            outside = np.maximum(np.maximum(box[::2] - points, points - box[1::2]), 0.0)
            kind = "finger" if "phalanx" in name else "body"
            nearest[kind] = min(nearest[kind], np.linalg.norm(outside, axis=-1).min() - radius[k])
    # The bin's walls are boxes too: they can only be nearer.
    assert clearance.table_m <= nearest["body"] + 1e-9
    assert clearance.finger_m <= nearest["finger"] + 1e-9


def _q_of_palm(world_T_palm: np.ndarray) -> np.ndarray:
    flange = inverse(MOUNT.world_T_base) @ world_T_palm @ inverse(MOUNT.flange_T_palm)
    result = MODEL.arm.ik(flange, START_ARM_Q)
    assert result.ok, result
    return result.q


def _palm_down(x: float, y: float, z: float) -> np.ndarray:
    """Palm towards the table, fingers away from the column and down a little."""
    return transform(rot_z(0.3) @ rot_y(0.6), np.array([x, y, z]))


def test_lowering_the_hand_lowers_the_clearance_by_as_much() -> None:
    high = MODEL.distances(_q_of_palm(_palm_down(0.45, 0.1, 0.25)), OPEN_HAND)
    low = MODEL.distances(_q_of_palm(_palm_down(0.45, 0.1, 0.20)), OPEN_HAND)
    assert high.finger_pair[1] == low.finger_pair[1] == "table"
    assert high.finger_m - low.finger_m == pytest.approx(0.05, abs=1e-6)


def test_fingertip_height_is_its_distance_to_the_table() -> None:
    pose = _palm_down(0.45, 0.1, 0.22)
    q = _q_of_palm(pose)
    tips = MODEL.hand.keypoints(OPEN_HAND) @ pose[:3, :3].T + pose[:3, 3]
    clearance = MODEL.distances(q, OPEN_HAND)
    assert clearance.finger_m == pytest.approx(tips[:, 2].min() - 0.008, abs=1e-6)


def test_a_fist_is_further_from_the_table_than_the_open_hand() -> None:
    q = _q_of_palm(transform(rot_z(0.3) @ rot_y(1.2), np.array([0.45, 0.1, 0.25])))
    fist = np.zeros(len(HAND_MOTORS))
    assert MODEL.distances(q, fist).finger_m > MODEL.distances(q, OPEN_HAND).finger_m + 0.02


@pytest.mark.parametrize("q", [START_ARM_Q, PLACE_ARM_Q, RETURN_ARM_Q])
def test_the_rigs_own_poses_are_clear(q) -> None:
    clearance = MODEL.distances(q, OPEN_HAND)
    assert clearance.self_m > 0.03
    assert clearance.table_m > 0.03
    assert clearance.finger_m > 0.0


def test_a_folded_arm_meets_itself() -> None:
    folded = np.array([0.0, 2.0, 0.0, 2.3, 0.0, 2.0, 0.0])
    clearance = MODEL.distances(folded, OPEN_HAND)
    assert clearance.self_m < 0.0
    assert clearance.self_pair[0] != clearance.self_pair[1]


def test_table_column_and_bin_are_seen() -> None:
    names = set()
    rng = np.random.default_rng(0)
    for q in rng.uniform(-1, 1, (300, 7)) * np.array(RIG_LIMITS_RAD):
        clearance = MODEL.distances(q, OPEN_HAND)
        if clearance.table_m < 0.0:
            names.add(clearance.table_pair[1])
    assert {"table", "column"} <= names
    x, y, z = DEXGRASPVLA_RIG.bin_center_m
    over_bin = _q_of_palm(transform(rot_z(-1.2) @ rot_y(1.3), np.array([x, y, z + 0.27])))
    clearance = MODEL.distances(over_bin, OPEN_HAND)
    assert clearance.finger_pair[1] == "bin floor"
    assert clearance.table_pair[1].startswith("bin wall")


def test_capsules_move_with_the_mounting() -> None:
    """Distances among the robot's own parts do not depend on where it stands; a turn about z keeps the table's."""
    turned = replace(MOUNT, world_T_base=transform(rot_z(0.1)) @ MOUNT.world_T_base)
    other = CollisionModel(replace(DEXGRASPVLA_RIG, arms=(turned,)))
    q = np.array(PLACE_ARM_Q)
    assert other.distances(q, OPEN_HAND).self_m == pytest.approx(MODEL.distances(q, OPEN_HAND).self_m, abs=1e-9)


def test_an_arm_that_the_rig_lacks_is_refused() -> None:
    with pytest.raises(BadInput, match=r"has no arm 1: it has 0\.\.0"):
        CollisionModel(DEXGRASPVLA_RIG, arm=1)
