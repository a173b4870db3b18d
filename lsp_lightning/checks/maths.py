"""Check whether two answers are mathematically equal, in worker processes.

:mod:`lsp_lightning.checks.final_answers` says which part of a text is its final answer.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from math import nan
from typing import Any

from lsp_lightning.checks.final_answers import (
    Final,
    boxed_solution,
    comparable,
    final_answer,
    given_word,
    word_solution,
)
from lsp_lightning.checks.shapes import squeezed
from lsp_lightning.runtime.workers import LineWorkers

_WORKER = "lsp_lightning.checks.maths_worker"
#: Number of worker processes that compare at the same time.
PROCESSES = 2
_INTEGER = re.compile(r"value -?[0-9]+")

#: Forms of two answers -> equal, different, or None if the comparison failed.
_Equality = Mapping[tuple[str, str], bool | None]


class MathChecker:
    """Compares final answers with math-verify, in worker processes.

    Any thread may call any method. Copies and pickles hold the settings only.

    Args:
        processes: worker processes, started when they are first needed.
        seconds: time limit of one comparison; after it the answer counts as undecided.
    """

    def __init__(self, processes: int = PROCESSES, seconds: float = 2.0) -> None:
        self.seconds = seconds
        self._workers = LineWorkers(_WORKER, processes)

    def prefetch(self, text: str, solution: str | None = None, final: Final = "last") -> None:
        """Start to process a text in the background; returns at once.

        :meth:`grade` uses the result, or :meth:`classes` if there is no solution.
        """
        boxed = "" if solution is None else boxed_solution(solution)
        answer = _answer(text, final, boxed, word_solution(boxed))
        right = [["solution", boxed], ["right", boxed, answer]]
        for request in [["form", answer]] if solution is None else right:
            if all(request):
                self._workers.prefetch(request, self.seconds)

    def grade(
        self, pairs: Sequence[tuple[str, Sequence[str]]], final: Final = "last"
    ) -> list[list[float]]:
        """Grade texts against known answers. (solution, texts) pairs -> a score for each text.

        1.0 is right, 0.0 is wrong or without a final answer. NaN if the comparison took too long or
        crashed. A solution that math-verify cannot read equals itself; other texts are NaN then.

        Raises:
            WorkersError: no worker starts; math-verify may be missing.
        """
        solutions = [boxed_solution(solution) for solution, _ in pairs]
        words = {solution: word_solution(solution) for solution in solutions}
        rows = [
            (solution, [_answer(text, final, solution, words[solution]) for text in texts])
            for solution, (_, texts) in zip(solutions, pairs, strict=True)
        ]
        forms = self._ask("solution", ((solution,) for solution, _ in rows if solution))
        readable = {s for (s,), form in forms.items() if form and form.startswith("value ")}
        defined = readable | {s for (s,), form in forms.items() if form and form[:5] == "text "}
        asked = ((s, text) for s, texts in rows if s in readable for text in texts)
        right = self._ask("right", (pair for pair in asked if pair[1] and not _alike(*pair)))
        # what math-verify cannot read still equals itself
        alike = ((s, text) for s, texts in rows if s in defined for text in texts)
        right |= {pair: True for pair in alike if _alike(*pair)}

        def score(solution: str, text: str) -> float:
            given = given_word(text) if words[solution] else ""
            if given:  # a word is no product of its letters: "no" is not "on"
                return float(given == words[solution])
            if not text and solution in readable:
                return 0.0
            equal = right.get((solution, text))
            return nan if equal is None else float(equal)

        return [[score(solution, text) for text in texts] for solution, texts in rows]

    def classes(
        self, groups: Sequence[Sequence[str]], final: Final = "stated"
    ) -> list[list[int | None]]:
        """Sort the texts of each group into classes of equal final answers.

        -> a class number for each text, from 0 in order of first appearance; -1 for a text without
        a final answer, None if its comparison failed. All members of a class equal each other:
        50 % may join 50 or 0.5, but 50 and 0.5 never share a class.

        Raises:
            WorkersError: no worker starts; math-verify may be missing.
        """
        texts = [[comparable(final_answer(text, final)) for text in group] for group in groups]
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
        """The workers' reply for each distinct tuple of texts.

        Each tuple is a separate request, so that a hostile text does not affect the others.
        """
        distinct = list(dict.fromkeys(texts))
        replies = self._workers.map([[name, *each] for each in distinct], self.seconds)
        return dict(zip(distinct, replies, strict=True))


def _alike(solution: str, text: str) -> bool:
    """Whether a text is the solution but for its layout."""
    return bool(text) and squeezed(text) == squeezed(solution)


def _answer(text: str, final: Final, solution: str, word: str) -> str:
    return comparable(final_answer(text, final, word=bool(word)), solution)


def _open_pairs(forms: Sequence[str | None]) -> list[tuple[str, str]]:
    """Pairs of forms that must be compared; two different integers need no comparison."""
    values = sorted({form for form in forms if form and form.startswith("value ")})
    return [
        (a, b)
        for a, b in combinations(values, 2)
        if not (_INTEGER.fullmatch(a) and _INTEGER.fullmatch(b))
    ]


def _number(forms: Sequence[str | None], equal: _Equality) -> list[int | None]:
    """The class numbers of one group, from its forms and their comparisons."""
    pairs = set(_open_pairs(forms))
    failed = [pair for pair in pairs if equal[pair] is None]
    undecided: set[str] = set()
    while failed:  # blame the form that is in most failed comparisons
        members = sorted(form for pair in failed for form in pair)
        cause = max(members, key=members.count)
        undecided.add(cause)
        failed = [pair for pair in failed if cause not in pair]

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
