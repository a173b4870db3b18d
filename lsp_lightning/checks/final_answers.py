"""Find the final answer of a mathematical text, and refuse answers that should not be compared.

The final answer of a text is its last complete ``\\boxed{...}``, with the boxes that are joined to
it. Without a box it is what the text states as its answer (:mod:`lsp_lightning.checks.statements`),
and in the mode "last" the value of its last sentence that has one
(:mod:`lsp_lightning.checks.prose`). A list, ``\\boxed{1, 2}``, is one answer, the set of its items:
it equals neither 1 nor 2.

Some kinds count as no answer, unless the solution is of that kind itself: answers that would keep
sympy busy for very long (:func:`explodes`), that name several candidates (:func:`hedges`), and
placeholders (:func:`blank`).
"""

import re
from itertools import accumulate, pairwise
from math import comb
from typing import Literal

from lsp_lightning.checks.notation import plain_content, to_latex
from lsp_lightning.checks.numerals import numeral, said_word, word_of
from lsp_lightning.checks.phrases import NEAR, TAKES_BACK, denied
from lsp_lightning.checks.prose import REFUSED, last_value, with_functions
from lsp_lightning.checks.statements import (
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

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*\{")
#: \boxed 5, without braces.
_OPEN_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*(-?[0-9.,]*[0-9]|[A-Za-z](?![A-Za-z]))")
#: Between two boxes of one answer: \boxed{6} and y = \boxed{5}
_BETWEEN = re.compile(
    r"[\s$]*(?:[,;]|and|or|\\text\s*\{\s*(?:and|or)\s*\}|\\quad|\\[,; ])+[\s$]*(?:([a-z]\s*=)\s*)?"
)
_RETRACTION = re.compile(rf"[\s.!$]*{TAKES_BACK}", re.IGNORECASE)
_SENTENCE = re.compile(r"[.!?](?=\s)|\n")
#: Commands that leave a place empty.
_EMPTY = re.compile(
    r"\\text\{dots\}|\\(?:square|Box|blacksquare|[lcv]?dots|dots[cbmio]|q?quad|underline|text(?:bf|it|rm)?|mathrm|[dt]?frac"
    r"|sqrt|phantom|hspace|boxed|left|right)(?![a-zA-Z])|\\[^a-zA-Z]|[\W_]"
)
_PLACEHOLDER = re.compile(
    r"(?:(?:insert|put|enter|write|the|your|my|final|correct|numerical)\s*)*"
    r"(?:answer|result|solution|number|value|expression)(?:\s*(?:here|goes\s*here))?|todo|tbd|n/?a|unknown|"
    r"(?:i\s*)?(?:do\s*not|don'?t|can'?t|cannot)\s*(?:know|tell|say)|idk|not\s*sure|no\s*(?:idea|answer)|null|nan",
    re.IGNORECASE,
)
_OPTION_WORD = re.compile(r"(?:option|choice|answer)\s+\(?([A-J])\)?\.?", re.IGNORECASE)
_TEXT = re.compile(r"\\(?:text|textbf|textrm|mathrm|mbox)\s*\{([^{}]*)\}\.?")
_LETTER = re.compile(r"([A-Za-z])\.")
_NOT = re.compile(r"\bnot\b\s*\}?\s*[-$\\]?\s*[0-9]", re.IGNORECASE)
_UNDOLLARED = re.compile(r"^\$+(?!\s*[0-9.]+$)|^\$+(?=.*\$$)|(?<!\\)\$+$", re.DOTALL)
_MARGIN = re.compile(r"^(?:\\[ ,;:!]|[~\s]|\\q?quad(?![a-z]))+|(?:\\[ ,;:!]|[~\s]|\\q?quad)+$")
_EDGES = re.compile(r"^=\s*|(?<!\\)[,;\s]+$")
_BRACES = re.compile(rf"(?P<box>{_BOX.pattern})|\\.|[{{}}]", re.DOTALL)

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


def last_box(text: str) -> str | None:
    """Content of the complete box that opens last; None if no box is complete."""
    boxes = _boxes(text)
    return text[boxes[-1][1] : boxes[-1][2]] if boxes else None


def _boxes(text: str) -> list[tuple[int, int, int]]:
    """Start of each complete box, and start and end of its content; the last opens last."""
    found: list[tuple[int, int, int]] = []
    opened: list[tuple[int, int] | None] = []  # the open boxes; None for a plain brace
    for match in _BRACES.finditer(text):
        if match["box"]:
            opened.append((match.start(), match.end()))
        elif match[0] == "{":
            opened.append(None)
        elif match[0] == "}" and opened:
            box = opened.pop()
            if box is not None:
                found.append((*box, match.start()))
    return sorted(found)


def final_answer(text: str, final: Final = "last", word: bool = False) -> str:
    """The final answer of a text, in a box; "" if it has none.

    With ``word``, an answer that is a word also counts: "the statement is true".
    """
    window = text if len(text) <= _LONG_TEXT else text[-_TAIL:]
    window = _OPEN_BOX.sub(r"\\boxed{\1}", to_latex(window))
    boxes = _boxes(window)
    if boxes or final == "boxed":
        answer = _in_boxes(window, boxes) if boxes else ""
        after = window[boxes[-1][2] + 1 :] if boxes else ""
        taken_back = _RETRACTION.match(after) and final != "boxed"
        instead = stated_answer(with_functions(after[-_TAIL:])) if taken_back else None
        return _boxed(answer if instead is None else instead)
    if _BOX.search(window[-_TAIL:]):  # one that was never closed
        return ""
    tail = with_functions(window[-_TAIL:])
    plain = without_markup(tail)
    if word and (said := said_word(plain, final == "last")):
        return _boxed(rf"\text{{{said}}}")
    stated = stated_answer(tail, final == "stated")
    if stated is None and final == "last":
        stated = last_value(without_list_numbers(plain))
    return _boxed(stated or "")


def _in_boxes(text: str, boxes: list[tuple[int, int, int]]) -> str:
    """The content of the last box, or a list of those joined to it; REFUSED if words deny it."""
    start, inner, end = boxes[-1]
    items = [text[inner:end]]
    after = text[end + 1 : end + 1 + NEAR].lstrip("$* ")
    for earlier, first, last in reversed(boxes[:-1]):
        between = _BETWEEN.fullmatch(text, last + 1, start) if last < start else None
        if between is None or "\n" in between[0]:
            break
        items[0] = (between[1] or "") + items[0]
        items.insert(0, text[first:last])
        start = earlier
    before = _SENTENCE.split(text[max(0, start - NEAR) : start])[-1].rstrip("$* ")
    either = len(items) > 1 and re.search(r"\beither$", before, re.IGNORECASE)
    if either or denied(before, " " + _SENTENCE.split(after + " ")[0]):
        return REFUSED
    return ", ".join(items)


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
        box = stated_answer(solution)
    return _boxed(solution if box is None else box)


def _boxed(content: str) -> str:
    if len(content) > 2 * _LONGEST_ANSWER or content == REFUSED:
        return ""
    content = _in_figures(_MARGIN.sub("", content))
    content = plain_content(_EDGES.sub("", _UNDOLLARED.sub("", content.strip()).strip()))
    return f"\\boxed{{{content}}}" if 0 < len(content) <= _LONGEST_ANSWER else ""


def _in_figures(content: str) -> str:
    """Words as mathematics: "forty-two" is 42, "option C" and "C." are C."""
    text = _TEXT.fullmatch(content)
    words = (text[1] if text else content).strip()
    if option := _OPTION_WORD.fullmatch(words) or _LETTER.fullmatch(words):
        return option[1]
    number, rest = numeral(words)
    if not number or not (rest.strip() == "" or re.fullmatch(r"[a-zA-Z .]+", rest)):
        return content
    return f"{number}\\text{{{rest}}}" if rest.strip(" .") else number


def word_solution(boxed: str) -> str:
    """The word that a solution is, in small letters: "yes"; "" if it is mathematics."""
    return word_of(last_box(boxed) or "", solution=True)


def given_word(boxed: str) -> str:
    """The word that an answer is; "" if it is mathematics."""
    return word_of(last_box(boxed) or "")


def explodes(answer: str) -> bool:
    """Whether sympy would need very long to compute a final answer, which is a box.

    Looks at the text only, for towers of powers, huge exponents, factorials and sums, and deep
    nesting.
    """
    box = _UNSEEN.sub("", last_box(answer) or "")
    text = _TIMES.sub(lambda match: "^" if match[0] == "**" else "*", box)
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
    box = last_box(answer) or ""
    if _NOT.search(box):
        return True
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


def blank(answer: str) -> bool:
    """Whether a box has no answer: no letter or digit, a placeholder, or "I don't know"."""
    content = last_box(answer)
    if content is None:  # a brace that ends in the backslash before it
        return bool(answer)
    words = _TEXT.sub(r"\1", content).strip(" []<>{}().?!$_*")
    nothing = not _EMPTY.sub("", content) and r"\{" not in content  # \{\} is the empty set
    return nothing or _PLACEHOLDER.fullmatch(words) is not None


def comparable(answer: str, solution: str = "") -> str:
    """The answer if it may be compared with the solution, else ""."""
    if not answer:
        return ""
    refused = any(kind(answer) and not kind(solution) for kind in (explodes, hedges, blank))
    return "" if refused else answer
