"""A reward that calls a function of a query and its answers."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lsp_lightning.errors import ConfigError
from lsp_lightning.rewards.base import AnswerEnters, Reward, RewardError, each, require_answers
from lsp_lightning.types import Playout

GroupFunction = Callable[[str, Sequence[str], object], Sequence[float | None]]


class FunctionReward(Reward):
    """Uses a function as a reward: ``function: my_package.my_score`` in a config.

    The function is called once for each query, as ``my_score(query, answers, solution)``. It
    returns a number for each answer, or None for an answer that it cannot judge. ``solution`` is
    the known answer or tests from the file of queries, or None.

    Args:
        function: dotted path in a config, the function itself in Python.
        weight: factor in R or Q; 0 only logs the scores.
        name: the name in metrics and transcripts; by default the function's name.
        enters: task adds the scores to R, quality adds them to Q.
        span: the lowest and the highest number that the function can return, if it has limits.
        standardize: shift and scale the scores to mean 0 and variance 1 over all rounds so far.
        binary: whether the function returns only 0 and 1. Held-out scores are then the share of
            tasks solved.
        comparable: whether numbers of different calls can be compared: of two answers to one query,
            the one with the higher number is better. Held-out scores are then win rates against
            the reference. Leave it False if the function compares the answers of a call with each
            other (a rank, say). Then held-out scores are the mean of the numbers.
    """

    def __init__(
        self,
        function: GroupFunction,
        weight: float = 1.0,
        name: str | None = None,
        enters: AnswerEnters = "task",
        span: tuple[float, float] | None = None,
        standardize: bool = False,
        binary: bool = False,
        comparable: bool = False,
    ) -> None:
        label: str = name or getattr(function, "__name__", "") or type(function).__name__
        super().__init__(weight, label, require_answers(enters, label), standardize)
        try:
            inspect.signature(function).bind("query", ("answer",), None)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                "model.rewards.FunctionReward.function",
                f"{label!r} cannot be called with (query, answers, solution): {error}",
                "write a function with these three parameters",
            ) from error
        if any(map(inspect.iscoroutinefunction, (function, type(function).__call__))):
            key, problem = "model.rewards.FunctionReward.function", f"{label!r} is async"
            raise ConfigError(key, problem, "write it without async, or call asyncio.run in it")
        if span is not None and not span[0] < span[1]:
            key = "model.rewards.FunctionReward.span"
            problem = f"is {span}, but the first number must be smaller"
            raise ConfigError(key, problem, "set [lowest, highest]")
        self.function = function
        self.span = span
        self.binary = binary
        self.comparable = comparable

    def score(self, playout: Playout) -> Tensor:
        """The function's numbers, (N, G); NaN for None, and for a query at which it raised.

        Raises:
            RewardError: for all queries, the function raised or returned no numbers.
        """
        groups = playout.spoken_groups()

        def row(i: int) -> list[float]:
            found = self.function(playout.query_texts[i], groups[i], playout.solution(i))
            return _numbers(found, len(groups[i]), _place(self.function))

        def unknown(i: int) -> list[float]:
            return [math.nan] * len(groups[i])

        return torch.tensor(each(range(len(groups)), row, unknown, playout.query_texts.__getitem__))


def _numbers(found: object, answers: int, place: str) -> list[float]:
    """What the function at ``place`` returned, as numbers, one for each answer.

    Raises:
        RewardError: it returned no list of numbers, or another count than of answers. It has no
            cause: the line says all, and a traceback would show only this file.
    """
    remedy = f"return a list of {answers} numbers, one for each answer"
    if not isinstance(found, Iterable) or isinstance(found, Mapping | str | bytes):
        raise RewardError(f"{place} returned {_kind(found)}; {remedy}")
    scores: list[Any] = list(found)
    if len(scores) != answers:
        raise RewardError(f"{len(scores)} scores for {answers} answers, at {place}; {remedy}")
    numbers = []
    for score in scores:
        try:
            numbers.append(math.nan if score is None else float(score))
        except (TypeError, ValueError, RuntimeError):
            message = f"{place} returned a list with {_kind(score)}; {remedy}"
            raise RewardError(message) from None
    return numbers


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _place(function: object) -> str:
    """The dotted path of a function, or of the class of a callable object."""
    named: Any = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"
