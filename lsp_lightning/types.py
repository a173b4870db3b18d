"""The nouns of the game, written once.

Axes, and the suffix of a tensor's name is its shape:

====  =======================================================
N     queries of a round
G     answers to each query
R     completions of a round: N queries (if played) + N*G answers
n     completions of one batch of rollouts
B, S  rows and places of a packed micro-batch
C, T  completions of a micro-batch and their tokens
P     prompt tokens
V     vocabulary
====  =======================================================

Rows are query-major: answer ``j`` of query ``i`` is row ``i * G + j``. "Prompt" and "completion"
are tokens; "query" and "answer" are the game's text.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from lsp_lightning.text.prompts import without_thinking


class Role(StrEnum):
    """The two players, one set of weights."""

    CHALLENGER = "challenger"
    SOLVER = "solver"


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn.

    Args:
        temperature: softmax temperature; 0 is greedy (for evaluation only).
        max_new_tokens: a completion without a stop token after so many tokens is cut off.
        top_p: nucleus sampling; below 1 it biases training (the log-probs are the untruncated
            ones).
        top_k: keep the k likeliest tokens; 0 keeps all.
    """

    temperature: float = 1.0
    max_new_tokens: int = 512
    top_p: float = 1.0
    top_k: int = 0

    @property
    def truncates(self) -> bool:
        """Whether top-p or top-k change what is sampled from."""
        return self.top_p < 1 or self.top_k > 0


@dataclass(frozen=True)
class Completions:
    """What an engine returns: tokens only. Rows follow the prompts, each prompt's draws
    together."""

    ids: Tensor
    """(n, T) int64, padded on the right."""
    mask: Tensor
    """(n, T) bool, true up to and with the stop token."""
    logprobs: Tensor
    """(n, T) fp32, of the sampled tokens at the sampling temperature; 0 on padding."""
    truncated: Tensor
    """(n,) bool, true where the length limit came before a stop token."""


@dataclass(frozen=True)
class Rollouts:
    """Completions with the prompts they continue and the text they spell."""

    prompt_ids: Tensor
    """(n, P) int64, padded on the left."""
    prompt_mask: Tensor
    """(n, P) bool."""
    completion_ids: Tensor
    """(n, T) int64, padded on the right."""
    completion_mask: Tensor
    """(n, T) bool, true up to and with the stop token."""
    logprobs: Tensor
    """(n, T) fp32, as sampled."""
    truncated: Tensor
    """(n,) bool."""
    texts: tuple[str, ...]
    """n texts without the stop token."""
    temperature: float
    """The temperature they were sampled at: log-probs are compared at this one."""

    def __len__(self) -> int:
        return self.completion_ids.shape[0]


@dataclass(frozen=True)
class Playout:
    """A played round before anybody judged it: all that a reward sees."""

    query_texts: tuple[str, ...]
    """N queries."""
    answers: Rollouts
    """N*G answers, query-major."""
    group_size: int
    """G."""
    queries: Rollouts | None = None
    """How the Challenger wrote the queries; None when they come from a file."""
    solutions: tuple[object, ...] | None = None
    """What is known of each query beforehand (an answer, tests), or None."""
    valid_N: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.bool))
    """(N,) bool: the query keeps the Challenger's form rules."""
    seed: int = 0
    """What rewards that draw (a judge that writes) draw from."""

    def __post_init__(self) -> None:
        n = len(self.query_texts)
        if len(self.answers) != n * self.group_size:
            raise ValueError(f"{n} queries x {self.group_size} need {n * self.group_size} answers")
        if self.valid_N.numel() == 0:
            object.__setattr__(self, "valid_N", torch.ones(n, dtype=torch.bool))

    def answer_groups(self) -> list[tuple[str, ...]]:
        """The answers' texts, G for each of the N queries."""
        g = self.group_size
        return [self.answers.texts[i * g : (i + 1) * g] for i in range(len(self.query_texts))]

    def spoken_groups(self) -> list[tuple[str, ...]]:
        """The answers as their reader sees them, without a model's thinking; G for each query."""
        return [tuple(map(without_thinking, group)) for group in self.answer_groups()]

    def solution(self, i: int) -> object | None:
        """What is known of query ``i``, or None."""
        return None if self.solutions is None else self.solutions[i]


@dataclass(frozen=True)
class SelfPlayRound:
    """A scored round, ready to be learned from."""

    index: int
    """Which round of the run, from 0."""
    playout: Playout
    """What was played."""
    rewards_NG: Tensor
    """Weighted sum of the task rewards, R."""
    judged_NG: Tensor
    """(N, G) bool: every reward could judge the answer. A group without one teaches nothing."""
    quality_NG: Tensor | None = None
    """Weighted sum of the quality rewards, Q; None for LSP-Zero."""
    challenger_N: Tensor | None = None
    """Weighted sum of rewards for the Challenger alone, or None."""
    components: Mapping[str, Tensor] = field(default_factory=dict)
    """Every reward by name, unweighted, (N, G) or (N,), NaN where it could not judge."""
    query_info: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    """What verifiers know of each query, by name (malformed, level, family ...), N values each."""
    reward_metrics: Mapping[str, Tensor | float] = field(default_factory=dict)
    """What else the rewards log, as ``reward/metric``."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall time by phase."""

    @property
    def judged_N(self) -> Tensor:
        """(N,) bool: at least one answer of the group could be judged."""
        return self.judged_NG.any(dim=1)

    @property
    def trains_challenger(self) -> bool:
        """Whether the queries are the policy's own."""
        return self.playout.queries is not None


@dataclass(frozen=True)
class TrainBatch:
    """One forward pass over some completions of a round.

    How completions lie in rows is this type's secret: the model sees rows of ``input_ids``;
    everybody else sees completions (C, T), found again through ``sources``. Rows that begin alike
    may share what they begin with: then all tokens lie in one row, as a tree.
    """

    input_ids: Tensor
    """(B, S) int64, padded on the right; (1, S) as a tree."""
    position_ids: Tensor | None
    """(1, S) int64 of a tree; None where each row counts its places."""
    attention: Any
    """What the places of a tree attend to; None where rows are plain ones."""
    targets: Tensor
    """(C, T) int64, the completions' tokens."""
    mask: Tensor
    """(C, T) bool."""
    sources: Tensor
    """(C, T) int64, the place (flat, in B*S) whose hidden state predicts each target."""
    temperature: Tensor
    """(C,) fp32."""
    rows: Tensor
    """(C,) int64, which completion of the round it is: N queries (if played), then N*G answers."""

    def to(self, device: torch.device | str) -> Self:
        """The same batch on another device."""
        moved: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in moved.items():
            moved[name] = None if value is None else value.to(device)
        return type(self)(**moved)


class Reference(Protocol):
    """The frozen reference as a judge sees it: a chat model that says what comes next."""

    @property
    def device(self) -> torch.device:
        """Where it is."""

    def encode(self, template: str, slots: Mapping[str, str], prefix: str = "") -> list[int]:
        """A chat turn whose trusted template has its slots filled with plain text, plus a
        prefix."""

    def next_token_logprobs(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Log-probs of the token after each prompt at temperature 1. -> (n, V) fp32."""

    def respond(
        self, prompts: Sequence[Sequence[int]], draws: int, sampling: Sampling, seed: int
    ) -> Rollouts:
        """``draws`` completions of each prompt, prompt by prompt."""

    def parked(self) -> AbstractContextManager[None]:
        """Its weights wait in CPU memory meanwhile, so that a judge of another kind has the GPU."""
