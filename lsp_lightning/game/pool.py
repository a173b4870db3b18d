"""The pool: good queries of earlier rounds, to be played again and shown as examples."""

import math
import random
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lsp_lightning.errors import ConfigError, require_at_least, require_number, warn
from lsp_lightning.functional import dead_groups
from lsp_lightning.game.crowding import Crowd
from lsp_lightning.game.gate.gate import checked_range, in_range
from lsp_lightning.seeding import derive_seed
from lsp_lightning.types import SelfPlayRound

_KEY = "data.pool"
#: The text of a query, and the passage that it is about.
QueryKey = tuple[str, str | None]


@dataclass(frozen=True)
class PooledQuery:
    """A query in the pool."""

    text: str
    """The query."""
    solution: object | None = None
    """Its known answer or tests, or None."""
    passage: str | None = None
    """The passage that it was written about, or None."""
    played: int = -1
    """The round in which it was played last, from 0; -1: none."""

    @property
    def key(self) -> QueryKey:
        """What tells it from others: the same words about another passage are another query."""
        return self.text, self.passage


class Pool:
    """Keeps queries that the Solver solved sometimes, and plays a share of each round from them.

    A query enters the pool if it was admitted to training, is valid and well-formed, and its solve
    rate (the mean R as a share of its range) is in a range. It leaves when it is played again and
    its rate is no longer in the range. If the pool is full, one of its two most similar queries
    leaves, the one that was played longer ago. Queries that are played again train the Solver
    alone. Needs an R with known limits.

    Between two times a query rests. Without this, a pool that has become small would give the same
    few queries to every round, and the Solver would learn these instead of the task.

    Args:
        share: share of each round's queries that come from the pool, as far as it has enough.
        size: most queries in the pool.
        rest: how many rounds a query rests before it is played again.
        solve_rate: lowest and highest solve rate of a query in the pool.
    """

    def __init__(
        self,
        share: float = 0.25,
        size: int = 256,
        rest: int = 16,
        solve_rate: tuple[float, float] = (0.1, 0.9),
    ) -> None:
        require_number(share, f"{_KEY}.share", least=0)
        if share >= 1:
            raise ConfigError(f"{_KEY}.share", f"is {share}", "set at least 0 and below 1")
        require_at_least(size, 1, f"{_KEY}.size", "it is a number of queries")
        require_at_least(rest, 0, f"{_KEY}.rest", "it is a number of rounds")
        limits = checked_range(solve_rate, f"{_KEY}.solve_rate")
        if limits is None:
            remedy = "set two numbers, such as [0.1, 0.9]"
            raise ConfigError(f"{_KEY}.solve_rate", "is null", remedy)
        self.share, self.size, self.rest, self.solve_rate = share, size, rest, limits
        self._queries: dict[QueryKey, PooledQuery] = {}  # the one that was played last comes last
        self._crowd = Crowd()

    def __len__(self) -> int:
        return len(self._queries)

    @property
    def texts(self) -> tuple[str, ...]:
        """All queries, the one that was played longest ago first."""
        return tuple(query.text for query in self._queries.values())

    def most_replays(self, num_queries: int) -> int:
        """How many of N queries come from the pool if it has enough."""
        return math.floor(self.share * num_queries + 1e-6)  # 0.29 * 100 is 28.999999999999996

    def replays(
        self, count: int, index: int, seed: int, without: Collection[QueryKey] = ()
    ) -> list[PooledQuery]:
        """At most ``count`` different queries that have rested, to be played in a round.

        Args:
            count: how many.
            index: the round, from 0.
            seed: the run's seed.
            without: queries to leave out.
        """
        tired = [key for key, query in self._queries.items() if index - query.played <= self.rest]
        return self.drawn(count, index, seed, {*tired, *without})

    def drawn(
        self, count: int, index: int, seed: int, without: Collection[QueryKey] = ()
    ) -> list[PooledQuery]:
        """At most ``count`` different queries, rested or not.

        The same for the same pool, round and seed.

        Args:
            count: how many.
            index: the round, from 0.
            seed: the run's seed.
            without: queries to leave out.
        """
        left = [query for key, query in self._queries.items() if key not in without]
        chance = random.Random(derive_seed(seed, index, "pool", count))
        return chance.sample(left, min(count, len(left)))

    def observe(self, played: SelfPlayRound) -> None:
        """Take up good queries of the round, and drop replayed ones that are good no longer."""
        playout, rates_N = played.playout, played.solve_rates_N
        if rates_N is None:
            return
        good = self._is_good(played, rates_N).tolist()
        known = played.judged_N.tolist()
        for i, text in enumerate(playout.query_texts):
            if not known[i]:
                continue
            query = PooledQuery(text, playout.solution(i), playout.passage(i), played.index)
            self._queries.pop(query.key, None)
            if good[i] and _can_be_saved(query.solution):
                self._queries[query.key] = query
        self._make_room()

    def _make_room(self) -> None:
        """Leave out queries until the pool is full: of two that are alike, the older one.

        Without this, a Challenger that narrows would soon fill the pool with one kind of query.
        """
        over = len(self) - self.size
        if over <= 0:
            return
        queries = list(self._queries.items())
        for place in self._crowd.leaving([query.text for _, query in queries], over):
            del self._queries[queries[place][0]]

    def _is_good(self, played: SelfPlayRound, rates_N: Tensor) -> Tensor:
        """Whether each query of the round belongs into the pool. -> (N,) bool."""
        good_N = in_range(rates_N, self.solve_rate) & ~dead_groups(played.rewards_NG)
        good_N = good_N & played.playout.valid_N & played.trained_N & played.judged_N
        return good_N if played.malformed_N is None else good_N & ~played.malformed_N

    def describe(self) -> dict[str, Any]:
        """The settings to compare when a run is resumed: plain values only."""
        settings = {"share": self.share, "size": self.size, "rest": self.rest}
        return {**settings, "solve_rate": list(self.solve_rate)}

    def state_dict(self) -> dict[str, Any]:
        """All queries, the one that was played longest ago first."""
        return {"queries": [dict(vars(query)) for query in self._queries.values()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the queries."""
        queries = [PooledQuery(**query) for query in state["queries"]]
        self._queries = {query.key: query for query in queries}
        self._crowd = Crowd()


def _can_be_saved(solution: object) -> bool:
    """Whether a checkpoint can hold a solution, which it can of plain values only; warn if not."""
    if _is_plain(solution):
        return True
    kind = type(solution).__name__
    warn(
        f"{_KEY}: solutions of type {kind} cannot be saved in a checkpoint, so their queries do "
        "not enter the pool; use text, numbers, lists and dicts",
        kind=f"{_KEY}: solutions of type {kind}",
    )
    return False


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, (*value.keys(), *value.values())))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return type(value) in (bool, int, float, str, type(None))
