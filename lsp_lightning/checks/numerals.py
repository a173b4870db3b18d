"""Numbers in English words, and answers that are a word: "seven", "two thirds", "yes"."""

import re
from itertools import pairwise

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SMALL = {word: value for value, word in enumerate(_ONES.split())} | {
    word: 10 * (value + 2) for value, word in enumerate(_TENS.split())
}
_LARGE = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_PARTS = {
    "half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fourth": 4,
    "fourths": 4, "fifth": 5, "fifths": 5, "sixth": 6, "sixths": 6, "seventh": 7, "sevenths": 7,
    "eighth": 8, "eighths": 8, "ninth": 9, "ninths": 9, "tenth": 10, "tenths": 10,
}  # fmt: skip
_WORD = "|".join([*_SMALL, *_LARGE])
_SIGN = r"(?:(negative|minus)\s+)?"
_NUMERAL = re.compile(
    rf"{_SIGN}((?:{_WORD})(?:(?:[\s-]+(?:and\s+)?)(?:{_WORD}))*+)"
    rf"(?:[\s-]+({'|'.join(_PARTS)}))?(?![\w-]|\s+of\b|\s+(?:and\s+)?(?:a|{'|'.join(_PARTS)})\b)",
    re.IGNORECASE,
)
_HALF = re.compile(rf"{_SIGN}(?:an?\s+)({'|'.join(_PARTS)})(?![\w-]|\s+of\b)", re.IGNORECASE)


def numeral(text: str) -> tuple[str, str]:
    """The number in words that a text begins with, as LaTeX, and the rest; "" if there is none."""
    if match := _HALF.match(text):
        return _signed(match[1], rf"\frac{{1}}{{{_PARTS[match[2].lower()]}}}"), text[match.end() :]
    match = _NUMERAL.match(text)
    number = _number(re.findall(r"[a-z]+", match[2].lower())) if match else None
    if match is None or number is None:
        return "", text
    part = _PARTS.get((match[3] or "").lower())
    found = str(number) if part is None else rf"\frac{{{number}}}{{{part}}}"
    return _signed(match[1], found), text[match.end() :]


def _signed(sign: str | None, number: str) -> str:
    return f"-{number}" if sign else number


def _number(words: list[str]) -> int | None:
    """The value of "two hundred and five"; None for words in an order that is no number."""
    total = current = 0
    last = 10**12  # what may follow must be smaller: "twenty five", and not "five twenty"
    for word in words:
        if word in _LARGE:
            if not current:
                return None
            current, last = current * _LARGE[word], _LARGE[word]
            if _LARGE[word] > 100:
                total, current = total + current, 0
        elif word in _SMALL:
            value = _SMALL[word]
            if value >= last or (last < 100 and (value > 9 or last < 20)):
                return None
            current, last = current + value, max(value, 1)
    return total + current


_TEXT = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|operatorname|mbox|emph)\s*\{([^{}]*)\}"
)
_WORDS = re.compile(r"[^\W\d_]+(?:[ '-][^\W\d_]+){0,4}")
#: Short words that are no products of variables.
_SHORT = frozenset(["no", "on", "up", "in", "ok", "ne", "nw", "se", "sw"])
_OPENER = re.compile(r"(yes|no|true|false)\b\s*[,.;:!-]\s*(.*)", re.IGNORECASE | re.DOTALL)
_BOTH = re.compile(r"\b(?:yes|no|true|false)\b", re.IGNORECASE)
_IS = re.compile(r"\b(?:is|are|was|were|be|equals)\b\s*|[:=]\s*", re.IGNORECASE)
_CLAIMED = re.compile(
    r"\b(?:answer|result|solution|conclusion)\b[^\n.:]{0,60}?(?:\bis\b|:)[\s:]*([^\n.,;!?]*)",
    re.IGNORECASE,
)


def word_of(content: str, solution: bool = False) -> str:
    """An answer that is a word, in small letters: "yes", "new york"; "" if it is none.

    With ``solution``, letters that may be a product of variables are no word: xy, abc, mgh.
    """
    inside = _TEXT.sub(r"\1", content)
    plain = " ".join(inside.strip().strip("$").strip(" .,!*").split())
    opener = _OPENER.match(plain)
    if opener and not _BOTH.search(opener[2]):
        plain = opener[1]
    if len(plain) < 2 or not _WORDS.fullmatch(plain):
        return ""
    word = re.sub(r"^(?:the|an?) (?=.)", "", plain.casefold())
    return word if not solution or inside != content or _is_word(word) else ""


def _is_word(word: str) -> bool:
    if not word.isalpha() or not word.isascii() or word in _SHORT:
        return True
    spoken = re.search("[aeiou]", word) and re.search("[^aeiou]", word)
    in_order = all(ord(b) - ord(a) == 1 for a, b in pairwise(word))  # abc
    return len(word) > 2 and spoken is not None and not in_order


def said_word(text: str, last: bool) -> str:
    """The word that a text without a box gives as its answer: "the answer is Monday".

    With ``last``, also the last word that its last sentence says of something.
    """
    lines = [line.strip() for line in text.splitlines() if re.search(r"\w", line)]
    for line, following in reversed([*pairwise([*lines, ""])]):
        claims = _CLAIMED.findall(line)
        if claims:
            return word_of(claims[-1] or following)
    sentence = re.split(r"[.!?](?=\s|$)", lines[-1].rstrip(" .!"))[-1] if lines else ""
    parts = _IS.split(sentence)
    if len(parts) == 1 or _OPENER.match(sentence):
        return word_of(sentence)
    return word_of(parts[-1]) if last else ""
