"""The schema: what it lists, what it refuses, and that it survives its two descriptions on the disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dexloop.datasets.home import parse_episode, resolve, resolve_existing
from dexloop.datasets.schema import CameraSchema, Schema, features, schema_of, validate
from dexloop.datasets.schema_file import derive_schema, feature_difference
from dexloop.hardware.description import ARM_JOINTS, HAND_MOTORS
from dexloop.hardware.errors import BadInput, DatasetError
from dexloop.tests.dataset_fixtures import DEPTH_SCHEMA, SCHEMA, make_episode

OTHER_ROBOT = Schema(30, (CameraSchema("head", 32, 32),), "arm_of_two", ("joint_a", "joint_b"), ("grip",))
IMPORTED = replace(SCHEMA, measured=False)


def test_features_are_those_of_the_rig() -> None:
    described = features(DEPTH_SCHEMA)
    assert described["action"]["shape"] == [13]
    assert described["action"]["names"] == [f"{name}.pos" for name in (*ARM_JOINTS, *HAND_MOTORS)]
    assert described["observation.images.head"]["shape"] == [48, 64, 3]
    assert described["observation.images.wrist_depth"]["info"]["video.depth_max"] == pytest.approx(0.4095)
    for key in ("row", "head", "wrist", "arm", "hand", "sent", "input", "skew", "latency"):
        assert described[f"timing.{key}_ns"] == {"dtype": "int64", "shape": [1], "names": None}
    # LeRobot types features by prefix: nothing but the policy's own numbers may look like an action or observation.
    policy = {key for key in described if key.startswith(("action", "observation"))}
    assert policy == {"action", "observation.state", *DEPTH_SCHEMA.video_keys}


@pytest.mark.parametrize("schema", [SCHEMA, DEPTH_SCHEMA, OTHER_ROBOT, IMPORTED])
def test_both_descriptions_give_the_schema_back(schema: Schema) -> None:
    assert Schema.from_json(schema.to_json(), "here") == schema
    info = {"fps": schema.rate_hz, "robot_type": schema.robot_type, "features": features(schema)}
    if schema != OTHER_ROBOT:  # which of another robot's joints are the arm's only its own file can say
        assert derive_schema(info) == schema
    assert feature_difference(schema, info) == ""


def test_another_schema_is_named() -> None:
    assert "rate_hz is 30, not 20" in SCHEMA.difference(replace(SCHEMA, rate_hz=30))
    assert SCHEMA.difference(SCHEMA) == ""
    with pytest.raises(BadInput, match="version 99"):
        Schema.from_json(SCHEMA.to_json() | {"version": 99}, "here")
    with pytest.raises(BadInput, match="not one of DexLoop's"):
        derive_schema({"fps": 30, "features": {"action": {}}})


def test_impossible_schemas_are_refused() -> None:
    with pytest.raises(BadInput, match="whole number"):
        replace(SCHEMA, rate_hz=12.5)
    with pytest.raises(BadInput, match="even"):
        CameraSchema("head", 63, 48)
    with pytest.raises(BadInput, match="head"):
        Schema(20, (CameraSchema("wrist", 64, 48),))


def test_an_episode_tells_its_schema() -> None:
    assert schema_of(make_episode(schema=DEPTH_SCHEMA, rows=2)) == DEPTH_SCHEMA
    assert schema_of(make_episode(schema=IMPORTED, rows=2)) == IMPORTED


def bend(key: str, row: int, value: object) -> object:
    def change(columns: dict[str, np.ndarray]) -> None:
        columns[key] = columns[key].copy()
        columns[key][row] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (bend("action", 3, np.nan), "action is not finite at row 3"),
        (bend("timing.row_ns", 4, 0), "timing.row_ns does not rise at row 4"),
        (bend("timing.head_ns", 2, 10**12), "timing.head_ns is later than its row at row 2"),
        (bend("timing.skew_ns", 1, 5), "timing.skew_ns is not the largest"),
        (bend("label.success", 0, 7), "expected -1, 0 or 1"),
        (bend("mask.head", 0, 5), "expected text"),
        (lambda c: c.pop("safety.flags"), "safety.flags is missing"),
        (lambda c: c.update(extra=np.zeros(20)), "extra is not in the schema"),
        (lambda c: c.update(action=c["action"].astype(np.float64)), "action is float64"),
        (lambda c: c.update(action=c["action"][:, :5]), r"shape \(20, 5\)"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused_by_name(change: object, words: str) -> None:
    episode = make_episode()
    columns = dict(episode.columns)
    change(columns)  # type: ignore[operator]
    with pytest.raises(DatasetError, match=words):
        validate(SCHEMA, replace(episode, columns=columns))


def test_videos_must_have_a_frame_for_every_row() -> None:
    episode = make_episode()
    key = "observation.images.head"
    short = replace(episode.videos[key], packets=episode.videos[key].packets[:-1])
    with pytest.raises(DatasetError, match="19 frames for 20 rows"):
        validate(SCHEMA, replace(episode, videos=episode.videos | {key: short}))
    with pytest.raises(DatasetError, match="wrist_depth is missing"):
        validate(DEPTH_SCHEMA, episode)


def test_names_paths_and_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEXLOOP_HOME", str(tmp_path))
    assert resolve("grasp") == tmp_path / "recordings" / "grasp"
    assert resolve("./here/grasp") == Path("here/grasp")
    with pytest.raises(BadInput, match="recordings/ is empty"):
        resolve_existing("grasp")
    assert parse_episode("episode_3", 12) == parse_episode("3", 12) == 3
    with pytest.raises(BadInput, match=r"has 0\.\.11"):
        parse_episode("12", 12)
    with pytest.raises(BadInput, match="not an episode"):
        parse_episode("last", 12)
