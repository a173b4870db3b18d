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
from lsp_lightning.reporting.texts import shown

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
    now: float
    """Mean over the last rounds."""
    limits: Sequence[tuple[Level, float]]
    """The limit of each symptom, and the level beyond it."""
    says: str
    """The symptom that the run has, its values and what it means, in one line, escaped; empty
    without one, and where the run also has one that explains it and is as bad."""


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
    present = {one.symptom.name: _beyond(one) for one in compared if one.is_beyond}
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
    present: Mapping[str, Level],
) -> Indicator:
    """The indicator of a metric, beside the limits of its symptoms.

    Args:
        name: the metric.
        symptoms: the symptoms that it shows, by name.
        values: its values by round.
        compared: the metric beside each limit; none if it is too early to tell.
        present: all symptoms that the run has, with their levels.
    """
    level: Level = "ok" if compared else "unknown"
    says = ""
    for one in compared:
        if one.is_beyond:
            level = worst((level, _beyond(one)))
            others = present.keys() & set(one.symptom.follows) - {one.symptom.name}
            causes = [present[name] for name in others]
            if worst((*causes, _beyond(one))) != worst(causes):
                says = _says(one)
    now = compared[0].now if compared else first_and_now(values)[1]
    limits = [(_beyond(one), one.limit) for one in compared]
    return Indicator(name, symptoms, level, now, limits, says)


def _says(compared: Comparison) -> str:
    symptom = compared.symptom
    name = shown(compared.metric + (f" / {symptom.per}" if symptom.per else ""), 80)
    before = symptom.show(compared.before / compared.unit_before)
    now = symptom.show(compared.now / compared.unit)
    return f"{symptom.name}: {symptom.meaning} ({name}: {before} \u2192 {now})"


def _beyond(compared: Comparison) -> Level:
    return "alarm" if compared.symptom.is_collapse else "watch"
