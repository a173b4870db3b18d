"""Queries that are known before a run, read from a file."""

from collections.abc import Sequence
from dataclasses import dataclass

from lsp_lightning.errors import ConfigError
from lsp_lightning.game.query_files import read_rows
from lsp_lightning.game.query_keys import BadRow, other_keys, query_of, solution_of

#: Most places of bad rows in an error.
_PLACES = 5
_MOST_KEYS = 8


@dataclass(frozen=True)
class Query:
    """A query that is known before the run."""

    text: str
    """The question or task."""
    solution: object | None = None
    """The known answer or tests; None if there are none."""


class QueryFile(list[Query]):
    """The queries of a file, and the names of its keys that are ignored."""

    ignored: tuple[str, ...] = ()


def read_queries(path: str, key: str) -> QueryFile:
    """Queries of a file, see :func:`lsp_lightning.game.query_files.read_rows`.

    Raises:
        ConfigError: the file is missing or empty, or a row is not a query; the message names the
            first such row, what is wrong with it, and where others are.
    """
    queries, ignored = QueryFile(), dict[str, None]()
    places: list[str] = []
    first, bad = None, 0
    for place, row in read_rows(path, key):
        try:
            if isinstance(row, BadRow):
                raise row
            queries.append(Query(query_of(row), solution_of(row)))
            ignored |= dict.fromkeys(filter(None, other_keys(row)))
        except BadRow as error:
            first, bad = first or error, bad + 1
            places += [place] if bad <= _PLACES else []
    if first is not None:
        others = ", ".join(places[1:]) + (", ..." if bad > _PLACES else "")
        more = f" ({bad - 1} more bad rows: {others})" if bad > 1 else ""
        problem = f"{places[0]} of {path!r} {first.problem}{more}"
        raise ConfigError(key, problem, first.remedy) from first
    if not queries:
        remedy = 'write lines like {"query": "...", "solution": "..."}'
        raise ConfigError(key, f"{path!r} contains no queries", remedy)
    queries.ignored = tuple(ignored)
    return queries


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
