"""Are two answers mathematically equal? Asked of worker processes, about hostile texts.

The final answer of a text is its last complete ``\\boxed{...}``, and only that; without a box it is
what math-verify finds ("final answer is ...", "answer: ...", else the last expression). An answer
that lists candidates, ``\\boxed{1, 2}``, is the set of them and not right for either.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from math import nan
from typing import Any

from lsp_lightning.workers import LineWorkers

_WORKER = "lsp_lightning.checks.maths_worker"
#: Only the last characters of a longer text are read.
_LONG_TEXT = 20_000
_TAIL = 2_000
#: Longer than any answer to a question; sympy would take its time.
_LONGEST_ANSWER = 1_000

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACES = re.compile(rf"(?P<box>{_BOX.pattern})|\\.|[{{}}]", re.DOTALL)
_INTEGER = re.compile(r"value -?[0-9]+")

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


class MathChecker:
    """Compares answers by math-verify.

    Copies and pickles hold the settings only. Any thread may call any method.

    Args:
        processes: worker processes, started when they are first needed.
        seconds: time for one comparison; an answer that takes longer is undecided.
    """

    def __init__(self, processes: int = 2, seconds: float = 5.0) -> None:
        self.seconds = seconds
        self._workers = LineWorkers(_WORKER, processes)

    def grade(self, pairs: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        """For each (gold answer, texts): 1.0 for a right text, 0.0 for a wrong one.

        NaN where a comparison took too long or crashed, and for all texts where the gold answer
        is no mathematics. A text without a final answer is wrong.

        Raises:
            WorkersError: no worker starts; math-verify may be missing.
        """
        rows = [
            (gold_answer(gold), [final_answer(text) for text in texts]) for gold, texts in pairs
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
        texts = [[final_answer(text) for text in group] for group in groups]
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
