"""Rewards for the Challenger alone: novelty and form of its queries."""

from itertools import compress
from typing import Any

import torch

from lsp_lightning.errors import ConfigError
from lsp_lightning.rewards.base import Judgement, Reward
from lsp_lightning.text.compared import compared
from lsp_lightning.text.patterns import Pattern
from lsp_lightning.text.similarity import TextMemory, similarity_within
from lsp_lightning.types import Playout, SelfPlayRound

#: How many past queries are remembered; the newest stay.
_REMEMBERED = 4096


class NoveltyReward(Reward):
    """How much a query differs from earlier ones: 1 is new, 0 a repetition.

    A query is compared with the queries before it in the round and with remembered queries of past
    rounds; the most similar one counts. Similarity is the share of characters that need no edit, as
    rapidfuzz measures it, over the first 500 characters. Case, white space and invisible characters
    do not matter.

    Args:
        weight: factor in the sum of the rewards for the Challenger.
        name: the name in metrics and transcripts.
        near: up to this similarity a query scores 1; above, it counts as a near-duplicate and its
            score falls linearly to 0 for a repetition.
    """

    span = (0.0, 1.0)

    def __init__(
        self,
        weight: float = 1.0,
        name: str = "novelty",
        near: float = 0.8,
    ) -> None:
        super().__init__(weight, name, enters="challenger")
        key = "model.rewards.NoveltyReward"
        if not 0 <= near < 1:
            raise ConfigError(f"{key}.near", f"is {near}", "set at least 0 and below 1")
        self._near = near
        self._memory = TextMemory(_REMEMBERED)

    def score(self, playout: Playout) -> Judgement:
        """The novelty of each query, (N,), and the share of near-duplicates."""
        texts = list(map(compared, playout.query_texts))
        past_N = self._memory.similarity(texts, self._near)
        similarity_N = torch.maximum(past_N, similarity_within(texts, self._near))
        scores_N = ((1 - similarity_N) / (1 - self._near)).clamp(max=1.0)
        near = (similarity_N > self._near)[playout.written_N].float()
        return Judgement(scores_N, metrics={"near_duplicates": near})

    def observe(self, played: SelfPlayRound) -> None:
        """Remember the queries that were written and answered in the round, each text once."""
        super().observe(played)
        playout = played.playout
        written = compress(playout.query_texts, playout.written_N.tolist())  # no replayed ones
        self._memory.add(map(compared, written))

    def state_dict(self) -> dict[str, Any]:
        """The remembered queries."""
        return {**super().state_dict(), "memory": list(self._memory.texts)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the remembered queries."""
        super().load_state_dict(state_dict)
        self._memory.texts = list(state_dict.get("memory", []))


class FormReward(Reward):
    """Queries of a wanted form: 1 if a regular expression matches the whole query, else 0.

    Args:
        pattern: a regular expression of the regex package. If matching takes longer than 50 ms, the
            query scores 0 and is counted in the metric ``slow``.
        weight: factor in the sum of the rewards for the Challenger.
        name: the name in metrics and transcripts.
    """

    span, binary = (0.0, 1.0), True

    def __init__(self, pattern: str, weight: float = 1.0, name: str = "form") -> None:
        super().__init__(weight, name, enters="challenger")
        self._pattern = Pattern(pattern, "model.rewards.FormReward.pattern")

    def score(self, playout: Playout) -> Judgement:
        """1 or 0 for each query, (N,), and ``slow``, the share whose match took too long."""
        # a slow match scores 0, not NaN: stalling the match must not pay
        matches = [self._pattern.matches(text) for text in playout.query_texts]
        too_long = torch.tensor([float(match is None) for match in matches])
        return Judgement(
            torch.tensor([float(bool(m)) for m in matches]), metrics={"slow": too_long}
        )
