"""What a chunk is in the network's eyes: action spaces (joints, or the hand's pose from the object) and chunk bases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ...hardware.errors import BadInput
from ...hardware.geometry import inverse
from ...hardware.kinematics import ArmKinematics
from ...hardware.rig import DEXGRASPVLA_RIG
from .config import ActionConfig
from .geometry import ARM_DOF, heading, rotation_to_six, six_to_rotation, world_T_palm
from .parts import Batch

COMMAND_DIM = 13
_LEAST_SPREAD = 1e-4  # a number that varies less is a constant: it is moved to 0 and not scaled


class Normalizer(nn.Module):
    """y = x * scale + offset, for each number by itself. Before :meth:`fit` it changes nothing.

    ``limits`` maps the smallest and largest value seen to -1 and 1 (as the published controller); ``gaussian`` the
    mean to 0 and the standard deviation to 1. ``low``, ``high``, ``mean`` and ``deviation`` are those of what was seen.
    """

    scale: Tensor
    offset: Tensor
    low: Tensor
    high: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, dim: int, kind: Literal["limits", "gaussian"]) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("scale", torch.ones(dim))
        self.register_buffer("offset", torch.zeros(dim))
        for name, value in (("low", -1.0), ("high", 1.0), ("mean", 0.0), ("deviation", 1.0)):
            self.register_buffer(name, torch.full((dim,), value))

    def fit(self, values: Tensor) -> None:
        """Learn from (N, dim). Raises BadInput where there are none, or they are not finite."""
        if values.ndim != 2 or values.shape[1] != len(self.scale) or not len(values):
            raise BadInput(f"got values of shape {tuple(values.shape)}, expected (N, {len(self.scale)}), N at least 1.")
        values = values.double()
        if not torch.isfinite(values).all():
            raise BadInput("got values that are not finite to learn a normaliser from: run `dataset check`.")
        low, high, mean = values.min(0).values, values.max(0).values, values.mean(0)
        deviation = values.std(0, correction=0)
        if self.kind == "limits":
            spread, middle = (high - low) / 2, (high + low) / 2
            constant = spread * 2 < _LEAST_SPREAD
            middle = torch.where(constant, low, middle)
        else:
            spread, middle = deviation, mean
            constant = spread < _LEAST_SPREAD
        scale = torch.where(constant, torch.ones_like(spread), 1 / spread.clamp_min(_LEAST_SPREAD / 2))
        self.scale.copy_(scale)
        self.offset.copy_(-middle * scale)
        for name, value in (("low", low), ("high", high), ("mean", mean), ("deviation", deviation)):
            getattr(self, name).copy_(value)

    def normalize(self, values: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        return values * self.scale + self.offset

    def denormalize(self, values: Tensor) -> Tensor:
        """(..., dim) -> (..., dim), the inverse of :meth:`normalize`."""
        return (values - self.offset) / self.scale


class _Space(nn.Module):
    """What every action space does with its normaliser."""

    dim: int

    def __init__(self, config: ActionConfig) -> None:
        super().__init__()
        self.normalizer = Normalizer(self.dim, config.normal)

    def raw(self, commands: Tensor, context: Batch) -> Tensor:
        raise NotImplementedError

    def fit(self, raw: Tensor) -> None:
        self.normalizer.fit(raw)

    def normalize(self, raw: Tensor) -> Tensor:
        return self.normalizer.normalize(raw)

    def encode(self, commands: Tensor, context: Batch) -> Tensor:
        return self.normalizer.normalize(self.raw(commands, context))


class JointSpace(_Space):
    """The 13 commands as they are: 7 arm joints rad, 6 openings."""

    dim = COMMAND_DIM

    def raw(self, commands: Tensor, context: Batch) -> Tensor:
        return commands

    def decode(self, encoded: Tensor, context: Batch) -> Tensor:
        commands = self.normalizer.denormalize(encoded)
        limits = torch.as_tensor(_KINEMATICS.limits).to(commands)
        arm = torch.minimum(torch.maximum(commands[..., :ARM_DOF], limits[:, 0]), limits[:, 1])
        return torch.cat([arm, commands[..., ARM_DOF:].clamp(0.0, 1.0)], -1)

    def mask(self, action_mask: Tensor) -> Tensor:
        return action_mask


NEAR_UNIT_M = 0.03
_AT_OBJECT_M = 0.2  # from the palm to an object that the fingers hold, and a little


class HandSpace(_Space):
    """Where the palm goes, seen from a frame: 3 numbers of its position (m), 6 of its rotation (first two columns,
    1812.07035), 6 openings. Which frame is the difference between

    - ``hand_to_object``: at ``context["anchor"]``, axes of the world: what is learnt is where to be at the object;
    - ``hand_from_here``: at the palm as ``context["state"]`` has it. Positions along axes that are turned with the
      palm's heading but stay upright, rotations from the palm's own: what is learnt is where to go next, and
      behaviour that was shown at one heading holds at every other. Positions are in units that shrink from the way
      that is left to :data:`NEAR_UNIT_M`: what is a small error on a long way would be a large one at the object.

    The way back chooses among the arm's solutions the one next to the arm's present joints, step by step; a pose
    that the arm does not reach becomes the nearest that it does.
    """

    dim = 15

    def __init__(self, config: ActionConfig) -> None:
        super().__init__(config)
        self._from_here = config.space == "hand_from_here"

    def raw(self, commands: Tensor, context: Batch) -> Tensor:
        origin, axes, attitude, unit = self._frame(context)
        palm = world_T_palm(commands[..., :ARM_DOF])  # (B, H, 4, 4)
        position = (palm[..., :3, 3] - origin) @ axes / unit
        rotation = attitude.transpose(1, 2)[:, None] @ palm[..., :3, :3]
        pose = torch.cat([position, rotation_to_six(rotation)], -1)
        return torch.cat([pose.to(commands), commands[..., ARM_DOF:]], -1)

    def _frame(self, context: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Origin (B, 1, 3) m, axes of positions (B, 3, 3) and of rotations (B, 3, 3), unit of positions (B, 1, 1) m,
        all float64."""
        anchor = context["anchor"].double()[:, None]
        if self._from_here:
            palm = world_T_palm(context["state"][:, :ARM_DOF])
            way = (palm[:, None, :3, 3] - anchor).norm(dim=-1, keepdim=True) - _AT_OBJECT_M
            return palm[:, None, :3, 3], heading(palm[:, :3, :3]), palm[:, :3, :3], (way / 2).clamp_min(NEAR_UNIT_M)
        world = torch.eye(3, dtype=torch.float64, device=anchor.device).expand(len(anchor), 3, 3)
        return anchor, world, world, torch.ones_like(anchor[..., :1])

    def decode(self, encoded: Tensor, context: Batch) -> Tensor:
        raw = self.normalizer.denormalize(encoded.double())
        origin, axes, attitude, unit = self._frame(context)
        pose = torch.eye(4, dtype=torch.float64).repeat(*raw.shape[:-1], 1, 1)
        pose[..., :3, 3] = ((unit * raw[..., :3]) @ axes.transpose(1, 2) + origin).cpu()
        pose[..., :3, :3] = (attitude[:, None] @ six_to_rotation(raw[..., 3:9])).cpu()
        base_T_flange = _BASE_T_WORLD @ pose.numpy() @ _PALM_T_FLANGE
        near = context["state"][:, :ARM_DOF].detach().cpu().double().numpy()
        arm = np.stack([self._follow(poses, q) for poses, q in zip(base_T_flange, near, strict=True)])
        openings = raw[..., 9:].clamp(0.0, 1.0)
        return torch.cat([torch.from_numpy(arm).to(raw), openings], -1).to(encoded)

    @staticmethod
    def _follow(base_T_flange: Any, q_near: Any) -> Any:
        """(H, 4, 4) -> (H, 7) rad, each solution next to the one before."""
        path = []
        for pose in base_T_flange:
            q_near = _KINEMATICS.ik(pose, q_near).q
            path.append(q_near)
        return np.stack(path)

    def mask(self, action_mask: Tensor) -> Tensor:
        # Every joint of the arm moves the palm: a source that lacks one says nothing about the pose.
        pose = action_mask[:, :ARM_DOF].all(-1, keepdim=True).expand(-1, 9)
        return torch.cat([pose, action_mask[:, ARM_DOF:]], -1)


class TimeBasis(nn.Module):
    """A token is a run of consecutive commands."""

    def __init__(self, config: ActionConfig, dim: int) -> None:
        super().__init__()
        self.tokens = config.tokens
        self.dim = config.horizon // config.tokens * dim
        self._shape = (config.horizon, dim)

    def fit(self, chunks: Tensor) -> None:
        """Nothing to learn."""

    def encode(self, chunk: Tensor) -> Tensor:
        return chunk.reshape(len(chunk), self.tokens, self.dim)

    def decode(self, tokens: Tensor) -> Tensor:
        return tokens.reshape(len(tokens), *self._shape)

    def weights(self, learn: Tensor) -> Tensor:
        return self.encode(learn)


class LinearBasis(nn.Module):
    """Tokens hold the coefficients of a chunk in ``size`` orthonormal directions, each over its ``deviation``."""

    mean: Tensor
    components: Tensor
    deviation: Tensor

    def __init__(self, config: ActionConfig, dim: int, size: int) -> None:
        super().__init__()
        self.tokens = config.tokens
        self.dim = size // config.tokens
        self._shape = (config.horizon, dim)
        whole = config.horizon * dim
        self.register_buffer("mean", torch.zeros(whole))
        self.register_buffer("components", torch.eye(whole, size))  # (H * D, K), orthonormal columns
        self.register_buffer("deviation", torch.ones(size))

    def fit(self, chunks: Tensor) -> None:
        """Learn from (N, H, D) normalised chunks."""
        raise NotImplementedError

    def encode(self, chunk: Tensor) -> Tensor:
        flat = (chunk.flatten(1) - self.mean) @ self.components / self.deviation
        return flat.reshape(len(chunk), self.tokens, self.dim)

    def decode(self, tokens: Tensor) -> Tensor:
        flat = tokens.flatten(1) * self.deviation @ self.components.T + self.mean
        return flat.reshape(len(tokens), *self._shape)

    def weights(self, learn: Tensor) -> Tensor:
        return (learn.flatten(1) @ self.components**2).reshape(len(learn), self.tokens, self.dim)


class CosineBasis(LinearBasis):
    """Token k holds the k-th coefficient of the discrete cosine transform (DCT-II, orthonormal) of every number over
    the chunk, the mean first. Higher ones than there are tokens are lost: what comes out is smooth."""

    def __init__(self, config: ActionConfig, dim: int) -> None:
        if config.tokens > config.horizon:
            raise BadInput(f"a chunk of {config.horizon} commands has no {config.tokens} frequencies: choose fewer.")
        super().__init__(config, dim, config.tokens * dim)
        steps = torch.arange(config.horizon, dtype=torch.float64)[:, None]
        waves = torch.cos(torch.pi / config.horizon * (steps + 0.5) * torch.arange(config.tokens))
        self.components.copy_(torch.kron(waves / waves.norm(dim=0), torch.eye(dim, dtype=torch.float64)))

    def fit(self, chunks: Tensor) -> None:
        """Learn the mean of (N, H, D). Coefficients keep their sizes: slow ones, which carry most of a motion, stand
        far above the noise that sampling begins with, and an error counts the same in each of them."""
        self.mean.copy_(chunks.double().flatten(1).mean(0))

    def decode(self, tokens: Tensor) -> Tensor:
        # Of the mean too only the smooth part, so that encode(decode(tokens)) == tokens and nothing rough is added.
        smooth = self.components @ (self.components.T @ self.mean)
        flat = tokens.flatten(1) * self.deviation @ self.components.T + smooth
        return flat.reshape(len(tokens), *self._shape)


class PcaBasis(LinearBasis):
    """Tokens hold coefficients in the principal components of the training chunks, strongest first, each scaled to
    deviation 1. Components that are not kept are lost: smooth motion needs few."""

    def __init__(self, config: ActionConfig, dim: int) -> None:
        if config.components > config.horizon * dim:
            raise BadInput(
                f"a chunk of {config.horizon * dim} numbers has no {config.components} components: choose fewer."
            )
        super().__init__(config, dim, config.components)

    def fit(self, chunks: Tensor) -> None:
        """Learn from (N, H, D). Raises BadInput where there are fewer chunks than components."""
        flat = chunks.double().flatten(1)
        kept = self.components.shape[1]
        if len(flat) < kept:
            raise BadInput(f"got {len(flat)} chunks to learn {kept} components from: record more episodes.")
        mean = flat.mean(0)
        # The covariance's eigenvectors are the chunks' right singular vectors, without an (N, N) matrix.
        variance, vectors = torch.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))
        self.mean.copy_(mean)
        self.components.copy_(vectors[:, -kept:].flip(1))
        # Directions that the data do not have stay near 0 instead of being blown up.
        self.deviation.copy_(variance[-kept:].flip(0).clamp_min(_LEAST_SPREAD**2).sqrt())


def action_space(config: ActionConfig) -> JointSpace | HandSpace:
    """The action space (:class:`.parts.ActionSpace`) that ``config`` names."""
    if config.space not in ("joints", "hand_to_object", "hand_from_here"):
        raise BadInput(f"action space is {config.space!r}: expected joints, hand_to_object or hand_from_here.")
    return JointSpace(config) if config.space == "joints" else HandSpace(config)


def chunk_basis(config: ActionConfig, dim: int) -> TimeBasis | LinearBasis:
    """The chunk basis (:class:`.parts.ChunkBasis`) that ``config`` names, for ``dim`` numbers a command."""
    bases: dict[str, Callable[[ActionConfig, int], TimeBasis | LinearBasis]]
    bases = {"time": TimeBasis, "cosine": CosineBasis, "pca": PcaBasis}
    if config.basis not in bases:
        raise BadInput(f"chunk basis is {config.basis!r}: expected {', '.join(bases)}.")
    return bases[config.basis](config, dim)


_ARM = DEXGRASPVLA_RIG.arms[0]
_KINEMATICS = ArmKinematics(_ARM.arm)
_BASE_T_WORLD = inverse(_ARM.world_T_base)
_PALM_T_FLANGE = inverse(_ARM.flange_T_palm)
