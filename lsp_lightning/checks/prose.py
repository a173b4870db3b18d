"""Read the value that the last sentence of a text gives: "so the speed is 3 \\times 10^8 m/s".

The sentence is one answer as a whole. Words and signs around its last number that change it
(:mod:`lsp_lightning.checks.phrases`) make it no answer, and values joined by "and", "or" or commas
are a list.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from lsp_lightning.checks import phrases
from lsp_lightning.checks.unit_names import is_unit
from lsp_lightning.checks.words import MULTIPLE, changed

#: A text that gives a value and takes it back, or says too little about it.
REFUSED = "refused"

SEGMENT = re.compile(
    r"\$\$([^$]+)\$\$|\$((?:\\.|[^$\n\\])+)\$(?![0-9])|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL
)
#: A full stop ends a sentence before a space, or before a sign of a script without spaces.
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|(?<![\d\s])[.!?](?=[^\x00-\x7f])")
_NUMBER = r"[0-9]+(?:[.,'][0-9]+)*(?: [0-9]{3}(?![0-9/]))*|\.[0-9]+"
_LATIN = "a-zA-Z\u00c0-\u024f"
_TOKEN = re.compile(
    r"(?P<segment>\$\$[^$]+\$\$|\$(?:\\.|[^$\n\\])+\$(?![0-9])|\\\(.+?\\\)|\\\[.+?\\\])"
    rf"|(?P<number>{_NUMBER})"
    r"|(?P<command>\\(?:text|mathrm|operatorname)\s*\{[^{}]*\}|\\[a-zA-Z]+|\\.)"
    rf"|(?P<word>[aAI](?= [a-zA-Z]{{2}})|[{_LATIN}](?:[{_LATIN}]|'(?=[a-zA-Z]))+"
    rf"|[^\W\d_{_LATIN}](?:[^\W\d_{_LATIN}]"
    r"|[\u0300-\u036f\u0591-\u05c7\u064b-\u0652\u0900-\u0903\u093a-\u094f\u0e31-\u0e4e])*)"
    r"|(?P<letter>[a-zA-Z])"
    r"|(?P<sign>[-+*/^_=<>|&%~{(\[\u2192\u21d2\u2228$\u00a2\u00a3\u00a5\u20ac\u20b9])"
    r"|(?P<close>[!)}\]])"
    r"|(?P<comma>,)|(?P<colon>:)|(?P<gap>\s+)|(?P<stop>.)",
    re.DOTALL,
)
_FUNCTION = re.compile(
    r"(?<![a-zA-Z\\])(?:sqrt\s*(?:\(([^()]*)\)|([0-9.]*[0-9]|[a-zA-Z](?![a-zA-Z])))"
    r"|(log|ln|sin|cos|tan|exp)(?=\s*[_(0-9^]|\s+[a-zA-Z](?![a-zA-Z]))|(pi)(?![a-zA-Z]))"
)
_TIMES = re.compile(r"(?<=[0-9]) x (?=[0-9])")
_EDGES = re.compile(r"^[\s=:,;~*_/\u2192\u21d2]+|[\s,;:!=_*^]+$")
#: A dash after a word: "answer - 5", "covid-19"; "x is - 5" has a sign.
_HYPHEN = re.compile(
    r"[^\W\d_](?:-.|(?<!\bis)(?<!\bist)(?<!\best)(?<!\bes)(?<!\bbe)(?<!equals)\s+-\s)$"
)
_MINUS = re.compile(r"^-\s+(?=[0-9.\\])")
#: Numbers and signs with an operation, without variables.
_CALCULATION = re.compile(
    r"(?=.*[-+*/^(\\])(?:[-+*/^().,0-9\s{}$!%]|\\(?:times|cdot|[dt]?frac|div|sqrt)(?![a-zA-Z])|\\\$)+"
)
_DASH = re.compile(r"\s-+$")
_SOME_VALUE = re.compile(
    r"[0-9]|\\(?!text|mathrm|[\s,;:!])[a-zA-Z]|^[$\\].*[a-zA-Z)]\s*[-+*/^=]\s*[a-zA-Z(]"
)
#: "5 6", and not the base and the argument of a logarithm.
NUMBERS_IN_A_ROW = re.compile(r"(?<![_^0-9])[0-9]++\s+[0-9]")
_MIXED = re.compile(r"[0-9]\s+[0-9]+/[0-9]|[0-9] [0-9]{3}")
_SCALE = re.compile(rf"\s*({MULTIPLE})", re.IGNORECASE)
_UNIT_START = re.compile(
    r"[^\s,;.()0-9^]+(?:\^\{?[23]\}?)?(?: [^\s,;.()0-9^]+(?:\^\{?[23]\}?)?){0,2}"
)
_LONGEST_LIST = 20


@dataclass(frozen=True)
class Value:
    """A formula in a sentence."""

    formula: str
    start: int
    end: int


def with_functions(text: str) -> str:
    """The text with sqrt(2), log_2 5, pi and 3 x 10 as LaTeX."""

    def command(match: re.Match[str]) -> str:
        if name := match[3] or match[4]:
            return rf"\{name}" + (
                "" if match.string[match.end() : match.end() + 1] in ("_", "^", "(") else " "
            )
        return rf"\sqrt{{{match[1] or match[2] or ''}}}"

    return _TIMES.sub(r" \\times ", _FUNCTION.sub(command, text))


def last_value(text: str) -> str | None:
    """The value of the last sentence that has one, as LaTeX.

    None if no sentence has a value; :data:`REFUSED` if its value is denied or changed by words.
    """
    for line in reversed(text.splitlines()):
        for sentence in reversed(_sentences(line)):
            if sentence.endswith("?"):
                continue
            sentence = phrases.without_contrast(sentence)
            found = values(sentence)
            if found:
                return _read(sentence, found)
    return None


def _sentences(line: str) -> list[str]:
    ends = [match.end() for match in _SENTENCE_END.finditer(line)]
    starts = [0, *ends]
    return [line[a:b].strip() for a, b in zip(starts, [*ends, len(line)], strict=True)]


def values(sentence: str) -> list[Value]:
    """The formulas of a sentence that have a value; not the number in "step 5" or in "m^2"."""
    found: list[Value] = []
    for start, end in _runs(sentence):
        raw = balanced(sentence[start:end])
        formula = _EDGES.sub("", raw)
        if raw[:1] == "-" and _HYPHEN.search(sentence[max(0, start - 20) : start + 2]):
            formula = formula.lstrip("- ")
        start += raw.find(formula)
        unit = sentence[found[-1].end : start].isspace() if found else False
        if not _SOME_VALUE.search(formula):
            continue
        if formula[0].isalpha() and "=" not in formula and (unit or _in_word(sentence, start)):
            continue
        if phrases.LABEL.search(sentence[max(0, start - phrases.NEAR) : start]):
            continue
        found.append(Value(formula, start, start + len(formula)))
    return found


def _in_word(sentence: str, start: int) -> bool:
    return start > 0 and sentence[start - 1] in "^/"


def _runs(sentence: str) -> Iterator[tuple[int, int]]:
    """Start and end of each run of numbers, letters and signs that belong together."""
    start, last, gap, depth, after_word = -1, "", False, 0, False
    for token in _TOKEN.finditer(sentence):
        kind = token.lastgroup or ""
        if kind == "gap":
            gap, after_word = True, False
            continue
        inside = start >= 0 and depth > 0
        if start >= 0 and not _joins(kind, last, gap, inside, token, sentence):
            yield start, token.start()
            start, depth = -1, 0
        # the 2 of cm^2 and of cm2 is no value
        in_word = after_word and (token[0] in "^_{" or last == "sign" or kind == "number")
        if start < 0 and not in_word and kind not in ("word", "close", "comma", "colon", "stop"):
            start = token.start()
        if start >= 0:
            depth += token[0].endswith(tuple("({[")) - token[0].endswith(tuple(")}]"))
        latin = kind == "word" and token[0][-1] < "\u0250"
        after_word = latin or (in_word and kind == "sign")
        last, gap = kind, False
    if start >= 0:
        yield start, len(sentence)


def _joins(
    kind: str, last: str, gap: bool, inside: bool, token: re.Match[str], sentence: str
) -> bool:
    """Whether a token belongs to the run before it."""
    if kind in ("word", "segment") or last == "segment":
        return False
    if kind in ("stop", "comma", "colon"):
        pair = sentence[max(0, token.start() - 2) : token.end() + 2]
        ratio = kind == "colon" and re.search(r"[0-9a-z)}]:[0-9a-z\\(]|[0-9a-z)}] : [0-9\\(]", pair)
        return bool(ratio) or (inside and kind != "stop")
    if last == "comma" or inside:
        return True
    if kind in ("command", "close") or last in ("sign", "colon", "command"):
        return True
    if kind == "sign":
        return token[0] not in "({[$" or not gap
    if kind == "letter":
        return not gap
    if kind == "number":
        return not gap or last == "number"
    return False


def balanced(formula: str) -> str:
    """The formula up to a bracket that is closed but not opened, without one that stays open."""
    opened: list[int] = []
    for place, sign in enumerate(formula):
        if sign in "({[":
            opened.append(place)
        elif sign in ")}]":
            if not opened:
                return formula[:place]
            opened.pop()
    return formula[: opened[0]] if opened else formula


def _read(sentence: str, found: list[Value]) -> str:
    """The answer that a sentence gives by its last value, or by its last list of values."""
    items = _last_list(sentence, found)
    first, last = items[0], items[-1]
    before, after = sentence[: first.start], sentence[last.end :]
    gaps = [sentence[a.end : b.start] for a, b in pairwise(found)]
    previous = gaps[-len(items)] if len(found) > len(items) else ""
    refused = (
        phrases.denied(before, after)
        or phrases.changed_around(before, after)
        or (gaps and (phrases.CONDITION.match(gaps[-1]) or phrases.GUESS.search(gaps[-1])))
        or (previous and _one_term(previous, after))
    )
    if refused:
        return REFUSED
    if len(items) > 1:
        if phrases.COMBINED.search(before[-phrases.NEAR :]):
            return REFUSED
        return ", ".join(_plain(item.formula) for item in items)
    minus = phrases.MINUS.search(before[-phrases.NEAR :])
    formula = f"-{_plain(last.formula)}" if minus else last.formula
    return with_words_after(formula, after)


def _one_term(between: str, after: str) -> bool:
    """Whether words make one term or one quantity of two values: 3 times 5, 6 feet 5 inches."""
    units = is_unit(between.strip()) and unit_at(after.strip(" .,!?:;"))
    return bool(units) or phrases.OPERATION.fullmatch(between) is not None


def _last_list(sentence: str, found: list[Value]) -> list[Value]:
    """The last value and those before it that are joined to it."""
    items, joined_by_word = [found[-1]], False
    for value in reversed(found[-_LONGEST_LIST:-1]):
        between = sentence[value.end : items[0].start]
        if not phrases.JOINER.fullmatch(between) or not between.strip():
            break
        joined_by_word |= not phrases.COMMA.fullmatch(between)
        items.insert(0, value)
    # "In 2020, 5 people came" is no list
    listed = joined_by_word or not re.match(r"\s*[^\W\d_]", sentence[items[-1].end :])
    return items if listed else items[-1:]


def _plain(formula: str) -> str:
    segment = SEGMENT.fullmatch(formula)
    return next(group for group in segment.groups() if group is not None) if segment else formula


def with_words_after(formula: str, after: str) -> str:
    """The formula with the multiple or unit that follows it; REFUSED if words change it."""
    formula = _plain(formula)
    if NUMBERS_IN_A_ROW.search(formula) and not _MIXED.search(formula):
        return REFUSED
    formula = _MINUS.sub("-", _result(formula))
    if _DASH.search(formula) or after[:1].isalpha():  # a dash in the sentence, a 5-mile walk
        formula = formula.rstrip("- ")
    if formula[-1:] in tuple("-+/<>&|~"):
        return REFUSED
    scale = _SCALE.match(after)
    if scale:
        formula, after = f"{formula} {scale[1]}", after[scale.end() :]
    if changed(after):
        return REFUSED
    unit = unit_at(after.strip(" .,!?:;"))
    return f"{formula} {unit}" if unit else formula


def _result(formula: str) -> str:
    """The last side of a calculation: 15 for 3 * 5 = 15; other equations are kept."""
    sides = formula.split("=")
    calculated = all(map(_CALCULATION.fullmatch, sides[:-1]))
    return sides[-1].strip() if len(sides) > 1 and calculated and sides[-1].strip() else formula


def unit_at(rest: str) -> str:
    """The unit that the words begin with, "square meters" before "square"; "" if it is none."""
    found = _UNIT_START.match(rest)
    while found:
        words = rest[: found.end()].strip()
        if is_unit(words):
            return words
        found = _UNIT_START.match(rest, 0, len(words.rpartition(" ")[0]))
    return ""
