"""Compares the newest rounds of a run with its first ones. Needs metrics only, no model."""

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from lsp_lightning.diagnosis.comparison import Comparison, limit, standard_error
from lsp_lightning.diagnosis.symptom import Symptom
from lsp_lightning.diagnosis.symptoms import SYMPTOMS

#: Rounds at the beginning of a run that later ones are compared with.
FIRST_ROUNDS = 5
#: Logged in each round in which the Challenger wrote queries, and in no other.
_WRITTEN = "queries/tokens"

Row = Mapping[str, float]


@dataclass(frozen=True)
class Finding:
    """A symptom that a run has."""

    symptom: Symptom
    """The symptom."""
    metric: str
    """The metric that shows it."""
    first: int
    """The first round of the window, from 0."""
    last: int
    """The last round of the window."""
    now: float
    """The mean in the window, or the score."""
    before: float
    """The mean in the first rounds, or the score before training; NaN if unknown."""

    @property
    def text(self) -> str:
        """One line: when, what, compared with what, what it means, what to change."""
        symptom = self.symptom
        rounds = f"rounds {self.first}-{self.last}"
        since = "in the first rounds"
        if symptom.rounds == 1:
            rounds, since = f"after round {self.last}", "before training"
        beside = "" if math.isnan(self.before) else f", {symptom.show(self.before)} {since}"
        fact = symptom.fact.format(now=symptom.show(self.now))
        return (
            f"{rounds}: {fact} ({self.metric}{beside}): {symptom.meaning}; {symptom.helps} "
            "(docs/runs-and-metrics.md)"
        )


@dataclass
class _Series:
    """The values of a metric that are compared."""

    first: list[float] = field(default_factory=list)
    """The values of the first rounds."""
    newest: deque[tuple[int, float]] = field(default_factory=deque)
    """The newest values after them, with their rounds."""

    def add(self, index: int, value: float, most: int) -> None:
        if len(self.first) < FIRST_ROUNDS:
            self.first.append(value)
            return
        self.newest.append((index, value))
        while len(self.newest) > most:
            self.newest.popleft()

    def window(self, rounds: int) -> list[float]:
        """The values of the newest window; none while it is not full."""
        part = [value for _, value in self.newest][-rounds:]
        return part if len(part) == rounds else []

    def start(self, rounds: int) -> int:
        """The first round of the newest window."""
        return self.newest[-rounds][0]


class Windows:
    """Finds the symptoms of a run in the metrics of its rounds.

    A symptom is found once, and again if it returns after a window of rounds without it.

    Args:
        symptoms: what to look for, causes before their consequences.
    """

    def __init__(self, symptoms: Sequence[Symptom] = SYMPTOMS) -> None:
        self._symptoms = symptoms
        self._of_rounds = [s for s in symptoms if s.errors is None]
        self._of_scores = [s for s in symptoms if s.errors is not None]
        self._most = max((s.rounds for s in self._of_rounds), default=1)
        self._divisors = {symptom.per for symptom in symptoms}
        self._about: dict[str, tuple[Symptom, ...]] = {}  # the symptoms that a metric shows
        self._series: dict[str, _Series] = {}
        self._told: dict[str, int] = {}  # rounds in a row without a symptom that was found
        self._before: dict[str, float] = {}  # held-out scores before training

    def add(self, index: int, row: Row) -> dict[str, list[Symptom]]:
        """Remember a round without looking for symptoms. -> those that each metric may show.

        Args:
            index: the round's number, from 0.
            row: its metrics; NaN counts as missing.
        """
        known = sorted(name for name, value in row.items() if not math.isnan(value))
        written = _WRITTEN in known
        shown_by = {
            name: [one for one in self._shown_by(name) if written or not one.of_challenger]
            for name in known
        }
        for name in known:
            if shown_by[name] or name in self._divisors:
                self._series.setdefault(name, _Series()).add(index, row[name], self._most)
        return shown_by

    def observe(self, index: int, row: Row, stalls: Mapping[str, bool]) -> list[Finding]:
        """Look at a round. -> the symptoms that are found now.

        Args:
            index: the round's number, from 0.
            row: its metrics; NaN counts as missing.
            stalls: why the round teaches nothing, and whether the user has been told of this cause:
                see :attr:`lsp_lightning.callbacks.stalls.StallWatch.causes`.
        """
        shown_by = self.add(index, row)
        verdicts: defaultdict[str, list[Finding | bool]] = defaultdict(list)
        for name, symptoms in shown_by.items():
            for symptom in symptoms:
                verdict = self._judge(symptom, name, index)
                if verdict is not None:
                    verdicts[symptom.name].append(verdict)
        found: list[Finding] = []
        for symptom in self._of_rounds:
            if verdicts[symptom.name]:
                shown = (one for one in verdicts[symptom.name] if isinstance(one, Finding))
                found += self._new(symptom, next(shown, None), stalls)
        return found

    def start(self, scores: Row) -> None:
        """Remember the held-out scores before training, with their standard errors."""
        self._before = dict(scores)

    def score(self, index: int, scores: Row) -> list[Finding]:
        """Compare held-out scores after round ``index`` with those before training."""
        found: list[Finding] = []
        for symptom in self._of_scores:
            names = [name for name in scores if symptom.matches(name)]
            falls = [self._fall(symptom, name, index, scores) for name in sorted(names)]
            shown = next((fall for fall in falls if fall is not None), None)
            if shown is not None or not any(math.isnan(scores[name]) for name in names):
                found += self._new(symptom, shown, {})
        return found

    def comparisons(self) -> list[Comparison]:
        """Every metric beside the limits of the symptoms that it shows, in their order."""
        pairs = [(s, name) for s in self._of_rounds for name in self._series if s.matches(name)]
        found = (self._compare(symptom, name) for symptom, name in pairs)
        return [compared for compared in found if compared is not None]

    def mark(self, names: Iterable[str]) -> None:
        """Count these symptoms as found already."""
        self._told |= dict.fromkeys(names, 0)

    def state_dict(self) -> dict[str, Any]:
        """All that is remembered, as plain values."""
        return {
            "series": {
                name: [list(series.first), [list(pair) for pair in series.newest]]
                for name, series in self._series.items()
            },
            "told": dict(self._told),
            "before": dict(self._before),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state``."""
        self._series = {
            name: _Series(list(first), deque((int(index), value) for index, value in newest))
            for name, (first, newest) in state["series"].items()
        }
        self._told, self._before = dict(state["told"]), dict(state["before"])

    def _shown_by(self, name: str) -> tuple[Symptom, ...]:
        """The symptoms that a metric of a round shows."""
        if name not in self._about:
            self._about[name] = tuple(s for s in self._of_rounds if s.matches(name))
        return self._about[name]

    def _judge(self, symptom: Symptom, name: str, index: int) -> Finding | bool | None:
        """The finding, False if the run does not have the symptom, or None if it is too early."""
        compared = self._compare(symptom, name)
        if compared is None or not compared.is_beyond:
            return None if compared is None else False
        first = self._series[name].start(symptom.rounds)
        now, before = compared.now / compared.unit, compared.before / compared.unit_before
        return Finding(symptom, name, first, index, now, before)

    def _compare(self, symptom: Symptom, name: str) -> Comparison | None:
        """The metric beside the symptom's limit; None while it is too early."""
        series = self._series[name]
        first, window = series.first, series.window(symptom.rounds)
        if not window:
            return None
        now, before, unit, unit_before = fmean(window), fmean(first), 1.0, 1.0
        error = math.hypot(standard_error(first), standard_error(window))
        if symptom.per is not None:
            divisor = self._series.get(symptom.per, _Series())
            under = divisor.window(symptom.rounds)
            if not under or fmean(under) <= 0 or fmean(divisor.first) <= 0:
                return None
            unit, unit_before, error = fmean(under), fmean(divisor.first), 0.0
        beyond = unit * limit(symptom, before / unit_before, error)
        return Comparison(symptom, name, now, before, beyond, unit, unit_before)

    def _fall(self, symptom: Symptom, name: str, index: int, scores: Row) -> Finding | None:
        now, before = scores[name], self._before.get(name, math.nan)
        errors = [by.get(f"{name}_se", math.nan) for by in (scores, self._before)]
        limit = before - (symptom.errors or 0.0) * math.hypot(*errors)
        if not now < limit:  # False if anything is NaN
            return None
        return Finding(symptom, name, index, index, now, before)

    def _new(
        self, symptom: Symptom, found: Finding | None, stalls: Mapping[str, bool]
    ) -> Iterator[Finding]:
        """The finding if it has to be told."""
        name = symptom.name
        if found is None:
            if name in self._told:
                self._told[name] += 1
                if self._told[name] >= symptom.rounds:
                    del self._told[name]
            return
        if name in self._told:
            self._told[name] = 0
            return
        explained = {cause for cause in stalls if cause.startswith(symptom.follows)}
        if any(stalls[cause] for cause in explained) or self._told.keys() & set(symptom.follows):
            self._told[name] = 0  # the user knows the cause
        elif not explained:  # otherwise StallWatch may be about to name it
            self._told[name] = 0
            yield found
