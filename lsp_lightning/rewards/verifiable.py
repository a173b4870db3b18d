"""The reward for answers that a program checks, and the base class of these programs."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence, Sized
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from lsp_lightning.errors import ConfigError, warn
from lsp_lightning.rewards.base import (
    AnswerEnters,
    Judgement,
    Reward,
    RewardError,
    each,
    require_answers,
)
from lsp_lightning.rewards.verdict import NO_INFO, Group, Info, Verdict
from lsp_lightning.types import Playout


class Verifier(ABC):
    """Checks answers by a program. To write one, subclass it and override :meth:`check`::

        class Reversed(Verifier):
            def check(self, query, answers, solution):
                return [float(answer == query[::-1]) for answer in answers]

    Use it as ``VerifiableReward(Reversed())``. The same texts must always get the same scores.
    """

    #: Whether every score is 0 or 1. Set it to False if your scores lie between.
    binary: bool = True
    #: Whether the verifier needs the solution to check an answer.
    needs_solution: bool = False
    #: Whether the verifier needs the passage that a query is about. No other query has one.
    needs_passage: bool = False
    #: Whether the answers to a query without a solution are compared with each other (a majority,
    #: say), so that a single answer cannot be judged.
    votes: bool = False

    @abstractmethod
    def check(self, query: str, answers: Sequence[str], solution: object | None) -> list[float]:
        """Return a score from 0 (wrong) to 1 (right) for each answer to one query.

        Return 0 for all if the query is malformed: it has no right answer. Return NaN for an
        answer if the verifier itself failed (timeout, crash). If it raises, the whole group counts
        as not judged.

        Args:
            query: the query.
            answers: G answers, without a model's thinking.
            solution: the known answer or tests from the file of queries, or None.
        """

    def describe(self, query: str) -> Info | None:
        """What to log about a query (its level, its kind), or None if it is malformed."""
        return NO_INFO

    def well_formed(self, queries: Sequence[str]) -> list[bool]:
        """Whether each query has a right answer, by :meth:`describe`; False where that raises."""

        def told(query: str) -> bool:
            return self.describe(query) is not None

        try:
            return each(queries, told, lambda query: False, lambda query: query)
        except RewardError as error:  # it raised for all of them, which may be one
            name = type(self).__name__
            warn(f"{name}.describe failed: {error}", kind=f"{name}.describe failed")
            return [False] * len(queries)

    def judge(self, groups: Sequence[Group]) -> list[Verdict]:
        """A verdict for each group of a round, by :meth:`check` and :meth:`describe`."""

        def checked(group: Group) -> tuple[list[float], Info | None]:
            scores = self.check(group.query, group.answers, group.solution)
            return scores, self.describe(group.query)

        def unknown(group: Group) -> tuple[list[float], Info | None]:
            return [math.nan] * len(group.answers), NO_INFO

        checks = each(groups, checked, unknown, lambda group: group.query)
        return [_verdict(self, group, *c) for group, c in zip(groups, checks, strict=True)]

    def prefetch(  # noqa: B027 - optional
        self, query: str, answer: str | None, solution: object | None
    ) -> None:
        """Start slow work while the GPU still samples, see :meth:`Reward.prefetch`."""

    def prepare(self) -> None:  # noqa: B027 - optional
        """Raise ConfigError unless the verifier can run here; called before models load."""

    def require(self, solution: object | None) -> None:  # noqa: B027 - optional
        """Raise ValueError unless the verifier can use this known solution.

        The message starts with a verb, because it follows "the solution of 'QUERY'".
        """

    def close(self) -> None:  # noqa: B027 - optional
        """Stop the verifier's processes; it can be used again."""


class RoundVerifier(Verifier):
    """A verifier that checks a whole round at once, to run processes side by side."""

    @abstractmethod
    def judge(self, groups: Sequence[Group]) -> list[Verdict]:
        """A verdict for each group of a round."""

    def check(self, query: str, answers: Sequence[str], solution: object | None) -> list[float]:
        """The scores of one group."""
        return list(self.judge([Group(query, tuple(answers), solution)])[0].scores)


class VerifiableReward(Reward):
    """The verifier's score of each answer: 1 is right, 0 is wrong.

    Args:
        verifier: decides which answers are right.
        weight: factor in R or Q; 0 only logs the scores.
        name: the name in metrics and transcripts.
        enters: task adds the scores to R, quality adds them to Q.
    """

    span = (0.0, 1.0)

    def __init__(
        self,
        verifier: Verifier,
        weight: float = 1.0,
        name: str = "verifiable",
        enters: AnswerEnters = "task",
    ) -> None:
        super().__init__(weight, name, require_answers(enters, name))
        self.verifier = verifier
        self.binary, self.needs_passage = verifier.binary, verifier.needs_passage

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prepare the verifier and check all known solutions, before any model is loaded.

        Raises:
            ConfigError: the verifier cannot run here or cannot use a solution, or it needs
                solutions or passages, which the queries do not have.
        """
        super().setup(trainer, pl_module, stage)
        data: Any = getattr(trainer, "datamodule", None)
        source = getattr(data, "queries", None)
        if self.verifier.needs_solution and getattr(source, "selfplay", False):
            raise ConfigError(
                "data.queries",
                f"{type(self.verifier).__name__} needs solutions, but a Challenger writes none",
                "use a PromptFile",
            )
        if self.verifier.needs_passage and source is not None and source.longest_passage(None) == 0:
            raise ConfigError(
                "data.queries",
                f"{type(self.verifier).__name__} needs passages, but no query has one",
                "use a Challenger with documents",
            )
        self.verifier.prepare()
        if hasattr(data, "check_solutions"):
            data.check_solutions(self.verifier)

    def scores_alone(self, solution: object | None) -> bool:
        """False without a solution if the verifier needs one or lets the answers vote.

        Also false if the verifier needs a passage, because a single query has none.
        """
        if self.needs_passage:
            return False
        return solution is not None or not (self.verifier.needs_solution or self.verifier.votes)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop the verifier's processes."""
        self.verifier.close()

    def prefetch(self, query: str, answer: str | None, solution: object | None) -> None:
        """Let the verifier start its work."""
        self.verifier.prefetch(query, answer, solution)

    def _verdicts(self, playout: Playout) -> list[Verdict]:
        """The verifier's verdict for each query."""
        g = playout.group_size
        cut = playout.answers.truncated.tolist()
        groups = zip(playout.query_texts, playout.spoken_groups(), strict=True)
        verdicts: object = self.verifier.judge(
            [
                Group(
                    query,
                    answers,
                    playout.solution(i),
                    tuple(cut[i * g : (i + 1) * g]),
                    playout.passage(i),
                )
                for i, (query, answers) in enumerate(groups)
            ]
        )
        name, n = type(self.verifier).__name__, len(playout.query_texts)
        if not isinstance(verdicts, Sequence) or len(verdicts) != n:
            what = f"{len(verdicts)} verdicts" if isinstance(verdicts, Sized) else ascii(verdicts)
            raise RewardError(
                f"{name}.judge returned {what[:80]} for {n} queries; return a list with a Verdict "
                "for each query"
            )
        for verdict in verdicts:
            if not isinstance(verdict, Verdict) or len(verdict.scores) != g:
                raise RewardError(
                    f"{name}.judge returned {ascii(verdict)[:80]} for {g} answers; return a "
                    "Verdict with a score for each answer"
                )
        return list(verdicts)

    def score(self, playout: Playout) -> Judgement:
        """The verifier's scores, (N, G), with ``malformed`` and its findings about each query.

        Raises:
            RewardError: the verifier returned something other than N verdicts with G scores.
        """
        verdicts = self._verdicts(playout)
        names = sorted({name for verdict in verdicts for name in verdict.info})
        return Judgement(
            scores=torch.tensor([verdict.scores for verdict in verdicts]),
            undecided=any(verdict.kind == "undecided" for verdict in verdicts),
            query_info={
                "malformed": tuple(verdict.kind == "malformed" for verdict in verdicts),
                **{name: tuple(verdict.info.get(name) for verdict in verdicts) for name in names},
            },
        )


def _verdict(verifier: Verifier, group: Group, scores: object, info: object) -> Verdict:
    """The verdict from the results of :meth:`Verifier.check` and :meth:`Verifier.describe`."""
    name, count = type(verifier).__name__, len(group.answers)
    numbers = _numbers(scores)
    if numbers is None or len(numbers) != count:
        what = ascii(scores)[:80] if numbers is None else f"{len(numbers)} scores"
        raise RewardError(
            f"{name}.check returned {what} for {count} answers; return a list with a number for "
            "each answer, NaN for one that could not be judged"
        )
    if isinstance(info, Mapping):
        return Verdict.of(numbers, info)
    if info is not None:
        raise RewardError(
            f"{name}.describe returned {ascii(info)[:80]}; return a dict, or None for a malformed "
            "query"
        )
    if any(number > 0 for number in numbers):  # NaN is not above 0
        raise RewardError(
            f"{name}.describe returned None (malformed) for a query, but {name}.check returned a "
            "score above 0; return 0 for all answers to this query"
        )
    return Verdict.malformed(count)


def _numbers(scores: object) -> list[float] | None:
    """The scores as numbers; None if they are anything else."""
    if not isinstance(scores, Iterable) or isinstance(scores, str | bytes):
        return None
    try:
        return [float(score) for score in scores]
    except (TypeError, ValueError, OverflowError):
        return None
