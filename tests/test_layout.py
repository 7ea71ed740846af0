"""The architecture that the folders promise: who imports whom, and that nothing shadows anything."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("hardware", "retarget", "datasets", "collect", "train", "deploy")
HARDWARE_VALUES = {
    "values", "interfaces", "geometry", "clock", "description", "rig", "kinematics", "hand_kinematics", "errors",
}  # fmt: skip
MAY_SEE = {
    "hardware": {"hardware"},
    "retarget": {"retarget", "hardware"},
    "datasets": {"datasets", "hardware"},
    "collect": {"collect", "hardware", "retarget", "datasets", "train"},
    "train": {"train", "datasets", "hardware"},
    "deploy": {"deploy", "hardware", "datasets", "train"},
}


def modules() -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def own_imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted path from the package root) of every import of our own code, relative ones resolved."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = ".".join((*package[: len(package) - node.level + 1], *(node.module or "").split("."))).strip(".")
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, str(node.module)
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_layers(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    for line, name in own_imports(path):
        top, *rest = name.split(".")
        if top == "dexloop":
            pytest.fail(f"{path}:{line} imports {name} by its absolute name: import it relatively")
        if top not in FOLDERS or (top == "datasets" and not rest):
            continue
        assert top in MAY_SEE[folder], f"{path}:{line}: {folder} may not see {name}"
        if folder in ("retarget", "datasets") and top == "hardware":
            assert rest[0] in HARDWARE_VALUES, f"{path}:{line}: {folder} sees only hardware's values, not {name}"


def test_datasets_is_a_namespace_subpackage() -> None:
    assert not (ROOT / "datasets" / "__init__.py").exists()


def test_bare_datasets_is_hugging_faces_under_cli() -> None:
    code = "import sys; sys.path[0] = {root!r}; import datasets; print(datasets.__file__, hasattr(datasets, 'Dataset'))"
    result = subprocess.run(
        [sys.executable, "-c", code.format(root=str(ROOT))], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "site-packages" in result.stdout
    assert result.stdout.strip().endswith("True")


def test_every_package_is_in_the_wheel() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {"dexloop"} | {
        "dexloop." + ".".join(path.relative_to(ROOT).parent.parts) for path in modules() if path.name != "__init__.py"
    }
    assert found <= listed


def test_hardware_outside_the_twin_does_not_need_mujoco() -> None:
    for path in (ROOT / "hardware").glob("*.py"):
        assert all(name.split(".")[0] != "mujoco" for _, name in own_imports(path)), path
