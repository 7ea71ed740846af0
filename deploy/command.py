"""``cli.py deploy``: an instruction goes in, objects end up in the bin."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..hardware.errors import BadInput
from .planner.vlm_config import VlmConfig

if TYPE_CHECKING:
    from ..hardware.twin.scene_spec import SceneSpec
    from .planner.base import Planner
    from .session import SessionResult

SHIPPED_POLICY = Path(__file__).parent / "policy"


@dataclass(frozen=True)
class Deploy:
    """Pick up what is asked for: planner, target mask, learnt controller, in a closed loop."""

    instruction: str = ""
    """What to do: "the red cup on the right", "clear the table", "所有绿色的物体". Not given: clear the table."""
    planner: Literal["offline", "vlm"] = "offline"
    """Who understands it: offline (geometry and colours, no weights), or vlm (a vision-language model behind an
    OpenAI-compatible endpoint, see --vlm.*)."""
    vlm: VlmConfig = field(default_factory=VlmConfig)
    """The vision-language model's endpoint."""
    policy: Path = SHIPPED_POLICY
    """Folder of the controller: config.json and model.safetensors. Not given: the one that comes with DexLoop."""
    robot: Literal["twin"] = "twin"
    """What moves: twin, the MuJoCo model of the rig."""
    seed: int = 0
    """Of the twin's scene."""
    objects: int = 4
    """Objects on the twin's table, 1 to 6."""
    split: Literal["train", "validation", "test"] = "test"
    """Which objects, backgrounds and lightings the twin draws from."""
    attempts: int = 3
    """Attempts per object."""
    place: bool = True
    """Put into the bin what was lifted; otherwise stop with the first object in the hand."""
    real_time: bool = True
    """Hold the twin to real time, and plan chunks while it moves. Otherwise simulated time, as fast as it goes."""
    camera_size: tuple[int, int] = (320, 240)
    """Width and height of the twin's pictures."""
    out: Path | None = None
    """Folder of the report. Not given: outputs/deploy_<date>_<time>."""

    def run(self) -> int:
        """Returns the exit code: 0 when the instruction was carried out."""
        if not 1 <= self.objects <= 6:
            raise BadInput(f"--objects is {self.objects}: expected 1 to 6.")
        if min(self.camera_size) < 120:
            raise BadInput(f"--camera-size is {self.camera_size}: expected at least 160 x 120.")

        from ..hardware.twin.scenes import sample_scene

        folder = self.out or Path("outputs") / f"deploy_{datetime.now():%Y%m%d_%H%M%S}"
        if (folder / "report.html").exists():
            raise BadInput(f"{folder} holds a report already: choose another --out.")
        scene = sample_scene(self.seed, self.split, self.objects)
        result = self._session(scene, folder)
        return 0 if result.end is not None and result.end.name == "DONE" else 1

    def _session(self, scene: SceneSpec, folder: Path) -> SessionResult:
        import torch

        from ..train.controller.checkpoint import load_controller
        from ..train.controller.policy import ControllerPolicy
        from .report import VIDEO, Video, write_report
        from .rig import twin_rig
        from .session import SessionConfig

        torch.set_num_threads(1)  # the twin, the cameras and the loop want the other cores
        policy = ControllerPolicy(load_controller(self.policy), self.seed)
        rate_hz = policy.config.action.rate_hz
        about: dict[str, Any] = {
            "deploy": asdict(self),
            "controller": policy.config.to_json(),
            "scene": scene.to_json(),
        }
        with contextlib.ExitStack() as stack:
            planner = self._planner(stack)
            rig, _ = stack.enter_context(twin_rig(scene, self.camera_size, rate_hz, self.real_time))
            video = stack.enter_context(Video(folder / VIDEO, rate_hz))
            config = SessionConfig(self.attempts, place=self.place)
            session = rig.session(policy, planner, config, video.add, _tell, _asker())
            result = session.run(self.instruction or "clear the table")
        page = write_report(folder, result, about)
        grasped = ", ".join(result.grasped) or "nothing"
        print(f"{result.end.value if result.end else 'stopped'}; grasped: {grasped}.\nLook at {page}.")
        return result

    def _planner(self, stack: contextlib.ExitStack) -> Planner:
        if self.planner == "offline":
            from .planner.offline import OfflinePlanner

            return OfflinePlanner()
        from .planner.vlm import connect

        vlm = connect(self.vlm)
        stack.callback(vlm.close)
        return vlm


def _tell(line: str) -> None:
    print(line, flush=True)


def _asker() -> Callable[[str], str]:
    """Puts a question to the user where there is one."""
    if not sys.stdin.isatty():
        return lambda question: ""
    return lambda question: input(f"{question} ")
