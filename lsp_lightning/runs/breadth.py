"""How varied the queries of a run are, from its beginning to its end, by its transcripts.

Imports nothing heavy.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from lsp_lightning.runs.transcripts import by_query
from lsp_lightning.text.breadth import MOST_TEXTS, distinct_2, mean_similarity, spread_out

#: Most stretches of a run.
_STRETCHES = 10
#: A kind of query counts if it makes up more than this share.
COMMON = 0.05

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Stretch:
    """The queries that were written in successive rounds of a run."""

    first: int
    """Its first round, from 0."""
    last: int
    """Its last round."""
    written: int
    """How many queries were written, also those that the gate refused."""
    passed: float | None
    """Share of them that the gate let through; None if the run has no gate."""
    distinct: float
    """Different queries divided by all."""
    distinct_2: float
    """Different pairs of neighbouring words divided by all."""
    similarity: float
    """Mean similarity of two queries."""
    kinds: Mapping[str, int | None]
    """For each finding of a verifier that is a text: how many of its values make up more than 5 %
    of the answered, well-formed queries; None if there are none."""


def stretches(rows: Iterable[Row]) -> list[Stretch]:
    """About ten stretches of a run with about the same number of rounds each; none without rows.

    Queries of the pool and of an earlier policy are left out.

    Args:
        rows: rows of the transcripts, in the order of the rounds.
    """
    queries = [group[0] for group in by_query(rows)]
    rounds = sorted({row["round"] for row in queries})
    written = [row for row in queries if not (row.get("replayed") or row.get("past"))]
    has_gate = any(row.get(name) is not None for row in queries for name in ("admitted", "refused"))
    names = sorted({name for row in written for name in row if _is_kind(row, name)})
    if not rounds:
        return []
    count = min(_STRETCHES, len(rounds))
    ends = [len(rounds) * i // count for i in range(count + 1)]
    limits = [(rounds[a], rounds[b - 1]) for a, b in pairwise(ends)]
    parts = [[row for row in written if low <= row["round"] <= high] for low, high in limits]
    # of each stretch the same number, because more texts repeat more word pairs
    size = min([MOST_TEXTS, *(len(part) for part in parts if len(part) > 1)])
    return [
        _stretch(part, limit, size, has_gate, names)
        for part, limit in zip(parts, limits, strict=True)
    ]


def _stretch(
    rows: Sequence[Row], limits: tuple[int, int], size: int, has_gate: bool, names: Sequence[str]
) -> Stretch:
    texts = [str(row["query"]) for row in rows]
    n, some = len(texts), spread_out(texts, size)
    passed = [row.get("refused") is None for row in rows]
    return Stretch(
        first=limits[0],
        last=limits[1],
        written=n,
        passed=sum(passed) / n if has_gate and n else None,
        distinct=len(set(texts)) / n if n else float("nan"),
        distinct_2=distinct_2(some),
        similarity=mean_similarity(some),
        kinds={name.removeprefix("query/"): common_kinds(rows, name) for name in names},
    )


def common_kinds(rows: Sequence[Row], name: str) -> int | None:
    """How many values of a finding make up more than 5 % of the answered, well-formed queries.

    None if there is no such query.
    """
    malformed = f"{name.rpartition('/')[0]}/malformed"
    well_formed = [
        row
        for row in rows
        if row.get("valid") is not False
        and row.get("refused") is None
        and row.get(malformed) is not True
    ]
    if not well_formed:
        return None
    counts = Counter(kind for row in well_formed for kind in set(_texts(row.get(name))))
    return sum(count > COMMON * len(well_formed) for count in counts.values())


def _is_kind(row: Row, name: str) -> bool:
    """Whether a column holds a text, or texts, that a verifier found."""
    return name.startswith("query/") and any(_texts(row[name]))


def _texts(value: object) -> Iterator[str]:
    values = value if isinstance(value, list | tuple) else (value,)
    return (text for text in values if isinstance(text, str))
