"""Cutie and SAM 2 as options: what a user is told while a package, a checkpoint or a GPU is missing."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from dexloop.deploy.masks.learned import SAM2_CONFIGS, MaskConfig, make_tracker
from dexloop.deploy.masks.tracker import RigidTracker
from dexloop.hardware.errors import BadInput

ABSENT = {"cutie": importlib.util.find_spec("cutie") is None, "sam2": importlib.util.find_spec("sam2") is None}


def test_without_a_choice_no_weights_are_needed() -> None:
    assert isinstance(make_tracker(MaskConfig()), RigidTracker)


@pytest.mark.parametrize(("backend", "file"), [("cutie", "cutie-base-mega.pth"), ("sam2", "sam2.1_hiera_small.pt")])
def test_a_missing_checkpoint_is_named(backend: str, file: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=file):
        make_tracker(MaskConfig(backend=backend))  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="does not exist"):
        make_tracker(MaskConfig(backend=backend, checkpoint=tmp_path / file))  # type: ignore[arg-type]


@pytest.mark.parametrize(("backend", "package"), [("cutie", "rf-cutie"), ("sam2", "sam2")])
def test_a_missing_package_is_named(backend: str, package: str, tmp_path: Path) -> None:
    if not ABSENT[backend]:
        pytest.skip(f"{package} is installed")
    file = tmp_path / f"{next(iter(SAM2_CONFIGS))}.pt"
    file.write_bytes(b"0")
    with pytest.raises(BadInput, match=f"uv pip install {package}"):
        make_tracker(MaskConfig(backend=backend, checkpoint=file))  # type: ignore[arg-type]


def test_sam2_needs_a_name_that_says_the_network(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    file.write_bytes(b"0")
    with pytest.raises(BadInput, match=r"sam2\.1_hiera_tiny\.pt"):
        make_tracker(MaskConfig(backend="sam2", checkpoint=file))


def test_choices_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no weights"):
        MaskConfig(checkpoint=tmp_path)
    with pytest.raises(BadInput, match="unknown"):
        MaskConfig(backend="magic")  # type: ignore[arg-type]
