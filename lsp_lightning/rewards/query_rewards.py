"""Rewards for the Challenger alone: what it writes should be new, and of a wanted form."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import regex
import torch
from torch import Tensor

from lsp_lightning.errors import ConfigError, require_at_least, require_one_of
from lsp_lightning.rewards.base import Judgement, Reward
from lsp_lightning.text.prompts import fold
from lsp_lightning.types import Playout, SelfPlayRound

Unit = Literal["characters", "words", "tokens"]

_PATTERN_SECONDS = 0.05


class NoveltyReward(Reward):
    """How unlike a query is to those before it: 1 is new, 0 a repetition.

    It is compared with the queries before it in the round and with a memory of past rounds; the
    most alike one counts. Likeness is the share of characters that need not be edited, as rapidfuzz
    measures it, regardless of case, white space and invisible characters.

    Args:
        weight: factor among the rewards for the Challenger.
        name: what it is called in metrics and transcripts.
        near: a likeness above which a query counts as a near-duplicate; one less alike is wholly
            new, and from there the score falls linearly to 0.
        capacity: past queries that are remembered, the newest ones.
        max_characters: of a query, its beginning is compared.
    """

    span = (0.0, 1.0)

    def __init__(
        self,
        weight: float = 1.0,
        name: str = "novelty",
        near: float = 0.8,
        capacity: int = 4096,
        max_characters: int = 500,
    ) -> None:
        super().__init__(weight, name, enters="challenger")
        key = "model.rewards.NoveltyReward"
        if not 0 <= near < 1:
            raise ConfigError(f"{key}.near", f"is {near}", "set it from 0 to below 1")
        require_at_least(capacity, 0, f"{key}.capacity", "it counts queries")
        require_at_least(max_characters, 1, f"{key}.max_characters", "nothing would be compared")
        self._near = near
        self._capacity = capacity
        self._max_characters = max_characters
        self._memory: list[str] = []

    def score(self, playout: Playout) -> Tensor:
        """The novelty of each query, (N,)."""
        return self.judge(playout).scores

    def judge(self, playout: Playout) -> Judgement:
        """The novelty of each query, and the share of near-duplicates."""
        texts = [self._normal(text) for text in playout.query_texts]
        past_N = _likeness(texts, self._memory, self._near)
        present = [_likeness([text], texts[:i], self._near) for i, text in enumerate(texts)]
        likeness_N = torch.maximum(past_N, torch.cat(present))
        scores_N = ((1 - likeness_N) / (1 - self._near)).clamp(max=1.0)
        near_N = (likeness_N > self._near).float()
        return Judgement(scores_N, metrics={"near_duplicates": near_N})

    def observe(self, played: SelfPlayRound) -> None:
        """Remember the round's queries, each text once."""
        super().observe(played)
        texts = (self._normal(text) for text in played.playout.query_texts)
        kept = list(dict.fromkeys(reversed([*self._memory, *texts])))[::-1]
        self._memory = kept[max(0, len(kept) - self._capacity) :]

    def state_dict(self) -> dict[str, Any]:
        """The memory."""
        return {**super().state_dict(), "memory": list(self._memory)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a checkpoint's memory."""
        super().load_state_dict(state_dict)
        self._memory = list(state_dict.get("memory", []))

    def _normal(self, text: str) -> str:
        return " ".join(fold(text[: self._max_characters]).casefold().split())


class LengthReward(Reward):
    """Queries of a wanted length: 1 from ``low`` to ``high``, falling linearly to 0 over ``fade``.

    Args:
        low: least length that is paid in full.
        high: greatest length that is paid in full.
        fade: so far outside nothing is paid.
        unit: what is counted; tokens with the one that ends the query.
        weight: factor among the rewards for the Challenger.
        name: what it is called in metrics and transcripts.
    """

    span = (0.0, 1.0)

    def __init__(
        self,
        low: int,
        high: int,
        fade: int = 10,
        unit: Unit = "words",
        weight: float = 1.0,
        name: str = "length",
    ) -> None:
        super().__init__(weight, name, enters="challenger")
        key = "model.rewards.LengthReward"
        require_at_least(high, low, f"{key}.high", f"the least length is {low}")
        require_at_least(fade, 1, f"{key}.fade", "the score falls over some length")
        require_one_of(unit, get_args(Unit), f"{key}.unit")
        self._low, self._high, self._fade = low, high, fade
        self._unit = unit

    def score(self, playout: Playout) -> Tensor:
        """1 minus how far each query's length lies outside, in fades; 0 at least. (N,)."""
        if self._unit == "tokens":
            if playout.queries is None:
                raise RuntimeError("only queries that the Challenger wrote have tokens")
            lengths_N = playout.queries.completion_mask.sum(1).float()
        else:
            words = self._unit == "words"
            counts = [len(text.split() if words else text) for text in playout.query_texts]
            lengths_N = torch.tensor(counts, dtype=torch.float32)
        outside_N = (self._low - lengths_N).clamp(min=0) + (lengths_N - self._high).clamp(min=0)
        return (1 - outside_N / self._fade).clamp(min=0)


class FormReward(Reward):
    """Queries of a wanted form: 1 where a regular expression matches the whole query, else 0.

    Args:
        pattern: the expression (of the regex package); a query that takes it longer than 50 ms does
            not match, and is counted.
        weight: factor among the rewards for the Challenger.
        name: what it is called in metrics and transcripts.
    """

    span, binary = (0.0, 1.0), True

    def __init__(self, pattern: str, weight: float = 1.0, name: str = "form") -> None:
        super().__init__(weight, name, enters="challenger")
        try:
            self._pattern = regex.compile(pattern, regex.DOTALL)
        except regex.error as error:
            raise ConfigError(
                "model.rewards.FormReward.pattern", f"is no regular expression ({error})", "mend it"
            ) from error

    def score(self, playout: Playout) -> Tensor:
        """1 or 0 for each query, (N,)."""
        return self.judge(playout).scores

    def judge(self, playout: Playout) -> Judgement:
        """1 or 0 for each query, and the share that took too long."""
        matches = [self._matches(text) for text in playout.query_texts]
        too_long = torch.tensor([float(match is None) for match in matches])
        return Judgement(
            torch.tensor([float(bool(m)) for m in matches]), metrics={"slow": too_long}
        )

    def _matches(self, text: str) -> bool | None:
        # not NaN: the Challenger could write queries that stall the pattern instead of a 0
        try:
            return self._pattern.fullmatch(text, timeout=_PATTERN_SECONDS) is not None
        except TimeoutError:
            return None


def _likeness(texts: Sequence[str], others: Sequence[str], least: float) -> Tensor:
    """For each text, how alike the most alike of the others is; 0 where below ``least``. (n,)."""
    from rapidfuzz.distance import Indel
    from rapidfuzz.process import cdist

    if not others:
        return torch.zeros(len(texts))
    table = cdist(texts, others, scorer=Indel.normalized_similarity, score_cutoff=least)
    return torch.from_numpy(table.max(axis=1)).float()
