"""The controller as a LeRobot policy: what it learns from, what it acts on, and LeRobot's own tools around it."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dexloop.datasets import rle
from dexloop.datasets.reader import DatasetReader
from dexloop.datasets.schema import CameraSchema, Schema
from dexloop.datasets.writer import DatasetWriter
from dexloop.hardware.errors import BadInput, DexLoopError
from dexloop.tests.dataset_fixtures import DEPTH_SCHEMA, SCHEMA, make_episode
from dexloop.train.controller.checkpoint import load_controller
from dexloop.train.controller.draws import Draws
from dexloop.train.controller.policy import ControllerPolicy
from dexloop.train.data.chunks import Chunks
from dexloop.train.views import Observation, View

ROOT = Path(__file__).parents[1]
HORIZON, ROWS, EPISODES = 8, 14, 3
ACTION = {"horizon": HORIZON, "basis": "time", "tokens": 4, "delay_max": 0}
SETTINGS = {"network": {"width": 32, "layers": 1, "heads": 2}, "action": ACTION, "encoder": {"wrist": True}}
HEAD, MASK, DEPTH = (f"observation.images.head{part}" for part in ("", "_mask", "_depth"))
COMMON = ["--policy.push_to_hub=false", "--policy.device=cpu", "--dataset.repo_id=local/x", "--batch_size=4"]
COMMON += ["--num_workers=0", "--log_freq=1", "--wandb.enable=false"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three episodes, the second labelled as failed."""
    root = tmp_path_factory.mktemp("made") / "set"
    with DatasetWriter(root, DEPTH_SCHEMA) as writer:
        for i in range(EPISODES):
            writer.append(make_episode(i, ROWS, DEPTH_SCHEMA, success=i != 1))
    return root


def lerobot_set(root: Path, **options: Any) -> Any:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    ahead = {"action": [step / 20 for step in range(HORIZON)]}
    return LeRobotDataset("local/x", root=root, delta_timestamps=ahead, video_backend="pyav", **options)


def configuration(**options: Any) -> Any:
    from lerobot_policy_dexloop import DexloopControllerConfig

    defaults = {"device": "cpu", "push_to_hub": False, "settings": SETTINGS, "fit_rows": 8}
    return DexloopControllerConfig(**{**defaults, **options})


def made(root: Path, dataset: Any = None, **options: Any) -> tuple[Any, Any]:
    """Policy and preprocessor as LeRobot's trainer makes them."""
    from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
    from lerobot.policies import make_policy, make_pre_post_processors

    meta = dataset.meta if dataset else LeRobotDatasetMetadata("local/x", root=root)
    torch.manual_seed(0)
    config = configuration(**options)
    policy = make_policy(config, ds_meta=meta)
    return policy, make_pre_post_processors(config, dataset_stats=meta.stats)[0]


def batch_of(dataset: Any, indices: list[int]) -> dict[str, Any]:
    from torch.utils.data import default_collate

    return default_collate([dataset[i] for i in indices])


@pytest.fixture(scope="module")
def metres(root: Path) -> Any:
    return lerobot_set(root, depth_output_unit="m")


@pytest.fixture(scope="module")
def learner(root: Path, metres: Any) -> tuple[Any, Any]:
    return made(root, metres)


# -- learning ------------------------------------------------------------------------------------------------------


def test_learns_from_what_our_own_loader_gives(
    root: Path, metres: Any, learner: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through LeRobot's data set, collate and processors: the same batch as `train controller` sees."""
    monkeypatch.setenv("DEXLOOP_HOME", str(tmp_path))
    policy, preprocess = learner
    encoder = policy.controller.encoder
    chunks = Chunks(
        DatasetReader(root), encoder.views, encoder.reference_views, policy.controller.config.action,
        episodes=range(EPISODES), lagged=True, progress=False,
    )  # fmt: skip
    indices = [0, 1, 11, 13, 14, 30, 41]
    batch = preprocess(batch_of(metres, indices))
    for draws in (None, (3, 5)):
        ours = chunks.batch(np.array(indices), draws and Draws(*draws, len(indices)))
        theirs = policy._demonstrations.complete(batch, draws and Draws(*draws, len(indices)))
        assert set(theirs) == set(ours)
        for key, tensor in ours.items():
            assert theirs[key].shape == tensor.shape, key
            assert theirs[key].dtype == tensor.dtype, key
            if key == "action_mask":
                assert theirs[key].all(1).tolist() == [True, True, True, True, False, True, True]  # 14 is of the failed
            elif key.endswith(".rgb"):  # decoders differ in how they turn YUV into RGB
                assert (theirs[key].float() - tensor.float()).abs().mean() < 2, key
            else:
                assert torch.allclose(theirs[key].float(), tensor.float(), atol=1e-6), key


def test_whole_pictures_and_their_late_masks_are_those_of_our_own_loader(
    root: Path, metres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the paper's encoder wants them: no windows, no reference."""
    from lerobot_policy_dexloop.demonstrations import Demonstrations

    monkeypatch.setenv("DEXLOOP_HOME", str(tmp_path))
    config, indices = configuration().described, [0, 9, 41]
    views = (View("head", "head", 28, 28, mask=True), View("wrist", "wrist", 28, 28))
    chunks = Chunks(
        DatasetReader(root), views, (), config.action, episodes=range(EPISODES), lagged=True, progress=False
    )
    ours = chunks.batch(np.array(indices), Draws(1, 2, 3))
    theirs = Demonstrations(root, config, views, ()).complete(batch_of(metres, indices), Draws(1, 2, 3))
    assert set(theirs) == set(ours)
    for key in ("head.mask", "lagged.head.mask", "state", "action", "action_is_pad"):
        assert torch.equal(theirs[key], ours[key]), key


def test_colours_survive_lerobots_floating_point() -> None:
    from lerobot_policy_dexloop.observing import observations

    picture = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).repeat(1, 3, 1, 1)
    view = View("a", "head", 16, 16)
    for given in (picture, picture.float() / 255):
        batch = {"observation.state": torch.zeros(1, 13), HEAD: given}
        (moment,) = observations(batch, [view], [np.zeros((1, 1), bool)])
        assert np.array_equal(moment.rgb["head"][..., 0], picture[0, 0].numpy())


def test_depth_is_metres_whatever_the_trainer_was_told(root: Path, metres: Any, learner: tuple[Any, Any]) -> None:
    dataset = lerobot_set(root)  # LeRobot's default: whole millimetres
    policy, preprocess = made(root, dataset)
    ours, theirs = (
        some._demonstrations.complete(pre(batch_of(data, [3, 20])), None)
        for some, pre, data in ((policy, preprocess, dataset), (*learner, metres))
    )
    assert theirs["window.depth"].max() > 0.1
    assert torch.allclose(ours["window.depth"], theirs["window.depth"], atol=1e-6)
    assert (ours["wrist.depth"] - theirs["wrist.depth"]).abs().max() <= 0.5001e-3


def test_a_lost_target_is_looked_for_where_it_was(root: Path, tmp_path: Path) -> None:
    """Windows of rows without target and of their lagged masks: as our own loader follows them."""
    with DatasetWriter(tmp_path / "lost", DEPTH_SCHEMA) as writer:
        episode = make_episode(0, ROWS, DEPTH_SCHEMA)
        texts = episode.columns["mask.head"].copy()
        texts[4:9] = rle.encode(np.zeros((48, 64), bool))
        writer.append(
            type(episode)(episode.rate_hz, {**episode.columns, "mask.head": texts}, episode.videos, episode.info)
        )
    dataset = lerobot_set(tmp_path / "lost")
    policy, preprocess = made(tmp_path / "lost", dataset)
    ready = policy._demonstrations.complete(preprocess(batch_of(dataset, [2, 3, 4, 8, 9])), None)
    origins = ready["window.origin"].tolist()
    assert origins[2] == origins[3] == origins[1] != origins[4]
    live = ControllerPolicy(policy.acting)
    reader = DatasetReader(tmp_path / "lost")
    for row, observation in enumerate(moments(reader, 0)):
        if row == 0:
            live.start(observation)
        seen = live.batch(observation)
        if row in (2, 3, 4, 8, 9):
            assert seen["window.origin"][0].tolist() == origins[[2, 3, 4, 8, 9].index(row)]


def moments(reader: DatasetReader, episode: int) -> list[Observation]:
    from dexloop.train.data.moments import observations

    whole = [View("a", "head", 64, 48, depth=True, mask=True), View("b", "wrist", 64, 48, depth=True)]
    return list(observations(reader, episode, whole))


def test_a_batch_of_failures_teaches_nothing(metres: Any, learner: tuple[Any, Any], root: Path) -> None:
    policy, preprocess = learner
    policy.train()
    batch = preprocess(batch_of(metres, [14, 20, 27]))
    assert float(policy.forward(batch)[0].detach()) == 0
    assert float(policy.forward(preprocess(batch_of(metres, [14, 0])))[0].detach()) > 0
    assert float(made(root, metres, failures=True)[0].train().forward(batch)[0].detach()) > 0


def test_randomness_follows_from_seed_and_step_alone(root: Path, metres: Any) -> None:
    policy, preprocess = made(root, metres)
    batch = preprocess(batch_of(metres, [2, 33]))
    policy.train()
    first = float(policy.forward(batch)[0].detach())
    torch.manual_seed(99)
    assert float(policy.forward(batch)[0].detach()) == first
    policy.update()
    assert float(policy.forward(batch)[0].detach()) != first
    policy.eval()
    assert float(policy.forward(batch)[0]) == float(policy.forward(batch)[0])


def test_the_average_follows_and_acts(root: Path, metres: Any) -> None:
    policy, preprocess = made(root, metres, average=0.5)
    policy.train()
    optimizer = torch.optim.AdamW(policy.get_optim_params(), lr=1e-2)
    before = {name: p.clone() for name, p in policy.average.named_parameters()}
    loss, _ = policy.forward(preprocess(batch_of(metres, [2, 33])))
    loss.backward()
    optimizer.step()
    policy.update()
    learnt, decay = dict(policy.controller.named_parameters()), 0.1  # (1 + 0) / (10 + 0)
    for name, parameter in policy.average.named_parameters():
        assert torch.allclose(parameter, before[name] * decay + learnt[name] * (1 - decay), atol=1e-6)
    assert any(not torch.equal(parameter, before[name]) for name, parameter in policy.average.named_parameters())
    assert policy.acting is policy.average
    assert len(policy.get_optim_params()) == len(list(policy.controller.parameters()))
    plain = made(root, metres, average=0)[0]
    assert plain.acting is plain.controller
    assert not any(name.startswith("average.") for name in plain.state_dict())


def test_statistics_are_of_the_episodes_asked_for(root: Path, metres: Any) -> None:
    joints = {**SETTINGS, "action": {**ACTION, "space": "joints", "normal": "limits"}}
    for chosen, episodes in ((None, [0, 2]), ([2], [2])):  # 1 is labelled as failed
        policy = made(root, metres, settings=joints, fit_episodes=chosen, fit_rows=100)[0]
        actions = np.concatenate([DatasetReader(root).episode(e).columns["action"] for e in episodes])
        normalizer = policy.controller.space.normalizer
        for bound, value in ((actions.min(0), -1.0), (actions.max(0), 1.0)):
            assert torch.allclose(normalizer.normalize(torch.from_numpy(bound)), torch.full((13,), value), atol=1e-4)
    with pytest.raises(BadInput, match="no episode to learn from"):
        made(root, metres, fit_episodes=[1])
    with pytest.raises(BadInput, match="episode 7 does not exist"):
        made(root, metres, fit_episodes=[7])


# -- acting --------------------------------------------------------------------------------------------------------


def live(root: Path, row: int, episode: int = 0, copies: int = 1) -> dict[str, Any]:
    """An observation as a robot gives it, through what `lerobot-rollout` makes of it."""
    from lerobot.policies.utils import prepare_observation_for_inference

    moment = moments(DatasetReader(root), episode)[row]
    raw = {
        "observation.state": np.asarray(moment.state, np.float32),
        MASK: moment.mask[..., None].astype(np.uint8) * 255,
    }
    for camera, picture in moment.rgb.items():
        raw[f"observation.images.{camera}"] = picture
        raw[f"observation.images.{camera}_depth"] = moment.depth_m[camera][..., None]
    ready = prepare_observation_for_inference(raw, torch.device("cpu"), "grasp", "rm75_gor")
    return {key: v.repeat(copies, *[1] * (v.ndim - 1)) if torch.is_tensor(v) else v for key, v in ready.items()}


def test_acts_like_our_own_policy(root: Path, learner: tuple[Any, Any]) -> None:
    policy, preprocess = learner
    policy.reset()
    own = ControllerPolicy(policy.acting)
    scene = moments(DatasetReader(root), 0)
    own.start(scene[0])
    for row in (0, 5):
        noise = torch.randn(1, policy.acting.basis.tokens, policy.acting.basis.dim)
        chunk = policy.predict_action_chunk(preprocess(live(root, row)), noise=noise)
        assert chunk.shape == (1, HORIZON, 13)
        expected = policy.acting.sample(own.batch(scene[row]), noise)
        assert torch.allclose(chunk, expected.float(), atol=1e-5)


def test_a_chunk_takes_over_smoothly_from_the_last_one(
    learner: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, _ = learner
    values = iter([0.0, 1.0])
    monkeypatch.setattr(policy, "predict_action_chunk", lambda batch, noise=None: torch.full((1, 8, 13), next(values)))
    monkeypatch.setattr(policy.config, "n_action_steps", 3)
    policy.reset()
    commands = [float(policy.select_action({})[0, 0]) for _ in range(6)]
    assert commands[:3] == [0, 0, 0]
    assert 0 < commands[3] < commands[4] < commands[5] < 1, "five commands were left, the new chunk leads away slowly"
    policy.reset()


def test_commands_are_handed_out_one_by_one_and_an_attempt_keeps_its_first_look(
    root: Path, learner: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, preprocess = learner
    seen: list[Any] = []
    sample = policy.acting.sample
    monkeypatch.setattr(policy.acting, "sample", lambda batch, *rest: seen.append(batch) or sample(batch, *rest))
    monkeypatch.setattr(policy.config, "n_action_steps", 3)
    policy.reset()
    actions = [policy.select_action(preprocess(live(root, row, copies=2))) for row in range(7)]
    assert len(seen) == 3, "planned at rows 0, 3 and 6"
    assert all(action.shape == (2, 13) for action in actions)
    assert torch.equal(seen[0]["reference.window.origin"], seen[2]["reference.window.origin"])
    assert not torch.equal(seen[0]["window.origin"], seen[2]["window.origin"]), "the target moves"
    with pytest.raises(BadInput, match="call reset"):
        policy.predict_action_chunk(preprocess(live(root, 7)))
    policy.reset()
    policy.select_action(preprocess(live(root, 7)))
    assert torch.equal(seen[-1]["reference.window.origin"], seen[-1]["window.origin"])


def test_predicts_for_rows_of_the_data_set(root: Path, metres: Any, learner: tuple[Any, Any]) -> None:
    policy, preprocess = learner
    policy.reset()
    chunk = policy.predict_action_chunk(preprocess(batch_of(metres, [0, 20, 41])))
    assert chunk.shape == (3, HORIZON, 13)
    assert torch.isfinite(chunk).all()


def test_live_input_that_is_missing_or_in_other_units_is_refused(root: Path, learner: tuple[Any, Any]) -> None:
    policy, preprocess = learner
    whole = preprocess(live(root, 0))
    for key, change, words in (
        (MASK, None, "lacks observation.images.head_mask"),
        (HEAD, None, "needs camera 'head'"),
        (DEPTH, None, "the depth of camera 'head'"),
        (DEPTH, lambda depth: depth * 1000, "expected metres as floating point"),
        (MASK, lambda mask: mask[..., :-2], "one mask pixel for each picture pixel"),
    ):
        policy.reset()
        batch = {name: value for name, value in whole.items() if change or name != key}
        if change:
            batch[key] = change(batch[key])
        with pytest.raises(BadInput, match=words):
            policy.select_action(batch)
    policy.reset()
    noise = torch.zeros(1, policy.acting.basis.tokens, policy.acting.basis.dim)
    millimetres = whole | {k: (v * 1000).round().to(torch.int32) for k, v in whole.items() if k.endswith("_depth")}
    chunk = policy.predict_action_chunk(whole, noise=noise)
    policy.reset()
    assert torch.allclose(policy.predict_action_chunk(millimetres, noise=noise), chunk, atol=0.02)


def test_real_time_chunking_goes_on_from_what_is_on_its_way(root: Path, metres: Any) -> None:
    from lerobot.rollout.inference.rtc import supports_rtc_inference

    delayed = {**SETTINGS, "action": {**ACTION, "delay_max": 3}}
    policy, preprocess = made(root, metres, settings=delayed)
    assert supports_rtc_inference(policy)
    assert not supports_rtc_inference(made(root, metres)[0])
    whole = preprocess(live(root, 2))
    left = policy.predict_action_chunk(whole)[0, 2:]
    chunk = policy.predict_action_chunk(whole, inference_delay=2, prev_chunk_left_over=left)
    assert torch.allclose(chunk[0, :2], left[:2])
    padded = torch.cat([left[:1], torch.zeros(4, 13)])  # LeRobot fills up with zeros
    chunk = policy.predict_action_chunk(whole, inference_delay=2, prev_chunk_left_over=padded)
    assert torch.allclose(chunk[0, 0], left[0])
    assert chunk[0, 1].any()
    with pytest.raises(BadInput, match="4 commands are committed, the controller learnt 3"):
        policy.predict_action_chunk(whole, inference_delay=4, prev_chunk_left_over=left)


# -- settings and bad input ----------------------------------------------------------------------------------------


def test_settings_survive_the_disk_and_can_be_changed(tmp_path: Path) -> None:
    from lerobot.configs import PreTrainedConfig

    config = configuration(objective="ddim", seed=3)
    assert config.described.objective.kind == "ddim"
    assert (config.described.action.horizon, config.described.network.width) == (HORIZON, 32)
    assert config.action_delta_indices == list(range(HORIZON))
    config._save_pretrained(tmp_path)
    assert PreTrainedConfig.from_pretrained(tmp_path) == config
    override = ['--settings={"objective": {"sample_steps": 3}}']
    changed = PreTrainedConfig.from_pretrained(tmp_path, cli_overrides=override)
    assert changed.described.objective.sample_steps == 3
    assert changed.described.network == config.described.network


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"preset": "huge"}, "no preset 'huge'"),
        ({"objective": "gan"}, "objective is 'gan'"),
        ({"settings": {"network": {"wide": 3}}}, "unknown settings wide"),
        ({"settings": {"network": 3}}, "settings.network is 3"),
        ({"settings": {"action": {"basis": "time", "tokens": 5}}}, "action tokens"),
        ({"n_action_steps": 9}, "n_action_steps is 9: expected 1 to 8"),
        ({"average": 1.0}, "average 1.0"),
    ],
)
def test_settings_that_describe_no_controller_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(DexLoopError, match=words):
        configuration(**options)


def test_a_checkpoint_of_another_preset_is_refused() -> None:
    small = configuration().controller
    with pytest.raises(BadInput, match="preset 'small', not 'paper'"):
        configuration(preset="paper", settings={}, controller=small)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (SCHEMA, "the depth of camera 'head'"),
        (Schema(30, DEPTH_SCHEMA.cameras), "has 30 rows a second"),
        (Schema(20, DEPTH_SCHEMA.cameras, robot_type="other"), "is of robot 'other'"),
        (Schema(20, (DEPTH_SCHEMA.cameras[0], CameraSchema("side", 64, 48, 0.001))), "needs camera 'wrist'"),
    ],
)
def test_data_sets_that_it_cannot_learn_from_are_refused(schema: Schema, words: str, tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "set", schema) as writer:
        writer.append(make_episode(0, ROWS, schema))
    with pytest.raises(BadInput, match=words):
        made(tmp_path / "set")


def test_a_data_set_without_masks_is_refused(tmp_path: Path) -> None:
    episode = make_episode(0, ROWS, DEPTH_SCHEMA)
    columns = {**episode.columns, "mask.head": np.full(ROWS, "", object)}
    with DatasetWriter(tmp_path / "set", DEPTH_SCHEMA) as writer:
        writer.append(type(episode)(episode.rate_hz, columns, episode.videos, episode.info))
    with pytest.raises(BadInput, match="no target mask at row 0"):
        made(tmp_path / "set")


def test_a_set_of_another_tool_and_a_policy_without_data_are_refused(root: Path, metres: Any, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "set")
    (tmp_path / "set/meta/dexloop.json").unlink()
    info = json.loads((tmp_path / "set/meta/info.json").read_text())
    del info["features"]["mask.head"]
    (tmp_path / "set/meta/info.json").write_text(json.dumps(info))
    with pytest.raises(DexLoopError):
        made(tmp_path / "set")
    policy, preprocess = made(root, metres)
    policy._demonstrations = None
    with pytest.raises(BadInput, match="built without a data set"):
        policy.forward(preprocess(batch_of(metres, [0])))


# -- LeRobot's tools -----------------------------------------------------------------------------------------------


def environment(home: Path) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
    names = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "PYTHONPATH": path}
    return os.environ | names | {"HF_LEROBOT_HOME": str(home)}


DRIVER = """
import json, os, shutil, sys
import torch
from accelerate.state import AcceleratorState
from lerobot.scripts import lerobot_rollout, lerobot_train

def run(tool, arguments):
    AcceleratorState._reset_state(reset_partial_state=True)  # each run is a process of its own, otherwise
    sys.argv = [tool.__name__, *arguments]
    tool.main()

torch.set_num_threads(1)
first, resumed, rollout, out = json.loads(sys.argv[1])
run(lerobot_train, first)
shutil.copytree(out + "/whole", out + "/resumed", symlinks=True)
shutil.rmtree(out + "/resumed/checkpoints/000004")
os.unlink(out + "/resumed/checkpoints/last")
run(lerobot_train, resumed)
run(lerobot_rollout, rollout)
"""


def train_arguments(root: Path, out: Path) -> list[str]:
    own = ["--policy.type=dexloop_controller", f"--policy.settings={json.dumps(SETTINGS)}", f"--dataset.root={root}"]
    return [*own, *COMMON, f"--output_dir={out}", "--steps=4", "--save_freq=2"]


def resume_arguments(out: Path) -> list[str]:
    config = out / "checkpoints/000002/pretrained_model/train_config.json"
    return ["--resume=true", f"--config_path={config}", f"--output_dir={out}"]


def rollout_arguments(policy: Path, root: Path, commands: Path) -> list[str]:
    robot = ["--robot.discover_packages_path=lerobot_replay", "--robot.type=replayed", f"--robot.dataset={root}"]
    run = ["--fps=20", "--duration=1", "--task=grasp", "--return_to_initial_position=false", "--device=cpu"]
    return [f"--policy.path={policy}", *robot, f"--robot.commands={commands}", *run]


@pytest.fixture(scope="module")
def driven(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which `lerobot-train` trained 4 steps, resumed from the second, and `lerobot-rollout` ran the result:
    their own entry points, one process, because importing LeRobot takes longer than all of it."""
    out = tmp_path_factory.mktemp("driven")
    last = out / "whole/checkpoints/last/pretrained_model"
    plan = [
        train_arguments(root, out / "whole"),
        resume_arguments(out / "resumed"),
        rollout_arguments(last, root, out / "commands.json"),
        str(out),
    ]
    run_program([sys.executable, "-c", DRIVER, json.dumps(plan)], out)
    return out


def run_program(command: list[str], home: Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment(home), cwd=home)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def test_lerobot_train_writes_nothing_pickled(driven: Path) -> None:
    made = [path for path in (driven / "whole/checkpoints/000004").rglob("*") if path.is_file()]
    assert {path.suffix for path in made} == {".json", ".safetensors"}
    names = {path.name for path in made if path.parent.name == "pretrained_model"}
    assert {"config.json", "model.safetensors", "policy_preprocessor.json", "policy_postprocessor.json"} <= names
    config = json.loads((driven / "whole/checkpoints/000004/pretrained_model/config.json").read_text())
    assert MASK in config["input_features"]
    assert config["controller"]["action"]["horizon"] == HORIZON
    assert len(config["action_feature_names"]) == 13


def test_a_resumed_run_ends_with_the_same_weights(driven: Path) -> None:
    from safetensors.torch import load_file

    whole, resumed = (
        load_file(driven / run / "checkpoints/000004/pretrained_model/model.safetensors")
        for run in ("whole", "resumed")
    )
    assert set(whole) == set(resumed)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert int(whole["updates"]) == 4
    earlier = load_file(driven / "whole/checkpoints/000002/pretrained_model/model.safetensors")
    assert any(not torch.equal(whole[name], earlier[name]) for name in whole)
    assert all(torch.equal(whole[name], earlier[name]) for name in whole if ".space." in name)  # statistics stay


def test_lerobot_rollout_commands_the_robot(driven: Path, root: Path) -> None:
    commands = np.array(json.loads((driven / "commands.json").read_text()))
    assert len(commands) > HORIZON
    assert commands.shape[1] == 13
    assert (commands[:, 7:] >= 0).all()
    assert (commands[:, 7:] <= 1).all()


def test_trained_policies_load_convert_and_convert_back(driven: Path, root: Path, tmp_path: Path) -> None:
    from lerobot.policies.factory import get_policy_class

    from lerobot_policy_dexloop.convert import from_dexloop, to_dexloop

    trained = driven / "whole/checkpoints/last/pretrained_model"
    to_dexloop(trained, tmp_path / "ours")
    from_dexloop(tmp_path / "ours", tmp_path / "theirs")
    to_dexloop(tmp_path / "theirs", tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    own = ControllerPolicy(load_controller(tmp_path / "ours"))
    scene = moments(DatasetReader(root), 2)[3]
    own.start(scene)
    noise = torch.randn(1, own.controller.basis.tokens, own.controller.basis.dim)
    expected = own.controller.sample(own.batch(scene), noise)
    for folder in (trained, tmp_path / "theirs"):
        policy = get_policy_class("dexloop_controller").from_pretrained(folder)
        chunk = policy.predict_action_chunk(live(root, 3, episode=2), noise=noise)
        assert torch.allclose(chunk, expected.float(), atol=1e-5)
    for convert, source in ((to_dexloop, trained), (from_dexloop, tmp_path / "ours")):
        with pytest.raises(BadInput, match="exists already"):
            convert(source, tmp_path / "ours")
        with pytest.raises(BadInput, match=r"expected (LeRobot|config\.json)"):
            convert(tmp_path / "nowhere", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("damage", ["cut", "lacks", "shape"])
def test_damaged_weights_are_refused(damage: str, driven: Path, tmp_path: Path) -> None:
    from lerobot.policies.factory import get_policy_class
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "policy"
    shutil.copytree(driven / "whole/checkpoints/000004/pretrained_model", folder)
    weights = folder / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    else:
        tensors = load_file(weights)
        name = next(name for name in tensors if name.startswith("controller.model") and tensors[name].ndim)
        tensors = {k: v for k, v in tensors.items() if k != name} | (
            {name: torch.zeros(2)} if damage == "shape" else {}
        )
        save_file(tensors, weights)
    with pytest.raises(BadInput, match="damaged, or of other settings"):
        get_policy_class("dexloop_controller").from_pretrained(folder)


def test_the_plug_in_sees_only_what_trains() -> None:
    for path in (ROOT / "lerobot_policy_dexloop").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith("dexloop"):
                assert str(node.module).split(".")[1] in ("train", "datasets", "hardware"), f"{path}: {node.module}"


def tool(name: str) -> str:
    return str(Path(sys.executable).parent / name)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_commands_as_a_user_types_them(root: Path, tmp_path: Path) -> None:
    out, last = tmp_path / "run", tmp_path / "run/checkpoints/last/pretrained_model"
    evaluate = ["--dataset.eval_split=0.3", "--eval_steps=2", "--dataset.depth_output_unit=m"]
    assert "eval_loss" in run_program([tool("lerobot-train"), *train_arguments(root, out), *evaluate], tmp_path)
    more = ["--resume=true", f"--config_path={last}/train_config.json", "--steps=6"]
    assert "End of training" in run_program([tool("lerobot-train"), *more], tmp_path)
    tuned = [f"--policy.path={last}", f"--dataset.root={root}", *COMMON[:1], *COMMON[2:], "--steps=1"]
    run_program([tool("lerobot-train"), *tuned, f"--output_dir={tmp_path / 'tuned'}"], tmp_path)
    run_program([tool("lerobot-rollout"), *rollout_arguments(last, root, tmp_path / "commands.json")], tmp_path)
    assert (tmp_path / "commands.json").exists()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_lerobot_eval_runs_environments_that_show_the_mask(driven: Path, root: Path, tmp_path: Path) -> None:
    policy = driven / "whole/checkpoints/last/pretrained_model"
    shown = ["--env.discover_packages_path=lerobot_replay", "--env.type=replayed", f"--env.dataset={root}"]
    run = ["--eval.n_episodes=2", "--eval.batch_size=2", "--eval.use_async_envs=false", "--policy.device=cpu"]
    command = [tool("lerobot-eval"), f"--policy.path={policy}", *shown, *run, f"--output_dir={tmp_path / 'out'}"]
    run_program(command, tmp_path)
    assert json.loads((tmp_path / "out/eval_info.json").read_text())["overall"]["n_episodes"] == 2


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_processes_draw_different_noise_and_write_one_checkpoint(root: Path, tmp_path: Path) -> None:
    launch = [tool("accelerate"), "launch", "--num_processes=2", "--cpu", "--num_machines=1", "--mixed_precision=no"]
    command = [*launch, "--dynamo_backend=no", tool("lerobot-train"), *train_arguments(root, tmp_path / "run")]
    run_program(command, tmp_path)
    assert (tmp_path / "run/checkpoints/000004/pretrained_model/model.safetensors").exists()
