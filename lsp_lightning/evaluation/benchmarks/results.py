"""Scores of a benchmark before and after training, and the file that keeps them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from torch import Tensor

from lsp_lightning.functional.evaluation import mean_and_error

#: Half the width of a 95 % interval, in standard errors.
_Z = 1.959964
_NOTE = (
    "Before is the reference, after the policy; in brackets 95 % intervals over tasks. Both "
    "answered the same tasks, so the difference is paired: training changed the score if its "
    "interval excludes 0."
)


@dataclass(frozen=True)
class Estimate:
    """A mean over tasks."""

    value: float
    """The mean."""
    error: float
    """Its standard error; NaN if unknown."""

    @classmethod
    def of(cls, scores_T: Tensor) -> Self:
        """The mean of some tasks' scores, (tasks,), and its standard error."""
        mean, error = mean_and_error(scores_T)
        return cls(float(mean), float(error))

    @property
    def interval(self) -> tuple[float, float]:
        """The normal 95 % interval; NaN if the standard error is unknown."""
        return self.value - _Z * self.error, self.value + _Z * self.error

    def __str__(self) -> str:
        if math.isnan(self.error):
            return f"{self.value:.3f}"
        low, high = self.interval
        return f"{self.value:.3f} [{low:.3f}, {high:.3f}]"

    def plain(self) -> dict[str, float | None]:
        """For JSON, which has no NaN."""
        low, high = self.interval
        found = {"value": self.value, "error": self.error, "low": low, "high": high}
        return {name: x if math.isfinite(x) else None for name, x in found.items()}


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
            Estimate.of(before_T),
            Estimate.of(after_T),
            Estimate.of(after_T - before_T),
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
