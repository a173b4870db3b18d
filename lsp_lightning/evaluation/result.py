"""The result of an evaluation: a table for readers, and its numbers."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lsp_lightning.functional.evaluation import Interval
from lsp_lightning.text.table import table_lines
from lsp_lightning.text.terminal import wrap

#: Lines of the note at the widest.
_LINES = 40


@dataclass(frozen=True)
class Evaluation:
    """The result of one evaluation."""

    kind: Literal["win_rate", "pass_at_k", "benchmark"]
    """What was measured."""
    title: str
    """The title of its table, escaped."""
    note: str
    """How to read it, in a sentence or two."""
    columns: Sequence[str]
    """The header of the table."""
    rows: Sequence[Sequence[str]]
    """Its cells, escaped."""
    results: Mapping[str, Any]
    """The numbers behind it; NaN where there is none."""

    def document(self, created: str, rounds: int, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The result as JSON.

        Args:
            created: date and time.
            rounds: how many rounds the evaluated policy has played.
            settings: what was evaluated, and how.
        """
        return {
            "kind": self.kind,
            "title": self.title,
            "note": self.note,
            "created": created,
            "rounds": rounds,
            "table": {"columns": list(self.columns), "rows": [list(row) for row in self.rows]},
            "results": _plain(self.results),
            "settings": dict(settings),
        }

    def lines(self, width: int) -> Iterator[str]:
        """Title, table and note, for a terminal."""
        yield from wrap(self.title, width, _LINES)
        yield ""
        yield from table_lines(self.columns, self.rows, width)
        yield ""
        yield from wrap(self.note, width, _LINES)


def share(interval: Interval) -> str:
    """A share with its interval, in percent: ``62.0 % [48.2, 74.1]``."""
    if math.isnan(interval.value):
        return "-"
    value, low, high = (100 * x for x in interval)
    return f"{value:z.1f} % [{low:z.1f}, {high:z.1f}]"


def numbers(interval: Interval) -> dict[str, float]:
    """An interval for JSON."""
    return interval._asdict()


def _plain(value: Any) -> Any:
    """The value with None in place of NaN, which JSON cannot write."""
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value
