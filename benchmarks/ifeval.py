"""IFEval's checks of the constraints that both we and IFEval know, to compare verdicts.

IFEval (arXiv 2311.07911) is published code of others, and optional: see :data:`INSTALL`. Its
package downloads data when it is imported, so only the checks are imported. Kinds that need such
data (sentences, words in all capitals) are not compared.
"""

import functools
import importlib
import importlib.util
import logging
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from lsp_lightning.checks.constraint import Constraint
from lsp_lightning.checks.constraints import parse_constraints

INSTALL = (
    "pip install --no-deps if-verifiable==0.1.2 immutabledict langdetect nltk click joblib six"
)
_PACKAGE = "if_verifiable"

Arguments = tuple[str, ...]
#: A class of IFEval and the arguments of its ``build_description``.
Asked = tuple[str, dict[str, Any]]

#: Kinds that IFEval checks with "at least n".
_AT_LEAST: dict[str, Callable[[int, Arguments], Asked]] = {
    "words": lambda n, _: ("NumberOfWords", {"num_words": n, "relation": "at least"}),
    "highlights": lambda n, _: ("HighlightSectionChecker", {"num_highlights": n}),
    "placeholders": lambda n, _: ("PlaceholderChecker", {"num_placeholders": n}),
    "letter": lambda n, texts: (
        "LetterFrequencyChecker",
        {"letter": texts[0], "let_frequency": n, "let_relation": "at least"},
    ),
}
#: Kinds that IFEval checks with "exactly n".
_EXACTLY: dict[str, Callable[[int], Asked]] = {
    "bullet points": lambda n: ("BulletListChecker", {"num_bullets": n}),
    "parts": lambda n: ("ParagraphChecker", {"num_paragraphs": n}),
}
_FORMS: dict[str, Callable[[Arguments], Asked]] = {
    "end": lambda texts: ("EndChecker", {"end_phrase": texts[0]}),
    "lower case": lambda _: ("LowercaseLettersEnglishChecker", {}),
    "capitals": lambda _: ("CapitalLettersEnglishChecker", {}),
    "quoted": lambda _: ("QuotationChecker", {}),
    "title": lambda _: ("TitleChecker", {}),
}
#: How the definitions differ, by kind.
DIFFERENCES = {
    "words": 'IFEval counts "don\'t" as two words',
    "bullet points": "IFEval counts a - or * without a space after it, but no + and no bullet sign",
    "parts": "IFEval refuses an empty part between two separators",
    "word": "IFEval finds a required word inside of others, and a forbidden one before 's",
    "phrase": "IFEval finds a forbidden phrase at word boundaries only",
    "end": "IFEval ignores double quotes around the answer",
    "lower case": "IFEval also asks langdetect whether the answer is English",
    "capitals": "IFEval also asks langdetect whether the answer is English",
    "title": "IFEval allows < and > inside of a title",
    "highlights": "IFEval counts *  *, with spaces at its edges",
    "placeholders": "IFEval counts [] without content",
    "quoted": 'IFEval accepts ""',
    "commas": "IFEval knows no commas of other scripts",
}


@functools.cache
def instructions() -> Any:
    """IFEval's module of checks, or None if it is not installed; nothing is downloaded."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None:
        return None
    package = ModuleType(_PACKAGE)  # without its __init__, which imports the other half
    package.__path__ = list(spec.submodule_search_locations or ())
    sys.modules[_PACKAGE] = package
    try:
        module: Any = importlib.import_module(f"{_PACKAGE}.ifeval.instructions")
    except ImportError:
        return None
    importlib.import_module("langdetect").DetectorFactory.seed = 0  # else it guesses differently
    return module


def check_of(constraint: Constraint) -> Callable[[str], bool] | None:
    """IFEval's check of a constraint; None if it has none of this kind."""
    kind, texts = constraint.kind, constraint.arguments
    low, high = constraint.low, constraint.high
    if kind in _FORMS:
        return _check(*_FORMS[kind](texts))
    if kind in _AT_LEAST:
        enough = _check(*_AT_LEAST[kind](low, texts)) if low > 0 else None
        more = _check(*_AT_LEAST[kind](int(high) + 1, texts)) if high < math.inf else None
        return lambda answer: (
            (enough is None or enough(answer)) and (more is None or not more(answer))
        )
    if kind in _EXACTLY:
        inside = range(low, int(high) + 1) if high < math.inf else range(low)
        checks = [_check(*_EXACTLY[kind](n)) for n in inside]
        return lambda answer: any(check(answer) for check in checks) == (high < math.inf)
    if kind in ("word", "phrase") and (low, high) == (1, math.inf):
        return _check("KeywordChecker", {"keywords": list(texts)})
    if kind in ("word", "phrase") and high == 0:
        return _check("ForbiddenWords", {"forbidden_words": list(texts)})
    return _check("CommaChecker", {}) if kind == "commas" and high == 0 else None


def _check(name: str, arguments: dict[str, Any]) -> Callable[[str], bool]:
    check = getattr(instructions(), name)(name)
    check.build_description(**arguments)
    followed: Callable[[str], bool] = check.check_following
    return followed


@dataclass
class Comparison:
    """Verdicts of both checkers on answers."""

    verdicts: dict[str, Counter[tuple[bool, bool]]] = field(
        default_factory=lambda: defaultdict(Counter)
    )
    """By kind of constraint: how often (InstructionVerifier's, IFEval's)."""
    answers: Counter[tuple[bool, bool]] = field(default_factory=Counter)
    """The same for all constraints of an answer, if both checkers know all of them."""
    skipped: Counter[str] = field(default_factory=Counter)
    """By kind: constraints that IFEval does not check."""
    disputed: dict[str, list[tuple[str, str, bool]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """By kind: constraint, answer, and InstructionVerifier's verdict, where they disagree."""

    def figures(self) -> dict[str, float]:
        """Pairs of an answer and a constraint, how often both agree, and solved answers by both."""
        pairs: Counter[tuple[bool, bool]] = sum(self.verdicts.values(), Counter())
        return {
            "pairs": pairs.total(),
            "agree": _share(pairs, lambda verifier, ifeval: verifier == ifeval),
            "answers": self.answers.total(),
            "InstructionVerifier": _share(self.answers, lambda verifier, ifeval: verifier),
            "IFEval": _share(self.answers, lambda verifier, ifeval: ifeval),
        }

    def lines(self, examples: int) -> list[str]:
        """A Markdown table by kind of constraint, then reasons and examples of disagreements."""
        lines = [
            "| kind | pairs | InstructionVerifier: kept | IFEval: kept | agree |",
            "|---|---|---|---|---|",
        ]
        for kind, counts in sorted(self.verdicts.items()):
            shares = (
                _share(counts, lambda verifier, ifeval: verifier),
                _share(counts, lambda verifier, ifeval: ifeval),
                _share(counts, lambda verifier, ifeval: verifier == ifeval),
            )
            cells = " | ".join(f"{share:.3f}" for share in shares)
            lines.append(f"| {kind} | {counts.total()} | {cells} |")
        skipped = ", ".join(f"{kind} {n}" for kind, n in sorted(self.skipped.items()))
        lines += ["", f"not compared: {skipped}"]
        for kind, cases in sorted(self.disputed.items()):
            lines += ["", f"{kind}: {len(cases)} disagreements; {DIFFERENCES.get(kind, '')}"]
            for text, answer, kept in cases[:examples]:
                lines.append(f"  {text}; InstructionVerifier {kept}: {answer[:300]!r}")
        return lines


def compare(answered: Iterable[tuple[str, str]]) -> Comparison:
    """Both verdicts on each pair of a query with constraints and an answer."""
    found = Comparison()
    previous = logging.root.manager.disable
    logging.disable(logging.ERROR)  # IFEval logs answers whose language is not recognised
    try:
        for query, answer in answered:
            _add(found, query, answer)
    finally:
        logging.disable(previous)
    return found


def _add(found: Comparison, query: str, answer: str) -> None:
    verdicts = []
    constraints = parse_constraints(query) or []
    for constraint in constraints:
        check = check_of(constraint)
        if check is None:
            found.skipped[constraint.kind] += 1
            continue
        verdict = (constraint.holds(answer), bool(answer.strip()) and bool(check(answer)))
        verdicts.append(verdict)
        found.verdicts[constraint.kind][verdict] += 1
        if verdict[0] != verdict[1]:
            found.disputed[constraint.kind].append((constraint.text, answer, verdict[0]))
    if len(verdicts) == len(constraints) > 0:
        by_verifier, by_ifeval = zip(*verdicts, strict=True)
        found.answers[all(by_verifier), all(by_ifeval)] += 1


def _share(counts: Counter[tuple[bool, bool]], counted: Callable[[bool, bool], bool]) -> float:
    """The share of pairs of verdicts that are counted; NaN without any pair."""
    total = counts.total()
    share = sum(n for pair, n in counts.items() if counted(*pair)) / total if total else math.nan
    return round(share, 4)
