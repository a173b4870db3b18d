"""A metric over the rounds: its values, a light smoothing, and fewer points for a page."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

#: Rounds that a smoothed value stands for: this share of the run.
_SMOOTHED = 1 / 25
#: Means of a run's beginning and end are over at most this many rounds, and this share of it.
_WINDOW, _SHARE = 10, 1 / 5


def series(metrics: Iterable[Mapping[str, float]], name: str) -> dict[int, float]:
    """The finite values of a metric by round, counted from 0."""
    return {
        int(row["step"]): row[name]
        for row in metrics
        if math.isfinite(row.get("step", math.nan)) and math.isfinite(row.get(name, math.nan))
    }


def smoothed(values: Sequence[float | None]) -> list[float | None]:
    """The mean of each value and its neighbours, about 4 % of all; None has no part in it.

    Fewer than 50 values are not smoothed.

    >>> smoothed([1.0, None, 2.0])
    [1.0, None, 2.0]
    """
    reach = int(len(values) * _SMOOTHED / 2)
    sums = [0.0, *accumulate(0.0 if value is None else value for value in values)]
    counts = [0, *accumulate(value is not None for value in values)]
    found: list[float | None] = []
    for i, value in enumerate(values):
        low, high = max(0, i - reach), min(len(values), i + reach + 1)
        known = counts[high] - counts[low]
        mean = None if value is None else (sums[high] - sums[low]) / known
        found.append(value if reach == 0 else mean)
    return found


def thinned(count: int, most: int) -> list[int]:
    """At most ``most`` positions of ``count``, evenly spaced, with the first and the last.

    >>> thinned(10, 4)
    [0, 3, 6, 9]
    """
    if count <= most or most < 2:
        return list(range(count))
    return [i * (count - 1) // (most - 1) for i in range(most)]


def first_and_now(values: Mapping[int, float]) -> tuple[float, float]:
    """The means over the first and over the last rounds: a fifth of the run, at most ten rounds.

    NaN without values.
    """
    ordered = [values[step] for step in sorted(values)]
    size = min(_WINDOW, max(1, int(len(ordered) * _SHARE)))
    return _mean(ordered[:size]), _mean(ordered[-size:])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
