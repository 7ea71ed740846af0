"""What a data set knows beside LeRobot's batches: masks, how each attempt began, labels.

LeRobot's processors drop the text column with the masks, but keep each sample's place in the data set (``index``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dexloop.datasets import rle
from dexloop.datasets.reader import DatasetReader, EpisodeData
from dexloop.datasets.schema import ACTION, STATE
from dexloop.hardware.errors import BadInput, DatasetError
from dexloop.train.controller.config import ControllerConfig
from dexloop.train.controller.draws import Draws
from dexloop.train.controller.parts import Batch
from dexloop.train.data.chunks import check_robot, first_example, usable_episodes
from dexloop.train.data.goals import grasp_goals
from dexloop.train.data.moments import camera_of, needs_masks, to_metres
from dexloop.train.views import Arrays, Observation, View, follow
from numpy.typing import NDArray

from .configuration_dexloop_controller import COMMANDS
from .observing import observations

LAG_ROWS = 4  # training sees masks of up to so many rows earlier, as `train controller`
Rows = NDArray[np.int64]


class Demonstrations:
    """The data set at ``root``, as much of it as a controller of ``config`` with such views learns from.

    Masks stay in memory as text, 300 bytes a row; the first looks are decoded when they are first needed, 75 kB a row
    with the small preset. Raises BadInput where the data set is of another robot or rate, or lacks masks, cameras or
    depth.
    """

    def __init__(
        self,
        root: Path,
        config: ControllerConfig,
        views: Sequence[View],
        reference_views: Sequence[View],
        *,
        failures: bool = False,
        reference_rows: int = 10,
        depth_unit_m: float = 1e-3,
    ) -> None:
        self.reader = reader = DatasetReader(root)
        check_robot(reader, config.action, config.robot_type)
        if len(reader.schema.joints) != COMMANDS:
            raise BadInput(f"{root.name} has {len(reader.schema.joints)} joints, expected {COMMANDS}: choose another.")
        self._cameras = {view: camera_of(reader, view) for view in (*views, *reference_views)}
        self._views, self._reference_views = tuple(views), tuple(reference_views)
        self._horizon, self._reference_rows, self._depth_unit_m = config.action.horizon, reference_rows, depth_unit_m
        self._starts = np.array([meta.start for meta in reader.episodes()], np.int64)
        self._first_examples = np.array(
            [first_example(meta.info, reader.schema.rate_hz) for meta in reader.episodes()], np.int64
        )
        self._usable = np.isin(np.arange(len(reader)), usable_episodes(reader, failures))
        self._texts = [self._masks_of(index) for index in range(len(reader))]
        self._first_looks: dict[tuple[int, int], Arrays] = {}
        self._goals: dict[int, tuple[NDArray[np.float32], NDArray[np.bool_]]] = {}
        self._read: EpisodeData | None = None  # the last one

    def complete(self, batch: Mapping[str, Any], draws: Draws | None) -> Batch:
        """LeRobot's training batch -> the controller's. ``draws`` chooses reference rows and lags; without it the
        reference is row 0 and nothing is lagged. Raises DatasetError where the batch is of another data set."""
        episodes, rows = self._places(batch)
        examples = self._usable[episodes] & (rows >= self._first_examples[episodes])
        learn = torch.from_numpy(examples).to(batch[ACTION].device)
        return self.seen(batch, draws) | {
            "action": batch[ACTION].float(),
            "action_is_pad": batch["action_is_pad"],
            "action_mask": learn[:, None].expand(-1, COMMANDS),
            "goal_known": torch.from_numpy(
                np.array([self._goals_of(e)[1][r] for e, r in zip(episodes, rows, strict=True)])
            ).to(learn),
        }

    def seen(self, batch: Mapping[str, Any], draws: Draws | None) -> Batch:
        """:meth:`complete` without what is to be learnt."""
        episodes, rows = self._places(batch)
        masks = [self._mask(episode, row) for episode, row in zip(episodes, rows, strict=True)]
        moments = observations(batch, self._views, masks, self._depth_unit_m)
        arrays = [
            follow(self._views, moment, self._centres(episode, row))
            for moment, episode, row in zip(moments, episodes, rows, strict=True)
        ]
        out = _stacked(arrays) | self._extras(episodes, rows, draws) | {"state": batch[STATE].float().cpu().numpy()}
        out["goal"] = np.stack([self._goals_of(e)[0][r] for e, r in zip(episodes, rows, strict=True)])
        return {key: torch.from_numpy(array).to(batch[STATE].device) for key, array in out.items()}

    def fit_batches(self, count: int, episodes: Sequence[int] | None, size: int = 64) -> Iterator[Batch]:
        """About ``count`` rows, spread evenly over the usable of ``episodes`` (default: all), in batches."""
        chosen = [
            index for index in (range(len(self.reader)) if episodes is None else episodes) if self._usable_at(index)
        ]
        if not chosen:
            raise BadInput(f"{self.reader.root.name} has no episode to learn from that is not labelled as failed.")
        places = [
            (index, row) for index in chosen for row in range(self._first_examples[index], self.reader.meta(index).rows)
        ]
        places = [places[i] for i in np.unique(np.linspace(0, len(places) - 1, count).astype(int))]
        for start in range(0, len(places), size):
            samples = [self._sample(episode, row) for episode, row in places[start : start + size]]
            yield {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}

    # -- places ----------------------------------------------------------------------------------------------------

    def _usable_at(self, index: int) -> bool:
        self.reader.meta(index)  # raises where there is no such episode
        return bool(self._usable[index])

    def _places(self, batch: Mapping[str, Any]) -> tuple[Rows, Rows]:
        """Episode and row of each sample."""
        index = batch["index"].cpu().numpy().reshape(-1)
        episodes = np.searchsorted(self._starts, index, side="right") - 1
        said = batch["episode_index"].cpu().numpy().reshape(-1)
        if not np.array_equal(episodes, said):
            raise DatasetError(
                f"{self.reader.root.name} is not the data set of the batch: `dataset check`, then resume."
            )
        return episodes, index - self._starts[episodes]

    # -- pictures --------------------------------------------------------------------------------------------------

    def _masks_of(self, episode: int) -> list[str]:
        if not needs_masks((*self._views, *self._reference_views)):
            return []
        texts = self.reader.episode(episode).columns[f"mask.{self.reader.schema.mask_camera}"].tolist()
        if not all(texts):
            self.reader.masks(episode)  # raises, and says where
        return texts

    def _mask(self, episode: int, row: int) -> NDArray[np.bool_]:
        texts = self._texts[episode]
        return rle.decode(texts[row]) if texts else np.zeros((1, 1), bool)

    def _centres(self, episode: int, row: int) -> dict[str, tuple[float, float]]:
        """Where each window was before ``row``: only a lost target needs it."""
        texts = self._texts[episode]
        centres: dict[str, tuple[float, float]] = {}
        if texts and not rle.area(texts[row]):
            seen = next((earlier for earlier in range(row - 1, -1, -1) if rle.area(texts[earlier])), None)
            if seen is not None:
                self._outlines(episode, seen, centres)
        return centres

    def _outlines(self, episode: int, row: int, centres: dict[str, tuple[float, float]]) -> Arrays:
        """Mask and place of each window, without pictures."""
        views = [replace(view, rgb=False, depth=False) for view in self._views if needs_masks([view])]
        black = {
            self._cameras[view].name: np.broadcast_to(
                np.uint8(0), (self._cameras[view].height, self._cameras[view].width, 3)
            )
            for view in self._views
        }
        return follow(views, Observation(np.zeros(COMMANDS), black, {}, self._mask(episode, row)), centres)

    def _extras(self, episodes: Rows, rows: Rows, draws: Draws | None) -> Arrays:
        """``reference.*`` and ``lagged.*``."""
        first = np.zeros_like(rows)
        if draws is not None:
            first = (draws.uniform().numpy() * (np.minimum(rows, self._reference_rows) + 1)).astype(np.int64)
        out = _stacked([self._first_look(int(e), int(row)) for e, row in zip(episodes, first, strict=True)])
        if draws is not None:
            earlier = np.maximum(rows - 1 - draws.integers(LAG_ROWS).numpy(), 0)
            late = [self._outlines(e, row, self._centres(e, row)) for e, row in zip(episodes, earlier, strict=True)]
            out |= {f"lagged.{key}": array for key, array in _stacked(late).items()}
        return out

    def _first_look(self, episode: int, row: int) -> Arrays:
        """``reference.*`` of a row at the episode's beginning."""
        if (episode, row) not in self._first_looks:
            moment = self._moment(episode, row, self._reference_views)
            arrays = follow(self._reference_views, moment, self._centres(episode, row))
            self._first_looks[episode, row] = {f"reference.{key}": array for key, array in arrays.items()}
        return self._first_looks[episode, row]

    def _moment(self, episode: int, row: int, views: Sequence[View]) -> Observation:
        """A row read from the data set itself."""
        rgb, depth = {}, {}
        for view in views:
            camera = self._cameras[view]
            rgb[camera.name] = self.reader.frames(episode, camera.key, [row])[0]
            if view.depth:
                depth[camera.name] = to_metres(self.reader.frames(episode, camera.depth_key, [row])[0], camera)
        return Observation(self._columns(episode)[0][row], rgb, depth, self._mask(episode, row))

    def _columns(self, episode: int) -> tuple[NDArray[Any], NDArray[Any]]:
        if self._read is None or self._read.meta.index != episode:
            self._read = self.reader.episode(episode)
        return np.asarray(self._read.columns[STATE]), np.asarray(self._read.columns[ACTION])

    def _goals_of(self, episode: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Of every row; see :func:`dexloop.train.data.goals.grasp_goals`."""
        if episode not in self._goals:
            goals, known = grasp_goals(self._columns(episode)[1])
            self._goals[episode] = goals, known & (self._first_examples[episode] == 0)
        return self._goals[episode]

    def _sample(self, episode: int, row: int) -> Batch:
        """One sample without LeRobot, to learn statistics from."""
        states, actions = self._columns(episode)
        steps = row + np.arange(self._horizon)
        arrays = follow(self._views, self._moment(episode, row, self._views), self._centres(episode, row))
        arrays |= self._first_look(episode, 0)
        arrays |= {"state": states[row], "action": actions[np.minimum(steps, len(actions) - 1)]}
        arrays |= {"action_is_pad": steps >= len(actions), "action_mask": np.ones(COMMANDS, bool)}
        arrays |= {"goal": self._goals_of(episode)[0][row]}
        return {key: torch.from_numpy(np.array(array)) for key, array in arrays.items()}


def _stacked(rows: Sequence[Arrays]) -> Arrays:
    return {key: np.stack([arrays[key] for arrays in rows]) for key in rows[0]}
