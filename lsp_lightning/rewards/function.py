"""A reward from any function of a query and its answers."""

import inspect
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lsp_lightning.errors import ConfigError
from lsp_lightning.rewards.base import AnswerEnters, Reward, RewardError, each, require_answers
from lsp_lightning.types import Playout

GroupFunction = Callable[[str, Sequence[str], object], Sequence[float | None]]


class FunctionReward(Reward):
    """Your own function as a reward: ``function: my_package.my_score`` in a config.

    It is called once for each query, ``my_score(query, answers, solution)``, and returns a number
    for each answer, or None for one that it cannot judge.

    Args:
        function: dotted path in a config, the function itself in Python.
        weight: factor in the sum of its kind.
        name: what it is called in metrics and transcripts; by default the function's name.
        enters: where it enters, see :class:`lsp_lightning.rewards.base.Reward`.
        span: the lowest and the highest score it can give, where it has such.
        standardize: see :class:`lsp_lightning.rewards.base.Reward`.
    """

    def __init__(
        self,
        function: GroupFunction,
        weight: float = 1.0,
        name: str | None = None,
        enters: AnswerEnters = "task",
        span: tuple[float, float] | None = None,
        standardize: bool = False,
    ) -> None:
        label: str = name or getattr(function, "__name__", "") or type(function).__name__
        super().__init__(weight, label, require_answers(enters, label), standardize)
        try:
            inspect.signature(function).bind("query", ("answer",), None)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                "model.rewards.FunctionReward.function",
                f"{label!r} cannot be called with (query, answers, solution): {error}",
                "give a function of these three",
            ) from error
        if span is not None and not span[0] < span[1]:
            raise ConfigError("model.rewards.FunctionReward.span", f"is {span}", "give low, high")
        self.function = function
        self.span = span

    def score(self, playout: Playout) -> Tensor:
        """The function's numbers, (N, G); NaN for a query at which it raised.

        Raises:
            RewardError: it raised at all of them.
        """
        groups = playout.spoken_groups()

        def row(i: int) -> list[float]:
            scores = list(self.function(playout.query_texts[i], groups[i], playout.solution(i)))
            if len(scores) != len(groups[i]):
                raise RewardError(f"{len(scores)} scores for {len(groups[i])} answers")
            return [math.nan if score is None else float(score) for score in scores]

        def unknown(i: int) -> list[float]:
            return [math.nan] * len(groups[i])

        return torch.tensor(each(range(len(groups)), row, unknown, playout.query_texts.__getitem__))
