"""One clock for the twin and the rig.

A loop asks ``now_ns`` and ``sleep_until_ns`` and never knows which clock it runs on:

- :class:`SteppedClock`: simulated time, as fast as the machine goes. Sleeping *is* what advances the simulation.
- :class:`PacedClock`: simulated time held to real time, for people on the twin. Late ticks are counted.
- :class:`MachineClock`: the machine's monotonic clock, for drivers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

NS = 1_000_000_000

Advance = Callable[[int], None]  # advance(t_ns): bring the simulated world to time t_ns


class Clock(Protocol):
    """Time source and pacer of every loop."""

    late_ticks: int  # deadlines that had already passed when they were asked for

    def now_ns(self) -> int:
        """Current time, int64 ns, monotonic."""
        ...

    def sleep_until_ns(self, deadline_ns: int) -> int:
        """Return at ``deadline_ns`` or later; the lateness in ns (0 = on time)."""
        ...


class MachineClock:
    """``time.monotonic_ns``: CLOCK_MONOTONIC, which RealSense's global time and our drivers are mapped to."""

    def __init__(self) -> None:
        self.late_ticks = 0

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def sleep_until_ns(self, deadline_ns: int) -> int:
        wait_ns = deadline_ns - time.monotonic_ns()
        if wait_ns < 0:
            self.late_ticks += 1
        else:
            time.sleep(wait_ns / NS)
        return max(0, time.monotonic_ns() - deadline_ns) if wait_ns < 0 else 0


class SteppedClock:
    """Simulated time. ``sleep_until_ns`` runs the world up to the deadline and returns at once."""

    def __init__(self, advance: Advance, start_ns: int = 0) -> None:
        self._advance = advance
        self._now_ns = start_ns
        self.late_ticks = 0

    def now_ns(self) -> int:
        return self._now_ns

    def set_now_ns(self, now_ns: int) -> None:
        """The world says where it is on its way, so that a sink that it calls reads the time of its reading."""
        self._now_ns = max(self._now_ns, now_ns)

    def restart(self) -> None:
        """A new scene begins at time 0: what happens in it does not depend on what was simulated before."""
        self._now_ns = 0

    def sleep_until_ns(self, deadline_ns: int) -> int:
        if deadline_ns > self._now_ns:
            self._advance(deadline_ns)
            self._now_ns = deadline_ns
        return 0


class PacedClock:
    """Simulated time held to the machine's: the world is advanced in real time while a loop sleeps.

    Times are the machine's monotonic time, so recordings made on the twin and by drivers read alike. While a loop
    sleeps the world is advanced in slices, so that cameras expose when they are due and not all at the end.
    """

    def __init__(self, advance: Advance, start_ns: int, slice_s: float = 0.005) -> None:
        self._advance = advance
        self._slice_ns = int(slice_s * NS)
        self._world_ns = start_ns
        self.late_ticks = 0
        self.worst_late_ns = 0

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def sleep_until_ns(self, deadline_ns: int) -> int:
        late_ns = max(0, time.monotonic_ns() - deadline_ns)
        if late_ns:
            self.late_ticks += 1
            self.worst_late_ns = max(self.worst_late_ns, late_ns)
        while True:
            # Up to real time at least, in slices of real time after that; never into the future.
            now_ns = time.monotonic_ns()
            target_ns = max(now_ns, min(deadline_ns, self._world_ns + self._slice_ns))
            if target_ns > now_ns:
                time.sleep((target_ns - now_ns) / NS)
            if target_ns > self._world_ns:
                self._advance(target_ns)
                self._world_ns = target_ns
            if self._world_ns >= deadline_ns:
                return late_ns
