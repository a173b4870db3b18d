"""A reward for the Challenger alone: queries of kinds that were rare lately."""

from collections import Counter, deque
from itertools import compress
from math import log
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from lsp_lightning.errors import ConfigError
from lsp_lightning.rewards.base import Judgement, Reward, RewardError, each
from lsp_lightning.rewards.verifiable import Verifier
from lsp_lightning.types import Playout, SelfPlayRound

#: How many past queries are remembered: in the presets for small machines, eight rounds.
_REMEMBERED = 64


class RarityReward(Reward):
    """How rare the kinds of a query were in the last 64 queries: 1 for new ones.

    Objectives such as Learnability pay for the kinds that suit the Solver now. The Challenger then
    writes few kinds, and the Solver forgets the others. This reward keeps them in the game. A kind
    that came ``count`` times among ``total`` remembered kinds scores
    ``1 - log(1 + count) / log(2 + total)``. A query scores the mean over its kinds, and 0 if it is
    malformed.

    Args:
        verifier: names the kinds of a query: the texts that its ``describe`` returns. It checks no
            answers here.
        weight: factor in the sum of the rewards for the Challenger.
        name: the name in metrics and transcripts.
    """

    span = (0.0, 1.0)

    def __init__(self, verifier: Verifier, weight: float = 1.0, name: str = "rarity") -> None:
        super().__init__(weight, name, enters="challenger")
        self._verifier = verifier
        self._memory: deque[tuple[str, ...]] = deque(maxlen=_REMEMBERED)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raise ConfigError if the verifier describes no queries, before any model is loaded."""
        super().setup(trainer, pl_module, stage)
        if type(self._verifier).describe is Verifier.describe:
            raise ConfigError(
                "model.rewards.RarityReward.verifier",
                f"{type(self._verifier).__name__} does not tell the kind of a query",
                "use one whose describe does, such as InstructionVerifier",
            )

    def score(self, playout: Playout) -> Judgement:
        """The rarity of each query, (N,), and the metric ``kinds``.

        ``kinds`` is the effective number of remembered kinds, the exponential of their entropy: k
        equally frequent kinds count as k.

        Raises:
            RewardError: for all queries, ``describe`` raised or returned no text.
        """
        counts = Counter(kind for kinds in self._memory for kind in kinds)
        total = counts.total()

        def rarity(text: str) -> float:
            kinds = self._kinds(text)
            scores = [1 - log(1 + counts[kind]) / log(2 + total) for kind in kinds]
            return sum(scores) / len(scores) if scores else 0.0

        texts = playout.query_texts
        # 0 and not NaN for what describe cannot read: a mean would pay for it
        scores_N = torch.tensor(each(texts, rarity, lambda text: 0.0, lambda text: text))
        entropy = torch.special.entr(torch.tensor([n / total for n in counts.values()])).sum()
        return Judgement(scores_N, metrics={"kinds": entropy.exp()} if total else {})

    def observe(self, played: SelfPlayRound) -> None:
        """Remember the kinds of the queries that were written and answered in the round."""
        super().observe(played)
        playout = played.playout
        texts = list(compress(playout.query_texts, playout.written_N.tolist()))  # no replayed ones
        self._memory.extend(each(texts, self._kinds, lambda text: (), lambda text: text))

    def _kinds(self, text: str) -> tuple[str, ...]:
        """The kinds of a query; none if it is malformed."""
        info = self._verifier.describe(text)
        if info is None:
            return ()
        several = (
            value if isinstance(value, tuple | list) else (value,) for value in info.values()
        )
        kinds = tuple(text for texts in several for text in texts if isinstance(text, str))
        if not kinds:
            name = type(self._verifier).__name__
            raise RewardError(f"{name}.describe names no kind; return a text, or a list of texts")
        return kinds

    def state_dict(self) -> dict[str, Any]:
        """The remembered kinds, query by query."""
        return {**super().state_dict(), "memory": [list(kinds) for kinds in self._memory]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the remembered kinds."""
        super().load_state_dict(state_dict)
        self._memory.clear()
        self._memory.extend(map(tuple, state_dict.get("memory", [])))
