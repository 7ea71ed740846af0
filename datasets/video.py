"""Video as the recorder needs it: every frame encoded once, at capture, into a packet that decodes by itself.

Colour is all-intra H.264 (``yuv420p``), depth all-intra lossless HEVC (``gray12le``). Because no packet refers to
another, choosing frames for a data set's rate is choosing packets, saving is a remux, and a recording that was cut
off loses its tail and nothing else. LeRobot's readers (pyav and torchcodec) decode what :func:`mux` writes.
See ``docs/decisions/40-all-intra-video.md`` and ``41-exact-depth.md``.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from ..hardware.errors import BadInput, DatasetError
from .episode import EncodedVideo

# 12 bits a pixel: the most that LeRobot's depth reader takes (gray12le).
DEPTH_COUNTS_MAX = 4095
# The raw stream format in which a codec's packets are probed before a remux.
_ELEMENTARY_FORMAT = {"h264": "h264", "hevc": "hevc"}


@dataclass(frozen=True)
class ColourConfig:
    """How colour frames are encoded."""

    crf: int = 24
    """Quality: lower is better and larger. 24 gives about 41 dB (luma) and 11 kB for a 640x480 picture of the rig."""
    preset: str = "ultrafast"
    """x264 preset. All-intra, slower presets cost twice the CPU and save a few per cent of space."""

    def __post_init__(self) -> None:
        if not 0 <= self.crf <= 51:
            raise BadInput(f"crf is {self.crf}; H.264 has 0 (best) to 51: choose 18 to 30")


@dataclass(frozen=True)
class StreamFormat:
    """What a reader must know of a stream of packets."""

    codec: str  # "h264" or "hevc"
    pix_fmt: str
    width: int
    height: int
    extradata: bytes  # parameter sets, Annex B
    is_depth: bool = False
    depth_unit_m: float = 0.0  # metres per count, depth only


class _Encoder:
    """One codec context that gives exactly one packet per frame, at once."""

    def __init__(self, library: str, width: int, height: int, pix_fmt: str, rate_hz: float, options: dict[str, str]):
        if width % 2 or height % 2 or width <= 0 or height <= 0:
            raise BadInput(f"a picture of {width}x{height} cannot be encoded: width and height must be even")
        rate = Fraction(rate_hz).limit_denominator(1001)
        context = av.CodecContext.create(library, "w")
        context.width, context.height, context.pix_fmt = width, height, pix_fmt
        context.time_base, context.framerate = 1 / rate, rate
        # One thread per camera: the cameras are the parallelism, and frame threads would delay packets.
        context.thread_count = 1
        context.options = options
        # Parameter sets go to extradata once instead of into every packet.
        context.flags |= av.codec.context.Flags.global_header
        context.open()
        self._context = context
        self._count = 0
        self.width, self.height, self.pix_fmt = width, height, pix_fmt
        self.extradata = bytes(context.extradata or b"")

    def _packet(self, frame: av.VideoFrame) -> bytes:
        frame.pts = self._count
        self._count += 1
        packets = self._context.encode(frame)
        if len(packets) != 1 or not packets[0].is_keyframe:
            raise DatasetError(
                f"the {self._context.codec.name} encoder gave {len(packets)} packets for frame {self._count - 1} where "
                "one key frame was expected: install the FFmpeg build that PyAV brings"
            )
        return bytes(packets[0])


class ColourEncoder(_Encoder):
    """(H, W, 3) uint8 RGB -> one H.264 packet per frame."""

    codec = "h264"

    def __init__(self, width: int, height: int, rate_hz: float, config: ColourConfig | None = None) -> None:
        config = config or ColourConfig()
        options = {"preset": config.preset, "crf": str(config.crf), "g": "1", "tune": "zerolatency"}
        super().__init__("libx264", width, height, "yuv420p", rate_hz, options)

    @property
    def format(self) -> StreamFormat:
        return StreamFormat(self.codec, self.pix_fmt, self.width, self.height, self.extradata)

    def encode(self, rgb: NDArray[np.uint8]) -> bytes:
        """The packet of one frame, (H, W, 3) uint8. Raises BadInput where the picture has another size."""
        if rgb.shape != (self.height, self.width, 3) or rgb.dtype != np.uint8:
            raise BadInput(
                f"a frame is {rgb.shape} {rgb.dtype}; this stream was opened for ({self.height}, {self.width}, 3) uint8"
            )
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        return self._packet(frame.reformat(format="yuv420p"))


class DepthEncoder(_Encoder):
    """(H, W) depth -> one lossless HEVC packet per frame, in counts of ``unit_m``; 0 = invalid stays 0."""

    codec = "hevc"

    def __init__(self, width: int, height: int, rate_hz: float, unit_m: float) -> None:
        if not 0.0 < unit_m <= 0.01:
            raise BadInput(f"depth unit is {unit_m} m; expected a camera's, such as 0.001 (D435) or 0.0001 (D405)")
        # Coding units of one size: the search over sizes would cost 40 % of the time and save nothing.
        params = "lossless=1:keyint=1:bframes=0:rc-lookahead=0:frame-threads=1:pools=none:ctu=16:min-cu-size=16:rd=1"
        options = {
            "preset": "ultrafast",
            "tune": "zerolatency",
            "x265-params": params + ":aq-mode=0:psy-rd=0:log-level=none",
        }
        super().__init__("libx265", width, height, "gray12le", rate_hz, options)
        self.unit_m = unit_m

    @property
    def format(self) -> StreamFormat:
        return StreamFormat(self.codec, self.pix_fmt, self.width, self.height, self.extradata, True, self.unit_m)

    def encode(self, counts: NDArray[np.uint16]) -> bytes:
        """The packet of one frame of counts, (H, W) uint16 in 0..4095 (see :func:`depth_counts`)."""
        if counts.shape != (self.height, self.width) or counts.dtype != np.uint16:
            raise BadInput(
                f"a depth frame is {counts.shape} {counts.dtype}; expected ({self.height}, {self.width}) uint16"
            )
        frame = av.VideoFrame(self.width, self.height, "gray12le")
        plane = frame.planes[0]
        # Rows of a plane are padded: copy by its own stride.
        rows = np.frombuffer(plane, np.uint16).reshape(self.height, plane.line_size // 2)
        rows[:, : self.width] = counts
        return self._packet(frame)


def depth_counts(depth_m: NDArray[np.float32], unit_m: float) -> tuple[NDArray[np.uint16], int]:
    """Metric depth -> counts of ``unit_m``, and how many valid pixels lay beyond the range.

    Exact for what a camera with that unit gives within ``4095 * unit_m``. Beyond it, and where the depth is not
    finite or not positive, the count is 0, which means invalid: a wrong distance would be worse than none.
    """
    with np.errstate(invalid="ignore"):
        scaled = np.rint(depth_m * np.float32(1.0 / unit_m))
        valid = scaled > 0  # False for NaN
        beyond = scaled > DEPTH_COUNTS_MAX
        counts = np.where(valid & ~beyond, scaled, 0).astype(np.uint16)
    return counts, int(np.count_nonzero(beyond))


def mux(video: EncodedVideo, rate_hz: float, path: Path) -> int:
    """Write packets as an mp4 with frame k at k / rate_hz exactly; the number of frames written.

    Nothing is decoded or encoded. Raises DatasetError where the packets are not of the codec that they claim.
    """
    if not video.packets:
        raise DatasetError(f"no frame to write to {path.name}: record at least one row")
    rate = Fraction(rate_hz).limit_denominator(1001)
    with (
        av.open(_probe_sample(video), format=_ELEMENTARY_FORMAT[video.codec]) as probe,
        av.open(str(path), "w", format="mp4") as container,
    ):
        source = probe.streams.video[0]
        if (source.codec_context.width, source.codec_context.height) != (video.width, video.height):
            raise DatasetError(
                f"packets for {path.name} are {source.codec_context.width}x{source.codec_context.height}, "
                f"not {video.width}x{video.height} as their stream says: record the episode again"
            )
        stream = container.add_stream_from_template(source, opaque=True)
        stream.time_base = 1 / rate
        for index, data in enumerate(video.packets):
            packet = av.Packet(data)
            packet.stream = stream
            packet.pts = packet.dts = index
            packet.duration = 1
            packet.time_base = 1 / rate
            packet.is_keyframe = True
            container.mux(packet)
    return len(video.packets)


def _probe_sample(video: EncodedVideo) -> io.BytesIO:
    # Two frames, because some probes of a raw stream wait for the start of the second.
    return io.BytesIO(video.extradata + video.packets[0] + video.packets[min(1, len(video.packets) - 1)])


def count_frames(path: Path) -> int:
    """Number of packets in a video file, by reading it through (not from its header)."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            return sum(1 for packet in container.demux(stream) if packet.size > 0)
    except (av.FFmpegError, IndexError, OSError) as error:
        raise DatasetError(f"{path} is not a readable video ({error}): run `dataset repair`") from error


def decode(packets: Sequence[bytes], stream: StreamFormat | EncodedVideo) -> Iterator[NDArray[np.generic]]:
    """Pictures of packets, in order: (H, W, 3) uint8 RGB, or (H, W) uint16 counts for depth.

    Every packet decodes by itself, so any choice of packets may be given. Raises DatasetError on a broken packet.
    """
    context = av.CodecContext.create(stream.codec, "r")
    context.extradata = stream.extradata
    context.thread_count = 1
    # Without it a decoder hides damage behind the picture before.
    context.options = {"err_detect": "explode"}
    pixel_format = "gray12le" if stream.is_depth else "rgb24"
    given = 0
    try:
        for data in (*packets, None):
            frames = context.decode(av.Packet(data) if data is not None else None)
            for frame in frames:
                if frame.is_corrupt:
                    raise DatasetError(f"packet {given} of a {stream.codec} stream is damaged: run `dataset check`")
                given += 1
                yield frame.to_ndarray(format=pixel_format)
    except av.FFmpegError as error:
        raise DatasetError(f"packet {given} of a {stream.codec} stream does not decode ({error})") from error
    if given != len(packets):
        raise DatasetError(f"{len(packets)} packets of a {stream.codec} stream gave {given} pictures")


class StatsSampler:
    """Small pictures kept at capture for the statistics, never more than ``2 * keep``, evenly spread in time.

    LeRobot computes image statistics on pictures downsampled by striding to about 150 pixels; so do we, and decoding
    nothing at the end is what makes saving quick.
    """

    def __init__(self, keep: int = 50, target_px: int = 150, threshold_px: int = 300) -> None:
        self._keep, self._target_px, self._threshold_px = keep, target_px, threshold_px
        self._stride = 1
        self._seen = 0
        self._kept: list[NDArray[np.generic]] = []

    def add(self, picture: NDArray[np.generic]) -> None:
        """Offer one picture, (H, W) or (H, W, 3); it is copied where it is kept."""
        if self._seen % self._stride == 0:
            self._kept.append(small(picture, self._target_px, self._threshold_px))
            if len(self._kept) >= 2 * self._keep:
                self._kept = self._kept[::2]
                self._stride *= 2
        self._seen += 1

    def pictures(self) -> NDArray[np.generic] | None:
        """(M, h, w, 3 | 1), or None where nothing was offered."""
        return stack(self._kept) if self._kept else None


def small(picture: NDArray[np.generic], target_px: int = 150, threshold_px: int = 300) -> NDArray[np.generic]:
    """A copy strided down so that the larger side is about ``target_px``, as LeRobot's statistics do it."""
    side = max(picture.shape[:2])
    factor = 1 if side < threshold_px else int(side / target_px)
    return picture[::factor, ::factor].copy()


def stack(pictures: Sequence[NDArray[np.generic]]) -> NDArray[np.generic]:
    """(M, h, w, channels) of equal pictures; a picture without channels gets one."""
    stacked = np.stack(pictures)
    return stacked[..., None] if stacked.ndim == 3 else stacked
