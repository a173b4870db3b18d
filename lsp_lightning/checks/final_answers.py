"""Find the final answer of a mathematical text, and refuse answers that should not be compared.

The final answer of a text is its last complete ``\\boxed{...}``. Without a box it is what the text
states as its answer (:mod:`lsp_lightning.checks.statements`), and in the mode "last" what
math-verify finds, at least the last expression. A list, ``\\boxed{1, 2}``, is one answer, the set
of its items: it equals neither 1 nor 2.

Answers may be hostile. Two kinds count as no answer, unless the solution is of that kind itself:
answers that would keep sympy busy for very long (:func:`explodes`) and answers that name several
candidates (:func:`hedges`).
"""

import re
from itertools import accumulate, pairwise
from math import comb
from typing import Literal

from lsp_lightning.checks.notation import plain_content, to_latex
from lsp_lightning.checks.statements import (
    REFUSED,
    stated_answer,
    without_list_numbers,
    without_markup,
)

#: Where the final answer may be: in a box, or also stated in words, or also anywhere.
Final = Literal["boxed", "stated", "last"]

#: Of a text longer than this, in characters, only the tail is read.
_LONG_TEXT = 20_000
_TAIL = 2_000
#: In characters; a longer answer counts as none, because sympy would take very long.
_LONGEST_ANSWER = 1_000

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_UNDOLLARED = re.compile(r"^\$+(?!\s*[0-9.]+$)|^\$+(?=.*\$$)|(?<!\\)\$+$", re.DOTALL)
_EDGES = re.compile(r"^=\s*|(?<!\\)[,;\s]+$")
_BRACES = re.compile(rf"(?P<box>{_BOX.pattern})|\\.|[{{}}]", re.DOTALL)

_FORMULA = re.compile(r"[0-9\\]|\$[^$\s]")
#: A line that calls itself the answer ("the answer is 3"), for texts without a box.
_CLAIM = re.compile(rf"answer.*(?:{_FORMULA.pattern})", re.IGNORECASE)
_DEEPEST = 50
_UNSEEN = re.compile(
    r"\s|\\(?:left|right|[,;:! ]|displaystyle)(?![a-zA-Z])|(?<=[0-9]),(?=[0-9]{3})"
)
_TIMES = re.compile(r"\*\*|\\cdot|\\times")
#: In these patterns "#" stands for a power or a factorial of numbers.
_GROUP = re.compile(r"[({\[]([-+*/.0-9#]+)[)}\]]")
_POWER = re.compile(r"(?<![0-9#])[0-9#]++(?:\^[-+]?[0-9]+|!)")
_EXPLOSION = re.compile(
    r"\^[-+]?(?:[0-9]{5}|[0-9.]*#|[0-9#]+\^)"  # x^{10000}, 2^{3^4}, 2^3^4
    r"|\^[({][^(){}]*(?:#|(?<![0-9.])[0-9]{5})"  # the same in a longer exponent
    r"|\\(?:sum|prod)(?:\\limits)?_(?:\{[^{}]*)?(?:#|[0-9]{5})"
    r"|[0-9]{4}!|!!|#!|#\^[-+]?[0-9]{3}"  # 1000!, (3!)!, (2^3)^{100}
)
_SUM_POWER = re.compile(r"\(([^()]*)\)\^([0-9]{1,4})")
#: Largest number of terms of a power of a sum: sympy expands (x+y+1)^{100} to compare it.
_MOST_TERMS = 5_000
_SUBSCRIPT = re.compile(r"_\{[^{}]*\}")
_BRACKETS = re.compile(r"[({\[][^(){}\[\]]*[)}\]]")
_BAR = re.compile(r"\\(?:vert|mid)(?![a-zA-Z])|(?<!\\)\|")
_EITHER = re.compile(
    r"\\(?:lor|vee|to|implies|iff|mapsto|(?:x|long|Long)?(?:left|Left)?[rR]ightarrow)(?![a-zA-Z])"
    r"|[-=]>|[\u2228\u2192\u21d2]"
)
_NUMBER = r"(?<![0-9])[-+]?[0-9]++(?:\.[0-9]++)?"
_PLAIN = re.compile(_NUMBER)
_OR = rf"{_NUMBER}\s*(?:or|\||\\lor|\\vee)\s*{_NUMBER}"
#: "3 or 4": right after "answer", or at the end of a line without that word.
_UNBOXED_OR = re.compile(rf"answer[^0-9]*?{_OR}|^(?!.*answer).*?{_OR}[^0-9]*$", re.IGNORECASE)


def last_box(text: str) -> str | None:
    """Content of the complete box that opens last; None if no box is complete."""
    last: tuple[int, int] | None = None
    opened: list[int | None] = []  # start of each open box's content; None for a plain brace
    for match in _BRACES.finditer(text):
        if match["box"]:
            opened.append(match.end())
        elif match[0] == "{":
            opened.append(None)
        elif match[0] == "}" and opened:
            start = opened.pop()
            if start is not None and (last is None or start > last[0]):
                last = (start, match.start())
    return None if last is None else text[last[0] : last[1]]


def final_answer(text: str, final: Final = "last") -> str:
    """The part of a text for math-verify to read; "" if the text has no final answer."""
    window = to_latex(text if len(text) <= _LONG_TEXT else text[-_TAIL:])
    box = last_box(window)
    if box is not None or final == "boxed":
        return _boxed(box or "")
    tail = without_markup(window[-_TAIL:])
    stated = stated_answer(tail)
    if stated is None:
        return without_list_numbers(tail).strip() if final == "last" else ""
    return "" if stated == REFUSED else _boxed(stated)


def boxed_solution(solution: str) -> str:
    """The solution inside of ``\\boxed{}``, where math-verify reads it best.

    Only the content of its last box if the solution has one, or else the answer that its words
    state; "" if that is empty or too long.
    """
    if len(solution) > _LONG_TEXT:
        return ""
    solution = to_latex(solution)
    box = last_box(solution)
    if box is None and len(solution.split()) > 3:
        box = stated_answer(without_markup(solution))
    return _boxed(solution if box is None else box)


def _boxed(content: str) -> str:
    if len(content) > 2 * _LONGEST_ANSWER:
        return ""
    content = plain_content(_EDGES.sub("", _UNDOLLARED.sub("", content.strip()).strip()))
    return f"\\boxed{{{content}}}" if 0 < len(content) <= _LONGEST_ANSWER else ""


def explodes(answer: str) -> bool:
    """Whether sympy would need very long to compute a final answer.

    Looks at the text only, for towers of powers, huge exponents, factorials and sums, and deep
    nesting.
    """
    box = last_box(answer)
    # an exclamation mark at the end of a word is not a factorial
    claim = re.sub(r"!+(?=\s|$)", "", _claim(answer)) if box is None else box
    text = _TIMES.sub(lambda match: "^" if match[0] == "**" else "*", _UNSEEN.sub("", claim))
    if _depth(text) > _DEEPEST:
        return True
    before = ""
    while text != before:  # from the inside out, one level of brackets at a time
        before = text
        text = _GROUP.sub(_collapsed, text)
        if _EXPLOSION.search(text) or any(map(_is_long, _SUM_POWER.finditer(text))):
            return True
        text = _POWER.sub("#", text)
    return False


def hedges(answer: str) -> bool:
    """Whether a final answer offers several ("3 or 4", 4 => 3) or contradicts itself (4 = 3).

    A list is one answer, the set of its items. So is "or" in a box: math-verify reads it as a list.
    """
    box = last_box(answer)
    if box is None:
        return _UNBOXED_OR.search(_claim(answer)) is not None
    if _EITHER.search(_SUBSCRIPT.sub("", box)):  # without subscripts: a limit has an arrow there
        return True
    sides = [side.strip().replace(",", "") for side in box.split("=")]
    numbers = [float(side) if _PLAIN.fullmatch(side) else None for side in sides]
    if any(a is not None and b is not None and a != b for a, b in pairwise(numbers)):
        return True
    before = ""
    while box != before:  # the bar in P(A|B) or {x | x > 0} does not separate answers
        before, box = box, _BRACKETS.sub("", box)
    return len(_BAR.findall(box)) % 2 == 1


def _claim(answer: str) -> str:
    """The line of a text without a box that holds the final answer; "" if there is none."""
    lines = answer.splitlines()[::-1]
    named = (line for line in lines if _CLAIM.search(line))
    return next(named, next((line for line in lines if _FORMULA.search(line)), ""))


def _depth(text: str) -> int:
    steps = (1 if c in "({[" else -1 if c in ")}]" else 0 for c in text)
    return max(accumulate(steps), default=0)


def _collapsed(match: re.Match[str]) -> str:
    """Replace numbers in brackets by one number about as long as their result."""
    inside = match[1]
    if "#" in inside:
        return "#"
    parts = re.findall(r"[0-9]+", inside.split(".")[0] if inside.count(".") == 1 else inside)
    return "".join(parts) if "*" in inside else max(parts, key=len, default="")


def _is_long(power: re.Match[str]) -> bool:
    """Whether the power of a sum has too many terms."""
    signs = min(len(re.findall(r"[-+]", power[1])), 5)
    variable = re.search(r"[a-zA-Z]", power[1]) is not None
    return variable and comb(int(power[2]) + signs, signs) > _MOST_TERMS


def comparable(answer: str, solution: str = "") -> str:
    """The answer if it may be compared with the solution, else ""."""
    refused = any(kind(answer) and not kind(solution) for kind in (explodes, hedges))
    return "" if refused else answer
