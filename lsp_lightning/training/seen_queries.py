"""How many of a round's queries earlier rounds have had: a memory of queries, of bounded cost."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lsp_lightning.text.breadth import NEAR, spread_out
from lsp_lightning.text.compared import compared
from lsp_lightning.text.similarity import TextMemory
from lsp_lightning.types import Playout

#: How many different queries are remembered; the newest stay. 64 queries of 500 characters are
#: compared with as many in 0.1 s.
_REMEMBERED = 1024


class SeenQueries:
    """Compares what the Challenger wrote in each round with the queries of earlier rounds.

    Texts are compared as in :mod:`lsp_lightning.text.breadth`, at most 64 of a round.
    """

    def __init__(self) -> None:
        self._memory = TextMemory(_REMEMBERED)

    def measure(self, playout: Playout) -> dict[str, float]:
        """The shares of repeated queries in a round, whose queries are remembered from now on.

        ``queries/seen`` is the share of near copies of a remembered query, ``queries/seen_exact``
        the share of those that are equal to one. If the Challenger wrote none of the queries, it is
        about all of them; NaN if there are none.
        """
        written = playout.written
        return self.measure_texts(playout.query_texts if written is None else playout.written_texts)

    def measure_texts(self, texts: Sequence[str]) -> dict[str, float]:
        """The same for the texts of the queries."""
        shown = [compared(text) for text in spread_out(texts)]
        near, known = self._memory.similarity(shown, NEAR) > NEAR, set(self._memory.texts)
        self._memory.add(shown)
        return {
            "queries/seen": float(near.float().mean()) if shown else math.nan,
            "queries/seen_exact": sum(t in known for t in shown) / len(shown)
            if shown
            else math.nan,
        }

    def state_dict(self) -> dict[str, Any]:
        """The remembered queries."""
        return {"memory": list(self._memory.texts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the remembered queries; none if there is no state."""
        self._memory.texts = list(state.get("memory", []))
