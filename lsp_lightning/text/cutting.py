"""Shorten texts and token ids by cutting out their middle, and repair invalid text."""

from collections.abc import Mapping
from typing import TypeVar

#: Characters that a token has at most on average. A text that is longer than this for each token
#: of a limit is cut before it is tokenized, because tokenizing a long text takes time.
_CHARACTERS_PER_TOKEN = 16

Row = TypeVar("Row", str, list[int])


def cut_pair(query_ids: list[int], answer_ids: list[int], room: int) -> tuple[list[int], list[int]]:
    """Shorten a query and its answer to ``room`` tokens together, each by cutting its middle.

    The answer keeps all tokens if possible, but a quarter of the room stays for the query (or less,
    if the query is shorter): an answer cannot be judged alone.
    """
    answer_ids = cut_middle(answer_ids, room - min(len(query_ids), max(0, room) // 4))
    return cut_middle(query_ids, room - len(answer_ids)), answer_ids


def cut_slots(slots: Mapping[str, list[int]], room: int) -> dict[str, list[int]]:
    """Shorten the longest texts until all together have at most ``room`` tokens."""
    left, cut = max(0, room), {}
    for rest, (name, ids) in zip(
        range(len(slots), 0, -1), sorted(slots.items(), key=lambda item: len(item[1])), strict=True
    ):
        cut[name] = cut_middle(ids, left // rest)
        left -= len(cut[name])
    return {name: cut[name] for name in slots}


def cut_before_tokenizing(text: str, max_tokens: int) -> str:
    """Shorten a text that is certainly longer than ``max_tokens``, with a wide margin."""
    return cut_middle(text, max_tokens * _CHARACTERS_PER_TOKEN)


def cut_middle(row: Row, room: int) -> Row:
    """The start and the end of a row, ``room`` elements together; all of it if it is shorter."""
    if len(row) <= room:
        return row
    tail = max(0, room) // 2
    return row[: max(0, room) - tail] + row[len(row) - tail :]


def well_formed(text: str) -> str:
    """The text with U+FFFD in place of half surrogate pairs, which no tokenizer takes."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
