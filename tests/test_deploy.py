"""``cli.py deploy`` as a user runs it: the shipped policy, the offline planner and the tracker, on the twin."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from dexloop.cli import parse
from dexloop.deploy.command import SHIPPED_POLICY, Deploy
from dexloop.hardware.errors import BadInput
from dexloop.train.controller.checkpoint import load_controller


def timeline(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "timeline.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_it_clears_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = Deploy(seed=13, split="validation", objects=4, real_time=False, out=tmp_path / "run")
    assert command.run() == 0
    events = timeline(tmp_path / "run")
    assert [event["kind"] for event in events].count("placed") >= 3
    assert (tmp_path / "run/head.mp4").stat().st_size > 10_000
    assert str(tmp_path / "run/report.html") in capsys.readouterr().out
    with pytest.raises(BadInput, match="is not an empty folder"):
        command.run()


def test_what_is_not_on_the_table_is_not_grasped(tmp_path: Path) -> None:
    command = Deploy("the unicorn", seed=12, split="validation", objects=1, real_time=False, out=tmp_path)
    assert command.run() != 0
    events = timeline(tmp_path)
    assert not [event for event in events if event["kind"] == "attempt"]
    assert "unicorn" in events[-1]["text"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"objects": 7}, "--objects is 7: expected 1 to 6"),
        ({"policy": Path("nowhere")}, "nowhere holds no controller"),
        ({"camera_size": (64, 48)}, "--camera-size is"),
    ],
)
def test_bad_input_is_said(flags: dict, words: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=words):
        Deploy(real_time=False, out=tmp_path / "run", **flags).run()
    assert not (tmp_path / "run").exists()


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(BadInput, match="is not an empty folder"):
            Deploy(real_time=False, out=out).run()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_shipped_policy_is_small_and_says_how_it_was_made() -> None:
    load_controller(SHIPPED_POLICY)
    assert sum(path.stat().st_size for path in SHIPPED_POLICY.iterdir()) < 60e6
    about = json.loads((SHIPPED_POLICY / "about.json").read_text())
    recipe = (SHIPPED_POLICY / "recipe.sh").read_text()
    assert f"--name {about['run']} --steps {about['settings']['steps']} " in recipe
    for made in about["judge"]["rehearsals"]:
        assert f"rehearse --scenes {made['scenes']} --seed {made['seed']} " in recipe
    assert "bash deploy/policy/recipe.sh" in (SHIPPED_POLICY.parents[1] / "Makefile").read_text()


def test_the_recipe_of_the_shipped_policy_is_made_of_commands_that_parse() -> None:
    """Every line that calls the program is read by its own parser; nothing is run."""
    text = (SHIPPED_POLICY / "recipe.sh").read_text().replace('"${record[@]}"', "--cameras head --workers 2")
    lines = [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("dexloop ")]
    assert len(lines) > 10
    for line in lines:
        parse(line)
