"""Video: packets that decode by themselves, exact depth, files that LeRobot reads frame by frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dexloop.benchmarks.synthetic_rig import draw_frames
from dexloop.datasets.episode import EncodedVideo
from dexloop.datasets.video import (
    DEPTH_COUNTS_MAX,
    ColourConfig,
    ColourEncoder,
    DepthEncoder,
    StatsSampler,
    StreamFormat,
    count_frames,
    decode,
    depth_counts,
    mux,
)
from dexloop.hardware.errors import BadInput, DatasetError
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

WIDTH, HEIGHT, RATE = 64, 48, 20


def encoded(pictures: list[np.ndarray], width: int = WIDTH, height: int = HEIGHT) -> EncodedVideo:
    encoder = ColourEncoder(width, height, 30.0)
    return video(encoder.format, [encoder.encode(picture) for picture in pictures])


def video(stream: StreamFormat, packets: list[bytes]) -> EncodedVideo:
    return EncodedVideo(
        stream.codec,
        stream.pix_fmt,
        stream.width,
        stream.height,
        stream.extradata,
        tuple(packets),
        stream.is_depth,
        stream.depth_unit_m,
    )


PICTURES = draw_frames(12, WIDTH, HEIGHT)
VIDEO = encoded(PICTURES)
DECODED = list(decode(VIDEO.packets, VIDEO))


def test_quality_is_good_at_full_size() -> None:
    pictures = draw_frames(10)  # with a sensor's noise
    full = encoded(pictures, 640, 480)
    luma = np.array([0.299, 0.587, 0.114])
    for shown, picture in zip(decode(full.packets, full), pictures, strict=True):
        assert 10 * np.log10(255**2 / np.mean((shown @ luma - picture @ luma) ** 2)) > 35.0  # dB
    assert np.mean([len(packet) for packet in full.packets]) < 30_000


@given(st.lists(st.integers(0, len(PICTURES) - 1), min_size=1, max_size=20))
def test_any_choice_of_packets_decodes_to_the_same_pictures(choice: list[int]) -> None:
    for index, picture in zip(choice, decode([VIDEO.packets[i] for i in choice], VIDEO), strict=True):
        np.testing.assert_array_equal(picture, DECODED[index])


@given(st.lists(st.integers(0, len(PICTURES) - 1), min_size=1, max_size=6))
def test_mux_keeps_every_frame(tmp_path_factory: pytest.TempPathFactory, choice: list[int]) -> None:
    path = tmp_path_factory.mktemp("mux") / "video.mp4"
    chosen = video(ColourEncoder(WIDTH, HEIGHT, 30.0).format, [VIDEO.packets[i] for i in choice])
    assert mux(chosen, RATE, path) == len(choice) == count_frames(path)


def test_lerobot_reads_the_exact_frame_with_both_backends(tmp_path: Path) -> None:
    reader = pytest.importorskip("lerobot.datasets.video_utils")
    path = tmp_path / "video.mp4"
    mux(VIDEO, RATE, path)
    rows = [0, 1, 5, 11]
    for backend in ("pyav", "torchcodec"):
        shown = reader.decode_video_frames(path, [row / RATE for row in rows], 1e-4, backend, return_uint8=True)
        for row, picture in zip(rows, shown, strict=True):
            ours = DECODED[row].astype(int)
            assert np.abs(picture.permute(1, 2, 0).numpy().astype(int) - ours).mean() < 1.0  # other YUV rounding
            others = [np.abs(DECODED[i].astype(int) - ours).mean() for i in range(12) if i != row]
            assert min(others) > 1.0  # or this would not tell frames apart


def test_depth_is_exact_for_every_count_and_in_lerobot(tmp_path: Path) -> None:
    counts = np.arange(WIDTH * HEIGHT * 2, dtype=np.uint16).reshape(2, HEIGHT, WIDTH) % (DEPTH_COUNTS_MAX + 1)
    assert {0, DEPTH_COUNTS_MAX} <= set(counts.ravel().tolist())
    encoder = DepthEncoder(WIDTH, HEIGHT, 30.0, 0.001)
    depth = video(encoder.format, [encoder.encode(frame) for frame in counts])
    np.testing.assert_array_equal(np.stack(list(decode(depth.packets, depth))), counts)

    path = tmp_path / "depth.mp4"
    mux(depth, RATE, path)
    video_utils = pytest.importorskip("lerobot.datasets.video_utils")
    from lerobot.datasets.depth_utils import dequantize_depth

    codes = video_utils.decode_video_frames(path, [0.0, 1 / RATE], 1e-4, is_depth=True)
    millimetres = dequantize_depth(codes, 0.0, DEPTH_COUNTS_MAX * 0.001, use_log=False, output_unit="mm")
    np.testing.assert_array_equal(millimetres.numpy()[:, 0], counts)


@given(arrays(np.float32, (4, 4), elements=st.floats(-1, 50, width=32)), st.sampled_from([0.001, 0.0001]))
def test_depth_counts_are_exact_or_invalid(depth_m: np.ndarray, unit_m: float) -> None:
    counts, beyond = depth_counts(depth_m, unit_m)
    held = counts > 0
    np.testing.assert_allclose(counts[held] * unit_m, depth_m[held], atol=0.5001 * unit_m)
    assert beyond == np.count_nonzero(depth_m > (DEPTH_COUNTS_MAX + 0.5) * unit_m * (1 + 1e-6)) or beyond > 0
    np.testing.assert_array_equal(counts[depth_m > (DEPTH_COUNTS_MAX + 1) * unit_m], 0)
    np.testing.assert_array_equal(counts[depth_m <= 0], 0)


def test_depth_that_is_not_a_number_is_invalid() -> None:
    counts, beyond = depth_counts(np.array([[np.nan, np.inf, 0.0, 1.0]], np.float32), 0.001)
    assert counts.tolist() == [[0, 0, 0, 1000]]
    assert beyond == 1


@pytest.mark.parametrize("unit_m", [0.001, 0.0001])
def test_a_cameras_own_counts_survive_metres(unit_m: float) -> None:
    given_counts = np.arange(DEPTH_COUNTS_MAX + 1, dtype=np.uint16)[None]
    counts, beyond = depth_counts((given_counts * np.float32(unit_m)).astype(np.float32), unit_m)
    np.testing.assert_array_equal(counts, given_counts)
    assert beyond == 0


def test_wrong_pictures_are_refused_by_name() -> None:
    with pytest.raises(BadInput, match="even"):
        ColourEncoder(641, 480, 30.0)
    with pytest.raises(BadInput, match=r"\(48, 64, 3\)"):
        ColourEncoder(WIDTH, HEIGHT, 30.0).encode(np.zeros((HEIGHT, WIDTH), np.uint8))  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="uint16"):
        DepthEncoder(WIDTH, HEIGHT, 30.0, 0.001).encode(np.zeros((HEIGHT, WIDTH), np.float32))  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="unit"):
        DepthEncoder(WIDTH, HEIGHT, 30.0, 1.0)
    with pytest.raises(BadInput, match="crf"):
        ColourConfig(crf=99)


def test_damage_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no frame"):
        mux(video(ColourEncoder(WIDTH, HEIGHT, 30.0).format, []), RATE, tmp_path / "empty.mp4")
    half = VIDEO.packets[1][: len(VIDEO.packets[1]) // 2]
    for packet in (b"\0\0\0\1\x65nonsense", b"no packet at all", half):
        with pytest.raises(DatasetError, match="stream"):
            list(decode([VIDEO.packets[0], packet, VIDEO.packets[1]], VIDEO))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    with pytest.raises(DatasetError, match="broken.mp4"):
        count_frames(broken)


@given(st.integers(1, 700), st.integers(1, 20))
def test_statistics_pictures_are_bounded_and_evenly_spread(count: int, keep: int) -> None:
    sampler = StatsSampler(keep)
    for index in range(count):
        sampler.add(np.full((4, 4), index % 65536, np.uint16))
    pictures = sampler.pictures()
    assert pictures is not None
    shown = pictures[:, 0, 0, 0].tolist()
    assert len(shown) <= max(1, 2 * keep)
    assert len(shown) >= min(count, keep)
    assert len(set(np.diff(shown).tolist())) <= 1
    assert shown[0] == 0


def test_statistics_pictures_are_small() -> None:
    sampler = StatsSampler()
    sampler.add(np.zeros((480, 640, 3), np.uint8))
    pictures = sampler.pictures()
    assert pictures is not None
    assert pictures.shape == (1, 120, 160, 3)
    assert StatsSampler().pictures() is None
