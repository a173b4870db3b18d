"""Figures of one arm with one seed, and differences between two arms."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Literal

import torch
from torch import Tensor

from lsp_lightning.errors import ConfigError
from lsp_lightning.functional.evaluation import pass_at_k
from lsp_lightning.functional.intervals import t_interval
from lsp_lightning.reproduce.arms import Arm
from lsp_lightning.reproduce.comparison import Comparison
from lsp_lightning.reproduce.measured import MEASURED, Measured
from lsp_lightning.runs import RunFolder

#: Rounds that figures of the end of a run are averaged over.
_LAST = 10
#: Seeds that an interval is shown from: one over two seeds is 12.7 times as wide as their distance.
FEWEST = 3
#: Rounds that a point of a curve about queries is averaged over.
WINDOW = 5


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, or over the tasks of a single one, with its 95 % t-interval."""

    mean: float
    """NaN without a seed."""
    half: float
    """Half the width; NaN if it is unknown."""
    n: int
    """Number of seeds."""
    over: Literal["seeds", "tasks"] = "seeds"
    """What the interval is over: with a single seed it is over the tasks of that one run, and says
    nothing about how another run would differ."""
    values: tuple[float, ...] = ()
    """The value of each seed; empty if it is not over seeds."""

    @classmethod
    def of(cls, values: Sequence[float]) -> "Interval":
        """The interval of one value for each seed; NaN values are left out."""
        known = [value for value in values if not math.isnan(value)]
        mean, half = t_interval(torch.tensor(known, dtype=torch.float64))
        return cls(mean, half, len(known), values=tuple(known))

    @property
    def low(self) -> float:
        """Its lower end."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """Its upper end."""
        return self.mean + self.half


@dataclass(frozen=True)
class Row:
    """What is known of one arm with one seed."""

    measured: Measured
    seconds: float
    """Wall time of its trainings."""
    kl: Mapping[str, float] = field(default_factory=dict)
    """Nats of a completion in the last rounds, by role."""
    heldout: Sequence[tuple[int, float]] = ()
    """Share of the tasks for choosing settings that is solved, after so many rounds."""
    game: Sequence[tuple[int, Mapping[str, float]]] = ()
    """Figures of the queries of the rounds up to this one."""

    def figures(self) -> dict[str, float]:
        """All figures by name; those that it does not have are left out."""
        found = self.measured
        share, unmet = _shares(found), _unmet(found)
        figures = {
            "sampled": float(share.mean()),
            "sampled, unmet": float(share[unmet].mean()),
            "tasks met": float(sum(found.met)),
            "greedy": float(torch.tensor(found.greedy, dtype=torch.float64).mean()),
            f"pass@{found.draws}": float(_pass_at(found.right, found.draws, found.draws).mean()),
        }
        levels = torch.tensor(found.levels)
        for level in sorted(set(found.levels)):
            figures[f"level {level}"] = float(share[unmet & (levels == level)].mean())
        figures |= {f"queries, {name}": value for name, value in found.queries.items()}
        figures |= {f"KL, {role}": value for role, value in self.kl.items()}
        return figures

    def curve(self) -> dict[int, float]:
        """pass@k of the tasks of the curve, k = 1, 2, 4, ...; empty if there is none."""
        return {k: float(values.mean()) for k, values in _curve(self.measured).items()}


def difference(one: Row, other: Row, figure: str) -> float:
    """A figure of one row minus that of another with the same seed; NaN if either lacks it.

    Scores are compared on the tasks that neither of both has met in its training.
    """
    by_task = _by_task(one, other, figure)
    if by_task is not None:
        return float(by_task.mean())
    figures = (one.figures(), other.figures())
    return figures[0].get(figure, math.nan) - figures[1].get(figure, math.nan)


def compared(one: Mapping[int, Row], other: Mapping[int, Row], figure: str) -> Interval:
    """The difference of two arms, paired by seed, over the seeds that both have.

    With one seed a score has an interval over its tasks, paired by task.
    """
    seeds = sorted(set(one) & set(other))
    if len(seeds) == 1:
        by_task = _by_task(one[seeds[0]], other[seeds[0]], figure)
        if by_task is not None:
            return Interval(*t_interval(by_task), 1, "tasks")
    return Interval.of([difference(one[seed], other[seed], figure) for seed in seeds])


def _by_task(one: Row, other: Row, figure: str) -> Tensor | None:
    """The difference in a score on each task that neither has met; None if it is no such score."""
    a, b = one.measured, other.measured
    unmet = _unmet(a) & _unmet(b)
    if figure == "sampled, unmet":
        return (_shares(a) - _shares(b))[unmet]
    if figure == "greedy":
        first, second = (torch.tensor(found.greedy, dtype=torch.float64) for found in (a, b))
        return (first - second)[unmet]
    if figure.startswith("curve@"):
        k = int(figure.removeprefix("curve@"))
        curves = (_curve(a), _curve(b))
        if all(k in curve for curve in curves):
            return (curves[0][k] - curves[1][k])[unmet[:: a.curve_every]]
    return None


def _shares(found: Measured) -> Tensor:
    """The share of right answers to each task, (tasks,)."""
    return torch.tensor(found.right, dtype=torch.float64) / found.draws


def _unmet(found: Measured) -> Tensor:
    return torch.tensor(found.met) == 0


def _pass_at(right: Sequence[int], draws: int, k: int) -> Tensor:
    """pass@k of each task, (tasks,)."""
    solved = torch.arange(draws) < torch.tensor(right).unsqueeze(1)
    return pass_at_k(solved.double(), k)


def _curve(found: Measured) -> dict[int, Tensor]:
    """pass@k of each task of the curve, by k."""
    ks = [2**i for i in range(found.curve_draws.bit_length()) if 2**i <= found.curve_draws]
    return {k: _pass_at(found.curve, found.curve_draws, k) for k in ks}


def read_rows(comparison: Comparison) -> dict[str, dict[int, Row]]:
    """The rows of all arms and seeds that have been measured in a folder, by arm, by seed."""
    found: dict[str, dict[int, Row]] = {}
    for arm in comparison.world.arms:
        last = arm.runs()[-1] if arm.stages else arm.name
        for path in sorted((comparison.out / "runs").glob(f"{last}-*/{MEASURED}")):
            seed = path.parent.name.removeprefix(f"{last}-")
            if seed.isdecimal():
                found.setdefault(arm.name, {})[int(seed)] = _read_row(comparison, arm, int(seed))
    return {name: dict(sorted(rows.items())) for name, rows in found.items()}


def _read_row(comparison: Comparison, arm: Arm, seed: int) -> Row:
    """Raise ConfigError if a file cannot be read."""
    names = [f"{run}-{seed}" for run in arm.runs()] or [f"{arm.name}-{seed}"]
    runs = [comparison.folder(name) for name in names]
    path = runs[-1].path / MEASURED
    try:
        measured = Measured.read(path)
    except ValueError as error:
        remedy = "delete the file, and start the command again without --table"
        raise ConfigError("reproduce --out", str(error), remedy) from error
    if not arm.stages:
        return Row(measured, 0.0)
    heldout: list[tuple[int, float]] = []
    game: list[tuple[int, Mapping[str, float]]] = []
    for i, run in enumerate(runs):
        begin = i * comparison.rounds
        heldout += [(begin + played, score) for played, score in _heldout(run)]
        game += [(begin + end, figures) for end, figures in _game(run.metrics())]
    last = [row for row in runs[-1].metrics() if row["step"] >= comparison.rounds - _LAST]
    roles = {"Solver": "kl/solver", "Challenger": "kl/challenger"}
    return Row(
        measured,
        sum(float(run.summary()["seconds"]) for run in runs),
        {role: _mean(last, name) for role, name in roles.items() if _known(last, name)},
        heldout,
        game,
    )


def _heldout(run: RunFolder) -> list[tuple[int, float]]:
    before = run.summary().get("heldout_before")
    first = [(0, float(before["sampled"]))] if before else []
    name = "heldout/sampled"
    return first + [(int(r["step"]) + 1, r[name]) for r in run.metrics() if name in r]


def _game(rows: Sequence[Mapping[str, float]]) -> list[tuple[int, Mapping[str, float]]]:
    """Malformed share and level of the queries, a point for every few rounds."""
    names = {name for row in rows for name in row}
    verified = sorted(name for name in names if name.endswith("/malformed"))
    malformed = "gate/malformed" if "gate/malformed" in names else (verified or [""])[0]
    level = next((name for name in sorted(names) if name.endswith("/level")), "")
    found: list[tuple[int, Mapping[str, float]]] = []
    for end in range(WINDOW, int(max(row["step"] for row in rows)) + 2, WINDOW):
        window = [row for row in rows if end - WINDOW <= row["step"] < end]
        wanted = {"malformed": malformed, "level": level}
        found.append(
            (end, {key: _mean(window, n) for key, n in wanted.items() if _known(window, n)})
        )
    return found


def _known(rows: Sequence[Mapping[str, float]], name: str) -> bool:
    return any(name in row for row in rows)


def _mean(rows: Sequence[Mapping[str, float]], name: str) -> float:
    return mean(row[name] for row in rows if name in row)
