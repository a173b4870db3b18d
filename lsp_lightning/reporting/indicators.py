"""Which metrics show a collapse, and whether a run has a symptom now.

The symptoms and their limits are those of the watch that warns while a run plays:
:data:`lsp_lightning.diagnosis.SYMPTOMS`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lsp_lightning.diagnosis import SYMPTOMS, Comparison, Windows
from lsp_lightning.reporting.series import first_and_now, series
from lsp_lightning.reporting.texts import figure, shown

Level = Literal["ok", "watch", "alarm", "unknown"]
#: From harmless to bad; "unknown" is too early to tell.
_ORDER: tuple[Level, ...] = ("unknown", "ok", "watch", "alarm")


@dataclass(frozen=True)
class Indicator:
    """A metric that shows a collapse, as a run has it now."""

    metric: str
    symptoms: str
    """The symptoms that it shows, by name."""
    level: Level
    first: float
    """Mean over the first rounds."""
    now: float
    """Mean over the last rounds."""
    limits: Sequence[tuple[Level, float]]
    """The limit of each symptom, and the level beyond it."""
    problem: str
    """The symptom that the run has, and what it means; empty without one, and where the run also
    has a symptom that explains it."""

    @property
    def says(self) -> str:
        """The metric now and at the beginning, and the problem, in one line; escaped."""
        name = shown(self.metric, 80)
        return f"{self.problem} ({name} {figure(self.first)} \u2192 {figure(self.now)})"


def worst(levels: Iterable[Level]) -> Level:
    """The worst of some levels; "unknown" without any."""
    return max(levels, key=_ORDER.index, default="unknown")


def indicators(metrics: Sequence[Mapping[str, float]]) -> list[Indicator]:
    """The indicators that a run's metrics have, in the order of the symptoms."""
    windows = Windows()
    for row in metrics:
        finite = {name: value for name, value in row.items() if math.isfinite(value)}
        if "step" in finite:
            windows.add(int(finite["step"]), finite)
    compared = windows.comparisons()
    present = {one.symptom.name for one in compared if one.is_beyond}
    names = sorted({name for row in metrics for name in row})
    shown_by: dict[str, list[str]] = {}
    for symptom in SYMPTOMS:
        if symptom.errors is None:  # held-out scores have a verdict of their own
            for name in filter(symptom.matches, names):
                shown_by.setdefault(name, []).append(symptom.name)
    return [
        _indicator(
            name,
            ", ".join(symptoms),
            series(metrics, name),
            [one for one in compared if one.metric == name],
            present,
        )
        for name, symptoms in shown_by.items()
    ]


def _indicator(
    name: str,
    symptoms: str,
    values: Mapping[int, float],
    compared: Sequence[Comparison],
    present: set[str],
) -> Indicator:
    """The indicator of a metric, beside the limits of its symptoms.

    Args:
        name: the metric.
        symptoms: the symptoms that it shows, by name.
        values: its values by round.
        compared: the metric beside each limit; none if it is too early to tell.
        present: all symptoms that the run has.
    """
    first, now = first_and_now(values)
    if compared:
        first, now = compared[0].before, compared[0].now
    level: Level = "ok" if compared else "unknown"
    problem = ""
    for one in compared:
        if one.is_beyond:
            level = worst((level, _beyond(one)))
            if not present & set(one.symptom.follows):
                problem = f"{one.symptom.name}: {one.symptom.meaning}"
    limits = [(_beyond(one), one.limit) for one in compared]
    return Indicator(name, symptoms, level, first, now, limits, problem)


def _beyond(compared: Comparison) -> Level:
    return "alarm" if compared.symptom.is_collapse else "watch"
