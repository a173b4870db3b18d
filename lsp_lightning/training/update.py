"""One update: the gradient of a round in parts that fit into memory, in any number format."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lsp_lightning.errors import ConfigError, warn
from lsp_lightning.game.objectives import Advantages
from lsp_lightning.models.policy import Policy
from lsp_lightning.runtime.memory import TokenBudget
from lsp_lightning.seeding import seeded
from lsp_lightning.training.batches import longest_row, pack
from lsp_lightning.training.divergence import (
    MOST_SKIPPED,
    SkippedRounds,
    overflow_ends_the_run,
    require_finite,
    why_skipped,
)
from lsp_lightning.training.gradient import (
    LossSettings,
    UpdateStats,
    accumulate_gradients,
    prepare_round,
    with_skipped_rows,
)
from lsp_lightning.types import SelfPlayRound

#: The scale of a float16 loss is divided by four if the gradient overflows, so that the nine scales
#: from 2**16 down to 1 are tried quickly; it is doubled after this many rounds without overflow.
_BACKOFF = 0.25
_ROUNDS_TO_GROW = 100


class RoundUpdate:
    """Computes the gradient of a round.

    Micro-batches that do not fit into memory are halved and the round's gradient is computed again.
    In float16 the loss is scaled up, because small gradients would become zero; if the gradient
    overflows, it is computed again with a smaller scale. Neither changes the gradient, except for
    rounding and for which units dropout drops.

    Args:
        policy: the policy to train.
        settings: the settings of the loss.
        micro_batches: the token budget of a micro-batch.
        importance_cap: the largest importance weight of a token; None if this process samples.
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
        self._warned, self._skipped = False, SkippedRounds()
        self.scaler = _loss_scaler(policy)

    def gradient(
        self,
        played: SelfPlayRound,
        advantages: Advantages,
        optimizer: torch.optim.Optimizer,
        backward: Callable[[Tensor], None],
        seed: int,
    ) -> tuple[UpdateStats, Tensor]:
        """Store the clipped gradient of a round in the parameters. -> stats, and the norm ().

        The norm is that before clipping. If it is not finite, no finite gradient was found.

        Args:
            played: the scored round.
            advantages: the advantages of its completions.
            optimizer: the optimiser of the trained parameters; it takes no step here.
            backward: takes a loss and computes gradients, as ``Tensor.backward`` does.
            seed: the seed of dropout.

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
        if before:  # no scale helped, so the scale was not the cause
            self.scaler.load_state_dict(before)
        return stats, norm

    def step(
        self,
        optimizer: Any,
        played: SelfPlayRound,
        advantages: Advantages,
        stats: UpdateStats,
        norm: Tensor,
        rounds: int = MOST_SKIPPED,
    ) -> None:
        """Take the optimiser's step, or skip a round without a finite gradient, with a warning.

        Args:
            optimizer: the optimiser, which may be wrapped by Lightning.
            played: the scored round.
            advantages: the advantages of its completions.
            stats: what :meth:`gradient` returned, ...
            norm: ... and the norm.
            rounds: rounds of the whole run.

        Raises:
            Diverged: a trained weight is not finite, or several rounds in a row were skipped.
        """
        if torch.isfinite(norm):
            with overflow_ends_the_run(played.index):
                optimizer.step()
            self._skipped.end()
        else:
            optimizer.zero_grad()
        require_finite(self._policy, f"after round {played.index}")
        if not torch.isfinite(norm):
            cause = why_skipped(played, advantages.rows(), stats)
            self._skipped.add(played.index, cause, min(rounds, MOST_SKIPPED))

    def state_dict(self) -> dict[str, Any]:
        """The state to save in a checkpoint, as plain values."""
        return {"loss_scale": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the loss scale of a checkpoint."""
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
        """All passes over the round, in micro-batches of at most ``tokens`` tokens."""
        optimizer.zero_grad()
        policy, settings = self._policy, self._settings
        batches_of = partial(pack, played, policy.pad_id, tokens, policy.shares_prompts)
        with seeded(policy.device, seed):
            batches = batches_of()
            prepared = prepare_round(
                policy, played, advantages, batches, settings, self._importance_cap
            )
            contributes_R = prepared.contributes_R(settings)
            if not contributes_R.all():
                prepared = with_skipped_rows(policy, prepared, batches_of(~contributes_R))
                batches = batches_of(contributes_R)
            stats = accumulate_gradients(
                policy,
                prepared,
                batches,
                settings,
                lambda loss: backward(self.scaler.scale(loss)),
            )
        self._fill_missing_gradients()
        return stats

    def _fill_missing_gradients(self) -> None:
        """Set a gradient of zero if no completion contributed, so that the optimiser can step.

        Otherwise warn once about adapters without a gradient.
        """
        policy = self._policy
        trained = [(n, p) for n, p in policy.model.named_parameters() if p.requires_grad]
        without = [(n, p) for n, p in trained if p.grad is None]
        if len(without) == len(trained):
            for _, parameter in trained:
                parameter.grad = torch.zeros_like(parameter)
        elif without and policy.has_adapter and not self._warned:
            self._warned = True
            idle = sorted({name.partition(".lora_")[0] for name, _ in without})
            warn(
                f"model.lora.target_modules: these adapters receive no gradient: {idle[0]} and "
                f"{len(idle) - 1} more. If sampling uses them, training and sampling differ; "
                "exclude them with target_modules"
            )


def _loss_scaler(policy: Policy) -> torch.amp.GradScaler:
    """The scaler of a float16 loss; it does nothing in other formats."""
    scaler = torch.amp.GradScaler(
        policy.device.type,
        backoff_factor=_BACKOFF,
        growth_interval=_ROUNDS_TO_GROW,
        enabled=policy.dtype == torch.float16,
    )
    # scaling a loss creates the scale, but the first round may have no loss
    scaler.scale(torch.zeros((), device=policy.device))
    return scaler


def clip_gradient(policy: Policy, max_norm: float | None) -> Tensor:
    """Scale the gradient down to norm ``max_norm`` if it is larger. -> the norm before, ()."""
    trained = [p for p in policy.parameters() if p.grad is not None]
    return torch.nn.utils.clip_grad_norm_(trained, float("inf") if max_norm is None else max_norm)


def by_round(schedule: Any) -> Any:
    """Check that the learning rate schedule can take a step each round, and return it.

    Raises:
        ConfigError: it is ReduceLROnPlateau, which needs a metric.
    """
    if isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
        raise ConfigError(
            "model.lr_scheduler",
            "ReduceLROnPlateau needs a metric",
            "use a schedule that steps once per round",
        )
    return schedule
