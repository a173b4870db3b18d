"""``lsp-lightning show RUN``: a run's queries and answers as a table. Imports nothing heavy."""

import argparse
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from lsp_lightning.cli.compare import side_by_side
from lsp_lightning.errors import ConfigError, in_one_line
from lsp_lightning.runs import RunFolder
from lsp_lightning.runs.breadth_table import breadth_lines
from lsp_lightning.runs.transcripts import is_answer, is_number, verdict, yes_or_no
from lsp_lightning.text.terminal import cut, escaped, width_of, wrap

_USAGE = "write lsp-lightning show runs/NAME [--round T] [--sort round | reward | quality]"
_SORTS = {"round": "", "reward": "R", "quality": "Q"}
_LIMIT = 40
#: Lines of one query or answer.
_LINES = 3
#: Columns of the reason why a query was refused.
_REASON = 25
#: With fewer columns than this beside the scores, a text is printed below them.
_NARROW = 20

Row = Mapping[str, Any]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise ConfigError."""
        more = "[--limit N] [--compare N] [--breadth]"
        raise ConfigError("show", in_one_line(message), f"{_USAGE} {more}")


def show(args: Sequence[str]) -> int:
    """Print the queries and answers of a run. -> the exit status.

    Raises:
        ConfigError: the folder is not a run's or lacks transcripts or the round, or a flag is
            wrong.
    """
    parser = _Parser(prog="lsp-lightning show", description=show_help(), allow_abbrev=False)
    parser.add_argument("run", help="the folder of a run, such as runs/tiny_lsp")
    parser.add_argument(
        "--round", type=int, help="only this round, from 0 as in metrics.csv; -1 is the last"
    )
    parser.add_argument(
        "--sort", choices=list(_SORTS), default="round", help="reward and quality: highest first"
    )
    parser.add_argument(
        "--limit", type=int, default=_LIMIT, help=f"most answers; 0 is all, the default {_LIMIT}"
    )
    parser.add_argument(
        "--compare", type=int, help="show N queries of the first and last rounds side by side"
    )
    parser.add_argument(
        "--breadth", action="store_true", help="show how varied the queries are during the run"
    )
    typed = parser.parse_args(args)
    _check(typed)
    rows = RunFolder(typed.run).transcripts(lambda line: print(in_one_line(line), file=sys.stderr))
    width = width_of(sys.stdout) - 1
    if typed.compare or typed.breadth:
        compared = side_by_side(rows, typed.compare, width) if typed.compare else ()
        for line in breadth_lines(rows, width) if typed.breadth else compared:
            print(line)
        return 0
    if typed.round is not None:
        rows = _of_round(rows, typed.round)
    column = _SORTS[typed.sort]
    if column:
        rows.sort(key=lambda row: -_number(row.get(column), -math.inf))
    shown = rows[: typed.limit] if typed.limit else rows
    for line in table(shown, width, yes_or_no(rows)):
        print(line)
    if len(shown) < len(rows):
        what = "answers" if all(map(is_answer, rows)) else "answers and refused queries"
        print(f"{len(shown)} of {len(rows):,} {what}; --limit 0 shows all")
    return 0


def _check(typed: argparse.Namespace) -> None:
    """Raise ConfigError if a number is wrong, or flags exclude each other."""
    if typed.limit < 0:
        raise ConfigError("show --limit", f"is {typed.limit}", "set 0 (all) or more")
    if typed.compare is not None and typed.compare < 1:
        raise ConfigError("show --compare", f"is {typed.compare}", "set 1 or more")
    narrowed = (typed.round, typed.sort, typed.limit) != (None, "round", _LIMIT)
    if typed.breadth and (narrowed or typed.compare):
        problem = "cannot be combined with --round, --sort, --limit or --compare"
        raise ConfigError("show --breadth", problem, "leave them out")
    if typed.compare and narrowed:
        problem = "cannot be combined with --round, --sort or --limit"
        raise ConfigError("show --compare", problem, "leave them out")


def show_help() -> str:
    """What the command does, in one sentence."""
    return "Print a run's queries and answers with their R, Q and verdict, while it is played too."


def table(rows: Sequence[Row], width: int, binary: set[str]) -> Iterator[str]:
    """The lines of the table, each of at most ``width`` columns: a query, then its answers.

    A query that the gate refused has none. A passage stands in one line above the queries about
    it. Text of the players is escaped.

    Args:
        rows: rows of the transcripts.
        width: columns of the terminal.
        binary: the rewards that score 1 for right and 0 for wrong (:func:`yes_or_no`).
    """
    yield f"{'round':>5}  {'R':>6}  {'Q':>6}  {'verdict':<9}  query, answers"[: max(width, 0)]
    before = above = None
    for row in rows:
        query = row["round"], row["query"]
        if query != before or not is_answer(row):
            passage = row["round"], row.get("passage")
            if is_answer(row) and passage != above:
                yield from _passage_line(*passage, width)
                above = passage
            yield from _lines(f"{row['round']:>5}  {_fault(row):<14}  ", row["query"], width)
        before = query if is_answer(row) else None
        if before is None:
            continue
        scores = f"{_score(row.get('R'))}  {_score(row.get('Q'))}"
        yield from _lines(f"{'':5}  {scores}  {verdict(row, binary):<9}  ", row["answer"], width)


def _passage_line(round_: object, passage: object, width: int) -> Iterator[str]:
    """The beginning of a passage; nothing if there is none."""
    if passage is not None:
        yield from _lines(f"{round_:>5}  {'passage':<14}  ", passage, width, lines=1)


def _fault(row: Row) -> str:
    """What sets the row's query apart, such as what kept it out of training; else empty."""
    if (reason := row.get("refused")) is not None:
        return cut(f"refused ({escaped(str(reason)[:_REASON])})", _REASON)
    if row.get("valid") is False:
        return "invalid"
    marks = {name: row.get(name) is True for name in ("past", "replayed")}
    marks["not admitted"] = row.get("admitted") is False
    return ", ".join(mark for mark, holds in marks.items() if holds)


def _lines(before: str, text: object, width: int, lines: int = _LINES) -> Iterator[str]:
    if width - len(before) < _NARROW:
        yield before.rstrip()[: max(width, 0)]
        before = "  "
    room = max(width - len(before), 3)
    # an answer may have megabytes; at most two characters in three take no column
    start = str(text).strip()[: 3 * (lines * room + 1)]
    first, *rest = wrap(escaped(start), room, lines)
    yield before + first
    for line in rest:
        yield " " * len(before) + line


def _score(value: object) -> str:
    number = _number(value, math.nan)
    return f"{'-':>6}" if math.isnan(number) else f"{number:>z6.2f}"


def _number(value: object, default: float) -> float:
    """A score, or ``default`` if it was not judged."""
    return float(value) if is_number(value) else default


def _of_round(rows: Sequence[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    """The rows of a round; a negative number counts from the last one that is kept."""
    rounds = sorted({row["round"] for row in rows})
    if number < 0 and -number <= len(rounds):
        number = rounds[number]
    found = [row for row in rows if row["round"] == number]
    if not found:
        kept = f"{rounds[0]} to {rounds[-1]}" if rounds else "none"
        raise ConfigError(
            "show --round",
            f"there is no round {number} in the transcripts",
            f"rounds are counted from 0, and {kept} are kept",
        )
    return found
