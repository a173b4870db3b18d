"""Are two answers mathematically equal? Asked of worker processes, about hostile texts.

The final answer of a text is its last complete ``\\boxed{...}``, and only that; without a box it is
what math-verify finds ("final answer is ...", "answer: ...", else the last expression). An answer
that lists candidates, ``\\boxed{1, 2}``, is the set of them and not right for either.

Two kinds of answers count as none, unless the gold answer is of that kind itself: those that would
only keep sympy busy (:func:`explodes`) and those that do not commit themselves (:func:`hedges`).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, combinations, pairwise
from math import comb, nan
from typing import Any

from lsp_lightning.runtime.workers import LineWorkers

_WORKER = "lsp_lightning.checks.maths_worker"
#: Only the last characters of a longer text are read.
_LONG_TEXT = 20_000
_TAIL = 2_000
#: Longer than any answer to a question; sympy would take its time.
_LONGEST_ANSWER = 1_000

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACES = re.compile(rf"(?P<box>{_BOX.pattern})|\\.|[{{}}]", re.DOTALL)
_INTEGER = re.compile(r"value -?[0-9]+")

_FORMULA = re.compile(r"[0-9\\]|\$[^$\s]")
#: The line that an unboxed answer stands on, if it calls it so.
_CLAIM = re.compile(rf"answer.*(?:{_FORMULA.pattern})", re.IGNORECASE)
_DEEPEST = 50
_UNSEEN = re.compile(
    r"\s|\\(?:left|right|[,;:! ]|displaystyle)(?![a-zA-Z])|(?<=[0-9]),(?=[0-9]{3})"
)
_TIMES = re.compile(r"\*\*|\\cdot|\\times")
#: In these "#" stands for a power or a factorial of numbers.
_GROUP = re.compile(r"[({\[]([-+*/.0-9#]+)[)}\]]")
_POWER = re.compile(r"(?<![0-9#])[0-9#]++(?:\^[-+]?[0-9]+|!)")
_EXPLOSION = re.compile(
    r"\^[-+]?(?:[0-9]{5}|[0-9.]*#|[0-9#]+\^)"  # x^{10000}, 2^{3^4}, 2^3^4
    r"|\^[({][^(){}]*(?:#|(?<![0-9.])[0-9]{5})"  # the same in a longer exponent
    r"|\\(?:sum|prod)(?:\\limits)?_(?:\{[^{}]*)?(?:#|[0-9]{5})"
    r"|[0-9]{4}!|!!|#!|#\^[-+]?[0-9]{3}"  # 1000!, (3!)!, (2^3)^{100}
)
_SUM_POWER = re.compile(r"\(([^()]*)\)\^([0-9]{1,4})")
#: More terms, for (x+y+1)^{100} is multiplied out in comparisons.
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
#: The first number after "answer", or else the last of the line, with another one beside it.
_UNBOXED_OR = re.compile(rf"answer[^0-9]*?{_OR}|^(?!.*answer).*?{_OR}[^0-9]*$", re.IGNORECASE)

#: Forms of two answers -> equal, different, or None where the comparison was given up.
_Equality = Mapping[tuple[str, str], bool | None]


def last_box(text: str) -> str | None:
    """What stands in the box that opens last among those that close; None without such a box."""
    last: tuple[int, int] | None = None
    opened: list[int | None] = []  # where a box's content starts; None for a plain brace
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


def final_answer(text: str) -> str:
    """The part of a text that math-verify is to read; "" where there is no final answer."""
    window = text if len(text) <= _LONG_TEXT else text[-_TAIL:]
    box = last_box(window)
    return window[-_TAIL:].strip() if box is None else _boxed(box)


def gold_answer(gold: str) -> str:
    """A gold answer as math-verify reads it best, in a box; it may have one of its own."""
    box = last_box(gold)
    return _boxed(gold if box is None else box)


def _boxed(content: str) -> str:
    content = content.strip().strip("$").strip()
    return f"\\boxed{{{content}}}" if 0 < len(content) <= _LONGEST_ANSWER else ""


def explodes(answer: str) -> bool:
    """Whether a final answer is a number, or a formula, that sympy would compute for ages.

    A look at the text: towers of powers, huge exponents, factorials and sums, deep nesting.
    """
    box = last_box(answer)
    # an exclamation mark after a word is none of mathematics
    claim = re.sub(r"!+(?=\s|$)", "", _claim(answer)) if box is None else box
    text = _TIMES.sub(lambda match: "^" if match[0] == "**" else "*", _UNSEEN.sub("", claim))
    if _depth(text) > _DEEPEST:
        return True
    before = ""
    while text != before:  # from the inside out, one bracket level at a time
        before = text
        text = _GROUP.sub(_collapsed, text)
        if _EXPLOSION.search(text) or any(map(_is_long, _SUM_POWER.finditer(text))):
            return True
        text = _POWER.sub("#", text)
    return False


def hedges(answer: str) -> bool:
    """Whether a final answer offers several ("3 or 4", 4 => 3) or contradicts itself (4 = 3).

    A list is one answer, the set; so is "or" in a box, which math-verify reads as a list.
    """
    box = last_box(answer)
    if box is None:
        return _UNBOXED_OR.search(_claim(answer)) is not None
    if _EITHER.search(_SUBSCRIPT.sub("", box)):  # a limit may have an arrow below
        return True
    sides = [side.strip().replace(",", "") for side in box.split("=")]
    numbers = [float(side) if _PLAIN.fullmatch(side) else None for side in sides]
    if any(a is not None and b is not None and a != b for a, b in pairwise(numbers)):
        return True
    before = ""
    while box != before:  # the bar of P(A|B) or {x | x > 0} parts no answers
        before, box = box, _BRACKETS.sub("", box)
    return len(_BAR.findall(box)) % 2 == 1


def _claim(answer: str) -> str:
    """The line of an unboxed answer that has it; "" if there is none."""
    lines = answer.splitlines()[::-1]
    named = (line for line in lines if _CLAIM.search(line))
    return next(named, next((line for line in lines if _FORMULA.search(line)), ""))


def _depth(text: str) -> int:
    steps = (1 if c in "({[" else -1 if c in ")}]" else 0 for c in text)
    return max(accumulate(steps), default=0)


def _collapsed(match: re.Match[str]) -> str:
    """Numbers in brackets as one that is about as long as their result."""
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


def _judged(answer: str, gold: str = "") -> str:
    """The answer if it is to be compared with the gold one, else ""."""
    refused = any(kind(answer) and not kind(gold) for kind in (explodes, hedges))
    return "" if refused else answer


class MathChecker:
    """Compares answers by math-verify.

    Copies and pickles hold the settings only. Any thread may call any method.

    Args:
        processes: worker processes, started when they are first needed.
        seconds: time for one comparison; an answer that takes longer is undecided.
    """

    def __init__(self, processes: int = 2, seconds: float = 2.0) -> None:
        self.seconds = seconds
        self._workers = LineWorkers(_WORKER, processes)

    def prefetch(self, text: str, gold: str | None = None) -> None:
        """Begin what :meth:`grade` (:meth:`classes`, without a gold answer) will ask of a text."""
        boxed = "" if gold is None else gold_answer(gold)
        answer = _judged(final_answer(text), boxed)
        right = [["form", boxed], ["right", boxed, answer]]
        for request in [["form", answer]] if gold is None else right:
            if all(request):
                self._workers.prefetch(request, self.seconds)

    def grade(self, pairs: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        """For each (gold answer, texts): 1.0 for a right text, 0.0 for a wrong one.

        NaN where a comparison took too long or crashed, and for all texts where the gold answer
        is no mathematics. A text without a final answer is wrong.

        Raises:
            WorkersError: no worker starts; math-verify may be missing.
        """
        golds = [gold_answer(gold) for gold, _ in pairs]
        rows = [
            (gold, [_judged(final_answer(text), gold) for text in texts])
            for gold, (_, texts) in zip(golds, pairs, strict=True)
        ]
        forms = self._ask("form", ((gold,) for gold, _ in rows if gold))
        usable = {gold for (gold,), form in forms.items() if form and form.startswith("value ")}
        asked = ((gold, text) for gold, texts in rows if gold in usable for text in texts)
        right = self._ask("right", ((gold, text) for gold, text in asked if text not in ("", gold)))
        right |= {(gold, gold): True for gold in usable}

        def score(gold: str, text: str) -> float:
            known = gold in usable and (not text or right[gold, text] is not None)
            return float(bool(text) and right[gold, text]) if known else nan

        return [[score(gold, text) for text in texts] for gold, texts in rows]

    def classes(self, groups: Sequence[Sequence[str]]) -> list[list[int | None]]:
        """For each group, a number for every text: the same for equal final answers.

        Numbers start at 0 in order of first appearance; -1 is a text without a final answer, None
        one that is undecided. All members of a class are equal to each other: 50 % may join 50 or
        0.5 but never brings these two together.

        Raises:
            WorkersError: no worker starts; math-verify may be missing.
        """
        texts = [[_judged(final_answer(text)) for text in group] for group in groups]
        forms = self._ask("form", ((text,) for group in texts for text in group if text))
        rows = [[forms[(text,)] if text else "" for text in group] for group in texts]
        source = {form: text for (text,), form in forms.items() if form}
        asked = [pair for row in rows for pair in _open_pairs(row)]
        same = self._ask("same", ((source[a], source[b]) for a, b in asked))
        equal = {(a, b): same[source[a], source[b]] for a, b in asked}
        return [_number(row, equal) for row in rows]

    def close(self) -> None:
        """End the workers; the checker can be used again."""
        self._workers.close()

    def _ask(self, name: str, texts: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], Any]:
        """The workers' reply for each distinct tuple of texts; one request each, so that one
        hostile text leaves its neighbours alone."""
        distinct = list(dict.fromkeys(texts))
        replies = self._workers.map([[name, *each] for each in distinct], self.seconds)
        return dict(zip(distinct, replies, strict=True))


def _open_pairs(forms: Sequence[str | None]) -> list[tuple[str, str]]:
    """Pairs of forms that only a comparison can tell apart; two integers are not among them."""
    values = sorted({form for form in forms if form and form.startswith("value ")})
    return [
        (a, b)
        for a, b in combinations(values, 2)
        if not (_INTEGER.fullmatch(a) and _INTEGER.fullmatch(b))
    ]


def _number(forms: Sequence[str | None], equal: _Equality) -> list[int | None]:
    """Class numbers of one group from its forms and their comparisons."""
    pairs = set(_open_pairs(forms))
    given_up = [pair for pair in pairs if equal[pair] is None]
    undecided: set[str] = set()
    while given_up:  # the form that most of them share is to blame
        members = sorted(form for pair in given_up for form in pair)
        blamed = max(members, key=members.count)
        undecided.add(blamed)
        given_up = [pair for pair in given_up if blamed not in pair]

    classes: list[list[str]] = []
    for form in dict.fromkeys(forms):
        if not form or form in undecided:
            continue
        home = next(
            (
                members
                for members in classes
                if all(equal.get((min(form, m), max(form, m))) for m in members)
            ),
            None,
        )
        if home is None:
            classes.append([form])
        else:
            home.append(form)
    numbers: dict[str | None, int | None] = {
        form: number for number, members in enumerate(classes) for form in members
    }
    return [-1 if form == "" else numbers.get(form) for form in forms]
