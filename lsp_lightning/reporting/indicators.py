"""Which metrics show a collapse, with their bounds, and whether a run is out of bounds now.

All bounds are in :data:`BOUNDS`.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lsp_lightning.reporting.series import first_and_now, series
from lsp_lightning.reporting.texts import figure, shown

Level = Literal["ok", "watch", "alarm", "unknown"]
#: From harmless to bad; "unknown" is a metric without values.
_ORDER: tuple[Level, ...] = ("unknown", "ok", "watch", "alarm")
#: Fewer rounds have no beginning to compare the end with.
_FEWEST = 5


@dataclass(frozen=True)
class Bound:
    """A limit of a metric, on one side."""

    metric: str
    """Pattern of the metric's whole name; a group is the name of a reward."""
    title: str
    problem: str
    """What it means if the metric is beyond the limit; follows "now 0.72: "."""
    watch: float
    """Beyond it: look at the queries and answers."""
    alarm: float | None
    """Beyond it the run has collapsed; None if the metric alone does not show that."""
    side: Literal["above", "below"] = "above"
    against: Literal["value", "rise", "ratio"] = "value"
    """The limit itself, or what is added to the mean of the first rounds, or its factor."""

    def limits(self, first: float) -> dict[Level, float]:
        """The limits in the metric's unit.

        Args:
            first: the mean over the first rounds.
        """
        given: dict[Level, float | None] = {"watch": self.watch, "alarm": self.alarm}
        added = first if self.against == "rise" else 0.0
        factor = first if self.against == "ratio" else 1.0
        return {
            level: added + factor * limit for level, limit in given.items() if limit is not None
        }


_REPEATS = "the Challenger repeats itself"
_NOISE = "queries turn to noise"
_FALL: dict[str, Any] = {"side": "below", "against": "ratio"}
#: For zlib: what is noise does not compress, what repeats itself compresses well.
BOUNDS = (
    Bound(r"queries/(.+)/malformed", "malformed queries", "no right answer exists", 0.3, 0.5),
    Bound("queries/invalid", "invalid queries", "queries break the form rules", 0.2, 0.5),
    Bound("queries/truncated", "cut-off queries", "queries hit the length limit", 0.2, None),
    Bound("queries/duplicate", "duplicate queries", _REPEATS, 0.2, 0.5),
    Bound("queries/similarity", "similarity of queries", _REPEATS, 0.2, 0.4, against="rise"),
    Bound("queries/distinct_2", "word pairs of queries", _REPEATS, 0.7, 0.4, **_FALL),
    Bound("queries/seen", "queries seen before", "earlier queries come again", 0.5, 0.8),
    Bound("queries/zlib", "zlib of queries", _NOISE, 1.4, 1.8, against="ratio"),
    Bound("queries/zlib", "zlib of queries", _REPEATS, 0.7, 0.5, **_FALL),
    Bound("value", "value V of queries", "queries are too hard", 0.15, 0.05, "below"),
    Bound("value", "value V of queries", "queries are too easy", 0.97, None),
    Bound("dead_groups", "dead groups", "all answers to a query score alike", 0.9, None),
    Bound("entropy/challenger", "entropy, Challenger", "its queries narrow", 0.3, 0.1, **_FALL),
    Bound("entropy/challenger", "entropy, Challenger", _NOISE, 1.8, 2.5, against="ratio"),
    Bound("entropy/solver", "entropy, Solver", "its answers narrow", 0.2, 0.05, **_FALL),
    Bound("answers/distinct_2", "word pairs of answers", "answers are alike", 0.6, 0.3, **_FALL),
    Bound("answers/zlib", "zlib of answers", "answers turn to noise", 1.6, 2.2, against="ratio"),
    Bound("answers/zlib", "zlib of answers", "answers repeat themselves", 0.6, 0.4, **_FALL),
    Bound("answers/code", "code in answers", "answers turn to code", 0.3, 0.6, against="rise"),
    Bound("answers/tokens", "length of answers", "answers get longer", 2.0, 4.0, against="ratio"),
    Bound("answers/truncated", "cut-off answers", "answers hit the length limit", 0.4, None),
    Bound("quality_std", "spread of Q", "Q hardly tells answers apart", 0.05, None, **_FALL),
    Bound(r"unjudged/(.+)", "unjudged answers", "a reward cannot score", 0.1, None),
    Bound("skipped", "skipped rounds", "gradients are not finite", 0.05, None),
)
#: Metrics whose bounds hold only if all values are between 0 and 1: R may have any scale.
_SHARES = frozenset(("value",))


@dataclass(frozen=True)
class Indicator:
    """A metric that shows a collapse, as a run has it now."""

    metric: str
    title: str
    """What it is, with the name of its reward, escaped."""
    level: Level
    first: float
    """Mean over the first rounds."""
    now: float
    """Mean over the last rounds."""
    limits: Sequence[tuple[Level, float]]
    problem: str
    """What it means that it is out of bounds; empty if it is not."""

    @property
    def says(self) -> str:
        """Title, value now and at the beginning, and the problem, in one line."""
        return f"{self.title} {figure(self.first)} \u2192 {figure(self.now)}: {self.problem}"


def worst(levels: Iterable[Level]) -> Level:
    """The worst of some levels; "unknown" without any."""
    return max(levels, key=_ORDER.index, default="unknown")


def indicators(metrics: Sequence[Mapping[str, float]]) -> list[Indicator]:
    """The indicators that a run's metrics have, in the order of :data:`BOUNDS`."""
    names = sorted({name for row in metrics for name in row})
    found: dict[str, list[tuple[Bound, str]]] = {}
    for bound in BOUNDS:
        for name in names:
            if match := re.fullmatch(bound.metric, name):
                found.setdefault(name, []).append((bound, "".join(match.groups())))
    return [_indicator(name, bounds, series(metrics, name)) for name, bounds in found.items()]


def _indicator(
    name: str, bounds: Sequence[tuple[Bound, str]], values: Mapping[int, float]
) -> Indicator:
    first, now = first_and_now(values)
    level: Level = "unknown" if math.isnan(now) else "ok"
    limits, problem = list[tuple[Level, float]](), ""
    if name not in _SHARES or all(0 <= value <= 1 for value in values.values()):
        for bound, _ in bounds:
            if bound.against != "value" and len(values) < _FEWEST:
                continue
            for beyond, limit in bound.limits(first).items():
                limits.append((beyond, limit))
                is_out = now > limit if bound.side == "above" else now < limit
                if is_out and worst((level, beyond)) != level:
                    level, problem = beyond, bound.problem
    bound, reward = bounds[0]
    title = f"{bound.title} ({shown(reward, 40)})" if reward else bound.title
    return Indicator(name, title, level, first, now, limits, problem)
