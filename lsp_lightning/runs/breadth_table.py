"""A table for the terminal: how varied the queries of a run are, in about ten stretches."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lsp_lightning.runs.breadth import COMMON, Stretch, stretches
from lsp_lightning.text.table import table_lines
from lsp_lightning.text.terminal import escaped, wrap

#: Lines of the explanation at the widest.
_LINES = 40


def breadth_lines(rows: Iterable[Mapping[str, Any]], width: int) -> Iterator[str]:
    """The lines of the table and what its columns mean; rounds are counted from 0.

    Text of the players is escaped.

    Args:
        rows: rows of the transcripts, in the order of the rounds.
        width: columns of the terminal.
    """
    found = stretches(rows)
    if not found:
        return
    names = list(found[0].kinds)
    labels = _labels(names)
    has_gate = any(stretch.passed is not None for stretch in found)
    header = ["rounds", "queries", *(["passed"] if has_gate else [])]
    header += ["distinct", "distinct_2", "alike", *(labels[name] for name in names)]
    yield from table_lines(header, [_cells(stretch, has_gate) for stretch in found], width)
    yield from wrap(_meaning(has_gate, labels.values()), max(width, 3), _LINES)


def _cells(stretch: Stretch, has_gate: bool) -> list[str]:
    first, last = stretch.first, stretch.last
    shares = [*([stretch.passed] if has_gate else [])]
    shares += [stretch.distinct, stretch.distinct_2, stretch.similarity]
    rounds = f"{first}" if first == last else f"{first}-{last}"
    kinds = ("-" if count is None else f"{count}" for count in stretch.kinds.values())
    return [rounds, f"{stretch.written:,}", *map(_share, shares), *kinds]


def _share(share: float | None) -> str:
    return "-" if share is None or math.isnan(share) else f"{share:.2f}"


def _labels(names: Sequence[str]) -> dict[str, str]:
    """The finding alone, or with the name of its reward if two rewards find the same."""
    short = [name.rpartition("/")[2] for name in names]
    twice = {label for label in short if short.count(label) > 1}
    return {
        name: escaped(name if label in twice else label)
        for name, label in zip(names, short, strict=True)
    }


def _meaning(has_gate: bool, kinds: Iterable[str]) -> str:
    parts = {
        "rounds": "counted from 0, as for show --round",
        "queries": "all queries of these rounds, without those from earlier ones",
        "passed": "share that the gate let through",
        "distinct": "different queries of all",
        "distinct_2": "different word pairs of all",
        "alike": "mean similarity of two queries, of as many queries in each row, so it can differ "
        "from the line of a round",
        ", ".join(kinds): f"number of kinds that make up more than {COMMON * 100:.0f} % of the "
        "answered, well-formed queries",
    }
    shown = {name: text for name, text in parts.items() if name and (has_gate or name != "passed")}
    return "; ".join(f"{name}: {text}" for name, text in shown.items())
