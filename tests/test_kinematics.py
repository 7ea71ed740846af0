"""The arm: against the vendor's SDK, as round trips, along paths, at singularities, and out of reach."""

from dataclasses import replace

import numpy as np
import pytest
from dexloop.hardware.arm_ik import wrapped
from dexloop.hardware.description import RM75_6F, START_ARM_Q
from dexloop.hardware.errors import BadInput
from dexloop.hardware.geometry import inverse, pose_error, quat_to_matrix, rot_x, rotation_log, transform
from dexloop.hardware.kinematics import ArmKinematics, IkStatus
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

ARM = ArmKinematics()
UPPER = ARM.limits[:, 1]
UNIT = arrays(float, (7,), elements=st.floats(-1.0, 1.0))
START = np.array(START_ARM_Q)


BENT = START + [0, 0, 0, -0.6, 0, 0, 0]


def random_q(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (n, 7)) * UPPER


# -- the vendor as oracle ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vendor():
    sdk = pytest.importorskip("Robotic_Arm.rm_robot_interface")
    return sdk, sdk.Algo(sdk.rm_robot_arm_model_e.RM_MODEL_RM_75_E, sdk.rm_force_type_e.RM_MODEL_RM_SF_E)


def test_forward_kinematics_equals_the_vendors(vendor) -> None:
    _, algo = vendor
    qs = random_q(1000)
    flanges = ARM.fk(qs)
    for q, flange in zip(qs, flanges, strict=True):
        x, y, z, *quat = algo.rm_algo_forward_kinematics(np.rad2deg(q).tolist(), 0)
        np.testing.assert_allclose(flange[:3, 3], [x, y, z], atol=1e-6)
        np.testing.assert_allclose(flange[:3, :3], quat_to_matrix(np.array(quat)), atol=3e-6)


def test_arm_angle_equals_the_vendors(vendor) -> None:
    _, algo = vendor
    qs = random_q(500, seed=1)
    for q, ours in zip(qs, ARM.arm_angle(qs), strict=True):
        code, theirs = algo.rm_algo_calculate_arm_angle_from_config_rm75(np.rad2deg(q).tolist())
        assert code == 0
        # Their floats have 24 bits, and lose more of them near a stretched elbow and an upright shoulder-wrist line.
        conditioning = min(np.linalg.norm(ARM.fk_links(q)[5, :2, 3]), abs(np.sin(q[3])))
        assert abs(wrapped(ours - np.deg2rad(theirs))) < 1e-4 / conditioning


def test_inverse_at_an_arm_angle_holds_the_vendors_solution(vendor) -> None:
    sdk, algo = vendor
    agreed = 0
    for q in random_q(300, seed=2):
        flange, angle = ARM.fk(q), float(ARM.arm_angle(q))
        pose = [*flange[:3, 3].tolist(), *_euler_zyx(flange[:3, :3])]
        params = sdk.rm_inverse_kinematics_params_t(np.rad2deg(q).tolist(), pose, 1)
        code, theirs = algo.rm_algo_inverse_kinematics_rm75_for_arm_angle(params, float(np.rad2deg(angle)))
        if code != 0:
            continue
        ours = ARM.ik_all(flange, angle)
        difference = wrapped(ours - np.deg2rad(theirs)) if len(ours) else np.full((1, 7), np.inf)
        agreed += 1
        assert np.abs(difference).max(-1).min() < 2e-3  # float32 angles, worse near singularities
    assert agreed > 250


def _euler_zyx(rotation: np.ndarray) -> list[float]:
    """rx, ry, rz of R = Rz Ry Rx."""
    return [
        float(np.arctan2(rotation[2, 1], rotation[2, 2])),
        float(np.arcsin(-rotation[2, 0])),
        float(np.arctan2(rotation[1, 0], rotation[0, 0])),
    ]


# -- forward and Jacobian ----------------------------------------------------------------------------------------------


def test_zero_pose_is_the_tables() -> None:
    np.testing.assert_allclose(ARM.fk(np.zeros(7)), transform(None, np.array([0.0, 0.0, 0.879])), atol=1e-12)


def test_link_frames_hang_together() -> None:
    q = random_q(20, seed=3)
    links = ARM.fk_links(q)
    assert links.shape == (20, 8, 4, 4)
    np.testing.assert_allclose(links[:, 7], ARM.fk(q))
    lengths = np.linalg.norm(np.diff(links[:, :, :3, 3], axis=1), axis=-1)
    np.testing.assert_allclose(lengths, np.tile([0.2405, 0, 0.256, 0, 0.21, 0, 0.1725], (20, 1)), atol=1e-12)


@settings(max_examples=50)
@given(UNIT)
def test_jacobian_equals_finite_differences(unit: np.ndarray) -> None:
    q, step = unit * UPPER, 1e-6
    ahead, behind = ARM.fk(q + step * np.eye(7)), ARM.fk(q - step * np.eye(7))
    linear = (ahead[:, :3, 3] - behind[:, :3, 3]) / (2 * step)
    angular = rotation_log(ahead[:, :3, :3] @ behind[:, :3, :3].swapaxes(-1, -2)) / (2 * step)
    np.testing.assert_allclose(ARM.jacobian(q), np.concatenate([linear, angular], -1).T, atol=1e-8)


# -- inverse: round trips ----------------------------------------------------------------------------------------------


def test_ten_thousand_reachable_poses_none_missed() -> None:
    q = random_q(10_000, seed=4)
    poses = ARM.fk(q)
    for near in (q, None):
        batch = ARM.ik_batch(poses, ARM.arm_angle(q), near)
        assert batch.ok.all()
        assert batch.position_error_m.max() < 1e-9
        assert batch.rotation_error_rad.max() < 1e-9
        assert (np.abs(batch.q) <= UPPER).all()
        position, rotation = pose_error(ARM.fk(batch.q), poses)
        assert position.max() < 1e-9
        assert rotation.max() < 1e-7  # of the independent measure, which rounds near 0


def test_free_arm_angle_misses_no_reachable_pose() -> None:
    """From a near configuration that has nothing to do with the pose, single and batched."""
    q = random_q(300, seed=5)
    poses = ARM.fk(q)
    batch = ARM.ik_batch(poses, None, np.zeros(7))
    assert batch.ok.all()
    assert batch.position_error_m.max() < 1e-9
    assert batch.rotation_error_rad.max() < 1e-9
    for pose in poses:
        result = ARM.ik(pose, np.zeros(7))
        assert result.ok
        assert result.position_error_m < 1e-9
        assert result.rotation_error_rad < 1e-9
        assert (np.abs(result.q) <= UPPER).all()


@settings(max_examples=200)
@given(UNIT)
def test_the_near_solution_is_found_again(unit: np.ndarray) -> None:
    """Away from the limits' pull the answer for q's own pose is q, in any turn of joint 7."""
    q = unit * (UPPER - 0.36)
    result = ARM.ik(ARM.fk(q), q)
    assert result.ok
    assert result.position_error_m < 1e-9
    assert result.rotation_error_rad < 1e-9
    if result.status is IkStatus.OK and np.abs(np.sin(q[[1, 3, 5]])).min() > 1e-4:
        np.testing.assert_allclose(result.q, q, atol=2e-4)


@settings(max_examples=200)
@given(UNIT, st.floats(-np.pi, np.pi))
def test_all_solutions_at_an_arm_angle_reach_the_pose(unit: np.ndarray, angle: float) -> None:
    pose = ARM.fk(unit * UPPER)
    for q in ARM.ik_all(pose, angle):
        position, _ = pose_error(ARM.fk(q), pose)
        assert position < 1e-9
        assert np.abs(ARM.fk(q)[:3, :3] - pose[:3, :3]).max() < 1e-9
        assert (np.abs(q) <= UPPER).all()
        if np.abs(np.sin(q[[1, 3, 5]])).min() > 1e-6 and np.linalg.norm(ARM.fk_links(q)[5, :2, 3]) > 1e-6:
            assert abs(wrapped(ARM.arm_angle(q) - angle)) < 1e-6


def test_the_original_is_among_all_solutions() -> None:
    for q in random_q(200, seed=6):
        q[6] = wrapped(q[6])
        solutions = ARM.ik_all(ARM.fk(q), float(ARM.arm_angle(q)))
        assert np.abs(solutions - q).max(-1).min() < 1e-7
        assert len(solutions) <= 8


def test_single_and_batched_answers_agree() -> None:
    q = random_q(200, seed=7)
    poses, angles = ARM.fk(q), ARM.arm_angle(q)
    batch = ARM.ik_batch(poses, angles, q)
    for i in range(len(q)):
        np.testing.assert_allclose(ARM.ik(poses[i], q[i], float(angles[i])).q, batch.q[i], atol=1e-9)


# -- inverse: limits, turns, arm angle ---------------------------------------------------------------------------------


def test_joint_7_takes_the_turn_nearest_to_the_near_configuration() -> None:
    q = START.copy()
    for turn in (-3.0, 3.1, 4.2, -4.0, 6.0):
        q[6] = turn
        assert ARM.ik(ARM.fk(q), q, float(ARM.arm_angle(q))).q[6] == pytest.approx(turn, abs=1e-9)


def test_an_arm_angle_that_breaks_a_limit_is_given_up_not_the_pose() -> None:
    angles = np.linspace(-np.pi, np.pi, 37)
    for q in random_q(5, seed=10):
        pose = ARM.fk(q)
        answers = [ARM.ik(pose, q, float(angle)) for angle in angles]
        given_up = [a for a in answers if a.status is IkStatus.JOINT_LIMIT]
        assert len(given_up) < len(answers)
        for answer, angle in zip(answers, angles, strict=True):
            assert answer.position_error_m < 1e-9
            assert (np.abs(answer.q) <= UPPER).all()
            assert (answer.status is IkStatus.JOINT_LIMIT) == (len(ARM.ik_all(pose, float(angle))) == 0)


def test_the_pull_keeps_the_arm_away_from_its_limits() -> None:
    """Standing still with a joint close to its limit, the self-motion takes it away."""
    q = START.copy()
    q[2] = UPPER[2] - 0.05
    pose = ARM.fk(q)
    for _ in range(300):
        q = ARM.ik(pose, q).q
    assert UPPER[2] - abs(q[2]) > 0.25
    position, _ = pose_error(ARM.fk(q), pose)
    assert position < 1e-9


# -- inverse: paths and singularities ----------------------------------------------------------------------------------


def circle(n: int, radius: float = 0.08) -> np.ndarray:
    """A closed wrist path around the start pose with turning hand, (n, 4, 4)."""
    base = ARM.fk(BENT)
    phase = np.linspace(0, 2 * np.pi, n)
    poses = np.repeat(base[None], n, 0)
    poses[:, 0, 3] += radius * np.sin(phase)
    poses[:, 1, 3] += radius * (1 - np.cos(phase))
    for i, p in enumerate(phase):
        poses[i, :3, :3] = base[:3, :3] @ rot_x(0.4 * np.sin(p))
    return poses


def test_answers_are_continuous_along_a_path() -> None:
    q, largest = BENT, 0.0
    for pose in circle(400):
        result = ARM.ik(pose, q)
        assert result.ok
        assert result.position_error_m < 1e-9
        largest = max(largest, float(np.abs(result.q - q).max()))
        q = result.q
    assert largest < 0.03


@pytest.mark.parametrize("joint", [1, 3, 5])
@pytest.mark.parametrize("through", [0.0, 1e-10, 1e-5, 1e-4, 0.02])
def test_answers_are_continuous_through_a_near_singularity(joint: int, through: float) -> None:
    """A joint-space path on which shoulder, elbow or wrist pass (nearly) through 0, followed by its poses alone."""
    path = np.repeat(START[None], 301, 0)
    path[:, joint] = np.linspace(0.3, through, 301) if joint == 3 else np.linspace(0.3, -0.3, 301) + through
    q, largest = path[0], 0.0
    for pose in ARM.fk(path):
        result = ARM.ik(pose, q)
        assert result.ok
        assert result.position_error_m < 1e-9
        assert result.rotation_error_rad < 1e-9
        largest = max(largest, float(np.abs(result.q - q).max()))
        q = result.q
    assert largest < 0.1


@pytest.mark.parametrize("joint", [1, 3, 5])
def test_singular_configurations_say_so_and_keep_the_near_joints(joint: int) -> None:
    q = START.copy()
    q[joint] = 0.0
    result = ARM.ik(ARM.fk(q), q)
    assert result.status is IkStatus.SINGULAR
    assert result.position_error_m < 1e-9
    assert result.rotation_error_rad < 1e-9
    np.testing.assert_allclose(result.q, q, atol=1e-3)


def test_the_stretched_and_upright_arm_is_solved() -> None:
    result = ARM.ik(ARM.fk(np.zeros(7)), np.zeros(7))
    assert result.status is IkStatus.SINGULAR
    assert result.position_error_m < 1e-9


# -- inverse: what cannot be reached -----------------------------------------------------------------------------------


@settings(max_examples=50)
@given(UNIT, st.floats(1.02, 4.0))
def test_out_of_reach_is_answered_on_the_reachable_sphere(unit: np.ndarray, factor: float) -> None:
    q = unit * UPPER
    q[3] = 0.3  # nearly stretched
    pose = ARM.fk(q)
    shoulder = np.array([0.0, 0.0, 0.2405])
    wrist = ARM.fk_links(q)[5, :3, 3]
    pose[:3, 3] += (factor - 1.0) * (wrist - shoulder)
    result = ARM.ik(pose, q)
    assert result.status in (IkStatus.OUT_OF_REACH, IkStatus.JOINT_LIMIT)
    assert (np.abs(result.q) <= UPPER).all()
    if result.status is IkStatus.OUT_OF_REACH:
        assert result.rotation_error_rad < 1e-9
        distance = np.linalg.norm(pose[:3, 3] - 0.1725 * pose[:3, 2] - shoulder)
        assert result.position_error_m == pytest.approx(distance - 0.466, abs=1e-9)


def test_a_wrist_inside_the_shoulder_is_answered_at_the_nearest_reach() -> None:
    pose = transform(rot_x(1.0), np.array([0.0, 0.0, 0.2405]) + 0.1725 * rot_x(1.0)[:, 2])
    result = ARM.ik(pose, START)
    assert not result.ok
    assert np.isfinite(result.q).all()
    assert result.position_error_m < 0.25


def test_beyond_the_limits_the_answer_is_a_local_minimum_inside_them() -> None:
    """Hand bent back further than joint 6 allows, on an arm whose other joints cannot help."""
    tight = replace(RM75_6F, links=tuple(replace(link, limit_rad=0.6) for link in RM75_6F.links))
    arm = ArmKinematics(tight)
    rng = np.random.default_rng(8)
    for _ in range(20):
        q = rng.uniform(-1, 1, 7) * 0.55
        pose = arm.fk(q)
        pose[:3, :3] = pose[:3, :3] @ rot_x(1.5)
        result = arm.ik(pose, q)
        assert result.status is IkStatus.JOINT_LIMIT
        assert (np.abs(result.q) <= 0.6).all()
        best = result.position_error_m**2 + (0.2 * result.rotation_error_rad) ** 2
        for _ in range(30):
            other = np.clip(result.q + rng.normal(size=7) * 0.003, -0.6, 0.6)
            position, rotation = pose_error(arm.fk(other), pose)
            assert position**2 + (0.2 * rotation) ** 2 > best - 1e-7


def test_an_unreachable_target_is_followed_without_jumps() -> None:
    """A target pulled out of reach and back: the joints move at a bounded rate."""
    q = START
    pose = ARM.fk(q)
    away = (pose[:3, 3] - [0.0, 0.0, 0.2405]) / np.linalg.norm(pose[:3, 3] - [0.0, 0.0, 0.2405])
    statuses, largest = set(), 0.0
    for shift in 0.4 * np.sin(np.linspace(0, np.pi, 600)):
        target = pose.copy()
        target[:3, 3] += shift * away
        result = ARM.ik(target, q)
        statuses.add(result.status)
        largest = max(largest, float(np.abs(result.q - q).max()))
        q = result.q
    assert IkStatus.OUT_OF_REACH in statuses
    assert IkStatus.OK in statuses
    assert largest < 0.15  # the elbow's square-root approach to the stretched arm


def test_batches_answer_unreachable_poses_as_single_ones() -> None:
    poses = ARM.fk(random_q(6, seed=9))
    poses[2, :3, 3] *= 5.0
    batch = ARM.ik_batch(poses, None, START)
    assert batch.status[2] is IkStatus.OUT_OF_REACH
    assert batch.ok.tolist() == [True, True, False, True, True, True]
    np.testing.assert_allclose(batch.q[2], ARM.ik(poses[2], START).q)


def test_bad_input_is_refused() -> None:
    pose = ARM.fk(START)
    with pytest.raises(BadInput, match="rigid"):
        ARM.ik(pose * 1.1, START)
    with pytest.raises(BadInput, match="rigid"):
        ARM.ik(np.where(np.eye(4) > 0, np.nan, pose), START)
    with pytest.raises(BadInput, match="q_near"):
        ARM.ik(pose, np.full(7, np.nan))
    with pytest.raises(BadInput, match="shape"):
        ARM.ik(pose, np.zeros(6))
    with pytest.raises(BadInput, match="shape"):
        ARM.fk(np.zeros(6))
    offset = replace(RM75_6F.links[2], origin_m=(0.01, -0.256, 0.0))
    with pytest.raises(BadInput, match="common axes"):
        ArmKinematics(replace(RM75_6F, links=(*RM75_6F.links[:2], offset, *RM75_6F.links[3:])))


def test_world_frames_do_not_matter() -> None:
    """Sanity of the convention: target-first transforms cancel."""
    world_T_base = transform(rot_x(0.3), np.array([0.1, -0.2, 0.5]))
    world_T_flange = world_T_base @ ARM.fk(START)
    result = ARM.ik(inverse(world_T_base) @ world_T_flange, START)
    np.testing.assert_allclose(result.q, START, atol=2e-4)
