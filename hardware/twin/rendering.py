"""Drawing a model's cameras with OpenGL, and the thread that does it where time is real."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from ..errors import DeviceError


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


class DrawThread:
    """Runs jobs one after another in a thread of its own, which the OpenGL context then belongs to.

    Paced worlds draw here: MuJoCo lets go of Python's lock while it draws, so physics and control stay on time.
    """

    def __init__(self) -> None:
        self._jobs: deque[Callable[[], object] | None] = deque()
        self._filled = threading.Semaphore(0)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="twin cameras", daemon=True)
        self._thread.start()

    def post(self, job: Callable[[], object]) -> None:
        """Do it later. What it raises is raised by the next ``check``."""
        self._jobs.append(job)
        self._filled.release()

    def call[T](self, job: Callable[[], T]) -> T:
        """Do it after what was posted before, and wait for the answer."""
        if threading.current_thread() is self._thread:
            return job()
        answer: Future[T] = Future()

        def run() -> None:
            try:
                answer.set_result(job())
            except BaseException as error:
                answer.set_exception(error)

        self.post(run)
        return answer.result()

    def check(self) -> None:
        """Raise what a posted job raised."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def close(self, last: Callable[[], object]) -> None:
        """Finish what was posted, then ``last``, and end the thread. Safe to call twice."""
        if self._thread.is_alive():
            self.post(last)
            self._jobs.append(None)
            self._filled.release()
            self._thread.join()

    def _run(self) -> None:
        while True:
            self._filled.acquire()
            job = self._jobs.popleft()
            if job is None:
                return
            try:
                job()
            except BaseException as error:
                self._failure = self._failure or error


def _gl_context(width: int, height: int) -> mujoco.GLContext:
    """A context of the backend that MUJOCO_GL names. Where something imported MuJoCo before this package could name
    one, MuJoCo has settled for windows, which a machine without a screen cannot open: EGL then, by name."""
    if os.environ.get("MUJOCO_GL") == "egl":
        from mujoco.egl import GLContext

        return GLContext(width, height)
    return mujoco.GLContext(width, height)
