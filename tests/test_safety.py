"""SafeRobot on a recording fake robot: what reaches the robot is checked, whatever is asked."""

import numpy as np
import pytest
from dexloop.hardware.clock import NS, SteppedClock
from dexloop.hardware.description import ARM_JOINTS, HAND_MOTORS, PLACE_ARM_Q, RIG_LIMITS_RAD, START_ARM_Q
from dexloop.hardware.errors import BadInput, DeviceError
from dexloop.hardware.geometry import inverse, rot_y, rot_z, transform
from dexloop.hardware.interfaces import Robot, RobotSink, Unsubscribe
from dexloop.hardware.rig import DEXGRASPVLA_RIG
from dexloop.hardware.safety import SafeRobot, SafetyConfig
from dexloop.hardware.space_guard import SpaceGuard
from dexloop.hardware.values import Applied, ArmState, Command, HandState, RobotNames, RobotState, Safety
from hypothesis import given, settings
from hypothesis import strategies as st

START = np.array(START_ARM_Q)
OPEN = np.ones(6)
SPEED = np.minimum(0.8 * DEXGRASPVLA_RIG.arms[0].arm.speeds, 3.1)
ACCELERATION = 0.9 * np.deg2rad(600)
JERK = 500.0
PERIOD_NS = 50_000_000


class FakeRobot:
    """Is at once where it is told, reads out at 100 Hz, and writes down every command that reaches it."""

    def __init__(self, q: np.ndarray = START) -> None:
        self.names = RobotNames(ARM_JOINTS, HAND_MOTORS)
        self.clock = SteppedClock(self._advance)
        self.q, self.dq, self.hand = np.array(q, float), np.zeros(7), OPEN.copy()
        self.sent: list[tuple[int, Command]] = []
        self.stops = self.closes = 0
        self.broken = False
        self._sinks: list[RobotSink] = []
        self._time_ns = 0

    def _advance(self, until_ns: int) -> None:
        while self._time_ns + 10_000_000 <= until_ns:
            self._time_ns += 10_000_000
            for sink in list(self._sinks):
                sink(self._arm())

    def _arm(self) -> ArmState:
        return ArmState(self._time_ns, self.q.copy(), self.dq.copy(), np.zeros(7), np.zeros(6))

    def state(self) -> RobotState:
        return RobotState(self._arm(), HandState(self._time_ns, self.hand.copy(), np.zeros(6)))

    def send(self, command: Command) -> Applied:
        if self.broken:
            raise DeviceError("the link is gone")
        self.sent.append((max(self.clock.now_ns(), self._time_ns), command))
        self.q, self.hand = np.array(command.arm_q), np.array(command.hand)
        return Applied(command, self.clock.now_ns())

    def stop(self) -> None:
        self.stops += 1

    def subscribe(self, sink: RobotSink) -> Unsubscribe:
        self._sinks.append(sink)
        return lambda: self._sinks.remove(sink)

    def close(self) -> None:
        self.closes += 1


def make(q: np.ndarray = START, **config: float) -> tuple[FakeRobot, SafeRobot]:
    fake = FakeRobot(q)
    return fake, SafeRobot(fake, DEXGRASPVLA_RIG, SafetyConfig(**config))


def drive(fake: FakeRobot, robot: SafeRobot, q: np.ndarray, hand: np.ndarray = OPEN, age_s: float = 0.0) -> Applied:
    """One command, then one period of waiting."""
    now = fake.clock.now_ns()
    applied = robot.send(Command(now - int(age_s * NS), np.asarray(q, float), np.asarray(hand, float)))
    fake.clock.sleep_until_ns(now + PERIOD_NS)
    return applied


@pytest.fixture
def anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Space is endless: to look at motion alone."""
    monkeypatch.setattr(SpaceGuard, "judge", lambda *_: (Safety.NONE, ""))


def differences(path: np.ndarray, h: float = 0.05) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Velocity, acceleration and jerk of (N, 7) commands that start from rest."""
    path = np.concatenate([np.repeat(path[:1], 3, 0), path])
    v = np.diff(path, axis=0) / h
    a = np.diff(v, axis=0) / h
    return v, a, np.diff(a, axis=0) / h


def assert_within_motion_limits(path: np.ndarray, h: float = 0.05) -> None:
    v, a, j = differences(path, h)
    assert (np.abs(v) <= SPEED * (1 + 1e-6)).all()
    assert (np.abs(a) <= ACCELERATION * (1 + 1e-6)).all()
    assert (np.abs(j) <= JERK * (1 + 1e-6)).all()


def smooth(t: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Minimum-jerk motion over t in 0..1."""
    s = np.clip(t, 0, 1)
    return START + (10 * s**3 - 15 * s**4 + 6 * s**5)[:, None] * reach


REACH = np.array([0.3, 0.2, -0.3, -0.4, 0.5, 0.3, -0.8])


# -- what is within limits passes --------------------------------------------------------------------------------------


def test_it_is_a_robot() -> None:
    fake, robot = make()
    assert isinstance(robot, Robot)
    assert robot.names is fake.names
    assert robot.clock is fake.clock


@pytest.mark.parametrize("rate_hz", [20, 30, 60, 100])
def test_motion_within_limits_passes_unchanged(rate_hz: int) -> None:
    """The very object reaches the robot, flags are 0, and nothing lags."""
    fake, robot = make()
    step_ns = NS // rate_hz
    hand = OPEN * 0.3
    for q in smooth(np.arange(0, 1.4, 1 / rate_hz), REACH):
        now = fake.clock.now_ns()
        command = Command(now, q, hand)
        applied = robot.send(command)
        assert applied.flags == Safety.NONE
        assert applied.reason == ""
        assert fake.sent[-1][1] is command
        fake.clock.sleep_until_ns(now + step_ns)


def test_standing_still_passes_unchanged() -> None:
    fake, robot = make()
    for _ in range(10):
        assert drive(fake, robot, START).flags == Safety.NONE
    np.testing.assert_array_equal(fake.q, START)


# -- motion ------------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.sampled_from([0.01, 0.3, 3.0, 100.0]), period=st.sampled_from([0.01, 0.05]))
def test_whatever_is_asked_what_goes_out_obeys_the_limits(seed: int, scale: float, period: float) -> None:
    rng = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SpaceGuard, "judge", lambda *_: (Safety.NONE, ""))
        fake, robot = make(nominal_period_s=period)
        q = START.copy()
        for _ in range(60):
            kind = rng.integers(0, 12)
            if kind < 8:
                q = q + rng.normal(size=7) * scale * period
            elif kind < 10:
                q = rng.uniform(-7, 7, 7)
            asked = q.copy()
            if kind == 10:
                asked[rng.integers(0, 7)] = rng.choice([np.nan, np.inf, -np.inf, 1e300])
            now = fake.clock.now_ns()
            applied = robot.send(Command(now, asked, rng.uniform(-1, 2, 6)))
            assert (applied.flags == 0) == (applied.command.arm_q is asked)
            fake.clock.sleep_until_ns(now + int(period * NS))
    path = np.array([command.arm_q for _, command in fake.sent])
    hands = np.array([command.hand for _, command in fake.sent])
    assert np.isfinite(path).all()
    assert (np.abs(path) <= np.array(RIG_LIMITS_RAD) + 1e-12).all()
    assert ((hands >= 0) & (hands <= 1)).all()
    assert_within_motion_limits(np.concatenate([START[None], path]), period)


@pytest.mark.usefixtures("anywhere")
def test_a_jump_is_reached_without_overshoot() -> None:
    fake, robot = make()
    goal = START + [0.8, 0.5, -0.7, -0.5, 1.0, 0.4, -1.2]
    flags, path = Safety.NONE, []
    for _ in range(40):
        applied = drive(fake, robot, goal)
        flags |= applied.flags
        path.append(applied.command.arm_q)
    assert Safety.ACCELERATION in flags
    np.testing.assert_array_equal(path[-1], goal)
    assert applied.flags == Safety.NONE
    done = (np.array(path) - START) / (goal - START)
    assert done.max() <= 1.0 + 1e-6
    assert (np.diff(done, axis=0) >= -1e-6).all()


@pytest.mark.usefixtures("anywhere")
def test_a_moving_target_is_caught_up_with_and_then_followed_exactly() -> None:
    fake, robot = make()
    behind = []
    for k in range(60):
        target = START + (0.4 + 0.5 * k * 0.05) * np.array([1, 1, 1, -0.5, 1, -1, 1])
        behind.append(np.abs(drive(fake, robot, target).command.arm_q - target).max())
    assert behind[0] > 0.3
    assert behind[-1] == 0.0
    caught = behind.index(0.0)
    assert all(b == 0.0 for b in behind[caught:])
    assert caught < 30


@pytest.mark.usefixtures("anywhere")
def test_full_speed_into_a_joint_limit_stops_there() -> None:
    fake, robot = make()
    path = [START]
    for k in range(80):
        path.append(drive(fake, robot, START + 0.15 * k).command.arm_q)
    limits = np.array(RIG_LIMITS_RAD)
    assert_within_motion_limits(np.array(path))
    assert (np.array(path) <= limits).all()
    np.testing.assert_allclose(path[-1], limits, atol=1e-6)


@pytest.mark.usefixtures("anywhere")
def test_each_rule_has_its_flag_and_a_reason() -> None:
    fake, robot = make()
    beyond = drive(fake, robot, np.array([9.0, *START[1:]]))
    assert Safety.JOINT_LIMIT in beyond.flags
    assert "joint limit" in beyond.reason
    fake, robot = make()
    assert Safety.JOINT_LIMIT in drive(fake, robot, START, np.array([1.2, 1, 1, 1, 1, 1])).flags
    np.testing.assert_array_equal(fake.hand, OPEN)
    fake, robot = make()
    flags = [drive(fake, robot, START + 3.0 * np.eye(7)[6]).flags for _ in range(10)]
    assert any(Safety.VELOCITY in f for f in flags)
    fake, robot = make(jerk_rad_s3=20.0)
    assert Safety.JERK in drive(fake, robot, START + 0.2).flags


@pytest.mark.usefixtures("anywhere")
def test_two_commands_at_one_time_are_one_step() -> None:
    """The second replaces the first: together they may not move further than one."""
    fake, robot = make()
    single = drive(*make(), START + 1.0).command.arm_q
    now = fake.clock.now_ns()
    for _ in range(5):
        applied = robot.send(Command(now, START + 1.0, OPEN))
    np.testing.assert_allclose(applied.command.arm_q, single)


def test_not_finite_brakes_and_names_it() -> None:
    fake, robot = make()
    for q in smooth(np.arange(0, 0.5, 0.05), REACH):
        drive(fake, robot, q)
    bad = START.copy()
    bad[3] = np.nan
    path = [command.arm_q for _, command in fake.sent]
    for _ in range(15):
        applied = drive(fake, robot, bad, np.zeros(6))
        assert applied.flags == Safety.NOT_FINITE
        assert "not finite" in applied.reason
        path.append(applied.command.arm_q)
        np.testing.assert_array_equal(applied.command.hand, OPEN)  # the hand holds
    np.testing.assert_array_equal(path[-1], path[-2])
    assert_within_motion_limits(np.array(path))


# -- staleness ---------------------------------------------------------------------------------------------------------


def test_stale_input_brakes_the_arm_and_holds_the_hand() -> None:
    fake, robot = make()
    path = []
    for q in smooth(np.arange(0, 0.5, 0.05), REACH):
        path.append(drive(fake, robot, q, OPEN * 0.4).command.arm_q)
    for _ in range(15):
        applied = drive(fake, robot, START + REACH, OPEN, age_s=0.3)
        assert applied.flags == Safety.STALE
        assert "0.30 s old" in applied.reason
        np.testing.assert_array_equal(applied.command.hand, OPEN * 0.4)
        path.append(applied.command.arm_q)
    assert_within_motion_limits(np.array(path))
    np.testing.assert_array_equal(path[-1], path[-2])


def test_recovery_is_bumpless_for_arm_and_fingers() -> None:
    fake, robot = make()
    drive(fake, robot, START, OPEN * 0.4)
    for _ in range(5):
        drive(fake, robot, START, OPEN * 0.4, age_s=1.0)
    path, hands = [START], [OPEN * 0.4]
    for _ in range(60):
        applied = drive(fake, robot, START + 0.5 * REACH, OPEN)
        path.append(applied.command.arm_q)
        hands.append(applied.command.hand)
    assert_within_motion_limits(np.array(path))
    v = np.abs(differences(np.array(path))[0])
    assert (v[:5] <= 0.5 * SPEED).all()  # slowly at first
    assert np.abs(np.diff(hands, axis=0)).max() <= 1.0 * 0.05 + 1e-9
    np.testing.assert_array_equal(path[-1], START + 0.5 * REACH)
    np.testing.assert_array_equal(hands[-1], OPEN)
    assert applied.flags == Safety.NONE


def test_the_watchdog_acts_when_nobody_sends() -> None:
    """A lagging arm still moves when the caller falls silent: it is braked from its measured speed, in readings."""
    fake, robot = make()
    drive(fake, robot, START, OPEN * 0.4)
    fake.dq = np.array([0.8, -0.5, 0.0, 0.0, 0.0, 0.0, 1.5])
    before = len(fake.sent)
    fake.clock.sleep_until_ns(3 * NS)
    after = fake.sent[before:]
    assert after
    assert after[0][0] > 250_000_000
    path = np.array([START, *[command.arm_q for _, command in after]])
    for _, command in after:
        np.testing.assert_array_equal(command.hand, OPEN * 0.4)
    # From the measured speed to rest, at 100 Hz, never faster and never harder than allowed.
    v = np.diff(path, axis=0) / 0.01
    assert (np.abs(v[0] - fake.dq) <= ACCELERATION * 0.01 + 1e-9).all()
    assert (np.abs(np.diff(v, axis=0)) <= ACCELERATION * 0.01 * (1 + 1e-6)).all()
    np.testing.assert_array_equal(path[-1], path[-2])
    assert (np.abs(path[-1] - START) <= 0.5).all()
    assert after[-1][0] < 1.5 * NS  # at rest it is left alone


def test_silence_of_a_resting_arm_sends_nothing() -> None:
    fake, robot = make()
    drive(fake, robot, START)
    fake.clock.sleep_until_ns(2 * NS)
    assert len(fake.sent) == 1
    assert drive(fake, robot, START).flags == Safety.VELOCITY or len(fake.sent) == 2


def test_after_silence_the_first_command_starts_from_rest() -> None:
    fake, robot = make()
    for q in smooth(np.arange(0, 0.5, 0.05), REACH):
        drive(fake, robot, q)
    here = fake.q.copy()
    fake.clock.sleep_until_ns(fake.clock.now_ns() + NS)
    assert np.abs(fake.q - here).max() < 1e-9
    applied = drive(fake, robot, here + 1.0)
    assert np.abs(applied.command.arm_q - here).max() <= ACCELERATION * 0.05**2 * 1.001


def test_an_arm_moved_by_something_else_is_picked_up_where_it_is() -> None:
    fake, robot = make()
    drive(fake, robot, START)
    fake.clock.sleep_until_ns(NS)
    fake.q = np.array(PLACE_ARM_Q)
    applied = drive(fake, robot, PLACE_ARM_Q)
    np.testing.assert_allclose(applied.command.arm_q, PLACE_ARM_Q)


def test_a_broken_link_does_not_raise_in_the_readers_thread() -> None:
    fake, robot = make()
    drive(fake, robot, START)
    fake.dq, fake.broken = np.full(7, 0.5), True
    fake.clock.sleep_until_ns(NS)
    with pytest.raises(DeviceError, match="link is gone"):
        drive(fake, robot, START)


# -- stop and close ----------------------------------------------------------------------------------------------------


def test_stop_holds_everything_until_resume() -> None:
    fake, robot = make()
    drive(fake, robot, START + 0.01)
    robot.stop()
    assert fake.stops == 1
    before = len(fake.sent)
    for _ in range(5):
        applied = drive(fake, robot, START + 0.5, np.zeros(6))
        assert applied.flags == Safety.STOPPED
        assert "resume" in applied.reason
    fake.clock.sleep_until_ns(fake.clock.now_ns() + NS)
    assert len(fake.sent) == before
    robot.resume()
    path = [fake.q, *[drive(fake, robot, START + 0.1).command.arm_q for _ in range(40)]]
    assert_within_motion_limits(np.array(path))
    np.testing.assert_array_equal(path[-1], START + 0.1)


def test_close_releases_once_and_ends_the_watch() -> None:
    fake, robot = make()
    robot.close()
    robot.close()
    assert fake.closes == 1
    assert not fake._sinks
    with pytest.raises(DeviceError, match="closed"):
        robot.send(Command(0, START, OPEN))


def test_nothing_bypasses() -> None:
    """The wrapper shows the protocol's names and its own three, and no way to the robot inside."""
    _, robot = make()
    public = {name for name in dir(robot) if not name.startswith("_")}
    protocol = {"names", "clock", "state", "send", "stop", "subscribe", "close"}
    assert public == protocol | {"config", "resume", "detach"}
    with pytest.raises(AttributeError):
        robot.anything_else  # noqa: B018 (the access is the test)


def test_readings_pass_through() -> None:
    fake, robot = make()
    seen: list[ArmState | HandState] = []
    unsubscribe = robot.subscribe(seen.append)
    fake.clock.sleep_until_ns(100_000_000)
    assert len(seen) == 10
    unsubscribe()
    fake.clock.sleep_until_ns(200_000_000)
    assert len(seen) == 10
    np.testing.assert_array_equal(robot.state().arm.q, START)


# -- space -------------------------------------------------------------------------------------------------------------


def q_of_palm(robot: SafeRobot, world_T_palm: np.ndarray, near: np.ndarray) -> np.ndarray:
    mount = DEXGRASPVLA_RIG.arms[0]
    result = robot._guard._model.arm.ik(inverse(mount.world_T_base) @ world_T_palm @ inverse(mount.flange_T_palm), near)
    assert result.ok, result
    return result.q


def palm_at(x: float, y: float, z: float, pitch: float = 0.6) -> np.ndarray:
    return transform(rot_z(0.3) @ rot_y(pitch), np.array([x, y, z]))


def lower(robot: SafeRobot, fake: FakeRobot, height: float, steps: int, pitch: float) -> list[Applied]:
    """Bring the palm straight down from ``height`` by 4 mm a command."""
    answers, near = [], fake.q
    for k in range(steps):
        near = q_of_palm(robot, palm_at(0.38, 0.1, height - 0.004 * k, pitch), near)
        answers.append(drive(fake, robot, near))
    return answers


def start_over_table(height: float, pitch: float) -> tuple[FakeRobot, SafeRobot]:
    _, probe = make()
    return make(q_of_palm(probe, palm_at(0.38, 0.1, height, pitch), START))


@pytest.mark.parametrize("pitch", [0.5, 1.0])
def test_the_table_stops_the_arm_and_lets_it_leave(pitch: float) -> None:
    """Fist or flat hand: palm and fingertips come no nearer than their margins, and rising is never refused."""
    fake, robot = start_over_table(0.24, pitch)
    answers = lower(robot, fake, 0.24, 32, pitch)
    assert answers[0].flags == Safety.NONE
    blocked = [a for a in answers if Safety.TABLE in a.flags]
    assert blocked
    assert "table" in blocked[0].reason
    clearance = robot._guard._model.distances(fake.q, OPEN)
    assert clearance.table_m > 0.008 - 1e-4
    assert clearance.finger_m > -0.004 - 1e-4
    assert clearance.finger_m < 0.005  # fingertips come down to the table: grasping is possible
    resting = fake.q.copy()
    near = q_of_palm(robot, palm_at(0.38, 0.1, 0.24, pitch), fake.q)
    for _ in range(60):
        applied = drive(fake, robot, near)
    assert applied.flags == Safety.NONE
    np.testing.assert_array_equal(fake.q, near)
    assert np.abs(near - resting).max() > 0.05


def test_pressing_on_the_table_at_a_slant_slides_along_it() -> None:
    """The operator pushes down and to the side: the side still works."""
    fake, robot = start_over_table(0.20, 1.0)
    near, flags = fake.q, Safety.NONE
    for k in range(60):
        near = q_of_palm(robot, palm_at(0.38, 0.1 - 0.002 * k, max(0.20 - 0.002 * k, 0.13), 1.0), near)
        flags |= drive(fake, robot, near).flags
    assert Safety.TABLE in flags
    palm = robot._guard._model.world_T_palm(fake.q)[:3, 3]
    assert palm[1] < 0.02  # asked: -0.018
    assert robot._guard._model.distances(fake.q, OPEN).finger_m > -0.004 - 1e-4


def test_fingers_may_close_on_the_table() -> None:
    fake, robot = start_over_table(0.26, 1.0)
    lower(robot, fake, 0.26, 55, 1.0)
    for closing in np.linspace(1, 0, 21):
        applied = drive(fake, robot, fake.q, np.array([closing] * 5 + [1.0]))
        np.testing.assert_array_equal(applied.command.hand, [closing] * 5 + [1.0])


def test_a_start_inside_a_margin_can_be_left_but_not_worsened() -> None:
    fake, robot = start_over_table(0.12, 1.0)  # fingers deep in the table
    depth = robot._guard._model.distances(fake.q, OPEN).finger_m
    assert depth < -0.01
    down = q_of_palm(robot, palm_at(0.38, 0.1, 0.10, 1.0), fake.q)
    for _ in range(20):
        flags = drive(fake, robot, down).flags
    assert Safety.TABLE in flags
    assert robot._guard._model.distances(fake.q, OPEN).finger_m >= depth - 0.0045
    near = fake.q
    for height in np.arange(0.10, 0.22, 0.004):
        near = q_of_palm(robot, palm_at(0.38, 0.1, height, 1.0), near)
        drive(fake, robot, near)
    for _ in range(20):
        applied = drive(fake, robot, near)
    assert applied.flags == Safety.NONE
    np.testing.assert_array_equal(fake.q, near)


def test_the_workspace_box_holds_the_palm() -> None:
    fake, robot = make()
    model = robot._guard._model
    flags, near = Safety.NONE, START
    # Drag the palm upwards out of the box (0.95 m).
    pose = model.world_T_palm(START)
    for _ in range(80):
        pose = pose.copy()
        pose[2, 3] += 0.008
        mount = DEXGRASPVLA_RIG.arms[0]
        near = model.arm.ik(inverse(mount.world_T_base) @ pose @ inverse(mount.flange_T_palm), near).q
        flags |= drive(fake, robot, near).flags
    box = np.array(DEXGRASPVLA_RIG.workspace_m).reshape(3, 2)
    palm = model.world_T_palm(fake.q)[:3, 3]
    assert (palm >= box[:, 0] - 1e-4).all()
    assert (palm <= box[:, 1] + 1e-4).all()


def test_self_collision_is_held_off() -> None:
    """Fold the arm onto itself, high above everything else."""
    fake, robot = make(np.array([0.0, 0.3, 0.0, 0.5, 0.0, 0.3, 0.0]))
    flags = Safety.NONE
    for _ in range(120):
        flags |= drive(fake, robot, np.array([0.0, 2.2, 0.0, 2.3, 0.0, 2.2, 0.0])).flags
        clearance = robot._guard._model.distances(fake.q, OPEN)
        assert clearance.self_m > 0.005
    assert flags & (Safety.SELF_COLLISION | Safety.TABLE | Safety.WORKSPACE)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_no_random_walk_comes_nearer_than_the_margins(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fake, robot = make()
    goal = START
    path = [START]
    for k in range(80):
        if k % 10 == 0:
            goal = rng.uniform(-1, 1, 7) * np.array(RIG_LIMITS_RAD)
        drive(fake, robot, goal)
        path.append(fake.q)
        clearance = robot._guard._model.distances(fake.q, OPEN)
        # The path to an admissible rest may dip a little under the margin on its way: never by more than this.
        assert clearance.table_m > 0.0
        assert clearance.self_m > 0.0
    assert_within_motion_limits(np.array(path))


# -- configuration -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [("speed_factor", 1.2), ("jerk_rad_s3", 0.0), ("max_age_s", float("nan")), ("limit_margin_rad", -0.1),
     ("min_period_s", 0.1), ("acceleration_factor", -1.0)],
)  # fmt: skip
def test_a_config_that_cannot_be_is_refused(field: str, value: float) -> None:
    with pytest.raises(BadInput, match=field):
        SafetyConfig(**{field: value})


def test_wrong_shapes_are_refused() -> None:
    _, robot = make()
    with pytest.raises(BadInput, match=r"\(6,\) and \(6,\)"):
        robot.send(Command(0, np.zeros(6), OPEN))
