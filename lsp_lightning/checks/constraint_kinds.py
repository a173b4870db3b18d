"""The kinds of constraints: COUNTS (a count must lie in a range) and FORMS (an answer has a form).

The phrasings in these tables are the grammar of constraints and its documentation, with slots in
capitals: RANGE (at least N, at most N, exactly N, between N and M, no), WORD, TEXT, TEXTS and
LETTER. Answers may be hostile, so all code here takes time linear in the length of the answer.
"""

import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

Arguments = tuple[str, ...]

#: Letters and digits with their combining marks (Latin, then Indic to Thai and Lao); one apostrophe
#: may join two such parts. Underscores and hyphens separate words; otherwise a text could hide its
#: words.
_LETTERS = "[^\\W_\u0300-\u036f][\\w\u0300-\u036f\u0900-\u0963\u0966-\u0eff]*"
WORD = f"{_LETTERS}(?:'{_LETTERS})?"
_WORD = re.compile(WORD)
# the full stop in 3.14 ends no sentence
_SENTENCE_END = re.compile(
    # match only at the start of a run of marks: a search from each mark would be quadratic
    r"(?<![.!?\u2026])[.!?\u2026]++[\"')\]\u201d\u2019]*+(?=\s|$)|[\u3002\uff01\uff1f]+"
)
_BULLET = re.compile(r"[-*+\u2022]\s+\S")
_NUMBERED = re.compile(r"[0-9]{1,4}[.)]\s+\S")
_HIGHLIGHT = re.compile(r"\*[^*\s](?:[^*\n]*[^*\s])?\*")
_BOLD = re.compile(
    r"\*\*[^*\s](?:[^*\n]*[^*\s])?\*\*"
    r"|(?<![^\W_])__[^_\s](?:[^_\n]*[^_\s])?__(?![^\W_])"
)
#: Double quotation marks of any script, without those of code and of single quotations.
_QUOTES = '"\u201c\u201d\u201e\u201f\uff02\u00ab\u00bb\u300c\u300d\u300e\u300f\u301d\u301e\u301f'
_PLACEHOLDER = re.compile(r"\[[^\[\]\n]+\]")
_TITLE = re.compile(r"<<([^<>\n]+)>>")


def words(text: str) -> list[str]:
    """The words of a text, case-folded."""
    plain = text.replace("_", " ").replace("\u2019", "'")
    return [word.casefold() for word in _WORD.findall(plain)]


def sentences(text: str) -> list[str]:
    """The parts between sentence ends and blank lines that contain a word."""
    parts = (part for block in paragraphs(text) for part in _SENTENCE_END.split(block))
    return [part for part in parts if _WORD.search(part)]


def lines(text: str) -> list[str]:
    """The lines that are not blank, stripped."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def paragraphs(text: str) -> list[str]:
    """The blocks of lines between blank lines."""
    runs = groupby(text.splitlines(), key=lambda line: bool(line.strip()))
    return ["\n".join(run) for filled, run in runs if filled]


def document(text: str) -> Any:
    """The text read as a JSON object or list; None if it is anything else.

    NaN and Infinity are not JSON. Numbers of thousands of digits and thousands of nested levels
    count as invalid too, because Python cannot read them.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        value = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def _matching(pattern: re.Pattern[str], items: list[str]) -> int:
    return sum(pattern.match(item) is not None for item in items)


def _initials(text: str) -> str:
    return "".join(line[0] for line in lines(text)).casefold()


def _is_sorted(items: list[str]) -> bool:
    folded = [item.casefold() for item in items]
    return folded == sorted(folded)


@dataclass(frozen=True)
class Count:
    """A kind that counts something in an answer; the count must lie in a range.

    Args:
        phrasings: lines that ask for it. Without RANGE a line means at least 1; a line that starts
            with "do not" means 0.
        of: the counts in an answer that is not blank; each must lie in the range.
        least: the smallest count that an answer can have.
    """

    phrasings: tuple[str, ...]
    of: Callable[[str, Arguments], list[int]]
    least: int = 0


@dataclass(frozen=True)
class Form:
    """A kind that asks for a form; an answer either has it or does not.

    Args:
        phrasings: lines that ask for it.
        holds: whether an answer (stripped, not empty) has the form.
    """

    phrasings: tuple[str, ...]
    holds: Callable[[str, Arguments], bool]


def _number(count: Callable[[str], int]) -> Callable[[str, Arguments], list[int]]:
    return lambda text, arguments: [count(text)]


def _literal(text: str) -> str:
    return text.replace("\u2019", "'").casefold()


COUNTS: dict[str, Count] = {
    "words": Count(("RANGE words",), _number(lambda text: len(words(text))), 1),
    "sentences": Count(("RANGE sentences",), _number(lambda text: len(sentences(text))), 1),
    "paragraphs": Count(("RANGE paragraphs",), _number(lambda text: len(paragraphs(text))), 1),
    "lines": Count(("RANGE lines",), _number(lambda text: len(lines(text))), 1),
    "characters": Count(("RANGE characters",), _number(lambda text: len(text.strip())), 1),
    "words per sentence": Count(
        ("RANGE words in every sentence",),
        lambda text, _: [len(words(part)) for part in sentences(text)] or [0],
        1,
    ),
    "words per line": Count(
        ("RANGE words in every line",),
        lambda text, _: [len(words(line)) for line in lines(text)],
    ),
    "bullet points": Count(
        ("RANGE bullet points",), _number(lambda text: _matching(_BULLET, lines(text)))
    ),
    "numbered items": Count(
        ("RANGE numbered items",), _number(lambda text: _matching(_NUMBERED, lines(text)))
    ),
    "highlights": Count(
        ("RANGE highlighted sections *like this*",),
        _number(lambda text: len(_HIGHLIGHT.findall(text))),
    ),
    "placeholders": Count(
        ("RANGE placeholders in square brackets",),
        _number(lambda text: len(_PLACEHOLDER.findall(text))),
    ),
    "parts": Count(
        ("RANGE parts separated by ***",),
        _number(lambda text: sum(1 for part in text.split("***") if part.strip())),
    ),
    "word": Count(
        (
            "include the word WORD",
            "do not include the word WORD",
            "include the word WORD RANGE times",
        ),
        lambda text, arguments: [words(text).count(*words(arguments[0]))],
    ),
    "phrase": Count(
        (
            "include the phrase TEXT",
            "do not include the phrase TEXT",
            "include the phrase TEXT RANGE times",
        ),
        lambda text, arguments: [_literal(text).count(_literal(arguments[0]))],
    ),
    "letter": Count(
        ("include the letter LETTER RANGE times", "do not include the letter LETTER"),
        lambda text, arguments: [text.casefold().count(arguments[0].casefold())],
    ),
    "capitalized words": Count(
        ("RANGE words in all capitals",),
        _number(lambda text: sum(len(w) > 1 and w.isupper() for w in _WORD.findall(text))),
    ),
    "palindromes": Count(
        ("RANGE palindromes",),
        _number(lambda text: sum(len(w) > 2 and w == w[::-1] for w in words(text))),
    ),
    "questions": Count(
        ("RANGE question marks",), _number(lambda text: text.count("?") + text.count("\uff1f"))
    ),
    "exclamation marks": Count(
        ("RANGE exclamation marks",), _number(lambda text: text.count("!") + text.count("\uff01"))
    ),
    "commas": Count(
        ("RANGE commas",),
        _number(lambda text: sum(map(text.count, ",\u060c\u3001\uff0c"))),
    ),
    "capital letters": Count(
        ("RANGE capital letters",), _number(lambda text: sum(map(str.isupper, text)))
    ),
    "quotation marks": Count(
        ("RANGE quotation marks", "RANGE double quotes"),
        _number(lambda text: sum(map(text.count, _QUOTES))),
    ),
    "punctuation marks": Count(
        ("RANGE punctuation marks", "no punctuation"),
        _number(lambda text: sum(unicodedata.category(char)[0] == "P" for char in text)),
    ),
    "bold": Count(
        ("RANGE bold texts", "no bold formatting"), _number(lambda text: len(_BOLD.findall(text)))
    ),
    "digits": Count(("RANGE digits",), _number(lambda text: len(re.findall(r"\d", text)))),
    "JSON list": Count(
        ("a JSON list of RANGE items",),
        lambda text, _: [len(value) if isinstance(value := document(text), list) else -1],
    ),
}

FORMS: dict[str, Form] = {
    "start": Form(
        ("start with TEXT",),
        lambda text, arguments: _literal(text).startswith(_literal(arguments[0])),
    ),
    "end": Form(
        ("end with TEXT",),
        lambda text, arguments: _literal(text).endswith(_literal(arguments[0])),
    ),
    "JSON": Form(("valid JSON",), lambda text, _: document(text) is not None),
    "JSON object": Form(
        ("a JSON object with the keys TEXTS",),
        lambda text, keys: isinstance(value := document(text), dict) and value.keys() >= {*keys},
    ),
    "lower case": Form(("all lower case",), lambda text, _: text.islower()),
    "capitals": Form(("all capitals",), lambda text, _: text.isupper()),
    "quoted": Form(
        ("wrapped in double quotes",),
        lambda text, _: text[0] == text[-1] == '"' and bool(text[1:-1].strip()),
    ),
    "title": Form(
        ("a title in <<double angle brackets>>",),
        lambda text, _: any(title.strip() for title in _TITLE.findall(text)),
    ),
    "line initial": Form(
        ("every line starts with the letter LETTER",),
        lambda text, arguments: {*_initials(text)} == {arguments[0].casefold()},
    ),
    "acrostic": Form(
        ("the first letters of the lines spell WORD",),
        lambda text, arguments: _initials(text) == arguments[0].casefold(),
    ),
    "no repeated lines": Form(
        ("no repeated lines",), lambda text, _: len({*lines(text)}) == len(lines(text)) > 1
    ),
    "no repeated words": Form(
        ("no repeated words",), lambda text, _: len({*words(text)}) == len(words(text)) > 1
    ),
    "sorted lines": Form(
        ("the lines in alphabetical order",),
        lambda text, _: len(lines(text)) > 1 and _is_sorted(lines(text)),
    ),
}
