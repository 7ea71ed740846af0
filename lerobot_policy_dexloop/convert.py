"""DexLoop's policy folders <-> LeRobot's ``pretrained_model`` folders. The tensors are the same.

``python -m lerobot_policy_dexloop.convert to-dexloop|from-dexloop SOURCE OUT``
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dexloop.datasets.schema import ACTION, STATE
from dexloop.hardware.errors import BadInput
from dexloop.train.controller.checkpoint import CONFIG, WEIGHTS, load_controller, save_controller
from dexloop.train.data.chunks import JOINTS
from dexloop.train.views import View
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig

from .configuration_dexloop_controller import COMMANDS, DexloopControllerConfig
from .modeling_dexloop_controller import DexloopControllerPolicy
from .processor_dexloop_controller import make_dexloop_controller_pre_post_processors


def from_dexloop(source: Path, out: Path) -> None:
    """A folder of :func:`~dexloop.train.controller.checkpoint.save_controller` -> one that ``--policy.path`` takes.
    Raises BadInput where ``source`` is no controller, or ``out`` exists."""
    controller = load_controller(source)
    _check_free(out)
    encoder = controller.encoder
    config = DexloopControllerConfig(
        preset=controller.config.preset,
        controller=controller.config.to_json(),
        n_action_steps=min(8, controller.config.action.horizon),
        input_features=_features((*encoder.views, *encoder.reference_views)),
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (COMMANDS,))},
        action_feature_names=list(JOINTS),
        push_to_hub=False,
    )
    policy = DexloopControllerPolicy(config)
    for twin in {policy.controller, policy.acting}:
        twin.load_state_dict(controller.state_dict())
    policy.save_pretrained(out)
    for pipeline in make_dexloop_controller_pre_post_processors(config):
        pipeline.save_pretrained(out)


def to_dexloop(source: Path, out: Path) -> None:
    """A ``pretrained_model`` folder of LeRobot's trainer -> DexLoop's, with the weights that act. Raises BadInput where
    ``source`` is not such a folder, or ``out`` exists."""
    missing = [name for name in (CONFIG, WEIGHTS) if not (source / name).is_file()]
    if missing:
        raise BadInput(
            f"{source} lacks {' and '.join(missing)}: expected LeRobot's checkpoints/<step>/pretrained_model."
        )
    _check_free(out)
    config = PreTrainedConfig.from_pretrained(source)
    if not isinstance(config, DexloopControllerConfig):
        raise BadInput(f"{source} is a policy of type {config.type!r}: expected dexloop_controller.")
    policy = DexloopControllerPolicy.from_pretrained(source, config=config)
    save_controller(policy.acting, out, {"trained_by": "lerobot-train", "updates": int(policy.updates)})


def _features(views: tuple[View, ...]) -> dict[str, PolicyFeature]:
    """What the controller looks at, at the sizes that it looks at. Pictures of other sizes are resized."""
    features = {STATE: PolicyFeature(FeatureType.STATE, (COMMANDS,))}
    for view in views:
        key, size = f"observation.images.{view.camera}", (view.height, view.width)
        features[key] = PolicyFeature(FeatureType.VISUAL, (3, *size))
        if view.depth:
            features[f"{key}_depth"] = PolicyFeature(FeatureType.VISUAL, (1, *size))
    return features


def _check_free(out: Path) -> None:
    if out.exists():
        raise BadInput(f"{out} exists already: choose another folder, or remove it.")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lerobot_policy_dexloop.convert", description=__doc__)
    parser.add_argument("direction", choices=["to-dexloop", "from-dexloop"])
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    try:
        (to_dexloop if given.direction == "to-dexloop" else from_dexloop)(given.source, given.out)
    except BadInput as error:
        parser.exit(2, f"{error}\n")
    print(f"wrote {given.out}")


if __name__ == "__main__":
    main()
