"""A reward for the Challenger alone: queries of kinds that were rare lately."""

from collections import Counter, deque
from math import log
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from lsp_lightning.errors import ConfigError, require_at_least
from lsp_lightning.rewards.base import Judgement, Reward, RewardError, each
from lsp_lightning.rewards.verifiable import Verifier
from lsp_lightning.types import Playout, SelfPlayRound


class RarityReward(Reward):
    """How rare the kinds of a query were in past rounds: 1 is new, 0 the only kind there was.

    An objective such as Learnability pays for the kinds that suit the Solver now. The Challenger
    then asks for few kinds, and the Solver meets the others no more. This reward pays for them: a
    kind with ``count`` of ``total`` remembered ones scores ``1 - log(1 + count) / log(2 + total)``,
    and a query the mean of its kinds. A malformed query scores 0.

    Args:
        verifier: its ``describe`` names the kinds of a query. It checks no answers here.
        label: the entry of ``describe`` that holds the kind, or several kinds, such as
            ``constraint`` of InstructionVerifier.
        weight: factor in the sum of the rewards for the Challenger.
        name: the name in metrics and transcripts.
        capacity: how many past queries are remembered; the newest stay.
    """

    span = (0.0, 1.0)

    def __init__(
        self,
        verifier: Verifier,
        label: str,
        weight: float = 1.0,
        name: str = "rarity",
        capacity: int = 64,
    ) -> None:
        super().__init__(weight, name, enters="challenger")
        require_at_least(capacity, 1, "model.rewards.RarityReward.capacity", "it counts queries")
        self._verifier = verifier
        self._label = label
        self._memory: deque[tuple[str, ...]] = deque(maxlen=capacity)

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
        """The rarity of each query, (N,), and ``kinds``, the effective number of those remembered.

        The effective number is the exponential of the entropy: k kinds that are equally frequent
        count k.

        Raises:
            RewardError: the verifier names no such label, or failed for every query.
        """
        counts = Counter(kind for kinds in self._memory for kind in kinds)
        total = counts.total()

        def rarity(text: str) -> float:
            kinds = self._kinds(text)
            shares = [1 - log(1 + counts[kind]) / log(2 + total) for kind in kinds]
            return sum(shares) / len(shares) if shares else 0.0

        texts = playout.query_texts
        scores_N = torch.tensor(each(texts, rarity, lambda text: 0.0, lambda text: text))
        entropy = torch.special.entr(torch.tensor([n / total for n in counts.values()])).sum()
        return Judgement(scores_N, metrics={"kinds": entropy.exp()} if total else {})

    def observe(self, played: SelfPlayRound) -> None:
        """Remember the kinds of the round's queries."""
        super().observe(played)
        texts = played.playout.query_texts
        self._memory.extend(each(texts, self._kinds, lambda text: (), lambda text: text))

    def _kinds(self, text: str) -> tuple[str, ...]:
        """The kinds of a query; none if it is malformed."""
        info = self._verifier.describe(text)
        if info is None:
            return ()
        if self._label not in info:
            raise RewardError(
                f"{type(self._verifier).__name__}.describe has no {self._label!r}; set label to "
                f"one of: {', '.join(info)}"
            )
        kinds = info[self._label]
        return tuple(map(str, kinds)) if isinstance(kinds, tuple | list) else (str(kinds),)

    def state_dict(self) -> dict[str, Any]:
        """The remembered kinds, query by query."""
        return {**super().state_dict(), "memory": [list(kinds) for kinds in self._memory]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the remembered kinds."""
        super().load_state_dict(state_dict)
        self._memory.clear()
        self._memory.extend(map(tuple, state_dict.get("memory", [])))
