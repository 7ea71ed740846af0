"""Our controller against golden tensors that the published one printed.

    python benchmarks/golden_controller.py ../shared/golden/controller_small.safetensors [--json]

Every width follows from the file. Each output is computed from the file's inputs alone, ours feeding ours, in two ways:
*plain*, every patch of the mask and every key and value at every step, as the published code does; and *fast*, as
training and deployment do: distinct patches of the mask, keys and values of the observation once for a whole sampling.
Exit 1 where anything differs by more than 1e-5. The attention stands in the file as float16: there the rounding
(2^-11 of the value) is allowed too.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from dexloop.hardware.errors import BadInput
from dexloop.train.controller.actions import Normalizer
from dexloop.train.controller.config import ControllerConfig, PaperEncoderConfig
from dexloop.train.controller.dexgraspvla import published_config
from dexloop.train.controller.objective import Ddim, assignment
from dexloop.train.controller.paper import PaperEncoder
from dexloop.train.controller.transformer import ActionTransformer
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

TOLERANCE = 1e-5
HALF = 2.0**-11
"""Largest rounding of float16, relative."""
Tensors = dict[str, Tensor]


class Golden:
    """The parts of a controller at the file's widths, with its weights."""

    def __init__(self, tensors: Tensors, about: dict[str, str], path: Path) -> None:
        weights = _under(tensors, "weights.")
        self.config = _config(weights, about, path)
        assert isinstance(self.config.encoder, PaperEncoderConfig)
        actions = weights["model.head.weight"].shape[0]
        width = self.config.network.width
        states = weights["obs_encoder.state_net.0.weight"].shape[1]
        self.encoder = PaperEncoder(self.config.encoder, width, states).eval()
        self.network = ActionTransformer(
            self.config.network, self.config.action.tokens, actions, self.encoder.tokens
        ).eval()
        self.normalizer = Normalizer(actions, "limits")
        _fill(self.encoder, _under(weights, "obs_encoder."), path, optional="state_normalizer.")
        _fill(self.network, _under(weights, "model."), path)
        params = _under(weights, "normalizer.params_dict.action.")
        self.normalizer.load_state_dict({**self.normalizer.state_dict(), **_only(params, ("scale", "offset"))})
        self.objective = Ddim(self.config.objective)

    def outputs(self, inputs: Tensors, one_step_t: Tensor, fast: bool) -> Tensors:
        """Every output of the file but the noise assignment."""
        mask_net = self.encoder.mask_process_net
        mask_net.unique = fast
        steps = self.config.objective.sample_steps
        times = self.objective.times(steps)
        prepared = {
            "head.features": inputs["head_tokens"],
            "wrist.features": inputs["wrist_tokens"],
            "head.mask": inputs["mask"],
            "state": inputs["state"],
        }
        tokens = self.encoder(prepared)
        observed = self.network.observe(tokens)
        attention: list[Tensor] = []
        eps = self.network(inputs["noise"], one_step_t, observed, attention)
        if fast:
            network = self.network.at_times(times, observed)
        else:
            network = lambda x, time: self.network(x, time, self.network.observe(tokens))  # noqa: E731
        chunk = self.objective.sample(network, inputs["noise"], steps)
        return {
            "mask_tokens": mask_net(inputs["mask"]),
            "obs_tokens": tokens,
            "one_step_eps": eps,
            "one_step_attention_last_block": attention[-1][:, :, 0],  # of the first action token
            "timesteps": times,
            "alphas_cumprod": self.objective.alphas_cumprod,
            "sampled_chunk": chunk,
            "unnormalized_chunk": self.normalizer.denormalize(chunk),
        }


def compare(path: Path) -> dict[str, Any]:
    """What ``main`` prints. Raises BadInput where the file is no golden file, or lacks something."""
    tensors, about = _read(path)
    inputs, expected = _under(tensors, "inputs."), _under(tensors, "outputs.")
    rows: dict[str, Any] = {}
    with torch.no_grad():
        golden = Golden(tensors, about, path)
        found = {way: golden.outputs(inputs, expected["one_step_t"], way == "fast") for way in ("plain", "fast")}
        for name in found["plain"]:
            rows[name] = _row({way: found[way][name] for way in found}, _get(expected, name, path), "attention" in name)
        which = assignment(_get(expected, "assign_data", path), _get(expected, "assign_noise", path))
        rows["assign_index"] = _row({"plain": which, "fast": which}, _get(expected, "assign_index", path), False)
    return {"file": str(path), "widths": about, "outputs": rows, "equal": all(row["equal"] for row in rows.values())}


def _row(found: Tensors, expected: Tensor, half: bool) -> dict[str, Any]:
    out: dict[str, Any] = {"equal": True, "tolerance": "1e-5 + float16 rounding" if half else "1e-5"}
    for way, tensor in found.items():
        # The published code keeps the attention of the first two rows of a batch only.
        tensor = tensor[: len(expected)] if half else tensor
        if tensor.shape != expected.shape:
            raise BadInput(f"ours has shape {tuple(tensor.shape)}, the file {tuple(expected.shape)}.")
        difference = (tensor.double() - expected.double()).abs()
        allowed = TOLERANCE + (HALF * expected.double().abs() if half else 0.0)
        out[way] = float(difference.max())
        out["equal"] &= bool((difference <= allowed).all())
    return out


def _config(weights: Tensors, about: dict[str, str], path: Path) -> ControllerConfig:
    config = published_config(weights, path, {"head": 0, "wrist": 0})
    try:
        sampling, training = int(about["ddim_steps"]), int(about["train_steps"])
    except (KeyError, ValueError) as error:
        raise BadInput(f"{path}: the metadata do not say ddim_steps and train_steps ({error}).") from error
    encoder = config.encoder
    assert isinstance(encoder, PaperEncoderConfig)
    told = {
        "n_emb": config.network.width,
        "layers": config.network.layers,
        "heads": config.network.heads,
        "horizon": config.action.horizon,
        "grid": encoder.side // encoder.patch,
        "head_dim": encoder.head_dim,
        "wrist_dim": encoder.wrist_dim,
    }
    for name, value in told.items():
        if name in about and int(about[name]) != value:
            raise BadInput(f"{path}: the metadata say {name} {about[name]}, the weights' shapes {value}.")
    return replace(config, objective=replace(config.objective, train_steps=training, sample_steps=sampling))


def _read(path: Path) -> tuple[Tensors, dict[str, str]]:
    try:
        with safe_open(str(path), "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{path} is not a readable safetensors file ({error}).") from error


def _fill(module: nn.Module, weights: Tensors, path: Path, optional: str | None = None) -> None:
    """Load ``weights`` into ``module``, all of them and nothing else; ``optional`` may stay as it is."""
    weights = {name: tensor for name, tensor in weights.items() if not name.endswith("_dummy_variable")}
    missing, unknown = module.load_state_dict(weights, strict=False)
    missing = [name for name in missing if optional is None or not name.startswith(optional)]
    for name in (*missing, *unknown):
        raise BadInput(f"{path} {'lacks' if name in missing else 'has the unknown tensor'} {name}.")


def _under(tensors: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _only(tensors: Tensors, names: tuple[str, ...]) -> Tensors:
    return {name: tensors[name] for name in names}


def _get(tensors: Tensors, name: str, path: Path) -> Tensor:
    if name not in tensors:
        raise BadInput(f"{path} lacks {name}: it is not laid out as the golden files are.")
    return tensors[name]


def main(
    file: Annotated[Path, tyro.conf.Positional], json_: Annotated[bool, tyro.conf.arg(name="json")] = False
) -> int:
    """Compare the controller with the golden tensors of FILE."""
    try:
        result = compare(file)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if json_:
        print(json.dumps(result, indent=2))
        return 0 if result["equal"] else 1
    print("widths: " + ", ".join(f"{name} {value}" for name, value in sorted(result["widths"].items())))
    print(f"{'largest absolute difference':32}{'plain':>12}{'fast':>12}  tolerance")
    for name, row in result["outputs"].items():
        verdict = "" if row["equal"] else "   DIFFERS"
        print(f"{name:32}{row['plain']:12.2e}{row['fast']:12.2e}  {row['tolerance']}{verdict}")
    print("equal" if result["equal"] else "NOT EQUAL")
    return 0 if result["equal"] else 1


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
