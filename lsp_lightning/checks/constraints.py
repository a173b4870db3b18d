"""Verifiable instructions: queries that end with constraints a program can check.

Such a query says what to do and ends with a block::

    Constraints:
    - at most 50 words
    - include the word "tiger"

The grammar is closed: a block is invalid if a line is unknown, or if two constraints visibly
contradict or repeat each other.
"""

import re
from collections.abc import Callable, Sequence
from itertools import combinations, product
from math import inf

from lsp_lightning.checks.constraint import KINDS, Constraint
from lsp_lightning.checks.constraint_conflicts import clash, repeat
from lsp_lightning.checks.constraint_kinds import COUNTS, FORMS, WORD, words

#: A block with more constraints, larger numbers or longer lines is invalid.
_MOST_CONSTRAINTS = 10
_LARGEST_NUMBER = 10_000
_LONGEST_LINE = 400

_NUMBER_WORDS = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen", "twenty",
)  # fmt: skip
_NUMBER = f"(?:[0-9]{{1,6}}|{'|'.join(_NUMBER_WORDS)})"
_N = f"({_NUMBER})"
#: Phrases for a range, with the bounds that follow from their numbers.
_RANGES: tuple[tuple[str, Callable[[int, int], tuple[int, float]]], ...] = (
    (f"(?:at least|no fewer than|no less than) {_N}", lambda n, m: (n, inf)),
    (f"(?:at most|no more than|up to) {_N}", lambda n, m: (0, n)),
    (f"more than {_N}", lambda n, m: (n + 1, inf)),
    (f"(?:fewer|less) than {_N}", lambda n, m: (0, n - 1)),
    (f"between {_N} (?:and|to) {_N}", lambda n, m: (n, m)),
    (f"{_N}(?: to |-|\u2013){_N}", lambda n, m: (n, m)),
    (f"(?:exactly )?{_N}", lambda n, m: (n, n)),
    ("no", lambda n, m: (0, 0)),
)
_QUOTED = '["\u201c][^"\u201c\u201d]+["\u201d]'
#: The pattern for a slot or word of a phrasing: what fills the slot, or synonyms of the word.
_SLOTS = {
    "RANGE": f"(?P<range>{'|'.join(way for way, _ in _RANGES).replace(_N, _NUMBER)})",
    "WORD": f"[\"\u201c\u2018']?(?P<texts>{WORD})[\"\u201d']?",
    "LETTER": '["\u201c]?(?P<texts>[^\\W\\d_])["\u201d]?',
    "TEXTS": f"(?P<texts>{_QUOTED}(?:(?:,? and |, ?){_QUOTED})*)",
    "TEXT": f"(?P<texts>{_QUOTED})",
    "do not": "(?:do not|don't|never)",
    "include": "(?:include|use|mention|contain)",
    "start": "(?:start|begin)",
    "end": "(?:end|finish)",
    "all": "(?:all|all in)",
    "every": "(?:every|each)",
}
_SLOT = re.compile(rf"\b(?:{'|'.join(_SLOTS)})\b")
_VERB = "(?:(?:use|write|include|contain|have|give|be|answer with|reply with) )?"
_HEADER = re.compile(r"(?:\*\*)?constraints:(?:\*\*)?", re.IGNORECASE)


#: Common synonyms, each with the grammar's wording.
_SYNONYMS = tuple(
    (re.compile(synonym, re.IGNORECASE), replacement)
    for synonym, replacement in (
        (r"^avoid the (word|phrase|letter)\b", r"do not include the \1"),
        (
            r"^(?:do not|don't|never) (?:use|write|include|contain|have|add)(?: any)?\b(?! the\b)",
            "no",
        ),
        (r"^(?:without|zero|avoid(?: using)?)(?: any)?\b(?! the\b)", "no"),
        (r"^(?:(?:use|write) )?(?:in )?(?:all capitals|all caps|all upper ?case)$", "all capitals"),
        (r"^(?:(?:use|write) )?(?:in )?(?:all )?lowercase$", "all lower case"),
        (r"\bupper ?case letters$", "capital letters"),
        (r"\bexclamation points?$", "exclamation marks"),
        (r"\bquestions marks?$", "question marks"),
        (r"^(include|start|begin|end|finish)e?s\b", r"\1"),
        (r"(?<!double )\bquotes$", "quotation marks"),
        (r"\b(words|sentences|lines|paragraphs|characters) long$", r"\1"),
    )
)


def _pattern(phrasing: str) -> re.Pattern[str]:
    """The pattern of the lines that a phrasing allows."""
    pattern = re.escape(phrasing).replace("\\ ", " ")
    pattern = re.sub(r"\b([a-z]{4,}s)\b", r"\1?", pattern)  # 2 items, 1 item
    return re.compile(_VERB + _SLOT.sub(lambda match: _SLOTS[match[0]], pattern), re.IGNORECASE)


def _default_range(phrasing: str) -> tuple[int, float]:
    return (0, 0) if phrasing.startswith(("do not ", "no ")) else (1, inf)


#: Kind, pattern, and the bounds if the line has no range.
_GRAMMAR = tuple(
    (kind, _pattern(phrasing), _default_range(phrasing))
    for kind in KINDS
    for phrasing in (COUNTS[kind] if kind in COUNTS else FORMS[kind]).phrasings
)


def parse_constraints(query: str) -> list[Constraint] | None:
    """The constraints at the end of a query.

    None if there is no block or no text before it, if a line is unknown or restricts nothing, or if
    two constraints visibly contradict or repeat each other.
    """
    above = [line.strip() for line in query.splitlines() if line.strip()]
    headers = [i for i, line in enumerate(above) if _HEADER.fullmatch(line)]
    if not headers or headers[-1] == 0:
        return None
    block = above[headers[-1] + 1 :]
    if not 0 < len(block) <= _MOST_CONSTRAINTS:
        return None
    read = [_read(line) for line in block]
    constraints = [constraint for constraint in read if constraint is not None]
    if len(constraints) < len(block) or any(
        repeat(a, b) or clash(a, b) or clash(b, a) for a, b in combinations(constraints, 2)
    ):
        return None
    return constraints


def _read(line: str) -> Constraint | None:
    """The constraint in one line of a block; None if the line is unknown or restricts nothing."""
    if len(line) > _LONGEST_LINE or line[:2] not in ("- ", "* ", "\u2022 "):
        return None
    text = line[2:].strip()
    plain = " ".join(text.replace("\u2019", "'").removesuffix(".").split())
    for line, (kind, pattern, bounds) in product((plain, _canonical(plain)), _GRAMMAR):
        match = pattern.fullmatch(line)
        if match is None:
            continue
        slots = match.groupdict()
        arguments = _arguments(slots.get("texts"))
        low, high = _bounds(slots["range"]) if slots.get("range") else bounds
        sound = _names_something(kind, arguments) and (
            kind in FORMS or _bounds_something(kind, low, high)
        )
        return Constraint(kind, arguments, low, high, text) if sound else None
    return None


def _canonical(line: str) -> str:
    """A line with every synonym of :data:`_SYNONYMS` replaced by the grammar's wording.

    What follows "the word", "the phrase" or "the letter" is the user's and stays as it is.
    """
    named = re.search(r"\bthe (?:word|phrase|letter)\b|[\"\u201c]", line, re.IGNORECASE)
    head, tail = (line[: named.end()], line[named.end() :]) if named else (line, "")
    for synonym, replacement in _SYNONYMS:
        head = synonym.sub(replacement, head)
    return head + tail


def _arguments(texts: str | None) -> tuple[str, ...]:
    """The quoted texts, or the one bare word."""
    if texts is None:
        return ()
    quoted = re.findall(_QUOTED, texts)
    return tuple(text[1:-1].strip() for text in quoted) if quoted else (texts,)


def _bounds(text: str) -> tuple[int, float]:
    for way, bounds in _RANGES:
        match = re.fullmatch(way, text, re.IGNORECASE)
        if match is not None:
            first, second = (*map(_number, match.groups()), 0, 0)[:2]
            return bounds(first, second)
    raise AssertionError(f"not a range: {text!r}")


def _number(text: str) -> int:
    word = text.lower()
    return _NUMBER_WORDS.index(word) + 1 if word in _NUMBER_WORDS else int(text)


def _bounds_something(kind: str, low: int, high: float) -> bool:
    """Whether some answers, but not all, have a count in this range."""
    numbers = [number for number in (low, high) if number != inf]
    possible = low <= high and high >= COUNTS[kind].least and max(numbers) <= _LARGEST_NUMBER
    return possible and (high < inf or low > COUNTS[kind].least)


def _names_something(kind: str, arguments: tuple[str, ...]) -> bool:
    """Whether each argument is what the kind needs: one word, one letter, or distinct texts."""
    if kind in ("word", "acrostic"):
        return all(len(words(text)) == 1 for text in arguments)
    if kind in ("letter", "line initial"):
        return all(len(text.casefold()) == 1 for text in arguments)
    return all(arguments) and len({*arguments}) == len(arguments)


def _phrasings() -> Sequence[str]:
    return [p for table in (COUNTS, FORMS) for kind in table.values() for p in kind.phrasings]


_LEGEND = (
    "RANGE: at least N, at most N, exactly N, between N and M, or no. WORD, LETTER: in quotes. "
    "TEXT: a few words in quotes; TEXTS: several. For example: at most 60 words"
)
#: The template that the Challenger fills in: a query with constraints, and all allowed lines.
CONSTRAINT_TEMPLATE = f"""\
[what to write: a clear task of your choice for a short text]
Constraints:
- [a line of this list with its capitals filled in: {"; ".join(_phrasings())}. {_LEGEND}]
- [another line of the list that can be kept together with the first]
- [one more, or leave it out]"""
