"""The model's arm against the vendor's own library, and its masses against the tables."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from dexloop.hardware.description import GO_R, RM75_6F
from dexloop.hardware.geometry import inverse, quat_to_matrix, transform
from dexloop.hardware.rig import DEXGRASPVLA_RIG
from dexloop.hardware.twin.spec import rig_spec

MOUNT = DEXGRASPVLA_RIG.arms[0]


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    return rig_spec(DEXGRASPVLA_RIG).compile()


def base_T_flange(model: mujoco.MjModel, data: mujoco.MjData, q: np.ndarray) -> np.ndarray:
    data.qpos[:7] = q
    mujoco.mj_kinematics(model, data)
    site = data.site("flange")
    return inverse(MOUNT.world_T_base) @ transform(site.xmat.reshape(3, 3), site.xpos)


def random_poses(count: int) -> np.ndarray:
    lower, upper = RM75_6F.limits.T
    return np.random.default_rng(7).uniform(lower, upper, (count, 7))


def test_flange_is_where_the_vendors_library_has_it(model: mujoco.MjModel) -> None:
    vendor = pytest.importorskip("Robotic_Arm.rm_robot_interface")
    algo = vendor.Algo(vendor.rm_robot_arm_model_e.RM_MODEL_RM_75_E, vendor.rm_force_type_e.RM_MODEL_RM_SF_E)
    data = mujoco.MjData(model)
    worst_m = worst_rad = 0.0
    for q in random_poses(1000):
        ours = base_T_flange(model, data, q)
        theirs = np.array(algo.rm_algo_forward_kinematics(np.rad2deg(q).tolist(), 0))  # x y z, quaternion w x y z
        turn = quat_to_matrix(theirs[3:]).T @ ours[:3, :3]
        worst_m = max(worst_m, float(np.abs(ours[:3, 3] - theirs[:3]).max()))
        worst_rad = max(worst_rad, float(np.abs(turn - np.eye(3)).max()))
    assert worst_m < 1e-6
    assert worst_rad < 1e-6


def test_zero_pose_is_straight_up(model: mujoco.MjModel) -> None:
    pose = base_T_flange(model, mujoco.MjData(model), np.zeros(7))
    np.testing.assert_allclose(pose, transform(translation=np.array([0, 0, 0.879])), atol=1e-12)


def test_masses_and_inertias_are_the_tables(model: mujoco.MjModel) -> None:
    root = model.body("arm_base").id
    assert model.body_subtreemass[root] == pytest.approx(7.917 + GO_R.mass_kg, abs=1e-6)
    assert model.body_subtreemass[model.body("palm").id] == pytest.approx(GO_R.mass_kg, abs=1e-9)
    for number, link in enumerate(RM75_6F.links, 1):
        body = model.body(f"arm_link_{number}")
        xx, xy, xz, yy, yz, zz = (1e-6 * value for value in link.inertia_kg_mm2)
        axes = quat_to_matrix(body.iquat)
        np.testing.assert_allclose(
            axes @ np.diag(body.inertia) @ axes.T, [[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]], atol=1e-9
        )
        np.testing.assert_allclose(body.ipos * 1e3, link.com_mm, atol=1e-9)


def test_limits_and_efforts_are_the_tables(model: mujoco.MjModel) -> None:
    for link in RM75_6F.links:
        joint = model.joint(link.joint)
        np.testing.assert_allclose(joint.range, [-link.limit_rad, link.limit_rad])
        np.testing.assert_allclose(model.actuator(link.joint).forcerange, [-link.effort_nm, link.effort_nm])


def test_gravity_is_compensated_in_every_pose(model: mujoco.MjModel) -> None:
    data = mujoco.MjData(model)
    for q in random_poses(20):
        mujoco.mj_resetData(model, data)
        data.qpos[:7] = q
        data.ctrl[:7] = q
        mujoco.mj_forward(model, data)
        loads = data.qfrc_bias[:7] - data.qfrc_gravcomp[:7]
        assert np.abs(loads).max() < 1e-9


def test_no_collision_shape_touches_its_neighbours(model: mujoco.MjModel) -> None:
    """Straight up and at the rig's three poses nothing of the robot touches anything."""
    from dexloop.hardware.description import PLACE_ARM_Q, RETURN_ARM_Q, START_ARM_Q

    data = mujoco.MjData(model)
    for q in (START_ARM_Q, PLACE_ARM_Q, RETURN_ARM_Q):
        data.qpos[:7] = q
        mujoco.mj_forward(model, data)
        touching = [tuple(model.geom(geom).name for geom in contact.geom) for contact in data.contact]
        assert touching == []


def test_two_arms_are_built_from_two_mounts() -> None:
    """A second arm needs nothing but a second entry in the rig."""
    from dataclasses import replace

    from dexloop.hardware.geometry import rot_z

    mirrored = MOUNT.world_T_base.copy()
    mirrored[1, 3] += 0.6
    mirrored[:3, :3] = mirrored[:3, :3] @ rot_z(0.3)
    rig = replace(DEXGRASPVLA_RIG, arms=(MOUNT, replace(MOUNT, side="left", world_T_base=mirrored)))
    model = rig_spec(rig).compile()
    assert model.nu == 26
    for side in ("right", "left"):
        assert model.body_subtreemass[model.body(f"{side}_arm_base").id] == pytest.approx(8.462, abs=1e-3)
        assert model.actuator(f"{side}_thumb_rotation").id >= 0
