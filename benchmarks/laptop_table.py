"""Markdown tables of the rows that :mod:`benchmarks.laptop` writes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor

from benchmarks.laptop_score import DRAWS, WAYS, Row, figure

#: The rows of each arm.
Rows = Mapping[str, Sequence[Row]]
#: The cell of an arm, from its name, the rows, and which tasks have unseen kinds (tasks,).
Column = Callable[[str, Rows, Tensor], str]


def tables(rows: Iterable[Row], arms: Iterable[str], unseen: Tensor) -> list[str]:
    """Four Markdown tables: scores, kinds of constraints, answers, and the game.

    A cell is the mean over seeds, with the standard deviation if there are several. A difference
    is paired by task, with its 95 % interval over the tasks.

    Args:
        rows: the rows of all arms and seeds.
        arms: the arms in the order of the tables, before others; those without a row are left out.
        unseen: (tasks,) bool, whether a task has a kind of constraint that no example has.
    """
    by_arm: dict[str, list[Row]] = {arm: [] for arm in arms}
    for row in rows:
        by_arm.setdefault(row["arm"], []).append(row)
    found = {arm: rows for arm, rows in by_arm.items() if rows}
    return [_markdown(columns, found, unseen) for columns in _TABLES]


def _markdown(columns: Mapping[str, Column], by_arm: Rows, unseen: Tensor) -> str:
    lines = [f"| arm | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for arm in by_arm:
        cells = [column(arm, by_arm, unseen) for column in columns.values()]
        if set(cells) != {"-"}:
            lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _value(*keys: str, digits: int = 3) -> Column:
    """A column of figures of the rows, found by these keys."""

    def cell(arm: str, by_arm: Rows, unseen: Tensor) -> str:
        values = []
        for row in by_arm[arm]:
            value: Any = row
            for key in keys:
                value = value.get(key) if value else None
            if value is not None:
                values.append(value[0] if isinstance(value, list) else value)
        if not values:
            return "-"
        spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
        return f"{mean(values):.{digits}f}{spread}"

    return cell


def _gain(way: str, other: str = "base", unseen_only: bool = False) -> Column:
    """A column of differences to another arm with the same room for answers, paired by task."""

    def cell(arm: str, by_arm: Rows, unseen: Tensor) -> str:
        name, comma, room = arm.partition(",")
        peer = f"{other}{comma}{room}"
        if name.startswith(("base", other)) or peer not in by_arm or way not in by_arm[arm][0]:
            return "-"
        gains = _shares(by_arm[arm], way) - _shares(by_arm[peer], way)
        gain, half = figure(gains[unseen] if unseen_only else gains)
        return f"{gain:+.3f} [{gain - half:+.3f}, {gain + half:+.3f}]"

    return cell


def _shares(rows: Sequence[Row], way: str) -> Tensor:
    """The share of right answers to each task, over all seeds. (tasks,)."""
    draws = DRAWS if WAYS[way] else 1
    right = [[int(digit) / draws for digit in row[way]["right"]] for row in rows]
    return torch.tensor(right).mean(0)


_TABLES: tuple[dict[str, Column], ...] = (
    {
        "seeds": lambda arm, by_arm, unseen: str(len(by_arm[arm])),
        "T 1": _value("T 1", "solved"),
        "T 1 - base": _gain("T 1"),
        "T 1 - GRPO": _gain("T 1", "grpo"),
        "T 1 - recommended": _gain("T 1", "recommended"),
        "T .7": _value("T .7", "solved"),
        "T .7 - base": _gain("T .7"),
        "greedy": _value("greedy", "solved"),
        "greedy - base": _gain("greedy"),
        "pass@8": _value("T 1", "pass@8"),
    },
    {
        "seen kinds, T 1": _value("T 1", "solved, seen kinds"),
        "unseen kinds, T 1": _value("T 1", "solved, unseen kinds"),
        "unseen - base": _gain("T 1", unseen_only=True),
        "unseen - GRPO": _gain("T 1", "grpo", unseen_only=True),
        "unseen, greedy": _value("greedy", "solved, unseen kinds"),
        "greedy, unseen - base": _gain("greedy", unseen_only=True),
    },
    {
        "words": _value("T 1", "words", digits=1),
        "tokens": _value("T 1", "tokens", digits=1),
        "cut off": _value("T 1", "truncated"),
        "nats a token, T 1": _value("T 1", "nats a token"),
        "nats a token, greedy": _value("greedy", "nats a token"),
        "another's, T 1": _value("T 1", "solved, other task"),
        "IFEval accepts, T 1": _value("T 1", "ifeval", "IFEval"),
        "InstructionVerifier accepts": _value("T 1", "ifeval", "InstructionVerifier"),
        "same verdict": _value("T 1", "ifeval", "agree"),
    },
    {
        "malformed, first 5": _value("run", "malformed, first"),
        "last 10": _value("run", "malformed, last"),
        "distinct queries": _value("run", "distinct queries"),
        "topics": _value("run", "topics", digits=0),
        "solved": _value("run", "solved, last"),
        "R": _value("run", "R"),
        "spread of R": _value("run", "R, spread"),
        "KL, Solver": _value("run", "KL, Solver", digits=2),
        "KL, Challenger": _value("run", "KL, Challenger", digits=2),
        "seconds": _value("run", "seconds a round", digits=0),
    },
)
