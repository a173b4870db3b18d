"""The batches of a round's update."""

from dataclasses import dataclass, fields
from typing import Any, Protocol, Self

import torch
from torch import Tensor


class AttentionPattern(Protocol):
    """Which tokens attend to which (:class:`lsp_lightning.prefix.attention.TreeAttention`)."""

    def to(self, device: torch.device | str) -> Self:
        """The same pattern on another device."""


@dataclass(frozen=True)
class TrainBatch:
    """One forward pass over K completions of a round.

    The model reads rows of ``input_ids``. All other code works with completions, (K, T), and finds
    them in the model's output through ``sources``. With shared prefixes all tokens lie in one row
    and form a tree.
    """

    input_ids: Tensor
    """(B, S) int64, padded on the right; (1, S) as a tree."""
    position_ids: Tensor | None
    """(1, S) int64 for a tree; None for plain rows, whose positions count from 0."""
    attention: AttentionPattern | None
    """Which tokens of a tree attend to which; None for plain rows."""
    targets: Tensor
    """(K, T) int64, the completions' tokens."""
    mask: Tensor
    """(K, T) bool, false on padding."""
    sources: Tensor
    """(K, T) int64, the flat index (in B*S) of the hidden state that predicts each target."""
    temperature: Tensor
    """(K,) fp32, the sampling temperature of each completion."""
    rows: Tensor
    """(K,) int64, the row of each completion in the round: first the C queries that the Challenger
    wrote, then the N*G answers."""

    def to(self, device: torch.device | str) -> Self:
        """The same batch on another device."""
        moved: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in moved.items():
            moved[name] = None if value is None else value.to(device)
        return type(self)(**moved)
