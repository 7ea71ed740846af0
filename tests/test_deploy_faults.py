"""What breaks while ``deploy`` runs: the robot ends safe, the report says why, the exit code is not 0."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dexloop.benchmarks.faults import FAULTS, Fault, Outcome, Witness, strike
from dexloop.deploy.command import Deploy

ROOT = Path(__file__).parents[1]
COMMAND = Deploy(seed=4, split="validation", objects=1, attempts=1, real_time=False)


def struck(name: str, folder: Path) -> Outcome:
    """The command with the fault of that name, and what holds after every fault."""
    fault: Fault = next(fault for fault in FAULTS if fault.name == name)
    outcome = strike(fault, folder / "run", COMMAND)
    seen = outcome.witness
    assert outcome.exit_code != 0
    assert seen.now_ns - seen.moved_ns > 0.5e9 or seen.moved_rad < 0.02, "the robot rests"
    assert outcome.told, outcome.end
    assert outcome.end.split(":")[-1].strip() in outcome.page.replace("&#x27;", "'").replace("&gt;", ">")
    return outcome


def test_a_camera_that_stalls(tmp_path: Path) -> None:
    outcome = struck("head camera stalled", tmp_path)
    seen = outcome.witness
    assert seen.stops >= 1  # by the attempt at once, and by the session once more
    assert seen.stopped_s is not None
    assert seen.stopped_s < 1.0, "before the picture is given up even: no command is made from an old one"
    assert seen.openings[-1] > 0.8, "an open hand stays open"
    assert seen.did.startswith("stopped where it was")


def test_a_policy_file_that_is_damaged(tmp_path: Path) -> None:
    outcome = struck("policy file damaged", tmp_path)
    assert "model.safetensors is not a readable safetensors file" in outcome.end
    assert outcome.witness.did == "did not move"
    assert outcome.exit_code == 2


def test_nothing_of_the_kind_on_the_table(tmp_path: Path) -> None:
    outcome = struck("nothing of the kind there", tmp_path)
    assert outcome.witness.struck_ns is None, "nothing was reached for"


def test_a_report_of_something_else_is_told_from_one_of_the_fault() -> None:
    outcome = Outcome(FAULTS[0], 1, Witness(), "the prompt is ambiguous: what shall I do?", "")
    assert not outcome.told
    assert dataclasses.replace(outcome, end="the planner's server gave no answer to 'verify'").told


@pytest.mark.slow
def test_a_target_that_is_taken_away(tmp_path: Path) -> None:
    outcome = struck("target taken away", tmp_path)
    assert outcome.witness.did == "went back to its start, hand open"


@pytest.mark.slow
def test_a_planner_whose_server_is_gone(tmp_path: Path) -> None:
    outcome = struck("planner's server gone", tmp_path)
    assert "127.0.0.1" in outcome.end
    assert outcome.witness.stops >= 1  # by the attempt at once, and by the session once more
    assert outcome.witness.did.startswith("stopped where it was, hand kept"), "what it holds it keeps"


def test_ctrl_c_stops_the_robot_first(tmp_path: Path) -> None:
    """A real process, interrupted in the middle of a reach. Simulated time: a starved machine loses no camera."""
    flags = ["--seed", "4", "--split", "validation", "--objects", "1", "--no-real-time"]
    line = [sys.executable, "cli.py", "deploy", *flags, "--out", str(tmp_path / "run")]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        line, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert any("grasp" in said for said in process.stdout)  # the proposal: the reach begins now
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    lines = [line for line in error.splitlines() if line]
    assert lines[0] == "stopping: the robot was told to stop."
    assert lines[-1] == "interrupted: what was finished is safe."
    assert "stopped: the user stopped it (Ctrl-C). Grasped: nothing." in out
    page = (tmp_path / "run/report.html").read_text()
    assert "Stopped: the user stopped it (Ctrl-C)" in page
    last = json.loads((tmp_path / "run/timeline.jsonl").read_text().splitlines()[-1])
    assert last["kind"] == "error"
