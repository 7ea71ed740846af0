"""Where the hand of a demonstration closed: what a grasp goal is learnt from."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ..controller.geometry import ARM_DOF, CLOSING, FINGERS, rotation_to_six, world_T_palm

_BEFORE_ROWS = 6  # the preshape is that of so many rows earlier: closing had begun


def grasp_goals(actions: NDArray[np.floating]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Commands (n, 13) of an episode -> for each row the goal (n, 15) that the hand is on its way to
    (:data:`..controller.goal.GOAL_DIM`), after the last closing that one; and (n,) whether the episode's only closing
    lies before it, so that the goal is a grasp that worked and follows from the first look. Where the hand never
    closes, the goal is the last command's pose and of no use."""
    opening = np.asarray(actions[:, FINGERS], float).mean(1)
    closings = 1 + np.flatnonzero((opening[1:] < CLOSING) & (opening[:-1] >= CLOSING))
    at = closings if len(closings) else np.array([len(actions) - 1])
    palm = world_T_palm(torch.as_tensor(np.asarray(actions[at, :ARM_DOF], float)))
    preshape = np.asarray(actions[np.maximum(at - _BEFORE_ROWS, 0), ARM_DOF:], float)
    goals = np.concatenate([palm[:, :3, 3].numpy(), rotation_to_six(palm[:, :3, :3]).numpy(), preshape], 1)
    which = np.minimum(np.searchsorted(at, np.arange(len(actions))), len(at) - 1)
    clean = np.full(len(actions), len(closings) == 1) & (np.arange(len(actions)) <= at[0])
    return goals[which].astype(np.float32), clean
