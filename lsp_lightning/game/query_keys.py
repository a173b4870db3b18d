"""Find the query and its solution, or a text, among the keys of a row of a file."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from rapidfuzz.distance import OSA

from lsp_lightning.checks.final_answers import last_box

#: Names that a file may use for a query, and for its known answer or tests.
QUERY_KEYS = ("query", "prompt", "question", "problem", "instruction", "input")
SOLUTION_KEYS = ("solution", "answer", "reference", "ground_truth")
#: Names of the known answer in some data sets. A misspelt key is never taken for one of them.
OTHER_SOLUTION_KEYS = ("final_answer", "expected_answer", "correct_answer", "target")
#: Names of the part of a file that a query belongs to, as in AlpacaEval.
SUBSET_KEYS = ("subset", "dataset")
#: Names that a file of documents may use for a text.
TEXT_KEYS = ("text", "passage", "document", "content", "context")
#: Names of a conversation, in which a query may be hidden.
_CHAT_KEYS = ("messages", "conversations", "conversation")

#: Half of a surrogate pair, which no file and no tokenizer takes.
HALF_PAIR = re.compile("[\ud800-\udfff]")
#: Deepest nesting of a solution: verifiers walk it, and send it to other processes.
_DEEPEST = 100
#: How a row of queries, and of documents, is written.
QUERY_EXAMPLE = 'write lines like {"query": "...", "solution": "..."}'
TEXT_EXAMPLE = 'write lines like {"text": "..."}'
_AS_TEXT = "write the solution as text or a number"
_ONE_MESSAGE = "write the content of the user's message as 'query'"
#: A solution with at least so many words is a worked one.
_WORKED = 5
#: A word that is one letter away from a key and means something else.
_OTHER_WORDS = ("preference",)
#: The last line of a worked solution in GSM8K: "#### 72".
_FINAL_LINE = re.compile(r"(?:^|\n)[ \t]*####[ \t]*([^\n#]+?)\s*\Z")


class BadRow(Exception):
    """A row that cannot be used.

    Args:
        problem: what is wrong with it; follows "line 3 of 'FILE'".
        remedy: what to do about it; None shows how a row is written.
    """

    def __init__(self, problem: str, remedy: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


#: The values of a row by column, or why it cannot be read.
Row = Mapping[str, Any] | BadRow


def plain_name(name: str) -> str:
    """A name as the keys are written: ``Ground Truth`` or ``groundTruth`` is ``ground_truth``."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[\s-]+", "_", parted).lower()


def is_query_key(name: str) -> bool:
    """Whether a name means the query."""
    return plain_name(name) in QUERY_KEYS


def is_text_key(name: str) -> bool:
    """Whether a name means the text of a document."""
    return plain_name(name) in TEXT_KEYS


def is_read(name: str) -> bool:
    """Whether a column may hold a query, a solution or the name of a subset."""
    return plain_name(name) in QUERY_KEYS + SOLUTION_KEYS + OTHER_SOLUTION_KEYS + SUBSET_KEYS


@dataclass(frozen=True)
class _Column:
    """A text that a row must have."""

    name: str
    """What it is called in messages."""
    keys: tuple[str, ...]
    """Names that a file may use for it."""
    example: str
    """What to write instead of a row without it."""

    @property
    def lacking(self) -> str:
        """The problem of a row without it."""
        return f"has no {self.name!r}" + (" text" if self.name != "text" else "")


_QUERY = _Column("query", QUERY_KEYS, QUERY_EXAMPLE)
_TEXT = _Column("text", TEXT_KEYS, TEXT_EXAMPLE)


def query_of(entry: Mapping[str, Any]) -> str:
    """The query of a row.

    Raises:
        BadRow: there is none, there are several, or it is not text.
    """
    return _text_of(entry, _QUERY)


def document_of(entry: Mapping[str, Any]) -> str:
    """The text of a row of documents; "" if it is blank.

    Raises:
        BadRow: there is none, there are several, or it is not text.
    """
    named = _named(entry, TEXT_KEYS)
    blank = [isinstance(value, str) and not value.strip() for value in named.values()]
    return "" if blank and all(blank) else _text_of(entry, _TEXT)


def _text_of(entry: Mapping[str, Any], column: _Column) -> str:
    """The one text that the keys of a column name; raise BadRow without exactly one."""
    named = _named(entry, column.keys)
    found = {name: value for name, value in named.items() if not _missing(value)} or named
    if not found:
        raise _without(column, entry)
    name, value = next(iter(found.items()))
    if any(other != value for other in found.values()):
        names = " and ".join(map(repr, found))
        both = set(map(plain_name, found)) == {"instruction", "input"}  # as in Alpaca
        remedy = "join both into one 'query'" if both else "keep one of them"
        raise BadRow(f"has {names}, and each could be the {column.name}", remedy)
    if not isinstance(value, str) or not value.strip():
        problem, remedy = f"is {_kind(value)}", f"write the {column.name} as text"
        if _is_chat(value):
            problem = "is a list of chat messages"
            remedy = _ONE_MESSAGE if column is _QUERY else remedy
        elif isinstance(value, str):
            problem = "is empty"
        raise BadRow(f"{column.lacking}: {name!r} {problem}", remedy)
    _require_plain(name, value)
    return value.strip()


def _without(column: _Column, entry: Mapping[str, Any]) -> BadRow:
    """The error for a row that names no such text."""
    near, problem = _near(entry, column.keys), column.lacking
    if near:
        return BadRow(f"{problem}, but the key {near[0]!r}", f"did you mean {near[1]!r}?")
    chat = any(plain_name(name) in _CHAT_KEYS or _is_chat(value) for name, value in entry.items())
    keys = f" (its keys are {_listed(entry)})" if entry else ""
    remedy = _ONE_MESSAGE if chat and column is _QUERY else column.example
    return BadRow(f"{problem}{keys}", remedy)


def _is_chat(value: object) -> bool:
    """Whether a value is a list of chat messages."""
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and ("role" in first or "from" in first)


def solution_of(entry: Mapping[str, Any]) -> object | None:
    """The known answer or tests of a row, or None.

    If a worked solution ends in the line ``#### 72``, as in GSM8K, only the 72 is taken.

    Raises:
        BadRow: there are several, or a key is misspelt, or the value cannot be used.
    """
    named = _named(entry, SOLUTION_KEYS + OTHER_SOLUTION_KEYS)
    given = {name: _single(value) for name, value in named.items()}
    found = {name: _usable(name, value) for name, value in given.items() if not _missing(value)}
    if not found:
        near = _near(entry, SOLUTION_KEYS)
        if near:
            raise BadRow(f"has the key {near[0]!r}", f"did you mean {near[1]!r}?")
        return None
    shortest: object = min(found.values(), key=lambda value: len(str(value)))
    if any(_disagree(value, shortest) for value in found.values()):
        names = " and ".join(map(repr, found))
        raise BadRow(f"has {names} with different values", "keep one of them")
    return shortest


def other_keys(entry: Mapping[str, Any]) -> list[str]:
    """The keys of a row that are ignored."""
    return [name for name in entry if not is_read(name)]


def _named(entry: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """The names that mean one of ``keys``, with their values."""
    return {name: value for name, value in entry.items() if plain_name(name) in keys}


def _missing(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _near(entry: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[str, str] | None:
    """A name that is a misspelt key, and the key; None if a key is there or nothing is near."""
    names = {name: plain_name(name) for name in entry if not is_read(name)}
    if any(plain_name(name) in keys for name in entry):
        return None
    for name, plain in names.items():
        for key in keys:
            close = abs(len(plain) - len(key)) <= 1 and OSA.distance(plain, key) <= 2
            if close and plain not in _OTHER_WORDS:
                return name, key
    return None


def _single(value: Any) -> Any:
    """The text of a list that holds nothing else, as in OlympiadBench; other values unchanged."""
    one = isinstance(value, list) and len(value) == 1 and isinstance(value[0], str)
    return value[0] if one else value


def _usable(name: str, value: Any) -> Any:
    """A solution as verifiers take it; raise BadRow for one that no verifier can use."""
    if isinstance(value, Decimal):
        value = format(value, "f")
    unknown = isinstance(value, list | dict) and not value
    if unknown or (isinstance(value, float) and not math.isfinite(value)):
        raise BadRow(f"has {value} as {name!r}", "write null if the solution is unknown")
    if isinstance(value, bool):
        raise BadRow(f"has {_kind(value)} as {name!r}", _AS_TEXT)
    if isinstance(value, str):
        final = _FINAL_LINE.search(value)
        value = final[1] if final else value
    _require_plain(name, value)
    return value


def _require_plain(name: str, value: Any) -> None:
    """Raise BadRow for texts with NUL or half of a surrogate pair, for deep nesting, and for values
    that JSON does not have."""
    level = [value]
    for _ in range(_DEEPEST):
        for text in level:
            if isinstance(text, str) and HALF_PAIR.search(text):
                raise BadRow(f"contains half of a surrogate pair in {name!r}", "fix the text")
            if isinstance(text, str) and "\0" in text:
                raise BadRow(f"contains a NUL character in {name!r}", "remove it")
            if not isinstance(text, str | int | float | list | dict | None):
                raise BadRow(f"has {_kind(text)} as {name!r}", _AS_TEXT)
        dicts = [part for part in level if isinstance(part, dict)]
        level = [part for inner in level if isinstance(inner, list) for part in inner]
        level += [part for inner in dicts for pair in inner.items() for part in pair]
        if not level:
            return
    raise BadRow(f"has a {name!r} nested more than {_DEEPEST} deep", "write a flat solution")


def _disagree(value: Any, shortest: Any) -> bool:
    """Whether two solutions differ, as far as their texts tell.

    A worked solution may write its result in another way than the answer beside it.
    """
    final, short = _final(value), _final(shortest)
    if final == short:
        return False
    text = str(value).strip()
    boxed = last_box(text) is not None and not text.startswith("\\boxed")
    if not boxed:
        return len(text.split()) < _WORKED or len(short.split()) >= _WORKED
    return _is_plain(final) and _is_plain(short)


def _final(value: Any) -> str:
    """What two solutions must agree on: the box that ends one, or all of it."""
    text = str(value).strip()
    box = last_box(text)
    text = text if box is None else box.strip()
    return text.lstrip("0") or "0" if text.isdigit() else text


def _is_plain(text: str) -> bool:
    return re.fullmatch(r"-?[0-9]+", text) is not None


def _kind(value: object) -> str:
    """A value in words, as in "is a list"."""
    if value is None or isinstance(value, bool):
        return str(json.dumps(value))
    if isinstance(value, tuple):  # Arrow's form of one
        return "a map"
    return "bytes" if isinstance(value, bytes) else f"a {type(value).__name__}"


def _listed(entry: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, list(entry)[:8]))[:200]
