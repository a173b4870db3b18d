"""Scores of a benchmark before and after training, and the file that keeps them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from torch import Tensor

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

    def row(self) -> list[str]:
        """The cells of its row in the table."""
        metric = self.metric if self.higher_is_better else f"{self.metric} (lower is better)"
        difference = "-" if self.difference is None else str(self.difference)
        return [self.benchmark, metric, str(self.n), str(self.before), str(self.after), difference]


def benchmark_document(
    scores: Sequence[BenchmarkScore],
    rounds: int | None,
    settings: Mapping[str, Any],
    created: datetime | None = None,
) -> dict[str, Any]:
    """The scores as the JSON document of an evaluation.

    Args:
        scores: what :func:`run_benchmarks` returned.
        rounds: rounds that the policy was trained for; None if unknown.
        settings: what was evaluated and how, as plain values.
        created: when; None is now.
    """
    columns = ["benchmark", "metric", "n", "before", "after", "difference"]
    return {
        "kind": "benchmark",
        "title": "Benchmarks before and after training",
        "note": _NOTE,
        "created": (created or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "rounds": rounds,
        "table": {"columns": columns, "rows": [score.row() for score in scores]},
        "results": {
            "scores": [
                {
                    "benchmark": score.benchmark,
                    "metric": score.metric,
                    "n": score.n,
                    "before": score.before.plain(),
                    "after": score.after.plain(),
                    "difference": score.difference and score.difference.plain(),
                    "higher_is_better": score.higher_is_better,
                }
                for score in scores
            ]
        },
        "settings": dict(settings),
    }


def _are_shares(scores_T: Tensor) -> bool:
    """Whether all scores lie in [0, 1]."""
    return bool(((scores_T >= 0) & (scores_T <= 1)).all())
