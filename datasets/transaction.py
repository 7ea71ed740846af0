"""All-or-nothing changes of several files in one data set: a redo log made of renames.

Changed files are written under ``.staging/files/``, each at its final relative path, and flushed to the disk. Renaming
``.staging`` to ``.commit`` is the commit point. After it the files are renamed to their places, ``meta/info.json``
last, and the log is removed. Killed before the commit point nothing has happened; killed after it, doing the same
again (:func:`finish`) completes the change, whichever renames had been done.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from ..hardware.errors import DatasetError

STAGING, COMMIT, PLAN, LOCK = ".staging", ".commit", "plan.json", ".lock"
INFO = "meta/info.json"

Probe = Callable[[str], None]  # called with the name of every step: tests kill there


def _nothing(step: str) -> None:
    """The probe of ordinary use."""


class Transaction:
    """One change of the data set at ``root``. Use under :func:`lock`."""

    def __init__(self, root: Path, what: str, probe: Probe = _nothing) -> None:
        if (root / COMMIT).exists():
            raise DatasetError(f"{root} holds an interrupted change: run `dataset repair` before changing it again.")
        self.root, self.what, self.probe = root, what, probe
        self._install: list[str] = []
        self._remove: list[str] = []
        # What an earlier writer left here was never committed: its episode is still in the journal.
        shutil.rmtree(root / STAGING, ignore_errors=True)
        (root / STAGING / "files").mkdir(parents=True)

    def stage(self, relative: str) -> Path:
        """Where to write the new content of ``relative``."""
        path = self.root / STAGING / "files" / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        if relative not in self._install:
            self._install.append(relative)
        return path

    def stage_text(self, relative: str, text: str) -> None:
        self.stage(relative).write_text(text)

    def stage_link(self, source: Path, relative: str) -> None:
        """``relative`` becomes the file at ``source``: a hard link where the disk allows it, else a copy."""
        target = self.stage(relative)
        try:
            os.link(source, target)
        except OSError:  # exFAT, some network disks, or another device
            shutil.copyfile(source, target)

    def remove(self, relative: str) -> None:
        """Delete ``relative`` when the change is installed."""
        self._remove.append(relative)

    def commit(self) -> None:
        """Flush, pass the commit point, install. After this returns the change is on the disk."""
        staging = self.root / STAGING
        order = sorted(self._install, key=lambda relative: relative == INFO)
        for relative in order:
            sync(staging / "files" / relative)
            self.probe(f"flushed {relative}")
        plan = {"what": self.what, "install": order, "remove": self._remove}
        (staging / PLAN).write_text(json.dumps(plan))
        sync(staging / PLAN)
        _sync_folders(staging)
        self.probe("ready")
        os.rename(staging, self.root / COMMIT)
        sync(self.root)
        try:
            self.probe("committed")
            finish(self.root, self.probe)
        except KeyboardInterrupt:
            finish(self.root)  # Ctrl-C ends the session, not the change: it is a matter of milliseconds
            raise

    def abandon(self) -> None:
        """Forget everything that was staged."""
        shutil.rmtree(self.root / STAGING, ignore_errors=True)


def pending(root: Path) -> str | None:
    """What a committed but unfinished change was about; None when there is none."""
    plan = root / COMMIT / PLAN
    if not plan.exists():
        return "the removal of a finished change's log" if (root / COMMIT).exists() else None
    try:
        return str(json.loads(plan.read_text())["what"])
    except (ValueError, KeyError, OSError):
        return "a change whose plan cannot be read"


def finish(root: Path, probe: Probe = _nothing) -> None:
    """Complete a committed change. Does nothing when there is none; may be called again at any point."""
    commit = root / COMMIT
    if not commit.exists():
        return
    if (commit / PLAN).exists():
        plan = json.loads((commit / PLAN).read_text())
        folders = set()
        for relative in plan["install"]:
            source, target = commit / "files" / relative, root / relative
            folders.add(target.parent)
            if source.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(source, target)
                probe(f"installed {relative}")
            elif not target.exists():
                raise DatasetError(f"{relative} is neither in {commit} nor in its place: restore {root} from a backup.")
        for relative in plan["remove"]:
            (root / relative).unlink(missing_ok=True)
            probe(f"removed {relative}")
        for folder in sorted(folders):
            sync(folder)
        shutil.rmtree(commit / "files", ignore_errors=True)
        probe("cleared")
        (commit / PLAN).unlink()
    shutil.rmtree(commit)
    sync(root)
    probe("finished")


@contextlib.contextmanager
def lock(root: Path) -> Iterator[None]:
    """Hold ``root`` for writing. Raises DatasetError when another process does; a dead one's lock is free."""
    handle = acquire(root)
    try:
        yield
    finally:
        os.close(handle)


def acquire(root: Path) -> int:
    """File descriptor that holds the lock until it is closed, or until this process dies."""
    path = root / LOCK
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(handle, 64).decode("ascii", "replace").strip()
        os.close(handle)
        raise DatasetError(
            f"{root} is being written by process {owner or 'unknown'}: wait until it ends, or record to another set."
        ) from None
    os.ftruncate(handle, 0)
    os.pwrite(handle, str(os.getpid()).encode(), 0)
    return handle


def held_by(root: Path) -> str | None:
    """The process that holds the lock at this moment, if any. Changes nothing."""
    try:
        handle = os.open(root / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return os.read(handle, 64).decode("ascii", "replace").strip() or "unknown"
    finally:
        os.close(handle)


def sync(path: Path) -> None:
    """Flush a file or a folder's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folders(top: Path) -> None:
    for folder, _, _ in os.walk(top):
        sync(Path(folder))
