"""The maths of Language Self-Play: functions over tensors, each with its equation."""

from lsp_lightning.functional.advantages import (
    AdvantageScale,
    band,
    challenger_advantages,
    challenger_rewards,
    dead_groups,
    frontier,
    group_std,
    learnability,
    query_values,
    solve_rates,
    solver_advantages,
    uncertainty,
)
from lsp_lightning.functional.importance import truncated_importance_weights
from lsp_lightning.functional.kl import (
    KLForm,
    k1_in_reward,
    k1_loss,
    k2_loss,
    k3_loss,
    sequence_log_ratio,
)
from lsp_lightning.functional.logprobs import LOGITS_AT_ONCE, token_logprobs
from lsp_lightning.functional.losses import row_weights, selfplay_loss

__all__ = [
    "LOGITS_AT_ONCE",
    "AdvantageScale",
    "KLForm",
    "band",
    "challenger_advantages",
    "challenger_rewards",
    "dead_groups",
    "frontier",
    "group_std",
    "k1_in_reward",
    "k1_loss",
    "k2_loss",
    "k3_loss",
    "learnability",
    "query_values",
    "row_weights",
    "selfplay_loss",
    "sequence_log_ratio",
    "solve_rates",
    "solver_advantages",
    "token_logprobs",
    "truncated_importance_weights",
    "uncertainty",
]
