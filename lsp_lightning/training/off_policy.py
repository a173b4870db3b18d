"""Compares the sampler's log-probs with the trainer's, and decides which of them the KL term uses.

Sampling reads a cache token by token, with the adapter merged into the base; training computes
whole rows. In float32 both agree to a few millionths of a nat per token. In 16 bits they differ by
up to a few hundredths, and summed over a completion that is as large as its log-ratio to the
reference. A server has other kernels and number formats besides, and may return no log-probs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

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

#: A mean gap in nats per token that rounding cannot explain, by compute type: ten times and more of
#: what was measured on real models.
_FAR = {torch.bfloat16: 0.5, torch.float16: 0.1, torch.float32: 1e-3}
#: The same for float32 whose products are rounded to fewer bits (TF32), and for a server.
_FAR_COARSE, _FAR_SERVED = 0.1, 0.5

#: Whose log-probs are too far from the trainer's, and what to do.
_SERVER = (
    "model.rollouts: the server's",
    "check that the server has the same base and applies the adapter",
)
_THIS_PROCESS = (
    "model.base: the sampler's",
    "choose another base: sampling and training would differ",
)


@dataclass(frozen=True)
class Draws:
    """The R completions of a round as samples of the policy; on the CPU."""

    sampled: Sequence[Tensor]
    """The sampler's log-probs of each completion's tokens: R tensors (t,); NaN if unknown."""
    computed: Mapping[int, Tensor]
    """The trainer's, (t,) by row, of the completions for which they are known so far."""
    exact: bool
    """Whether the sampler's equal the trainer's up to rounding in float32."""
    far: float
    """A mean gap in nats per token that rounding cannot explain."""
    dropout: bool = False
    """Whether the gradient pass drops units, so that its log-probs are not the policy's."""
    cap: float | None = None
    """The largest importance weight of a token; None if all are 1."""

    def with_computed(self, computed: Mapping[int, Tensor]) -> Self:
        """The same draws with the trainer's log-probs of more rows."""
        return replace(self, computed={**self.computed, **computed})

    def logprobs(self) -> list[Tensor]:
        """The policy's log-probs of each completion's tokens: R tensors (t,)."""
        if self.exact:
            return list(self.sampled)
        return [self.computed.get(row, sampled) for row, sampled in enumerate(self.sampled)]

    def log_ratios(self, references: Mapping[int, Tensor]) -> Tensor:
        """The log-ratio of each completion to the reference. -> (R,).

        Args:
            references: the reference's log-probs of each completion's tokens, (t,), by row.
        """
        own = self.logprobs()
        reference = [references[row] for row in range(len(own))]
        return sequence_log_ratio(_padded(own), _padded(reference), _mask(own))

    def weights(self) -> dict[int, Tensor] | None:
        """Importance weights of each completion's tokens, (t,) by row; None if all are 1."""
        if self.cap is None:
            return None
        own, mask_RT = self.logprobs(), _mask(self.sampled)
        weights_RT = truncated_importance_weights(
            _padded(own), _padded(self.sampled), mask_RT, self.cap
        )
        return {row: w[m] for row, (w, m) in enumerate(zip(weights_RT, mask_RT, strict=True))}

    def stats(self) -> dict[str, float]:
        """How far the sampler's log-probs are from the trainer's, by metric.

        ``sampler/logprob_gap`` is the mean absolute difference per token, and
        ``sampler/logprob_gap_std`` the standard deviation over completions of the summed
        difference, both in nats. Rows that the trainer has not computed do not count; empty if it
        has computed none, NaN if the sampler returned no log-probs.
        """
        if not self.computed:
            return {}
        gaps = [own - self.sampled[row] for row, own in self.computed.items()]
        gap, known = torch.cat(gaps), [g.sum() for g in gaps if not g.isnan().any()]
        gap = gap[~gap.isnan()]
        mean = float(gap.abs().mean())
        if mean > self.far:
            self._warn()
        found = {
            "sampler/logprob_gap": mean,
            "sampler/logprob_gap_std": (
                float(torch.stack(known).std(unbiased=False)) if known else math.nan
            ),
        }
        if self.cap is None:
            return found
        weights = gap.exp().clamp(max=self.cap)
        return found | {
            "importance/weight": float(weights.mean()),
            "importance/capped": float((weights >= self.cap).float().mean()),
            "importance/logprob_gap": mean,
        }

    def _warn(self) -> None:
        """Warn of a gap; without its size, so that the warning is shown once."""
        who, remedy = _SERVER if self.cap is not None else _THIS_PROCESS
        warn(
            f"{who} log-probs differ from the trainer's by more than {self.far} nats per token "
            f"(sampler/logprob_gap in metrics.csv), which rounding cannot explain; {remedy}"
        )


def draws_of(
    policy: Policy,
    played: SelfPlayRound,
    batches: Sequence[TrainBatch],
    cap: float | None,
    needed: bool = True,
) -> Draws:
    """The log-probs of a round, from the sampler or from a pass of the trainer.

    The trainer computes them, without gradients, if a server sampled, if log-probs are missing, and
    below float32. If they are not needed before the gradient pass, that pass computes them instead
    (:func:`lsp_lightning.training.gradient.accumulate_gradients`).

    Args:
        policy: the policy, with the weights that sampled the round.
        played: the round.
        batches: micro-batches of all its completions.
        cap: the largest importance weight; None if this process sampled.
        needed: whether the log-probs are needed before the gradient pass.
    """
    sampled = sampled_logprobs(played)
    missing = any(row.isnan().any() for row in sampled)
    exact = cap is None and not missing and computes_in_float32(policy)
    dropout = _drops_units(policy)
    draws = Draws(sampled, {}, exact, _far(policy, cap), dropout, cap)
    if exact:
        # with dropout a part of the round has to be enough to measure the gap
        some = batches[-1:] if dropout else []
        return draws.with_computed(trainer_logprobs(policy, some))
    if needed or dropout or missing or cap is not None:
        return draws.with_computed(trainer_logprobs(policy, batches))
    return draws


def computes_in_float32(policy: Policy) -> bool:
    """Whether products have the precision of float32: neither a 16-bit compute type nor TF32."""
    return (
        torch.finfo(policy.dtype).bits >= 32 and torch.get_float32_matmul_precision() == "highest"
    )


def trainer_logprobs(policy: Policy, batches: Sequence[TrainBatch]) -> dict[int, Tensor]:
    """The policy's log-probs of each completion's tokens by row, without gradients and dropout."""
    model = policy.causal_lm
    with inference_state(model, policy.device.type):
        found = [
            completion_logprobs(model, b.to(policy.device), LOGITS_AT_ONCE, entropies=False)[0]
            for b in batches
        ]
    return by_row(batches, found)


def _far(policy: Policy, cap: float | None) -> float:
    """A mean gap in nats per token that rounding cannot explain."""
    if cap is not None:
        return _FAR_SERVED
    coarse = policy.dtype == torch.float32 and not computes_in_float32(policy)
    return _FAR_COARSE if coarse else _FAR[policy.dtype]


def _drops_units(policy: Policy) -> bool:
    """Whether dropout changes the gradient pass."""
    return any(
        module.training and module.p > 0
        for module in policy.causal_lm.modules()
        if isinstance(module, torch.nn.Dropout)
    )


def _padded(rows: Sequence[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


def _mask(rows: Sequence[Tensor]) -> Tensor:
    return _padded([torch.ones(len(row), dtype=torch.bool) for row in rows])
