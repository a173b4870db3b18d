"""Rewards that a program decides."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lsp_lightning.rewards.base import AnswerEnters, Reward, require_answers
from lsp_lightning.types import Playout


class Verifier(ABC):
    """A check of answers, as a pure function of texts."""

    @abstractmethod
    def check(self, query: str, answers: Sequence[str], reference: object | None) -> list[float]:
        """A score in [0, 1] for each answer to one query; NaN where our own means failed.

        A malformed query has no right answer: 0 for all.
        """

    def describe(self, query: str) -> Mapping[str, str | float] | None:
        """What is known of a query (its level, its family ...); None where it is malformed."""
        return {}


class VerifiableReward(Reward):
    """R = 1 for an answer that the verifier proves right, 0 for a wrong one.

    Args:
        verifier: what decides.
        weight: factor in the sum of its kind.
        name: what it is called in metrics and transcripts.
        enters: where it enters, see :class:`lsp_lightning.rewards.base.Reward`.
        binary: whether the verifier's scores are 0 or 1 only.
    """

    span = (0.0, 1.0)

    def __init__(
        self,
        verifier: Verifier,
        weight: float = 1.0,
        name: str = "verifiable",
        enters: AnswerEnters = "task",
        binary: bool = True,
    ) -> None:
        super().__init__(weight, name, require_answers(enters, name))
        self.verifier = verifier
        self.binary = binary

    def score(self, playout: Playout) -> Tensor:
        """The verifier's scores, (N, G)."""
        groups = playout.answer_groups()
        return torch.tensor(
            [
                self.verifier.check(query, answers, playout.reference(i))
                for i, (query, answers) in enumerate(zip(playout.query_texts, groups, strict=True))
            ]
        )

    def describe(self, playout: Playout) -> Mapping[str, tuple[object, ...]]:
        """``malformed`` and whatever the verifier knows of each query."""
        known = [self.verifier.describe(query) for query in playout.query_texts]
        names = sorted({name for facts in known if facts for name in facts})
        return {
            "malformed": tuple(facts is None for facts in known),
            **{name: tuple((facts or {}).get(name) for facts in known) for name in names},
        }
