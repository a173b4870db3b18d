"""A query with its answers as a verifier sees it, and the verdict that it returns."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

#: What a verifier knows about a query: numbers, kinds, or several kinds of one sort.
Info = Mapping[str, str | float | Sequence[str]]
#: No findings.
NO_INFO: Info = {}


@dataclass(frozen=True)
class Group:
    """A query with its answers, as a verifier sees them."""

    query: str
    """The query."""
    answers: tuple[str, ...]
    """G answers, without a model's thinking."""
    solution: object | None = None
    """The known answer or tests of the query, or None."""
    truncated: tuple[bool, ...] = ()
    """For each answer, whether it was cut off at the length limit; () if none was."""
    passage: str | None = None
    """The passage that the query is about, or None."""

    @property
    def cut(self) -> tuple[bool, ...]:
        """``truncated`` with an entry for every answer."""
        return self.truncated or (False,) * len(self.answers)


@dataclass(frozen=True)
class Verdict:
    """What a verifier returns for a group. Use one of the four constructors below."""

    scores: tuple[float, ...]
    """G scores in [0, 1]; NaN for an answer that could not be judged."""
    info: Info
    """Findings about the query, to be logged."""
    kind: Literal["scored", "malformed", "unjudged", "undecided"]
    """Which constructor made it."""

    @classmethod
    def of(cls, scores: Sequence[float], info: Info = NO_INFO) -> Self:
        """A score in [0, 1] for each answer; NaN if the verifier failed at this one."""
        return cls(tuple(scores), info, "scored")

    @classmethod
    def malformed(cls, count: int) -> Self:
        """The query has no right answer, so all ``count`` answers get 0."""
        return cls((0.0,) * count, NO_INFO, "malformed")

    @classmethod
    def unjudged(cls, count: int, info: Info = NO_INFO) -> Self:
        """The verifier failed (a timeout, a crash), so all ``count`` scores are NaN."""
        return cls((math.nan,) * count, info, "unjudged")

    @classmethod
    def undecided(cls, count: int, info: Info = NO_INFO) -> Self:
        """The verifier worked and found no result (no majority, say): NaN for all ``count``.

        A round without any judged group is not an error if at least one group is undecided.
        """
        return cls((math.nan,) * count, info, "undecided")
