"""Rounds written by hand, for tests."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lsp_lightning.rewards import Reward
from lsp_lightning.types import Playout, Refused, Rollouts, SelfPlayRound, Written


def rollouts(
    texts: Sequence[str], lengths: Sequence[int] | None = None, truncated: Sequence[bool] = ()
) -> Rollouts:
    """Completions that spell ``texts``; row ``i`` has ``lengths[i]`` tokens (2 if not given)."""
    n = len(texts)
    lengths = lengths or [2] * n
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    return Rollouts(
        prompt_ids=torch.ones(n, 3, dtype=torch.long),
        prompt_mask=torch.ones(n, 3, dtype=torch.bool),
        completion_ids=mask.long(),
        completion_mask=mask,
        logprobs=-mask.float(),
        truncated=torch.tensor(truncated or [False] * n),
        texts=tuple(texts),
        temperature=1.0,
    )


def playout(
    queries: Sequence[str],
    answers: Sequence[Sequence[str]],
    *,
    solutions: Sequence[object] | None = None,
    valid: Sequence[bool] | None = None,
    from_file: bool = False,
) -> Playout:
    """N queries with G answers each, written by the Challenger unless ``from_file``."""
    return Playout(
        query_texts=tuple(queries),
        answers=rollouts([text for group in answers for text in group]),
        group_size=len(answers[0]),
        written=None
        if from_file
        else Written.all_answered(rollouts(queries), valid or [True] * len(queries)),
        solutions=None if solutions is None else tuple(solutions),
    )


def scored_round(
    rewards: Sequence[Sequence[float]],
    *,
    quality: Sequence[Sequence[float]] | None = None,
    challenger: Sequence[float] | None = None,
    judged: Sequence[bool] | Sequence[Sequence[bool]] | None = None,
    valid: Sequence[bool] | None = None,
    from_file: bool = False,
    binary: bool = False,
) -> SelfPlayRound:
    """A scored round with these rewards; ``judged`` is given per query or per answer."""
    n, g = len(rewards), len(rewards[0])
    judged_NG = torch.tensor(judged or [True] * n)
    return SelfPlayRound(
        index=0,
        playout=playout(
            [f"query {i}" for i in range(n)],
            [[f"answer {i} {j}" for j in range(g)] for i in range(n)],
            valid=valid,
            from_file=from_file,
        ),
        rewards_NG=torch.tensor(rewards),
        judged_NG=judged_NG if judged_NG.dim() == 2 else judged_NG.unsqueeze(1).expand(n, g),
        quality_NG=None if quality is None else torch.tensor(quality),
        challenger_N=None if challenger is None else torch.tensor(challenger),
        binary=binary,
    )


def gated(
    written: Sequence[str],
    refused: Mapping[int, str],
    *,
    replayed: Sequence[str] = (),
    valid: Sequence[bool] | None = None,
    rewards: Sequence[Sequence[float]] | None = None,
    examples: Sequence[str] = (),
    played_anyway: int | None = None,
) -> SelfPlayRound:
    """A round in which a gate refused some of the written queries.

    Args:
        written: the queries that the Challenger wrote.
        refused: the reason of each refused one, by its place.
        replayed: queries of the pool.
        valid: whether each written query follows the form rules.
        rewards: R of each query that is played; (1, 0) for all by default.
        examples: the examples that the Challenger was shown.
        played_anyway: the place of a refused query that is played, because no other is left.
    """
    played = [i for i in range(len(written)) if i not in refused or i == played_anyway]
    queries = [*(written[i] for i in played), *replayed]
    answered = [played.index(i) if i in played else -1 for i in range(len(written))]
    rewards = rewards or [[1.0, 0.0]] * len(queries)
    made = playout(queries, [["a", "b"]] * len(queries))
    rows = Written(
        rollouts(written),
        torch.tensor(valid or [True] * len(written)),
        torch.tensor(answered),
        torch.zeros(len(written), dtype=torch.long),
        {i: Refused(written[i], reason) for i, reason in refused.items()},
    )
    made = replace(made, written=rows, examples=tuple(examples))
    return replace(scored_round(rewards), playout=made, admitted_N=~made.refused_N)


class FixedReward(Reward):
    """Scores known beforehand."""

    def __init__(self, scores: object, **kwargs) -> None:
        super().__init__(**kwargs)
        self.scores = torch.tensor(scores) if isinstance(scores, list) else scores

    def score(self, playout: Playout) -> Tensor:
        """The scores."""
        if isinstance(self.scores, Exception):
            raise self.scores
        return self.scores
