"""Training samples and their stream: chunks inside their episodes, the same rows at the same step, whatever happens."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dexloop.datasets.episode import LEARN_FROM
from dexloop.datasets.reader import DatasetReader
from dexloop.datasets.schema import STATE
from dexloop.datasets.writer import DatasetWriter
from dexloop.hardware.errors import BadInput
from dexloop.tests.dataset_fixtures import DEPTH_SCHEMA, SCHEMA, make_episode
from dexloop.train.controller.config import ActionConfig
from dexloop.train.controller.draws import Draws
from dexloop.train.data.batches import Batches
from dexloop.train.data.chunks import Chunks, split, usable_episodes
from dexloop.train.views import View
from hypothesis import given
from hypothesis import strategies as st

WINDOW = View("window", "head", 64, 48, window=16, depth=True, mask=True)
WRIST = View("wrist", "wrist", 16, 12, depth=True)
ROWS = (7, 12, 5)
HORIZON = 6
ACTION = ActionConfig(horizon=HORIZON, tokens=3)


class Cache:
    """Features that say which row and copy they are of."""

    copies = 3
    shapes = {"window.features": (4, 2)}

    def read(self, episode: int, rows: np.ndarray, copy: int) -> dict[str, np.ndarray]:
        value = 1000 * episode + 10 * rows + copy
        return {"window.features": np.broadcast_to(value[:, None, None], (len(rows), 4, 2)).astype(np.float16)}


class Spy:
    """A pack that remembers what it was asked for."""

    def __init__(self) -> None:
        self.taken: list[tuple[list[int], list[int], bool]] = []

    def take(self, episodes: np.ndarray, rows: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
        self.taken.append((episodes.tolist(), rows.tolist(), "window.rgb" in names))
        return {}


def changed(chunks: Chunks, **attributes: object) -> Chunks:
    out = object.__new__(Chunks)
    out.__dict__.update(chunks.__dict__, **attributes)
    return out


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> DatasetReader:
    root = tmp_path_factory.mktemp("recorded") / "set"
    with DatasetWriter(root, DEPTH_SCHEMA) as writer:
        for seed, rows in enumerate(ROWS):
            writer.append(make_episode(seed, rows, DEPTH_SCHEMA, success=[True, False, None][seed]))
    return DatasetReader(root)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("home"))


@pytest.fixture(autouse=True)
def own_home(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEXLOOP_HOME", home)


@pytest.fixture(scope="module")
def chunks(reader: DatasetReader, home: str) -> Chunks:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEXLOOP_HOME", home)
        views = (WINDOW, WRIST)
        return Chunks(reader, views, (WINDOW,), ACTION, episodes=[0, 1, 2], lagged=True, workers=1, progress=False)


def actions(reader: DatasetReader) -> list[np.ndarray]:
    return [reader.episode(index).columns["action"] for index in range(3)]


def test_a_batch_is_what_was_recorded(chunks: Chunks, reader: DatasetReader) -> None:
    positions = np.array([0, 8, 23, 6])
    batch = chunks.batch(positions)
    commands = actions(reader)
    assert len(chunks) == sum(ROWS)
    for i, (episode, row) in enumerate([(0, 0), (1, 1), (2, 4), (0, 6)]):
        assert (chunks.episodes[chunks.place[positions[i]]], chunks.row[positions[i]]) == (episode, row)
        assert np.array_equal(batch["state"][i], reader.episode(episode).columns["observation.state"][row])
        left = commands[episode][row : row + HORIZON]
        assert np.array_equal(batch["action"][i, : len(left)], left)
        assert (batch["action"][i, len(left) :] == torch.from_numpy(commands[episode][-1])).all()
        assert batch["action_is_pad"][i].tolist() == [step >= len(left) for step in range(HORIZON)]
        one = [np.array([value]) for value in (episode, row)]
        for name, array in chunks.pack.take(*one).items():
            assert np.array_equal(batch[name][i], array[0]), name
        start = chunks.pack.take(one[0], np.array([0]))
        assert np.array_equal(batch["reference.window.rgb"][i], start["window.rgb"][0])
    assert batch["action_mask"].all()
    assert batch["action_mask"].shape == (4, 13)
    assert batch["window.depth"].dtype == torch.float32
    assert batch["window.mask"].dtype == torch.bool
    assert not any(key.startswith(("lagged.", "reference.wrist")) for key in batch)


@given(st.lists(st.integers(0, sum(ROWS) - 1), min_size=1, max_size=8), st.integers(0, 10**6))
def test_nothing_reaches_out_of_its_episode(
    chunks: Chunks, reader: DatasetReader, positions: list[int], seed: int
) -> None:
    where = np.array(positions)
    spy = Spy()
    batch = changed(chunks, _pack=spy).batch(where, Draws(seed, 0, len(where)))
    row = chunks.row[where]
    now, reference, lagged = spy.taken
    assert now[0] == reference[0] == lagged[0] == chunks.episodes[chunks.place[where]].tolist()
    assert now[1] == row.tolist()
    assert all(0 <= first <= min(at, 10) for first, at in zip(reference[1], row, strict=True))
    assert all(max(0, at - 4) <= late <= max(0, at - 1) for late, at in zip(lagged[1], row, strict=True))
    assert not lagged[2]
    commands = actions(reader)
    for i, place in enumerate(chunks.place[where]):
        assert batch["action_is_pad"][i].sum() == max(0, row[i] + HORIZON - ROWS[place])
        assert np.array_equal(batch["action"][i, 0], commands[place][row[i]])
        padded = batch["action"][i][batch["action_is_pad"][i]]
        assert (padded == torch.from_numpy(commands[place][-1])).all()


def test_references_and_lags_are_all_drawn(chunks: Chunks) -> None:
    where = np.full(200, 7 + 11)  # the last row of the longest episode
    spy = Spy()
    changed(chunks, _pack=spy).batch(where, Draws(1, 0, 200))
    assert set(spy.taken[1][1]) == set(range(11))
    assert set(spy.taken[2][1]) == {7, 8, 9, 10}


def test_cached_features_stand_for_colours(reader: DatasetReader) -> None:
    views = (replace(WINDOW, depth=False), WRIST)
    cached = Chunks(reader, views, (), ACTION, episodes=[1, 2], features=Cache(), workers=1, progress=False)
    assert "window.rgb" not in cached.pack.names
    assert {"window.mask", "wrist.rgb"} < set(cached.pack.names)
    where = np.arange(len(cached))
    plain = cached.batch(where)
    assert plain["window.features"].dtype == torch.float16
    value = 1000 * cached.episodes[cached.place] + 10 * cached.row
    assert np.array_equal(plain["window.features"][:, 2, 1], value.astype(np.float16))
    copies = (
        cached.batch(where, Draws(0, 0, len(where)))["window.features"][:5, 0, 0] - plain["window.features"][:5, 0, 0]
    )
    assert set(copies.tolist()) <= {0.0, 1.0, 2.0}


@given(st.integers(2, 9), st.integers(1, 9), st.integers(0, 40), st.integers(1, 4), st.integers(0, 5))
def test_processes_share_every_batch(
    chunks: Chunks, rows: int, size: int, step: int, processes: int, seed: int
) -> None:
    size = max(size, processes)
    few = changed(chunks, examples=chunks.examples[:rows])
    shares = []
    for index in range(processes):
        with Batches(few, size, seed, step, index, processes) as batches:
            at, batch, draws = next(iter(batches))
            assert at == step
            assert draws.rows == len(batch["state"])
            shares.append(batch)
            positions = batches.positions(step)
    with Batches(few, size, seed, step) as batches:
        whole = next(iter(batches))[1]
    assert np.array_equal(torch.cat([share["state"] for share in shares]), whole["state"])
    assert np.array_equal(
        torch.cat([share["reference.window.origin"] for share in shares]), whole["reference.window.origin"]
    )
    assert np.array_equal(whole["state"], chunks.batch(positions)["state"])


def test_what_a_policy_did_before_it_was_corrected_is_not_learnt(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "set", DEPTH_SCHEMA) as writer:
        for seed, extra in enumerate(({}, {LEARN_FROM: 0.2})):
            episode = make_episode(seed, 10, DEPTH_SCHEMA, success=True)
            writer.append(replace(episode, info=replace(episode.info, extra=extra)))
    corrected = DatasetReader(tmp_path / "set")
    chunks = Chunks(corrected, [WINDOW], [WINDOW], ACTION, episodes=[0, 1], workers=1, progress=False)
    first = round(0.2 * corrected.schema.rate_hz)
    assert first > 0
    assert len(chunks) == 10 + 10 - first
    states = corrected.episode(1).columns[STATE]
    assert np.array_equal(chunks.batch(np.arange(10, len(chunks)))["state"], states[first:])
    # The attempt's first look stays the one with which the policy began.
    looks = chunks.batch(np.array([10]))["reference.window.origin"]
    whole = Chunks(corrected, [WINDOW], [WINDOW], ACTION, episodes=[1], workers=1, progress=False)
    assert np.array_equal(looks, whole.pack.take(np.array([1]), np.array([0]), ["window.origin"])["window.origin"])


def test_every_epoch_shows_every_row_once(chunks: Chunks) -> None:
    with Batches(chunks, 5, seed=3) as batches:
        order = np.concatenate([batches.positions(step) for step in range(24)])  # 5 epochs of 24 rows
    epochs = order.reshape(5, 24)
    assert all(sorted(epoch) == list(range(24)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 5


def test_a_resumed_stream_is_the_same_stream(chunks: Chunks) -> None:
    with Batches(chunks, 4, seed=5) as batches:
        steps = iter(batches)
        whole = [next(steps) for _ in range(16)]
    with Batches(chunks, 4, seed=5, start_step=9, ahead=1) as batches:
        steps = iter(batches)
        for step, batch, draws in whole[9:]:
            again = next(steps)
            assert again[0] == step
            assert again[1].keys() == batch.keys()
            assert all(torch.equal(again[1][key], batch[key]) for key in batch)
            assert torch.equal(again[2].normal(3), draws.normal(3))


def test_a_failure_on_the_thread_is_raised_where_the_batch_is_asked_for(chunks: Chunks) -> None:
    with Batches(changed(chunks, _pack=None), 4, 0) as batches, pytest.raises(AttributeError, match="take"):
        next(iter(batches))
    assert not any(thread.name == "batches" for thread in threading.enumerate())


@given(st.sets(st.integers(0, 500), min_size=2, max_size=40), st.floats(0.001, 0.999), st.integers(0, 99))
def test_splits_are_whole_and_disjoint(episodes: set[int], share: float, seed: int) -> None:
    ordered = sorted(episodes)
    train, validation = split(ordered, share, seed)
    assert train
    assert validation
    assert sorted(train + validation) == ordered
    assert abs(len(validation) - share * len(ordered)) <= 1
    assert split(ordered, share, seed) == (train, validation)


def test_bad_input_is_one_sentence_and_writes_nothing(reader: DatasetReader, tmp_path: Path) -> None:
    assert usable_episodes(reader) == [0, 2]
    assert usable_episodes(reader, failures=True) == [0, 1, 2]
    with pytest.raises(BadInput, match="there are 1 usable episodes, expected at least 2"):
        split([4], 0.1, 0)
    with pytest.raises(BadInput, match="validation share is 1.0"):
        split([4, 5], 1.0, 0)

    def start(source: DatasetReader, views: tuple[View, ...] = (WINDOW,), **settings: object) -> Chunks:
        action = ActionConfig(horizon=HORIZON, tokens=3, rate_hz=settings.pop("rate_hz", 20))  # type: ignore[arg-type]
        return Chunks(source, views, views, action, episodes=[0], progress=False, **settings)  # type: ignore[arg-type]

    with pytest.raises(BadInput, match="is of robot 'rm75_gor', the controller is for 'other'"):
        start(reader, robot_type="other")
    with pytest.raises(BadInput, match="20 rows a second, the controller learns 10"):
        start(reader, rate_hz=10)
    bare = make_episode(0, 5)
    bare = replace(bare, columns={**bare.columns, "mask.head": np.array([""] * 5, object)})
    with DatasetWriter(tmp_path / "plain", SCHEMA) as writer:
        writer.append(bare)
    plain = DatasetReader(tmp_path / "plain")
    with pytest.raises(BadInput, match="has no depth|has none"):
        start(plain)
    with pytest.raises(BadInput, match="no target mask at row 0"):
        start(plain, (replace(WINDOW, depth=False),))
