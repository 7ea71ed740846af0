"""DexGraspVLA's zarr layout: what is written is what its code reads, and an import gives it back without inventions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from dexloop.datasets import rle
from dexloop.datasets.check import run_check
from dexloop.datasets.reader import DatasetReader
from dexloop.datasets.writer import DatasetWriter
from dexloop.datasets.zarr_format import ZarrConvention, export_zarr, import_zarr, scale_arm, unscale_arm
from dexloop.hardware.description import ARM_JOINTS, HAND_MOTORS, RIG_LIMITS_RAD
from dexloop.hardware.errors import BadInput
from dexloop.tests.dataset_fixtures import SCHEMA, make_episode
from hypothesis import given
from hypothesis import strategies as st

HEAD, WRIST = "observation.images.head", "observation.images.wrist"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "set"
    with DatasetWriter(root, SCHEMA) as writer:
        for i in range(2):
            writer.append(make_episode(i, 5 + i))
    return root


@given(st.lists(st.floats(-7, 7, width=32), min_size=13, max_size=13))
def test_scaling_has_an_inverse(values: list[float]) -> None:
    row = np.array([values], np.float32)
    assert np.allclose(unscale_arm(scale_arm(row)), row, atol=1e-6)


def test_export_is_of_the_published_layout(root: Path, tmp_path: Path) -> None:
    assert export_zarr(root, tmp_path / "out.zarr") == 11
    assert json.loads((tmp_path / "out.zarr/data/action/.zarray").read_text())["zarr_format"] == 2
    group = zarr.open_group(str(tmp_path / "out.zarr"), mode="r")
    shapes = {name: array.shape for name, array in group["data"].arrays()}
    assert shapes == {
        "action": (11, 13),
        "right_state": (11, 13),
        "rgbm": (11, 48, 64, 4),
        "right_cam_img": (11, 48, 64, 3),
    }
    assert group["meta/episode_ends"][:].tolist() == [5, 11]
    reader = DatasetReader(root)
    second = reader.episode(1)
    limits = np.array(RIG_LIMITS_RAD)
    assert np.allclose(group["data/action"][5:, :7] * limits, second.columns["action"][:, :7], atol=1e-5)
    assert np.array_equal(group["data/right_state"][5:, 7:], second.columns["observation.state"][:, 7:])
    rgbm = group["data/rgbm"][5:]
    assert np.array_equal(rgbm[..., 2::-1], reader.frames(1, HEAD))  # BGR
    assert np.array_equal(rgbm[..., 3].astype(bool), reader.masks(1))
    assert set(np.unique(rgbm[..., 3])) == {0, 1}
    assert np.array_equal(group["data/right_cam_img"][5:][..., ::-1], reader.frames(1, WRIST))


def test_round_trip(root: Path, tmp_path: Path) -> None:
    export_zarr(root, tmp_path / "out.zarr")
    assert import_zarr(tmp_path / "out.zarr", tmp_path / "back", "grasp it") == 2
    report = run_check(tmp_path / "back", deep=True)
    assert report.findings == (), str(report)
    sent, back = DatasetReader(root), DatasetReader(tmp_path / "back")
    for i in range(2):
        for key in ("action", "observation.state"):
            assert np.allclose(back.episode(i).columns[key], sent.episode(i).columns[key], atol=1e-6)
        assert np.array_equal(back.episode(i).columns["mask.head"], sent.episode(i).columns["mask.head"])
        for key in (HEAD, WRIST):  # encoded a second time
            difference = back.frames(i, key).astype(int) - sent.frames(i, key).astype(int)
            assert np.abs(difference).mean() < 4
    info = back.meta(0).info
    assert info.task == "grasp it"
    assert info.success is None


def test_an_import_makes_nothing_up(root: Path, tmp_path: Path) -> None:
    export_zarr(root, tmp_path / "out.zarr")
    import_zarr(tmp_path / "out.zarr", tmp_path / "back", "grasp it")
    reader = DatasetReader(tmp_path / "back")
    assert not reader.schema.measured
    columns = set(reader.episode(0).columns)
    assert not {key for key in columns if key.startswith(("timing.", "sensor.", "safety.", "command."))}
    assert set(reader.episode(0).columns["label.success"]) == {-1}
    with pytest.raises(BadInput, match="another schema: measured is"):  # recorded and imported rows do not mix
        DatasetWriter(tmp_path / "back", SCHEMA)


def test_other_conventions_are_declared(root: Path, tmp_path: Path) -> None:
    export_zarr(root, tmp_path / "out.zarr")
    group = zarr.open_group(str(tmp_path / "out.zarr"), mode="r+")
    turned = (*HAND_MOTORS, *ARM_JOINTS)
    for name in ("action", "right_state"):
        values = unscale_arm(group[f"data/{name}"][:])
        group[f"data/{name}"][:] = np.concatenate([1 - values[:, 7:], values[:, :7]], 1)
    convention = ZarrConvention(turned, "rad", open_value=0.0, colour="RGB")
    import_zarr(tmp_path / "out.zarr", tmp_path / "back", "grasp it", convention)
    sent, back = DatasetReader(root), DatasetReader(tmp_path / "back")
    assert np.allclose(back.episode(1).columns["action"], sent.episode(1).columns["action"], atol=1e-6)
    assert np.abs(back.frames(0, HEAD)[..., ::-1].astype(int) - sent.frames(0, HEAD)).mean() < 4
    with pytest.raises(BadInput, match="in the order of the file"):
        ZarrConvention(joints=("a",) * 13)


def test_bad_input_is_said_and_nothing_is_written(root: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(BadInput, match="exists already"):
        export_zarr(root, tmp_path / "there")
    with pytest.raises(BadInput, match="no zarr folder"):
        import_zarr(tmp_path / "none", tmp_path / "new", "grasp it")
    with pytest.raises(BadInput, match="not of DexGraspVLA's layout"):
        import_zarr(tmp_path / "there", tmp_path / "new", "grasp it")
    export_zarr(root, tmp_path / "out.zarr")
    with pytest.raises(BadInput, match="exists already"):
        import_zarr(tmp_path / "out.zarr", root, "grasp it")
    group = zarr.open_group(str(tmp_path / "out.zarr"), mode="r+")
    group["meta/episode_ends"][:] = [9, 5]
    with pytest.raises(BadInput, match="rising ends"):
        import_zarr(tmp_path / "out.zarr", tmp_path / "new", "grasp it")
    assert not (tmp_path / "new").exists()
    assert rle.area(DatasetReader(root).episode(0).columns["mask.head"][0]) > 0
