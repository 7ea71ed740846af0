"""Looking at an episode: the pictures are there, and they are the episode's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dexloop.datasets.reader import DatasetReader
from dexloop.datasets.view import contact_sheet, row_seconds, save_rrd
from dexloop.datasets.writer import DatasetWriter
from dexloop.hardware.errors import BadInput
from dexloop.tests.dataset_fixtures import DEPTH_SCHEMA, SCHEMA, make_episode
from PIL import Image


@pytest.mark.parametrize("schema", [DEPTH_SCHEMA, replace(SCHEMA, measured=False)])
def test_contact_sheet_and_recording(tmp_path: Path, schema: object) -> None:
    with DatasetWriter(tmp_path / "set", schema) as writer:  # type: ignore[arg-type]
        writer.append(make_episode(3, 12, schema, success=False))  # type: ignore[arg-type]
    reader = DatasetReader(tmp_path / "set")
    sheet = np.asarray(Image.open(contact_sheet(reader, 0, tmp_path / "out/sheet.png")).convert("RGB")).astype(int)
    assert sheet.shape[1] == 1800
    top, bottom = sheet[: len(sheet) // 2], sheet[len(sheet) // 2 :]
    red = top - np.array([255, 64, 26])
    assert (np.abs(red).sum(-1) < 60).sum() > 50, "the target's outline"
    assert (bottom != 255).any(-1).mean() > 0.005, "plots"
    rrd = save_rrd(reader, 0, tmp_path / "out/episode.rrd")
    assert rrd.read_bytes()[:4] in (b"RRF2", b"RRF3")
    assert rrd.stat().st_size > 10_000
    with pytest.raises(BadInput, match="does not exist"):
        contact_sheet(reader, 1, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_the_time_axis_is_the_recorded_one(tmp_path: Path) -> None:
    episode = make_episode(0, 6)
    columns = dict(episode.columns)
    late = np.array([0, 0, 0, 1, 1, 1]) * 500_000_000  # a pause in the middle
    for key in list(columns):
        if key.startswith("timing.") and key not in ("timing.skew_ns", "timing.latency_ns"):
            columns[key] = columns[key] + late
    with DatasetWriter(tmp_path / "set", SCHEMA) as writer:
        writer.append(replace(episode, columns=columns))
    seconds = row_seconds(DatasetReader(tmp_path / "set").episode(0), 20)
    assert np.allclose(np.diff(seconds), [0.05, 0.05, 0.55, 0.05, 0.05])
