"""Sources and checks that do what a test tells them to."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from handmade import rollouts

from lsp_lightning import QueryBatch, QueryCheck, QuerySource, Written

#: Stands in for a player where nothing is sampled.
NOBODY: Any = SimpleNamespace(pad_id=0)


def batch(texts: Sequence[str], lengths: Sequence[int] | None = None, **kwargs) -> QueryBatch:
    """Queries that the Challenger wrote; row i is query i."""
    rows = Written.all_answered(rollouts(texts, lengths), [True] * len(texts))
    return QueryBatch(tuple(texts), rows, **kwargs)


def written(texts: Sequence[str], answered: Sequence[int], baseline: Sequence[int] = ()) -> Written:
    """Rows of the Challenger, and which query each became."""
    c = len(answered)
    valid = torch.ones(c, dtype=torch.bool)
    return Written(
        rollouts(texts), valid, torch.tensor(answered), torch.tensor(baseline or [0] * c)
    )


class Scripted(QuerySource):
    """Returns one batch after the other, and notes what it was asked for."""

    selfplay = True

    def __init__(self, *batches: QueryBatch) -> None:
        self.batches = list(batches)
        self.asked: list[Any] = []

    def draw(self, player, num_queries, index, seed):
        self.asked.append(num_queries)
        return self.batches.pop(0)

    def redraw(self, player, places, num_queries, index, seed, attempt):
        self.asked.append((attempt, list(places), num_queries))
        return self.batches.pop(0)


class NotBad(QueryCheck):
    """Refuses queries that contain "bad", and notes what the round already had."""

    reason = "bad"

    def __init__(self) -> None:
        self.taken: list[list[str]] = []

    def accepts(self, queries, taken):
        self.taken.append(list(taken))
        return ["bad" not in query for query in queries]


class Does(QueryCheck):
    """Calls a function in place of ``accepts``."""

    def __init__(self, call, reason: str = "refused") -> None:
        self.call, self.reason = call, reason

    def accepts(self, queries, taken):
        return self.call(queries)
