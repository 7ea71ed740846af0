"""Training runs as a user starts, kills, resumes and mistypes them; all on a tiny controller."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from dexloop.datasets.reader import DatasetReader
from dexloop.datasets.writer import DatasetWriter
from dexloop.hardware.errors import BadInput, DatasetError
from dexloop.tests.dataset_fixtures import DEPTH_SCHEMA, SCHEMA, make_episode
from dexloop.tests.training_fixtures import make_data_set, tiny
from dexloop.train.command import TrainController
from dexloop.train.controller.checkpoint import load_controller
from dexloop.train.controller.config import PRESETS
from dexloop.train.controller.dexgraspvla import export_published
from dexloop.train.controller.dino import keep_weights, make_vit
from dexloop.train.run_folder import RunFolder

PROGRAM = """
import json, sys
from pathlib import Path
from dexloop.train.command import TrainController
flags = json.loads(sys.argv[1])
flags |= {"out": Path(flags["out"]), "override": tuple(flags.get("override", ()))}
sys.exit(TrainController(**flags).run())
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def own_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEXLOOP_HOME", str(home))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data_set(tmp_path_factory.mktemp("recorded") / "set")


@pytest.fixture(scope="module")
def whole(data: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of 24 steps."""
    runs = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEXLOOP_HOME", str(home))
        assert tiny(data, runs, steps=24, validate_every=8).run() == 0
    return runs / "run"


def curve(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "elapsed_s"} for line in lines]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def program(command: TrainController, launcher: tuple[str, ...] = ("-c", PROGRAM)) -> subprocess.Popen[str]:
    flags = {key: value for key, value in asdict(command).items() if value is not None}
    flags |= {"out": str(flags["out"])} | ({"init": str(flags["init"])} if "init" in flags else {})
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, *launcher, json.dumps(flags)], env=dict(os.environ), **pipes)


def wait_for_line(process: subprocess.Popen[str], run: Path, step: int) -> None:
    for _ in range(12000):
        metrics = run / "metrics.jsonl"
        if metrics.exists() and f'"step": {step},' in metrics.read_text():
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)
    raise AssertionError("the run did not get there")


# -- what a run makes --------------------------------------------------------------------------------------------------


def test_a_run_leaves_curves_policies_and_what_it_was(whole: Path, data: Path) -> None:
    lines = curve(whole)
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 25))
    checks = [line for line in lines if "validation" in line]
    assert [line["step"] for line in checks] == [8, 16, 24]
    assert checks[-1]["validation"]["loss"] < checks[0]["validation"]["loss"]
    best = min(checks, key=lambda line: line["validation"]["tip_mm_first"])
    about = json.loads((whole / "best/about.json").read_text())
    assert (about["step"], about["validation"]) == (best["step"], best["validation"])
    assert json.loads((whole / "last/about.json").read_text())["step"] == 24
    assert (whole / "curves.png").read_bytes().startswith(b"\x89PNG")
    recipe = json.loads((whole / "data.json").read_text())
    assert not set(recipe["training"]) & set(recipe["validation"])
    assert sorted(recipe["training"] + recipe["validation"]) == list(range(len(DatasetReader(data))))
    assert sorted(path.name for path in (whole / "checkpoints").iterdir()) == ["step_000016", "step_000024"]
    controller = load_controller(whole / "best")
    assert json.loads(json.dumps(controller.config.to_json())) == json.loads((whole / "config.json").read_text())


def test_the_policy_on_disk_has_the_averaged_weights(whole: Path) -> None:
    state = torch.load(whole / "checkpoints/step_000024/training_state.pt", weights_only=True)
    last = load_controller(whole / "last").state_dict()
    assert all(torch.equal(last[name], tensor) for name, tensor in state["average"].items())
    assert any(not torch.equal(last[name], state["model"][name]) for name in state["average"])


def test_the_same_seed_gives_the_same_run_and_another_does_not(whole: Path, data: Path, tmp_path: Path) -> None:
    assert tiny(data, tmp_path, steps=24, validate_every=8).run() == 0
    assert curve(tmp_path / "run") == curve(whole)
    assert tiny(data, tmp_path, steps=2, seed=1, name="other").run() == 0
    assert curve(tmp_path / "other")[0]["loss"] != curve(whole)[0]["loss"]


def test_minutes_plan_the_steps_and_end_the_run(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert tiny(data, tmp_path, minutes=0.02).run() == 0
    settings = json.loads((tmp_path / "run/settings.json").read_text())
    steps = [line for line in curve(tmp_path / "run") if "loss" in line]
    assert settings["minutes"] == 0.02
    assert 0 < len(steps) <= settings["steps"]
    assert f"are about {settings['steps']} steps" in capfd.readouterr().out
    assert curve(tmp_path / "run")[-1]["validation"]  # also where the clock ended it


def test_weights_of_another_run_begin_a_new_one(whole: Path, data: Path, tmp_path: Path) -> None:
    assert tiny(data, tmp_path, init=whole, override=(), steps=1, objective="ddim").run() == 0
    before, after = load_controller(whole / "best"), load_controller(tmp_path / "run/last")
    assert after.config.objective.kind == "ddim"
    distance = [
        float((a - b).abs().max())
        for a, b in zip(before.state_dict().values(), after.state_dict().values(), strict=True)
    ]
    assert 0 < max(distance) < 2e-3  # one step away, and the normaliser is the checkpoint's
    assert torch.equal(before.space.normalizer.scale, after.space.normalizer.scale)


# -- interrupted -------------------------------------------------------------------------------------------------------


def test_a_killed_run_goes_on_to_the_identical_curve(whole: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = program(tiny(data, tmp_path, steps=24, validate_every=8))
    wait_for_line(process, run, 11)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    killed_at = max(line["step"] for line in curve(run))
    assert 11 <= killed_at < 24
    assert tiny(data, tmp_path, resume=True).run() == 0
    assert curve(run) == curve(whole)
    for folder in ("best", "last"):
        assert contents(run / folder)["model.safetensors"] == contents(whole / folder)["model.safetensors"]


def test_ctrl_c_saves_and_says_how_to_go_on(whole: Path, data: Path, tmp_path: Path) -> None:
    process = program(tiny(data, tmp_path, steps=24, validate_every=24))
    wait_for_line(process, tmp_path / "run", 5)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 130, output
    assert "--resume --name run" in output
    steps = [line["step"] for line in curve(tmp_path / "run")]
    assert (tmp_path / f"run/checkpoints/step_{steps[-1]:06d}").is_dir()
    assert tiny(data, tmp_path, resume=True, name=None).run() == 0
    losses = [line["loss"] for line in curve(tmp_path / "run") if "loss" in line]
    assert losses == [line["loss"] for line in curve(whole) if "loss" in line]


@pytest.mark.parametrize("damage", ["cut", "flipped", "no sum"])
def test_a_damaged_checkpoint_is_passed_over(
    damage: str, data: Path, tmp_path: Path, whole: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole, tmp_path / "run")
    run = tmp_path / "run"
    newest = run / "checkpoints/step_000024"
    path = newest / "training_state.pt"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "flipped":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        (newest / "training_state.json").unlink()
    damaged = contents(newest)
    assert tiny(data, tmp_path, resume=True).run() == 0
    said = capfd.readouterr().out
    assert "step_000024" in said
    assert "Going on from step 16 instead" in said
    assert curve(run) == curve(whole)
    assert contents(run / "checkpoints/damaged_step_000024") == damaged


def test_without_a_whole_checkpoint_nothing_is_touched(data: Path, tmp_path: Path, whole: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    for path in (tmp_path / "run/checkpoints").glob("*/training_state.pt"):
        path.write_bytes(b"junk")
    before = contents(tmp_path / "run")
    with pytest.raises(DatasetError, match=r"step_000024.*step_000016.*--init"):
        tiny(data, tmp_path, resume=True).run()
    assert contents(tmp_path / "run") == before


# -- many processes ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_follow_the_curve_of_one(whole: Path, data: Path, tmp_path: Path) -> None:
    """Tolerance 1e-4 of the loss: sums are taken in another order, and 24 steps carry that on."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script))
    process = program(tiny(data, tmp_path, steps=24, validate_every=8), launcher)
    output = process.communicate(timeout=250)[0]
    assert process.returncode == 0, output
    one, two = curve(whole), curve(tmp_path / "run")
    assert [line["step"] for line in one] == [line["step"] for line in two]
    for key in ("loss", "gradient"):
        wanted, found = ([line[key] for line in lines if key in line] for lines in (one, two))
        np.testing.assert_allclose(found, wanted, rtol=1e-4)
    for a, b in zip(one, two, strict=True):
        if "validation" in a:
            np.testing.assert_allclose(
                list(b["validation"].values()), list(a["validation"].values()), rtol=1e-3, atol=1e-3
            )


# -- frozen encoders ---------------------------------------------------------------------------------------------------

PAPER = (
    "action.horizon=4",
    "action.tokens=4",
    "network.width=32",
    "network.layers=1",
    "network.heads=2",
    "encoder.head_dim=64",
    "encoder.wrist_dim=64",
    "encoder.side=42",
    "encoder.mask_layers=1",
)


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny frozen ViTs under the names of the real ones."""
    monkeypatch.setenv("DEXLOOP_MODELS", str(tmp_path / "models"))
    torch.manual_seed(0)
    config = PRESETS["paper"].encoder
    for name in (config.head_model, config.wrist_model):
        keep_weights(name, make_vit(64, 1, 3, 14))


@pytest.mark.usefixtures("models")
def test_the_paper_preset_learns_from_cached_features_and_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags: dict[str, Any] = {"preset": "paper", "override": PAPER, "copies": 2, "precision": "fp32"}
    assert tiny(data, tmp_path, steps=4, validate_every=2, **flags).run() == 0
    monkeypatch.setattr("dexloop.train.controller.dino.normal_picture", None)  # the cache is used again
    assert tiny(data, tmp_path, steps=4, validate_every=2, name="again", **flags).run() == 0
    assert curve(tmp_path / "again") == curve(tmp_path / "run")  # dropout too is drawn from seed and step
    shutil.rmtree(tmp_path / "again/checkpoints/step_000004")
    assert tiny(data, tmp_path, resume=True, name="again").run() == 0
    assert curve(tmp_path / "again") == curve(tmp_path / "run")


@pytest.mark.usefixtures("models")
def test_a_published_checkpoint_begins_a_run(data: Path, tmp_path: Path) -> None:
    flags: dict[str, Any] = {"preset": "paper", "override": PAPER, "copies": 1, "precision": "bf16"}
    flags["override"] += ("network.norm=centred", "encoder.normalize_state=false", "objective.spacing=leading")
    AcceleratorState._reset_state()
    assert tiny(data, tmp_path, steps=1, **flags).run() == 0
    export_published(load_controller(tmp_path / "run/best"), tmp_path / "theirs.ckpt")
    again = tiny(data, tmp_path, steps=1, name="on", init=tmp_path / "theirs.ckpt", override=(), precision="bf16")
    assert again.run() == 0
    AcceleratorState._reset_state()
    before, after = (load_controller(tmp_path / name).config for name in ("run/best", "on/best"))
    assert (before.network, before.action, before.objective) == (after.network, after.action, after.objective)
    assert before.encoder.patches == after.encoder.patches


# -- bad input ---------------------------------------------------------------------------------------------------------


def refused(command: TrainController, sentence: str, runs: Path, kind: type[Exception] = BadInput) -> None:
    """The command fails with the sentence, and changes nothing among the runs."""
    before = contents(runs) if runs.exists() else {}
    with pytest.raises(kind, match=sentence):
        command.run()
    assert (contents(runs) if runs.exists() else {}) == before
    assert not list(runs.glob(".*.new")) if runs.exists() else True


def recorded(root: Path, schema: Any = DEPTH_SCHEMA, episodes: int = 3, masks: bool = True) -> Path:
    with DatasetWriter(root, schema) as writer:
        for seed in range(episodes):
            episode = make_episode(seed, 11, schema)
            if not masks:
                key = f"mask.{schema.mask_camera}"
                episode = replace(episode, columns=episode.columns | {key: np.array([""] * 11, object)})
            writer.append(episode)
    return root


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda root: recorded(root, masks=False), "no target mask"),
        (lambda root: recorded(root, schema=SCHEMA), "depth"),
        (lambda root: recorded(root, episodes=1), "episodes, expected at least 2"),
        (lambda root: recorded(root, schema=replace(DEPTH_SCHEMA, robot_type="so101")), "robot 'so101'"),
        (lambda root: root, "there is no data set"),
    ],
    ids=["no masks", "no depth", "one episode", "another robot", "none"],
)
def test_unfit_data_sets_are_refused(make: Any, sentence: str, tmp_path: Path) -> None:
    refused(tiny(make(tmp_path / "set"), tmp_path / "runs"), sentence, tmp_path / "runs")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"steps": 5, "minutes": 1.0}, "both --steps and --minutes"),
        ({"steps": 0}, "steps is 0"),
        ({"minutes": -1.0, "steps": None}, "minutes is -1"),
        ({"lr": -1.0}, "lr is -1"),
        ({"validation_share": 1.0}, "validation-share is 1.0"),
        ({"override": ("network.depth=3",)}, "no setting 'network.depth'"),
        ({"override": ("network.width=wide",)}, r"expected a value like \d+"),
        ({"override": ("network.width=30",)}, "does not divide into"),
        ({"cache_features": True}, "no frozen encoder"),
        ({"init": Path("nowhere")}, "nowhere does not exist: give a policy folder"),
    ],
)
def test_bad_flags_are_refused(flags: dict[str, Any], sentence: str, data: Path, tmp_path: Path) -> None:
    refused(tiny(data, tmp_path / "runs", **flags), sentence, tmp_path / "runs")


def test_an_existing_run_is_not_overwritten(whole: Path, data: Path) -> None:
    refused(tiny(data, whole.parent), "add --resume", whole.parent)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"lr": 5e-4}, r"--lr 0.0005 \(it has 0.001\)"),
        ({"steps": 99, "batch_size": 8}, r"--steps 99 \(it has 24\)"),
        ({"objective": "ddim", "seed": 3}, r"--seed 3 \(it has 0\), --objective ddim \(it has flow\)"),
        ({"override": ("network.width=64",)}, "--override"),
        ({}, "is complete after 24 steps"),
        ({"name": "nobody"}, "not find the run 'nobody'.*there are run"),
    ],
)
def test_a_run_is_resumed_as_it_is_or_not_at_all(flags: dict[str, Any], sentence: str, whole: Path, data: Path) -> None:
    refused(tiny(data, whole.parent, resume=True, **flags), sentence, whole.parent)


def test_resume_without_a_run(data: Path, tmp_path: Path) -> None:
    refused(tiny(data, tmp_path / "runs", resume=True, name=None), "not find a run.*there are none", tmp_path / "runs")


def test_a_run_in_training_is_not_resumed_by_a_second_program(whole: Path, data: Path) -> None:
    held = RunFolder(whole)
    refused(tiny(data, whole.parent, resume=True), "being trained by another process", whole.parent)
    held.close()


def test_a_resumed_run_needs_its_episodes(whole: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "runs/run")
    recipe = json.loads((whole / "data.json").read_text())
    recipe["rows"][0] += 1
    (tmp_path / "runs/run/data.json").write_text(json.dumps(recipe))
    refused(tiny(data, tmp_path / "runs", resume=True), "no longer those", tmp_path / "runs", DatasetError)


def test_checkpoints_of_another_shape_are_refused(whole: Path, data: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    wider = tiny(data, runs, init=whole, override=("network.width=64",))
    refused(wider, "network.width of the --init checkpoint is 32, asked for is 64", runs)
    refused(tiny(data, runs, init=whole, override=(), basis="pca"), "action.basis", runs)
    refused(tiny(data, runs, init=whole, override=(), preset="paper"), "--init is a small controller", runs)
    policy = tmp_path / "policy"
    shutil.copytree(whole / "best", policy)
    config = json.loads((policy / "config.json").read_text())
    config["network"]["width"] = 64
    (policy / "config.json").write_text(json.dumps(config))
    refused(tiny(data, runs, init=policy, override=()), "of another shape", runs)
    (policy / "model.safetensors").write_bytes(b"junk")
    refused(tiny(data, runs, init=policy, override=()), "damaged", runs)


def test_a_damaged_cache_is_refused(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEXLOOP_HOME", str(tmp_path / "home"))
    assert tiny(data, tmp_path / "runs", steps=1).run() == 0
    packed = sorted((tmp_path / "home/cache").rglob("*.safetensors"))
    packed[0].write_bytes(packed[0].read_bytes()[:-100])
    cache = contents(tmp_path / "home")
    refused(tiny(data, tmp_path / "runs", steps=1, name="second"), packed[0].name, tmp_path / "runs", DatasetError)
    assert contents(tmp_path / "home") == cache
