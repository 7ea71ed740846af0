"""The twin's cameras: colour, metric depth and segmentation, each only where it is asked for.

A camera that nobody looks at costs nothing: an exposure keeps the configuration of the scene (a small copy), and the
picture is drawn when it is pushed to a sink or asked for with ``latest``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mujoco
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


@dataclass
class Picture:
    """What was drawn; a pass that was not asked for is None."""

    rgb: NDArray[np.uint8]  # (H, W, 3)
    depth_m: NDArray[np.float32] | None  # (H, W), true z depth
    body_id: NDArray[np.int32] | None  # (H, W), -1 = nothing


class SceneRenderer:
    """Draws a model's cameras. One OpenGL context for a world's life; models come and go."""

    def __init__(self, width: int, height: int, shadows: bool, antialias: bool) -> None:
        self.width, self.height = width, height
        self._shadows, self._antialias = shadows, antialias
        self._gl: mujoco.GLContext | None = None
        self._context: mujoco.MjrContext | None = None
        self._scene: mujoco.MjvScene | None = None
        self._model: mujoco.MjModel | None = None
        self._option = mujoco.MjvOption()
        self._rect = mujoco.MjrRect(0, 0, width, height)

    def use(self, model: mujoco.MjModel) -> None:
        """Draw ``model`` from now on; its textures and meshes are loaded at the next picture."""
        if model is not self._model:
            self._free_context()
            self._model = model

    def draw(self, data: mujoco.MjData, camera: str | mujoco.MjvCamera, depth: bool, bodies: bool) -> Picture:
        """Pictures from ``data``, whose positions must be up to date (``mj_kinematics``, ``mj_camlight``)."""
        self._prepare()
        model, scene, context = self._model, self._scene, self._context
        assert model is not None
        assert scene is not None
        if isinstance(camera, str):
            view = mujoco.MjvCamera()
            view.type = mujoco.mjtCamera.mjCAMERA_FIXED
            view.fixedcamid = model.camera(camera).id
        else:
            view = camera
        mujoco.mjv_updateScene(model, data, self._option, None, view, mujoco.mjtCatBit.mjCAT_ALL, scene)
        scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = self._shadows
        shape = (self.height, self.width)
        rgb = np.empty((*shape, 3), np.uint8)
        z = np.empty(shape, np.float32) if depth else None
        colours = np.empty((*shape, 3), np.uint8) if bodies else None
        # Without multisampling the colour pass leaves the very depth that the pass for segmentation would.
        depth_with_colour = depth and not self._antialias
        mujoco.mjr_render(self._rect, scene, context)
        mujoco.mjr_readPixels(rgb, z if depth_with_colour else None, self._rect, context)
        if bodies or (depth and not depth_with_colour):
            kept = scene.flags.copy()
            scene.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = True  # colours that are numbers of geoms
            scene.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = True
            mujoco.mjr_render(self._rect, scene, context)
            mujoco.mjr_readPixels(colours, None if depth_with_colour else z, self._rect, context)
            scene.flags[:] = kept
        return Picture(
            rgb[::-1].copy(),
            None if z is None else self._metric(z[::-1]),
            None if colours is None else self._bodies(colours[::-1]),
        )

    def close(self) -> None:
        self._free_context()
        if self._gl is not None:
            self._gl.free()
        self._gl = None

    def _prepare(self) -> None:
        if self._model is None:
            raise DeviceError("the twin's renderer has no model: call use() before draw()")
        if self._gl is None:
            self._gl = _gl_context(self.width, self.height)
        self._gl.make_current()
        if self._context is None:
            self._context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_100)
            mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
            self._context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
            self._scene = mujoco.MjvScene(self._model, maxgeom=2000)

    def _free_context(self) -> None:
        if self._context is not None and self._gl is not None:
            self._gl.make_current()
            self._context.free()
        self._context = self._scene = None

    def _metric(self, z: NDArray[np.float32]) -> NDArray[np.float32]:
        """Depth buffer (reversed: 1 near, 0 far) -> m along the optical axis; 0 where there is nothing."""
        assert self._model is not None
        extent = self._model.stat.extent
        near, far = self._model.vis.map.znear * extent, self._model.vis.map.zfar * extent
        metric = (near * far / (near + z.astype(np.float64) * (far - near))).astype(np.float32)
        metric[z <= 0] = 0.0
        return metric

    def _bodies(self, colours: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Segmentation colours -> body ids."""
        assert self._model is not None
        assert self._scene is not None
        count = self._scene.ngeom
        number = colours[..., 0].astype(np.int32)
        if count > 254:
            number += 256 * colours[..., 1].astype(np.int32) + 65536 * colours[..., 2].astype(np.int32)
        body = np.full(count + 1, -1, np.int32)
        for geom in self._scene.geoms[:count]:
            if geom.segid >= 0 and geom.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                body[geom.segid + 1] = self._model.geom_bodyid[geom.objid]
        return body[number]


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
        self.skipped_frames = 0  # exposures that were due while the world was late, and were not drawn
        self._world = world
        self._index = index
        self._sinks: list[FrameSink] = []
        self._sequence = -1
        self._exposed_ns = 0
        self._qpos: NDArray[np.float64] | None = None
        self._frame: Frame | None = None
        self._closed = False

    @property
    def watched(self) -> bool:
        """Whether exposures are pushed to somebody."""
        return bool(self._sinks)

    def latest(self) -> Frame:
        self._check_open()
        if self._qpos is None:
            self._world.expose_now(self)
        return _copy(self._draw())

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
        self._qpos = self._frame = None
        if restart:
            self._sequence = -1

    def expose(self, captured_ns: int, late: bool) -> None:
        """Take the scene as it stands. ``late`` skips drawing for subscribers, and counts it."""
        if self._closed:
            return
        self._sequence += 1
        if late and self._sinks:
            self.skipped_frames += 1
            return
        self._exposed_ns = captured_ns
        self._qpos = self._world.data.qpos.copy()
        self._frame = None
        if self._sinks:
            frame = self._draw()
            for sink in tuple(self._sinks):
                sink(_copy(frame))

    def _draw(self) -> Frame:
        if self._frame is None:
            assert self._qpos is not None
            picture = self._world.draw(self.name, self._qpos, self.depth, self.segmentation)
            depth = picture.depth_m
            if depth is not None and self._world.config.depth_noise:
                rng = np.random.default_rng([self._world.seed, self._index, self._sequence])
                depth = measured_depth(depth, self.description, self.intrinsics, rng)
            ids = None if picture.body_id is None else self._world.segment_of_body[picture.body_id]
            self._frame = Frame(self._exposed_ns, self._sequence, picture.rgb, depth, ids)
        return self._frame

    def _check_open(self) -> None:
        if self._closed:
            raise DeviceError(f"camera {self.name!r} is closed: make a new TwinWorld")


def _gl_context(width: int, height: int) -> mujoco.GLContext:
    """A context of the backend that MUJOCO_GL names. Where something imported MuJoCo before this package could name
    one, MuJoCo has settled for windows, which a machine without a screen cannot open: EGL then, by name."""
    if os.environ.get("MUJOCO_GL") == "egl":
        from mujoco.egl import GLContext

        return GLContext(width, height)
    return mujoco.GLContext(width, height)


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
