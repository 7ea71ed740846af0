"""Where trials run: the same results whatever the workers; what fails, hangs or dies is named and stops no other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from dexloop.deploy.evaluation.executor import (
    Failure,
    ProcessExecutor,
    RayExecutor,
    SerialExecutor,
    attempt,
    make_executor,
)
from dexloop.deploy.evaluation.store import ResultFolder, digest_of_code, manifest_of, run_rows
from dexloop.deploy.evaluation.suites import Row
from dexloop.deploy.evaluation.values import TrialResult, TrialSettings
from dexloop.hardware.errors import BadInput
from dexloop.tests.evaluation_fixtures import SETTINGS, fake_trial, rows, troubled, untimed

MANIFEST = {"format": 1, "suite": "fake", "attempts": 3}


def test_processes_give_what_one_gives_and_name_what_failed() -> None:
    jobs = [1, 2, 3, 4, 5, 6]
    found = dict(ProcessExecutor(2, timeout_s=3.0).run(troubled, jobs))
    assert sorted(found) == list(range(6))
    assert [found[k] for k in (0, 1, 5)] == [(1, "1"), (4, "1"), (36, "1")]  # one BLAS thread each
    assert found[2] == Failure("the camera is gone")
    assert found[3] == Failure("given up after 3 s")
    assert found[4] == Failure("its process died with exit code 9")


def test_a_wrong_request_is_raised() -> None:
    for executor in (SerialExecutor(), ProcessExecutor(1)):
        with pytest.raises(BadInput, match="no such thing"):
            list(executor.run(troubled, [7, 7]))


def test_a_worker_whose_master_was_killed_ends_without_a_word() -> None:
    """It finds nobody at the other end when its second job is done."""
    program = (
        "import subprocess\n"
        "from dexloop.deploy.evaluation.executor import ProcessExecutor\n"
        "if __name__ == '__main__':\n"
        "    for _ in ProcessExecutor(1).run(subprocess.getoutput, ['true', 'sleep 1']):\n"
        "        print('one', flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as master:
        assert master.stdout is not None
        assert master.stdout.readline() == "one\n"
        master.kill()
        _, said = master.communicate(timeout=60)
    assert said == ""


def test_a_surprise_is_a_failure_that_says_where() -> None:
    found = attempt(lambda job: 1 / job, 0)
    assert isinstance(found, Failure)
    assert "ZeroDivisionError" in found.message
    assert "test_evaluation_executor.py" in found.message


def test_results_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    scenes = rows(9)
    one, none = run_rows(ResultFolder(tmp_path / "1", MANIFEST), scenes, SETTINGS, SerialExecutor(), fake_trial)
    two, _ = run_rows(ResultFolder(tmp_path / "2", MANIFEST), scenes, SETTINGS, ProcessExecutor(2), fake_trial)
    assert not none
    assert [untimed(result) for result in one] == [untimed(result) for result in two]
    assert [result.id for result in two] == [row.id for row in scenes]


def test_an_evaluation_goes_on_where_it_was(tmp_path: Path) -> None:
    scenes = rows(6)
    run_rows(ResultFolder(tmp_path, MANIFEST), scenes[:4], SETTINGS, SerialExecutor(), fake_trial)
    asked: list[str] = []

    class Noting(SerialExecutor):
        def run(self, function, jobs):  # type: ignore[no-untyped-def]
            asked.extend(job.row.id for job in jobs)
            return super().run(function, jobs)

    told: list[str] = []

    def done(row: Row, result: TrialResult | Failure) -> None:
        told.append(row.id)

    found, _ = run_rows(ResultFolder(tmp_path, MANIFEST), scenes, SETTINGS, Noting(), fake_trial, done)
    assert asked == ["scene-004", "scene-005"]
    assert sorted(told) == [row.id for row in scenes]
    assert len(found) == 6
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_folder_with_other_settings_is_refused(tmp_path: Path) -> None:
    ResultFolder(tmp_path, MANIFEST)
    ResultFolder(tmp_path, dict(MANIFEST))
    with pytest.raises(BadInput, match="attempts was 3, is now 1"):
        ResultFolder(tmp_path, MANIFEST | {"attempts": 1})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("precious")
    with pytest.raises(BadInput, match="not empty"):
        ResultFolder(tmp_path / "other", MANIFEST)


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    scenes = rows(1)
    folder = ResultFolder(tmp_path, MANIFEST)
    run_rows(folder, scenes, SETTINGS, SerialExecutor(), fake_trial)
    path = tmp_path / "scenes" / "scene-000.json"
    whole = json.loads(path.read_text())
    path.write_text(path.read_text()[:50])
    with pytest.raises(BadInput, match="scene-000.json is damaged"):
        folder.result(scenes[0])
    del whole["reason"]
    path.write_text(json.dumps(whole))
    with pytest.raises(BadInput, match="another version"):
        folder.result(scenes[0])


def test_the_manifest_is_of_the_policys_bytes_not_of_its_place(tmp_path: Path) -> None:
    scenes = rows(2)
    manifests = []
    for name, weights in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(weights)
        manifests.append(manifest_of("fake", "0", scenes, TrialSettings(str(folder))))
    assert manifests[0] == manifests[1] != manifests[2]
    with pytest.raises(BadInput, match="holds no controller"):
        manifest_of("fake", "0", scenes, TrialSettings(str(tmp_path)))


def test_results_of_other_code_are_not_gone_on_with(tmp_path: Path) -> None:
    """A weight of the planner's network changes, or a line of code; what else lies about does not matter."""
    planner = tmp_path / "deploy" / "planner"
    planner.mkdir(parents=True)
    (planner / "net.safetensors").write_bytes(b"1")
    (planner / "see.py").write_text("x = 1\n")
    digests = [digest_of_code(tmp_path)]
    (planner / "see.pyc").write_bytes(b"compiled")
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "a.json").write_text("{}")
    digests.append(digest_of_code(tmp_path))
    (planner / "net.safetensors").write_bytes(b"2")
    digests.append(digest_of_code(tmp_path))
    (planner / "see.py").rename(planner / "look.py")
    digests.append(digest_of_code(tmp_path))
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    digest = manifest_of("fake", "0", rows(2), TrialSettings(""))["code_digest"]
    ResultFolder(tmp_path / "results", {"code_digest": digest})
    with pytest.raises(BadInput, match="code_digest was"):
        ResultFolder(tmp_path / "results", {"code_digest": digests[0]})


def test_executors_are_chosen_and_wrong_ones_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(make_executor(1, None), SerialExecutor)
    assert make_executor(3, None) == ProcessExecutor(3)
    with pytest.raises(BadInput, match="workers is 0"):
        make_executor(0, None)
    with pytest.raises(BadInput, match="timeout_s"):
        ProcessExecutor(1, 0.0)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BadInput, match="uv sync --extra ray"):
        make_executor(1, "local")


@pytest.mark.slow
def test_a_ray_cluster_gives_what_one_process_gives(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    scenes = rows(5)
    one, _ = run_rows(ResultFolder(tmp_path / "1", MANIFEST), scenes, SETTINGS, SerialExecutor(), fake_trial)
    executor = RayExecutor(cpus=2, timeout_s=20.0)
    ray, _ = run_rows(ResultFolder(tmp_path / "2", MANIFEST), scenes, SETTINGS, executor, fake_trial)
    assert [untimed(result) for result in one] == [untimed(result) for result in ray]
    found = dict(executor.run(troubled, [1, 3, 4, 5]))
    assert found[0] == (1, "1")
    assert found[1] == Failure("the camera is gone")
    assert found[2] == Failure("given up after 20 s")
    assert isinstance(found[3], Failure)  # it kills its worker each time it is tried
    with pytest.raises(BadInput, match="no such thing"):
        list(executor.run(troubled, [7]))
