"""DexGraspVLA's controller at full size with random weights: ours against its published way of computing, in one run.

``controller_plain.py`` is the peer; it computes with the very same parameters. Compared are the sampling of a chunk
(16 steps), the whole prediction (pictures to commands) and a training step of batch 4 (ours: cached features and
distinct mask patches), with how far the outputs are apart. Beside them: bfloat16, fewer steps, 224 pixels. On the CPU
the time is that of the processor, so that other processes disturb it less; on a GPU it is wall time.
"""

from __future__ import annotations

import copy
import json as jsonlib
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
import tyro
from dexloop.benchmarks.controller_plain import PlainController
from dexloop.hardware.errors import BadInput, DexLoopError
from dexloop.train.controller.config import PUBLISHED, ControllerConfig
from dexloop.train.controller.dino import FrozenVits
from dexloop.train.controller.draws import Draws
from dexloop.train.controller.policy import Controller
from torch import Tensor

FEW = 4
Part = Literal["sampling", "predict", "training"]


@dataclass(frozen=True)
class ControllerSpeedBenchmark:
    """Time the paper's controller."""

    parts: tuple[Part, ...] = ("sampling", "predict", "training")
    """What to measure."""
    size: Literal["full", "tiny"] = "full"
    """tiny: to see that the benchmark runs."""
    device: str = "cpu"
    """cpu, or cuda."""
    threads: int = 1
    """Threads of PyTorch on the CPU."""
    repeats: int = 1
    """Runs of the plain one, and of ours where it takes seconds; ours runs 3 times as often where it is quick."""
    batch: int = 4
    """Rows of a training step."""
    seed: int = 0
    json: bool = False
    """Print one JSON object as the last line."""


@dataclass(frozen=True)
class Row:
    """One way of computing one thing."""

    what: str
    how: str
    seconds: float  # median; of the processor on the CPU, wall on a GPU
    wall_seconds: float
    ratio: float | None = None  # plain / this
    apart: float | None = None  # largest difference to float32; of the plain one for ours in float32


@dataclass
class Bench:
    """The controller under test, its plain peer, and what was measured."""

    config: ControllerSpeedBenchmark
    controller: Controller
    plain: PlainController
    rows: list[Row] = field(default_factory=list)

    def timed(self, repeats: int, call: Callable[[], Any]) -> tuple[Any, float, float]:
        """What the call answers, its median seconds, and its wall seconds."""
        cuda = self.config.device != "cpu"
        if cuda:
            call()  # kernels load, graphs are captured
        spent, walls = [], []
        for _ in range(max(repeats, 1)):
            if cuda:
                torch.cuda.synchronize()
            wall, begin = time.perf_counter(), time.process_time()
            answer = call()
            if cuda:
                torch.cuda.synchronize()
            walls.append(time.perf_counter() - wall)
            spent.append(walls[-1] if cuda else time.process_time() - begin)
        return answer, statistics.median(spent), statistics.median(walls)

    def add(self, what: str, how: str, times: tuple[float, float], plain_s: float | None, apart: Any = None) -> None:
        seconds, wall = times
        ratio = None if plain_s is None else plain_s / seconds
        self.rows.append(Row(what, how, seconds, wall, ratio, None if apart is None else float(apart)))
        print(line(self.rows[-1]), flush=True)


def line(row: Row) -> str:
    ratio = "" if row.ratio is None else f"{row.ratio:7.2f} x"
    apart = "" if row.apart is None else f"{row.apart:10.1e}"
    return f"{row.what:<10} {row.how:<42} {row.seconds:9.3f} {row.wall_seconds:9.3f} {ratio:>9} {apart:>10}"


def make(config: ControllerSpeedBenchmark) -> Bench:
    """Random weights of the size of trained ones: a head of zeros would answer zeros."""
    torch.manual_seed(config.seed)
    shape = sized(config)
    controller = Controller(shape)
    controller.encoder.use_frozen(FrozenVits.random(shape.encoder, depth=None if config.size == "full" else 2))
    torch.nn.init.normal_(controller.model.head.weight, std=0.02)
    controller = controller.to(config.device).eval()
    return Bench(config, controller, PlainController(controller).eval())


def sized(config: ControllerSpeedBenchmark) -> ControllerConfig:
    if config.size == "full":
        return PUBLISHED
    encoder = replace(PUBLISHED.encoder, side=56, head_dim=64, wrist_dim=128)
    return replace(PUBLISHED, encoder=encoder, network=replace(PUBLISHED.network, width=64, layers=2))


def moment(config: ControllerSpeedBenchmark, side: int, rows: int = 1) -> dict[str, Tensor]:
    """Pictures of noise, an ellipse of a few percent of the picture as the mask, a state."""
    generator = torch.Generator().manual_seed(config.seed)
    y, x = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
    mask = ((x - 0.1) / 0.2) ** 2 + ((y + 0.1) / 0.3) ** 2 < 1
    out = {
        f"{view}.rgb": torch.randint(0, 256, (rows, side, side, 3), generator=generator, dtype=torch.uint8)
        for view in ("head", "wrist")
    }
    out["head.mask"] = mask.expand(rows, side, side)
    out["state"] = 2 * torch.rand(rows, 13, generator=generator) - 1
    return {name: tensor.to(config.device) for name, tensor in out.items()}


def sampled(controller: Controller, tokens: Tensor, noise: Tensor, steps: int) -> Tensor:
    """Keys and values of the observation, then every step: what is compared with the plain sampling."""
    with torch.no_grad():
        observed = controller.model.observe(tokens)
        network = controller.model.at_times(controller.objective.times(steps), observed)
        return controller.objective.sample(network, noise, steps)


def acting(bench: Bench) -> None:
    """Sampling and prediction, plain against ours; then what ours can do in bfloat16 and in fewer steps."""
    config, controller, plain = bench.config, bench.controller, bench.plain
    steps = controller.config.objective.sample_steps
    noise = controller.noise(torch.Generator().manual_seed(config.seed)).to(config.device)
    batch = moment(config, controller.config.encoder.side)
    predict, sampling = "predict" in config.parts, "sampling" in config.parts
    if predict:
        with torch.no_grad():
            tokens, encode_s, encode_wall = bench.timed(config.repeats, lambda: plain.observe(batch))
    else:
        tokens = torch.randn(1, controller.encoder.tokens, controller.config.network.width, device=config.device)
        encode_s = encode_wall = 0.0
    reference, sample_s, sample_wall = bench.timed(config.repeats, lambda: plain.sample(tokens, noise, steps))
    few = 3 * config.repeats
    if sampling:
        bench.add("sampling", f"plain, {steps} steps", (sample_s, sample_wall), None)
        chunk, *times = bench.timed(few, lambda: sampled(controller, tokens, noise, steps))
        bench.add("sampling", f"ours, {steps} steps", tuple(times), sample_s, (chunk - reference).abs().max())
        for fewer in (8, FEW):
            _, *times = bench.timed(few, lambda n=fewer: sampled(controller, tokens, noise, n))
            bench.add("sampling", f"ours, {fewer} steps", tuple(times), sample_s)
    if predict:
        plain_s = encode_s + sample_s
        bench.add("predict", f"plain, {steps} steps", (plain_s, encode_wall + sample_wall), None)
        commands = controller.space.decode(reference, {"state": batch["state"]})
        ours, *times = bench.timed(config.repeats, lambda: controller.sample(batch, noise))
        bench.add("predict", f"ours, {steps} steps", tuple(times), plain_s, (ours - commands).abs().max())
        _, *times = bench.timed(config.repeats, lambda: controller.sample(batch, noise, steps=FEW))
        bench.add("predict", f"ours, {FEW} steps", tuple(times), plain_s)
        small_pictures(bench, noise, plain_s)
    if config.device != "cpu":
        compiled(bench, tokens, noise, sample_s)


def halved(bench: Bench) -> None:
    """The same in bfloat16. Last, because the weights do not come back."""
    config, controller = bench.config, bench.controller
    steps = controller.config.objective.sample_steps
    noise = controller.noise(torch.Generator().manual_seed(config.seed)).to(config.device)
    batch = moment(config, controller.config.encoder.side)
    plain_s = {row.what: row.seconds for row in bench.rows if row.how.startswith("plain")}
    with torch.no_grad():
        tokens = torch.randn(1, controller.encoder.tokens, controller.config.network.width, device=config.device)
        wide = sampled(controller, tokens, noise, steps)
        whole = controller.sample(batch, noise) if "predict" in config.parts else None
        controller.halve()
        tokens = tokens.to(torch.bfloat16)
    for n in (steps, FEW):
        if "sampling" in config.parts:
            chunk, *times = bench.timed(3 * config.repeats, lambda n=n: sampled(controller, tokens, noise, n))
            apart = (chunk - wide).abs().max() if n == steps else None
            bench.add("sampling", f"ours, {n} steps, bfloat16", tuple(times), plain_s["sampling"], apart)
        if whole is not None:
            ours, *times = bench.timed(config.repeats, lambda n=n: controller.sample(batch, noise, steps=n))
            apart = (ours - whole).abs().max() if n == steps else None
            bench.add("predict", f"ours, {n} steps, bfloat16", tuple(times), plain_s["predict"], apart)
    if whole is not None:
        small_pictures(bench, noise, plain_s["predict"])


def small_pictures(bench: Bench, noise: Tensor, plain_s: float) -> None:
    """Pictures of 224 pixels, the same weights but for the positions of observation tokens."""
    config, controller = bench.config, bench.controller
    side = 224 if config.size == "full" else 28
    shape = controller.config
    small = Controller(replace(shape, encoder=replace(shape.encoder, side=side))).to(config.device).eval()
    small.encoder.use_frozen(controller.encoder.frozen)
    half = controller.encoder.head_net[0].weight.dtype == torch.bfloat16
    if half:
        small.halve()
    batch = moment(config, side)
    precision = ", bfloat16" if half else ""
    for n in (shape.objective.sample_steps, FEW):
        _, *times = bench.timed(config.repeats, lambda n=n: small.sample(batch, noise, steps=n))
        bench.add("predict", f"ours, {n} steps, {side} px{precision}", tuple(times), plain_s)


def compiled(bench: Bench, tokens: Tensor, noise: Tensor, plain_s: float) -> None:
    """Steps compiled, with CUDA graphs."""
    controller = copy.deepcopy(bench.controller)
    steps = controller.config.objective.sample_steps
    wide = sampled(controller, tokens, noise, steps)
    controller.model.compile_steps()
    chunk, *times = bench.timed(3, lambda: sampled(controller, tokens, noise, steps))
    bench.add("sampling", f"ours, {steps} steps, compiled", tuple(times), plain_s, (chunk - wide).abs().max())


def training(bench: Bench) -> None:
    """Forward, backward and AdamW; without dropout, so that the losses can be compared."""
    config, controller, plain = bench.config, bench.controller, bench.plain
    raw = moment(config, controller.config.encoder.side, config.batch)
    generator = torch.Generator().manual_seed(config.seed)
    rows, horizon = config.batch, controller.config.action.horizon
    raw["action"] = (2 * torch.rand(rows, horizon, 13, generator=generator) - 1).to(config.device)
    cached = {name: raw[name] for name in ("head.mask", "state", "action")}
    cached["action_is_pad"] = torch.zeros(rows, horizon, dtype=torch.bool, device=config.device)
    cached["action_mask"] = torch.ones(rows, 13, dtype=torch.bool, device=config.device)
    for view in ("head", "wrist"):
        answer = controller.encoder.frozen.features(view, raw[f"{view}.rgb"], None)
        cached[f"{view}.features"] = answer.to(torch.float16)
    draws = Draws(config.seed, 0, rows)
    noise = draws.normal(horizon, 13).to(config.device)
    draws.integers(1)  # as Controller.loss draws: noise, delay, time
    uniform = draws.uniform().to(config.device)
    start = {name: tensor.detach().clone() for name, tensor in controller.named_parameters()}

    def step(loss: Callable[[], Tensor]) -> Callable[[], float]:
        optimizer = torch.optim.AdamW(controller.parameters(), 1e-4, betas=(0.95, 0.999), weight_decay=1e-4)

        def run() -> float:
            with torch.no_grad():  # every run from the same weights
                for name, tensor in controller.named_parameters():
                    tensor.copy_(start[name])
            optimizer.zero_grad(set_to_none=True)
            value = loss()
            value.backward()
            optimizer.step()
            return float(value.detach())

        return run

    def ours() -> Tensor:
        return controller.loss(cached, Draws(config.seed, 0, rows), augment=False).mean

    theirs, plain_s, wall = bench.timed(config.repeats, step(lambda: plain.loss(raw, noise, uniform)))
    bench.add("training", f"plain, batch {rows}, loss {theirs:.6f}", (plain_s, wall), None)
    mine, *times = bench.timed(config.repeats, step(ours))
    bench.add("training", f"ours, batch {rows}, loss {mine:.6f}", tuple(times), plain_s, abs(mine - theirs))
    with torch.autocast(config.device, torch.bfloat16):
        half, *times = bench.timed(config.repeats, step(ours))
    bench.add("training", f"ours, bfloat16, loss {half:.6f}", tuple(times), plain_s, abs(half - mine))


def main(config: ControllerSpeedBenchmark) -> None:
    if config.device != "cpu" and not torch.cuda.is_available():
        raise BadInput(f"--device {config.device}: this machine has no GPU that PyTorch sees; leave it at cpu.")
    torch.set_num_threads(config.threads)
    bench = make(config)
    where = torch.cuda.get_device_name() if config.device != "cpu" else f"CPU, {config.threads} thread(s)"
    print(f"{config.size} size, {where}, torch {torch.__version__}")
    print(f"{'what':<10} {'how':<42} {'seconds':>9} {'wall s':>9} {'ratio':>9} {'apart':>10}")
    if "sampling" in config.parts or "predict" in config.parts:
        acting(bench)
    if "training" in config.parts:
        training(bench)
    if "sampling" in config.parts or "predict" in config.parts:
        halved(bench)
    firsts = {}
    for row in bench.rows:
        if row.ratio is not None:
            firsts.setdefault(row.what, row.ratio)
    for what, ratio in firsts.items():
        print(f"{what}: {ratio:.2f} x as fast as the plain way")
    if config.json:
        print(jsonlib.dumps({"rows": [asdict(row) for row in bench.rows], "ratios": firsts, "where": where}))


if __name__ == "__main__":
    try:
        main(tyro.cli(ControllerSpeedBenchmark))
    except DexLoopError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error
