"""Compares the sampler's log-probs with the trainer's.

They are the same if this process samples. A server uses the same weights with other kernels and
number formats, and may return no log-probs at all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lsp_lightning.errors import warn
from lsp_lightning.functional import sequence_log_ratio, truncated_importance_weights
from lsp_lightning.functional.logprobs import LOGITS_AT_ONCE
from lsp_lightning.models.logits import completion_logprobs
from lsp_lightning.models.modes import inference_state
from lsp_lightning.models.policy import Policy
from lsp_lightning.training.batches import by_row, sampled_logprobs
from lsp_lightning.types import SelfPlayRound, TrainBatch

#: A mean gap in nats per token that rounding cannot explain; 16-bit formats cause a few hundredths.
_FAR = 0.5


@dataclass(frozen=True)
class Draws:
    """The R completions of a round as samples of the policy; on the CPU."""

    logprobs: Sequence[Tensor]
    """The policy's log-probs of each completion's tokens: R tensors (t,)."""
    weights: Mapping[int, Tensor] | None = None
    """Importance weights of each completion's tokens, (t,); None if all are 1."""
    stats: Mapping[str, float] = field(default_factory=dict)
    """How far a server's log-probs differ from the trainer's; NaN if it gave none."""

    def log_ratios(self, references: Mapping[int, Tensor]) -> Tensor:
        """The log-ratio of each completion to the reference. -> (R,).

        Args:
            references: the reference's log-probs of each completion's tokens, (t,), by row.
        """
        reference = [references[row] for row in range(len(self.logprobs))]
        return sequence_log_ratio(_padded(self.logprobs), _padded(reference), _mask(self.logprobs))


def draws_of(
    policy: Policy, played: SelfPlayRound, batches: Sequence[TrainBatch], cap: float | None
) -> Draws:
    """The log-probs of a round, and importance weights if a server sampled it.

    If a server sampled, or log-probs are missing, the trainer computes them again without
    gradients: the rounding errors of two number formats, summed over a completion, can be as large
    as its log-ratio to the reference.

    Args:
        policy: the policy, with the weights that sampled the round.
        played: the round.
        batches: micro-batches of all its completions.
        cap: the largest importance weight; None if this process sampled.
    """
    sampled = sampled_logprobs(played)
    if cap is None and not any(row.isnan().any() for row in sampled):
        return Draws(sampled)
    found = _own_logprobs(policy, batches)
    own = [found[row] for row in range(len(sampled))]
    if cap is None:
        return Draws(own)
    mask_RT = _mask(sampled)
    weights_RT = truncated_importance_weights(_padded(own), _padded(sampled), mask_RT, cap)
    weights = {row: w[m] for row, (w, m) in enumerate(zip(weights_RT, mask_RT, strict=True))}
    return Draws(own, weights, _distance(torch.cat(own), torch.cat(sampled), cap))


def _own_logprobs(policy: Policy, batches: Sequence[TrainBatch]) -> dict[int, Tensor]:
    """The policy's log-probs of each completion's tokens, without dropout, as on a server."""
    model = policy.causal_lm
    with inference_state(model, policy.device.type):
        found = [
            completion_logprobs(model, b.to(policy.device), LOGITS_AT_ONCE, entropies=False)[0]
            for b in batches
        ]
    return by_row(batches, found)


def _distance(own: Tensor, sampled: Tensor, cap: float) -> dict[str, float]:
    """How far the trainer's log-probs, (tokens,), are from the server's, by metric."""
    known = ~sampled.isnan()
    log_ratio = (own - sampled)[known]
    weights = log_ratio.exp().clamp(max=cap)
    gap = float(log_ratio.abs().mean())
    if gap > _FAR:
        warn(
            "model.rollouts: the server's log-probs differ from the trainer's by more than "
            f"{_FAR} nats per token (importance/logprob_gap in metrics.csv), which rounding cannot "
            "explain; check that the server has the same base and applies the adapter"
        )
    return {
        "importance/weight": float(weights.mean()),
        "importance/capped": float((weights >= cap).float().mean()),
        "importance/logprob_gap": gap,
    }


def _padded(rows: Sequence[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


def _mask(rows: Sequence[Tensor]) -> Tensor:
    return _padded([torch.ones(len(row), dtype=torch.bool) for row in rows])
