"""Asks a check about queries, whatever it returns or raises."""

from collections.abc import Sequence

from lsp_lightning.errors import ConfigError, OutOfMemory, warn
from lsp_lightning.game.gate.base import QueryCheck

#: The reason of a query at which a check failed.
UNCHECKED = "unchecked"


def asked(check: QueryCheck, queries: Sequence[str], taken: Sequence[str]) -> list[str | None]:
    """Why the check refuses each query; None for one that it accepts.

    If it raises, it is asked about each query alone, and those at which it still raises are
    refused: otherwise the Challenger could learn to write queries that break the check.

    Args:
        check: the check.
        queries: at least one query.
        taken: queries that the round already has.

    Raises:
        ConfigError: the check returned something other than a bool for each query.
    """
    reasons = {True: None, False: check.reason}
    try:
        return [reasons[verdict] for verdict in _verdicts(check, queries, taken)]
    except (ConfigError, OutOfMemory):
        raise
    except Exception as error:
        _warn(check, queries, error)
    found: list[str | None] = []
    known = list(taken)
    for query in queries:
        try:
            [accepted] = _verdicts(check, [query], known)
        except (ConfigError, OutOfMemory):
            raise
        except Exception:
            found.append(UNCHECKED)
            continue
        found.append(reasons[accepted])
        known += [query] if accepted else []
    return found


def _verdicts(check: QueryCheck, queries: Sequence[str], taken: Sequence[str]) -> list[bool]:
    """What the check returns, if it is a bool for each query."""
    verdicts: object = check.accepts(list(queries), list(taken))
    if not isinstance(verdicts, list | tuple):
        raise _unusable(check, ascii(verdicts)[:80], len(queries))
    if len(verdicts) != len(queries):
        raise _unusable(check, f"{len(verdicts)} verdicts", len(queries))
    for verdict in verdicts:
        if not isinstance(verdict, bool):
            raise _unusable(check, f"the verdict {ascii(verdict)[:80]}", len(queries))
    return list(verdicts)


def _unusable(check: QueryCheck, what: str, count: int) -> ConfigError:
    return ConfigError(
        "data.gate.checks",
        f"accepts of {type(check).__name__} returned {what} for {count} queries",
        "return a list with True or False for each query",
    )


def _warn(check: QueryCheck, queries: Sequence[str], error: Exception) -> None:
    name, kind = type(check).__name__, type(error).__name__
    warn(
        f"data.gate.checks: accepts of {name} failed ({kind}: {error}), at one or more of "
        f"{len(queries)} queries, such as {queries[0][:80]!r}; a query that it cannot check is "
        f"refused, see the metric gate/{UNCHECKED}",
        kind=f"accepts of {name} failed",
    )
