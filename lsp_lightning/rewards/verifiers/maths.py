"""Mathematics: is the final answer the right one?"""

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from math import inf, isnan, nan

from lsp_lightning.checks.maths import MathChecker
from lsp_lightning.errors import ConfigError, require_at_least
from lsp_lightning.rewards.verifiable import Group, RoundVerifier, Verdict

_KEY = "model.rewards.VerifiableReward.verifier.MathVerifier"


class MathVerifier(RoundVerifier):
    """Compares final answers as mathematics: 1/2 is 0.5 is ``\\frac{1}{2}``.

    Where a query has a solution, that is the truth. Where it has none (a Challenger wrote it), the
    truth is what most answers of the group agree on; the share that agrees is logged as
    ``agreement``. Without agreement nothing is known and the group is unjudged; without a single
    final answer the query counts as malformed. Beware: agreement is no proof, and it can be played
    for; hold it against tasks with solutions.

    An answer whose comparison takes too long is wrong, where others could be decided, and counted
    (``undecided``): else a monstrous expression would cost less than a wrong answer.

    Args:
        min_agreement: share of a group that must give the same final answer.
        processes: worker processes that compare.
        seconds: so long one comparison may take; then its worker is replaced.
    """

    def __init__(
        self, min_agreement: float = 0.5, processes: int = 2, seconds: float = 2.0
    ) -> None:
        if not 0 < min_agreement <= 1:
            key = f"{_KEY}.min_agreement"
            raise ConfigError(key, f"is {min_agreement}", "set it above 0 and at most 1")
        require_at_least(processes, 1, f"{_KEY}.processes", "something must compare")
        if not 0 < seconds < inf:
            raise ConfigError(f"{_KEY}.seconds", f"is {seconds}", "set it above 0")
        self._min_agreement = min_agreement
        self._checker = MathChecker(processes, seconds)

    def close(self) -> None:
        """End the worker processes."""
        self._checker.close()

    def require(self, solution: object | None) -> None:
        """References are texts or numbers."""
        if isinstance(solution, bool) or not isinstance(solution, str | int | float | None):
            raise ValueError(f"is no final answer but {type(solution).__name__}")

    def prefetch(self, query: str, answer: str | None, solution: object | None) -> None:
        """Read the solution and the final answer, and compare them."""
        self._checker.prefetch(answer or "", None if solution is None else _written(solution))

    def judge(self, groups: Sequence[Group]) -> list[Verdict]:
        """Groups with a solution against it, the others against their own majority."""
        known = [i for i, group in enumerate(groups) if group.solution is not None]
        unknown = [i for i, group in enumerate(groups) if group.solution is None]
        golds = [_written(groups[i].solution) for i in known]
        pairs = zip(golds, (groups[i].answers for i in known), strict=True)
        grades = self._checker.grade(list(pairs))
        classes = self._checker.classes([groups[i].answers for i in unknown])
        verdicts = {i: _graded(row) for i, row in zip(known, grades, strict=True)}
        verdicts |= {i: self._vote(row) for i, row in zip(unknown, classes, strict=True)}
        return [verdicts[i] for i in range(len(groups))]

    def _vote(self, classes: Sequence[int | None]) -> Verdict:
        """A group by its majority; classes as :meth:`MathChecker.classes` numbers them."""
        votes = Counter(c for c in classes if c is not None and c >= 0)
        info = {"undecided": sum(c is None for c in classes) / len(classes)}
        if not votes and not info["undecided"]:
            return Verdict([0.0] * len(classes), info=None)
        counts = [count for _, count in votes.most_common(2)] or [0]
        info["agreement"] = counts[0] / len(classes)
        # one answer agrees with itself: that is no majority
        found = counts[0] >= 2 and counts[0] > max(counts[1:], default=0)
        if not found or info["agreement"] < self._min_agreement:
            return Verdict([nan] * len(classes), info, undecided=True)
        winner = votes.most_common(1)[0][0]
        return Verdict([float(c == winner) for c in classes], info)


def _graded(row: Sequence[float]) -> Verdict:
    """A group's verdict from its grades, NaN where a comparison came to no end."""
    open_ = sum(isnan(score) for score in row)
    if open_ == len(row):  # as a rule the solution cannot be read
        return Verdict(row, {"undecided": 1.0})
    info = {"undecided": open_ / len(row)}
    return Verdict([0.0 if isnan(score) else score for score in row], info)


def _written(solution: object) -> str:
    """A solution as text; a float without an exponent, which no parser of mathematics reads."""
    if isinstance(solution, float):
        return format(Decimal(repr(solution)), "f")
    return str(solution)
