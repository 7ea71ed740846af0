"""Reads the schema of a data set on the disk, also of one that another LeRobot tool rewrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..hardware.errors import BadInput, DatasetError
from .layout import OWN, read_json
from .schema import LEROBOT_VERSION, STATE, CameraSchema, Schema, features
from .transaction import INFO

_ENCODER_KEYS = ("dtype", "shape", "names")


def read_schema(root: Path) -> Schema:
    """The schema of the set at ``root``.

    ``meta/dexloop.json`` says it; LeRobot's editing tools drop that file, and then the features themselves say it.
    Raises BadInput where the features are those of another kind of data set, DatasetError where files are damaged.
    """
    if not root.exists():
        raise BadInput(f"there is no data set at {root}: record one with `collect`.")
    if not (root / INFO).exists():
        raise BadInput(
            f"{root} has no finished episode ({INFO} is missing): record with `collect`, or `dataset repair`."
        )
    info = read_json(root, INFO)
    if info.get("codebase_version") != LEROBOT_VERSION:
        found = info.get("codebase_version")
        raise BadInput(f"{root} is LeRobot {found!r}, expected {LEROBOT_VERSION!r}: convert it with LeRobot first.")
    schema = Schema.from_json(read_json(root, OWN), str(root / OWN)) if (root / OWN).exists() else derive_schema(info)
    difference = feature_difference(schema, info)
    if difference:
        raise BadInput(f"{root} has another schema: {difference}.")
    return schema


def derive_schema(info: dict[str, Any]) -> Schema:
    """The schema that the features of ``info.json`` describe, if any of ours does."""
    try:
        described = info["features"]
        names = described[STATE]["names"]
        joints = [name.removesuffix(".pos") for name in names]
        arm = tuple(
            name for name in joints if f"{name}.vel" in described.get("sensor.arm_velocity", {}).get("names", [])
        )
        if not arm:
            arm = tuple(name for name in joints if "joint" in name)
        cameras, masks = [], [key.removeprefix("mask.") for key in described if key.startswith("mask.")]
        for key, feature in described.items():
            if feature["dtype"] == "video" and not feature["info"].get("is_depth_map"):
                depth = described.get(f"{key}_depth", {}).get("info", {})
                unit_m = round(depth.get("video.depth_max", 0.0) / 4095, 9)
                height, width, _ = feature["shape"]
                cameras.append(CameraSchema(key.removeprefix("observation.images."), width, height, unit_m))
        return Schema(
            int(info["fps"]),
            tuple(cameras),
            str(info["robot_type"]),
            arm,
            tuple(name for name in joints if name not in arm),
            masks[0] if masks else "head",
            "timing.row_ns" in described,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(
            f"the data set is not one of DexLoop's (its features lack {error}): record one with `collect`, or import "
            "with `dataset import`."
        ) from error


def feature_difference(schema: Schema, info: dict[str, Any]) -> str:
    """How the features of ``info.json`` differ from the schema's, in words; empty when they do not."""
    wanted, found = features(schema), info.get("features")
    if not isinstance(found, dict):
        raise DatasetError(f"{INFO} lists no features: run `dataset repair`.")
    problems = [f"{key} is missing" for key in wanted if key not in found]
    problems += [f"{key} is not ours" for key in found if key not in wanted]
    for key in wanted:
        if key in found:
            for part in _ENCODER_KEYS:
                if found[key].get(part) != wanted[key][part]:
                    problems.append(f"{key} has {part} {found[key].get(part)}, expected {wanted[key][part]}")
    if info.get("fps") != schema.rate_hz:
        problems.append(f"fps is {info.get('fps')}, expected {schema.rate_hz}")
    return "; ".join(problems)
