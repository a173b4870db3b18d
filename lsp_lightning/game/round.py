"""One round of the game (Algorithm 1 of arXiv 2509.07414), readable from top to bottom."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from torch import Tensor

from lsp_lightning.errors import warn
from lsp_lightning.functional import solve_rates
from lsp_lightning.game.drawing import draw_queries
from lsp_lightning.game.gate import Gate
from lsp_lightning.game.past import PastChallenger
from lsp_lightning.game.player import Player
from lsp_lightning.game.pool import Pool
from lsp_lightning.game.queries import QueryBatch, QuerySource
from lsp_lightning.rewards import (
    Reward,
    RewardError,
    Scored,
    is_binary,
    score_all,
    span_of_R,
    unjudged,
)
from lsp_lightning.seeding import derive_seed
from lsp_lightning.text.chat import ChatCodec
from lsp_lightning.text.fencing import fence, tags_of
from lsp_lightning.text.prompts import SOLVER, without_thinking
from lsp_lightning.types import Playout, Sampling, SelfPlayRound


def play_round(
    player: Player,
    source: QuerySource,
    rewards: Sequence[Reward],
    *,
    num_queries: int = 8,
    group_size: int = 8,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    solver_prompt: str = SOLVER,
    passage_prompt: str | None = None,
    gate: Gate | None = None,
    pool: Pool | None = None,
    past: PastChallenger | None = None,
    index: int = 0,
    seed: int = 0,
) -> SelfPlayRound:
    """Play and judge one round with the current weights. Needs no Trainer.

    Args:
        player: the policy, in both roles.
        source: where the queries come from.
        rewards: the rewards; call ``connect`` first on those that judge with the reference.
        num_queries: N.
        group_size: G, answers per query.
        sampling: how answers are sampled.
        solver_prompt: the Solver's prompt, with slot {query}.
        passage_prompt: the Solver's prompt for queries about a passage, with slots {passage} and
            {query}; None shows the query alone.
        gate: which queries enter training; None takes all. Call its ``connect`` first if a check
            judges with the reference.
        pool: good queries of earlier rounds to play again; None plays none.
        past: an earlier policy that writes a share of the queries; None plays without one. Call its
            ``prepare`` before each round.
        index: the round, from 0; with ``seed`` it fixes everything that is sampled.
        seed: the seed of the run.
    """
    seconds: dict[str, float] = {}
    with _timed(seconds, "queries"):
        batch = draw_queries(player, source, num_queries, index, seed, gate, pool, past)
    with _timed(seconds, "answers"):
        answers = player.respond(
            solver_prompts(player.codec, batch, solver_prompt, passage_prompt),
            group_size,
            sampling,
            derive_seed(seed, index, "answers"),
            finished=_prefetch(rewards, batch, group_size),
        )
    playout = Playout(
        query_texts=batch.texts,
        answers=answers,
        group_size=group_size,
        written=batch.written,
        solutions=batch.solutions,
        passages=batch.passages,
        examples=batch.examples,
        seed=derive_seed(seed, index, "rewards"),
        past=batch.past,
    )
    with _timed(seconds, "rewards"):
        scored = _scored(rewards, playout)
    return _scored_round(index, playout, scored, rewards, num_queries, gate, seconds)


def _scored_round(
    index: int,
    playout: Playout,
    scored: Scored,
    rewards: Sequence[Reward],
    num_queries: int,
    gate: Gate | None,
    seconds: Mapping[str, float],
) -> SelfPlayRound:
    """The round with its scores, and with what the gate admits to training."""
    rates_N, admitted_N = _solve_rates(rewards, scored.rewards_NG), None
    if gate is not None:
        judged_N = scored.judged_NG.any(dim=1)
        admitted_N = gate.admits(rates_N, judged_N) & ~playout.refused_N
    return SelfPlayRound(
        index=index,
        playout=playout,
        rewards_NG=scored.rewards_NG,
        judged_NG=scored.judged_NG,
        quality_NG=scored.quality_NG,
        challenger_N=scored.challenger_N,
        unfilled=scored.unfilled,
        components=scored.components,
        binary=is_binary(rewards),
        solve_rates_N=rates_N,
        admitted_N=admitted_N,
        planned=num_queries,
        query_info=scored.query_info,
        malformed_N=scored.malformed_N,
        reward_metrics=scored.metrics,
        seconds=seconds,
    )


def _scored(rewards: Sequence[Reward], playout: Playout) -> Scored:
    """The scores; none if a reward fails at a round that holds only what the gate refused."""
    try:
        return score_all(rewards, playout)
    except RewardError as error:
        if not playout.refused_N.all():
            raise
        warn(f"{error}; the gate had refused this query", kind="a refused query was not judged")
        return unjudged(rewards, playout)


def solver_prompts(
    codec: ChatCodec, batch: QueryBatch, solver_prompt: str, passage_prompt: str | None
) -> list[list[int]]:
    """The tokens of each query's prompt. Neither text can imitate the tags around the passage."""
    prompts = []
    for i, query in enumerate(batch.texts):
        passage = None if batch.passages is None else batch.passages[i]
        if passage is None or passage_prompt is None:
            prompts.append(codec.encode(solver_prompt, {"query": query}))
            continue
        tags = tags_of(passage_prompt)
        texts = {"passage": fence(passage, tags), "query": fence(query, tags)}
        prompts.append(codec.encode(passage_prompt, texts))
    return prompts


def _solve_rates(rewards: Sequence[Reward], rewards_NG: Tensor) -> Tensor | None:
    """The mean R of each query as a share of its range; None if R has no known limits. -> (N,)."""
    span = span_of_R(rewards)
    return None if span is None else solve_rates(rewards_NG, *span)


def _prefetch(
    rewards: Sequence[Reward], batch: QueryBatch, group_size: int
) -> Callable[[int, str], None]:
    """Let rewards prefetch: each query now, and each answer through the returned callback."""

    def tell(i: int, answer: str | None) -> None:
        solution = None if batch.solutions is None else batch.solutions[i]
        for reward in rewards:
            # a failure is reported when the answer is judged; it must not end the sampling
            with suppress(Exception, SystemExit):
                reward.prefetch(batch.texts[i], answer, solution)

    for i in range(len(batch.texts)):
        tell(i, None)
    # the player has removed the thinking; a player of your own may not have
    return lambda row, text: tell(row // group_size, without_thinking(text))


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[phase] = time.perf_counter() - start
