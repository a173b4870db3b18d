"""One round of the game (Algorithm 1 of arXiv 2509.07414), readable from top to bottom."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
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
from lsp_lightning.player import Player
from lsp_lightning.prompts import SOLVER, without_thinking
from lsp_lightning.queries import Drawn, QuerySource
from lsp_lightning.rewards import Reward, score_all
from lsp_lightning.seeding import derive_seed
from lsp_lightning.types import Playout, Sampling, SelfPlayRound

InvalidQuery = Literal["lowest", "as_scored"]


def play_round(
    player: Player,
    source: QuerySource,
    rewards: Sequence[Reward],
    *,
    num_queries: int = 8,
    group_size: int = 8,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    solver_prompt: str = SOLVER,
    index: int = 0,
    seed: int = 0,
) -> SelfPlayRound:
    """Play and judge one round with the weights as they are. Needs no Trainer.

    Args:
        player: the policy, in both roles.
        source: where the queries come from.
        rewards: what judges; those that judge with the reference must be connected to it.
        num_queries: N.
        group_size: G, answers to each query.
        sampling: how answers are drawn.
        solver_prompt: what the Solver is told; slot {query}.
        index: which round of the run; together with ``seed`` it fixes all that is drawn.
        seed: the run's seed.
    """
    seconds: dict[str, float] = {}
    with _timed(seconds, "queries"):
        drawn = source.draw(player, num_queries, index, seed)
    with _timed(seconds, "answers"):
        prompts = [player.codec.encode(solver_prompt, {"query": text}) for text in drawn.texts]
        answers = player.respond(
            prompts,
            group_size,
            sampling,
            derive_seed(seed, index, "answers"),
            finished=_foresight(rewards, drawn, group_size),
        )
    playout = Playout(
        query_texts=drawn.texts,
        answers=answers,
        group_size=group_size,
        queries=drawn.rollouts,
        references=drawn.references,
        valid_N=drawn.valid_N,
        seed=derive_seed(seed, index, "rewards"),
    )
    with _timed(seconds, "rewards"):
        scored = score_all(rewards, playout)
    return SelfPlayRound(
        index=index,
        playout=playout,
        rewards_NG=scored.rewards_NG,
        judged_NG=scored.judged_NG,
        quality_NG=scored.quality_NG,
        challenger_N=scored.challenger_N,
        components=scored.components,
        query_facts=scored.query_facts,
        reward_metrics=scored.metrics,
        seconds=seconds,
    )


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


def _foresight(
    rewards: Sequence[Reward], drawn: Drawn, group_size: int
) -> Callable[[int, str], None]:
    """Tell rewards of all queries now, and by what is returned of each answer once it is there."""

    def tell(i: int, answer: str | None) -> None:
        reference = None if drawn.references is None else drawn.references[i]
        for reward in rewards:
            # what cannot be begun now is said when it is judged; it must not end the sampling
            with suppress(Exception, SystemExit):
                reward.foresee(drawn.texts[i], answer, reference)

    for i in range(len(drawn.texts)):
        tell(i, None)
    return lambda row, text: tell(row // group_size, without_thinking(text))


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[phase] = time.perf_counter() - start
