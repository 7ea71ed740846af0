"""Wheel and editable install both work in an empty folder, from the package's own metadata."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, env=environment, check=False
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def empty_environment(folder: Path) -> Path:
    """A new environment that sees the dependencies of this one, but not its dexloop."""
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    site = next((folder / "venv" / "lib").glob("python3*/site-packages"))
    # A plain path entry: this environment's own .pth files (its editable dexloop among them) are not read through it.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "venv" / "bin" / "python"


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_install_in_an_empty_folder(kind: str, tmp_path: Path) -> None:
    python = empty_environment(tmp_path)
    if kind == "wheel":
        source = tmp_path / "source"
        run("git", "clone", "--quiet", ROOT, source, cwd=tmp_path)
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, source, cwd=tmp_path)
        target = [str(next(tmp_path.glob("dexloop-*.whl")))]
    else:
        target = ["--no-build-isolation", "--editable", str(ROOT)]
    run("uv", "pip", "install", "--quiet", "--no-deps", "--python", python, *target, cwd=tmp_path)
    modules = "dexloop.hardware.twin.world, dexloop.datasets.writer, dexloop.collect.session"
    data = "from dexloop.deploy.planner import fitted, recognition; fitted.load(); recognition.load()"
    policy = "from dexloop.deploy.command import SHIPPED_POLICY as p; assert (p / 'model.safetensors').is_file(), p"
    code = f"import {modules}; {data}; {policy}; print(dexloop.__file__)"
    where = run(python, "-c", code, cwd=tmp_path).strip()
    assert (Path(where).parent == ROOT) == (kind == "editable")
    help_text = run(tmp_path / "venv" / "bin" / "dexloop", "--help", cwd=tmp_path)
    assert "collect" in help_text
    assert "replay" in help_text
