"""LeRobot's own tools read our data sets as they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dexloop.datasets import edit
from dexloop.datasets import stats as st
from dexloop.datasets.check import run_check
from dexloop.datasets.layout import STATS
from dexloop.datasets.reader import DatasetReader
from dexloop.datasets.repair import repair
from dexloop.datasets.schema import features
from dexloop.datasets.writer import DatasetWriter, episode_stats
from dexloop.tests.dataset_fixtures import DEPTH_SCHEMA, SCHEMA, depth_counts, make_episode, pictures

HEAD = "observation.images.head"
DEPTH = "observation.images.wrist_depth"
TASKS = ["grasp the cup", "grasp the box", "grasp the cup", "grasp the ball"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "set"
    with DatasetWriter(root, SCHEMA) as writer:
        for i in range(4):
            writer.append(make_episode(i, 12, task=TASKS[i]))
    return root


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("deep") / "set"
    with DatasetWriter(root, DEPTH_SCHEMA) as writer:
        for i in range(2):
            writer.append(make_episode(i, 12, DEPTH_SCHEMA, TASKS[i]))
    return root


@pytest.mark.parametrize("backend", ["pyav", "torchcodec"])
def test_lerobot_dataset_gives_every_number_and_picture(deep: Path, backend: str) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
    from torch.utils.data import DataLoader

    if backend == "torchcodec":
        pytest.importorskip("torchcodec.decoders", reason="torchcodec needs FFmpeg's libraries", exc_type=Exception)
    ahead = {"action": [k / 20 for k in range(8)]}
    dataset = LeRobotDataset("local/x", root=deep, video_backend=backend, delta_timestamps=ahead, depth_output_unit="m")
    assert len(dataset) == 24
    assert dataset.meta.depth_keys == ["observation.images.head_depth", DEPTH]
    ours = DatasetReader(deep).episode(1)
    pixels = DatasetReader(deep).frames(1, HEAD)
    for row in (0, 5, 11):
        item = dataset[12 + row]
        assert item["task"] == TASKS[1]
        for spec in DEPTH_SCHEMA.columns:
            value, own = item[spec.key], ours.columns[spec.key]
            if spec.dtype == "string":
                assert value == own[row]
            elif spec.key != "action":
                assert np.array_equal(value.numpy(), own[row]), spec.key
        chunk = np.minimum(row + np.arange(8), 11)
        assert np.array_equal(item["action"].numpy(), ours.columns["action"][chunk])
        assert item["action_is_pad"].numpy().tolist() == (row + np.arange(8) > 11).tolist()
        got = item[HEAD].permute(1, 2, 0).numpy() * 255
        assert np.abs(got - pixels[row]).mean() < 2  # decoders differ in how they turn YUV into RGB
        counts = depth_counts(12, 48, 64, 11)[row]
        assert np.allclose(item[DEPTH][0].numpy(), counts * 1e-4, atol=1e-7)  # exact depth, 0 stays 0
    batch = next(iter(DataLoader(dataset, batch_size=4)))
    assert batch["timing.row_ns"].dtype.is_floating_point is False
    assert batch["timing.row_ns"].tolist() == DatasetReader(deep).episode(0).columns["timing.row_ns"][:4].tolist()
    assert len(batch["mask.head"]) == 4


def test_statistics_are_lerobots(deep: Path) -> None:
    from lerobot.datasets.compute_stats import aggregate_stats, compute_episode_stats, get_feature_stats

    described = features(DEPTH_SCHEMA)
    per_episode = []
    for index in range(2):
        columns = DatasetReader(deep).episode(index).columns
        numeric = {key: array for key, array in columns.items() if array.dtype != object}
        # In float64: in float32 their sums are off by 2 % on pictures.
        exact = {key: array.astype(np.float64) for key, array in numeric.items()}
        theirs = compute_episode_stats(exact, {key: described[key] for key in numeric})
        frames = pictures(12, 48, 64, 10 * index).transpose(0, 3, 1, 2).astype(np.float64)
        image = get_feature_stats(frames, axis=(0, 2, 3), keepdims=True)
        theirs[HEAD] = {k: v if k == "count" else np.squeeze(v / 255.0, axis=0) for k, v in image.items()}
        ours = episode_stats(numeric, make_episode(index, 12, DEPTH_SCHEMA, TASKS[index]).videos)
        for key, stat in theirs.items():
            for name, value in stat.items():
                spread = np.abs(stat["max"] - stat["min"]).max() + 1e-9
                assert ours[key][name].shape == value.shape, (key, name)
                assert np.allclose(ours[key][name], value, rtol=2e-4, atol=1e-3 * spread), (key, name)
        per_episode.append({key: ours[key] for key in theirs})
    stored = st.from_json(json.loads((deep / STATS).read_text()))
    for key, stat in aggregate_stats(per_episode).items():
        for name, value in stat.items():
            assert np.allclose(stored[key][name], value, rtol=1e-9, atol=1e-9), (key, name)


def test_statistics_of_odd_columns() -> None:
    from lerobot.datasets.compute_stats import get_feature_stats

    rng = np.random.default_rng(0)
    for values in (
        np.zeros((5, 2), np.float32),
        np.ones((1, 3), np.float32),
        rng.normal(0, 1, (2, 1)).astype(np.float32),
        rng.normal(1e3, 1, (700, 3)).astype(np.float32),
        np.array([-1, -1, 1], np.int64),
    ):
        theirs = get_feature_stats(values.astype(np.float64), axis=0, keepdims=values.ndim == 1)
        ours = st.column_stats(values)
        for name, value in theirs.items():
            spread = float(np.ptp(values)) + 1e-6
            assert ours[name].shape == value.shape
            assert np.allclose(ours[name], value, atol=1e-3 * spread), name


def run_tool(name: str, *arguments: str) -> str:
    """One of LeRobot's command line tools, offline, in a process of its own."""
    tool = Path(sys.executable).parent / name
    done = subprocess.run(
        [str(tool), *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.mark.slow
def test_dataset_viz_saves_an_episode(root: Path, tmp_path: Path) -> None:
    arguments = ["--repo-id", "local/x", "--root", str(root), "--episode-index", "1", "--num-workers", "0"]
    run_tool("lerobot-dataset-viz", *arguments, "--save", "1", "--output-dir", str(tmp_path))
    (saved,) = tmp_path.glob("*.rrd")
    assert saved.stat().st_size > 10_000


def edit_dataset(root: Path | None, out: Path, kind: str, *arguments: str) -> None:
    source = ["--repo_id", "local/x", "--root", str(root)] if root else []
    target = ["--new_repo_id", "local/y", "--new_root", str(out)]
    run_tool("lerobot-edit-dataset", *source, *target, "--operation.type", kind, *arguments)


@pytest.mark.slow
def test_edit_dataset_deletes_and_repair_brings_our_layout_back(root: Path, tmp_path: Path) -> None:
    edit_dataset(root, tmp_path / "less", "delete_episodes", "--operation.episode_indices", "[1]")
    assert run_check(tmp_path / "less", deep=True).ok
    report = repair(tmp_path / "less")
    assert report.check is not None
    assert report.check.findings == ()
    reader, whole = DatasetReader(tmp_path / "less"), DatasetReader(root)
    for index, was in enumerate((0, 2, 3)):
        assert np.array_equal(reader.episode(index).columns["action"], whole.episode(was).columns["action"])
        assert np.array_equal(reader.frames(index, HEAD), whole.frames(was, HEAD))
        assert reader.meta(index).info.task == TASKS[was]


@pytest.mark.slow
def test_edit_dataset_merges_into_shared_files_and_we_read_and_split_them(root: Path, tmp_path: Path) -> None:
    roots = f"['{root}','{root}']"
    edit_dataset(None, tmp_path / "two", "merge", "--operation.repo_ids", "['a','b']", "--operation.roots", roots)
    assert len(list((tmp_path / "two/data").rglob("*.parquet"))) == 1, "LeRobot puts all into one file"
    assert run_check(tmp_path / "two", deep=True).ok
    assert edit.merge([tmp_path / "two"], tmp_path / "ours") == 8
    for folder in ("two", "ours"):
        reader = DatasetReader(tmp_path / folder)
        for index in (1, 6):
            assert np.array_equal(reader.frames(index, HEAD), DatasetReader(root).frames(index % 4, HEAD))
    with DatasetWriter(tmp_path / "ours", SCHEMA) as writer:
        assert writer.append(make_episode(9, 5)) == 8


@pytest.mark.slow
def test_edit_dataset_splits(root: Path, tmp_path: Path) -> None:
    edit_dataset(root, tmp_path / "parts", "split", "--operation.splits", '{"train": 0.5, "val": 0.5}')
    for part in ("train", "val"):
        assert run_check(tmp_path / "parts" / part).episodes == 2


@pytest.mark.slow
def test_train_runs_act_for_a_few_steps(root: Path, tmp_path: Path) -> None:
    small = ["dim_model=32", "n_heads=2", "dim_feedforward=32", "n_encoder_layers=1", "n_vae_encoder_layers=1"]
    small += ["chunk_size=8", "n_action_steps=8", "pretrained_backbone_weights=null", "device=cpu", "push_to_hub=false"]
    output = run_tool(
        "lerobot-train",
        "--policy.type=act",
        *(f"--policy.{option}" for option in small),
        "--dataset.repo_id=local/x",
        f"--dataset.root={root}",
        f"--output_dir={tmp_path / 'run'}",
        "--steps=3",
        "--batch_size=2",
        "--num_workers=0",
        "--log_freq=1",
        "--wandb.enable=false",
    )
    assert "End of training" in output
    config = json.loads((tmp_path / "run/checkpoints/000003/pretrained_model/config.json").read_text())
    # The policy sees the state and the pictures: neither masks nor times leaked into its inputs.
    assert set(config["input_features"]) == {"observation.state", HEAD, "observation.images.wrist"}
    assert set(config["output_features"]) == {"action"}
