"""Which charts a page has, and the points of their lines; the browser draws them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lsp_lightning.reporting.indicators import Indicator, indicators, worst
from lsp_lightning.reporting.reading import Run
from lsp_lightning.reporting.series import series, smoothed, thinned
from lsp_lightning.reporting.texts import figure, short, shown

#: Most points of a line; fewer if many runs share the page.
_MOST_POINTS, _POINTS_OF_ALL = 600, 3000
#: Most charts of metrics that no other section shows: a file could name any number.
_MOST_OTHERS = 150
SOLVER, CHALLENGER = "Solver", "Challenger"
_LENGTHS = {SOLVER: "answers/tokens", CHALLENGER: "queries/tokens"}
#: The curves that open a report: title, unit, and the metric of each kind of line.
_CURVES: tuple[tuple[str, str, Mapping[str, str]], ...] = (
    ("Reward R", "mean over the answers", {SOLVER: "reward"}),
    ("Value V", "mean R of a query's answers; the Challenger's objective", {CHALLENGER: "value"}),
    ("Quality Q", "mean over the answers", {SOLVER: "quality"}),
    (
        "KL to the reference",
        "nats a completion",
        {SOLVER: "kl/solver", CHALLENGER: "kl/challenger"},
    ),
    ("Entropy", "nats a token", {SOLVER: "entropy/solver", CHALLENGER: "entropy/challenger"}),
    ("Length", "tokens of answers and of queries", _LENGTHS),
    (
        "Spread of the advantages",
        "0: nothing is learned",
        {SOLVER: "advantage_std/solver", CHALLENGER: "advantage_std/challenger"},
    ),
)
_HELD_OUT = {"sampled": "heldout/sampled", "greedy": "heldout/greedy"}


@dataclass(frozen=True)
class Chart:
    """A chart of one or two metrics over the rounds, for all runs."""

    title: str
    """Escaped, as all texts."""
    unit: str = ""
    lines: list[dict[str, Any]] = field(default_factory=list)
    """Each with ``run``, ``kind`` and points: ``y`` and ``line`` at the run's rounds, or with its
    own ``x``, and with ``error`` (standard errors)."""
    limits: list[dict[str, Any]] = field(default_factory=list)
    """Each with ``run`` (None: of all runs), ``level`` and ``y``."""
    states: list[dict[str, Any]] = field(default_factory=list)
    """For an indicator: ``level`` and ``text`` of each run that has it."""

    @property
    def kinds(self) -> list[str]:
        """The kinds of its lines, if it has several."""
        kinds = list(dict.fromkeys(line["kind"] for line in self.lines))
        return kinds if len(kinds) > 1 else []


class Charts:
    """The charts of some runs.

    Args:
        runs: the runs, in the order of their colours.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = runs
        most = max(60, min(_MOST_POINTS, _POINTS_OF_ALL // max(1, len(runs))))
        #: All rounds of each run, and the positions of those that are drawn.
        self._steps = [_steps(run) for run in runs]
        self._drawn = [thinned(len(steps), most) for steps in self._steps]
        self._found = [indicators(run.metrics) for run in runs]
        self.rounds = [
            [steps[i] for i in drawn] for steps, drawn in zip(self._steps, self._drawn, strict=True)
        ]
        """The rounds of each run whose points are drawn."""
        self.curves = self._curves()
        """Rewards and both players."""
        self.indicators = self._indicators()
        """One for each metric that shows a collapse, the worst first."""
        self.others = self._others()
        """All metrics that no other chart shows."""

    @property
    def thinned(self) -> str:
        """How many rounds are drawn, in one line; empty if all are."""
        parts = [
            f"{len(drawn):,} of {len(steps):,} rounds of {run.name}"
            for run, steps, drawn in zip(self._runs, self._steps, self._drawn, strict=True)
            if len(drawn) < len(steps)
        ]
        return f"{', '.join(parts)} are drawn; lines are smoothed over all." if parts else ""

    def _names(self) -> list[str]:
        return sorted({name for run in self._runs for row in run.metrics for name in row})

    def _curves(self) -> list[Chart]:
        rewards = [name for name in self._names() if name.startswith("reward/")]
        curves = [curve for curve in _CURVES if curve[0] != "Value V" or self._value_differs()]
        found = [self._held_out(), *(self._chart(*curve) for curve in curves)]
        scores = sorted(
            {n for n in self._names() if n.startswith("heldout/") and self._has_error(n)}
        )
        found += [self._held_out_alone(n) for n in scores if n not in _HELD_OUT.values()]
        found += [self._chart(name, "mean over the judged", {"": name}) for name in rewards]
        return [chart for chart in found if chart.lines]

    def _value_differs(self) -> bool:
        """Whether V is not mean R, as where some answers are not judged."""
        pairs = [
            (row["value"], row["reward"])
            for run in self._runs
            for row in run.metrics
            if "value" in row and "reward" in row
        ]
        return any(abs(value - reward) > 1e-4 for value, reward in pairs)

    def _has_error(self, name: str) -> bool:
        return f"{name}_se" in self._names()

    def _chart(self, title: str, unit: str, metrics: Mapping[str, str]) -> Chart:
        chart = Chart(shown(title, 80), unit)
        for number, run in enumerate(self._runs):
            for kind, name in metrics.items():
                if values := series(run.metrics, name):
                    chart.lines.append(
                        {"run": number, "kind": kind, **self._points(number, values)}
                    )
        return chart

    def _points(self, number: int, values: Mapping[int, float]) -> dict[str, Any]:
        """The values at the drawn rounds, and their smoothing; None where there is none."""
        raw = [values.get(step) for step in self._steps[number]]
        line = smoothed(raw)
        drawn = self._drawn[number]
        points = {"y": [short(raw[i]) for i in drawn]}
        if line != raw:
            points["line"] = [short(line[i]) for i in drawn]
        return points

    def _held_out(self) -> Chart:
        chart = Chart("Held-out score", "mean and standard error over tasks, by rounds played")
        for number, run in enumerate(self._runs):
            before = run.summary.get("heldout_before")
            start = before if isinstance(before, dict) else {}
            for kind, name in _HELD_OUT.items():
                first = start.get(kind), start.get(f"{kind}_se")
                chart.lines.extend(_scored(number, run, name, kind, first))
        return chart

    def _held_out_alone(self, name: str) -> Chart:
        title = f"Held-out {shown(name.removeprefix('heldout/'), 60)}"
        chart = Chart(title, "mean and standard error over tasks")
        for number, run in enumerate(self._runs):
            chart.lines.extend(_scored(number, run, name, "", (None, None)))
        return chart

    def _indicators(self) -> list[Chart]:
        by_name: dict[str, list[tuple[int, Indicator]]] = {}
        for number, found in enumerate(self._found):
            for indicator in found:
                by_name.setdefault(indicator.metric, []).append((number, indicator))
        charts = [self._indicator(name, group) for name, group in by_name.items()]
        ranks = ("alarm", "watch", "ok", "unknown")
        charts = [chart for chart in charts if chart.lines]
        return sorted(
            charts, key=lambda chart: ranks.index(worst(s["level"] for s in chart.states))
        )

    def _indicator(self, name: str, group: Sequence[tuple[int, Indicator]]) -> Chart:
        chart = self._chart(name, group[0][1].symptoms, {"": name})
        for number, indicator in group:
            now = figure(indicator.now)
            chart.states.append({"run": number, "level": indicator.level, "text": now})
            for level, limit in indicator.limits:
                if math.isfinite(limit):
                    chart.limits.append({"run": number, "level": level, "y": short(limit)})
        same = [limit for limit in chart.limits if limit["run"] == group[0][0]]
        levels = {(limit["level"], limit["y"]) for limit in chart.limits}
        if len(levels) == len(same):  # the same limits for all runs
            chart.limits[:] = [{**limit, "run": None} for limit in same]
        return chart

    def _others(self) -> list[Chart]:
        used = {"step", "epoch", *_HELD_OUT.values()}
        used |= {name for _, _, metrics in _CURVES for name in metrics.values()}
        used |= {indicator.metric for found in self._found for indicator in found}
        names = [
            name
            for name in self._names()
            if name not in used
            and not name.startswith("reward/")
            and not (
                name.startswith("heldout/") and (name.endswith("_se") or self._has_error(name))
            )
        ]
        charts = [self._chart(name, "", {"": name}) for name in names[:_MOST_OTHERS]]
        return [chart for chart in charts if chart.lines]


def _steps(run: Run) -> list[int]:
    """The rounds of a run, without rows that only hold held-out scores."""
    return sorted(
        {
            int(row["step"])
            for row in run.metrics
            if math.isfinite(row.get("step", math.nan))
            and any(not name.startswith(("heldout/", "step", "epoch")) for name in row)
        }
    )


def _scored(
    number: int, run: Run, name: str, kind: str, before: tuple[Any, Any]
) -> list[dict[str, Any]]:
    """The line of a held-out score with its standard errors, or none. Round 25 is scored after 25
    rounds, so it is at 25, and the score before training at 0."""
    values, errors = series(run.metrics, name), series(run.metrics, f"{name}_se")
    points = [(step + 1, short(values[step]), short(errors.get(step))) for step in sorted(values)]
    if points and short(before[0]) is not None:
        points.insert(0, (0, short(before[0]), short(before[1])))
    if not points:
        return []
    x, y, error = (list(axis) for axis in zip(*points, strict=True))
    return [{"run": number, "kind": kind, "x": x, "y": y, "error": error}]
