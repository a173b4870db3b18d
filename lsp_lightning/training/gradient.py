"""The gradient of one round, micro-batch by micro-batch (step 5 of Algorithm 1)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lsp_lightning.errors import require_number, warn
from lsp_lightning.functional import KLForm, k1_in_reward, row_weights, selfplay_loss
from lsp_lightning.game.objectives import Advantages
from lsp_lightning.models.lora_speed import fused_lora
from lsp_lightning.models.policy import Policy
from lsp_lightning.training.batches import by_row, in_batch
from lsp_lightning.training.off_policy import Draws, draws_of, trainer_logprobs
from lsp_lightning.types import Role, SelfPlayRound, TrainBatch


@dataclass(frozen=True)
class LossSettings:
    """The settings of the loss.

    Args:
        beta: weight of the KL term, for both roles.
        kl: form of the KL term.
        alpha_ch: weight of the Challenger's loss relative to the Solver's.
        max_grad_norm: the gradient is clipped to this norm; None does not clip.
    """

    beta: float
    kl: KLForm
    alpha_ch: float
    max_grad_norm: float | None = None

    def __post_init__(self) -> None:
        require_number(self.beta, "model.beta", least=0)
        require_number(self.alpha_ch, "model.alpha_ch", least=0)
        if self.max_grad_norm is not None:  # a negative norm would reverse the gradient
            otherwise = ", or null for none"
            require_number(self.max_grad_norm, "model.max_grad_norm", above=0, otherwise=otherwise)
        if self.kl == "k1_loss":
            warn(
                "model.kl: k1_loss is the KL term as printed in the paper. Its expected gradient "
                "is zero: beta restrains nothing and adds noise. Use k1_in_reward, which has the "
                "intended gradient."
            )


@dataclass(frozen=True)
class UpdateStats:
    """Measurements of a gradient pass; (R,) tensors on the CPU."""

    loss: float
    """The loss of the round. Its value says little, because the ratio is always 1."""
    log_ratio_R: Tensor
    """log pi - log pi_ref of each completion: an estimate of the KL in nats per sequence."""
    entropy_R: Tensor
    """Mean token entropy of each completion in nats; NaN for completions that were skipped."""
    roles: Mapping[Role, slice]
    """The rows of each role."""
    sampler: Mapping[str, float] = field(default_factory=dict)
    """How far the sampler's log-probs are from the trainer's
    (:meth:`lsp_lightning.training.off_policy.Draws.stats`)."""


@dataclass(frozen=True)
class PreparedRound:
    """All that the backward passes of a round need, computed without gradients; on the CPU."""

    references: Mapping[int, Tensor]
    """The reference's log-probs of each completion's tokens, (t,), by row."""
    draws: Draws
    """The log-probs of each completion under the policy."""
    advantages_R: Tensor
    """(R,), with a KL penalty in the reward already subtracted."""
    weights_R: Tensor
    """(R,), the weight of each completion in the loss."""
    roles: Mapping[Role, slice]
    """The rows of each role."""

    def contributes_R(self, settings: LossSettings) -> Tensor:
        """(R,) bool: false where the gradient is exactly zero; true for NaN advantages."""
        contributes = self.weights_R != 0
        if settings.kl == "k1_in_reward" or settings.beta == 0:
            contributes = contributes & (self.advantages_R != 0)
        return contributes


def role_rows(played: SelfPlayRound) -> dict[Role, slice]:
    """The rows of each role among the R rows of the round."""
    written = played.playout.written
    c = 0 if written is None else len(written.rollouts)
    solver = slice(c, c + played.rewards_NG.numel())
    return {Role.CHALLENGER: slice(0, c), Role.SOLVER: solver} if c else {Role.SOLVER: solver}


def trained_rows(played: SelfPlayRound) -> Tensor:
    """(R,) bool: false for answers to queries that the gate did not admit; true for the others."""
    trained_R = played.trained_N.repeat_interleave(played.playout.group_size)
    written = played.playout.written
    if written is None:
        return trained_R
    return torch.cat([torch.ones_like(written.valid_C), trained_R])


def prepare_round(
    policy: Policy,
    played: SelfPlayRound,
    advantages: Advantages,
    batches: Sequence[TrainBatch],
    settings: LossSettings,
    importance_cap: float | None = None,
) -> PreparedRound:
    """Run the passes without gradients over a whole round.

    They come before the first backward pass: the KL penalty is centred over all rows of a role, and
    no adapter may be switched between a forward pass and its backward pass.

    Args:
        policy: the policy and its reference.
        played: the scored round.
        advantages: the advantages of its completions.
        batches: micro-batches of all completions.
        settings: the settings of the loss.
        importance_cap: the largest importance weight of a token; None if this process sampled.
    """
    device = policy.device
    references = by_row(batches, [policy.reference_logprobs(b.to(device)) for b in batches])
    in_reward = settings.kl == "k1_in_reward" and settings.beta != 0
    draws = draws_of(policy, played, batches, importance_cap, needed=in_reward)
    log_ratio_R = draws.log_ratios(references)
    advantages_R = advantages.rows().clone()
    weights_R = torch.zeros_like(advantages_R)
    roles, trained_R = role_rows(played), trained_rows(played)
    written = played.playout.written
    challenger, solver = row_weights(
        0 if written is None else len(written.rollouts),
        (played.planned or len(played.trained_N)) * played.playout.group_size,
        settings.alpha_ch,
    )
    weights = {Role.CHALLENGER: challenger, Role.SOLVER: solver}
    for role, rows in roles.items():
        trained = torch.arange(rows.start, rows.stop)[trained_R[rows]]
        weights_R[trained] = weights[role]
        if in_reward:
            advantages_R[trained] -= settings.beta * k1_in_reward(log_ratio_R[trained])
    return PreparedRound(references, draws, advantages_R, weights_R, roles)


def with_skipped_rows(
    policy: Policy, prepared: PreparedRound, batches: Sequence[TrainBatch]
) -> PreparedRound:
    """Compute the log-probs of the rows that the gradient pass leaves out, if they are missing.

    Args:
        policy: the policy.
        prepared: the round after :func:`prepare_round`.
        batches: micro-batches of the completions that do not contribute.
    """
    draws = prepared.draws
    if draws.exact or draws.computed:
        return prepared
    return replace(prepared, draws=draws.with_computed(trainer_logprobs(policy, batches)))


def accumulate_gradients(
    policy: Policy,
    prepared: PreparedRound,
    batches: Sequence[TrainBatch],
    settings: LossSettings,
    backward: Callable[[Tensor], None],
) -> UpdateStats:
    """Add the gradient of the round to the policy's parameters.

    Completions are weighted so that micro-batches of any size add up to the gradient of the whole
    round. Log-probs that no earlier pass computed are taken from this one, to measure how far the
    sampler's differ.

    Args:
        policy: the policy.
        prepared: the round after :func:`prepare_round`.
        batches: micro-batches of the completions that contribute.
        settings: the settings of the loss.
        backward: takes a loss and computes gradients, as ``Tensor.backward`` does.
    """
    loss_sum = 0.0
    entropy_R = torch.full_like(prepared.advantages_R, torch.nan)
    draws, importance = prepared.draws, prepared.draws.weights()
    measures = len(draws.computed) < len(draws.sampled) and not draws.dropout
    with fused_lora(policy.causal_lm):
        for cpu_batch in batches:
            # moved inside the loop, so that a tree's masks on the GPU are freed after its pass
            batch, rows = cpu_batch.to(policy.device), cpu_batch.rows
            logprobs, entropies = policy.completion_logprobs(batch)
            loss = selfplay_loss(
                logprobs,
                in_batch(prepared.references, batch),
                batch.mask,
                prepared.advantages_R[rows].to(logprobs.device),
                prepared.weights_R[rows].to(logprobs.device),
                settings.beta,
                settings.kl,
                None if importance is None else in_batch(importance, batch),
            )
            backward(loss)
            loss_sum += float(loss.detach())
            entropy_R[rows] = (entropies.sum(1) / batch.mask.sum(1)).cpu()
            if measures:
                draws = draws.with_computed(by_row([cpu_batch], [logprobs.detach()]))
    log_ratio_R = draws.log_ratios(prepared.references)
    return UpdateStats(loss_sum, log_ratio_R, entropy_R, prepared.roles, draws.stats())
