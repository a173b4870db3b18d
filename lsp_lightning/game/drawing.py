"""The queries of a round: from the source, through the gate, and with those from earlier rounds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from lsp_lightning.errors import ConfigError
from lsp_lightning.game.gate import Gate
from lsp_lightning.game.past import PastChallenger
from lsp_lightning.game.player import Player
from lsp_lightning.game.pool import Pool, PooledQuery
from lsp_lightning.game.queries import QueryBatch, QuerySource, check_batch
from lsp_lightning.seeding import derive_seed
from lsp_lightning.types import Refused, Rollouts, Written

Value = TypeVar("Value")


def draw_queries(
    player: Player,
    source: QuerySource,
    num_queries: int,
    index: int,
    seed: int,
    gate: Gate | None = None,
    pool: Pool | None = None,
    past: PastChallenger | None = None,
) -> QueryBatch:
    """The queries of one round; with a gate they may be fewer than ``num_queries``.

    New queries come first, then those of an earlier policy, then the pool's. Queries of the pool
    that have rested also stand in for queries that the gate refused to the end.

    Args:
        player: the policy, to write queries with.
        source: where new queries come from.
        num_queries: N.
        index: the round, from 0.
        seed: the run's seed.
        gate: which queries may be played; None lets all pass.
        pool: good queries of earlier rounds; None has none.
        past: an earlier policy that writes a share of the queries; None has none.
    """
    source.pool, source.per_round = pool, num_queries
    share = pool.most_replays(num_queries) if pool else 0
    replays = pool.replays(share, index, seed) if pool else []
    taken = [query.text for query in replays]
    earlier = _earlier(player, source, num_queries, index, seed, gate, past, taken) if past else []
    new = num_queries - len(replays) - len(earlier)
    batch = source.draw(player, new, index, seed)
    check_batch(batch, source, new)
    if gate is not None and batch.written is not None:
        taken += [query.text for query in earlier]
        batch = _Gated(player, source, gate, new, taken).filled(batch, index, seed)
    accepted = () if batch.all_refused else batch.texts
    missing = num_queries - len(replays) - len(earlier) - len(accepted)
    if pool and missing:
        passages = (batch.passages or (None,) * len(batch.texts))[: len(accepted)]
        known = {*zip(accepted, passages, strict=True)}
        known |= {query.key for query in (*replays, *earlier)}
        replays += pool.replays(missing, index, seed, known)
    if (replays or earlier) and batch.all_refused:
        batch = _without_queries(batch)
    return _with_more(batch, earlier, replays)


def _earlier(
    player: Player,
    source: QuerySource,
    num_queries: int,
    index: int,
    seed: int,
    gate: Gate | None,
    past: PastChallenger,
    taken: Sequence[str],
) -> list[PooledQuery]:
    """Queries of an earlier policy, without invalid ones and those that the gate refuses."""
    count = past.queries(num_queries)
    if not count:
        return []
    batch = source.draw(past.player(player), count, index, derive_seed(seed, "past"))
    check_batch(batch, source, count)
    written = batch.written
    valid = written.to_queries(written.valid_C, count, True).tolist() if written else [True] * count
    refusals = gate.refusals(batch.texts, valid, taken) if gate else [None] * count
    found = zip(
        batch.texts,
        batch.solutions or (None,) * count,
        batch.passages or (None,) * count,
        strict=True,
    )
    return [
        PooledQuery(text, solution, passage)
        for (text, solution, passage), fits, refused in zip(found, valid, refusals, strict=True)
        if fits and refused is None
    ]


@dataclass(frozen=True)
class _Gated:
    """Draws the new queries of a round until the gate accepts them all, or often enough."""

    player: Player
    source: QuerySource
    gate: Gate
    num_queries: int
    taken: Sequence[str]

    def filled(self, first: QueryBatch, index: int, seed: int) -> QueryBatch:
        """The batch with accepted queries in place of refused ones, or without these."""
        joined = _Joined(self.num_queries)
        batch, places = first, list(range(self.num_queries))
        for attempt in range(1, self.gate.redraws + 2):
            places = joined.add(batch, places, self.gate, self.taken)
            if not places or attempt > self.gate.redraws:
                break
            batch = self.source.redraw(self.player, places, self.num_queries, index, seed, attempt)
            check_batch(batch, self.source, len(places), "redraw")
            joined.require_temperature(batch, self.source)
        return joined.batch(self.player.pad_id)


class _Joined:
    """The accepted queries of several draws, and all rows that the Challenger wrote."""

    def __init__(self, num_queries: int) -> None:
        self._accepted: dict[int, tuple[QueryBatch, int]] = {}  # by place: a batch, its query
        self._draws: list[tuple[QueryBatch, dict[int, str]]] = []  # why queries were refused
        self._places = range(num_queries)

    def add(
        self, batch: QueryBatch, places: Sequence[int], gate: Gate, taken: Sequence[str]
    ) -> list[int]:
        """Take the queries that the gate accepts. -> the places of those that it refused."""
        rows, valid = _rows(batch), batch.written.valid_C.tolist() if batch.written else []
        written = sorted(rows)  # others come from elsewhere, and the gate is for written ones
        known = [*taken, *(found.texts[i] for found, i in self._accepted.values())]
        known += [text for i, text in enumerate(batch.texts) if i not in rows]
        verdicts = gate.refusals(
            [batch.texts[i] for i in written], [valid[rows[i]] for i in written], known
        )
        reasons = {i: r for i, r in zip(written, verdicts, strict=True) if r is not None}
        self._draws.append((batch, reasons))
        for i, place in enumerate(places):
            if i not in reasons:
                self._accepted[place] = (batch, i)
        return [places[i] for i in reasons]

    def require_temperature(self, batch: QueryBatch, source: QuerySource) -> None:
        """Raise ConfigError if queries were drawn again at another temperature."""
        batches = [batch, *(drawn for drawn, _ in self._draws)]
        found = {drawn.written.rollouts.temperature for drawn in batches if drawn.written}
        if len(found) > 1:
            problem = f"redraw of {type(source).__name__} samples at another temperature than draw"
            raise ConfigError("data.queries", problem, "use one temperature in both")

    def batch(self, pad_id: int) -> QueryBatch:
        """All accepted queries, by place; the last refused one if none was accepted."""
        chosen = [self._accepted[place] for place in self._places if place in self._accepted]
        if not chosen:
            last, reasons = self._draws[-1]
            chosen = [(last, next(iter(reasons)))]
        answered = {(id(batch), i): k for k, (batch, i) in enumerate(chosen)}
        parts = [batch.written for batch, _ in self._draws if batch.written is not None]
        answered_C: list[int] = []
        refused: dict[int, Refused] = {}
        for batch, reasons in self._draws:
            for i in batch.written.answered_C.tolist() if batch.written else ():
                if i in reasons:
                    refused[len(answered_C)] = Refused(batch.texts[i], reasons[i])
                answered_C.append(answered.get((id(batch), i), -1))
        return QueryBatch(
            texts=tuple(batch.texts[i] for batch, i in chosen),
            written=Written(
                Rollouts.joined([part.rollouts for part in parts], pad_id),
                torch.cat([part.valid_C for part in parts]),
                torch.tensor(answered_C),
                torch.cat([part.baseline_C for part in parts]),
                refused,
            ),
            solutions=_if_any(b.solutions[i] if b.solutions else None for b, i in chosen),
            passages=_if_any(b.passages[i] if b.passages else None for b, i in chosen),
            examples=tuple(dict.fromkeys(e for batch, _ in self._draws for e in batch.examples)),
        )


def _rows(batch: QueryBatch) -> dict[int, int]:
    """The Challenger's row of each query that it wrote."""
    if batch.written is None:
        return {}
    return {i: row for row, i in enumerate(batch.written.answered_C.tolist()) if i >= 0}


def _if_any(values: Iterable[Value | None]) -> tuple[Value | None, ...] | None:
    """The values, or None if all are None."""
    found = tuple(values)
    return None if all(value is None for value in found) else found


def _without_queries(batch: QueryBatch) -> QueryBatch:
    """What was written, with no query of it to be answered."""
    assert batch.written is not None
    written = replace(batch.written, answered_C=torch.full_like(batch.written.answered_C, -1))
    return QueryBatch((), written, examples=batch.examples)


def _with_more(
    batch: QueryBatch, earlier: Sequence[PooledQuery], replays: Sequence[PooledQuery]
) -> QueryBatch:
    """The batch with queries of an earlier policy and of the pool at its end."""
    n, more = len(batch.texts), [*earlier, *replays]
    if not more:
        return batch
    return replace(
        batch,
        texts=(*batch.texts, *(query.text for query in more)),
        solutions=(*(batch.solutions or (None,) * n), *(query.solution for query in more)),
        passages=(*(batch.passages or (None,) * n), *(query.passage for query in more)),
        past=tuple(range(n, n + len(earlier))),
    )
