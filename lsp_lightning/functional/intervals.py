"""Intervals over a few independent values, such as the scores of several seeds."""

import math

from torch import Tensor

#: Halvings of the search: enough for double precision.
_HALVINGS = 60


def t_interval(values: Tensor, level: float = 0.95) -> tuple[float, float]:
    """The mean of independent values and half the width of its t-interval.

    Half the width is ``t * std / sqrt(n)``, with the standard deviation that divides by n - 1 and
    the quantile t of Student's distribution with n - 1 degrees of freedom (Student, 1908). It is
    exact for normally distributed values, also for very few of them.

    Args:
        values: one number for each seed, (n,); NaN values are left out.
        level: how often such intervals contain the true mean.

    Returns:
        The mean, NaN without a value, and half the width, NaN for fewer than two values.
    """
    known = values[~values.isnan()].double()
    n = known.numel()
    if n < 2:
        return float(known.mean()), math.nan
    half = t_quantile((1 + level) / 2, n - 1) * float(known.std()) / math.sqrt(n)
    return float(known.mean()), half


def t_quantile(probability: float, degrees: int) -> float:
    """The quantile of Student's t distribution with a whole number of degrees of freedom.

    Found by bisection of the closed form of its distribution function (Abramowitz and Stegun,
    26.7.3 and 26.7.4).

    Args:
        probability: from 0.5 to below 1.
        degrees: degrees of freedom, 1 or more.

    Raises:
        ValueError: an argument is outside of its range.
    """
    if not (0.5 <= probability < 1 and degrees >= 1):
        raise ValueError(f"no quantile of {probability} with {degrees} degrees of freedom")
    low, high = 0.0, math.pi / 2
    for _ in range(_HALVINGS):
        angle = (low + high) / 2
        if (1 + _within(angle, degrees)) / 2 < probability:
            low = angle
        else:
            high = angle
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def _within(angle: float, degrees: int) -> float:
    """P(|T| < t) for ``t = sqrt(degrees) * tan(angle)``, by Abramowitz and Stegun 26.7.3, .4."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    total, term = 0.0, cosine if odd else 1.0
    for k in range(odd, degrees - 1, 2):
        total += term
        term *= cosine**2 * (k + 1) / (k + 2)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
