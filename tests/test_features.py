"""Frozen features on disk: what is read is what the encoder answers, whatever happened on the way."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from dexloop.datasets.reader import DatasetReader
from dexloop.datasets.writer import DatasetWriter
from dexloop.hardware.errors import BadInput, DatasetError, StorageError
from dexloop.train.controller.draws import Draws
from dexloop.train.features import cache_features
from dexloop.train.views import Observation, View, render
from safetensors import safe_open
from torch import nn

from .dataset_fixtures import SCHEMA, make_episode

SIDE = 28


@dataclass(frozen=True)
class EncoderConfig:
    jitter: tuple[float, float, float, float] = (0.3, 0.3, 0.3, 0.1)


class Encoder(nn.Module):
    """Two frozen linear maps of the pictures' 4 quarters; counts the rows that it was asked for."""

    @property
    def frozen(self) -> Encoder:
        return self

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.config = EncoderConfig()
        torch.manual_seed(seed)
        self.dino_head, self.dino_wrist = nn.Linear(SIDE * SIDE * 3 // 4, 6), nn.Linear(SIDE * SIDE * 3 // 4, 5)
        self.views = (View("head", "head", SIDE, SIDE, mask=True), View("wrist", "wrist", SIDE, SIDE))
        self.feature_shapes = {"head.features": (4, 6), "wrist.features": (4, 5)}
        self.asked = 0
        self.stop_after = 0

    def features(self, view: str, rgb: torch.Tensor, draws: Draws | None) -> torch.Tensor:
        assert rgb.dtype == torch.uint8
        self.asked += len(rgb)
        if 0 < self.stop_after <= self.asked:
            os.kill(os.getpid(), signal.SIGKILL)
        pictures = rgb.float() / 255
        if draws is not None:
            pictures = pictures * (0.7 + 0.6 * draws.uniform(1, 1, 1))
        return getattr(self, f"dino_{view}")(pictures.reshape(len(rgb), 4, -1))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded(tmp_path_factory.mktemp("recorded") / "set")


@pytest.fixture
def reader(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DatasetReader:
    monkeypatch.setenv("DEXLOOP_HOME", str(tmp_path / "home"))
    return DatasetReader(root)


def recorded(root: Path, seeds: tuple[int, ...] = (0, 1)) -> Path:
    with contextlib.closing(DatasetWriter(root, SCHEMA)) as writer:
        for seed in seeds:
            writer.append(make_episode(seed, rows=10 + seed))
    return root


def shards() -> list[Path]:
    return sorted(Path(os.environ["DEXLOOP_HOME"]).glob("cache/features/*/*.safetensors"))


def build(encoder: Encoder, reader: DatasetReader, copies: int = 2, **options: object):
    return cache_features(encoder, reader, copies, progress=False, rows_at_once=4, **options)


def test_copy_0_is_what_the_encoder_answers_and_others_are_jittered(reader: DatasetReader) -> None:
    encoder = Encoder()
    cache = build(encoder, reader)
    assert cache.shapes == encoder.feature_shapes
    import cv2

    rows = [7, 0, 7]
    frames = reader.frames(1, "observation.images.wrist")[rows]
    pictures = torch.from_numpy(np.stack([cv2.resize(f, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for f in frames]))
    with torch.no_grad():
        expected = encoder.features("wrist", pictures, None).numpy()
    found = cache.read(1, rows, 0)
    assert found["head.features"].dtype == np.float16
    np.testing.assert_allclose(found["wrist.features"], expected, atol=2e-3)
    assert np.abs(cache.read(1, rows, 1)["wrist.features"] - expected).max() > 0.02


def test_it_is_computed_once(reader: DatasetReader, tmp_path: Path) -> None:
    first = Encoder()
    before = build(first, reader).read(0, range(10), 1)
    assert first.asked == 2 * 2 * (10 + 11)
    again = Encoder()
    after = build(again, reader).read(0, range(10), 1)
    assert again.asked == 0
    assert all((before[name] == after[name]).all() for name in before)
    grown = DatasetReader(recorded(tmp_path / "grown", (0, 1, 2)))  # shares its first episodes
    cache_features(again, grown, 2, progress=False, rows_at_once=4)
    assert again.asked == 2 * 2 * 12


def test_other_weights_are_another_cache(reader: DatasetReader) -> None:
    build(Encoder(), reader, copies=1)
    other = Encoder(seed=1)
    build(other, reader, copies=1)
    assert other.asked == 2 * 21


def test_files_are_safetensors(reader: DatasetReader) -> None:
    cache = build(Encoder(), reader, copies=1, episodes=[1])
    with safe_open(shards()[0], "np") as file:
        found = file.get_tensor("head.features")
    assert (found == cache.read(1, range(11), 0)["head.features"]).all()


def test_killed_while_building(reader: DatasetReader) -> None:
    code = (
        "from pathlib import Path; from dexloop.datasets.reader import DatasetReader\n"
        "from dexloop.tests.test_features import Encoder, build\n"
        f"encoder = Encoder(); encoder.stop_after = 30; build(encoder, DatasetReader(Path({str(reader.root)!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(shards()) == 1  # whole; the one under way is not there under its name
    encoder = Encoder()
    cache = build(encoder, reader)
    assert encoder.asked == 2 * 2 * 21 - 2 * 10
    assert np.isfinite(cache.read(1, range(11), 1)["head.features"]).all()
    assert not list(shards()[0].parent.glob(".*.tmp"))


def test_damage_is_found_and_left(reader: DatasetReader) -> None:
    build(Encoder(), reader, copies=1)
    path = shards()[0]
    whole = path.read_bytes()
    for broken in (whole[:-5], b"", whole[:100], whole[:30] + b"x" + whole[31:]):
        path.write_bytes(broken)
        with pytest.raises(DatasetError, match=f"{path.name}.*delete that file"):
            build(Encoder(), reader, copies=1)
        assert path.read_bytes() == broken
    flipped = bytearray(whole)
    flipped[4096 + 3] ^= 1
    path.write_bytes(flipped)
    cache = build(Encoder(), reader, copies=1)
    with pytest.raises(DatasetError, match="row 0 has another checksum"):
        cache.read(0, [0], 0), cache.read(1, [0], 0)
    path.unlink()
    encoder = Encoder()
    build(encoder, reader, copies=1)
    assert encoder.asked in (20, 22)  # that shard alone


def test_a_full_disk_is_told_before(reader: DatasetReader, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 1000))
    encoder = Encoder()
    with pytest.raises(StorageError, match="frozen features need 0.0 GB"):
        build(encoder, reader)
    assert encoder.asked == 0


def test_what_cannot_be(reader: DatasetReader) -> None:
    with pytest.raises(BadInput, match="0 copies"):
        build(Encoder(), reader, copies=0)
    cache = build(Encoder(), reader, copies=1, episodes=[0])
    for episode, copy in ((1, 0), (0, 1)):
        with pytest.raises(BadInput, match=f"episode {episode}, copy {copy}"):
            cache.read(episode, [0], copy)
    wild = Encoder()
    nn.init.constant_(wild.dino_head.weight, 1e6)
    with pytest.raises(BadInput, match="float16"):
        build(wild, reader, copies=1)
    assert len(shards()) == 1


def test_the_real_encoder_reads_its_own_features(reader: DatasetReader) -> None:
    from dexloop.train.controller.config import PaperEncoderConfig
    from dexloop.train.controller.dino import FrozenVits
    from dexloop.train.controller.paper import PaperEncoder

    config = PaperEncoderConfig(side=SIDE, head_dim=64, wrist_dim=128, mask_layers=1)
    encoder = PaperEncoder(config, 32)
    torch.manual_seed(0)
    encoder.use_frozen(FrozenVits.random(config, depth=1))
    cache = cache_features(encoder, reader, 2, progress=False)
    view = encoder.views[0]
    frame = reader.frames(0, "observation.images.head", [3])[0]
    seen = render(view, Observation(np.zeros(13), {"head": frame}, {}, np.zeros(frame.shape[:2], bool)))
    expected = encoder.frozen.features("head", torch.from_numpy(seen["head.rgb"])[None], None).numpy()
    found = cache.read(0, [3], 0)["head.features"]
    np.testing.assert_allclose(found, expected, atol=1e-2, rtol=1e-3)
    assert np.abs(cache.read(0, [3], 1)["head.features"] - expected).max() > 0.05
    encoder.use_frozen(FrozenVits.random(config, depth=1))  # of other weights: cached features do not need them
    batch = {name: torch.from_numpy(array) for name, array in cache.read(0, [3], 0).items()}
    batch |= {"head.mask": torch.zeros(1, SIDE, SIDE, dtype=torch.bool), "state": torch.zeros(1, 13)}
    prepared = encoder.prepare(batch, None)
    np.testing.assert_allclose(prepared["head.features"].numpy(), expected, atol=1e-2, rtol=1e-3)
