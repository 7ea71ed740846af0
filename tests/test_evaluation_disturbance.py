"""Somebody moves the target during the reach: when, how far, where not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from dexloop.deploy.evaluation.disturbance import Disturbance, DisturbanceConfig, gap
from dexloop.deploy.eyes import Sight
from dexloop.deploy.planner.base import Look
from dexloop.hardware.clock import NS
from dexloop.hardware.errors import BadInput
from dexloop.hardware.geometry import apply
from dexloop.hardware.twin.objects.grasp_info import hull_points
from dexloop.hardware.twin.scene_spec import SceneSpec
from dexloop.hardware.twin.scenes import sample_scene
from dexloop.hardware.twin.world import TwinConfig, TwinWorld
from dexloop.tests.evaluation_fixtures import STATE
from hypothesis import given
from hypothesis import strategies as st

NOTHING = np.zeros((2, 2), np.float32)
AT_ONCE = DisturbanceConfig(after_s=0.001)


def sight(world: TwinWorld, closed: float = 1.0) -> Sight:
    state = STATE.copy()
    state[8:12] = closed
    picture = np.zeros((2, 2, 3), np.uint8)
    return Sight(Look(world.now_ns, picture, NOTHING, state), None)


@pytest.fixture(scope="module")
def scene() -> SceneSpec:
    return sample_scene(77, "validation", 4)


@pytest.fixture
def world(scene: SceneSpec) -> Iterator[TwinWorld]:
    world = TwinWorld(TwinConfig(cameras=()), scene)
    yield world
    world.close()


def run(world: TwinWorld, disturbance: Disturbance, seconds: float) -> list[np.ndarray]:
    """Where the target is at each tick."""
    world.robot.subscribe(disturbance)
    begun_ns, path = world.clock.now_ns(), []
    for tick in range(round(20 * seconds)):
        disturbance.watch(sight(world))
        world.clock.sleep_until_ns(begun_ns + (tick + 1) * NS // 20)
        path.append(world.object_pose(disturbance._target)[:3, 3].copy())
    return path


def test_the_target_is_slid_over_the_table_once_and_nothing_else(scene: SceneSpec, world: TwinWorld) -> None:
    before = [world.object_pose(index) for index in range(4)]
    disturbance = Disturbance(world, scene, 3, AT_ONCE)
    path = run(world, disturbance, 1.5)
    after = [world.object_pose(index) for index in range(4)]
    moved = np.array([np.linalg.norm(b[:3, 3] - a[:3, 3]) for a, b in zip(before, after, strict=True)])
    target = scene.target
    assert 0.05 <= disturbance.moved_m <= 0.08
    assert moved[target] == pytest.approx(disturbance.moved_m, abs=0.003)
    assert np.delete(moved, target).max() < 0.002
    assert abs(after[target][2, 3] - before[target][2, 3]) < 0.003
    assert abs(world.object_lift_m(target)) < 0.003  # a push is no lift
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert steps.max() < 0.05 * 0.5  # at most about 0.3 m/s
    assert steps[:11].sum() > 0.9 * disturbance.moved_m  # within half a second
    assert steps[-5:].max() < 0.001


def test_it_ends_beside_the_others_and_on_the_area(scene: SceneSpec, world: TwinWorld) -> None:
    x0, x1, y0, y1 = world.rig.object_area_m
    feet = [apply(world.object_pose(k), hull_points(placed.object))[:, :2] for k, placed in enumerate(scene.objects)]
    ways = set()
    for seed in range(12):
        way = Disturbance(world, scene, seed)._choose(np.array([0.0, 0.0, 1.0]))
        if way is None:
            continue
        ways.add(tuple(way))
        assert way[2] == 0.0
        assert 0.05 <= np.linalg.norm(way) <= 0.08
        moved = feet[scene.target] + way[:2]
        assert (moved >= (x0, y0)).all()
        assert (moved <= (x1, y1)).all()
        assert all(gap(moved, foot) > 0 for k, foot in enumerate(feet) if k != scene.target)
    assert len(ways) > 3  # another way for another seed
    assert Disturbance(world, scene, 5)._choose(np.zeros(3)) is not None


def test_it_waits_for_the_reach_and_not_for_a_hand_that_has_closed(scene: SceneSpec, world: TwinWorld) -> None:
    far = Disturbance(world, scene, 3, DisturbanceConfig(near_m=0.01))
    assert far.moved_m == 0.0
    path = run(world, far, 1.0)
    assert far.moved_m == 0.0
    assert np.ptp(path, axis=0).max() < 0.002
    closed = Disturbance(world, scene, 3, AT_ONCE)
    closed.watch(sight(world, closed=0.4))
    world.clock.sleep_until_ns(world.clock.now_ns() + NS // 10)
    closed.watch(sight(world))
    assert closed.moved_m == 0.0


def test_an_open_hand_that_is_near_is_enough(scene: SceneSpec, world: TwinWorld) -> None:
    near = Disturbance(world, scene, 3, DisturbanceConfig(near_m=2.0, after_s=100.0))
    near.watch(sight(world))
    assert near.moved_m > 0


@pytest.mark.parametrize("wrong", [{"distance_m": (0.08, 0.05)}, {"seconds": 0.0}, {"near_m": -1.0}])
def test_settings_that_make_no_sense(wrong: dict) -> None:
    with pytest.raises(BadInput, match="expected numbers above 0"):
        DisturbanceConfig(**wrong)


@given(st.floats(0.01, 0.3), st.floats(0, 6.28))
def test_a_gap_is_the_distance_of_two_discs(distance: float, angle: float) -> None:
    ring = np.stack([np.cos(np.linspace(0, 6.28, 60)), np.sin(np.linspace(0, 6.28, 60))], 1)
    other = 0.03 * ring + (0.07 + distance) * np.array([np.cos(angle), np.sin(angle)])
    assert gap(0.04 * ring, other) == pytest.approx(distance, rel=0.02, abs=0.0015)
    assert gap(ring, replace_centre(ring)) < 0


def replace_centre(ring: np.ndarray) -> np.ndarray:
    return 0.5 * ring + (0.2, 0.1)


def test_a_world_in_real_time_is_refused(scene: SceneSpec, world: TwinWorld) -> None:
    object.__setattr__(world, "config", replace(world.config, mode="paced"))
    with pytest.raises(BadInput, match="simulated time only"):
        Disturbance(world, scene, 1)
