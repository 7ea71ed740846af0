"""The controller: encoder, transformer, objective and action space put together; how it learns and how it acts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...hardware.errors import BadInput
from ..views import Observation, follow
from .actions import COMMAND_DIM, action_space, chunk_basis
from .arrival import CLOSING_STEPS, Arrival
from .config import ControllerConfig, SmallEncoderConfig
from .draws import Draws
from .encoders import encoder
from .geometry import ARM_DOF, CLOSING, FINGERS
from .goal import GOAL_DIM, GraspGoal
from .objective import Network, objective
from .parts import Batch
from .reachable import GoalArm
from .transformer import ActionTransformer, Observed

SHOWN_AGAIN = 0.6  # of the target's pixels as it was looked at before: as much shows well
MOVED_M = 0.03  # a target that is this far from where it was has been moved
FIRST = 64  # of what a judge ranks first is tried out


@dataclass(frozen=True)
class Loss:
    """Weighted squared error of a batch. Sums, so that batches and processes add up: ``mean = total / weight``."""

    total: Tensor  # scalar, with gradient
    weight: Tensor  # scalar

    @property
    def mean(self) -> Tensor:
        return self.total / self.weight.clamp_min(1e-8)


class Controller(nn.Module):
    """Mask-conditioned chunk policy. See :class:`ControllerConfig` for what it can be."""

    def __init__(self, config: ControllerConfig) -> None:
        super().__init__()
        self.config = config
        action = config.action
        self.space = action_space(action)
        self.basis = chunk_basis(action, self.space.dim)
        self.encoder: Any = encoder(config)
        small = config.encoder
        around = isinstance(small, SmallEncoderConfig) and small.around > 0
        self.goal = GraspGoal(config.goal, around) if config.goal.kind == "grasp" else None
        self.committed = Committed(action.delay_max, self.space.dim, config.network.width)
        self.model = ActionTransformer(
            config.network, self.basis.tokens, self.basis.dim, self.encoder.tokens + self.committed.tokens
        )
        self.objective = objective(config.objective)

    # -- learning --------------------------------------------------------------------------------------------------

    def fit(self, batches: Callable[[], Any]) -> None:
        """Learn normalisers and basis. ``batches()`` iterates training batches anew each time it is called."""
        with torch.no_grad():
            raws, chunks, states = [], [], []
            for batch in batches():
                context = self.encoder.prepare(batch, None)
                raw = self.space.raw(batch["action"], context)
                raws.append(raw[~batch["action_is_pad"]])
                chunks.append(raw)
                states.append(batch["state"])
            self.encoder.fit(torch.cat(states))
            self.space.fit(torch.cat(raws))
            self.basis.fit(self.space.normalize(torch.cat(chunks)))

    def loss(self, batch: Batch, draws: Draws, augment: bool = True) -> Loss:
        """Squared error of what the network answers, over steps that are no padding, dimensions that the source has,
        and, where a delay was drawn, steps that are not committed yet. ``augment=False``: for validation."""
        # Geometry in half precision would be off by millimetres.
        with torch.no_grad(), torch.autocast(batch["state"].device.type, enabled=False):
            batch = self._nudged(batch, draws) if augment and self.config.action.nudge_rad else batch
            prepared = self.encoder.prepare(batch, draws if augment else None)
            chunk = self.space.encode(batch["action"], prepared)
            noise = draws.normal(self.basis.tokens, self.basis.dim).to(chunk)
            delay = draws.integers(self.config.action.delay_max + 1).to(chunk.device)
            noisy, time, answer = self.objective.corrupt(self.basis.encode(chunk), noise, draws.uniform().to(chunk))
            learn = self._learnt(batch, delay)
            weights = self.basis.weights(learn)
        observed = self.observe(prepared, chunk, delay)
        error = (self.model(noisy, time, observed) - answer) ** 2
        total, weight = (error * weights).sum(), weights.sum()
        if self.goal is not None:
            wish, drawn = batch["goal"].to(chunk), draws.normal(GOAL_DIM).to(chunk)
            off = self.goal.loss(prepared, wish, drawn, draws.uniform().to(chunk))
            # An error of the goal counts as much as one of every number of a chunk.
            total = total + (off * batch["goal_known"]).sum() * self.basis.tokens * self.basis.dim
        return Loss(total, weight)

    def _nudged(self, batch: Batch, draws: Draws) -> Batch:
        """The arm a little off its demonstrated way, and commands that lead back to it within half a chunk, or before
        the fingers close: a hand that is beside the grasp goes there first.

        Demonstrations come in straight over the object: none shows what to do when the hand is beside it. Pictures
        stay as they were taken. (Noise into the state that a demonstrator corrects: DART, 1703.09327; ours is made
        afterwards, so it is as cheap as it is inexact.)
        """
        horizon = self.config.action.horizon
        size = self.config.action.nudge_rad * 2 * draws.uniform(1)
        off = (size * draws.normal(ARM_DOF)).to(batch["state"])  # (B, 7) rad
        within = self._steps_to_close(batch).clamp_max(horizon // 2)  # (B,)
        off = off * (within / (horizon // 2))[:, None]
        steps = torch.arange(1, horizon + 1, device=off.device)
        left = (1 - steps / within.clamp_min(1)[:, None]).clamp_min(0)[..., None]  # (B, H, 1), 1 -> 0
        pad = off.new_zeros(len(off), batch["state"].shape[1] - ARM_DOF)
        off = torch.cat([off, pad], 1)
        moved = {"state": batch["state"] + off, "action": batch["action"] + left * off[:, None]}
        return batch | moved

    @staticmethod
    def _steps_to_close(batch: Batch) -> Tensor:
        """(B,) steps of the chunk until the fingers begin to close; all of them where they do not, or have closed."""
        opening = batch["action"][..., FINGERS].mean(-1)  # (B, H)
        closing = (opening < CLOSING) & (batch["state"][:, FINGERS].mean(-1) >= CLOSING)[:, None]
        steps = opening.shape[1]
        begun = (closing.int().argmax(1) - CLOSING_STEPS).clamp_min(0)
        return torch.where(closing.any(1), begun, steps)

    def _learnt(self, batch: Batch, delay: Tensor) -> Tensor:
        """(B, H, D) 1.0 where a number is learnt."""
        steps = torch.arange(self.config.action.horizon, device=delay.device)
        real = ~batch["action_is_pad"] & (steps[None] >= delay[:, None])  # (B, H)
        return (real[..., None] & self.space.mask(batch["action_mask"])[:, None]).float()

    # -- acting ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(self, batch: Batch, noise: Tensor, committed: Tensor | None = None, steps: int | None = None) -> Tensor:
        """(B, H, 13) commands from the batch's row on. ``noise`` (B, T, E); ``committed`` (B, d, 13): the first d
        commands of the chunk that the robot will follow anyway, d <= delay_max; they are returned as they came in.
        Raises BadInput where more are committed than the controller learnt."""
        delay = 0 if committed is None else committed.shape[1]
        if delay > self.config.action.delay_max:
            raise BadInput(
                f"{delay} commands are committed, the controller learnt {self.config.action.delay_max}: plan earlier, "
                "or train with a larger delay."
            )
        prepared = self.encoder.prepare(batch, None)
        chunk = None
        if committed is not None and delay:
            chunk = self.space.encode(committed, prepared)
        observed = self.observe(prepared, chunk, torch.full((len(noise),), delay, device=noise.device))
        steps = steps or self.config.objective.sample_steps
        tokens = self.draw(self.model.at_times(self.objective.times(steps), observed), noise, steps)
        commands = self.space.decode(self.basis.decode(tokens), prepared)
        if committed is not None and delay:
            commands = torch.cat([committed.to(commands), commands[:, delay:]], 1)
        return commands

    def draw(self, network: Network, noise: Tensor, steps: int) -> Tensor:
        """Tokens (B, T, E) of a chunk, from ``noise`` (B, T, E) of deviation 1."""
        return self.objective.sample(network, self.config.objective.temperature * noise, steps)

    def halve(self) -> None:
        """Encoder, keys and values in bfloat16 from now on; action tokens and all that is sampled stay float32
        (decision 84). Raises BadInput for the small encoder: its geometry needs float32, and it is quick without."""
        if isinstance(self.config.encoder, SmallEncoderConfig):
            raise BadInput(f"the {self.config.preset} preset has no bfloat16: leave it at float32.")
        self.encoder.halve()
        for block in self.model.blocks:
            block.cross_attn.kv.to(torch.bfloat16)

    def noise(self, generator: torch.Generator, rows: int = 1) -> Tensor:
        """(rows, T, E) standard normal, the start of a sampling."""
        return torch.randn(rows, self.basis.tokens, self.basis.dim, generator=generator)

    def observe(self, prepared: Batch, chunk: Tensor | None, delay: Tensor) -> Observed:
        """Keys and values of everything that does not change during a sampling. ``prepared`` by the encoder; of the
        encoded ``chunk`` (B, H, D) the first ``delay`` (B,) commands are committed."""
        tokens = self.encoder(prepared)
        if not self.committed.tokens:
            return self.model.observe(tokens)
        extra, there = self.committed(chunk, delay)
        present = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return self.model.observe(torch.cat([tokens, extra.to(tokens)], 1), torch.cat([present, there[:, None]], 1))


def taken_over(new: Tensor, left: Tensor, late: int, fade: int) -> Tensor:
    """``new`` (B, H, D), led into from ``left`` (B, n, D), what is left of the last chunk: its first ``late`` commands
    as they are, over the next ``fade``, if it has as many, a smooth passage (half a wave of the cosine)."""
    count = max(min(left.shape[1] - late, fade), 0)
    share = 0.5 - 0.5 * torch.cos(torch.pi * torch.arange(1, count + 1, device=new.device) / (count + 1))
    kept, passing = left[:, :late].to(new), left[:, late : late + count].to(new)
    passage = torch.lerp(passing, new[:, late : late + count], share.to(new)[:, None])
    start = kept.shape[1]
    return torch.cat([kept, passage, new[:, start + count :]], 1)


class Committed(nn.Module):
    """Commands that are already on their way, as one observation token (training-time real-time chunking, 2512.05964,
    which writes them into the noisy chunk instead; a token works in any basis of chunks). Hidden where there are none.
    """

    def __init__(self, delay_max: int, dim: int, width: int) -> None:
        super().__init__()
        self.delay_max = delay_max
        self.tokens = 1 if delay_max else 0
        if delay_max:
            self.embed = nn.Sequential(nn.Linear(delay_max * (dim + 1), width), nn.GELU(), nn.Linear(width, width))

    def forward(self, chunk: Tensor | None, delay: Tensor) -> tuple[Tensor, Tensor]:
        """chunk (B, >= delay, D), delay (B,) -> token (B, 1, width), there (B,) bool."""
        steps = torch.arange(self.delay_max, device=delay.device)
        there = (steps[None] < delay[:, None]).float()[..., None]  # (B, delay_max, 1)
        weight: Any = self.embed[0].weight
        dim = weight.shape[1] // self.delay_max - 1
        known = torch.zeros(len(delay), self.delay_max, dim, device=delay.device, dtype=weight.dtype)
        if chunk is not None:
            length = min(chunk.shape[1], self.delay_max)
            known[:, :length] = chunk[:, :length]
        return self.embed(torch.cat([known * there, there], -1).flatten(1))[:, None], delay > 0


class ControllerPolicy:
    """A controller ready to act on live observations, one attempt after another."""

    def __init__(
        self,
        controller: Controller,
        seed: int = 0,
        device: str = "cpu",
        precision: Literal["float32", "bfloat16"] = "float32",
        compiled: bool = False,
    ) -> None:
        """``precision``: bfloat16 saves memory and time of the paper presets and moves commands a little (decision
        84). ``compiled``: see :meth:`.transformer.ActionTransformer.compile_steps`."""
        self.controller = controller.eval().to(device)
        if precision == "bfloat16":
            self.controller.halve()
        if compiled:
            self.controller.model.compile_steps()
        self.config = controller.config
        self._device = device
        self._generator = torch.Generator().manual_seed(seed)
        self._reference: dict[str, NDArray[np.generic]] = {}
        self._arm = GoalArm()
        self._arrival = Arrival(self._arm)
        self._goal: Tensor | None = None  # (1, 15), where the target was when it was looked at
        self._anchor = torch.zeros(1, 3)  # there, when the goal was chosen
        self._tried: list[Tensor] = []  # goals of this attempt that failed, with positions from there
        self._shift = torch.zeros(1, 3)  # how far the target has moved since
        self._shown = 0  # pixels of it then
        self._centres: dict[str, tuple[float, float]] = {}

    @property
    def late_most(self) -> int:
        """So many commands of the last chunk the controller can go on from: what it learnt."""
        return self.config.action.delay_max

    @property
    def cameras(self) -> frozenset[str]:
        """Whose pictures the controller looks at."""
        encoder = self.controller.encoder
        return frozenset(view.camera for view in (*encoder.views, *encoder.reference_views))

    def start(self, observation: Observation) -> None:
        """An attempt begins: remember how the target looks now, and choose a grasp, if the controller chooses one."""
        self.remember(observation)
        self._choose(observation)

    def remember(self, observation: Observation) -> None:
        """How the target looks as an attempt begins."""
        self._tried = []
        self._look(observation)

    def _look(self, observation: Observation) -> None:
        self._centres = {}
        arrays = follow(self.controller.encoder.reference_views, observation, self._centres)
        self._reference = {f"reference.{key}": array for key, array in arrays.items()}
        self._shift, self._shown = torch.zeros(1, 3), _shown(observation)

    def again(self, observation: Observation) -> None:
        """The hand came up empty and is open again: choose another grasp, if the controller chooses one. A target that
        shows well is looked at anew, since a hand that misses pushes and turns it; depth is 0 where the robot is."""
        if self._goal is None:
            return
        self._tried.append(_moved(self._goal, -self._anchor))
        if _shown(observation) >= SHOWN_AGAIN * self._shown:
            self._look(observation)
        self._choose(observation)

    def proposals(self, observation: Observation, count: int, seed: int) -> NDArray[np.float32]:
        """(count, 15) goals to try out, as an attempt that begins now would consider them: with a judge, half are any
        samples and half are drawn from what it ranks first, refined; else all are samples. Raises BadInput for a
        controller that chooses none."""
        goal = self.controller.goal
        if goal is None:
            raise BadInput("this controller chooses no grasp: train it with --override goal.kind=grasp.")
        self.remember(observation)
        generator = torch.Generator().manual_seed(seed)
        best = count // 2 if goal.judge is not None else 0
        scene = self._scene(observation)
        noise = torch.randn(1, count - best, GOAL_DIM, generator=generator).to(self._device)
        goals = goal.sample(scene, noise)[0]
        if best:
            ranked = self._ranked(goal, scene, generator)[:FIRST]
            goals = torch.cat([goals, ranked[torch.randperm(len(ranked), generator=generator)[:best]]])
        return goals.cpu().numpy()

    def _choose(self, observation: Observation) -> None:
        goal = self.controller.goal
        if goal is None:
            return
        scene = self._scene(observation)
        self._anchor = scene["anchor"].cpu()
        tried = [_moved(one, self._anchor) for one in self._tried]
        ranked = self._ranked(goal, scene, self._generator, tried).cpu()
        self._goal = ranked[[self._arm.first(ranked.numpy())]]

    def _ranked(
        self, goal: GraspGoal, scene: Batch, generator: torch.Generator, tried: Sequence[Tensor] = ()
    ) -> Tensor:
        """(K, 15) goals, the best first; (1, 15) each that failed."""
        noise = torch.randn(1, goal.draws, GOAL_DIM, generator=generator).to(self._device)
        return goal.propose(scene, noise, torch.stack(list(tried), 1).to(self._device) if tried else None)[0]

    def _scene(self, observation: Observation) -> Batch:
        return self.controller.encoder.prepare(self._seen(observation), None)

    def chunk(
        self,
        observation: Observation,
        left: NDArray[np.floating] | None = None,
        late: int = 0,
        steps: int | None = None,
    ) -> NDArray[np.float64]:
        """(H, 13) absolute commands at the controller's rate, the first one for now. ``left`` (n, 13): what is left of
        the last chunk from now on; its first ``late`` commands will be followed before the new chunk is there. Raises
        BadInput before :meth:`start`, and where more is late than the controller learnt."""
        before = torch.zeros(1, 0, COMMAND_DIM) if left is None else torch.as_tensor(np.asarray(left, np.float32))[None]
        before = before.to(self._device)
        command = before[0, 0] if before.shape[1] else None
        batch = self.batch(observation, command)
        new = self.controller.sample(batch, self.noise(), before[:, :late], steps)
        if self._goal is not None and not _closed(batch, command):
            goal = batch["goal"][0].cpu().numpy()
            new = torch.as_tensor(self._arrival.led(new[0].double().cpu().numpy(), goal, late)).to(new)[None]
        return taken_over(new, before, late, self.config.action.fade)[0].double().cpu().numpy()

    def noise(self) -> Tensor:
        """(1, T, E) the start of a sampling, another one each time."""
        return self.controller.noise(self._generator).to(self._device)

    def batch(self, observation: Observation, command: Tensor | None = None) -> Batch:
        """What the controller gets to see of a live moment: one row. A target that somebody moved takes the goal along
        as long as the hand is open: later the hand moves it. ``command`` (13,): what the robot follows now. Raises
        BadInput before :meth:`start`."""
        batch = self._seen(observation)
        if self._goal is not None:
            if not _closed(batch, command):
                self._follow_target(batch)
            batch["goal"] = _moved(self._goal, self._shift).to(self._device)
        return batch

    def _seen(self, observation: Observation) -> Batch:
        if self.controller.encoder.reference_views and not self._reference:
            raise BadInput("the policy was asked for a chunk before start(): begin the attempt first.")
        arrays = follow(self.controller.encoder.views, observation, self._centres) | self._reference
        arrays["state"] = np.asarray(observation.state, np.float32)
        return {key: torch.as_tensor(np.asarray(array))[None].to(self._device) for key, array in arrays.items()}

    def _follow_target(self, batch: Batch) -> None:
        moved = self.controller.encoder.moved(batch).cpu()
        if torch.isfinite(moved).all():
            # Less is what a hand in front of it makes of its outline.
            self._shift = moved if moved.norm() > MOVED_M else torch.zeros(1, 3)


def _moved(goal: Tensor, by: Tensor) -> Tensor:
    """(1, 15) a goal, its position moved by (1, 3) m."""
    return torch.cat([goal[:, :3] + by, goal[:, 3:]], 1)


def _shown(observation: Observation) -> int:
    """Pixels of the target that are seen."""
    return int(observation.mask.sum())


def _closed(batch: Batch, command: Tensor | None) -> bool:
    """Whether the hand of this row has closed, or is told to: fingers around a wide object stay open."""
    openings = [float(hand[FINGERS].mean()) for hand in (batch["state"][0], command) if hand is not None]
    return min(openings) < CLOSING
