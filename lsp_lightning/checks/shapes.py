"""What the form of two answers says about them, before sympy reads them.

sympy multiplies letters in any order, so ABC would be CAB, and drops an item that a list repeats.
"""

import re
from collections.abc import Callable

_UNSEEN = re.compile(r"\\(?:left|right|displaystyle)(?![a-zA-Z])|(?:\s|\\[,;:! ]|~)+")
_FONT = re.compile(r"\\(?:text|mathrm|mathit|mathbf|operatorname)\{([^{}]*)\}")
_ACCENT = re.compile(r"\\(bar|vec|hat|tilde|dot|mathbb|mathcal)\s+([a-zA-Z])")
#: Points, codes and words in capitals; a number before a letter is a factor.
_CAPITALS = re.compile(r"[A-Z]{2,}|[A-Z]+[0-9]+[A-Z0-9]*")
#: A product of matrices with a transpose or an inverse.
_MATRICES = re.compile(r"(?=.*(?:turned|\^\{?-1))(?:[A-Z](?:_\{turned\}|\^\{?-?[0-9]\}?)*){2,}")
#: An angle and a segment have two ends.
_FIGURE = re.compile(
    r"(\\(?:m?angle|measuredangle|triangle|overline|widehat|overrightarrow|overleftrightarrow))"
    r"\{?([A-Z]{2,4})\}?"
)
_VECTOR = r"\\(?:vec|mathbf|boldsymbol|bm|overrightarrow)\{?[a-zA-Z]+\}?"
_NOT_COMMUTING = re.compile(rf"{_VECTOR}\\times{_VECTOR}|\\nabla")
_MARK = re.compile(r"_\{(?:prime[0-9]|inverse|turned|d[0-9n]?[a-z])\}")
_SET = re.compile(r"(?:[a-zA-Z]\s*(?:\\in|=)\s*)?\\\{.*\\\}", re.DOTALL)
_TUPLE = re.compile(r"\([^()]*(?:\([^()]*\)[^()]*)*\)")


def squeezed(content: str) -> str:
    """The content without what only changes its layout."""
    return _FONT.sub(r"\1", _UNSEEN.sub(_gap, _ACCENT.sub(r"\\\1{\2}", content)))


def _gap(match: re.Match[str]) -> str:
    """A space between two digits is seen: 3 4 is not 34."""
    start, end = match.span()
    before, after = match.string[max(start - 1, 0) : start], match.string[end : end + 1]
    return " " if before.isdigit() and after.isdigit() else ""


def as_written(value: str) -> str | None:
    """The value in one spelling if its letters must not be multiplied; None for other values."""
    text = squeezed(value)
    if _CAPITALS.fullmatch(text) or _MATRICES.fullmatch(text) or _NOT_COMMUTING.search(text):
        return text
    if match := _FIGURE.fullmatch(text):
        kind, points = match[1], match[2]
        ends_swap = "triangle" not in kind and "arrow" not in kind
        return f"{kind} {min(points, points[::-1]) if ends_swap else points}"
    return None


def differ_in_form(first: str, second: str) -> bool:
    """Whether two values differ whatever sympy says.

    (1, 2) is not {1, 2}, and an equation for f' is not one for f.
    """
    a, b = squeezed(first), squeezed(second)
    for one, other in ((a, b), (b, a)):
        if _SET.fullmatch(one) and _TUPLE.fullmatch(other) and "," in one and "," in other:
            return True
    if a.count("=") == b.count("=") == 1:
        return _MARK.findall(a.partition("=")[0]) != _MARK.findall(b.partition("=")[0])
    return False


def repeats_differ(first: str, second: str, same: Callable[[str, str], bool]) -> bool:
    """Whether two lists of equal length repeat different items: 1, 1, 2 and 1, 2, 2."""
    lists = [_items(squeezed(value)) for value in (first, second)]
    if len(lists[0]) != len(lists[1]) or all(len(set(items)) == len(items) for items in lists):
        return False
    left = list(lists[1])
    for item in lists[0]:
        found = next((other for other in left if item == other or same(item, other)), None)
        if found is None:
            return True
        left.remove(found)
    return False


def _items(value: str) -> list[str]:
    """The items of a list of plain items; one item if it has brackets inside."""
    inner = re.sub(r"^\\\{|\\\}$", "", value)
    return inner.split(",") if not re.search(r"[()\[\]{}]", inner) and len(inner) < 200 else [inner]
