"""Figures: intervals, shares per group, table, plots, and what is told of scenes without a result."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from dexloop.deploy.evaluation.results import summarize, table_text, tally, write_results
from dexloop.deploy.evaluation.statistics import interval
from dexloop.deploy.evaluation.values import Trial, TrialResult, TrialSettings
from dexloop.deploy.planner.vlm_config import VlmConfig
from dexloop.hardware.errors import BadInput
from dexloop.tests.evaluation_fixtures import SETTINGS, fake_trial, rows
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest


@given(st.integers(0, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_wilsons(pair: tuple[int, int]) -> None:
    won, count = pair
    low, high = interval(won, count)
    if count == 0:
        assert (low, high) == (0.0, 1.0)
        return
    expected = binomtest(won, count).proportion_ci(method="wilson")
    assert low == pytest.approx(expected.low, abs=1e-6)
    assert high == pytest.approx(expected.high, abs=1e-6)
    assert 0.0 <= low <= won / count <= high <= 1.0


@pytest.mark.parametrize(("won", "count"), [(3, 2), (-1, 5), (0, -1)])
def test_counts_that_cannot_be_are_refused(won: int, count: int) -> None:
    with pytest.raises(BadInput, match="expected 0 to as many"):
        interval(won, count)


def results(count: int = 40) -> list[TrialResult]:
    return [fake_trial(Trial(SETTINGS, row)) for row in rows(count)]


def test_shares_grow_with_attempts_and_groups_add_up() -> None:
    found = results()
    figures = summarize(found, 3, {}, {})
    assert figures["n"] == 40
    for number in (1, 2, 3):
        won = sum(0 < result.at_attempt <= number for result in found)
        assert figures[f"success_at_{number}"] == pytest.approx(won / 40)
        low, high = figures[f"success_at_{number}_95"]
        assert low < won / 40 < high
    assert figures["success_at_1"] <= figures["success_at_2"] <= figures["success_at_3"] < 1
    for group in ("per_factor", "per_family", "per_objects"):
        assert sum(part["n"] for part in figures[group].values()) == 40
    assert figures["per_background"]["walnut_table"]["n"] == figures["per_factor"]["background"]["n"]
    assert figures["per_lighting"] == {}
    assert sum(figures["failures"].values()) == sum(result.at_attempt == 0 for result in found)
    assert len(figures["failed_scenes"]) == sum(figures["failures"].values())
    assert figures["planner"]["boxes"]["right"] == 40
    assert figures["planner"]["boxes"]["n"] == 80
    assert figures["loop"]["late_ticks"] == 40


def test_everything_is_written_and_read_again(tmp_path: Path) -> None:
    found = results()
    figures = write_results(tmp_path, found, SETTINGS, {"settings": {"suite": "fake"}})
    assert json.loads((tmp_path / "summary.json").read_text()) == figures
    table = pq.read_table(tmp_path / "trials.parquet").to_pylist()
    assert [row["id"] for row in table] == [result.id for result in found]
    assert table[3]["at_attempt"] == found[3].at_attempt
    assert json.loads(table[3]["attempts"])[0]["reason"] == found[3].attempts[0].reason
    assert table[0]["planner.boxes"] == 2
    for name in ("success.png", "failures.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"
    assert not list(tmp_path.glob(".*"))
    text = table_text(figures, "unseen1287")
    assert "94.7 %" in text  # the paper's beside ours
    assert "background" in text
    assert "never touched" in text
    assert "planner's verdicts: 120 of 120, 100.0%" in text
    assert "SafeRobot changed 3.0%" in text
    assert "an attempt that succeeds takes 5.0 s (mean)" in text


def test_every_failure_is_on_the_page_with_its_film(tmp_path: Path) -> None:
    found = results(12)
    lost = [result for result in found if not result.at_attempt]
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / f"{lost[0].id}.mp4").write_bytes(b"film")
    write_results(tmp_path, found, replace(SETTINGS, videos=str(tmp_path / "videos")), {})
    page = (tmp_path / "failures.html").read_text()
    assert f"{len(lost)} of 12 scenes failed" in page
    for result in found:
        assert (f'id="{result.id}"' in page) == (result in lost)
    assert f'src="videos/{lost[0].id}.mp4"' in page
    assert page.count("<video") == 1
    assert "never touched" in page
    bare = replace(lost[0], prompt="<script>", id="odd")
    write_results(tmp_path, [bare], SETTINGS, {})
    page = (tmp_path / "failures.html").read_text()
    assert "<script>" not in page
    assert "--videos" in page


def test_tasks_of_several_objects_are_told_by_kind(tmp_path: Path) -> None:
    several = [
        replace(result, factor=("clear", "colour")[k % 2], wanted=4, lifted=k % 5, placed=k % 4, seconds=60.0)
        for k, result in enumerate(results(20))
    ]
    figures = write_results(tmp_path, several, SETTINGS, {})
    assert set(figures["tasks"]) == {"clear", "colour"}
    clear = figures["tasks"]["clear"]
    assert (clear["wanted"]["right"], clear["wanted"]["n"]) == (sum(r.lifted for r in several[::2]), 40)
    assert clear["grasps_per_object"] == pytest.approx(10 / clear["wanted"]["right"], abs=1e-3)
    assert clear["verdicts"]["n"] == 30
    told = table_text(figures, "long-horizon")
    assert "task clear (10 scenes, 60 s of the rig's time each" in told
    assert "attempts for each object that was lifted" in told
    assert figures["disturbed"]["n"] == 0
    assert "target moved" not in told


def test_moved_targets_are_counted_apart() -> None:
    found = results(20)
    figures = summarize([replace(r, disturbed_m=0.06 * (k < 8)) for k, r in enumerate(found)], 3, {}, {})
    assert figures["disturbed"]["n"] == 8
    assert figures["disturbed"]["success_at_3"]["right"] == sum(r.success_at(3) for r in found[:8])
    assert figures["disturbed"]["moved_m_mean"] == 0.06
    assert "target moved by 6.0 cm (mean) during the reach in 8 of 20 scenes" in table_text(figures, "single")


def test_the_bar_shows_one_and_all_attempts() -> None:
    for result in results(6):
        shown = tally(result, SETTINGS)
        assert shown == {"@1": (result.success_at(1), 1), "@3": (result.success_at(3), 1)}
        assert set(tally(result, replace(SETTINGS, attempts=1))) == {"@1"}


def test_what_is_missing_is_named_and_not_counted(tmp_path: Path) -> None:
    figures = write_results(tmp_path, results(3), SETTINGS, {}, {"scene-007": "given up after 10 s"})
    assert figures["n"] == 3
    assert figures["missing"] == {"scene-007": "given up after 10 s"}
    empty = write_results(tmp_path / ".." / tmp_path.name, [], SETTINGS, {}, {"scene-007": "its process died"})
    assert empty["success_at_1"] is None
    assert "-" in table_text(empty, "unseen1287")


def test_one_attempt_and_no_failure_are_drawn_too(tmp_path: Path) -> None:
    won = [replace(result, at_attempt=1, reason="", attempts=()) for result in results(4)]
    figures = write_results(tmp_path, won, replace(SETTINGS, attempts=1), {})
    assert figures["success_at_1"] == 1.0
    assert figures["success_at_1_95"][1] == 1.0
    assert "success_at_2" not in figures
    assert table_text(figures, "single")


def test_a_result_goes_through_json_unchanged() -> None:
    for result in results(5):
        assert TrialResult.from_json(json.loads(json.dumps(result.to_json()))) == result


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"masks": "perfect"}, "expected one of tracked"),
        ({"planner": "human"}, "expected one of offline"),
        ({"attempts": 0}, "expected 1 to 10"),
        ({"seconds": 0.0}, "expected 1 to 120"),
        ({"camera_size": (32, 24)}, "expected at least"),
        ({"planner": "vlm"}, "expected an endpoint"),
        ({"vlm": VlmConfig()}, "only for it"),
        ({"depth": "half"}, "expected on or off"),
    ],
)
def test_settings_say_what_is_wrong(wrong: dict, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        TrialSettings("policy", **wrong)
