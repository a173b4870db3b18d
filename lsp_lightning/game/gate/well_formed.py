"""A check of the gate: a verifier can read the query."""

from collections.abc import Sequence
from typing import Any

from lsp_lightning.errors import ConfigError
from lsp_lightning.game.gate.base import QueryCheck
from lsp_lightning.rewards import Verifier


class WellFormed(QueryCheck):
    """Refuses queries that have no right answer by a verifier's rules.

    Args:
        verifier: reads the queries, such as InstructionVerifier. It checks no answers here.
    """

    reason = "malformed"

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier

    def prepare(self) -> None:
        """Raise ConfigError if the verifier cannot run here, or tells nothing about a query."""
        if not tells_form(self._verifier):
            kind = type(self._verifier)
            raise ConfigError(
                "data.gate.checks.WellFormed.verifier",
                f"{kind.__name__} cannot tell a well-formed query from another without an answer",
                "use one that can, such as InstructionVerifier",
            )
        self._verifier.prepare()

    def describe(self) -> dict[str, Any]:
        """The class of the verifier, to compare when a run is resumed."""
        return {"verifier": type(self._verifier).__qualname__}

    def accepts(self, queries: Sequence[str], taken: Sequence[str]) -> list[bool]:
        """Whether each query is well-formed; False for one that the verifier cannot read."""
        return self._verifier.well_formed(queries)

    def close(self) -> None:
        """Stop the verifier's processes."""
        self._verifier.close()


def tells_form(verifier: Verifier) -> bool:
    """Whether a verifier can tell a well-formed query from another one without an answer."""
    kind = type(verifier)
    default = kind.describe is Verifier.describe and kind.well_formed is Verifier.well_formed
    return not default
