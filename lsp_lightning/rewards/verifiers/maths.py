"""Mathematics: is the final answer the right one?"""

from collections import Counter
from collections.abc import Sequence
from math import nan

from lsp_lightning.checks.maths import MathChecker
from lsp_lightning.rewards.verifiable import Group, RoundVerifier, Verdict


class MathVerifier(RoundVerifier):
    """Compares final answers as mathematics: 1/2 is 0.5 is ``\\frac{1}{2}``.

    Where a query has a reference, that is the truth. Where it has none (a Challenger wrote it), the
    truth is what most answers of the group agree on; the share that agrees is logged as
    ``agreement``. Without agreement nothing is known and the group is unjudged; without a single
    final answer the query counts as malformed. Beware: agreement is no proof, and it can be played
    for; hold it against tasks with references.

    Args:
        min_agreement: share of a group that must give the same final answer.
        processes: worker processes that compare.
        seconds: so long one comparison may take; then it is undecided and its worker is replaced.
    """

    def __init__(
        self, min_agreement: float = 0.5, processes: int = 2, seconds: float = 5.0
    ) -> None:
        self._min_agreement = min_agreement
        self._checker = MathChecker(processes, seconds)

    def close(self) -> None:
        """End the worker processes."""
        self._checker.close()

    def require(self, reference: object | None) -> None:
        """References are texts or numbers."""
        if reference is not None and not isinstance(reference, str | int | float):
            raise ValueError(f"is no final answer but {type(reference).__name__}")

    def judge(self, groups: Sequence[Group]) -> list[Verdict]:
        """Groups with a reference against it, the others against their own majority."""
        known = [i for i, group in enumerate(groups) if group.reference is not None]
        unknown = [i for i, group in enumerate(groups) if group.reference is None]
        grades = self._checker.grade([(str(groups[i].reference), groups[i].answers) for i in known])
        classes = self._checker.classes([groups[i].answers for i in unknown])
        verdicts = {i: Verdict(row) for i, row in zip(known, grades, strict=True)}
        verdicts |= {i: self._vote(row) for i, row in zip(unknown, classes, strict=True)}
        return [verdicts[i] for i in range(len(groups))]

    def _vote(self, classes: Sequence[int | None]) -> Verdict:
        """A group by its majority; classes as :meth:`MathChecker.classes` numbers them."""
        votes = Counter(c for c in classes if c is not None and c >= 0)
        if not votes:
            undecided = any(c is None for c in classes)
            return Verdict([nan if c is None else 0.0 for c in classes], {} if undecided else None)
        (winner, count), *others = votes.most_common(2)
        agreement = {"agreement": count / len(classes)}
        tied = bool(others) and others[0][1] == count
        # one answer agrees with itself: that is no majority
        if count < 2 or tied or count / len(classes) < self._min_agreement:
            return Verdict([nan] * len(classes), agreement)
        return Verdict([nan if c is None else float(c == winner) for c in classes], agreement)
