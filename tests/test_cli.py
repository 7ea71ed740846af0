"""The command line as a user meets it: quick help, and one clear sentence with exit code 2 for bad requests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


def cli(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"DEXLOOP_HOME": str(home), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        cwd=home,
        timeout=120,
    )


def test_help_is_quick_and_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, runpy; sys.argv = ['cli.py', '--help']\n"
        "try: runpy.run_path({path!r}, run_name='__main__')\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "heavy = {{'torch', 'lerobot', 'mujoco', 'datasets', 'h5py', 'av', 'rerun', 'scipy', 'pyarrow'}}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    ).format(path=str(ROOT / "cli.py"))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert result.stdout.strip().endswith("HEAVY []")
    for command in ("collect", "replay", "view", "dataset", "train"):
        assert command in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("collect",),
        ("replay",),
        ("view",),
        ("dataset",),
        ("dataset", "check"),
        ("dataset", "merge"),
        ("train",),
        ("train", "controller"),
        ("train", "attention"),
    ],
)
def test_every_command_explains_itself(arguments: tuple[str, ...], tmp_path: Path) -> None:
    result = cli(*arguments, "--help", home=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "usage" in result.stdout


def bad_hand_file(folder: Path) -> str:
    path = folder / "hand.npz"
    np.savez(path, keypoints_m=np.zeros((10, 20, 3), np.float32), fps=30.0)
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("collect", "--task", "juggle"), "juggle"),
        (("collect", "--operator", "ghost"), "ghost"),
        (("collect", "--objects", "9"), "1 to 6"),
        (("collect", "--episodes", "0"), "episodes"),
        (("collect", "--workers", "0"), "workers"),
        (("collect", "--rate-hz", "-1"), "rate"),
        (("collect", "--operator", "recorded"), "--input"),
        (("collect", "--operator", "recorded", "--input", "nowhere.npz"), "nowhere.npz"),
        (("collect", "--operator", "recorded", "--input", "HAND"), "(10, 20, 3)"),
        (("replay", "episode_0"), "there is no data set"),
        (("view", "episode_0", "--dataset", "nothing"), "there is no data set"),
        (("dataset", "check", "--dataset", "nothing"), "there is no data set"),
        (("dataset", "delete", "--dataset", "nothing", "--episodes", "0"), "there is no data set"),
        (("train", "controller"), "there is no data set"),
        (("train", "controller", "--steps", "1", "--minutes", "1"), "--minutes"),
        (("train", "controller", "--resume"), "did not find a run"),
    ],
)
def test_bad_requests_end_in_one_sentence(arguments: tuple[str, ...], expected: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    filled = [bad_hand_file(tmp_path) if part == "HAND" else part for part in arguments]
    result = cli(*filled, home=home)
    assert result.returncode == 2, result.stdout + result.stderr
    assert expected in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert list(home.iterdir()) == [], "something was written"
