"""One call of ``train controller``: begins a run or goes on with one, and says what came of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.utils import broadcast_object_list

from ..datasets.home import home, resolve_existing
from ..datasets.reader import DatasetReader
from ..hardware.errors import BadInput
from .controller.config import ControllerConfig
from .controller.policy import Controller
from .data.batches import Batches
from .evaluate import DECISIVE, Validation
from .learner import Learner
from .loop import Ending, Standing, pace, train
from .prepare import (
    Data,
    Recipe,
    check_recipe,
    configure,
    draw_recipe,
    fit,
    frozen_encoder,
    load_init,
    make_controller,
    open_data,
)
from .progress import Progress
from .run_folder import CONFIG, DATA, SETTINGS, RunFolder, refuse_existing
from .settings import DEFAULTS, Settings

if TYPE_CHECKING:
    from .command import TrainController

VALIDATIONS = 10  # in a run, unless asked otherwise
TRAINING_SHARE = 0.9  # of the minutes; the rest is for validations and checkpoints


@dataclass(frozen=True)
class _Plan:
    """What will be trained, before anything is built or written."""

    path: Path
    settings: Settings
    config: ControllerConfig
    reader: DatasetReader
    recipe: Recipe
    run: RunFolder | None  # that is resumed
    start: Controller | None  # whose weights it begins with


def run_training(asked: TrainController) -> int:
    """Returns the exit code: 0 done, 130 interrupted. Raises DexLoopError for everything that a user can cause."""
    process = PartialState(cpu=not torch.cuda.is_available())
    plan = _resume(asked, process) if asked.resume else _begin(asked, process)
    accelerator = _accelerator(plan, asked.logger)
    with accelerator.main_process_first():
        controller = make_controller(plan.config, plan.start, plan.settings.seed).to(accelerator.device)
        data = open_data(plan.reader, controller, plan.recipe, plan.settings)
    with Progress(shown=process.is_main_process) as progress:
        if plan.run is None:
            run, learner, standing = _new_run(plan, asked, controller, data, accelerator, progress)
        else:
            run, learner, standing = _old_run(plan.run, plan, controller, accelerator, progress)
        _log_to(accelerator, asked.logger, run, standing)
        progress.begin(learner.settings.steps, standing.step)
        with _batches(data, learner, standing.step) as batches:
            standing, ending = train(run, learner, batches, _validation(data, learner), standing, progress)
        accelerator.end_training()
        progress.say(_farewell(run, standing, ending, learner.settings, plan.recipe))
    run.close()
    return 130 if ending == "interrupted" else 0


# -- what was asked for ------------------------------------------------------------------------------------------------


def _begin(asked: TrainController, process: PartialState) -> _Plan:
    if asked.steps is not None and asked.minutes is not None:
        raise BadInput("both --steps and --minutes were given: choose one of them.")
    start = load_init(asked.init) if asked.init else None
    flags = {name: getattr(asked, name) for name in ("preset", "objective", "basis", "delay_max")}
    config = configure(flags, asked.override, start.config if start else None)
    reader = DatasetReader(resolve_existing(asked.dataset or "grasp"))
    settings = _settings(asked, config, reader)
    if settings.batch_size < process.num_processes:
        raise BadInput(f"batch-size is {settings.batch_size} for {process.num_processes} processes: expected more.")
    names = [asked.name or f"{config.preset}-{config.objective.kind}-{time.strftime('%Y-%m-%d-%H%M%S')}"]
    broadcast_object_list(names)
    path = _runs(asked) / names[0]
    refuse_existing(path)
    return _Plan(path, settings, config, reader, draw_recipe(reader, settings), None, start)


def _settings(asked: TrainController, config: ControllerConfig, reader: DatasetReader) -> Settings:
    """Every setting as asked, or the preset's default; with minutes, the steps are measured later."""
    defaults = DEFAULTS[config.preset]
    timed = asked.steps is None and (asked.minutes is not None or defaults.minutes is not None)
    cached = frozen_encoder(config) if asked.cache_features is None else asked.cache_features
    if cached and not frozen_encoder(config):
        raise BadInput(f"--cache-features: the {config.preset} preset has no frozen encoder; leave it out.")
    given: dict[str, Any] = {
        name: getattr(asked, name)
        for name in ("batch_size", "lr", "seed", "validation_share", "failures", "validate_every")
        if getattr(asked, name) is not None
    }
    settings = Settings(
        dataset=str(reader.root.resolve()),
        steps=1 if timed else asked.steps if asked.steps is not None else defaults.steps or 1,
        minutes=(asked.minutes if asked.minutes is not None else defaults.minutes) if timed else None,
        precision=asked.precision or defaults.precision,
        cache_features=cached,
        copies=(asked.copies if asked.copies is not None else 4) if cached else 1,
        init=str(asked.init.resolve()) if asked.init else None,
        **({"batch_size": defaults.batch_size, "lr": defaults.lr, "warmup": defaults.warmup} | given),
    )
    return settings if timed else _for_steps(settings, asked, settings.steps)


def _for_steps(settings: Settings, asked: TrainController, steps: int) -> Settings:
    """The same for ``steps``: with a warm-up of at most a tenth, and ten validations unless asked otherwise."""
    every = asked.validate_every if asked.validate_every is not None else max(steps // VALIDATIONS, 1)
    warmup = min(settings.warmup, max(steps // 10, 1))
    return replace(settings, steps=steps, warmup=warmup, validate_every=every)


def _resume(asked: TrainController, process: PartialState) -> _Plan:
    run = RunFolder(RunFolder.find(_runs(asked), asked.name), lock=process.is_main_process)
    settings = Settings.from_json(run.document(SETTINGS), str(run.path / SETTINGS))
    config = ControllerConfig.from_json(run.document(CONFIG), str(run.path / CONFIG))
    recipe = Recipe.from_json(run.document(DATA), str(run.path / DATA))
    _refuse_changes(asked, run, settings, config)
    reader = DatasetReader(resolve_existing(settings.dataset))
    check_recipe(reader, recipe)
    return _Plan(run.path, settings, config, reader, recipe, run, None)


def _refuse_changes(asked: TrainController, run: RunFolder, settings: Settings, config: ControllerConfig) -> None:
    """Raises BadInput, naming what was given and is not what the run has."""
    has: dict[str, Any] = {
        name: getattr(settings, name)
        for name in ("minutes", "batch_size", "lr", "seed", "validation_share", "failures", "precision")
    }
    has |= {name: getattr(settings, name) for name in ("validate_every", "cache_features", "copies")}
    has |= {"preset": config.preset, "objective": config.objective.kind, "basis": config.action.basis}
    has |= {"delay_max": config.action.delay_max, "steps": settings.steps}
    wants = {name: getattr(asked, name) for name in has if getattr(asked, name) is not None}
    if asked.dataset is not None:
        has["dataset"], wants["dataset"] = settings.dataset, str(resolve_existing(asked.dataset).resolve())
    if asked.init is not None:
        has["init"], wants["init"] = settings.init, str(asked.init.resolve())
    changed = [
        f"--{name.replace('_', '-')} {wants[name]} (it has {has[name]})" for name in wants if wants[name] != has[name]
    ]
    if asked.override:
        changed.append("--override")
    if changed:
        raise BadInput(
            f"{run.path} cannot go on with {', '.join(changed)}: leave that out, or start a new run, for example with "
            f"--init {run.path}."
        )


def _runs(asked: TrainController) -> Path:
    return asked.out or home() / "runs"


# -- what it is made of ------------------------------------------------------------------------------------------------


def _accelerator(plan: _Plan, logger: str) -> Accelerator:
    return Accelerator(
        mixed_precision="bf16" if plan.settings.precision == "bf16" else "no",
        cpu=not torch.cuda.is_available(),
        log_with=None if logger == "none" else logger,
        project_dir=str(plan.path),
        # Buffers are statistics of the data: the same everywhere, and they never change.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )


def _new_run(
    plan: _Plan,
    asked: TrainController,
    controller: Controller,
    data: Data,
    accelerator: Accelerator,
    progress: Progress,
) -> tuple[RunFolder, Learner, Standing]:
    if plan.start is None:
        fit(controller, data.training)
    learner = Learner(controller, plan.settings, accelerator)
    if plan.settings.minutes is not None:
        with _batches(data, learner, 0) as batches:
            planned = [int(60 * plan.settings.minutes * TRAINING_SHARE / pace(learner, batches))]
        broadcast_object_list(planned)
        steps = max(planned[0], 1)
        learner.settings = _for_steps(plan.settings, asked, steps)
        progress.say(
            f"{plan.settings.minutes:g} minutes are about {steps} steps with {VALIDATIONS} validations, at the speed "
            "of the first ones; the learning rate falls to 0 over these steps."
        )
    if accelerator.is_main_process:
        documents = {SETTINGS: learner.settings.to_json(), CONFIG: plan.config.to_json(), DATA: plan.recipe.to_json()}
        run = RunFolder.create(plan.path, documents, learner.state() | Standing().to_state())
    accelerator.wait_for_everyone()
    if not accelerator.is_main_process:
        run = RunFolder(plan.path, lock=False)
    return run, learner, Standing()


def _old_run(
    run: RunFolder, plan: _Plan, controller: Controller, accelerator: Accelerator, progress: Progress
) -> tuple[RunFolder, Learner, Standing]:
    state, step, problems = run.newest_state()
    for problem in problems:
        progress.say(f"{problem} Going on from step {step} instead.")
    standing = Standing.from_state(state, step)
    if step >= plan.settings.steps or (plan.settings.minutes and standing.elapsed_s > 60 * plan.settings.minutes):
        raise BadInput(
            f"{run.path} is complete after {step} steps: to learn on, start a new run with --init {run.path}."
        )
    learner = Learner(controller, plan.settings, accelerator)
    learner.load(state, str(run.path))
    if accelerator.is_main_process:
        run.go_on_from(step)
    accelerator.wait_for_everyone()
    return run, learner, standing


def _batches(data: Data, learner: Learner, step: int) -> Batches:
    settings, accelerator = learner.settings, learner.accelerator
    index, count = accelerator.process_index, accelerator.num_processes
    return Batches(data.training, settings.batch_size, settings.seed, step, index, count)


def _validation(data: Data, learner: Learner) -> Validation:
    settings, accelerator = learner.settings, learner.accelerator
    process = (accelerator.process_index, accelerator.num_processes)

    def add(sums: torch.Tensor) -> torch.Tensor:
        return accelerator.reduce(sums, "sum")

    return Validation(data.validation, settings.validation_rows, settings.batch_size, add, process, accelerator.device)


def _log_to(accelerator: Accelerator, logger: str, run: RunFolder, standing: Standing) -> None:
    """TensorBoard, or wandb without a network, into the run's folder."""
    if logger == "none":
        return
    options: dict[str, Any] = {"purge_step": standing.step + 1} if logger == "tensorboard" else {}
    if logger == "wandb":
        options = {"mode": "offline", "dir": str(run.path), "name": run.path.name}
    accelerator.init_trackers(logger if logger == "tensorboard" else "dexloop", init_kwargs={logger: options})


def _farewell(run: RunFolder, standing: Standing, ending: Ending, settings: Settings, recipe: Recipe) -> str:
    """What was made, and what to do next."""
    again = f"python cli.py train controller --resume --name {run.path.name}"
    again += "" if run.path.parent == home() / "runs" else f" --out {run.path.parent}"
    if ending == "interrupted":
        return f"interrupted: step {standing.step} of {settings.steps} is saved in {run.path}. Go on with: {again}"
    stopped = f", stopped by the clock before {settings.steps}" if ending == "out of time" else ""
    return (
        f"{standing.step} steps{stopped}, {standing.elapsed_s / 60:.1f} min, {len(recipe.training)} episodes and "
        f"{len(recipe.validation)} held out.\n"
        f"{run.path / 'best'}: the policy of step {standing.best_step}, fingertips {standing.best:.1f} mm off on "
        f"held-out episodes ({DECISIVE}); last/ is that of step {standing.step}; curves.png shows all.\n"
        f"Next: python cli.py train attention --checkpoint {run.path / 'best'} --dataset {settings.dataset} --episode "
        f"{recipe.validation[0]}\n"
        f"      python benchmarks/closed_loop.py --policy {run.path / 'best'} --split validation"
    )
