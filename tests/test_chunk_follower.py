"""Chunk after chunk: who is followed when, whatever the planning's pace."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from dexloop.deploy.chunks import Delay, FollowConfig, Follower
from dexloop.hardware.errors import BadInput
from dexloop.train.views import Observation
from hypothesis import given
from hypothesis import strategies as st

HORIZON = 32


def moment(tick: int) -> Observation:
    return Observation(np.full(13, tick, np.float32), {}, {}, np.zeros((1, 1), bool))


class Counting:
    """Commands are the tick that they are for, plus a thousandth of the chunk's number; keeps what it was asked."""

    late_most = 4
    cameras = frozenset({"head"})

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, int]] = []  # tick, commands left, late
        self.gate: threading.Event | None = None

    def again(self, observation: Observation) -> None:
        pass

    def start(self, observation: Observation) -> None:
        self.asked.clear()

    def chunk(self, observation: Observation, left: Any = None, late: int = 0) -> Any:
        tick = int(observation.state[0])
        self.asked.append((tick, len(left), late))
        if self.gate is not None and len(self.asked) > 1:
            assert self.gate.wait(10)
        new = np.repeat(np.arange(tick, tick + HORIZON)[:, None] + 0.001 * len(self.asked), 13, 1)
        new[:late] = left[:late]
        return new


@given(execute=st.integers(2, 31), late=st.integers(0, 4), ticks=st.integers(1, 100))
def test_every_tick_gets_its_own_command(execute: int, late: int, ticks: int) -> None:
    late = min(late, (execute - 1) // 2)
    policy = Counting()
    follower = Follower(policy, FollowConfig(execute, late, background=False))
    follower.start(moment(0))
    got = [float(follower.step(lambda tick=tick: moment(tick))[0]) for tick in range(ticks)]
    assert [round(value) for value in got] == list(range(ticks))
    assert follower.counts.starved_ticks == follower.counts.overdue == 0
    # From the second chunk on every one was asked for ``late`` ticks before the last one's first ``execute`` were used.
    for tick, left, told in policy.asked[1:]:
        assert (left, told) == (HORIZON - execute + late, late), tick
    for tick in range(ticks):
        newest = max(k for k, (asked, _, _) in enumerate(policy.asked) if asked + (late if k else 0) <= tick)
        assert got[tick] == pytest.approx(tick + 0.001 * (newest + 1)), "a chunk takes over when it is expected"


def test_a_chunk_that_is_overdue_is_taken_where_the_robot_is_by_then() -> None:
    policy = Counting()
    policy.late_most = 1
    policy.gate = threading.Event()
    follower = Follower(policy, FollowConfig(execute=8, late=1))
    follower.start(moment(0))
    got = [float(follower.step(lambda tick=tick: moment(tick))[0]) for tick in range(12)]
    policy.gate.set()
    follower.close()  # waits for it
    got += [float(follower.step(lambda tick=tick: moment(tick))[0]) for tick in range(12, 14)]
    assert [round(value) for value in got] == list(range(14))
    assert got[11] == pytest.approx(11.001), "the old chunk is followed meanwhile"
    assert got[12] == pytest.approx(12.002)
    assert (follower.counts.overdue, follower.counts.overdue_ticks) == (1, 4)


def driven(policy: Counting, took: int, ticks: int, delay: Delay | None = None) -> Follower:
    """Every chunk but the first comes ``took`` ticks after it was asked for."""
    policy.gate = threading.Event()
    follower = Follower(policy, FollowConfig(execute=8, late=1), delay)
    follower.start(moment(0))
    for tick in range(ticks):
        if len(policy.asked) > 1 and tick == policy.asked[-1][0] + took:
            policy.gate.set()
            time.sleep(0.05)  # its thread comes to an end
            policy.gate.clear()
        assert round(follower.step(lambda tick=tick: moment(tick))[0]) == tick
        time.sleep(0.005)  # its thread begins
    policy.gate.set()
    follower.close()
    return follower


def test_slow_chunks_are_asked_for_earlier() -> None:
    policy = Counting()
    follower = driven(policy, took=3, ticks=30)
    # The first was asked for at tick 7 and expected at 8; it came at 10. All others are expected after 3 ticks.
    assert [(tick, late) for tick, _, late in policy.asked[1:4]] == [(7, 1), (12, 3), (17, 3)]
    assert (follower.counts.overdue, follower.counts.overdue_ticks) == (1, 2)


def test_no_more_is_committed_than_the_policy_can_go_on_from() -> None:
    policy = Counting()
    policy.late_most = 2
    driven(policy, took=4, ticks=30)
    assert [late for _, _, late in policy.asked[1:4]] == [1, 2, 2]
    policy = Counting()
    policy.late_most = 0
    follower = driven(policy, took=2, ticks=30)
    assert {late for _, _, late in policy.asked} == {0}
    assert follower.counts.overdue == follower.counts.chunks - 1


def test_what_chunks_took_is_known_to_the_next_attempt_and_forgotten_later() -> None:
    policy = Counting()
    delay = Delay(policy, FollowConfig(execute=8, late=1))
    assert delay.ticks == 1
    driven(policy, took=3, ticks=12, delay=delay)
    assert delay.ticks == 3
    for _ in range(Delay.REMEMBERED):
        delay.note(0)
    assert delay.ticks == 1, "never less than is configured"


def test_with_nothing_left_the_last_command_holds() -> None:
    policy = Counting()
    policy.gate = threading.Event()
    follower = Follower(policy, FollowConfig(execute=8, late=1))
    follower.start(moment(0))
    got = [float(follower.step(lambda tick=tick: moment(tick))[0]) for tick in range(HORIZON + 3)]
    assert got[-3:] == [pytest.approx(HORIZON - 1 + 0.001)] * 3
    assert follower.counts.starved_ticks == 3
    policy.gate.set()
    follower.close()


def test_what_the_policy_raises_reaches_the_loop() -> None:
    class Broken(Counting):
        def chunk(self, observation: Observation, left: Any = None, late: int = 0) -> Any:
            if observation.state[0] > 0:
                raise BadInput("no")
            return super().chunk(observation, left, late)

    def run(follower: Follower) -> None:
        follower.start(moment(0))
        for tick in range(10 * HORIZON):
            follower.step(lambda tick=tick: moment(tick))
            time.sleep(0.01 if tick > 4 else 0)

    for background in (True, False):
        follower = Follower(Broken(), FollowConfig(4, 1, background))
        with pytest.raises(BadInput, match="no"):
            run(follower)
        follower.close()


def test_a_chunk_that_is_not_finite_never_reaches_the_robot() -> None:
    class Broken(Counting):
        def chunk(self, observation: Observation, left: Any = None, late: int = 0) -> Any:
            chunk = super().chunk(observation, left, late)
            chunk[5, 3] = np.nan
            return chunk

    follower = Follower(Broken(), FollowConfig(background=False))
    with pytest.raises(BadInput, match="planned 1 of 416 numbers that are not finite"):
        follower.start(moment(0))


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(BadInput, match="execute is 2 and late 2"):
        FollowConfig(2, 2)
