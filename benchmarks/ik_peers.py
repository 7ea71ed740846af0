"""mink and placo on our arm: both run on the URDF that the twin exports, from the same starts, with the same limits."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from dexloop.hardware.description import RM75_6F
from dexloop.hardware.geometry import Transform
from dexloop.hardware.twin.urdf import arm_urdf
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Solver(Protocol):
    """One step of a solver towards a pose, as a control loop makes it."""

    name: str

    def reset(self, q: Array) -> None:
        """Start from (7,) rad."""
        ...

    def step(self, base_T_flange: Transform) -> Array:
        """One solve; the new joint angles (7,) rad."""
        ...


class Mink:
    """Differential IK by quadratic programming on MuJoCo (mink.FrameTask, DAQP)."""

    name = "mink"

    def __init__(self, dt_s: float) -> None:
        import mink
        import mujoco

        self._mink, self._dt = mink, dt_s
        model = mujoco.MjModel.from_xml_string(arm_urdf(RM75_6F))
        self._configuration = mink.Configuration(model)
        self._task = mink.FrameTask("arm_link_7", "body", position_cost=1.0, orientation_cost=1.0)
        self._limits = [mink.ConfigurationLimit(model)]

    def reset(self, q: Array) -> None:
        self._configuration.update(q)

    def step(self, base_T_flange: Transform) -> Array:
        self._task.set_target(self._mink.SE3.from_matrix(base_T_flange))
        velocity = self._mink.solve_ik(
            self._configuration, [self._task], self._dt, "daqp", damping=1e-6, limits=self._limits
        )
        self._configuration.integrate_inplace(velocity, self._dt)
        return np.array(self._configuration.q)


class Placo:
    """Differential IK by quadratic programming on Pinocchio (placo.KinematicsSolver)."""

    name = "placo"

    def __init__(self, dt_s: float) -> None:
        import placo

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "robot.urdf"
            path.write_text(arm_urdf(RM75_6F))
            self._robot: Any = placo.RobotWrapper(str(path), placo.Flags.ignore_collisions)
        self._solver: Any = placo.KinematicsSolver(self._robot)
        self._solver.dt = dt_s
        self._solver.mask_fbase(True)
        self._solver.enable_joint_limits(True)
        self._task: Any = self._solver.add_frame_task("flange", np.eye(4))
        self._task.configure("flange", "soft", 1.0, 1.0)
        self._solver.add_regularization_task(1e-6)

    def reset(self, q: Array) -> None:
        for name, angle in zip(RM75_6F.joints, q, strict=True):
            self._robot.set_joint(name, float(angle))
        self._robot.update_kinematics()

    def step(self, base_T_flange: Transform) -> Array:
        self._task.T_world_frame = base_T_flange
        self._solver.solve(True)
        self._robot.update_kinematics()
        return np.array([self._robot.get_joint(name) for name in RM75_6F.joints])


def available(dt_s: float) -> tuple[list[Solver], dict[str, str]]:
    """The peers that can be imported here, and why the others cannot."""
    found: list[Solver] = []
    missing: dict[str, str] = {}
    for peer in (Mink, Placo):
        try:
            found.append(peer(dt_s))
        except ImportError as error:
            missing[peer.name] = str(error)
    return found, missing
