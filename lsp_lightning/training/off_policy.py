"""How likely completions were when they were drawn, and how likely the trainer finds them.

The two are one where this process samples. A server computes the same weights with other kernels
and number formats, and may not say what it found.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lsp_lightning.functional import sequence_log_ratio, truncated_importance_weights
from lsp_lightning.functional.logprobs import LOGITS_AT_ONCE
from lsp_lightning.models.logits import completion_logprobs
from lsp_lightning.models.modes import inference_state
from lsp_lightning.models.policy import Policy
from lsp_lightning.training.batches import by_row, sampled_logprobs
from lsp_lightning.types import SelfPlayRound, TrainBatch

#: Nats a token that no number format explains: 16 bits make a few hundredths.
_FAR = 0.5


@dataclass(frozen=True)
class Draws:
    """The completions of a round as draws from the policy; R of them, t tokens each, on the CPU."""

    logprobs: Sequence[Tensor]
    """The policy's log-probs of each completion's tokens, R of (t,)."""
    weights: Mapping[int, Tensor] | None = None
    """Importance weights of each completion's tokens, (t,); None where all are 1."""
    stats: Mapping[str, float] = field(default_factory=dict)
    """How far sampler and trainer are apart, by name; NaN where the sampler told nothing."""

    def log_ratios(self, references: Mapping[int, Tensor]) -> Tensor:
        """Each completion's log-ratio to the reference. -> (R,).

        Args:
            references: the reference's log-probs of each completion's tokens.
        """
        reference = [references[row] for row in range(len(self.logprobs))]
        return sequence_log_ratio(_padded(self.logprobs), _padded(reference), _mask(self.logprobs))


def draws_of(
    policy: Policy, played: SelfPlayRound, batches: Sequence[TrainBatch], cap: float | None
) -> Draws:
    """The round's draws.

    Where another program has sampled, the policy's log-probs are the trainer's own, of every token:
    the difference of two number formats, summed over a completion, can be as large as the distance
    to the reference. It takes a pass without gradients, which nothing else does.

    Args:
        policy: as it was when the round was drawn.
        played: the round.
        batches: all of its completions.
        cap: the largest importance weight; None where this process has sampled.
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
    """The policy's log-probs of each completion's tokens, without dropout, as a server computes."""
    model = policy.causal_lm
    with inference_state(model, policy.device.type):
        found = [
            completion_logprobs(model, b.to(policy.device), LOGITS_AT_ONCE, entropies=False)[0]
            for b in batches
        ]
    return by_row(batches, found)


def _distance(own: Tensor, sampled: Tensor, cap: float) -> dict[str, float]:
    """What is logged of the log-probs of all tokens, (tokens,) each."""
    known = ~sampled.isnan()
    log_ratio = (own - sampled)[known]
    weights = log_ratio.exp().clamp(max=cap)
    gap = float(log_ratio.abs().mean())
    if gap > _FAR:
        # without the figure, so that it is said once and not each round
        warnings.warn(
            "model.rollouts: the server's log-probs are not those of this policy, by "
            f"{_FAR} and more a token (importance/logprob_gap in metrics.csv): look whether it has "
            "the same base and applies the adapter",
            stacklevel=3,
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
