"""Success as the paper counts it: the object is lifted by 10 cm and held."""

from __future__ import annotations

from dataclasses import dataclass

from ..clock import NS
from ..errors import BadInput
from ..values import ArmState, HandState
from .world import TwinWorld


@dataclass(frozen=True)
class LiftConfig:
    """What counts as lifted."""

    height_m: float = 0.10
    """How far above where it stood."""
    hold_s: float = 1.0
    """How long without a break."""

    def __post_init__(self) -> None:
        if self.height_m <= 0 or self.hold_s < 0:
            raise BadInput(
                f"lift of {self.height_m} m for {self.hold_s} s: expected a height above 0 and a time from 0"
            )


class LiftSuccess:
    """Watches one object. Subscribe it to the robot (``world.robot.subscribe(success)``), or call ``update``."""

    def __init__(self, world: TwinWorld, index: int, config: LiftConfig | None = None) -> None:
        self._world, self._index = world, index
        self.config = config or LiftConfig()
        world.object_pose(index)  # an index that does not exist is refused here, not in the middle of an episode
        self._since_ns: int | None = None
        self.achieved = False  # stays True once reached
        self.highest_m = 0.0

    def __call__(self, reading: ArmState | HandState) -> None:
        self.update(reading.captured_ns)

    def update(self, now_ns: int) -> bool:
        """Look at the object now; True from when it has been held up for long enough."""
        lift = self._world.object_lift_m(self._index)
        self.highest_m = max(self.highest_m, lift)
        # Held by the hand, not thrown or left lying on something high.
        if lift < self.config.height_m or not self._world.hand_contacts(self._index):
            self._since_ns = None
        elif self._since_ns is None:
            self._since_ns = now_ns
        if self._since_ns is not None and now_ns - self._since_ns >= self.config.hold_s * NS:
            self.achieved = True
        return self.achieved
