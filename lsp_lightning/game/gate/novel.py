"""A check of the gate: the query is no near copy of another one."""

from collections import deque
from collections.abc import Sequence
from itertools import chain
from typing import Any

from lsp_lightning.errors import ConfigError, require_at_least, require_number
from lsp_lightning.game.gate.base import QueryCheck
from lsp_lightning.text.compared import compared
from lsp_lightning.text.similarity import nearest
from lsp_lightning.types import SelfPlayRound


class Novel(QueryCheck):
    """Refuses near copies of queries of the round, and of queries that were played lately.

    Similarity is the share of characters that need no edit, over the first 500 characters. Case,
    white space and invisible characters do not matter. Put it after other checks, so that a query
    that they refuse does not keep others out.

    Args:
        near: a query that is more similar than this to another one is refused; 1 allows all but
            repetitions.
        memory: how many rounds are remembered; 0 compares within the round alone. Rounds and not
            queries, or a Challenger that only repeats itself would be refused for ever.
    """

    reason = "repeated"

    def __init__(self, near: float = 0.8, memory: int = 16) -> None:
        key = "data.gate.checks.Novel"
        otherwise = ", or leave Novel out to allow all"
        require_number(near, f"{key}.near", above=0, otherwise=otherwise)
        if near > 1:
            raise ConfigError(f"{key}.near", f"is {near}", "set above 0 and at most 1")
        require_at_least(memory, 0, f"{key}.memory", "it is a number of rounds")
        self.near, self.memory = near, memory
        self._played: deque[list[str]] = deque(maxlen=memory)

    def _is_near(self, text: str, others: Sequence[str]) -> bool:
        rounding = 1e-6  # similarities are in single precision
        return float(nearest([text], others, self.near)) > self.near + rounding

    def accepts(self, queries: Sequence[str], taken: Sequence[str]) -> list[bool]:
        """Whether each query is unlike those in memory, those taken and those before it."""
        others = [*chain.from_iterable(self._played), *map(compared, taken)]
        accepted = []
        for text in map(compared, queries):
            is_new = text not in others and not self._is_near(text, others)
            accepted.append(is_new)
            if is_new:
                others.append(text)
        return accepted

    def observe(self, played: SelfPlayRound) -> None:
        """Remember the queries that were written and accepted in the round.

        If all were refused, one of them is played. It is not remembered: else a Challenger that
        repeats it would be refused for ever.
        """
        playout = played.playout
        accepted_N = playout.written_N & ~playout.refused_N
        found = zip(playout.query_texts, accepted_N.tolist(), strict=True)
        self._played.append([compared(text) for text, accepted in found if accepted])

    def state_dict(self) -> dict[str, Any]:
        """The remembered queries, by round."""
        return {"memory": [list(texts) for texts in self._played]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the remembered queries."""
        self._played.clear()
        self._played.extend(map(list, state["memory"]))
