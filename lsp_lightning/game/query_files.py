"""Rows of a file of queries: JSON Lines, JSON, CSV, TSV, Parquet, text, or a Hub dataset.

Files may be hostile: the amount read at once is bounded, and a row that cannot be read is a BadRow.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from lsp_lightning.errors import ConfigError
from lsp_lightning.game.file_kinds import is_parquet
from lsp_lightning.game.hub_queries import HUB_SCHEME, hub_rows
from lsp_lightning.game.query_keys import QUERY_EXAMPLE, BadRow, Row, is_query_key, is_read
from lsp_lightning.game.query_paths import check_path
from lsp_lightning.paths import require_file

#: In bytes. Longer lines, and larger documents that can only be read as a whole, are refused.
LONGEST_LINE, LARGEST_JSON = 2**24, 2**26
#: Rows of Parquet that are read at once.
_BATCH = 64
_BOM = b"\xef\xbb\xbf"


_FORMATS = "use JSON Lines, JSON, CSV, TSV, Parquet or .txt"
#: What pandas, R and spreadsheets write into a cell without a value.
_NO_VALUE = frozenset(("NaN", "nan", "NA", "N/A", "n/a", "#N/A", "None", "null", "NULL"))


#: The rows of an opened file: its stream, its path, and the path and key of the config.
Parser = Callable[[IO[bytes], Path, str, str], Iterator[tuple[str, Row]]]


def read_rows(
    path: str, key: str, parse: Parser | None = None, is_column: Callable[[str], bool] = is_read
) -> Iterator[tuple[str, Row]]:
    """The rows of a file, each with its place.

    Args:
        path: the file, or a split of a Hub dataset.
        key: the config key.
        parse: reads the opened file; None reads queries in the file's format.
        is_column: whether a column of a Hub dataset is read.

    Raises:
        ConfigError: there is no such file, or its format cannot be read.
    """
    if path.startswith(HUB_SCHEME):
        yield from hub_rows(path, key, is_column)
        return
    check_path(path, key)
    file = require_file(path, key)
    try:
        with file.open("rb") as stream:
            yield from (parse or _rows)(stream, file, path, key)
    except OSError as error:
        raise ConfigError(key, f"cannot read {path!r} ({error})", "give a readable file") from error


def _rows(stream: IO[bytes], file: Path, path: str, key: str) -> Iterator[tuple[str, Row]]:
    """The rows in the format that the file's content shows, or else its name."""
    start = stream.read(4096)
    stream.seek(0)
    if is_parquet(start, path, key, _FORMATS):
        return parquet_rows(file, path, key, is_read)
    suffix, begins = file.suffix.lower(), start.removeprefix(_BOM).lstrip()[:1]
    if suffix in (".parquet", ".pq"):
        raise ConfigError(key, f"{path!r} is not Parquet, despite its name", _FORMATS)
    if suffix in (".csv", ".tsv"):
        return _csv(stream, start, path, key)
    if suffix == ".txt" and _is_table(start):
        return _csv(stream, start, path, key)
    if suffix == ".txt" and begins != b"{" and not re.match(rb"(?:\xef\xbb\xbf)?\s*\[\s*\{", start):
        return _text(stream)
    if begins == b"[" or (begins == b"{" and not _holds_rows(stream, suffix)):
        return _json(stream, path, key)
    if suffix in (".jsonl", ".ndjson", ".json") or begins in (b"{", b""):
        return json_lines(stream)
    problem = f"the format of {path!r} is unknown (its name ends in {suffix or 'nothing'!r})"
    raise ConfigError(key, problem, _FORMATS)


# -- text ------------------------------------------------------------------------------------------


def text_lines(
    stream: IO[bytes], remedy: str = "write one line for each query"
) -> Iterator[tuple[str, str | BadRow]]:
    """The lines of a text with their places, up to one that is too long.

    Only a line feed ends a line: JSON strings may contain other line separators unescaped.
    """
    number = 0
    while line := stream.readline(LONGEST_LINE + 1):
        number += 1
        place = f"line {number}"
        if len(line) > LONGEST_LINE:
            problem = f"is longer than {LONGEST_LINE >> 20} MiB"
            yield place, BadRow(problem, remedy)
            return
        try:
            yield place, line.removeprefix(_BOM if number == 1 else b"").decode("utf-8")
        except UnicodeDecodeError:
            yield place, BadRow("is not UTF-8 text", "save the file as UTF-8")


def _text(stream: IO[bytes]) -> Iterator[tuple[str, Row]]:
    """One query in each line that is not empty."""
    for place, line in text_lines(stream):
        if isinstance(line, BadRow):
            yield place, line
        elif line.strip():
            yield place, {"query": line}


def _csv(stream: IO[bytes], start: bytes, path: str, key: str) -> Iterator[tuple[str, Row]]:
    """The rows below a header; cells that are empty or NaN are None, except for a query NaN.

    The header tells whether commas, semicolons or tabs separate the cells.
    """
    top = start.removeprefix(_BOM).lstrip().split(b"\n")[0].decode("utf-8", "replace")
    separator = next((c for c in ",;\t" if any(map(is_query_key, _cells(top, c)))), ",")
    bad: list[tuple[str, BadRow]] = []

    def texts() -> Iterator[str]:
        for place, line in text_lines(stream):
            if isinstance(line, BadRow):
                bad.append((place, line))
                return
            yield line

    largest = csv.field_size_limit(LONGEST_LINE)
    reader = csv.reader(texts(), delimiter=separator, strict=True)
    try:
        header = next(filter(None, reader), [])
        if twice := sorted({name for name in header if header.count(name) > 1}):
            raise ConfigError(key, f"{path!r} has two columns named {twice[0]!r}", "rename one")
        if header and not any(map(is_query_key, header)):
            problem = f"{path!r} has no column 'query' (its header is {', '.join(header)[:200]!r})"
            raise ConfigError(key, problem, "name the column of the queries: query")
        for cells in filter(None, reader):
            place = f"line {reader.line_num}"
            if len(cells) == len(header):
                yield place, dict(map(_cell, header, cells))
            else:
                problem = f"has {len(cells)} cells for {len(header)} columns"
                yield place, BadRow(problem, "quote texts that contain the separator")
    except csv.Error as error:
        yield f"line {reader.line_num}", BadRow(f"is not CSV ({error})", "fix the quotes")
    finally:
        csv.field_size_limit(largest)
    yield from bad


def _is_table(start: bytes) -> bool:
    """Whether a text begins with a header such as query,solution."""
    top = start.removeprefix(_BOM).split(b"\n")[0].decode("utf-8", "replace")
    found = (_cells(top, separator) for separator in ",;\t")
    return any(len(cells) > 1 and all(map(is_read, cells)) for cells in found)


def _cell(name: str, text: str) -> tuple[str, str | None]:
    """The name and the value of a cell."""
    empty = not text.strip() or (text.strip() in _NO_VALUE and not is_query_key(name))
    return name, None if empty else text


def _cells(line: str, separator: str) -> list[str]:
    return [cell.strip().strip('"') for cell in line.split(separator)]


# -- JSON ------------------------------------------------------------------------------------------


def json_lines(stream: IO[bytes]) -> Iterator[tuple[str, Row]]:
    """One JSON object in each line that is not empty."""
    for place, line in text_lines(stream):
        if isinstance(line, BadRow):
            yield place, line
        elif line.strip():
            yield place, _row(_parsed(line.rstrip("\r\n")))


def _json(stream: IO[bytes], path: str, key: str) -> Iterator[tuple[str, Row]]:
    """The entries of an array, or of the one array in an object."""
    content = stream.read(LARGEST_JSON + 1)
    if len(content) > LARGEST_JSON:
        problem = f"{path!r} is one JSON document of more than {LARGEST_JSON >> 20} MiB"
        raise ConfigError(key, problem, "write JSON Lines: one object in each line")
    try:
        found = _parsed(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(key, f"{path!r} is not UTF-8 text", "save it as UTF-8") from error
    if isinstance(found, BadRow):
        raise ConfigError(key, f"{path!r} {found.problem}", found.remedy or QUERY_EXAMPLE)
    entries = found
    if isinstance(found, dict) and not any(map(is_query_key, found)):
        lists = [name for name, value in found.items() if isinstance(value, list)]
        if len(lists) != 1:
            problem = f"{path!r} is an object with {len(lists)} lists ({', '.join(lists)[:200]})"
            raise ConfigError(key, problem, "write one array of objects")
        entries = found[lists[0]]
    entries = entries if isinstance(entries, list) else [entries]
    yield from ((f"entry {i}", _row(entry)) for i, entry in enumerate(entries, start=1))


def _holds_rows(stream: IO[bytes], suffix: str) -> bool:
    """Whether a file that begins with a brace holds a row in each line, not one document."""
    lines = (line for _, line in text_lines(stream) if isinstance(line, BadRow) or line.strip())
    first, second = next(lines), next(lines, None)
    stream.seek(0)
    found = first if isinstance(first, BadRow) else _parsed(first)
    if isinstance(found, BadRow):
        return suffix != ".json"
    lists = [value for value in found.values() if isinstance(value, list)]
    if suffix != ".json":  # a row may hold lists: tests, messages
        lists = [rows for rows in lists if rows and isinstance(rows[0], dict)]
        lists = [rows for rows in lists if any(map(is_query_key, rows[0]))]
    return second is not None or any(map(is_query_key, found)) or not lists


def _parsed(text: str) -> Any:
    """A JSON value, or a BadRow."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except BadRow as bad:
        return bad
    except RecursionError:
        return BadRow("is nested too deep", "write a flat solution")
    except json.JSONDecodeError as error:
        where = f", line {error.lineno}" if error.lineno > 1 else ""
        return BadRow(f"is not JSON ({error.msg}{where})")
    except ValueError:  # Python reads no integer of more than 4300 digits
        return BadRow("contains a number with too many digits", "write the number as text")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadRow(f"has the key {twice!r} twice", "remove one")
    return found


def _row(entry: Any) -> Row:
    if isinstance(entry, dict | BadRow):
        return entry
    return BadRow("is not an object")


# -- Parquet ---------------------------------------------------------------------------------------


def parquet_rows(
    file: Path, path: str, key: str, is_column: Callable[[str], bool]
) -> Iterator[tuple[str, Row]]:
    """The rows of a table; of other columns than ``is_column`` allows, only the names are read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        table = pq.ParquetFile(file)
        names: list[str] = table.schema_arrow.names
        others = dict.fromkeys(name for name in names if not is_column(name))
        columns = [name for name in names if is_column(name)]
        for batch in table.iter_batches(_BATCH, columns=columns):
            for entry in batch.to_pylist():
                number += 1
                yield f"row {number}", others | entry
    except (pa.ArrowException, OSError, ValueError) as error:
        problem = f"{path!r} cannot be read as Parquet ({error})"
        raise ConfigError(key, problem, "write the file again") from error
