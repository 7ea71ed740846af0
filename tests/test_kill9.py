"""kill -9 during a recording session: nothing finished is lost, the set passes after repair, the journal is fresh.

The full count of 200 kills is ``benchmarks/kill9.py``; these are a few of the same.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from dexloop.benchmarks.kill9 import LIMIT_S, KillBenchmark, Tally, kill_once, run
from dexloop.datasets.journal import journals
from dexloop.datasets.reader import DatasetReader
from dexloop.datasets.repair import repair

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the session is forked by a server")


def check(tally: Tally) -> None:
    assert not tally.problems
    assert tally.lost == tally.check_failures == tally.unreadable_journals == 0
    assert max(tally.missing_s, default=0.0) <= LIMIT_S


def test_a_few_kills(tmp_path: Path) -> None:
    options = KillBenchmark(kills=3, life_s=2.0, episode_s=0.5, width=160)
    rng, tally, saved = random.Random(1), Tally(), dict[int, list[int]]()
    root = tmp_path / "set"
    for _ in range(options.kills):
        kill_once(root, saved, rng.uniform(0.5, options.life_s), options, tally)
    check(tally)
    assert tally.kills == 3
    # What was cut off can be added: every journal holds rows.
    left = journals(root / "journals")
    before = DatasetReader(root).info["total_episodes"] if saved else 0
    report = repair(root, recover=True)
    assert report.check is not None
    assert report.check.ok
    assert report.kept >= before
    assert report.kept + sum("could not be added" in action for action in report.actions) >= len(saved) + len(left)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_kills(tmp_path: Path) -> None:
    check(run(KillBenchmark(kills=60, life_s=3.0, episode_s=0.7, width=320, seed=2), tmp_path))
