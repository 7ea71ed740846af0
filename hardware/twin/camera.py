"""The twin's cameras: colour, metric depth and segmentation, each only where it is asked for.

A camera that nobody looks at costs nothing: an exposure keeps the configuration of the scene (a small copy), and the
picture is drawn when it is pushed to a sink or asked for with ``latest``. Stepped worlds draw in the loop's own thread,
paced ones in a thread for all cameras, which is also what calls the sinks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..description import CameraDescription
from ..errors import DeviceError
from ..geometry import Transform, quat_to_matrix, transform
from ..interfaces import FrameSink, Unsubscribe
from ..values import Frame, Intrinsics
from .noise import measured_depth
from .spec import opencv_to_mujoco

if TYPE_CHECKING:
    from .world import TwinWorld

ROBOT_ID = -1  # in a segmentation; object k is k + 1, everything else 0


@dataclass(frozen=True)
class Exposure:
    """The moment of a picture that may be drawn later."""

    captured_ns: int
    sequence: int
    scene_number: int
    qpos: NDArray[np.float64]  # (nq,)


class TwinCamera:
    """One camera of the twin (``Camera`` protocol)."""

    def __init__(self, world: TwinWorld, description: CameraDescription, index: int) -> None:
        config = world.config
        self.name = description.name
        self.description = description
        self.intrinsics: Intrinsics = description.intrinsics.scaled(*config.camera_size)
        self.rate_hz = float(config.camera_rate_hz)
        self.depth = config.depth  # may be changed while it runs
        self.segmentation = config.segmentation
        self.skipped_frames = 0  # exposures that drawing was too slow for
        self._world = world
        self._index = index
        self._sinks: list[FrameSink] = []
        self._sequence = -1
        self._lock = threading.Lock()
        self._exposure: Exposure | None = None  # the newest
        self._waiting: Exposure | None = None  # for the drawing thread
        self._frame: Frame | None = None  # drawn last
        self._closed = False

    @property
    def watched(self) -> bool:
        """Whether exposures are pushed to somebody."""
        return bool(self._sinks)

    def latest(self) -> Frame:
        self._check_open()
        if self._exposure is None:
            self.expose(self._world.now_ns)
        exposure, drawing = self._exposure, self._world.drawing
        assert exposure is not None
        frame = self._draw(exposure) if drawing is None else drawing.call(lambda: self._draw(exposure))
        if frame is None:
            raise DeviceError(f"camera {self.name!r}: the scene changed while its picture was drawn: ask again")
        return _copy(frame)

    def pose(self) -> tuple[str, Transform]:
        """As calibrated. A scene's camera jitter is what a calibration leaves, so it is not in it."""
        return self.description.parent, self.description.parent_T_camera

    def true_pose(self) -> tuple[str, Transform]:
        """Where the model's camera really is, jitter included."""
        camera = self._world.model.camera(self.name)
        mounted = transform(quat_to_matrix(camera.quat), camera.pos)
        return self.description.parent, opencv_to_mujoco(mounted)

    def subscribe(self, sink: FrameSink) -> Unsubscribe:
        self._check_open()
        self._sinks.append(sink)
        return _once(lambda: self._sinks.remove(sink))

    def close(self) -> None:
        self._closed = True
        self._sinks.clear()

    def forget(self, restart: bool) -> None:
        """The scene changed: what was exposed before it is no longer the newest frame. ``restart``: exposures are
        counted from 0 again, and so is their noise."""
        with self._lock:
            self._exposure = self._waiting = self._frame = None
        if restart:
            self._sequence = -1

    def expose(self, captured_ns: int) -> None:
        """Take the scene as it stands, and push its picture to whoever subscribed.

        In real time the picture waits for the drawing thread. Is the one before it still waiting, that one is given
        up and counted: its number is missing in the frames' sequence.
        """
        if self._closed:
            return
        self._sequence += 1
        world = self._world
        self._exposure = Exposure(captured_ns, self._sequence, world.scene_number, world.data.qpos.copy())
        if not self._sinks:
            return
        if world.drawing is None:
            self._push(self._exposure)
            return
        with self._lock:
            replaced, self._waiting = self._waiting, self._exposure
        if replaced is None:
            world.drawing.post(self._push_waiting)
        else:
            self.skipped_frames += 1

    def _push_waiting(self) -> None:
        with self._lock:
            exposure, self._waiting = self._waiting, None
        if exposure is not None and not self._closed:
            self._push(exposure)

    def _push(self, exposure: Exposure) -> None:
        frame = self._draw(exposure)
        if frame is not None:
            for sink in tuple(self._sinks):
                sink(_copy(frame))

    def _draw(self, exposure: Exposure) -> Frame | None:
        """The frame of an exposure; None when its scene is no more."""
        kept = self._frame
        if kept is not None and (kept.sequence, kept.captured_ns) == (exposure.sequence, exposure.captured_ns):
            return kept
        world = self._world
        with world.scene_lock:  # a scene does not change under a picture
            if exposure.scene_number != world.scene_number:
                return None
            picture = world.draw(self.name, exposure.qpos, self.depth, self.segmentation)
            seed, segment_of_body = world.seed, world.segment_of_body
        depth = picture.depth_m
        if depth is not None and world.config.depth_noise:
            rng = np.random.default_rng([seed, self._index, exposure.sequence])
            depth = measured_depth(depth, self.description, self.intrinsics, rng)
        ids = None if picture.body_id is None else segment_of_body[picture.body_id]
        self._frame = Frame(exposure.captured_ns, exposure.sequence, picture.rgb, depth, ids)
        return self._frame

    def _check_open(self) -> None:
        if self._closed:
            raise DeviceError(f"camera {self.name!r} is closed: make a new TwinWorld")


def _copy(frame: Frame) -> Frame:
    return Frame(
        frame.captured_ns,
        frame.sequence,
        frame.rgb.copy(),
        None if frame.depth_m is None else frame.depth_m.copy(),
        None if frame.segmentation is None else frame.segmentation.copy(),
    )


def _once(action: Callable[[], None]) -> Unsubscribe:
    done = False

    def run() -> None:
        nonlocal done
        if not done:
            done = True
            action()

    return run
