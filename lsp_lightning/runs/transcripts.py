"""Read a run's transcripts, also while the run is playing, and also if files are damaged.

The run may be a stranger's, so a file is skipped if it is not one that a run writes.
"""

import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from lsp_lightning.errors import in_one_line

#: The rounds that no Parquet file holds yet, as JSON lines.
OPEN_SHARD = "open.jsonl"
_NEEDED = {"round", "query", "answer"}
#: A file of more rows or bytes was not written by a run: it holds at most 100 rounds.
_MOST_ROWS = 1_000_000
_MOST_BYTES = 1_000_000_000

Row = dict[str, Any]
RowT = TypeVar("RowT", bound=Mapping[str, Any])


def is_answer(row: Mapping[str, Any]) -> bool:
    """Whether a row is that of an answer, and not that of a query that the gate refused."""
    return row["answer"] is not None or row.get("refused") is None


def by_query(rows: Iterable[RowT]) -> Iterator[list[RowT]]:
    """The rows of each query of the transcripts, in their order; a refused query has one row."""
    group: list[RowT] = []
    for row in rows:
        if group and not (is_answer(row) and _query_of(row) == _query_of(group[-1])):
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _query_of(row: Mapping[str, Any]) -> tuple[object, ...]:
    """What tells a query from those beside it; transcripts of the first versions have no number."""
    return row["round"], row.get("number"), row["query"], is_answer(row)


def malformed(row: Mapping[str, Any]) -> bool:
    """Whether a verifier found no right answer to the row's query."""
    return any(value is True for name, value in row.items() if name.endswith("/malformed"))


def yes_or_no(rows: Iterable[Mapping[str, Any]]) -> set[str]:
    """Columns of the rewards that score only 0 and 1."""
    scores: dict[str, bool] = {}
    for row in rows:
        for name, value in row.items():
            if name.startswith("reward/") and value is not None:
                scores[name] = scores.get(name, True) and value in (0, 1)
    return {name for name, binary in scores.items() if binary}


def verdict(row: Mapping[str, Any], binary: Collection[str]) -> str:
    """What the rewards say about an answer: malformed, right, wrong or unjudged; else empty.

    Args:
        row: a row of the transcripts.
        binary: the rewards that score 1 for right and 0 for wrong (:func:`yes_or_no`).
    """
    if malformed(row):
        return "malformed"
    known = [row.get(name) for name in sorted(binary)]
    scores = [score for score in known if score is not None]
    if len(scores) == 1:
        return "right" if scores[0] == 1 else "wrong"
    return "" if is_number(row.get("R")) else "unjudged"


def is_number(score: object) -> TypeGuard[float]:
    """Whether a score is there: None and NaN stand for one that could not be judged."""
    return isinstance(score, bool | int | float) and not math.isnan(score)


def read_transcripts(folder: Path, skipped: Callable[[str], None]) -> list[Row]:
    """One row for each answer and for each refused query, in the order of the rounds.

    Args:
        folder: the folder of the transcripts.
        skipped: called with one line about each file that cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[Row] = []
    for path in sorted(folder.glob("rounds-*.parquet")):
        try:
            if not path.is_file():  # opening a pipe would wait for ever
                raise OSError("not a file")
            few = pq.read_metadata(path).num_rows <= _MOST_ROWS
            found = pq.read_table(path).to_pylist() if few else []
        except (OSError, pa.ArrowException, ValueError, OverflowError) as error:
            skipped(f"skipped {path.name}: {in_one_line(str(error))[:200]}")
            continue
        if not few:
            skipped(f"skipped {path.name}: it has more than {_MOST_ROWS:,} rows")
        elif found and not found[0].keys() >= _NEEDED:
            skipped(f"skipped {path.name}: it has no columns {', '.join(sorted(_NEEDED))}")
        elif not all(map(_is_storable, found)):
            skipped(f"skipped {path.name}: it holds values that no run writes")
        else:
            rows += found
    closed = {row["round"] for row in rows}
    # a shard may be closed between the two readings
    rows += [row for row in _open_rows(folder / OPEN_SHARD, skipped) if row["round"] not in closed]
    return sorted(rows, key=lambda row: row["round"])


def _open_rows(shard: Path, skipped: Callable[[str], None]) -> list[Row]:
    try:
        if not shard.is_file():  # none, or a pipe
            return []
        if shard.stat().st_size > _MOST_BYTES:
            skipped(f"skipped {shard.name}: it is larger than {_MOST_BYTES // 10**9} GB")
            return []
        content = shard.read_bytes()
    except FileNotFoundError:  # closed in the meantime
        return []
    except OSError as error:
        skipped(f"skipped {shard.name}: {error}")
        return []
    # not splitlines: an answer may contain other line separators; the last line is being written
    rows = [open_row(line) for line in content.split(b"\n")[:-1]]
    whole = [row for row in rows if row is not None and row.keys() >= _NEEDED]
    if len(whole) < len(rows):
        skipped(f"skipped {len(rows) - len(whole)} damaged lines of {shard.name}")
    return whole


def open_row(line: bytes) -> Row | None:
    """A line of the open shard; None if it is damaged."""
    try:
        row = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    return row if _is_storable(row) else None


def _is_storable(row: Any) -> bool:
    """Whether a value is a row of a numbered round, with integers that a Parquet file can hold."""
    if not isinstance(row, dict) or type(row.get("round")) is not int or row["round"] < 0:
        return False
    numbers = [value for value in row.values() if isinstance(value, int)]
    return all(-(2**63) <= number < 2**63 for number in numbers)
