"""A reward for texts of a wanted length: answers, or the Challenger's queries."""

from typing import Literal, get_args

import torch
from torch import Tensor

from lsp_lightning.errors import require_at_least, require_one_of
from lsp_lightning.rewards.base import Enters, Judgement, Reward
from lsp_lightning.types import Playout

Unit = Literal["characters", "words", "tokens"]


class LengthReward(Reward):
    """Queries or answers of a wanted length: 1 from ``low`` to ``high``, less outside.

    The score falls linearly to 0 at length 0 and at twice ``high``. Thinking does not count as part
    of an answer, except in tokens.

    Args:
        low: shortest length with score 1.
        high: longest length with score 1.
        unit: what is counted; tokens include the token that ends the text.
        weight: factor in the sum of the rewards.
        name: the name in metrics and transcripts.
        enters: challenger scores the queries, for the Challenger alone; quality and task score the
            answers. A short answer breaks few constraints, so without a reward for length the
            answers to verifiable instructions shrink.
    """

    span = (0.0, 1.0)

    def __init__(
        self,
        low: int,
        high: int,
        unit: Unit = "words",
        weight: float = 1.0,
        name: str = "length",
        enters: Enters = "challenger",
    ) -> None:
        super().__init__(weight, name, enters=enters)
        key = "model.rewards.LengthReward"
        require_at_least(low, 0, f"{key}.low", "no text is shorter than 0")
        require_at_least(high, max(low, 1), f"{key}.high", f"low is {low}")
        require_one_of(unit, get_args(Unit), f"{key}.unit")
        self._low, self._high = low, high
        self._unit = unit

    def score(self, playout: Playout) -> Tensor | Judgement:
        """``length / low`` below the range, 1 inside, ``2 - length / high`` above, never < 0.

        (N,) for queries, (N, G) for answers. If tokens are counted, a query that was not written in
        this round gets NaN.
        """
        lengths = self._queries(playout) if self.enters == "challenger" else self._answers(playout)
        below = lengths / self._low if self._low else torch.ones_like(lengths)
        above = 2 - lengths / self._high
        scores = torch.minimum(below, above).clamp(0, 1)
        return Judgement(scores, undecided=True) if scores.isnan().all() else scores

    def shortens(self, tokens: int) -> bool:
        """Whether it pays for answers that are shorter than so many tokens."""
        return self.enters != "challenger" and self._unit == "tokens" and self._high < tokens

    def _queries(self, playout: Playout) -> Tensor:
        if self._unit != "tokens":
            return torch.tensor([self._count(text) for text in playout.query_texts])
        if playout.written is None:
            raise RuntimeError("only queries of a Challenger have tokens; set unit: words")
        lengths_C = playout.written.rollouts.completion_mask.sum(1).float()
        return playout.written.to_queries(lengths_C, len(playout.query_texts), float("nan"))

    def _answers(self, playout: Playout) -> Tensor:
        if self._unit != "tokens":
            return torch.tensor([list(map(self._count, g)) for g in playout.spoken_groups()])
        lengths = playout.answers.completion_mask.sum(1).float()
        return lengths.view(-1, playout.group_size)

    def _count(self, text: str) -> float:
        return float(len(text.split() if self._unit == "words" else text))
