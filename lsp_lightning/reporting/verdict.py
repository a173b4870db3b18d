"""Whether self-play went well: held-out scores before and after, and what collapsed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lsp_lightning.diagnosis import SYMPTOMS
from lsp_lightning.reporting.indicators import Indicator, Level, indicators, worst
from lsp_lightning.reporting.reading import Run
from lsp_lightning.reporting.series import series
from lsp_lightning.reporting.texts import short, shown

#: A gain of this many standard errors counts, and a fall of as many as the watch warns of.
_ERRORS = 2
_ERRORS_OF_FALL = max(symptom.errors for symptom in SYMPTOMS if symptom.errors is not None)
_KINDS = {
    "solved": "held-out tasks solved",
    "win_rate": "held-out win rate",
    "mean": "held-out mean reward",
}
_ANSWERS = {"sampled": "sampled answers", "greedy": "greedy answers"}


@dataclass(frozen=True)
class Change:
    """A held-out score before and after a run; NaN is unknown."""

    answers: str
    """sampled or greedy"""
    before: float
    before_error: float
    after: float
    after_error: float
    n: int | None
    """How many tasks were scored."""
    is_share: bool
    """Whether it is shown in per cent."""

    @property
    def level(self) -> Level:
        """Alarm if it fell by more than three standard errors of the difference."""
        gain, error = self.after - self.before, self.error
        if math.isnan(gain) or math.isnan(error):
            return "unknown"
        return "alarm" if gain < -_ERRORS_OF_FALL * error else "ok"

    @property
    def error(self) -> float:
        """Standard error of the difference, as if both were measured on tasks of their own."""
        return math.hypot(self.before_error, self.after_error)

    @property
    def is_gain(self) -> bool:
        """Whether it rose by more than two standard errors of the difference."""
        return self.after - self.before > _ERRORS * self.error

    def text(self, value: float, error: float = math.nan) -> str:
        """A score with its standard error."""
        if math.isnan(value):
            return "?"
        number, spread = (
            (f"{value:.1%}", f"{error:.1%}") if self.is_share else (f"{value:.3f}", f"{error:.3f}")
        )
        return number if math.isnan(error) else f"{number} \u00b1 {spread}"

    @property
    def difference(self) -> str:
        """The change with its sign and standard error; empty if it is unknown."""
        gain = self.after - self.before
        if math.isnan(gain):
            return ""
        if self.is_share:
            return f"{100 * gain:+.1f} \u00b1 {100 * self.error:.1f} points"
        return f"{gain:+.3f} \u00b1 {self.error:.3f}"


@dataclass(frozen=True)
class Verdict:
    """Whether a run went well."""

    level: Level
    headline: str
    """A few words: "collapsed", "look closer", ..."""
    what: str
    """What the held-out score is; empty without one."""
    changes: Sequence[Change]
    problems: Sequence[tuple[Level, str]]
    """What is out of bounds now, the worst first; escaped."""
    checked: int
    """How many indicators have values."""


def judge(run: Run) -> Verdict:
    """The verdict on a run, by its summary and its metrics up to now."""
    found = indicators(run.metrics)
    changes = [c for c in (_change(run, name) for name in _ANSWERS) if c is not None]
    problems: list[tuple[Level, str]] = [
        (change.level, f"{_ANSWERS[change.answers]} score less than before: {change.difference}")
        for change in changes
        if change.level == "alarm"
    ]
    problems += [("watch", text) for text in (_fall(run, c) for c in changes) if text]
    problems += [
        (i.level, i.says) for level in ("alarm", "watch") for i in _at(found, level) if i.says
    ]
    problems.sort(key=lambda problem: problem[0] != "alarm")
    known = [indicator.level for indicator in found if indicator.level != "unknown"]
    scored = [change.level for change in changes]
    level = worst([*known, *scored, *(level for level, _ in problems)])
    return Verdict(
        level=level,
        headline=_headline(level, changes),
        what=_KINDS.get(str(_heldout(run.summary).get("kind")), "held-out score")
        if changes
        else "",
        changes=changes,
        problems=problems,
        checked=len(known),
    )


def _at(found: Sequence[Indicator], level: str) -> list[Indicator]:
    return [indicator for indicator in found if indicator.level == level]


def _headline(level: Level, changes: Sequence[Change]) -> str:
    if level == "unknown":
        return "nothing to judge yet"
    if level != "ok":
        return "collapsed" if level == "alarm" else "look closer"
    if not any(change.level == "ok" for change in changes):
        return "no sign of collapse"
    return "improved" if any(change.is_gain for change in changes) else "no collapse, no clear gain"


def _heldout(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    found = summary.get("heldout_after") or summary.get("heldout_before")
    return found if isinstance(found, dict) else {}


def _change(run: Run, answers: str) -> Change | None:
    """The score before and after; without a summary the last one of the metrics stands for it."""
    before, after = (run.summary.get(f"heldout_{when}") for when in ("before", "after"))
    start, start_error = _score(before, answers)
    end, end_error = _score(after, answers)
    n = _heldout(run.summary).get("n")
    if math.isnan(end):
        end, end_error = _last(run, f"heldout/{answers}"), _last(run, f"heldout/{answers}_se")
    if math.isnan(start) and math.isnan(end):
        return None
    if n is None and not math.isnan(tasks := _last(run, "heldout/tasks")):
        n = int(tasks)
    is_share = _heldout(run.summary).get("kind") != "mean" and all(
        not value < 0 and not value > 1 for value in (start, end)
    )
    count = n if type(n) is int else None
    return Change(answers, start, start_error, end, end_error, count, is_share)


def _score(found: Any, name: str) -> tuple[float, float]:
    if not isinstance(found, dict):
        return math.nan, math.nan
    score, error = short(found.get(name)), short(found.get(f"{name}_se"))
    return (math.nan if score is None else score), (math.nan if error is None else error)


def _last(run: Run, name: str) -> float:
    values = series(run.metrics, name)
    return values[max(values)] if values else math.nan


def _fall(run: Run, change: Change) -> str:
    """One line if the score is well below the run's best, but not below its start; else empty."""
    values = series(run.metrics, f"heldout/{change.answers}")
    errors = series(run.metrics, f"heldout/{change.answers}_se")
    if not values or change.level == "alarm":
        return ""
    best = max(values, key=lambda step: values[step])
    spread = math.hypot(errors.get(best, math.nan), change.after_error)
    if not values[best] - change.after > _ERRORS_OF_FALL * spread:
        return ""
    peak = shown(change.text(values[best]), 20)
    return f"{_ANSWERS[change.answers]} were better before: {peak} after round {best + 1:,}"
