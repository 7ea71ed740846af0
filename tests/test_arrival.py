"""Chunks that close the hand are led to do so at the goal."""

from __future__ import annotations

import numpy as np
import torch
from dexloop.hardware.description import START_ARM_Q
from dexloop.train.controller.arrival import CLOSING_STEPS, STEP_RAD, Arrival
from dexloop.train.controller.geometry import world_T_palm
from dexloop.train.controller.reachable import GoalArm, pose_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st

ARRIVAL = Arrival(GoalArm())
REST = np.concatenate([START_ARM_Q, np.ones(6)])


def chunk(closes: int | None, rows: int = 32) -> np.ndarray:
    """An arm that goes on and on; from row ``closes`` on the fingers are closed."""
    out = np.repeat(REST[None], rows, 0)
    out[:, :7] += np.linspace(0, 0.15, rows)[:, None] * np.array([1, -1, 0.5, 1, 0, -1, 0.3])
    if closes is not None:
        out[closes:, 7:12] = 0.4
    return out


def palm(q: np.ndarray) -> np.ndarray:
    return world_T_palm(torch.as_tensor(q[None, :7]))[0].numpy()


def goal_beside(row: np.ndarray, off_m: np.ndarray) -> np.ndarray:
    pose = palm(row)
    return np.concatenate([pose[:3, 3] + off_m, pose[:3, 0], pose[:3, 1], np.ones(6)])


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 31), st.integers(0, 4), st.lists(st.floats(-0.03, 0.03), min_size=3, max_size=3))
def test_the_hand_closes_at_the_goal_and_not_before(closes: int, late: int, off: list[float]) -> None:
    plan = chunk(closes)
    goal = goal_beside(plan[closes - CLOSING_STEPS], np.array(off))
    assume(GoalArm().solve(pose_of(goal), plan[closes - CLOSING_STEPS, :7]) is not None)  # within the arm's reach
    led = ARRIVAL.led(plan, goal, late)
    assert led.shape == plan.shape
    np.testing.assert_array_equal(led[:late], plan[:late])
    closed = led[:, 8:12].mean(1) < 0.67
    if closed.any():
        begins = int(closed.argmax()) - CLOSING_STEPS
        assert np.linalg.norm(palm(led[begins])[:3, 3] - goal[:3]) < 2e-3
    else:
        assert closes > 20  # it waits beyond the chunk
    extra = np.diff(led[:, :7], axis=0) - np.diff(plan[: len(led), :7], axis=0).max()
    assert extra.max() < 2 * STEP_RAD  # no leap


def test_a_hand_that_comes_too_late_to_the_goal_waits_with_its_fingers() -> None:
    plan = chunk(6)
    goal = goal_beside(plan[1], np.array([0.0, 0.0, -0.08]))
    led = ARRIVAL.led(plan, goal, 0)
    begun = int((led[:, 8:12].mean(1) < 0.67).argmax())
    assert begun > 8
    assert np.linalg.norm(palm(led[begun - CLOSING_STEPS])[:3, 3] - goal[:3]) < 2e-3


def test_what_does_not_close_or_cannot_get_there_stays_as_it_is() -> None:
    goal = goal_beside(REST, np.array([0.02, 0.0, 0.0]))
    np.testing.assert_array_equal(ARRIVAL.led(chunk(None), goal, 2), chunk(None))
    far = goal_beside(REST, np.array([2.0, 0.0, 0.0]))
    np.testing.assert_array_equal(ARRIVAL.led(chunk(20), far, 2), chunk(20))
