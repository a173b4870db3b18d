"""``lsp-lightning show RUN --compare N``: queries of the first and the last round side by side."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from lsp_lightning.runs.transcripts import by_query, is_answer, is_number, malformed
from lsp_lightning.text.terminal import columns, escaped, wrap

#: Lines of one query or answer.
_LINES = 6
_GAP = "   "
#: Characters of a text that are looked at; an answer may have megabytes.
_MOST_CHARACTERS = 4000

Row = Mapping[str, Any]


def side_by_side(rows: Sequence[Row], count: int, width: int) -> Iterator[str]:
    """The lines that compare the first queries of the first and of the last round.

    Each query has its mean R and its first answer below; a malformed or invalid one is named so.
    Queries that the gate refused are left out. Text of the players is escaped.

    Args:
        rows: rows of the transcripts.
        count: how many queries of each round.
        width: columns of the terminal.
    """
    rows = [row for row in rows if is_answer(row)]
    if not rows:
        return
    numbers = sorted({row["round"] for row in rows})
    room = max((width - len(_GAP)) // 2, 8)
    sides = [_groups(rows, number)[:count] for number in (numbers[0], numbers[-1])]
    # counted from 1, as the progress line above it in `make real`
    titles = [[f"round {number + 1}"] for number in (numbers[0], numbers[-1])]
    if len(numbers) == 1:  # nothing to compare it with
        sides[1], titles[1] = [], []
    yield from _beside(titles[0], titles[1], room)
    for before, after in zip_longest(*sides, fillvalue=()):
        yield ""
        yield from _beside(_told(before, room), _told(after, room), room)


def _groups(rows: Sequence[Row], number: int) -> list[list[Row]]:
    """The answers of each query of a round, in the order of the round."""
    return list(by_query(row for row in rows if row["round"] == number))


def _told(group: Sequence[Row], room: int) -> list[str]:
    """The lines of a query, what is wrong with it, its mean R and its first answer."""
    if not group:
        return []
    fault = "malformed, " if malformed(group[0]) else ""
    if group[0].get("valid") is False:  # the pilot counts such a query as invalid alone too
        fault = "invalid, "
    scores = [row.get("R") for row in group]
    known = [float(score) for score in scores if is_number(score)]
    mean = f"{sum(known) / len(known):.2f}" if known else "-"
    label = f"{fault}mean R {mean}, an answer:"
    below = [*wrap(label, room - 2, _LINES), *_lines(str(group[0]["answer"]), room - 2)]
    return [*_lines(str(group[0]["query"]), room), *(f"  {line}" for line in below)]


def _lines(text: str, room: int) -> list[str]:
    """A text with its line breaks, each line wrapped; at most ``_LINES`` lines."""
    lines = [
        piece
        for line in text.strip()[:_MOST_CHARACTERS].splitlines()
        if line.strip()
        for piece in wrap(escaped(line), room, _LINES)
    ]
    return lines if len(lines) <= _LINES else [*lines[: _LINES - 1], "..."]


def _beside(left: Sequence[str], right: Sequence[str], room: int) -> Iterator[str]:
    for a, b in zip_longest(left, right, fillvalue=""):
        yield f"{a}{' ' * max(0, room - columns(a))}{_GAP}{b}".rstrip()
