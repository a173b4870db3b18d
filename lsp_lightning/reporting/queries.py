"""The queries and answers of a page: a sample of whole groups, with texts that are cut."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from lsp_lightning.reporting.texts import short, shown
from lsp_lightning.runs.transcripts import (
    by_query,
    is_answer,
    is_number,
    malformed,
    verdict,
    yes_or_no,
)

Row = Mapping[str, Any]
Group = Sequence[Row]
#: Most columns of scores, and of findings about a query: a file could have any number.
_MOST_COLUMNS = 40
_FINDING = 200


@dataclass(frozen=True)
class Transcript:
    """The queries of a run that a page shows."""

    scores: list[str]
    """The columns of the rewards."""
    binary: set[str]
    """The rewards that score only 0 and 1."""
    groups: list[Group]
    """The rows of each query that is shown."""
    shown: int
    """How many rows these are."""
    total: int
    """How many rows the run has."""

    @classmethod
    def of(cls, rows: Sequence[Row], most: int) -> "Transcript":
        """A sample of the rows.

        Args:
            rows: the rows of the transcripts, in the order of the rounds.
            most: most rows; 0 keeps all.
        """
        groups: list[Group] = list(by_query(rows))
        kept = sampled(groups, most) if most else groups
        names = dict.fromkeys(name for row in rows for name in row if name.startswith("reward/"))
        count = sum(map(len, kept))
        return cls(list(names)[:_MOST_COLUMNS], yes_or_no(rows), kept, count, len(rows))

    def as_json(self, limit: int) -> dict[str, Any]:
        """The queries as lists of plain values; texts are escaped.

        Args:
            limit: most characters of a text.
        """
        return {
            "scores": [shown(name.removeprefix("reward/"), 60) for name in self.scores],
            "shown": self.shown,
            "total": self.total,
            "groups": [self._query(group, limit) for group in self.groups],
        }

    def _query(self, group: Group, limit: int) -> dict[str, Any]:
        first = group[0]
        answers = [row for row in group if is_answer(row)]
        known = [float(row["R"]) for row in answers if is_number(row.get("R"))]
        found: dict[str, Any] = {
            "t": first["round"],
            "q": shown(first["query"], limit),
            "v": short(sum(known) / len(known)) if known else None,
            "a": [self._answer(row, limit) for row in answers],
        }
        if marks := _marks(first):
            found["m"] = marks
        if findings := _findings(first, limit):
            found["f"] = findings
        return found

    def _answer(self, row: Row, limit: int) -> list[Any]:
        scores = [short(row.get(name)) for name in ("R", "Q", *self.scores)]
        answer = [shown(row["answer"], limit), verdict(row, self.binary), *scores]
        judged = row.get("judged_answer")
        return answer if judged is None else [*answer, shown(judged, limit)]


def sampled(groups: Sequence[Group], most: int) -> list[Group]:
    """Whole groups with about ``most`` rows: the first and the last round, and a fair share of each
    round between. If these two alone are too many, each gives half.

    The choice within a round is random, and the same each time.
    """
    rounds = [list(found) for _, found in groupby(groups, key=lambda group: group[0]["round"])]
    if sum(map(len, groups)) <= most or not rounds:
        return list(groups)
    ends, between = [rounds[0], *rounds[1:][-1:]], rounds[1:-1]
    kept = {id(queries): _some(queries, most / len(ends)) for queries in ends}
    left, used = most - sum(_size(found) for found in kept.values()), 0
    for i, queries in enumerate(between):
        # what a round takes too much, the next ones take less
        found = _some(queries, left * (i + 1) / len(between) - used)
        kept[id(queries)] = found
        used += _size(found)
    return [group for queries in rounds for group in kept[id(queries)]]


def _some(queries: Sequence[Group], most: float) -> Sequence[Group]:
    """Random groups of a round, in their order, until they have ``most`` rows or one group more:
    what does not fit is not left out, or large groups would be rare."""
    order = list(range(len(queries)))
    random.Random(queries[0][0]["round"]).shuffle(order)
    used, chosen = 0, list[int]()
    for i in order:
        if used >= most:
            break
        used += len(queries[i])
        chosen.append(i)
    return [queries[i] for i in sorted(chosen)]


def _size(groups: Sequence[Group]) -> int:
    return sum(map(len, groups))


def _marks(row: Row) -> list[str]:
    """What sets a query apart; the reason of a refusal follows a colon."""
    marks = {
        "invalid": row.get("valid") is False,
        "malformed": malformed(row),
        "replayed": row.get("replayed") is True,
        "not admitted": row.get("admitted") is False and row.get("refused") is None,
    }
    found = [mark for mark, holds in marks.items() if holds]
    refused = row.get("refused")
    return found if refused is None else [*found, f"refused: {shown(refused, 60)}"]


def _findings(row: Row, limit: int) -> dict[str, str]:
    """What verifiers say about a query, its passage, and its text before thinking was cut."""
    names = [name for name in row if name.startswith("query/") and not name.endswith("/malformed")]
    found = {name.removeprefix("query/"): row[name] for name in names[:_MOST_COLUMNS]}
    texts = {
        shown(name, 60): shown(_listed(v), _FINDING) for name, v in found.items() if v is not None
    }
    long = {"passage": row.get("passage"), "written query": row.get("written_query")}
    return texts | {name: shown(text, limit) for name, text in long.items() if text is not None}


def _listed(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
