"""``cli.py train grasps``: learn from rehearsed grasps what a controller should propose, and which of it to take."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..hardware.errors import BadInput

if TYPE_CHECKING:
    import torch

    from .controller.goal import GraspGoal
    from .controller.parts import Batch
    from .controller.policy import Controller

LIFTED_M = 0.10
LOOKS = 6  # differently disturbed ones of each scene that are learnt from
TARGETS, GRASPS = 32, 8  # of a batch
CHECK_EVERY = 250  # batches
_SCENE = ("anchor", "scene", "scene.points", "scene.around")


@dataclass(frozen=True)
class TrainGrasps:
    """Teach a controller that chooses a grasp first (goal.kind=grasp) from grasps that were tried out: to propose such
    as lifted, and to judge which of its proposals will. How it moves stays as it is."""

    policy: Path
    """The controller: a policy folder, or a run (its best policy)."""
    rehearsals: tuple[str, ...] = ("rehearsals",)
    """What `rehearse` made: names under recordings/, or paths."""
    out: Path | None = None
    """Folder for the controller that comes out. Not given: grasps, beside the policy."""
    steps: int = 3000
    """Batches to learn from."""
    width: int = 192
    """Of the judge's layers."""
    samples: int = 128
    """Grasps that are proposed from now on, for the judge to choose from."""
    lr: float = 1e-3
    """Largest learning rate."""
    seed: int = 0
    """Of everything random."""
    validation_share: float = 0.1
    """Share of the scenes that is held out."""

    def run(self) -> int:
        from ..datasets.home import resolve
        from ..datasets.rehearsals import read_recipe, scene_paths
        from .controller.checkpoint import save_controller
        from .prepare import load_init

        if self.steps < 1 or self.width < 1 or self.samples < 1 or not 0 < self.validation_share < 1:
            raise BadInput("--steps, --width and --samples are at least 1, --validation-share between 0 and 1.")
        start = load_init(self.policy)
        if start.goal is None:
            raise BadInput(f"{self.policy} chooses no grasp: train it with --override goal.kind=grasp first.")
        roots = [resolve(name) for name in self.rehearsals]
        paths = [path for root in roots for path in scene_paths(root)]
        controller = with_judge(start, self.width, self.samples, self.seed)
        figures = learn(controller, paths, self)
        recipes = [read_recipe(root) | {"scenes": len(scene_paths(root))} for root in roots]
        out = self.out or (self.policy if self.policy.name != "best" else self.policy.parent) / "grasps"
        about = _about(self.policy) | {"judge": {"rehearsals": recipes, **figures}}
        save_controller(controller, out, about)
        print(
            f"{out}: of what was tried on {figures['targets']} held-out targets, the judge's first choice lifted in "
            f"{figures['picked']:.1%}, one at random in {figures['random']:.1%}, any in {figures['best']:.1%}.\n"
            f"Next: python benchmarks/closed_loop.py --policy {out} --split validation"
        )
        return 0


def with_judge(start: Controller, width: int, samples: int, seed: int) -> Controller:
    """The same controller with a new judge of that width."""
    import torch

    from .controller.policy import Controller

    torch.manual_seed(seed)
    goal = replace(start.config.goal, judge=width, samples=samples)
    controller = Controller(replace(start.config, goal=goal))
    known = {name: value for name, value in start.state_dict().items() if not name.startswith("goal.judge.")}
    controller.load_state_dict({**controller.state_dict(), **known})
    return controller.eval()


@dataclass(frozen=True)
class Rehearsed:
    """What was tried on targets of some scenes. Tensors of ``looks`` have LOOKS versions of each target first, the
    undisturbed one at 0."""

    looks: dict[str, torch.Tensor]  # (LOOKS, targets, ...)
    grasps: list[NDArray[np.int64]]  # for each target which of the goals are its
    goals: torch.Tensor  # (N, 15)
    lifted: torch.Tensor  # (N,) 0 or 1

    @functools.cached_property
    def target_of(self) -> NDArray[np.int64]:
        """(N,) which target each of the goals is for."""
        return np.repeat(np.arange(len(self.grasps)), [len(mine) for mine in self.grasps])

    @functools.cached_property
    def _lifting(self) -> list[NDArray[np.int64]]:
        good = self.lifted.numpy() > 0
        return [mine[good[mine]] for mine in self.grasps if good[mine].any()]

    def held(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        """(count,) grasps that lifted, of targets drawn evenly. Raises BadInput where none did."""
        if not self._lifting:
            raise BadInput("none of the rehearsed grasps lifted its target: rehearse more scenes.")
        return np.array([rng.choice(self._lifting[t]) for t in rng.integers(len(self._lifting), size=count)])

    def take(self, look: NDArray[np.int64], targets: NDArray[np.int64]) -> Batch:
        return {name: tensor[look, targets] for name, tensor in self.looks.items()}


def learn(controller: Controller, paths: list[Path], settings: TrainGrasps) -> dict[str, Any]:
    """Fit ``controller.goal``, and keep it as it was when its judge had the least loss on held-out scenes. Returns what
    it achieves there."""
    import torch
    from rich.progress import track
    from torch.nn.functional import binary_cross_entropy_with_logits

    rng = np.random.default_rng(settings.seed)
    order = rng.permutation(len(paths))
    count = max(1, round(settings.validation_share * len(paths)))
    if count >= len(paths):
        raise BadInput(f"{len(paths)} rehearsed scenes are too few to hold some out: make more with `rehearse`.")
    held_out = open_rehearsals(controller, [paths[i] for i in sorted(order[:count])], settings.seed)
    training = open_rehearsals(controller, [paths[i] for i in sorted(order[count:])], settings.seed)
    chooser = controller.goal
    assert chooser is not None
    assert chooser.judge is not None
    average, best = copy.deepcopy(chooser), _Best()
    optimizer = torch.optim.AdamW(chooser.parameters(), settings.lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, settings.steps + 1, pct_start=0.05)
    chooser.train()
    for step in track(range(settings.steps), description="learning from rehearsed grasps"):
        targets = rng.integers(len(training.grasps), size=TARGETS)
        tried = np.stack([rng.choice(training.grasps[t], GRASPS) for t in targets])
        prepared = training.take(rng.integers(LOOKS, size=TARGETS), targets)
        logits = chooser.judge(prepared, training.goals[tried])
        loss = binary_cross_entropy_with_logits(logits, training.lifted[tried])
        loss = loss + proposing(chooser, training, rng.integers(LOOKS, size=TARGETS), training.held(rng, TARGETS), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            keep = min(0.99, step / (step + 10))
            for mean, now in zip(average.parameters(), chooser.parameters(), strict=True):
                mean.lerp_(now, 1 - keep)
        if (step + 1) % CHECK_EVERY == 0 or step + 1 == settings.steps:
            figures = judged(average.eval(), held_out)
            print(f"step {step + 1}: held out " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items()))
            if figures["loss"] < best.figures.get("loss", np.inf):  # it over-fits before it has done with learning
                best = _Best(step + 1, figures, copy.deepcopy(average.state_dict()))
    chooser.load_state_dict(best.weights)
    chooser.eval()
    return best.figures | {"targets": len(held_out.grasps), "steps": best.step, "seed": settings.seed}


@dataclass(frozen=True)
class _Best:
    """The chooser as it was when its judge did best on held-out scenes."""

    step: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)


def proposing(
    chooser: GraspGoal, data: Rehearsed, looks: NDArray[np.int64], grasps: NDArray[np.int64], seed: int
) -> torch.Tensor:
    """Mean error of the chooser's flow for ``grasps``, which lifted."""
    from .controller.draws import Draws

    draws = Draws(seed, 0, len(grasps))
    prepared = data.take(looks, data.target_of[grasps])
    goals = data.goals[grasps]
    return chooser.loss(prepared, goals, draws.normal(goals.shape[1]), draws.uniform()).mean()


def judged(chooser: GraspGoal, data: Rehearsed) -> dict[str, float]:
    """Of grasps that lifted, the mean error of the chooser's flow; over all grasps, the judge's cross entropy and area
    under the ROC curve; over targets, how often the grasp that is judged best lifted, one at random, and any."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    assert chooser.judge is not None
    logits = torch.zeros(len(data.goals))
    good = np.flatnonzero(data.lifted.numpy())
    with torch.no_grad():
        for target, mine in enumerate(data.grasps):
            prepared = data.take(np.zeros(1, np.int64), np.array([target]))
            logits[mine] = chooser.judge(prepared, data.goals[mine][None])[0]
        flow = proposing(chooser, data, np.zeros(len(good), np.int64), good, 0)
    lifted = [data.lifted[mine] for mine in data.grasps]
    won, lost = logits[data.lifted > 0], logits[data.lifted == 0]
    return {
        "flow": float(flow),
        "loss": float(binary_cross_entropy_with_logits(logits, data.lifted)),
        "auc": float((won[:, None] > lost[None]).float().mean()),
        "picked": float(np.mean([mine[logits[at].argmax()] for mine, at in zip(lifted, data.grasps, strict=True)])),
        "random": float(np.mean([mine.mean() for mine in lifted])),
        "best": float(np.mean([mine.max() for mine in lifted])),
    }


def open_rehearsals(controller: Controller, paths: list[Path], seed: int) -> Rehearsed:
    """Every target of the scenes with what was tried on it, looked at as the controller looks."""
    import torch

    from ..datasets.rehearsals import read_scene

    views: list[dict[str, NDArray[Any]]] = []
    grasps: list[NDArray[np.int64]] = []
    goals: list[NDArray[np.float32]] = []
    lifts: list[NDArray[np.float32]] = []
    total = 0
    for path in paths:
        scene = read_scene(path)
        for target in np.unique(scene.target):
            mine = scene.target == target
            views.append(_view(controller, scene, int(target)))
            grasps.append(np.arange(total, total + mine.sum()))
            goals.append(scene.goal[mine])
            lifts.append(scene.lift_m[mine])
            total += int(mine.sum())
    if not views:
        raise BadInput(f"none of {len(paths)} rehearsed scenes has a grasp that was tried: make more with `rehearse`.")
    return Rehearsed(
        _looks(controller, views, seed),
        grasps,
        torch.tensor(np.concatenate(goals)),
        torch.tensor(np.concatenate(lifts) >= LIFTED_M, dtype=torch.float32),
    )


def _view(controller: Controller, scene: Any, target: int) -> dict[str, NDArray[Any]]:
    from .views import Observation, follow

    depth_m = {"head": scene.depth_mm.astype(np.float32) / 1000}
    observation = Observation(scene.state, {"head": scene.rgb}, depth_m, scene.instances == target + 1)
    arrays = follow(controller.encoder.reference_views, observation, {})
    return {"state": scene.state} | arrays | {f"reference.{name}": array for name, array in arrays.items()}


def _looks(controller: Controller, views: list[dict[str, NDArray[Any]]], seed: int) -> dict[str, torch.Tensor]:
    """The encoder's scene features (LOOKS, targets, ...)."""
    import torch

    from .controller.draws import Draws

    looks = []
    with torch.no_grad():
        for look in range(LOOKS):
            made: list[Batch] = []
            for part, first in enumerate(_parts(len(views))):
                some = [views[i] for i in first]
                batch = {name: torch.as_tensor(np.stack([view[name] for view in some])) for name in some[0]}
                draws = Draws(seed, look * len(views) + part, len(some)) if look else None
                prepared = controller.encoder.prepare(batch, draws)
                made.append({name: prepared[name] for name in _SCENE if name in prepared})
            looks.append({name: torch.cat([one[name] for one in made]) for name in made[0]})
    return {name: torch.stack([one[name] for one in looks]) for name in looks[0]}


def _parts(count: int, size: int = 64) -> Iterator[range]:
    return (range(first, min(first + size, count)) for first in range(0, count, size))


def _about(policy: Path) -> dict[str, Any]:
    """What the controller was trained on, where it says so."""
    import json

    from .prepare import policy_folder

    path = policy_folder(policy) / "about.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}
