"""Constraints that visibly contradict or repeat each other."""

import re

from lsp_lightning.checks.constraint import Constraint
from lsp_lightning.checks.constraint_kinds import COUNTS

_JSON = {"JSON", "JSON object", "JSON list"}
#: Pairs of sets: no answer can satisfy a kind of the first and a kind of the second.
_APART = (
    ({"lower case"}, {"capitals", "capitalized words", "capital letters"}),
    ({"JSON object"}, {"JSON list"}),
    (_JSON, {"bullet points", "numbered items", "quoted", "line initial", "acrostic"}),
    ({"line initial", "acrostic", "quoted"}, {"bullet points", "numbered items"}),
    ({"quoted"}, {"line initial", "acrostic", "start", "end"}),
)
#: An answer never has more of the kinds on the right than of the kind on the left.
_WITHIN = {
    "words": {"sentences", "word", "palindromes", "capitalized words", "words per sentence"},
    "lines": {"paragraphs", "bullet points", "numbered items"},
    "characters": {*COUNTS} - {"characters"},
}
#: An answer has at least as many of these as a text that it must contain.
_ADDS_UP = {"words", "characters", "word", "phrase", "letter", "questions"}
_ADDS_UP |= {"exclamation marks", "commas", "digits", "quotation marks", "punctuation marks"}
#: Punctuation marks that each of these has at least.
_MARKS = {"questions": 1, "exclamation marks": 1, "commas": 1, "quotation marks": 1}
_MARKS |= {"numbered items": 1, "highlights": 2, "placeholders": 2, "bold": 4}


def repeat(a: Constraint, b: Constraint) -> bool:
    """Whether two constraints on the same thing are equal or contradict each other."""
    if a.kind != b.kind or _folded(a) != _folded(b):
        return False
    return (a.low, a.high) == (b.low, b.high) or max(a.low, b.low) > min(a.high, b.high)


def _folded(constraint: Constraint) -> tuple[str, ...]:
    """The arguments, case-folded unless case matters for the kind."""
    arguments = constraint.arguments
    if constraint.kind == "JSON object":
        return arguments
    return tuple(text.casefold() for text in arguments)


def clash(a: Constraint, b: Constraint) -> bool:
    """Whether an answer that satisfies ``a`` visibly cannot satisfy ``b``."""
    if not a.demands:
        return False
    if b.demands and any(a.kind in these and b.kind in those for these, those in _APART):
        return True
    if a.kind in _WITHIN.get(b.kind, ()) and a.low > b.high:
        return True
    if _brings(a).get(b.kind, 0) > b.high:
        return True
    if a.kind in ("start", "end", "word", "phrase"):
        text = _whole_words(a) if b.kind == "word" else a.arguments[0]
        if b.kind in _ADDS_UP and any(n > b.high for n in b.counts(text)):
            return True
    return _edges_clash(a, b)


def _whole_words(a: Constraint) -> str:
    """The part of a text that an answer must contain whose words cannot become longer in it."""
    text = a.arguments[0]
    if a.kind in ("end", "phrase"):
        text = re.sub(r"^\w\S*", "", text)
    if a.kind in ("start", "phrase"):
        text = re.sub(r"\S*\w$", "", text)
    return text


def _brings(a: Constraint) -> dict[str, int]:
    """The smallest count of each kind in any answer that satisfies the constraint."""
    size, keys, brackets = len("".join(a.arguments)), len(a.arguments), 2
    brought = {
        "no repeated lines": {"lines": 2},
        "sorted lines": {"lines": 2},
        "no repeated words": {"words": 2},
        "acrostic": {"lines": size, "words": size},
        "JSON": {"punctuation marks": brackets},
        "JSON list": {"commas": a.low - 1, "punctuation marks": brackets + a.low - 1},
        "JSON object": {
            "commas": keys - 1,
            "quotation marks": 2 * keys,
            "punctuation marks": brackets + 4 * keys - 1,  # also a colon for each key
        },
        "numbered items": {"digits": a.low},
        "capitals": {"capital letters": 1},
        "capitalized words": {"capital letters": a.low},  # A1 is one
        "quoted": {"quotation marks": 2, "punctuation marks": 2},
        "bold": {"characters": 5 * a.low},
    }
    marks = {"punctuation marks": _MARKS.get(a.kind, 0) * a.low}
    return marks | brought.get(a.kind, {})


def _edges_clash(a: Constraint, b: Constraint) -> bool:
    """Whether ``a`` and ``b`` require different starts, or different ends, of an answer."""
    if a.kind not in ("start", "end"):
        return False
    text = a.arguments[0].casefold()
    if b.kind in _JSON:
        return text[0] not in "{[" if a.kind == "start" else text[-1] not in "}]"
    if a.kind != b.kind:
        return False
    other = b.arguments[0].casefold()
    fits = str.startswith if a.kind == "start" else str.endswith
    return not (fits(text, other) or fits(other, text))
