"""kill -9 at random moments of a recording session: what is lost?

A session process records short episodes in real time (two cameras at 30 fps, arm at 100 Hz, hand at 30 Hz, each source
in its own thread), aligns each, appends it to a LeRobot set, compacts its journal, and begins the next. It is killed
at a uniformly random moment and another is started on the same set, after ``repair``. After every kill:

- no episode that had been reported as saved may be missing or differ by a byte;
- ``check`` must pass after ``repair``;
- of the episode that was running, every stream in the journal may lack 0.5 s at most: the time from the newest
  reading in the journal to the newest that had been captured, which the session notes in memory that outlives it.
"""

from __future__ import annotations

import contextlib
import functools
import json as jsonlib
import multiprocessing
import os
import random
import signal
import tempfile
import time
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from dexloop.benchmarks.synthetic_rig import SyntheticCamera, ThreadedRig, draw_frames
from dexloop.datasets.align import align
from dexloop.datasets.check import run_check
from dexloop.datasets.episode import EpisodeInfo
from dexloop.datasets.home import journals_dir
from dexloop.datasets.journal import JournalReader, compact
from dexloop.datasets.layout import data_file, is_dataset, video_file
from dexloop.datasets.recorder import TARGET_KEY, Recorder
from dexloop.datasets.repair import repair
from dexloop.datasets.schema import CameraSchema, Schema
from dexloop.datasets.writer import DatasetWriter
from dexloop.hardware.clock import NS
from dexloop.hardware.errors import DexLoopError
from dexloop.hardware.values import ArmState, Command, Frame, HandState
from numpy.typing import NDArray

CAMERAS = ("head", "wrist")
STREAMS = (*CAMERAS, "arm", "hand")
RATE_HZ = 20
LIMIT_S = 0.5
TARGET = 1


@dataclass(frozen=True)
class KillBenchmark:
    """Kill a recording session many times and look at what is left."""

    kills: int = 200
    """How often."""
    life_s: float = 4.0
    """Longest time that a session lives."""
    episode_s: float = 1.0
    """Mean length of an episode: short, so that many kills fall into saving."""
    width: int = 640
    """Width of the pictures; the height follows as 3/4 of it."""
    kills_per_set: int = 20
    """Sessions that append to one set before a new one is begun."""
    seed: int = 0
    """Of the moments and lengths."""
    json: bool = False
    """Print one JSON object as the last line."""


@dataclass
class Tally:
    """What was found."""

    kills: int = 0
    killed_recording: int = 0  # while frames came in
    killed_saving: int = 0  # between the last frame and the report that the episode was saved
    killed_idle: int = 0
    saved: int = 0  # episodes that were reported as saved
    lost: int = 0  # of these, missing or changed afterwards
    repaired: int = 0  # times that check found something to repair
    check_failures: int = 0  # times that check did not pass after repair
    unreadable_journals: int = 0
    missing_s: list[float] = field(default_factory=list)  # of a running episode, in the stream that lost most
    problems: list[str] = field(default_factory=list)


def session(root: Path, log: Path, width: int, episode_s: float, seed: int) -> None:
    """Record episode after episode until killed, writing down in ``log`` what has been done."""
    rng = random.Random(seed)
    pictures = draw_frames(20, width, width * 3 // 4, seed)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def report(**values: object) -> None:
        os.write(descriptor, jsonlib.dumps(values).encode() + b"\n")

    views = tuple(CameraSchema(name, width, width * 3 // 4) for name in CAMERAS)
    writer = DatasetWriter(root, Schema(RATE_HZ, views))
    journals_dir(root).mkdir(parents=True, exist_ok=True)
    target = np.zeros(pictures[0].shape[:2], np.int32)
    target[40:80, 60:120] = TARGET
    cameras = [SyntheticCamera(name, pictures, segmentation=[target]) for name in CAMERAS]
    with ThreadedRig(cameras) as rig:
        note_captures(rig, captures_file(log))
        report(event="ready")
        for number in range(1_000_000):
            journal = journals_dir(root) / f"{os.getpid()}-{number:03d}.journal.h5"
            recorder = Recorder(rig.robot, cameras, journal)
            recorder.begin(EpisodeInfo("pick up the red cup", success=True, extra={TARGET_KEY: TARGET}))
            start_ns = rig.clock.now_ns()
            report(event="begin", journal=str(journal), begin_ns=start_ns)
            for tick in range(max(4, round(rng.uniform(0.3, 1.7) * episode_s * RATE_HZ))):
                rig.clock.sleep_until_ns(start_ns + round((tick + 1) * NS / RATE_HZ))
                command = Command(rig.clock.now_ns(), np.full(7, tick / 1000), np.ones(6))
                recorder.command(command, rig.robot.send(command))
            recorder.end()
            report(event="end", end_ns=rig.clock.now_ns())
            episode = align(journal, RATE_HZ, statistics=recorder.statistics_pictures())
            index = writer.append(episode, source=journal.name)
            report(event="saved", index=index, digest=digest(root, index))
            (root / "raw").mkdir(exist_ok=True)
            compact(journal, root / "raw" / f"episode_{index:06d}.h5")
            journal.unlink()
            report(event="done")


def captures_file(log: Path) -> Path:
    """Where a session notes the newest capture time of each stream, in memory that outlives it."""
    return log.with_suffix(".captured")


def note_captures(rig: ThreadedRig, path: Path) -> None:
    """Keep the newest capture time of each of STREAMS in a mapped file, up to date at any moment of a kill."""
    newest = np.memmap(path, np.int64, "w+", shape=(len(STREAMS),))
    for place, camera in enumerate(rig.cameras):
        camera.subscribe(functools.partial(_note_frame, newest, place))
    rig.robot.subscribe(functools.partial(_note_reading, newest))


def _note_frame(newest: NDArray[np.int64], place: int, frame: Frame) -> None:
    newest[place] = frame.captured_ns


def _note_reading(newest: NDArray[np.int64], reading: ArmState | HandState) -> None:
    newest[STREAMS.index("arm" if isinstance(reading, ArmState) else "hand")] = reading.captured_ns


def digest(root: Path, index: int) -> list[int]:
    """Checksums of an episode's files."""
    files = [data_file(index), *(video_file(f"observation.images.{name}", index) for name in CAMERAS)]
    return [zlib.crc32((root / name).read_bytes()) for name in files]


def kill_once(root: Path, saved: dict[int, list[int]], life_s: float, options: KillBenchmark, tally: Tally) -> None:
    """One session: start it, let it live, kill it, look at what is left."""
    log = root.parent / f"{root.name}.log"
    log.unlink(missing_ok=True)
    context = multiprocessing.get_context("forkserver")
    child = context.Process(target=session, args=(root, log, options.width, options.episode_s, tally.kills))
    child.start()
    while "ready" not in (log.read_text() if log.exists() else ""):
        if not child.is_alive():
            raise SystemExit(f"the session ended by itself with {child.exitcode}: see above")
        time.sleep(0.005)
    time.sleep(life_s)
    assert child.pid is not None
    if not child.is_alive():
        tally.problems.append(f"kill {tally.kills}: the session had ended by itself with {child.exitcode}")
    with contextlib.suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGKILL)
    child.join()
    tally.kills += 1
    events = [jsonlib.loads(line) for line in log.read_text().splitlines()]
    for event in events:
        if event["event"] == "saved":
            saved[event["index"]] = event["digest"]
            tally.saved += 1
    _look_at_journal(events, log, tally)
    _look_at_set(root, saved, tally)


def _look_at_journal(events: list[dict[str, Any]], log: Path, tally: Tally) -> None:
    """How much of the episode that was running is missing from its journal."""
    last = events[-1]["event"]
    tally.killed_recording += last == "begin"
    tally.killed_saving += last == "end"
    tally.killed_idle += last in ("ready", "saved", "done")
    if last not in ("begin", "end"):
        return
    missing_s: dict[str, float] = {}
    begin = next(event for event in reversed(events) if event["event"] == "begin")
    captured = np.fromfile(captures_file(log), np.int64)
    if last == "end":  # what came after the end belongs to no episode
        captured = np.minimum(captured, events[-1]["end_ns"])
    try:
        with JournalReader(Path(begin["journal"])) as reader:
            for stream, captured_ns in zip(STREAMS, captured.tolist(), strict=True):
                heap = f"cameras/{stream}/colour"
                rows = reader.index(heap) if stream in CAMERAS else reader.table(stream)
                if stream in CAMERAS:
                    reader.payloads(heap, rows)
                newest_ns = int(rows["captured_ns"].max(initial=begin["begin_ns"]))
                missing_s[stream] = max(0, captured_ns - newest_ns) / NS
    except DexLoopError as error:
        tally.unreadable_journals += 1
        tally.problems.append(f"kill {tally.kills}: {error}")
        return
    tally.missing_s.append(max(missing_s.values()))


def _look_at_set(root: Path, saved: dict[int, list[int]], tally: Tally) -> None:
    """Repair and check the set; compare what had been saved."""
    if is_dataset(root) or (root / ".commit").exists():
        tally.repaired += not run_check(root).ok
    report = repair(root)
    if is_dataset(root):
        assert report.check is not None
        if not report.check.ok:
            tally.check_failures += 1
            errors = [str(finding) for finding in report.check.findings if finding.severity == "error"]
            tally.problems.append(f"kill {tally.kills}: after repair: {'; '.join(errors)}")
    for index, expected in saved.items():
        try:
            same = digest(root, index) == expected
        except OSError:
            same = False
        if not same:
            tally.lost += 1
            tally.problems.append(f"kill {tally.kills}: episode {index} of {root.name} is lost or changed")


def run(options: KillBenchmark, folder: Path) -> Tally:
    """All kills."""
    rng = random.Random(options.seed)
    # Sessions are forked from a process that has imported everything and started no thread: a start costs nothing.
    multiprocessing.get_context("forkserver").set_forkserver_preload(["pyarrow.dataset", "dexloop.benchmarks.kill9"])
    tally, saved, root = Tally(), {}, folder
    for kill in range(options.kills):
        if kill % options.kills_per_set == 0:
            root, saved = folder / f"set_{kill // options.kills_per_set}", {}
        kill_once(root, saved, rng.uniform(0.0, options.life_s), options, tally)
    return tally


def main(options: KillBenchmark) -> int:
    """Print what was found; 1 where a promise was broken."""
    with tempfile.TemporaryDirectory() as folder:
        tally = run(options, Path(folder))
    missing = np.array(tally.missing_s or [0.0])
    print(
        f"{tally.kills} kills: {tally.killed_recording} while recording, {tally.killed_saving} while saving, "
        f"{tally.killed_idle} otherwise\n"
        f"episodes saved {tally.saved}, lost or changed {tally.lost}\n"
        f"check found damage {tally.repaired} times, {tally.check_failures} times also after repair\n"
        f"journals unreadable {tally.unreadable_journals}; missing of the running episode: median "
        f"{np.median(missing):.3f} s, largest {missing.max():.3f} s (limit {LIMIT_S} s)"
    )
    for problem in tally.problems:
        print(problem)
    good = not (tally.lost or tally.check_failures or tally.unreadable_journals) and missing.max() <= LIMIT_S
    if options.json:
        print(jsonlib.dumps({"benchmark": "kill9", "options": asdict(options), "ok": bool(good), **asdict(tally)}))
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(KillBenchmark)))
