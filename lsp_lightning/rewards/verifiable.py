"""Rewards that a program decides."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from lsp_lightning.errors import ConfigError
from lsp_lightning.rewards.base import (
    AnswerEnters,
    Judgement,
    Reward,
    RewardError,
    each,
    require_answers,
)
from lsp_lightning.types import Playout


@dataclass(frozen=True)
class Group:
    """A query with its answers, as a verifier sees them."""

    query: str
    """What was asked."""
    answers: tuple[str, ...]
    """G answers, without a model's thinking."""
    solution: object | None = None
    """What is known of the query beforehand, or None."""


@dataclass(frozen=True)
class Verdict:
    """What a verifier makes of a group."""

    scores: Sequence[float]
    """G scores in [0, 1]; NaN where the verifier's own means failed."""
    info: Mapping[str, str | float] | None = field(default_factory=dict)
    """What is known of the query; None where it is malformed: then all scores are 0."""
    undecided: bool = False
    """NaN is what was found (no majority, say), and no failure."""


class Verifier(ABC):
    """A check of answers, as a pure function of texts."""

    #: Whether scores are 0 or 1 only.
    binary: bool = True
    #: Whether nothing can be told without a solution for each query.
    needs_solution: bool = False

    @abstractmethod
    def check(self, query: str, answers: Sequence[str], solution: object | None) -> list[float]:
        """A score in [0, 1] for each answer to one query; NaN where our own means failed.

        A malformed query has no right answer: 0 for all.
        """

    def describe(self, query: str) -> Mapping[str, str | float] | None:
        """What is known of a query (its level, its family ...); None where it is malformed."""
        return {}

    def judge(self, groups: Sequence[Group]) -> list[Verdict]:
        """A verdict on each group of a round."""

        def verdict(group: Group) -> Verdict:
            scores = self.check(group.query, group.answers, group.solution)
            return Verdict(scores, self.describe(group.query))

        def unknown(group: Group) -> Verdict:
            return Verdict([math.nan] * len(group.answers))

        return each(groups, verdict, unknown, lambda group: group.query)

    def prefetch(  # noqa: B027 - optional
        self, query: str, answer: str | None, solution: object | None
    ) -> None:
        """Begin slow work on what will be judged soon, see :meth:`Reward.prefetch`."""

    def prepare(self) -> None:  # noqa: B027 - optional
        """Find out, before any model is loaded, whether what it needs is there.

        Raises:
            ConfigError: it is not.
        """

    def require(self, solution: object | None) -> None:  # noqa: B027 - optional
        """Whether a query's solution can be used; called for all that are known beforehand.

        Raises:
            ValueError: it cannot; the message goes on "the solution of this query ...".
        """

    def close(self) -> None:  # noqa: B027 - optional
        """Give back what it holds (processes); it may be used again."""


class RoundVerifier(Verifier):
    """A verifier that does better with a whole round at once: it runs processes side by side."""

    @abstractmethod
    def judge(self, groups: Sequence[Group]) -> list[Verdict]:
        """A verdict on each group of a round."""

    def check(self, query: str, answers: Sequence[str], solution: object | None) -> list[float]:
        """The scores of one group."""
        return list(self.judge([Group(query, tuple(answers), solution)])[0].scores)


class VerifiableReward(Reward):
    """R = 1 for an answer that the verifier proves right, 0 for a wrong one.

    Args:
        verifier: what decides.
        weight: factor in the sum of its kind; 0 only logs it.
        name: what it is called in metrics and transcripts.
        enters: where it enters, see :class:`lsp_lightning.rewards.base.Reward`.
        binary: whether its scores are 0 or 1 only; None asks the verifier.
        standardize: see :class:`lsp_lightning.rewards.base.Reward`.
    """

    span = (0.0, 1.0)

    def __init__(
        self,
        verifier: Verifier,
        weight: float = 1.0,
        name: str = "verifiable",
        enters: AnswerEnters = "task",
        binary: bool | None = None,
        standardize: bool = False,
    ) -> None:
        super().__init__(weight, name, require_answers(enters, name), standardize)
        self.verifier = verifier
        self.binary = verifier.binary if binary is None else binary

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prepare the verifier and show it all solutions that are known, before a model is loaded.

        Raises:
            ConfigError: something it needs is missing, or it cannot use one of the solutions.
        """
        super().setup(trainer, pl_module, stage)
        data: Any = getattr(trainer, "datamodule", None)
        source = getattr(data, "queries", None)
        if self.verifier.needs_solution and getattr(source, "selfplay", False):
            raise ConfigError(
                "data.queries",
                f"a Challenger writes no solutions, and {type(self.verifier).__name__} needs them",
                "use a PromptFile",
            )
        self.verifier.prepare()
        if hasattr(data, "check_solutions"):
            data.check_solutions(self.verifier.require)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """End what the verifier has started."""
        self.verifier.close()

    def prefetch(self, query: str, answer: str | None, solution: object | None) -> None:
        """Let the verifier begin."""
        self.verifier.prefetch(query, answer, solution)

    def score(self, playout: Playout) -> Judgement:
        """The scores, ``malformed``, and whatever the verifier knows of each query."""
        verdicts = self.verifier.judge(
            [
                Group(query, answers, playout.solution(i))
                for i, (query, answers) in enumerate(
                    zip(playout.query_texts, playout.spoken_groups(), strict=True)
                )
            ]
        )
        for verdict in verdicts:
            if verdict.info is None and any(verdict.scores):
                raise RewardError("a verifier pays for a query that it calls malformed")
            if len(verdict.scores) != playout.group_size:
                raise RewardError(
                    f"a verdict has {len(verdict.scores)} scores for {playout.group_size} answers"
                )
        known = [verdict.info for verdict in verdicts]
        names = sorted({name for info in known if info for name in info})
        return Judgement(
            scores=torch.tensor([list(verdict.scores) for verdict in verdicts]),
            undecided=any(verdict.undecided for verdict in verdicts),
            query_info={
                "malformed": tuple(info is None for info in known),
                **{name: tuple((info or {}).get(name) for info in known) for name in names},
            },
        )
