"""The exported URDFs, read back by MuJoCo, are the same arm and hand."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from dexloop.hardware.description import GO_R, RM75_6F
from dexloop.hardware.hand_kinematics import HAND_JOINTS, HandKinematics
from dexloop.hardware.kinematics import ArmKinematics
from dexloop.hardware.rig import DEXGRASPVLA_RIG
from dexloop.hardware.twin.urdf import arm_urdf, arm_with_hand_urdf, hand_urdf, line_of, rig_mjcf

TIPS = ("thumb", "index", "middle", "ring", "little")


def load(urdf: str) -> tuple[mujoco.MjModel, mujoco.MjData]:
    spec = mujoco.MjSpec.from_string(urdf)
    spec.compiler.fusestatic = False  # keep the fingertips' links
    model = spec.compile()
    return model, mujoco.MjData(model)


def test_hand_urdf_puts_the_fingertips_where_the_hand_model_has_them() -> None:
    model, data = load(hand_urdf(GO_R))
    hand = HandKinematics()
    rng = np.random.default_rng(0)
    for opening in rng.uniform(0, 1, (20, 6)):
        for name, angle in zip(HAND_JOINTS, hand.joints(opening), strict=True):
            data.joint(name).qpos[0] = angle
        mujoco.mj_kinematics(model, data)
        tips = np.array([data.body(f"{tip}_tip").xpos for tip in TIPS])
        np.testing.assert_allclose(tips, hand.tips(opening), atol=1e-8)


def test_arm_urdf_agrees_with_the_arm_kinematics() -> None:
    model, data = load(arm_urdf(RM75_6F))
    arm = ArmKinematics()
    lower, upper = RM75_6F.limits.T
    for q in np.random.default_rng(1).uniform(lower, upper, (50, 7)):
        data.qpos[:] = q
        mujoco.mj_kinematics(model, data)
        pose = arm.fk(q)
        np.testing.assert_allclose(data.body("flange").xpos, pose[:3, 3], atol=1e-8)
        np.testing.assert_allclose(data.body("flange").xmat.reshape(3, 3), pose[:3, :3], atol=1e-8)


def test_arm_with_hand_urdf_weighs_what_the_tables_say() -> None:
    model, _ = load(arm_with_hand_urdf(DEXGRASPVLA_RIG.arms[0]))
    moving = sum(link.mass_kg for link in RM75_6F.links) + GO_R.mass_kg
    base = model.body_mass[mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, "arm_base")]
    assert model.body_mass.sum() - base == pytest.approx(moving, abs=1e-6)
    np.testing.assert_allclose(model.jnt_range[:7], RM75_6F.limits, atol=1e-6)


def test_mimic_lines_state_their_error() -> None:
    urdf = hand_urdf(GO_R)
    assert urdf.count("<mimic") == 5
    for finger in GO_R.fingers:
        slope, offset, error = line_of(finger.pip_poly, finger.mcp_range_rad)
        assert f'multiplier="{slope:.6f}" offset="{offset:.6f}"' in urdf
        assert f"off by {error:.3f} rad" in urdf
        assert 0.0 < error < 0.12
        p = np.linspace(*finger.mcp_range_rad, 37)
        true = HandKinematics().pip(np.repeat(p[:, None], 4, 1))[:, GO_R.fingers.index(finger)]
        assert np.abs(slope * p + offset - true).max() <= error + 1e-9


def test_rig_mjcf_loads_again() -> None:
    model = mujoco.MjModel.from_xml_string(rig_mjcf(DEXGRASPVLA_RIG))
    assert model.nu == 13
    assert model.ncam == 2
