"""Suites: held in files, made the same again, disjoint where they must be, divided in proportion."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from dexloop.deploy.evaluation import suites
from dexloop.deploy.evaluation.suites import SUITES, Row, Suite, load, write
from dexloop.deploy.planner.grammar import parse
from dexloop.hardware.errors import BadInput
from dexloop.hardware.twin.instructions import alike
from hypothesis import given
from hypothesis import strategies as st

PURE = tuple(name for name in SUITES if not name.startswith("long-horizon"))  # made without settling scenes


def test_unseen1287_has_the_papers_make_up() -> None:
    suite = load("unseen1287")
    assert Counter(row.factor for row in suite.rows) == {"object": 360, "background": 6 * 103, "lighting": 3 * 103}
    assert len(suite.rows) == 1287
    assert set(Counter(row.background for row in suite.rows if row.factor == "background").values()) == {103}
    assert set(Counter(row.lighting for row in suite.rows if row.factor == "lighting").values()) == {103}
    assert {row.split for row in suite.rows} == {"test"}
    assert 5.5 < sum(row.objects for row in suite.rows) / 1287 < 6.0
    assert len({row.seed for row in suite.rows if row.factor == "object"}) == 360


def test_only_the_examined_factor_changes() -> None:
    by_background: dict[str, list[tuple[int, int]]] = {}
    for row in load("unseen1287").rows:
        if row.factor != "object":
            by_background.setdefault(f"{row.background} {row.lighting} {row.factor}", []).append(
                (row.seed, row.objects)
            )
    assert len(by_background) == 9
    assert len({tuple(entries) for entries in by_background.values()}) == 1


@pytest.mark.parametrize("name", PURE)
def test_a_file_is_written_the_same_again(name: str, tmp_path: Path) -> None:
    (path,) = write(tmp_path, [name])
    assert path.read_bytes() == (suites.FOLDER / path.name).read_bytes()


def test_the_first_long_task_is_found_again() -> None:
    assert list(islice(suites.long_horizon(), 1)) == list(load("long-horizon").rows[:1])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(SUITES) - set(PURE)))
def test_long_tasks_are_written_the_same_again(name: str, tmp_path: Path) -> None:
    (path,) = write(tmp_path, [name])
    assert path.read_bytes() == (suites.FOLDER / path.name).read_bytes()


@pytest.mark.slow
def test_every_scene_of_unseen1287_can_be_built_and_its_targets_differ() -> None:
    seen = {}
    for row in load("unseen1287").rows:
        if row.seed not in seen:
            seen[row.seed] = row.scene()
    shapes = {scene.target_object.object.name for seed, scene in seen.items() if seed < suites._AROUND_SEED}
    assert len(shapes) > 350


def test_validation_and_test_share_nothing() -> None:
    test, validation = load("unseen1287").rows, load("validation").rows
    assert {row.split for row in validation} == {"validation"}
    assert not {row.background for row in test} & {row.background for row in validation}
    assert not {row.lighting for row in test} & {row.lighting for row in validation}


def test_long_tasks_are_24_of_each_and_mean_what_they_say() -> None:
    rows = load("long-horizon").rows
    assert Counter(row.factor for row in rows) == {"clear": 24, "colour": 24, "shape": 24}
    for row in (rows[0], rows[24], rows[48]):
        placed = row.scene().objects
        wanted = [placed[index] for index in row.wanted]
        others = [item for index, item in enumerate(placed) if index not in row.wanted]
        assert all(item.graspable for item in wanted)
        if row.factor == "clear":
            assert not others
        elif row.factor == "colour":
            assert {item.object.colour for item in wanted}.isdisjoint(item.object.colour for item in others)
        else:
            assert len({item.object.noun for item in wanted}) == 1
            assert not any(alike(item, other) for item in wanted for other in others)
    for row in rows:
        assert 2 <= len(row.wanted) <= 6
        assert parse(row.prompt).every  # the offline planner reads every prompt


@given(st.integers(1, 1287))
def test_stratified_is_of_the_size_in_order_and_in_proportion(count: int) -> None:
    suite = load("unseen1287")
    rows = suite.stratified(count)
    assert len(rows) == len({row.id for row in rows}) == count
    assert rows == suite.stratified(count)
    place = {row.id: k for k, row in enumerate(suite.rows)}
    assert [place[row.id] for row in rows] == sorted(place[row.id] for row in rows)
    for level, most in (("factor", 1), ("stratum", 2)):
        sizes = Counter(getattr(row, level) for row in suite.rows)
        taken = Counter(getattr(row, level) for row in rows)
        assert all(abs(taken[name] - count * size / 1287) < most for name, size in sizes.items())


def test_the_tenth_of_the_suite_has_the_suites_make_up() -> None:
    rows = load("unseen1287").stratified(129)
    assert Counter(row.factor for row in rows) == {"object": 36, "background": 62, "lighting": 31}


@pytest.mark.parametrize("count", [0, 1288, -1])
def test_more_scenes_than_there_are_are_refused(count: int) -> None:
    with pytest.raises(BadInput, match="expected 1 to 1287"):
        load("unseen1287").stratified(count)


def test_unknown_and_damaged_suites_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="expected one of unseen1287"):
        load("everything")
    monkeypatch.setattr(suites, "FOLDER", tmp_path)
    with pytest.raises(BadInput, match="write it anew"):
        load("single")
    (tmp_path / "single.json").write_text('{"format": 1, "name": "single", "rows": [{"id": "a"}]}')
    with pytest.raises(BadInput, match="write it anew"):
        load("single")
    row = Row("twice", 1, "test", 1, "single", "walnut_table", "white")
    (tmp_path / "single.json").write_text(suites._text(Suite("single", (row, row))))
    with pytest.raises(BadInput, match="twice"):
        load("single")


def test_the_digest_is_of_every_row() -> None:
    suite = load("single")
    other = Suite(suite.name, suite.rows[:-1])
    assert suite.digest != other.digest
    assert suite.digest == load("single").digest


def test_names_are_fit_for_files() -> None:
    for name in SUITES:
        for row in load(name).rows:
            assert row.id.replace("-", "").replace("_", "").isalnum()
