"""A round of the game."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol, Self

import torch
from torch import Tensor

from lsp_lightning.functional.advantages import query_values
from lsp_lightning.types.completions import Rollouts, Sampling


@dataclass(frozen=True)
class Refused:
    """A query that the gate kept out of training."""

    text: str
    """The query."""
    reason: str
    """What is wrong with it, in one word."""


@dataclass(frozen=True)
class Written:
    """The queries that the Challenger wrote in a round, C of them.

    Usually all are answered and C = N. C and N differ if a gate has queries drawn again, or some
    come from the pool.
    """

    rollouts: Rollouts
    """The queries as completions; C rows."""
    valid_C: Tensor
    """(C,) bool: the query follows the form rules."""
    answered_C: Tensor
    """(C,) int64: the row's index among the round's N queries; -1 if it was not answered."""
    baseline_C: Tensor
    """(C,) int64: rows with the same number are compared with each other."""
    refused: Mapping[int, Refused] = field(default_factory=dict)
    """What the gate refused, by row. It is not answered, unless nothing else is left to play."""

    @classmethod
    def all_answered(cls, rollouts: Rollouts, valid: Sequence[bool]) -> Self:
        """C = N: row ``i`` is query ``i``, and all rows are compared with each other."""
        rows = torch.arange(len(rollouts))
        return cls(rollouts, torch.tensor(valid, dtype=torch.bool), rows, torch.zeros_like(rows))

    def to_queries(self, values_C: Tensor, num_queries: int, default: float) -> Tensor:
        """The written rows' values by query; ``default`` for queries from elsewhere. -> (N,)."""
        values_N = torch.full((num_queries,), default, dtype=values_C.dtype)
        answered = self.answered_C >= 0
        values_N[self.answered_C[answered]] = values_C[answered]
        return values_N


@dataclass(frozen=True)
class Playout:
    """A played round before it is judged: all that a reward sees."""

    query_texts: tuple[str, ...]
    """N queries."""
    answers: Rollouts
    """N*G answers, query-major."""
    group_size: int
    """G."""
    written: Written | None = None
    """The queries that the Challenger wrote; None when all come from elsewhere."""
    solutions: tuple[object, ...] | None = None
    """The known answer or tests of each query (None: unknown); None if all are unknown."""
    passages: tuple[str | None, ...] | None = None
    """The passage that each query was written about; None if there is none."""
    examples: tuple[str, ...] = ()
    """The example queries that the Challenger was shown in this round, each once."""
    seed: int = 0
    """The seed of rewards that sample."""
    past: tuple[int, ...] = ()
    """The queries that an earlier policy wrote, as places among the N."""

    def __post_init__(self) -> None:
        n = len(self.query_texts)
        if len(self.answers) != n * self.group_size:
            raise ValueError(f"{n} queries x {self.group_size} need {n * self.group_size} answers")

    @property
    def rollouts(self) -> tuple[Rollouts, ...]:
        """All completions of the round, R rows: the written queries, then the answers."""
        return (self.answers,) if self.written is None else (self.written.rollouts, self.answers)

    @property
    def valid_N(self) -> Tensor:
        """(N,) bool: false for queries that were written in this round and break the form rules."""
        n = len(self.query_texts)
        if self.written is None:
            return torch.ones(n, dtype=torch.bool)
        return self.written.to_queries(self.written.valid_C, n, True)

    @property
    def written_N(self) -> Tensor:
        """(N,) bool: the Challenger wrote the query in this round."""
        n = len(self.query_texts)
        if self.written is None:
            return torch.zeros(n, dtype=torch.bool)
        return self.written.to_queries(torch.ones_like(self.written.valid_C), n, False)

    @property
    def replayed_N(self) -> Tensor:
        """(N,) bool: neither this policy nor an earlier one wrote the query for this round."""
        replayed_N = ~self.written_N
        replayed_N[list(self.past)] = False
        return replayed_N

    @property
    def written_texts(self) -> tuple[str, ...]:
        """The queries that the Challenger wrote in this round, also those that the gate refused."""
        if self.written is None:
            return ()
        answered, refused = self.written.answered_C.tolist(), self.written.refused
        texts = (
            refused[row].text if row in refused else self.query_texts[i]
            for row, i in enumerate(answered)
            if i >= 0 or row in refused
        )
        return tuple(texts)

    @property
    def refused_N(self) -> Tensor:
        """(N,) bool: the gate refused the query, which is played because no other was left."""
        refused_N = torch.zeros(len(self.query_texts), dtype=torch.bool)
        if self.written is not None:
            for row in self.written.refused:
                if (i := int(self.written.answered_C[row])) >= 0:
                    refused_N[i] = True
        return refused_N

    def answer_groups(self) -> list[tuple[str, ...]]:
        """The whole texts of the answers, G for each of the N queries; for records only."""
        return self._grouped(self.answers.texts)

    def spoken_groups(self) -> list[tuple[str, ...]]:
        """The answers as they are judged: without thinking, G for each of the N queries.

        An answer whose thinking never ends is "".
        """
        return self._grouped(self.answers.spoken)

    def _grouped(self, texts: tuple[str, ...]) -> list[tuple[str, ...]]:
        g = self.group_size
        return [texts[i * g : (i + 1) * g] for i in range(len(self.query_texts))]

    def solution(self, i: int) -> object | None:
        """The known answer of query ``i``, or None."""
        return None if self.solutions is None else self.solutions[i]

    def passage(self, i: int) -> str | None:
        """The passage that query ``i`` was written about, or None."""
        return None if self.passages is None else self.passages[i]


@dataclass(frozen=True)
class SelfPlayRound:
    """A scored round, ready for learning."""

    index: int
    """Number of the round in the run, from 0."""
    playout: Playout
    """The queries and answers."""
    rewards_NG: Tensor
    """R, the weighted sum of the task rewards; an unjudged answer has its group's mean."""
    judged_NG: Tensor
    """(N, G) bool: every reward with a weight could judge the answer. A group without a judged
    answer is skipped."""
    quality_NG: Tensor | None = None
    """Q, the weighted sum of the quality rewards; None for LSP-Zero."""
    challenger_N: Tensor | None = None
    """Weighted sum of the rewards that only the Challenger receives, or None."""
    components: Mapping[str, Tensor] = field(default_factory=dict)
    """The unweighted scores of each reward by name, (N, G) or (N,); NaN for "not judged"."""
    unfilled: Mapping[str, Tensor] = field(default_factory=dict)
    """R as ``task`` and Q as ``quality``, (N, G), with NaN where a reward could not judge."""
    binary: bool = False
    """Whether R is 0 or 1 only."""
    solve_rates_N: Tensor | None = None
    """(N,) in [0, 1]: V as a share of the range of R; None if R has no known range."""
    admitted_N: Tensor | None = None
    """(N,) bool: the query enters training; None: all do. The Solver learns nothing from the
    answers to others, and they pay the Challenger the lowest reward of the round."""
    planned: int | None = None
    """N as it was planned; None: as played. A gate may leave fewer queries to play."""
    query_info: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    """Findings of the rewards about the queries, as ``reward/entry`` (malformed, level, family,
    ...); N values each."""
    malformed_N: Tensor | None = None
    """(N,) bool: a reward with a weight found that the query has no right answer; None: unknown."""
    reward_metrics: Mapping[str, Tensor | float] = field(default_factory=dict)
    """Other metrics of the rewards, as ``reward/metric``."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall time by phase."""

    @property
    def values_N(self) -> Tensor:
        """(N,): the value of each query, its mean R (eq. 2)."""
        return query_values(self.rewards_NG)

    @property
    def surprisal_NG(self) -> Tensor:
        """(N, G): minus the log-prob of each answer under the policy that sampled it, in nats."""
        answers = self.playout.answers
        known = torch.where(answers.completion_mask, answers.logprobs, 0.0)
        return -known.sum(dim=1).view(self.rewards_NG.shape)

    @property
    def judged_N(self) -> Tensor:
        """(N,) bool: at least one answer of the group could be judged."""
        return self.judged_NG.any(dim=1)

    @property
    def trained_N(self) -> Tensor:
        """(N,) bool: ``admitted_N``, or true for all."""
        if self.admitted_N is None:
            return torch.ones(len(self.playout.query_texts), dtype=torch.bool)
        return self.admitted_N

    @property
    def trains_challenger(self) -> bool:
        """Whether the Challenger wrote queries in this round."""
        return self.playout.written is not None


class Reference(Protocol):
    """The frozen reference as a judge uses it: a chat model."""

    @property
    def device(self) -> torch.device:
        """The device of its weights."""

    @property
    def pass_tokens(self) -> int:
        """Most tokens in one pass without gradients; fewer after an out-of-memory error."""

    @property
    def context(self) -> int | None:
        """Longest row that it can take, in tokens; None if its config does not tell."""

    def encode(
        self,
        template: str,
        slots: Mapping[str, str],
        prefix: str = "",
        max_tokens: int | None = None,
    ) -> list[int]:
        """Tokens of a chat turn: a trusted template, its slots filled with plain text, and the
        prefix of the reply. Slots are shortened to ``max_tokens``."""

    def next_token_logprobs(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Log-probs of the token after each prompt at temperature 1. -> (n, V) fp32."""

    def respond(
        self, prompts: Sequence[Sequence[int]], draws: int, sampling: Sampling, seed: int
    ) -> Rollouts:
        """``draws`` completions of each prompt; those of one prompt are consecutive."""

    def parked(self) -> AbstractContextManager[None]:
        """Keep its weights in CPU memory in this context, so a reward model can use the GPU."""
