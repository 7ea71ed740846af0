"""Attention maps: what is averaged, where it lies on the pictures, and the command that draws it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from dexloop.datasets.writer import DatasetWriter
from dexloop.hardware.errors import BadInput
from dexloop.train.attention import Attention
from dexloop.train.attention_maps import Grid, attend, attention_maps, grids
from dexloop.train.attention_picture import density, spread
from dexloop.train.controller.checkpoint import save_controller
from dexloop.train.controller.config import (
    PUBLISHED,
    ControllerConfig,
    NetworkConfig,
    PaperEncoderConfig,
    SmallEncoderConfig,
    preset,
)
from dexloop.train.controller.dino import FrozenVits
from dexloop.train.controller.policy import Controller
from dexloop.train.views import View
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from .dataset_fixtures import DEPTH_SCHEMA, make_episode

NETWORK = NetworkConfig(width=32, layers=2, heads=2)
SMALL = replace(
    preset("small"),
    encoder=SmallEncoderConfig(head_size=(64, 48), window=32, wrist_size=(64, 48), points=16, crop=True),
    network=NETWORK,
)
PAPER = replace(
    PUBLISHED,
    encoder=PaperEncoderConfig(side=56, head_dim=64, wrist_dim=64, mask_layers=1, normalize_state=False),
    network=NETWORK,
    action=replace(PUBLISHED.action, horizon=8, tokens=8),
)


def controller(config: ControllerConfig) -> Controller:
    torch.manual_seed(0)
    made = Controller(config).eval()
    if isinstance(config.encoder, PaperEncoderConfig):
        made.encoder.use_frozen(FrozenVits.random(config.encoder, depth=1))
    for parameter in made.model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return made


def paper_batch(rows: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(rows, 56, 56, dtype=torch.bool)
    mask[:, 14:28, 28:49] = True  # one patch and a half
    pictures = {
        f"{view}.rgb": torch.randint(0, 256, (rows, 56, 56, 3), generator=generator, dtype=torch.uint8)
        for view in ("head", "wrist")
    }
    return {**pictures, "head.mask": mask, "state": torch.rand(rows, 13, generator=generator)}


def test_everything_is_counted_once() -> None:
    made, batch = controller(PAPER), paper_batch()
    noise = made.noise(torch.Generator().manual_seed(1), 2)
    whole = attend(made, batch, noise)
    torch.testing.assert_close(whole.weights.sum(1), torch.ones(2))
    torch.testing.assert_close(sum(whole.shares().values()), torch.ones(2))
    assert set(whole.shares()) == {"head", "wrist", "state", "time"}
    each = [attend(made, batch, noise, block=block).weights for block in range(2)]
    torch.testing.assert_close(whole.weights, (each[0] + each[1]) / 2)
    assert (each[0] - each[1]).abs().max() > 1e-3
    maps = attention_maps(made, batch, noise)
    assert {name: tuple(found.shape) for name, found in maps.items()} == {"head": (2, 4, 4), "wrist": (2, 4, 4)}
    torch.testing.assert_close(maps["wrist"][1, 2, 3], whole.weights[1, 16 + 2 * 4 + 3])


def test_the_chunk_is_sampled_as_when_acting(monkeypatch: pytest.MonkeyPatch) -> None:
    made, batch = controller(PAPER), paper_batch()
    noise = made.noise(torch.Generator().manual_seed(1), 2)
    expected = made.sample(batch, noise)
    found = []
    original = made.objective.sample
    monkeypatch.setattr(made.objective, "sample", lambda *args: found.append(original(*args)) or found[-1])
    attend(made, batch, noise)
    torch.testing.assert_close(made.space.decode(found[0], batch), expected, atol=1e-4, rtol=0)


def test_average_over_steps_and_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    made, batch = controller(PAPER), paper_batch()
    steps: list[float] = []

    def network(x: torch.Tensor, time: torch.Tensor, observed: object, attention: list[torch.Tensor]) -> torch.Tensor:
        steps.append(float(time[0]))
        for _ in made.model.blocks:  # at each step all of it goes to another patch of the head view
            weights = torch.zeros(2, NETWORK.heads, x.shape[1], made.encoder.tokens + 1)
            weights[..., len(steps) - 1] = 1
            attention.append(weights)
        return torch.zeros_like(x)

    monkeypatch.setattr(made.model, "forward", network)
    found = attend(made, batch, made.noise(torch.Generator(), 2), steps=4)
    expected = torch.zeros(2, 4, 4)
    expected[:, 0] = 0.25
    torch.testing.assert_close(found.maps()["head"], expected)
    assert len(steps) == 4


def test_share_on_the_target() -> None:
    made, batch = controller(PAPER), paper_batch()
    found = attend(made, batch, made.noise(torch.Generator().manual_seed(1), 2))
    assert set(found.on_target(batch)) == {"head"}
    attention, area = found.on_target(batch)["head"]
    head = found.maps()["head"]
    torch.testing.assert_close(area, torch.full((2,), 1.5 / 16))
    torch.testing.assert_close(attention, (head[:, 1, 2] + head[:, 1, 3] / 2) / head.sum((1, 2)))
    with pytest.raises(BadInput, match="no block 2: expected 0 to 1"):
        attend(made, batch, made.noise(torch.Generator(), 2), block=2)


def test_committed_commands_are_a_group_of_their_own() -> None:
    made = controller(replace(PAPER, action=replace(PAPER.action, delay_max=3)))
    found = attend(made, paper_batch(), made.noise(torch.Generator(), 2))
    shares = found.shares()
    assert list(shares)[-2:] == ["committed", "time"]
    assert (shares["committed"] == 0).all()  # none are committed here, so it is hidden
    torch.testing.assert_close(sum(shares.values()), torch.ones(2))


def test_which_groups_are_pictures() -> None:
    small = grids(controller(SMALL).encoder)
    assert set(small) == {"head", "wrist"}
    assert small["head"].view.name == "window"
    full = grids(Controller(replace(preset("small"), encoder=SmallEncoderConfig())).encoder)
    assert (full["head"].rows, full["head"].columns) == (3, 3)
    assert (full["wrist"].rows, full["wrist"].columns) == (2, 3)
    assert not grids(Controller(preset("small")).encoder)  # crop and wrist view are options
    blind = replace(SMALL, encoder=replace(SMALL.encoder, crop=False, wrist=False))
    assert grids(controller(blind).encoder) == {}


@given(st.integers(-50, 80), st.integers(-50, 60))
def test_a_window_lands_where_it_was_cut_out(x: int, y: int) -> None:
    grid = Grid(View("window", "head", 64, 48, window=32), 4, 4)
    heat = np.zeros((4, 4), np.float32)
    heat[1, 2] = 1
    found = spread(heat, grid, (x, y), (128, 96))  # a picture of twice the size
    reached = np.zeros((96, 128), bool)
    reached[max(2 * y, 0) : max(2 * y + 64, 0), max(2 * x, 0) : max(2 * x + 64, 0)] = True
    assert (np.isnan(found) == ~reached).all()
    at = (2 * y + 16 + 8, 2 * x + 32 + 8)  # middle of the place
    if 0 <= at[0] < 96 and 0 <= at[1] < 128:
        assert found[at] == np.nanmax(found) > 0.5


def test_a_whole_view_covers_its_picture() -> None:
    grid = Grid(View("wrist", "wrist", 56, 56), 2, 2)
    found = spread(density(np.array([[0.1, 0.1], [0.1, 0.5]])), grid, None, (64, 48))
    assert found.shape == (48, 64)
    assert np.isfinite(found).all()
    assert found[-1, -1] == pytest.approx(2.5)
    assert found[0, 0] == pytest.approx(0.5)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set with one episode of 12 rows, and a checkpoint of the small preset's kind."""
    folder = tmp_path_factory.mktemp("attention")
    writer = DatasetWriter(folder / "set", DEPTH_SCHEMA)
    writer.append(make_episode(3, rows=12, schema=DEPTH_SCHEMA))
    writer.close()
    save_controller(controller(SMALL), folder / "policy")
    return folder / "set", folder / "policy"


def test_a_picture_of_one_row(recorded: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = Attention(recorded[1], str(recorded[0]), row=7, out=tmp_path)
    assert command.run() == 0
    picture = np.asarray(Image.open(tmp_path / "attention_0_row_7.png"))
    assert picture.shape == (32 + 480 + 84, 2 * 640 + 96, 3)
    assert picture.std() > 10
    said = capsys.readouterr().out
    assert "target" in said
    assert "of its attention is on the target" in said
    assert Attention(recorded[1], str(recorded[0]), row=7, out=tmp_path / "again").run() == 0
    again = np.asarray(Image.open(tmp_path / "again" / "attention_0_row_7.png"))
    assert (again == picture).all()


def test_a_video_of_an_episode(recorded: tuple[Path, Path], tmp_path: Path) -> None:
    assert Attention(recorded[1], str(recorded[0]), every=5, out=tmp_path).run() == 0
    with av.open(str(tmp_path / "attention_0.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert float(stream.average_rate) == 4.0  # 20 Hz, every 5th
        assert len(list(container.decode(stream))) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["attention_0.mp4"]


@pytest.mark.parametrize("wrist", [True, False])
def test_a_controller_without_a_crop_shows_its_target(recorded: tuple[Path, Path], tmp_path: Path, wrist: bool) -> None:
    assert not grids(Controller(preset("small")).encoder)  # crop and wrist view are options
    blind = replace(SMALL, encoder=replace(SMALL.encoder, crop=False, wrist=wrist))
    save_controller(controller(blind), tmp_path / "policy")
    assert Attention(tmp_path / "policy", str(recorded[0]), row=2, out=tmp_path).run() == 0
    picture = np.asarray(Image.open(tmp_path / "attention_0_row_2.png"))
    assert picture.shape[1] == (1 + wrist) * 640 + 96
    assert picture[80:480, :640].std() > 10  # the head's picture, not a black one
    assert (picture == (90, 255, 120)).all(-1).any()


def test_what_cannot_be_drawn(recorded: tuple[Path, Path], tmp_path: Path) -> None:
    root, checkpoint = recorded
    save_controller(controller(replace(SMALL, robot_type="two_arms")), tmp_path / "stranger")
    for options, words in (
        ({"row": 12}, "row 12 does not exist: the episode has 0..11"),
        ({"every": 0}, "--every is 0"),
        ({"episode": "4"}, "episode 4 does not exist"),
        ({"checkpoint": tmp_path / "none"}, "does not exist: give a policy folder"),
        ({"checkpoint": root}, "holds no controller"),
        ({"dataset": str(tmp_path / "no_set")}, "there is no data set"),
        ({"row": 1, "block": 5}, "no block 5"),
        ({"checkpoint": tmp_path / "stranger"}, "set is of robot 'rm75_gor', the controller is for 'two_arms'"),
    ):
        settings = {"checkpoint": checkpoint, "dataset": str(root), "out": tmp_path / "out", **options}
        with pytest.raises(BadInput, match=words):
            Attention(**settings).run()
    assert not list(tmp_path.glob("out/*"))
