"""A check of the gate: the query has a wanted form."""

from collections.abc import Sequence

from lsp_lightning.game.gate.base import QueryCheck
from lsp_lightning.text.patterns import Pattern


class Matches(QueryCheck):
    """Refuses queries that a regular expression does not match as a whole.

    Args:
        pattern: a regular expression of the regex package. A query whose match takes longer than
            50 ms is refused.
    """

    reason = "out_of_form"

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self._pattern = Pattern(pattern, "data.gate.checks.Matches.pattern")

    def accepts(self, queries: Sequence[str], taken: Sequence[str]) -> list[bool]:
        """Whether the pattern matches each query."""
        return [bool(self._pattern.matches(query)) for query in queries]
