"""Synchronised recording: every stream at its own rate, with its own capture times, into the journal.

The recorder subscribes to the robot and the cameras and takes what they push, from whichever thread they push it: the
loop's own on a stepped twin, driver threads on the rig. Each picture stream has a thread that encodes it; one thread
writes the journal. Every queue between them is bounded and *blocks*: a slow disk slows the sources and drops nothing.
Nothing fails silently: what goes wrong in a thread is raised by the loop's next call.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..hardware.clock import NS
from ..hardware.errors import BadInput, DeviceError, DexLoopError
from ..hardware.interfaces import Camera, Robot, Unsubscribe
from ..hardware.values import Applied, ArmState, Command, Frame, HandState
from . import rle
from .episode import EpisodeInfo
from .journal import CameraStream, JournalMeta, pack_array
from .journal_writer import JournalConfig, JournalWriter
from .lanes import ColourWork, DepthWork, Lane, MaskWork
from .video import ColourConfig

ROBOT_STREAMS = ("arm", "hand")
TARGET_KEY = "target_segmentation_id"  # in EpisodeInfo.extra: whose exact mask is recorded


@dataclass(frozen=True)
class RecorderConfig:
    """How an episode is recorded."""

    colour: ColourConfig = field(default_factory=ColourConfig)
    depth: bool = False
    """Record depth of the cameras that have it, losslessly."""
    depth_unit_m: Mapping[str, float] = field(default_factory=lambda: {"head": 0.001, "wrist": 0.0001})
    """Metres per depth count by camera; a count has 12 bits, so 0.001 reaches 4.095 m."""
    mask_camera: str = "head"
    """Camera whose target mask is recorded where the frames carry a segmentation, or masks are given."""
    given_masks: bool = False
    """Masks come by :meth:`Recorder.mask` and not from a segmentation. An exposure without one makes no row."""
    frame_queue: int = 8
    """Frames that may wait for an encoder; small, because what waits is lost when the process is killed."""
    camera_timeout_s: float = 1.0
    """A camera that gave no frame for this long (rig's clock) has stopped."""
    robot_timeout_s: float = 1.0
    """An arm or hand that gave no reading for this long has stopped."""
    journal: JournalConfig = field(default_factory=JournalConfig)

    def __post_init__(self) -> None:
        if self.frame_queue < 1:
            raise BadInput(f"frame_queue is {self.frame_queue}; at least one frame must fit")
        if self.camera_timeout_s <= 0 or self.robot_timeout_s <= 0:
            raise BadInput("camera_timeout_s and robot_timeout_s must be positive")


@dataclass
class StreamCount:
    """What became of a stream: for the verdict at the end of an episode."""

    received: int = 0
    lost_before_us: int = 0  # gaps in a camera's own sequence numbers
    paused: int = 0  # arrived while the recording was paused, not recorded on purpose
    largest_queue: int = 0
    blocked_s: float = 0.0  # time its source was held back
    last_ns: int = -1  # capture time of the newest reading
    alive_ns: int = -1  # when its source was last seen at work: newer than last_ns where we held it back ourselves
    held_back: bool = False  # its source waits for us now
    last_sequence: int = -1


class Recorder:
    """Records one episode after another from a robot and its cameras, each into a journal of its own.

    ``begin`` / ``command`` ... / ``end``, all from the loop's thread; ``begin`` may be called again after ``end``.
    """

    def __init__(
        self, robot: Robot, cameras: Sequence[Camera], journal_path: Path, config: RecorderConfig | None = None
    ):
        """``journal_path`` is the first episode's; ``begin`` takes another for the next."""
        names = [camera.name for camera in cameras]
        if len({*names, *ROBOT_STREAMS}) != len(names) + len(ROBOT_STREAMS):
            raise BadInput(f"cameras are named {names}; expected different names, none of them {ROBOT_STREAMS}")
        self.config = config or RecorderConfig()
        self._robot, self._cameras = robot, tuple(cameras)
        self._path: Path | None = Path(journal_path)
        self._writer: JournalWriter | None = None
        self._lanes: dict[str, list[Lane]] = {}
        self._unsubscribe: list[Unsubscribe] = []
        self._paused = False
        self._begin_ns = 0
        self._masked_ns = -1  # capture time of the picture whose mask was given last
        self._failure: DexLoopError | None = None  # found by a thread, not yet raised
        self._raised: DexLoopError | None = None  # what a call of this episode has raised
        self.counts: dict[str, StreamCount] = {}

    @property
    def recording(self) -> bool:
        """Between ``begin`` and ``end`` ."""
        return self._writer is not None

    @property
    def paused(self) -> bool:
        """Whether frames are being left out."""
        return self._paused

    def begin(self, info: EpisodeInfo, journal_path: Path | None = None) -> None:
        """Open the journal and take from now on what the sources push. Raises BadInput, StorageError."""
        if self._writer is not None:
            raise BadInput("an episode is being recorded: call end() before begin()")
        path = Path(journal_path) if journal_path is not None else self._path
        if path is None:
            raise BadInput("each episode needs a journal of its own: give begin() a journal_path")
        self._path, self._failure, self._raised, self._paused = None, None, None, False
        self._begin_ns, self._masked_ns = self._robot.clock.now_ns(), -1
        lanes = {camera.name: self._open_lanes(camera, info) for camera in self._cameras}
        meta = JournalMeta(
            info=info,
            cameras=tuple(self._describe(camera, lanes[camera.name]) for camera in self._cameras),
            begin_ns=self._begin_ns,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            arm_joints=self._robot.names.arm_joints,
            hand_motors=self._robot.names.hand_motors,
            config=asdict(self.config),
        )
        writer = JournalWriter(path, meta, self.config.journal)
        self.counts = {name: StreamCount() for name in (*ROBOT_STREAMS, *lanes)}
        self._writer, self._lanes = writer, lanes
        for lane in (lane for group in lanes.values() for lane in group):
            lane.start(writer, self._keep_failure)
        try:
            self._event("begin")
            self._unsubscribe.append(self._robot.subscribe(self._on_robot))
            for camera in self._cameras:
                self._unsubscribe.append(camera.subscribe(functools.partial(self._on_frame, camera.name)))
        except BaseException:
            self._stop_sources()
            self._writer = None
            writer.close()
            raise

    def _open_lanes(self, camera: Camera, info: EpisodeInfo) -> list[Lane]:
        size = (camera.intrinsics.width, camera.intrinsics.height, camera.rate_hz)
        prefix = f"cameras/{camera.name}"
        lanes = [Lane(f"{prefix}/colour", ColourWork(*size, self.config.colour), self.config.frame_queue)]
        if self.config.depth:
            unit_m = self.config.depth_unit_m.get(camera.name)
            if unit_m is None:
                raise BadInput(
                    f"camera {camera.name!r} has no depth unit: depth_unit_m has {sorted(self.config.depth_unit_m)}; "
                    "add it, or record without depth"
                )
            lanes.append(Lane(f"{prefix}/depth", DepthWork(*size, camera.name, unit_m), self.config.frame_queue))
        from_segmentation = TARGET_KEY in info.extra and not self.config.given_masks
        if camera.name == self.config.mask_camera and from_segmentation:
            target = info.extra[TARGET_KEY]
            if not isinstance(target, int):
                raise BadInput(f"{TARGET_KEY} is {target!r}; expected the integer id of a segmentation")
            lanes.append(Lane(f"{prefix}/mask", MaskWork(camera.name, target), self.config.frame_queue))
        return lanes

    # What sources call, in their own threads. After a failure they are let go: the loop raises it.

    def _on_robot(self, reading: ArmState | HandState) -> None:
        if isinstance(reading, ArmState):
            row = (reading.captured_ns, reading.q, reading.dq, reading.effort, reading.wrench)
            self._take("arm", reading.captured_ns, lambda writer: writer.put_row("arm", row))
        else:
            values = (reading.captured_ns, reading.opening, reading.force)
            self._take("hand", reading.captured_ns, lambda writer: writer.put_row("hand", values))

    def _on_frame(self, name: str, frame: Frame) -> None:
        if self._let_go():
            return
        count = self.counts[name]
        if count.last_sequence >= 0:
            count.lost_before_us += max(0, frame.sequence - count.last_sequence - 1)
        count.last_sequence = frame.sequence
        if self._paused:
            count.received += 1
            count.paused += 1
            count.last_ns = frame.captured_ns
            return

        def hand_over(writer: JournalWriter) -> None:
            for lane in self._lanes[name]:
                lane.put(frame, self._let_go)
                count.largest_queue = max(count.largest_queue, lane.largest_queue)

        self._take(name, frame.captured_ns, hand_over)

    def _take(self, name: str, captured_ns: int, hand_over: Callable[[JournalWriter], None]) -> None:
        """Count a reading and pass it on, noting whether its source had to wait for us."""
        writer, count = self._writer, self.counts[name]
        if writer is None or self._failure is not None:
            return
        count.received += 1
        count.last_ns = captured_ns
        count.held_back = True
        started = time.monotonic()
        try:
            hand_over(writer)
        except DexLoopError as error:
            self._keep_failure(error)
        finally:
            waited_s = time.monotonic() - started
            if waited_s > 0.02:  # it was ours to blame: its silence meanwhile is not a failure of the device
                count.blocked_s += waited_s
                count.alive_ns = self._robot.clock.now_ns()
            count.held_back = False

    def _let_go(self) -> bool:
        return self._failure is not None or self._writer is None

    def _keep_failure(self, error: DexLoopError) -> None:
        if self._failure is None:
            self._failure = error

    # What the loop calls.

    def command(self, requested: Command, applied: Applied) -> None:
        """Journal one command: what was asked for and what was sent. Raises whatever stopped the recording."""
        writer = self._checked()
        row = (
            applied.sent_ns,
            requested.captured_ns,
            np.concatenate([requested.arm_q, requested.hand]),
            np.concatenate([applied.command.arm_q, applied.command.hand]),
            int(applied.flags),
        )
        writer.put_row("commands", row)

    def raw(self, name: str, captured_ns: int, value: NDArray[np.generic]) -> None:
        """Journal operator input as it was before retargeting, under a name, with its own capture time."""
        self._checked().put_bytes("raw", captured_ns, 0, pack_array(name, np.asarray(value)))

    def mask(self, captured_ns: int, mask: NDArray[np.bool_]) -> None:
        """Journal the target's mask (H, W) in the picture of that capture time; the same picture twice counts once."""
        if not self.config.given_masks:
            raise BadInput("a mask was given to a recorder that takes masks from a segmentation: set given_masks")
        writer = self._checked()
        if captured_ns > self._masked_ns:
            self._masked_ns = captured_ns
            writer.put_bytes(f"cameras/{self.config.mask_camera}/mask", captured_ns, 0, rle.encode(mask).encode())

    def note(self, text: str) -> None:
        """Journal a remark at the present time."""
        self._checked()
        self._event("note", text=text)

    def pause(self) -> None:
        """Leave out what follows; arm and hand go on being journaled, frames do not."""
        self._checked()
        if not self._paused:
            self._paused = True
            self._event("pause")

    def resume(self) -> None:
        """Record again."""
        self._checked()
        if self._paused:
            self._event("resume")
            self._paused = False

    def check(self) -> None:
        """Raise what went wrong since the last call: a stopped camera or robot, a full disk, an encoder.

        ``command`` calls it; a loop that sends nothing for a while (paused) calls it itself.
        """
        self._checked()

    def end(self, info: EpisodeInfo | None = None) -> Path:
        """Finish the episode; the path of its journal, which is whole.

        ``info`` is the episode with what was learnt meanwhile (label, note). Raises what stopped the recording, unless
        another call raised it before: then this is the cleaning up after it, and the journal says that it was stopped.
        """
        if self._writer is None:
            raise BadInput("no episode is being recorded: call begin() first")
        path, told = self._writer.path, self._raised
        if not told:
            with contextlib.suppress(DexLoopError):
                self._checked()
        kind = "end" if self._raised is None else "stopped"
        values = {"reason": str(self._raised)} if self._raised is not None else {}
        with contextlib.suppress(DexLoopError):
            # Frames on their way through the encoders belong to the episode: the end is written after them.
            self._stop_sources()
            self._event(kind, info=asdict(info) if info is not None else None, **values)
        try:
            self._writer.close()
        except DexLoopError as error:
            self._keep_failure(error)
        self._writer = None
        if told is None and self._failure is not None:
            self._raised = self._failure
        if told is None and self._raised is not None:
            raise self._raised
        return path

    def statistics_pictures(self) -> dict[str, NDArray[np.generic]]:
        """Small pictures of the last episode by video name (``head``, ``head_depth``), (M, h, w, channels)."""
        found: dict[str, NDArray[np.generic]] = {}
        for camera, lanes in self._lanes.items():
            for lane in lanes:
                pictures = lane.work.sampler.pictures() if lane.work.sampler else None
                if pictures is not None:
                    found[camera + ("_depth" if isinstance(lane.work, DepthWork) else "")] = pictures
        return found

    def _checked(self) -> JournalWriter:
        if self._writer is None:
            raise BadInput("no episode is being recorded: call begin() first")
        error = self._failure or self._writer.failure or self._silence(self._writer.path)
        if error is not None:
            self._raised = error
            raise error
        return self._writer

    def _silence(self, journal: Path) -> DeviceError | None:
        """The error of a source that stopped pushing."""
        now_ns = self._robot.clock.now_ns()
        for name, count in self.counts.items():
            robot = name in ROBOT_STREAMS
            limit_s = self.config.robot_timeout_s if robot else self.config.camera_timeout_s
            silent_s = (now_ns - max(count.last_ns, count.alive_ns, self._begin_ns)) / NS
            if silent_s > limit_s and not count.held_back:
                what = f"the {name}" if robot else f"camera {name!r}"
                since = "never gave a reading" if count.last_ns < 0 else f"gave its last reading at {count.last_ns} ns"
                return DeviceError(
                    f"{what} {since}: nothing for {silent_s:.2f} s where {limit_s:g} s at most are allowed. The "
                    f"episode so far is whole in {journal}; check cable and power, then record it again"
                )
        return None

    def _event(self, kind: str, **values: object) -> None:
        assert self._writer is not None
        now_ns = self._robot.clock.now_ns()
        self._writer.put_bytes("events", now_ns, 0, json.dumps({"kind": kind, **values}).encode())

    def _stop_sources(self) -> None:
        """Let the sources go and empty the lanes into the journal."""
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._unsubscribe = []
        for lane in (lane for group in self._lanes.values() for lane in group):
            lane.close()

    def _describe(self, camera: Camera, lanes: Sequence[Lane]) -> CameraStream:
        """The camera as the journal's first page has it."""
        colour = next(lane.work.format for lane in lanes if isinstance(lane.work, ColourWork))
        depth = next((lane.work.format for lane in lanes if isinstance(lane.work, DepthWork)), None)
        parent, pose = camera.pose()
        given = self.config.given_masks and camera.name == self.config.mask_camera
        view = camera.intrinsics
        return CameraStream(
            name=camera.name,
            rate_hz=camera.rate_hz,
            colour=colour,
            depth=depth,
            mask=given or any(isinstance(lane.work, MaskWork) for lane in lanes),
            intrinsics=(view.fx, view.fy, view.cx, view.cy),
            pose_parent=parent,
            pose=tuple(tuple(float(value) for value in row) for row in pose),
        )
