"""The pool of processes that records and rehearses."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dexloop.collect.parallel import processes
from dexloop.hardware.errors import DeviceError

PARENT = """
import os, sys, time
from dexloop.collect.parallel import processes
if __name__ == "__main__":
    with processes(2) as pool:
        print(*{pool.submit(os.getpid).result() for _ in range(8)}, flush=True)
        time.sleep(60)
"""


def alive(pid: int) -> bool:
    path = Path(f"/proc/{pid}/stat")
    return path.exists() and path.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at /proc")
def test_a_killed_parent_leaves_no_processes(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert workers
        assert all(map(alive, workers))
        parent.kill()
    until = time.monotonic() + 20
    while any(map(alive, workers)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(alive, workers))


def test_a_process_that_dies_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(DeviceError, match="fewer --workers"), processes(1) as pool:
        pool.submit(os._exit, 3).result()


def test_each_has_one_numerical_thread_and_the_parent_is_left_as_it_was() -> None:
    before = dict(os.environ)
    with processes(1) as pool:
        assert pool.submit(os.getenv, "LP_NUM_THREADS").result() is not None
    assert dict(os.environ) == before
