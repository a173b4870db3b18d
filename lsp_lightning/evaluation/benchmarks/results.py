"""Scores of a benchmark before and after training, and the file that keeps them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from lsp_lightning.evaluation.result import Evaluation
from lsp_lightning.functional.evaluation import (
    Interval,
    difference_interval,
    mean_and_error,
    proportion_interval,
)

#: Half the width of a 95 % interval, in standard errors.
_Z = 1.959964
_NOTE = (
    "Before is the reference, after the policy; in brackets 95 % intervals over tasks. Both "
    "answered the same tasks, so the difference is paired: training changed the score if its "
    "interval excludes 0."
)


@dataclass(frozen=True)
class Estimate:
    """A figure with its standard error and 95 % interval, NaN where they are unknown."""

    value: float
    """The figure."""
    error: float
    """Its standard error."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""

    @classmethod
    def normal(cls, value: float, error: float) -> Self:
        """A figure with a known standard error, and the normal interval."""
        return cls(value, error, value - _Z * error, value + _Z * error)

    @classmethod
    def mean(cls, scores_T: Tensor) -> Self:
        """The mean of some tasks' scores, (tasks,)."""
        return cls._of(scores_T, proportion_interval if _are_shares(scores_T) else None)

    @classmethod
    def change(cls, before_T: Tensor, after_T: Tensor) -> Self:
        """The mean of paired differences, after minus before, (tasks,) each."""
        shares = _are_shares(before_T) and _are_shares(after_T)
        return cls._of(after_T - before_T, difference_interval if shares else None)

    @classmethod
    def _of(cls, values_T: Tensor, interval: Callable[[Tensor], Interval] | None) -> Self:
        mean, error = (float(x) for x in mean_and_error(values_T))
        return (
            cls.normal(mean, error)
            if interval is None
            else cls(mean, error, *interval(values_T)[1:])
        )

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def plain(self) -> dict[str, float | None]:
        """For JSON, which has no NaN."""
        return {name: x if math.isfinite(x) else None for name, x in vars(self).items()}

    @classmethod
    def of_plain(cls, found: Mapping[str, float | None]) -> Self:
        """The figure that :meth:`plain` wrote."""
        values = (found[name] for name in ("value", "error", "low", "high"))
        return cls(*(math.nan if x is None else float(x) for x in values))


@dataclass(frozen=True)
class BenchmarkScore:
    """One metric of one benchmark, before and after training."""

    benchmark: str
    """Name of the benchmark."""
    metric: str
    """Name of the metric."""
    n: int
    """Number of tasks."""
    before: Estimate
    """The reference's score."""
    after: Estimate
    """The policy's score."""
    difference: Estimate | None = None
    """After minus before, paired by task; None if tasks have no scores of their own."""
    higher_is_better: bool = True
    """Whether a higher score is a better one."""

    @classmethod
    def paired(
        cls,
        benchmark: str,
        metric: str,
        before_T: Tensor,
        after_T: Tensor,
        higher_is_better: bool = True,
    ) -> Self:
        """The score from one number for each task, (tasks,) each.

        A task with NaN on either side is left out on both.
        """
        known = ~(before_T.isnan() | after_T.isnan())
        before_T, after_T = before_T[known].double(), after_T[known].double()
        return cls(
            benchmark,
            metric,
            len(before_T),
            Estimate.mean(before_T),
            Estimate.mean(after_T),
            Estimate.change(before_T, after_T),
            higher_is_better,
        )

    def plain(self) -> dict[str, Any]:
        """For JSON, see :meth:`of_plain`."""
        return {
            "benchmark": self.benchmark,
            "metric": self.metric,
            "n": self.n,
            "before": self.before.plain(),
            "after": self.after.plain(),
            "difference": self.difference and self.difference.plain(),
            "higher_is_better": self.higher_is_better,
        }

    @classmethod
    def of_plain(cls, found: Mapping[str, Any]) -> Self:
        """The score that :meth:`plain` wrote.

        Raises:
            KeyError or TypeError: it is something else.
        """
        difference = found["difference"]
        return cls(
            str(found["benchmark"]),
            str(found["metric"]),
            int(found["n"]),
            Estimate.of_plain(found["before"]),
            Estimate.of_plain(found["after"]),
            None if difference is None else Estimate.of_plain(difference),
            bool(found["higher_is_better"]),
        )

    def row(self) -> list[str]:
        """The cells of its row in the table."""
        metric = self.metric if self.higher_is_better else f"{self.metric} (lower is better)"
        difference = "-" if self.difference is None else str(self.difference)
        return [self.benchmark, metric, str(self.n), str(self.before), str(self.after), difference]


def benchmark_evaluation(scores: Sequence[BenchmarkScore]) -> Evaluation:
    """The scores as the result of an evaluation."""
    return Evaluation(
        kind="benchmark",
        title="Benchmarks before and after training",
        note=_NOTE,
        columns=("benchmark", "metric", "n", "before", "after", "difference"),
        rows=[score.row() for score in scores],
        results={"scores": [score.plain() for score in scores]},
    )


def _are_shares(scores_T: Tensor) -> bool:
    """Whether all scores lie in [0, 1]."""
    return bool(((scores_T >= 0) & (scores_T <= 1)).all())
