"""Instructions: does the answer satisfy the constraints that the query states?"""

from collections.abc import Sequence

from lsp_lightning.checks.constraints import parse_constraints
from lsp_lightning.rewards.verdict import Info
from lsp_lightning.rewards.verifiable import Verifier


class InstructionVerifier(Verifier):
    """1 for an answer that satisfies every constraint in the query's ``Constraints:`` block.

    A query without this block, with an unknown constraint, or with constraints that contradict each
    other is malformed. The constraints do not tell whether the answer makes sense: add a SelfReward
    for that.

    Args:
        partial: score the share of satisfied constraints instead of all or nothing.
    """

    def __init__(self, partial: bool = False) -> None:
        self._partial = partial
        self.binary = not partial

    def check(self, query: str, answers: Sequence[str], solution: object | None) -> list[float]:
        """The scores of the answers; 0 for all if the query is malformed."""
        constraints = parse_constraints(query)
        if constraints is None:
            return [0.0] * len(answers)
        shares = [
            sum(constraint.holds(answer) for constraint in constraints) / len(constraints)
            for answer in answers
        ]
        return shares if self._partial else [float(share == 1) for share in shares]

    def describe(self, query: str) -> Info | None:
        """The number of constraints, and their kinds; None if malformed."""
        constraints = parse_constraints(query)
        if constraints is None:
            return None
        return {"constraints": len(constraints), "constraint": tuple(c.label for c in constraints)}
