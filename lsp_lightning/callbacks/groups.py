"""Which groups of a round teach something: R differs between their answers, or why it does not."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lsp_lightning.callbacks.stalls import LEAST_SPREAD, malformed, weighted
from lsp_lightning.functional import dead_groups, group_std
from lsp_lightning.rewards import Reward, fill_unjudged, span_of_R
from lsp_lightning.types import SelfPlayRound


def malformed_queries(played: SelfPlayRound, rewards: Sequence[Reward]) -> Tensor:
    """Whether a verifier found that a query has no right answer. -> (N,) bool."""
    told = malformed(played, rewards)
    if not told:
        return torch.zeros(len(played.playout.query_texts), dtype=torch.bool)
    return torch.tensor([any(verdicts) for verdicts in zip(*told.values(), strict=True)])


def differing_groups(played: SelfPlayRound, rewards: Sequence[Reward]) -> Tensor:
    """Whether R tells the judged answers of a group apart; False for a refused query. -> (N,) bool.

    If R has a lowest and a highest value, the answers' R must differ by more than the scores of a
    judge that tells nothing apart: see :data:`lsp_lightning.callbacks.stalls.LEAST_SPREAD`.
    """
    known_NG = torch.where(played.judged_NG, played.rewards_NG, torch.nan)
    differs_N = ~dead_groups(fill_unjudged(known_NG))
    span = span_of_R(rewards)
    if span is not None:
        spread_N = group_std(played.rewards_NG, played.judged_NG)  # NaN for a single answer
        differs_N &= spread_N >= LEAST_SPREAD * (span[1] - span[0])
    return differs_N & ~played.playout.refused_N


def alike_groups(
    played: SelfPlayRound, rewards: Sequence[Reward], alike_N: Tensor
) -> dict[str, int]:
    """The number of groups without a spread, by the reason: the query, or its answers."""
    lowest, highest = span_of_R(rewards) or (math.nan, math.nan)
    judged_N, judged_NG, R_NG = played.judged_N, played.judged_NG, played.rewards_NG
    refused_N = played.playout.refused_N
    bad_N = (malformed_queries(played, rewards) | ~played.playout.valid_N) & ~refused_N
    # the answers to other queries say nothing about their difficulty
    good_N = alike_N & ~bad_N & ~refused_N

    def all_at(end: float) -> int:
        at_NG = torch.isclose(R_NG, torch.tensor(end)) | ~judged_NG
        return int((at_NG.all(dim=1) & judged_N & good_N).sum())

    names = ("all wrong", "all right") if is_binary(rewards) else ("all lowest", "all highest")
    counts = {
        "refused": int((alike_N & refused_N).sum()),
        "not well-formed": int((alike_N & bad_N).sum()),
        **dict(zip(names, (all_at(lowest), all_at(highest)), strict=True)),
        "not judged": int((good_N & ~judged_N).sum()),
    }
    return {**counts, "all alike": int(alike_N.sum()) - sum(counts.values())}


def is_binary(rewards: Sequence[Reward]) -> bool:
    """Whether R is a sum of rewards that are 0 or 1."""
    return all(reward.binary for reward in weighted(rewards) if reward.enters == "task")
