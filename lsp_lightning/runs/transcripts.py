"""Read a run's transcripts, also while the run is playing, and also if files are damaged."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lsp_lightning.errors import in_one_line

#: The rounds that no Parquet file holds yet, as JSON lines.
OPEN_SHARD = "open.jsonl"
_NEEDED = {"round", "query", "answer"}

Row = dict[str, Any]


def read_transcripts(folder: Path, skipped: Callable[[str], None]) -> list[Row]:
    """One row for each answer, in the order of the rounds.

    Args:
        folder: the folder of the transcripts.
        skipped: called with one line about each file that cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[Row] = []
    for path in sorted(folder.glob("rounds-*.parquet")):
        try:
            found = pq.read_table(path).to_pylist()
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            skipped(f"skipped {path.name}: {in_one_line(str(error))[:200]}")
            continue
        if found and not found[0].keys() >= _NEEDED:
            skipped(f"skipped {path.name}: it has no columns {', '.join(sorted(_NEEDED))}")
            continue
        rows += found
    closed = {row["round"] for row in rows}
    # a shard may be closed between the two readings
    rows += [row for row in _open_rows(folder / OPEN_SHARD, skipped) if row["round"] not in closed]
    return sorted(rows, key=lambda row: row["round"])


def _open_rows(shard: Path, skipped: Callable[[str], None]) -> list[Row]:
    try:
        content = shard.read_bytes()
    except FileNotFoundError:
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
    return row if isinstance(row, dict) and isinstance(row.get("round"), int) else None
