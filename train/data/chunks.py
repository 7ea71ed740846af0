"""Training batches: chunks of commands with padding masks, and what the robot saw, from packed pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ...datasets.episode import LEARN_FROM, EpisodeInfo
from ...datasets.reader import DatasetReader
from ...datasets.schema import ACTION, STATE
from ...hardware.description import ARM_JOINTS, HAND_MOTORS
from ...hardware.errors import BadInput
from ..controller.config import ActionConfig
from ..controller.draws import Draws
from ..controller.parts import Batch
from ..views import View
from .goals import grasp_goals
from .moments import camera_of, needs_masks
from .pack import Pack, Rows, open_pack

JOINTS = tuple(f"{name}.pos" for name in (*ARM_JOINTS, *HAND_MOTORS))  # of a command, in the controller's order


class Features(Protocol):
    """Frozen features of every row, which stand for the colour pictures they were made of (``..features``)."""

    @property
    def copies(self) -> int:
        """Differently jittered versions; number 0 is not jittered."""
        ...

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """``<view>.features`` -> (patches, channels)."""
        ...

    def read(self, episode: int, rows: Rows, copy: int) -> dict[str, NDArray[np.float16]]: ...


class Chunks:
    """Rows of chosen episodes as training samples. Positions 0 to ``len`` - 1 go through the episodes in order; rows in
    which a policy was at work, before a demonstrator took over from it, are left out."""

    def __init__(
        self,
        reader: DatasetReader,
        views: Iterable[View],
        reference_views: Iterable[View],
        action: ActionConfig,
        *,
        episodes: Sequence[int],
        robot_type: str = "rm75_gor",
        features: Features | None = None,
        lagged: bool = False,
        reference_rows: int = 10,
        lag_rows: int = 4,
        workers: int | None = None,
        progress: bool = True,
    ) -> None:
        """``lagged``: also give masks of up to ``lag_rows`` earlier. ``reference_rows``: the attempt's first look is
        drawn from the episode's first so many rows. ``workers`` and ``progress``: see :func:`.pack.open_pack`.

        Raises BadInput where the data set is of another robot or rate, or lacks masks, cameras or depth that the views
        show: all before anything is written.
        """
        self._action, self._features = action, features
        self._lagged, self._reference_rows, self._lag_rows = lagged, reference_rows, lag_rows
        views, reference_views = tuple(views), tuple(reference_views)
        check_robot(reader, action, robot_type)
        for view in (*views, *reference_views):
            camera_of(reader, view)
        masked = needs_masks((*views, *reference_views))
        columns = [_columns(reader, episode, masked) for episode in episodes]
        lengths = np.array([len(states) for states, _ in columns], np.int64)
        self.starts = np.cumsum(lengths) - lengths  # (E,) position of each episode's row 0
        self.episodes = np.array(episodes, np.int64)  # (E,)
        self.place = np.repeat(np.arange(len(lengths)), lengths)  # (N,) which of the episodes a position is in
        self.row = np.arange(lengths.sum()) - self.starts[self.place]  # (N,) row in its episode
        first = np.array([first_example(reader.meta(episode).info, reader.schema.rate_hz) for episode in episodes])
        self.examples = np.flatnonzero(self.row >= first[self.place])  # (M,) what is learnt from
        self._last = self.starts + lengths - 1
        self._states = np.concatenate([states for states, _ in columns])
        self._actions = np.concatenate([actions for _, actions in columns])
        goals = [grasp_goals(actions) for _, actions in columns]
        self._goals = np.concatenate([goal for goal, _ in goals])
        # After a policy the scene is not as it was first seen.
        self._goal_known = np.concatenate([known for _, known in goals]) & (first == 0)[self.place]
        self._has = _joint_columns(reader)[1]
        self._seen = _names(_without(views, features))
        self._reference_seen = _names(_without(reference_views, features))
        self._pack = open_pack(
            reader, (*_without(views, features), *_without(reference_views, features)), episodes, workers, progress
        )

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def pack(self) -> Pack:
        return self._pack

    def batch(self, positions: Rows, draws: Draws | None = None) -> Batch:
        """The samples at ``positions`` (B,), see :data:`..controller.parts.Batch`.

        ``draws`` chooses reference rows, lags and jittered copies; without it the reference is row 0, nothing is
        lagged and features are not jittered.
        """
        positions = self.examples[positions]
        place, row = self.place[positions], self.row[positions]
        episodes = self.episodes[place]
        steps = positions[:, None] + np.arange(self._action.horizon)
        last = self._last[place][:, None]
        out: dict[str, Any] = {
            "state": self._states[positions],
            "action": self._actions[np.minimum(steps, last)],
            "action_is_pad": steps > last,
            "goal": self._goals[positions],
            "goal_known": self._goal_known[positions],
            "action_mask": np.broadcast_to(self._has, (len(positions), len(self._has))).copy(),
        }
        first = np.zeros_like(row)
        if draws is not None:
            if draws.rows != len(positions):
                raise ValueError(f"draws for {draws.rows} rows, {len(positions)} positions")
            first = (draws.uniform().numpy() * (np.minimum(row, self._reference_rows) + 1)).astype(np.int64)
        out |= self._pack.take(episodes, row, self._seen)
        out |= _under("reference", self._pack.take(episodes, first, self._reference_seen))
        if draws is not None and self._lagged:
            earlier = np.maximum(row - 1 - draws.integers(self._lag_rows).numpy(), 0)
            names = [name for name in self._seen if name.endswith((".mask", ".origin"))]
            out |= _under("lagged", self._pack.take(episodes, earlier, names))
        if self._features is not None:
            copies = np.zeros_like(row) if draws is None else draws.integers(self._features.copies).numpy()
            out |= _features(self._features, episodes, row, copies)
        return {key: torch.from_numpy(array) for key, array in out.items()}


def usable_episodes(reader: DatasetReader, failures: bool = False) -> list[int]:
    """Episodes to learn from: all but those that are labelled failures, unless ``failures``."""
    return [meta.index for meta in reader.episodes() if failures or meta.info.success is not False]


def first_example(info: EpisodeInfo, rate_hz: float) -> int:
    """The first row of an episode that is a demonstration: 0, or the one with which it was taken over from a policy."""
    return math.ceil(float(str(info.extra.get(LEARN_FROM, 0.0))) * rate_hz - 1e-6)


def split(episodes: Sequence[int], validation_share: float, seed: int) -> tuple[list[int], list[int]]:
    """Whole episodes for training and for validation, each in order, at least one of each.

    Raises BadInput where there are less than two, or the share is not between 0 and 1.
    """
    if len(episodes) < 2:
        raise BadInput(
            f"there are {len(episodes)} usable episodes, expected at least 2, one of them for validation: record more."
        )
    if not 0.0 < validation_share < 1.0:
        raise BadInput(f"the validation share is {validation_share}: expected more than 0 and less than 1.")
    count = min(max(1, round(validation_share * len(episodes))), len(episodes) - 1)
    chosen = set(np.random.default_rng(seed).permutation(np.array(episodes))[:count].tolist())
    return [e for e in episodes if e not in chosen], [e for e in episodes if e in chosen]


def check_robot(reader: DatasetReader, action: ActionConfig, robot_type: str) -> None:
    """Raises BadInput where the data set's robot or rate is not the controller's."""
    schema = reader.schema
    if schema.robot_type != robot_type:
        raise BadInput(
            f"{reader.root.name} is of robot {schema.robot_type!r}, the controller is for {robot_type!r}: choose a "
            "data set of that robot."
        )
    if schema.rate_hz != action.rate_hz:
        raise BadInput(
            f"{reader.root.name} has {schema.rate_hz} rows a second, the controller learns {action.rate_hz}: record "
            "with that rate, or configure the controller's."
        )
    unknown = set(schema.joints) - set(JOINTS)
    if unknown:
        raise BadInput(
            f"{reader.root.name} has the joints {', '.join(sorted(unknown))}, which the controller does not know: "
            f"expected {', '.join(JOINTS)} or some of them."
        )


def _joint_columns(reader: DatasetReader) -> tuple[list[int], NDArray[np.bool_]]:
    """Where each of the data set's numbers belongs among JOINTS, and (13,) which of them it has."""
    where = [JOINTS.index(name) for name in reader.schema.joints]
    has = np.zeros(len(JOINTS), bool)
    has[where] = True
    return where, has


def _columns(reader: DatasetReader, episode: int, masked: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    """States and commands (rows, 13) float32; numbers that the source lacks are 0 and masked."""
    columns = reader.episode(episode).columns
    if masked and not all(columns[f"mask.{reader.schema.mask_camera}"]):
        reader.masks(episode)  # raises, and says where
    where, _ = _joint_columns(reader)
    out = []
    for key in (STATE, ACTION):
        array = np.zeros((len(columns[key]), len(JOINTS)), np.float32)
        array[:, where] = columns[key]
        out.append(array)
    return out[0], out[1]


def _without(views: tuple[View, ...], features: Features | None) -> tuple[View, ...]:
    """The views less the colour pictures that cached features stand for."""
    known = features.shapes if features else {}
    less = [replace(view, rgb=view.rgb and f"{view.name}.features" not in known) for view in views]
    return tuple(view for view in less if view.parts)


def _names(views: tuple[View, ...]) -> list[str]:
    return [name for view in views for name in view.parts]


def _under(prefix: str, arrays: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{name}": array for name, array in arrays.items()}


def _features(cache: Features, episodes: Rows, rows: Rows, copies: Rows) -> dict[str, NDArray[np.float16]]:
    """(B, patches, channels) of each sample, read together where episode and copy are the same."""
    out: dict[str, NDArray[np.float16]] = {
        name: np.empty((len(rows), *shape), np.float16) for name, shape in cache.shapes.items()
    }
    for episode, copy in sorted(set(zip(episodes.tolist(), copies.tolist(), strict=True))):
        here = np.flatnonzero((episodes == episode) & (copies == copy))
        for name, array in cache.read(episode, rows[here], copy).items():
            out[name][here] = array
    return out
