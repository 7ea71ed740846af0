"""The ablations' one command: what it runs, how it compares, what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dexloop.benchmarks.ablations import CHANGES, WHOLE, Ablations, gather, plot, show, versus
from dexloop.deploy.evaluation.executor import SerialExecutor
from dexloop.deploy.evaluation.results import write_results
from dexloop.deploy.evaluation.store import ResultFolder, run_rows
from dexloop.hardware.errors import BadInput
from dexloop.tests.evaluation_fixtures import SETTINGS, fake_trial, rows


def test_each_differs_from_the_whole_in_one_thing_and_has_a_folder_of_its_own(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    runs = Ablations(10, policies=(f"ddim={other}",), out=tmp_path).evaluations()
    assert list(runs) == [*CHANGES, "ddim"]
    assert len({run.out for run in runs.values()}) == len(runs)
    whole = vars(runs[WHOLE])
    changed = {"no mask": {"masks"}, "no depth": {"depth"}, "oracle planner": {"planner"}, "ddim": {"policy"}}
    for name, expected in changed.items():
        assert {key for key, value in vars(runs[name]).items() if value != whole[key]} == expected | {"out"}
    few = Ablations(10, only=("whole", "no depth")).evaluations()
    assert list(few) == ["whole", "no depth"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"only": ("no brain",)}, "expected some of whole"),
        ({"policies": ("ddim",)}, "NAME=FOLDER"),
        ({"policies": ("ddim=/none",)}, "NAME=FOLDER"),
        ({"policies": ("whole=/tmp",)}, "a new name"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        Ablations(10, **wrong).evaluations()


def test_scenes_are_compared_one_by_one() -> None:
    whole = {f"{k}": k < 8 for k in range(10)}
    assert versus(whole, whole) == {"won": 0, "lost": 0, "p": 1.0, "scenes": 10}
    worse = {f"{k}": k < 2 for k in range(9)}
    found = versus(worse, whole)
    assert (found["won"], found["lost"], found["scenes"]) == (0, 6, 9)
    assert found["p"] == pytest.approx(2 / 2**6, abs=1e-5)  # six heads or six tails


def test_finished_folders_become_a_table_and_a_plot(tmp_path: Path) -> None:
    runs = Ablations(12, only=("whole", "no mask"), out=tmp_path).evaluations()
    for run in runs.values():
        assert run.out is not None
        found, _ = run_rows(ResultFolder(run.out, {"format": 2}), rows(12), SETTINGS, SerialExecutor(), fake_trial)
        write_results(run.out, found, SETTINGS, {})
    table = gather(runs, 3)
    assert table["no mask"]["against_whole"] == {"won": 0, "lost": 0, "p": 1.0, "scenes": 12}
    assert table["whole"]["n"] == 12
    told = show(table, 3).splitlines()
    assert told[1].startswith("whole")
    assert told[2].split()[-2:] == ["0/0", "1"]
    assert json.loads(json.dumps(table)) == table
    plot(tmp_path / "plot.png", table, 3)
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"
