"""Reading a run's transcripts, while it is played too, whatever state their files are in."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
            skipped(f"skipped {path.name}: {' '.join(str(error).split())[:200]}")
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
        text = shard.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        skipped(f"skipped {shard.name}: {error}")
        return []
    rows: list[Row] = []
    lines = text.split("\n")  # not splitlines: an answer may contain other line separators
    damaged = 0
    for line in lines[:-1]:  # the last one is being written
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict) and row.keys() >= _NEEDED and isinstance(row["round"], int):
            rows.append(row)
        else:
            damaged += 1
    if damaged:
        skipped(f"skipped {damaged} damaged lines of {shard.name}")
    return rows
