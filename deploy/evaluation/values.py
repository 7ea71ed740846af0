"""What a trial is and what comes of it, as plain values that go through JSON."""

from __future__ import annotations

import math
import types
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

from ...hardware.errors import BadInput
from ..planner.vlm_config import VlmConfig
from .sources import MaskSource, check_source
from .suites import Row

PlannerName = Literal["offline", "vlm", "oracle"]


@dataclass(frozen=True)
class TrialSettings:
    """Everything that a result depends on, apart from the scene."""

    policy: str  # folder of the controller; "" where none is asked
    planner: PlannerName = "offline"
    masks: MaskSource = "tracked"
    attempts: int = 3
    seconds: float = 25.0  # longest attempt
    camera_size: tuple[int, int] = (320, 240)
    objects: str = ""  # folder of other people's object models; "" = our own
    objects_unit: Literal["m", "cm", "mm", "inch"] = "m"  # of their mesh files
    videos: str = ""  # folder of the films of failures; "" = none
    vlm: VlmConfig | None = None  # of the planner ``vlm``
    depth: Literal["on", "off"] = "on"  # off: every depth pixel that the policy is given is invalid
    temperature: float | None = None  # of the policy's samples; None = its own
    sample_steps: int | None = None  # of the policy's samples; None = its own
    disturb: bool = False  # the target is moved while the hand reaches for it

    def __post_init__(self) -> None:
        check_source(self.masks)
        if self.planner not in get_args(PlannerName):
            raise BadInput(f"planner is {self.planner!r}: expected one of {', '.join(get_args(PlannerName))}.")
        if (self.planner == "vlm") != (self.vlm is not None):
            raise BadInput(
                f"planner is {self.planner!r}, vlm {self.vlm}: expected an endpoint for vlm, and only for it."
            )
        if self.depth not in ("on", "off"):
            raise BadInput(f"depth is {self.depth!r}: expected on or off.")
        if self.temperature is not None and not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise BadInput(f"temperature is {self.temperature}: expected 0 or more.")
        if self.sample_steps is not None and not 1 <= self.sample_steps <= 1000:
            raise BadInput(f"sample_steps is {self.sample_steps}: expected 1 to 1000.")
        if not 1 <= self.attempts <= 10:
            raise BadInput(f"attempts is {self.attempts}: expected 1 to 10.")
        if not 1.0 <= self.seconds <= 120.0:
            raise BadInput(f"seconds is {self.seconds}: expected 1 to 120 s for one attempt.")
        if min(self.camera_size) < 120:
            raise BadInput(f"camera_size is {self.camera_size}: expected at least 160 x 120.")


@dataclass(frozen=True)
class Trial:
    """One scene to be tried: what an executor hands out."""

    settings: TrialSettings
    row: Row


class Record:
    """A result as JSON and back. For dataclasses."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Raises BadInput where the fields are not those of this version."""
        try:
            return _build(cls, data)
        except (TypeError, KeyError, ValueError) as error:
            raise BadInput(
                f"this is no result of a trial ({error}): another version wrote it; evaluate into a new folder."
            ) from error


@dataclass(frozen=True)
class AttemptScore:
    """One attempt, against the truth."""

    number: int  # of this instruction or this object, whichever is more, from 1
    instruction: str
    aimed: int  # the object that the planner's box means; -1 none
    iou: float  # of the planner's box with that object's
    ending: str  # what the loop took it for: held, empty, lost, timeout; "" when there was no attempt
    success: bool  # aimed object lifted 10 cm and held 1 s, before the next attempt began
    reason: str  # why not, "" when it did
    highest_m: float
    seconds: float  # of the rig's time
    ticks: int
    changed: int  # commands that SafeRobot changed


@dataclass(frozen=True)
class PlannerScore:
    """How often the planner was asked and right."""

    proposals: int = 0
    proposals_right: int = 0  # what was aimed at was wanted and on the table; or nothing was left, truly
    boxes: int = 0
    boxes_right: int = 0  # IoU > 0.5 with the object that was meant, and that one wanted
    verdicts: int = 0
    verdicts_right: int = 0  # whether it is held
    completions: int = 0
    completions_right: int = 0  # whether the prompt is done
    questions: int = 0


@dataclass(frozen=True)
class Timing:
    """What depends on the machine; the rest of a result does not."""

    wall_s: float = 0.0
    chunk_ms_median: float = 0.0
    chunk_ms_p95: float = 0.0
    late_ticks: int = 0
    overdue_chunks: int = 0


@dataclass(frozen=True)
class TrialResult(Record):
    """One scene, tried."""

    id: str
    seed: int
    factor: str
    background: str
    lighting: str
    objects: int
    family: str  # of the target; "" where the prompt wants several
    noun: str
    colour: str
    prompt: str
    wanted: int  # how many objects the prompt means
    at_attempt: int  # the first by which all that is wanted had been lifted and held; 0 = never
    lifted: int  # wanted objects that were lifted 10 cm and held 1 s
    placed: int  # wanted objects in the bin at the end
    wrong: int  # other objects that were lifted and held
    end: str  # how the session ended
    reason: str  # why it failed, "" when it did not
    detail: str  # in the program's words, for people
    seconds: float  # of the rig's time
    attempts: tuple[AttemptScore, ...] = ()
    planner: PlannerScore = field(default_factory=PlannerScore)
    timing: Timing = field(default_factory=Timing)
    disturbed_m: float = 0.0  # how far the target was moved during the reach; 0 = it was not

    def success_at(self, attempts: int) -> bool:
        """Whether so many attempts (per object) were enough."""
        return 0 < self.at_attempt <= attempts


def _build[T](kind: type[T], data: dict[str, Any]) -> T:
    """A dataclass from parsed JSON: lists become tuples, dictionaries their dataclasses."""
    hints = get_type_hints(kind)
    names = {entry.name for entry in fields(kind)}  # type: ignore[arg-type]
    if set(data) != names:
        raise KeyError(f"fields {sorted(set(data) ^ names)}")
    return kind(**{name: _value(hints[name], data[name]) for name in data})


def _value(kind: Any, value: Any) -> Any:
    if isinstance(kind, type) and not isinstance(kind, types.GenericAlias) and hasattr(kind, "__dataclass_fields__"):
        return _build(kind, value)
    if get_origin(kind) is tuple:
        return tuple(_value(get_args(kind)[0], item) for item in value)
    return value
