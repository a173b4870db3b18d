"""Read each row of a file, and say which ones cannot be used."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from lsp_lightning.errors import ConfigError
from lsp_lightning.game.query_keys import BadRow, Row

#: Most places of bad rows in an error.
_PLACES = 5

T = TypeVar("T")


def read_each(
    rows: Iterable[tuple[str, Row]],
    path: str,
    key: str,
    read: Callable[[Mapping[str, Any]], T],
    example: str,
) -> list[T]:
    """What ``read`` makes of each row; it raises BadRow for one that cannot be used.

    Args:
        rows: the rows with their places.
        path: the file.
        key: the config key.
        read: reads a row.
        example: how a row is written, for the message.

    Raises:
        ConfigError: there are such rows; the message names the first one, what is wrong with it,
            and where others are.
    """
    found: list[T] = []
    places: list[str] = []
    first, bad = None, 0
    for place, row in rows:
        try:
            if isinstance(row, BadRow):
                raise row
            found.append(read(row))
        except BadRow as error:
            first, bad = first or error, bad + 1
            places += [place] if bad <= _PLACES else []
    if first is not None:
        others = ", ".join(places[1:]) + (", ..." if bad > _PLACES else "")
        more = f" ({bad - 1} more bad rows: {others})" if bad > 1 else ""
        problem = f"{places[0]} of {path!r} {first.problem}{more}"
        raise ConfigError(key, problem, first.remedy or example) from first
    return found
