"""Mathematics: is the final answer right?"""

from collections import Counter
from collections.abc import Sequence
from math import inf, isnan
from typing import Literal, get_args

from lsp_lightning.checks.final_answers import Final, final_answer
from lsp_lightning.checks.maths import MathChecker
from lsp_lightning.errors import ConfigError, require_one_of
from lsp_lightning.rewards.verdict import Group, Verdict
from lsp_lightning.rewards.verifiable import RoundVerifier

_KEY = "model.rewards.VerifiableReward.verifier.MathVerifier"
#: Most digits of a solution that is an integer; as many characters as an answer may have.
_MOST_DIGITS = 1_000


class MathVerifier(RoundVerifier):
    """Compares final answers as mathematics: 1/2 equals 0.5 equals ``\\frac{1}{2}``.

    If a query has a solution, an answer is right if it equals the solution. If it has none (a
    Challenger wrote it), the group's most common final answer counts as right; the share of answers
    that give it is logged as ``agreement``. After a tie, or below ``min_agreement``, the group is
    not judged. If no answer has a final answer, the query counts as malformed. Agreement proves
    nothing, and the policy can learn to agree on wrong answers: compare with held-out tasks that
    have solutions.

    An answer whose comparison takes too long counts as wrong. If it were not judged, a huge
    expression would cost less than a wrong answer. The share of such answers is logged as
    ``undecided``. If it is 1, the group is not judged.

    An answer that was cut off at the length limit has a final answer only if a box was complete
    before. It never counts in a majority.

    Args:
        min_agreement: share of a group that must give the same final answer, at least two answers.
        seconds: timeout of one comparison.
        final: where the final answer may be. "boxed": in ``\\boxed{}`` only. "stated": or in a
            statement like "the answer is 3", or in a last line that is nothing but the answer.
            "last": or in the last formula or number of the text. "auto" is "last" for queries that
            have a solution and "stated" for the others.
    """

    votes = True

    def __init__(
        self,
        min_agreement: float = 0.5,
        seconds: float = 2.0,
        final: Literal["auto", "boxed", "stated", "last"] = "auto",
    ) -> None:
        if not 0 < min_agreement <= 1:
            key = f"{_KEY}.min_agreement"
            raise ConfigError(key, f"is {min_agreement}", "set it above 0 and at most 1")
        if not 0 < seconds < inf:
            raise ConfigError(f"{_KEY}.seconds", f"is {seconds}", "set it above 0")
        require_one_of(final, ("auto", *get_args(Final)), f"{_KEY}.final")
        self._final_known: Final = "last" if final == "auto" else final
        self._final_unknown: Final = "stated" if final == "auto" else final
        self._min_agreement = min_agreement
        self._checker = MathChecker(seconds=seconds)

    def close(self) -> None:
        """Stop the worker processes."""
        self._checker.close()

    def require(self, solution: object | None) -> None:
        """Raise ValueError unless the solution is a text, a finite number or None."""
        if isinstance(solution, bool) or not isinstance(solution, str | int | float | None):
            raise ValueError(f"must be a text or a number, not {type(solution).__name__}")
        if isinstance(solution, int | float) and not _written(solution):
            raise ValueError(f"must be a finite number of at most {_MOST_DIGITS:,} digits")

    def prefetch(self, query: str, answer: str | None, solution: object | None) -> None:
        """Start to read the solution and the final answer, and to compare them."""
        if solution is None:
            self._checker.prefetch(answer or "", None, self._final_unknown)
        else:
            self._checker.prefetch(answer or "", _written(solution), self._final_known)

    def judge(self, groups: Sequence[Group]) -> list[Verdict]:
        """Compare answers with the solution or, if there is none, with their group's majority."""
        known = [i for i, group in enumerate(groups) if group.solution is not None]
        unknown = [i for i, group in enumerate(groups) if group.solution is None]
        pairs = [(_written(groups[i].solution), _boxes_if_cut(groups[i])) for i in known]
        grades = self._checker.grade(pairs, self._final_known)
        votes = [_voting(groups[i]) for i in unknown]
        classes = self._checker.classes(votes, self._final_unknown)
        verdicts = {i: _graded(row) for i, row in zip(known, grades, strict=True)}
        verdicts |= {i: self._vote(row) for i, row in zip(unknown, classes, strict=True)}
        return [verdicts[i] for i in range(len(groups))]

    def _vote(self, classes: Sequence[int | None]) -> Verdict:
        """Judge a group by its majority; classes as :meth:`MathChecker.classes` numbers them."""
        votes = Counter(c for c in classes if c is not None and c >= 0)
        info = {"undecided": sum(c is None for c in classes) / len(classes)}
        if not votes and not info["undecided"]:
            return Verdict.malformed(len(classes))
        counts = [count for _, count in votes.most_common(2)] or [0]
        info["agreement"] = counts[0] / len(classes)
        # one answer that agrees with itself is not a majority
        found = counts[0] >= 2 and counts[0] > max(counts[1:], default=0)
        if not found or info["agreement"] < self._min_agreement:
            return Verdict.undecided(len(classes), info)
        winner = votes.most_common(1)[0][0]
        return Verdict.of([float(c == winner) for c in classes], info)


def _graded(row: Sequence[float]) -> Verdict:
    """Judge a group by its grades, NaN for a comparison that did not finish."""
    open_ = sum(isnan(score) for score in row)
    if open_ == len(row):  # usually the solution cannot be read
        return Verdict.unjudged(len(row), {"undecided": 1.0})
    info = {"undecided": open_ / len(row)}
    return Verdict.of([0.0 if isnan(score) else score for score in row], info)


def _boxes_if_cut(group: Group) -> list[str]:
    """The answers; of those that were cut off only the last complete box."""
    answers = zip(group.answers, group.cut, strict=True)
    return [final_answer(answer, "boxed") if cut else answer for answer, cut in answers]


def _voting(group: Group) -> list[str]:
    """The answers; empty texts for those that were cut off."""
    return ["" if cut else answer for answer, cut in zip(group.answers, group.cut, strict=True)]


def _written(solution: object) -> str:
    """A solution as text; "" for a number that is too long or not finite."""
    if isinstance(solution, str):
        return solution
    if isinstance(solution, bool) or not isinstance(solution, int | float):
        return ""
    if not -inf < solution < inf or abs(solution) >= 10**_MOST_DIGITS:
        return ""
    return str(solution)
