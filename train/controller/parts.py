"""The seams of a controller: encoder, action space, chunk basis. One module each implements them."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ..views import View
from .draws import Draws

Batch = dict[str, Tensor]
"""What a training step or a live moment hands to the controller; the leading dimension is the batch.

- ``state`` (B, 13) float32: 7 arm joints rad, 6 openings
- for every view of the encoder its parts (:class:`..views.View`), e.g. ``window.depth`` (B, h, w); the same under
  ``reference.`` at the reference row: the moment at which the attempt began
- training only: ``action`` (B, H, 13) absolute commands from the row on; ``action_is_pad`` (B, H) bool: past the end of
  the episode; ``action_mask`` (B, 13) bool: numbers that this source really has; ``lagged.window.mask`` and
  ``lagged.window.origin``: of a few rows earlier, for encoders that train with late masks; ``goal_known`` (B,) bool:
  the goal follows from the reference
- for controllers that choose a grasp first, ``goal`` (B, 15): :data:`.goal.GOAL_DIM`
"""


class Encoder(Protocol):
    """Observation -> tokens. A ``torch.nn.Module``."""

    tokens: int  # how many

    @property
    def views(self) -> tuple[View, ...]:
        """What it needs to see of the current moment."""
        ...

    @property
    def reference_views(self) -> tuple[View, ...]:
        """What it needs to see of the moment at which the attempt began; batch keys start with ``reference.``."""
        ...

    @property
    def groups(self) -> dict[str, slice]:
        """Which tokens come from where, e.g. {"head": slice(0, 1369)}: for attention maps."""
        ...

    def fit(self, states: Tensor) -> None:
        """Learn what has to be learnt beforehand from (N, 13) states of the training episodes."""
        ...

    def prepare(self, batch: Batch, draws: Draws | None) -> Batch:
        """Raw batch -> what :meth:`forward` and the action space read, without gradients: float pictures, geometry,
        ``anchor`` (B, 3) where the encoder knows the object's position (m, world). ``draws``: training, corrupt masks,
        depth and colours with it; None: leave them as they are."""
        ...

    def __call__(self, prepared: Batch) -> Tensor:
        """(B, tokens, width)."""
        ...


class ActionSpace(Protocol):
    """Absolute commands <-> what the network learns. A ``torch.nn.Module`` (its statistics are buffers)."""

    dim: int

    def raw(self, commands: Tensor, context: Batch) -> Tensor:
        """(B, H, 13) -> (B, H, dim), not normalised."""
        ...

    def fit(self, raw: Tensor) -> None:
        """Learn the normaliser from (N, dim) raw numbers of the training episodes."""
        ...

    def encode(self, commands: Tensor, context: Batch) -> Tensor:
        """(B, H, 13) -> (B, H, dim), normalised."""
        ...

    def decode(self, encoded: Tensor, context: Batch) -> Tensor:
        """(B, H, dim) -> (B, H, 13) commands within the joint limits. ``context["state"]`` is where the arm is."""
        ...

    def mask(self, action_mask: Tensor) -> Tensor:
        """(B, 13) bool, which commands a source has -> (B, dim) bool, which numbers may be learnt from it."""
        ...


class ChunkBasis(Protocol):
    """A normalised chunk (B, H, D) <-> action tokens (B, T, E). A ``torch.nn.Module``."""

    tokens: int
    dim: int

    def fit(self, chunks: Tensor) -> None:
        """Learn from (N, H, D) normalised chunks of the training episodes."""
        ...

    def encode(self, chunk: Tensor) -> Tensor: ...

    def decode(self, tokens: Tensor) -> Tensor: ...

    def weights(self, learn: Tensor) -> Tensor:
        """(B, H, D) 1 where there is something to learn -> (B, T, E) weight of each number in the loss, 0 to 1."""
        ...
