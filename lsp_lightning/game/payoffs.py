"""From rewards to advantages (steps 3 and 4 of Algorithm 1)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lsp_lightning.functional import (
    OBJECTIVES,
    AdvantageScale,
    ChallengerObjective,
    challenger_advantages,
    challenger_rewards,
    learnability,
    solver_advantages,
)
from lsp_lightning.types import SelfPlayRound

InvalidQuery = Literal["lowest", "as_scored"]


@dataclass(frozen=True)
class Advantages:
    """What a round's completions are reinforced by, before the KL term."""

    solver_NG: Tensor
    """(N, G)."""
    challenger_N: Tensor | None
    """(N,), or None when the queries come from a file."""

    def rows(self) -> Tensor:
        """(R,): the N queries (if played), then the N*G answers."""
        flat = self.solver_NG.flatten()
        return flat if self.challenger_N is None else torch.cat([self.challenger_N, flat])


@dataclass(frozen=True)
class PayoffSettings:
    """How rewards become advantages.

    Args:
        challenger_objective: what the Challenger plays for, besides ``+ VQ``.
        advantage_scale: whether advantages are divided by their standard deviation.
        invalid_query: "lowest" pays a query that breaks the form rules the round's lowest reward.
    """

    challenger_objective: ChallengerObjective = "minimax"
    advantage_scale: AdvantageScale = "none"
    invalid_query: InvalidQuery = "lowest"


def round_advantages(
    played: SelfPlayRound,
    settings: PayoffSettings = PayoffSettings(),
    max_variance: float = 0.25,
) -> Advantages:
    """Steps 3 and 4 of Algorithm 1. A group in which nothing could be judged gets 0 for both roles.

    Args:
        played: the scored round.
        settings: the Challenger's objective and the like.
        max_variance: the scale of ``learnability``; 1/4 for rewards in {0, 1}.
    """
    scale, objective = settings.advantage_scale, settings.challenger_objective
    judged_N = played.judged_N
    solver_NG = solver_advantages(played.rewards_NG, played.quality_NG, scale, played.judged_NG)
    if not played.trains_challenger:
        return Advantages(solver_NG, None)
    objective_N = (
        learnability(played.rewards_NG, max_variance, played.judged_NG)
        if objective == "learnability"
        else OBJECTIVES[objective](played.rewards_NG)
    )
    rewards_N = challenger_rewards(objective_N, played.quality_NG, played.challenger_N)
    challenger_N = torch.zeros_like(rewards_N)
    if judged_N.any():
        paid_N, valid_N = rewards_N[judged_N], played.playout.valid_N[judged_N]
        if settings.invalid_query == "lowest":
            paid_N = torch.where(valid_N, paid_N, paid_N.min())
        challenger_N[judged_N] = challenger_advantages(paid_N, scale)
    return Advantages(solver_NG, challenger_N)
