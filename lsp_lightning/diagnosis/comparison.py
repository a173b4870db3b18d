"""A metric beside the limit of a symptom that it shows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from lsp_lightning.diagnosis.symptom import Symptom

#: A difference to the first rounds of fewer standard errors may be chance: rounds can be small.
_ERRORS = 3.0


@dataclass(frozen=True)
class Comparison:
    """A metric that shows a symptom, beside its limit. All in the metric's own unit."""

    symptom: Symptom
    """The symptom."""
    metric: str
    """The metric that shows it."""
    now: float
    """The mean in the newest window of rounds."""
    before: float
    """The mean in the first rounds."""
    limit: float
    """The run has the symptom while ``now`` is beyond it; NaN if there is nothing to compare."""
    unit: float = 1.0
    """The mean of :attr:`Symptom.per` in the window; ``now`` is printed divided by it."""
    unit_before: float = 1.0
    """The same for the first rounds."""

    @property
    def is_beyond(self) -> bool:
        """Whether the run has the symptom now."""
        sign = 1 if self.symptom.worse == "above" else -1
        return sign * self.now > sign * self.limit


def limit(symptom: Symptom, before: float, error: float) -> float:
    """The value beyond which a run has a symptom; NaN if there is nothing to compare.

    Args:
        symptom: the symptom.
        before: the mean in the first rounds.
        error: the standard error of the difference between the window's mean and ``before``.
    """
    sign = 1 if symptom.worse == "above" else -1
    limits = [symptom.bound]
    if symptom.change is not None or symptom.factor is not None:
        limits.append(before + sign * _ERRORS * error)
    if symptom.change is not None:
        limits.append(before + sign * symptom.change)
    if symptom.factor is not None:
        # a multiple of nothing says nothing
        limits.append(before * symptom.factor if before > 0 else math.nan)
    known = [sign * limit for limit in limits if limit is not None]
    enough = [] if symptom.extreme is None else [sign * symptom.extreme]
    if not any(map(math.isnan, known)):
        enough.append(max(known))
    return sign * min(enough, default=math.nan)


def standard_error(values: Sequence[float]) -> float:
    """The standard error of the mean of values, by their spread over the rounds."""
    n, center = len(values), fmean(values)
    return math.hypot(*(value - center for value in values)) / math.sqrt(max(1, n - 1) * n)
