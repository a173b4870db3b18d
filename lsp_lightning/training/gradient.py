"""The gradient of one round, micro-batch by micro-batch (step 5 of Algorithm 1)."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lsp_lightning.errors import ConfigError
from lsp_lightning.functional import KLForm, k1_in_reward, row_weights, selfplay_loss
from lsp_lightning.game.payoffs import Advantages
from lsp_lightning.models.lora_speed import fused_lora
from lsp_lightning.models.policy import Policy
from lsp_lightning.runtime.memory import TokenBudget
from lsp_lightning.seeding import seeded
from lsp_lightning.training.batches import by_row, in_batch, longest_row, pack
from lsp_lightning.training.off_policy import draws_of
from lsp_lightning.types import Role, SelfPlayRound, TrainBatch

#: The scale of a float16 loss is divided by four where the gradient overflows, so that the nine
#: scales from 2**16 down to 1 are soon tried; after so many rounds without, it is doubled.
_BACKOFF = 0.25
_ROUNDS_TO_GROW = 100


@dataclass(frozen=True)
class LossSettings:
    """What the loss is made of.

    Args:
        beta: weight of the KL term, for both roles.
        kl: its form.
        alpha_ch: weight of the Challenger's loss beside the Solver's.
        max_grad_norm: its gradient is clipped to this norm; None leaves it.
    """

    beta: float
    kl: KLForm
    alpha_ch: float
    max_grad_norm: float | None = None

    def __post_init__(self) -> None:
        for name in ("beta", "alpha_ch"):
            if getattr(self, name) < 0:
                raise ConfigError(f"model.{name}", f"is {getattr(self, name)}", "set 0 or more")
        norm = self.max_grad_norm
        if norm is not None and not norm > 0:  # a negative one would turn the gradient round
            raise ConfigError("model.max_grad_norm", f"is {norm}", "set null for no clipping")
        if self.kl == "k1_loss":
            warnings.warn(
                "model.kl: k1_loss is the KL term as printed; its expected gradient is zero: beta "
                "restrains nothing and adds noise. k1_in_reward has the intended gradient.",
                stacklevel=3,
            )


@dataclass(frozen=True)
class UpdateStats:
    """What the gradient pass saw, each row's; R completions, (R,) tensors on the CPU."""

    loss: float
    """The round's loss; with ratio 1 its value says little, its gradient is what counts."""
    log_ratio_R: Tensor
    """log pi - log pi_ref of each completion, as sampled: an estimate of the KL in nats a
    sequence."""
    entropy_R: Tensor
    """Mean token entropy of each completion in nats; NaN where nothing was to be learned."""
    roles: dict[Role, slice]
    """Which rows are whose."""
    importance: Mapping[str, float] = field(default_factory=dict)
    """How far the sampler and the trainer are apart, by name; empty where they are one."""


def role_rows(played: SelfPlayRound) -> dict[Role, slice]:
    """Which of the round's R rows belong to which role."""
    n = len(played.playout.query_texts) if played.trains_challenger else 0
    solver = slice(n, n + played.rewards_NG.numel())
    return {Role.CHALLENGER: slice(0, n), Role.SOLVER: solver} if n else {Role.SOLVER: solver}


def accumulate_gradients(
    policy: Policy,
    played: SelfPlayRound,
    advantages: Advantages,
    lay_out: Callable[[Tensor | None], Sequence[TrainBatch]],
    settings: LossSettings,
    backward: Callable[[Tensor], None],
    importance_cap: float | None = None,
) -> UpdateStats:
    """Leave the round's gradient in the policy's parameters.

    The passes without gradients over the whole round come first: the KL penalty is centred over
    each role's rows, and no adapter may be switched between a forward and its backward. Completions
    are weighted so that micro-batches of any size sum to the gradient of the whole round; those
    that add nothing to it are left out.

    Args:
        policy: what is trained.
        played: the scored round.
        advantages: what its completions are reinforced by.
        lay_out: micro-batches of the chosen completions, (R,) bool; of all for None.
        settings: what the loss is made of.
        backward: as ``Tensor.backward``.
        importance_cap: the largest importance weight of a token; None where this process sampled.
    """
    batches = lay_out(None)
    device = policy.device
    references = by_row(batches, [policy.reference_logprobs(b.to(device)) for b in batches])
    draws = draws_of(policy, played, batches, importance_cap)
    roles = role_rows(played)
    log_ratio_R = draws.log_ratios(references)
    advantages_R = advantages.rows().clone()
    weights_R = torch.empty_like(advantages_R)
    n, g = played.rewards_NG.shape
    weights = dict(zip(Role, row_weights(n, g, settings.alpha_ch), strict=True))
    for role, rows in roles.items():
        weights_R[rows] = weights[role]
        if settings.kl == "k1_in_reward":
            advantages_R[rows] -= settings.beta * k1_in_reward(log_ratio_R[rows])

    matters_R = weights_R != 0
    if settings.kl == "k1_in_reward" or settings.beta == 0:
        matters_R &= advantages_R != 0  # not so for NaN, which must be seen
    loss_sum = 0.0
    entropy_R = torch.full_like(advantages_R, torch.nan)
    with fused_lora(policy.causal_lm):
        for laid_out in batches if matters_R.all() else lay_out(matters_R):
            # moved for this pass alone: a tree's masks, made in it, go with it
            batch, chosen = laid_out.to(device), laid_out.rows
            logprobs, entropies = policy.completion_logprobs(batch)
            loss = selfplay_loss(
                logprobs,
                in_batch(references, batch),
                batch.mask,
                advantages_R[chosen].to(logprobs.device),
                weights_R[chosen].to(logprobs.device),
                settings.beta,
                settings.kl,
                None if draws.weights is None else in_batch(draws.weights, batch),
            )
            backward(loss)
            loss_sum += float(loss.detach())
            entropy_R[chosen] = (entropies.sum(1) / batch.mask.sum(1)).cpu()
    return UpdateStats(loss_sum, log_ratio_R, entropy_R, roles, draws.stats)


class RoundUpdate:
    """The gradient of a round, in whatever parts memory allows and whatever type it is computed in.

    Micro-batches that do not fit are halved and the pass begins anew. In float16 the loss is scaled
    up, for small gradients would be flushed to zero; a gradient that then overflows is computed
    again with a smaller scale. Neither changes the gradient but by rounding (and by which dropout
    is drawn).

    Args:
        policy: what is trained.
        settings: what the loss is made of.
        micro_batches: tokens of a micro-batch at most.
        importance_cap: the largest importance weight of a token; None where this process samples.
    """

    def __init__(
        self,
        policy: Policy,
        settings: LossSettings,
        micro_batches: TokenBudget,
        importance_cap: float | None = None,
    ) -> None:
        self._policy = policy
        self._settings = settings
        self._micro_batches = micro_batches
        self._importance_cap = importance_cap
        self._told = False
        self.scaler = torch.amp.GradScaler(
            policy.device.type,
            backoff_factor=_BACKOFF,
            growth_interval=_ROUNDS_TO_GROW,
            enabled=policy.dtype == torch.float16,
        )
        # its scale is made with the first loss, and a first round may teach nothing
        self.scaler.scale(torch.zeros((), device=policy.device))

    def gradient(
        self,
        played: SelfPlayRound,
        advantages: Advantages,
        optimizer: torch.optim.Optimizer,
        backward: Callable[[Tensor], None],
        seed: int,
    ) -> tuple[UpdateStats, Tensor]:
        """Leave the round's clipped gradient in the parameters. -> stats; the norm before, ().

        The norm is not finite where no gradient could be computed.

        Args:
            played: the scored round.
            advantages: what its completions are reinforced by.
            optimizer: of what is trained; it takes no step here.
            backward: as ``Tensor.backward``.
            seed: of dropout.

        Raises:
            OutOfMemory: a single completion does not fit.
        """
        longest, before = longest_row(played), self.scaler.state_dict()
        while True:
            stats = self._micro_batches.run(
                lambda tokens: self._passes(played, advantages, optimizer, backward, seed, tokens),
                longest,
            )
            scale = self.scaler.get_scale()
            if self.scaler.is_enabled():
                self.scaler.unscale_(optimizer)
                self.scaler.update()
            norm = clip_gradient(self._policy, self._settings.max_grad_norm)
            if torch.isfinite(norm):
                return stats, norm
            lowered = 1 <= self.scaler.get_scale() < scale
            if not (lowered and math.isfinite(stats.loss)):
                break
        if before:  # no scale helps, so it was not to blame
            self.scaler.load_state_dict(before)
        return stats, norm

    def _fill_in(self) -> None:
        """A round that taught nothing has a gradient of zero, and not none: momentum goes on.

        After any other, say once which adapters the training pass does not go through.
        """
        policy = self._policy
        trained = [(n, p) for n, p in policy.model.named_parameters() if p.requires_grad]
        without = [(n, p) for n, p in trained if p.grad is None]
        if len(without) == len(trained):
            for _, parameter in trained:
                parameter.grad = torch.zeros_like(parameter)
        elif without and policy.has_adapter and not self._told:
            self._told = True
            idle = sorted({name.partition(".lora_")[0] for name, _ in without})
            warnings.warn(
                f"model.lora.target_modules: no gradient reaches the adapters of {idle[0]} and "
                f"{len(idle) - 1} more; where sampling goes through them, what is trained is not "
                "what samples: leave them out",
                stacklevel=3,
            )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold, plain values only."""
        return {"loss_scale": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the scale that was found."""
        if self.scaler.is_enabled() and state.get("loss_scale"):
            self.scaler.load_state_dict(state["loss_scale"])

    def _passes(
        self,
        played: SelfPlayRound,
        advantages: Advantages,
        optimizer: torch.optim.Optimizer,
        backward: Callable[[Tensor], None],
        seed: int,
        tokens: int,
    ) -> UpdateStats:
        optimizer.zero_grad()
        policy = self._policy
        lay_out = partial(pack, played, policy.pad_id, tokens, policy.shares_prompts)
        with seeded(policy.device, seed):
            stats = accumulate_gradients(
                policy,
                played,
                advantages,
                lay_out,
                self._settings,
                lambda loss: backward(self.scaler.scale(loss)),
                self._importance_cap,
            )
        self._fill_in()
        return stats


def clip_gradient(policy: Policy, max_norm: float | None) -> Tensor:
    """Scale the gradient down to ``max_norm`` if it is longer. -> its norm before, ()."""
    trained = [p for p in policy.parameters() if p.grad is not None]
    return torch.nn.utils.clip_grad_norm_(trained, float("inf") if max_norm is None else max_norm)


def by_round(schedule: Any) -> Any:
    """The schedule, if it can be stepped once a round.

    Raises:
        ConfigError: it waits for a metric.
    """
    if isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
        raise ConfigError("model.lr_scheduler", "waits for a metric", "use one that counts rounds")
    return schedule
