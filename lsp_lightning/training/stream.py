"""The stream of a run's rounds, in place of a data loader."""

from collections.abc import Callable, Iterator
from typing import Any

from lsp_lightning.types import SelfPlayRound


class RoundStream:
    """The rounds of a run, each played when Lightning asks for it, with the current weights.

    It defines ``__len__`` because Lightning fetches one batch ahead from loaders without a length:
    each round would then be sampled from weights one update old.

    Args:
        play: plays round ``t``.
        rounds: how many rounds the run has.
    """

    def __init__(self, play: Callable[[int], SelfPlayRound], rounds: int) -> None:
        self._play = play
        self._rounds = rounds
        self._next = 0

    def __len__(self) -> int:
        return self._rounds

    def __iter__(self) -> Iterator[SelfPlayRound]:
        while self._next < self._rounds:
            index = self._next
            self._next += 1
            yield self._play(index)

    @property
    def next_round(self) -> int:
        """Index of the next round, which is also the number of rounds played so far."""
        return self._next

    def state_dict(self) -> dict[str, Any]:
        """The index of the next round; everything else follows from the seed."""
        return {"next_round": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` was saved."""
        self._next = int(state["next_round"])
