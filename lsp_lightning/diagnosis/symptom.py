"""A symptom of a collapse, as data."""

import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Symptom:
    """A symptom, and the metric that shows it.

    A run has it if the mean of the metric over ``rounds`` rounds fulfils all conditions that are
    given: ``bound``, ``change``, ``factor``, ``errors``. A difference to the first rounds must also
    be larger than chance explains, by the spread of the metric from round to round. Beyond
    ``extreme`` a run has it whatever its first rounds were.
    """

    name: str
    """Its name, in warnings.jsonl and in the documentation."""
    metrics: tuple[str, ...]
    """The metrics that show it; NAME stands for any reward. One of them is enough."""
    fact: str
    """What is seen; {now} is the mean."""
    meaning: str
    """What it means for the run."""
    helps: str
    """What to change, with its config key."""
    worse: Literal["above", "below"] = "above"
    """On which side of its limits the metric is bad."""
    bound: float | None = None
    """The mean is beyond this value."""
    change: float | None = None
    """The mean differs from that of the run's first rounds by more than this."""
    factor: float | None = None
    """The mean is beyond this multiple of that of the run's first rounds."""
    extreme: float | None = None
    """The mean is beyond this value: enough alone."""
    errors: float | None = None
    """The score is beyond that before training by so many standard errors of the difference."""
    per: str | None = None
    """Another metric; the mean is divided by its mean."""
    rounds: int = 10
    """Rounds in the window."""
    style: Literal["share", "number"] = "share"
    """How its values are printed: in percent, or with three digits."""
    is_collapse: bool = False
    """Whether a run that has it has collapsed; otherwise it needs a closer look."""
    of_challenger: bool = False
    """Whether it is about queries that the Challenger writes; others cannot get worse."""
    follows: tuple[str, ...] = ()
    """Symptoms, and causes of StallWatch, that explain it: it is not named while one of them is."""

    def matches(self, metric: str) -> bool:
        """Whether a logged metric is one of its metrics."""
        return any(
            re.fullmatch(re.escape(pattern).replace("NAME", ".+"), metric)
            for pattern in self.metrics
        )

    @property
    def rule(self) -> str:
        """When a run has it, in words."""
        parts = []
        if self.bound is not None:
            parts.append(f"{self.worse} {self.show(self.bound)}")
        if self.change is not None:
            by = f"{100 * self.change:.0f} points" if self.style == "share" else f"{self.change:g}"
            parts.append(f"{by} {self.worse} the first rounds")
        if self.factor is not None:
            parts.append(f"{self.worse} {self.factor:g} times the first rounds")
        if self.errors is not None:
            parts.append(f"{self.errors:g} standard errors {self.worse} the score before training")
        if self.extreme is not None:
            parts = [f"{' and '.join(parts)}; or {self.worse} {self.show(self.extreme)}"]
        window = f"over {self.rounds} rounds" if self.rounds > 1 else "at a scoring"
        return f"{' and '.join(parts)}, {window}"

    def show(self, value: float) -> str:
        """A value of the metric as it is printed."""
        return f"{100 * value:.0f} %" if self.style == "share" else f"{value:.3g}"
