"""Queries that are known before a run, read from a file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lsp_lightning.errors import ConfigError
from lsp_lightning.game.query_files import read_rows
from lsp_lightning.game.query_keys import (
    QUERY_EXAMPLE,
    SUBSET_KEYS,
    other_keys,
    plain_name,
    query_of,
    solution_of,
)
from lsp_lightning.game.rows import read_each

_MOST_KEYS = 8


@dataclass(frozen=True)
class Query:
    """A query that is known before the run."""

    text: str
    """The question or task."""
    solution: object | None = None
    """The known answer or tests; None if there are none."""
    subset: str | None = None
    """The part of its file that it belongs to; None if the file names none."""


class QueryFile(list[Query]):
    """The queries of a file, and the names of its keys that are ignored."""

    ignored: tuple[str, ...] = ()


def read_queries(path: str, key: str) -> QueryFile:
    """Queries of a file, see :func:`lsp_lightning.game.query_files.read_rows`.

    Raises:
        ConfigError: the file is missing or empty, or a row is not a query; the message names the
            first such row, what is wrong with it, and where others are.
    """
    ignored = dict[str, None]()

    def read(row: Mapping[str, Any]) -> Query:
        query = Query(query_of(row), solution_of(row), _subset_of(row))
        ignored.update(dict.fromkeys(filter(None, other_keys(row))))
        return query

    queries = QueryFile(read_each(read_rows(path, key), path, key, read, QUERY_EXAMPLE))
    if not queries:
        raise ConfigError(key, f"{path!r} contains no queries", QUERY_EXAMPLE)
    queries.ignored = tuple(ignored)
    return queries


def _subset_of(row: Mapping[str, Any]) -> str | None:
    """The name of a row's subset, by the first key that has one."""
    named = {plain_name(name): value for name, value in row.items()}
    found = (named.get(key) for key in SUBSET_KEYS)
    return next((text.strip() for text in found if isinstance(text, str) and text.strip()), None)


def counted(queries: Sequence[Query], noun: str) -> str:
    """How many queries there are, how many have a solution, and which keys were ignored."""
    known = sum(query.solution is not None for query in queries)
    # a file without solutions is no fault: some verifiers read the query alone
    found = f", solutions: {known} of {len(queries)}" if known else " without solutions"
    line = f"{len(queries)} {noun}{found}"
    names = queries.ignored if isinstance(queries, QueryFile) else ()
    if names:
        shown = ", ".join(names[:_MOST_KEYS]) + (", ..." if len(names) > _MOST_KEYS else "")
        line += f"; ignored keys: {shown}"
    return line
