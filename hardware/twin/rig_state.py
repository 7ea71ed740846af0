"""One arm with its hand inside a compiled model: addresses, controllers, readings."""

from __future__ import annotations

import mujoco
import numpy as np

from ..description import ArmMount
from ..geometry import Array
from ..hand_kinematics import HAND_JOINTS, MOTOR_JOINTS, HandKinematics
from ..values import ArmState, HandState
from .controllers import ArmController, ControllerConfig, HandController
from .hand_spec import MOTOR_DAMPING, MOTOR_STIFFNESS_NM_RAD, hand_forces

# Wrist sensor noise: 0.5 % of full scale (200 N, 7 N m) is its accuracy; between readings it varies by a tenth of that.
FORCE_NOISE_N, TORQUE_NOISE_NM = 0.1, 0.0035
LIMIT_STEP_RAD = 3e-3  # force limits and couplings are looked at again after a motor moved this far


class ArmWithHand:
    """Drives one arm's servos and couplings, step by step, and reads its sensors."""

    def __init__(self, mount: ArmMount, prefix: str, controllers: ControllerConfig, step_s: float) -> None:
        self.mount, self.prefix = mount, prefix
        self.kinematics = HandKinematics(mount.hand)
        self._forces = hand_forces(mount.hand)
        self.arm = ArmController(mount.arm, controllers, step_s)
        self.hand = HandController(mount.hand, controllers, step_s)
        self._fingers = len(mount.hand.fingers)
        zero, one = self.kinematics.actuated(np.zeros(6)), self.kinematics.actuated(np.ones(6))
        self._offset, self._slope = zero, one - zero  # joint = offset + slope * opening
        speed = np.abs(self._slope) / mount.hand.stroke_s
        self._moving_nm = MOTOR_DAMPING * speed  # what a motor needs above its limit's share to move at full speed
        self._poly = np.array([finger.pip_poly for finger in mount.hand.fingers])  # (4, 3)

    def bind(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Use this model and data from now on."""
        self._model, self._data = model, data
        # Views into MuJoCo's memory: asking the model for them anew is a third of the loop's price.
        self._qpos, self._ctrl = data.qpos, data.ctrl
        self._forcerange, self._eq_data = model.actuator_forcerange, model.eq_data
        self._limited_at: Array = np.full(len(self.mount.hand.motors), np.inf)
        joints = [self.prefix + joint for joint in self.mount.arm.joints]
        hand_joints = [self.prefix + joint for joint in HAND_JOINTS]
        self.arm_qpos = np.array([model.joint(name).qposadr[0] for name in joints])
        self.arm_dof = np.array([model.joint(name).dofadr[0] for name in joints])
        self.hand_qpos = np.array([model.joint(name).qposadr[0] for name in hand_joints])
        self.hand_dof = np.array([model.joint(name).dofadr[0] for name in hand_joints])
        self._motor_qpos = self.hand_qpos[list(MOTOR_JOINTS)]
        self._arm_ctrl = np.array([model.actuator(name).id for name in joints])
        self._hand_ctrl = np.array([model.actuator(self.prefix + motor).id for motor in self.mount.hand.motors])
        pips = [f"{self.prefix}{finger.name}_pip" for finger in self.mount.hand.fingers]
        self._pip_rows = np.array([model.equality(name).id for name in pips])
        force = model.sensor(f"{self.prefix}wrist_force").adr[0]
        self._wrench_adr = np.arange(force, force + 6)
        palm = model.body(f"{self.prefix}palm").id
        self._site = model.site(f"{self.prefix}wrench").id
        self._hand_weight = model.body_subtreemass[palm] * model.opt.gravity  # (3,) N, world
        self.bodies = frozenset(
            body for body in range(model.nbody) if model.body_rootid[body] == model.body(f"{self.prefix}arm_base").id
        )
        self.hand_bodies = frozenset(body for body in self.bodies if _below(model, body, palm))
        # Gravity of the hand is removed as the arm's controller does it: by one centre of mass, the open hand's.
        x, y, z = self._open_com(palm)  # m, in the sensor's frame
        self._hand_com_cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])

    def place(self, q: Array, opening: Array, now_ns: int) -> None:
        """Put arm (7,) rad and hand (6,) at once into a state of rest."""
        data = self._data
        data.qpos[self.arm_qpos] = q
        data.qpos[self.hand_qpos] = self.kinematics.joints(opening)
        data.qvel[self.arm_dof] = 0.0
        data.qvel[self.hand_dof] = 0.0
        self.arm.reset(q, now_ns)
        self.hand.reset(opening, now_ns)
        self.drive(now_ns)

    def drive(self, now_ns: int) -> None:
        """Set servo targets, coupling and force limits for the next physics step."""
        motor_q = self._qpos[self._motor_qpos]
        if np.abs(motor_q - self._limited_at).max() > LIMIT_STEP_RAD:
            self._limit(motor_q)
        self._ctrl[self._arm_ctrl] = self.arm.step(now_ns)
        opening = self.hand.step(now_ns, (motor_q - self._offset) / self._slope, self._slack)
        self._ctrl[self._hand_ctrl] = self._offset + self._slope * opening

    def _limit(self, motor_q: Array) -> None:
        """Force limits and couplings at the motors' angles ``motor_q`` (6,)."""
        limit = self._forces.limit(motor_q)
        self._slack = (1.1 * limit + self._moving_nm) / (MOTOR_STIFFNESS_NM_RAD * np.abs(self._slope))
        self._forcerange[self._hand_ctrl, 0] = -limit
        self._forcerange[self._hand_ctrl, 1] = limit
        # The linkage stops at 0: where the polynomial is negative the finger is held straight.
        mcp = motor_q[1 : 1 + self._fingers]
        bends = self._poly[:, 0] + mcp * (self._poly[:, 1] + mcp * self._poly[:, 2]) > 0.0
        self._eq_data[self._pip_rows, :3] = self._poly * bends[:, None]
        self._limited_at = motor_q

    def arm_state(self, now_ns: int, rng: np.random.Generator | None) -> ArmState:
        data = self._data
        # The sensor reads what the flange holds the hand with: against its weight and against the environment.
        rotation = data.site_xmat[self._site].reshape(3, 3)
        weight = rotation.T @ self._hand_weight
        wrench = -data.sensordata[self._wrench_adr]
        wrench[:3] -= weight
        wrench[3:] -= self._hand_com_cross @ weight
        if rng is not None:
            wrench += rng.standard_normal(6) * np.repeat([FORCE_NOISE_N, TORQUE_NOISE_NM], 3)
        return ArmState(
            now_ns,
            data.qpos[self.arm_qpos],
            data.qvel[self.arm_dof],
            data.qfrc_actuator[self.arm_dof],
            wrench,
        )

    def hand_state(self, now_ns: int) -> HandState:
        q = self._data.qpos[self._motor_qpos]
        torque = self._data.actuator_force[self._hand_ctrl]
        closing = torque * np.where(self._slope < 0, 1.0, -1.0)
        return HandState(now_ns, (q - self._offset) / self._slope, np.maximum(closing, 0.0) / self._forces.lever(q))

    def _open_com(self, palm: int) -> Array:
        scratch = mujoco.MjData(self._model)
        scratch.qpos[self.hand_qpos] = self.kinematics.joints(np.ones(6))
        mujoco.mj_kinematics(self._model, scratch)
        mujoco.mj_comPos(self._model, scratch)
        rotation = scratch.site_xmat[self._site].reshape(3, 3)
        return rotation.T @ (scratch.subtree_com[palm] - scratch.site_xpos[self._site])


def _below(model: mujoco.MjModel, body: int, root: int) -> bool:
    while body:
        if body == root:
            return True
        body = int(model.body_parentid[body])
    return False
