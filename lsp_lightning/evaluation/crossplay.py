"""Cross-play: Challengers and Solvers of several policies against each other."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lsp_lightning.errors import ConfigError
from lsp_lightning.evaluation.answers import Told
from lsp_lightning.functional.evaluation import mean_and_error
from lsp_lightning.functional.ratings import elo_ratings
from lsp_lightning.game.player import Player
from lsp_lightning.game.queries import QueryBatch, QuerySource, check_batch
from lsp_lightning.game.round import solver_prompts
from lsp_lightning.generation.settings import local_engine
from lsp_lightning.models.modes import inference_state
from lsp_lightning.models.other_weights import adapter_from
from lsp_lightning.models.policy import Policy
from lsp_lightning.rewards import Reward, score_all, span_of_R
from lsp_lightning.seeding import derive_seed
from lsp_lightning.types import Playout, Sampling

KEY = "players"
_WHAT = "cross-play"
#: The base without an adapter, and the weights of the checkpoint.
BASE, TRAINED = "base", "trained"


@dataclass(frozen=True)
class Contender:
    """A policy that takes part."""

    name: str
    """How results name it."""
    weights: str
    """BASE, TRAINED, or the folder of an adapter."""


@dataclass(frozen=True)
class Game:
    """What is played: the settings of a run."""

    source: QuerySource
    """How the Challengers write their queries."""
    rewards: Sequence[Reward]
    """The task rewards that score answers, connected to their models."""
    sampling: Sampling
    """How the Solvers' answers are sampled."""
    solver_prompt: str
    """The Solver's prompt; slot {query}."""
    passage_prompt: str | None
    """The Solver's prompt for queries about a passage, or None."""
    num_queries: int
    """Queries of each Challenger."""
    group_size: int
    """Answers of each Solver to each of them."""
    seed: int
    """Fixes everything that is sampled."""


@dataclass(frozen=True)
class CrossPlay:
    """Who solved which queries."""

    names: tuple[str, ...]
    """The K policies, in the order of the matrix."""
    rates_KKN: Tensor
    """Mean R of Solver s at query n of Challenger c, (c, s, n); NaN if the query is invalid or
    malformed, or an answer of some Solver could not be judged."""
    malformed_K: Tensor
    """(K,): share of each Challenger's queries that are invalid or have no right answer."""
    is_rate: bool
    """Whether R has known limits: then its mean is given as a share of its range."""

    @property
    def matrix(self) -> tuple[Tensor, Tensor]:
        """Mean over the queries, and its standard error. (K, K) each."""
        cells = [[mean_and_error(cell) for cell in row] for row in self.rates_KKN]
        means, errors = (
            torch.tensor([[float(cell[i]) for cell in row] for row in cells]) for i in (0, 1)
        )
        return means, errors

    @property
    def ratings(self) -> tuple[Tensor, Tensor] | None:
        """Elo ratings of Solvers and Challengers, (K, 3) each, see :func:`elo_ratings`.

        None if R has no known limits, or a Challenger has no query that counts.
        """
        counted = (~self.rates_KKN.isnan()).all(dim=1).any(dim=1)
        if not self.is_rate or not bool(counted.all()):
            return None
        return elo_ratings(self.rates_KKN)

    def challenger_change(self, first: int, last: int, solver: int) -> tuple[float, float]:
        """How much more a Solver scores at one Challenger's queries than at another's.

        Returns:
            The difference of the means, last minus first, and its standard error. The queries
            differ, so the two means are independent.
        """
        (a, a_se), (b, b_se) = (mean_and_error(self.rates_KKN[c, solver]) for c in (first, last))
        return float(b - a), math.hypot(float(a_se), float(b_se))

    def solver_change(self, first: int, last: int, challenger: int) -> tuple[float, float]:
        """How much more one Solver scores than another at the same queries, with standard error."""
        difference, error = mean_and_error(
            self.rates_KKN[challenger, last] - self.rates_KKN[challenger, first]
        )
        return float(difference), float(error)


def cross_play(
    policy: Policy,
    contenders: Sequence[Contender],
    game: Game,
    told: Told = lambda what, done, total: None,
) -> CrossPlay:
    """Let every contender write queries, and every contender answer all of them.

    Args:
        policy: holds the base, and the trained weights.
        contenders: who plays; each name once.
        game: what is played.
        told: is told how many of the K writings and K * K answerings are done.

    Raises:
        ConfigError: an adapter does not fit the base.
        RewardError: a reward failed.
    """
    K = len(contenders)
    steps, batches = K * (1 + K), list[QueryBatch]()
    for contender in contenders:
        told(_WHAT, len(batches), steps)
        with _player(policy, contender) as player:
            batches.append(_write(player, game))
    scored: list[list[Tensor]] = [[] for _ in contenders]
    faulty = [~_valid_N(batch) for batch in batches]
    for s, solver in enumerate(contenders):
        with _player(policy, solver) as player:
            for c in range(K):
                told(_WHAT, K + s * K + c, steps)
                rates_N, malformed_N = _answer(player, batches[c], game)
                scored[c].append(rates_N)
                faulty[c] = faulty[c] | malformed_N
    told(_WHAT, steps, steps)
    rates_KKN = torch.stack([torch.stack(rows) for rows in scored])
    faulty_KN = torch.stack(faulty)
    unknown_KN = faulty_KN | rates_KKN.isnan().any(dim=1)
    return CrossPlay(
        names=tuple(contender.name for contender in contenders),
        rates_KKN=rates_KKN.masked_fill(unknown_KN[:, None], math.nan),
        malformed_K=faulty_KN.float().mean(dim=1),
        is_rate=span_of_R(game.rewards) is not None,
    )


@contextmanager
def _player(policy: Policy, contender: Contender) -> Iterator[Player]:
    with _model(policy, contender) as model:
        yield Player(local_engine(policy, model, None), policy.codec, policy.pad_id)


@contextmanager
def _model(policy: Policy, contender: Contender) -> Iterator[Any]:
    """The causal LM with the contender's weights."""
    if contender.weights in (BASE, TRAINED):
        whole: Any = policy.model
        off = whole.disable_adapter() if contender.weights == BASE else nullcontext()
        with inference_state(whole, policy.device.type), off:
            yield policy.causal_lm
    else:
        with adapter_from(policy, contender.weights, KEY) as model:
            yield model


def _write(player: Player, game: Game) -> QueryBatch:
    batch = game.source.draw(player, game.num_queries, 0, derive_seed(game.seed, "cross-play"))
    check_batch(batch, game.source, game.num_queries)
    return batch


def _valid_N(batch: QueryBatch) -> Tensor:
    n = len(batch.texts)
    if batch.written is None:
        return torch.ones(n, dtype=torch.bool)
    return batch.written.to_queries(batch.written.valid_C, n, True)


def _answer(player: Player, batch: QueryBatch, game: Game) -> tuple[Tensor, Tensor]:
    """The mean R of the player's answers to each query, and whether the query is malformed.

    Returns:
        (N,) floats, as a share of R's range if it has one, NaN if no answer could be judged; and
        (N,) bool.
    """
    # seeds by text: what is drawn for a query depends on no other query
    seeds = [derive_seed(game.seed, "answers", text) for text in batch.texts]
    prompts = solver_prompts(player.codec, batch, game.solver_prompt, game.passage_prompt)
    playout = Playout(
        query_texts=batch.texts,
        answers=player.respond(prompts, game.group_size, game.sampling, seeds),
        group_size=game.group_size,
        solutions=batch.solutions,
        passages=batch.passages,
        seed=derive_seed(game.seed, "rewards"),
    )
    scored = score_all(game.rewards, playout)
    low, high = span_of_R(game.rewards) or (0.0, 1.0)
    rates_NG = (scored.rewards_NG - low) / (high - low)
    return rates_NG.masked_fill(~scored.judged_NG, math.nan).nanmean(dim=1), scored.malformed_N


def require_players(contenders: Sequence[Contender]) -> None:
    """Raise ConfigError unless there are at least two contenders with different names."""
    names = [contender.name for contender in contenders]
    if len(names) < 2:
        raise ConfigError(
            KEY,
            f"there is only {names[0]}" if names else "there are none",
            "play with checkpoint.snapshots, or give folders of adapters",
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(KEY, f"{twice[0]!r} is there twice", "name each player once")
