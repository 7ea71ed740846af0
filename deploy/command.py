"""``cli.py deploy``: an instruction goes in, objects end up in the bin."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

from ..hardware.errors import BadInput, DexLoopError
from .planner.vlm_config import VlmConfig

if TYPE_CHECKING:
    from ..hardware.interfaces import Robot
    from ..hardware.twin.scene_spec import SceneSpec
    from ..hardware.twin.world import TwinWorld
    from ..train.controller.policy import ControllerPolicy
    from .manual import ManualPlanner
    from .planner.base import Planner
    from .recording import RollOuts
    from .rig import Rig
    from .session import SessionResult

SHIPPED_POLICY = Path(__file__).parent / "policy"
CLEAR = "clear the table"
MARKED = "what is marked by hand"


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
    manual: bool = False
    """Nobody needs to understand anything: draw a box around what is to be taken, on a page in a web browser."""
    manual_port: int = 0
    """Port of that page on this machine, 127.0.0.1. 0: a free one; the address is printed."""
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
    record: str = ""
    """Record every attempt as an episode of this data set: a name under recordings/, or a path."""
    real_time: bool = True
    """Hold the twin to real time, and plan chunks while it moves. Otherwise simulated time, as fast as it goes."""
    camera_size: tuple[int, int] = (320, 240)
    """Width and height of the twin's pictures."""
    out: Path | None = None
    """Folder of the report. Not given: outputs/deploy_<date>_<time>."""

    def run(self) -> int:
        """Returns the exit code: 0 when the instruction was carried out. Whatever happens, a report says why."""
        folder = self._checked()
        from ..hardware.twin.scenes import sample_scene
        from .report import write_report
        from .session import Event, SessionResult

        run = _Run(SessionResult(self.instruction or (MARKED if self.manual else CLEAR)), {"deploy": asdict(self)})
        try:
            self._session(sample_scene(self.seed, self.split, self.objects), folder, run)
        except DexLoopError as error:  # before the robot was ready, or while the recording was saved
            run.result.end, run.result.reason = None, str(error)
            run.result.events.append(Event(run.result.seconds, "error", str(error)))
            raise
        finally:
            page = write_report(folder, run.result, run.about, run.rate_hz)
            grasped = ", ".join(run.result.grasped) or "nothing"
            print(f"{run.result.why.rstrip('.')}. Grasped: {grasped}.\nLook at {page}.", flush=True)
        return 0 if run.result.end is not None and run.result.end.name == "DONE" else 1

    def _checked(self) -> Path:
        """The report's folder. Raises BadInput for what can be seen to be wrong before anything is built."""
        if not 1 <= self.objects <= 6:
            raise BadInput(f"--objects is {self.objects}: expected 1 to 6.")
        if min(self.camera_size) < 120:
            raise BadInput(f"--camera-size is {self.camera_size}: expected at least 160 x 120.")
        if not self.policy.is_dir():
            raise BadInput(f"--policy {self.policy} holds no controller: there is no such folder; `train` makes one.")
        if self.manual and (self.instruction or self.planner != "offline"):
            raise BadInput("--manual goes without --instruction and --planner: the drawn box says what to take.")
        if not 0 <= self.manual_port < 65536:
            raise BadInput(f"--manual-port is {self.manual_port}: expected 0 to 65535.")
        folder = self.out or Path("outputs") / f"deploy_{datetime.now():%Y%m%d_%H%M%S}"
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise BadInput(f"--out {folder} is not an empty folder: choose another, nothing is written over.")
        return folder

    def _session(self, scene: SceneSpec, folder: Path, run: _Run) -> None:
        from .report import VIDEO, Video
        from .session import SessionConfig

        run.about["scene"] = scene.to_json()
        policy = self._policy()
        run.rate_hz = rate_hz = policy.config.action.rate_hz
        run.about["controller"] = policy.config.to_json()
        with ExitStack() as stack:
            page, planner = None, self._planner(stack)
            rig, _ = stack.enter_context(self._rig(scene, rate_hz))
            stack.enter_context(stopping_first(rig.robot))
            if planner is None:
                planner = page = self._page(stack, rig)
            record = self._record(stack, rig, run.about) if self.record else None
            video = stack.enter_context(Video(folder / VIDEO, rate_hz))
            config = SessionConfig(self.attempts, place=self.place)
            watch, tell = _both(video.add, page.see if page else None), _both(_tell, page.tell if page else None)
            session = rig.session(policy, planner, config, watch, tell, _asker(), record)
            try:
                session.run(run.result.prompt)
            finally:
                run.result = session.result
                if page is not None:
                    page.end(run.result.why)

    def _policy(self) -> ControllerPolicy:
        import torch

        from ..train.controller.checkpoint import load_controller
        from ..train.controller.policy import ControllerPolicy

        torch.set_num_threads(1)  # the twin, the cameras and the loop want the other cores
        return ControllerPolicy(load_controller(self.policy), self.seed)

    def _rig(self, scene: SceneSpec, rate_hz: float) -> AbstractContextManager[tuple[Rig, TwinWorld]]:
        from .rig import twin_rig

        return twin_rig(scene, self.camera_size, rate_hz, self.real_time)

    def _planner(self, stack: ExitStack) -> Planner | None:
        """None where a person is the planner, who needs the rig's cameras."""
        if self.manual:
            return None
        if self.planner == "offline":
            from .planner.offline import OfflinePlanner

            return OfflinePlanner()
        from .planner.vlm import connect

        vlm = connect(self.vlm)
        stack.callback(vlm.close)
        return vlm

    def _page(self, stack: ExitStack, rig: Rig) -> ManualPlanner:
        from .eyes import Eyes
        from .manual import ManualPlanner
        from .page import Page

        page = Page(self.manual_port, lambda: _stop_now(rig.robot))
        stack.callback(page.close)
        _tell(f"Draw the box at {page.address}")
        return ManualPlanner(page, Eyes(rig.robot, rig.cameras, rig.tracker).look)

    def _record(self, stack: ExitStack, rig: Rig, about: dict[str, Any]) -> RollOuts:
        from ..datasets.home import resolve
        from .recording import RollOuts

        cameras = rig.cameras.values()
        kept = RollOuts(resolve(self.record), rig.robot, cameras, rig.rate_hz, about, self.seed, _tell)
        return stack.enter_context(kept)


@dataclass
class _Run:
    """What is told of a run, however it ends."""

    result: SessionResult
    about: dict[str, Any]
    rate_hz: float | None = None


@contextmanager
def stopping_first(robot: Robot) -> Iterator[None]:
    """While it is open, Ctrl-C (and a polite kill) stops the robot before anything else happens: whoever is waited for
    just then, a model or a disk, may take its time afterwards. Outside of the main thread it changes nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        robot.stop()
        os.write(2, b"stopping: the robot was told to stop.\n")  # print might be interrupted in itself
        raise KeyboardInterrupt

    kept = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _stop_now(robot: Robot) -> None:
    """As Ctrl-C, from another thread."""
    robot.stop()
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGINT)  # wakes it where it waits


def _both[T](first: Callable[[T], None], second: Callable[[T], None] | None) -> Callable[[T], None]:
    if second is None:
        return first

    def call(value: T) -> None:
        first(value)
        second(value)

    return call


def _tell(line: str) -> None:
    print(line, flush=True)


def _asker() -> Callable[[str], str]:
    """Puts a question to the user where there is one."""
    if not sys.stdin.isatty():
        return lambda question: ""

    def ask(question: str) -> str:
        with contextlib.suppress(EOFError):
            return input(f"{question} ")
        return ""

    return ask
