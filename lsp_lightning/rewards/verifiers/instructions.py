"""Instructions: does the answer keep the constraints that the query states?"""

from collections.abc import Mapping, Sequence

from lsp_lightning.checks.constraints import parse_constraints
from lsp_lightning.rewards.verifiable import Verifier


class InstructionVerifier(Verifier):
    """1 for an answer that keeps every constraint in the query's ``Constraints:`` block.

    A query without such a block, with a line that is not understood, or with constraints that
    contradict each other is malformed. Whether the answer makes sense beside them is not seen:
    add a SelfReward.

    Args:
        partial: the share of constraints that hold, instead of all or nothing.
    """

    def __init__(self, partial: bool = False) -> None:
        self._partial = partial
        self.binary = not partial

    def check(self, query: str, answers: Sequence[str], solution: object | None) -> list[float]:
        """The answers' scores; 0 for all where the query is malformed."""
        constraints = parse_constraints(query)
        if constraints is None:
            return [0.0] * len(answers)
        shares = [
            sum(constraint.holds(answer) for constraint in constraints) / len(constraints)
            for answer in answers
        ]
        return shares if self._partial else [float(share == 1) for share in shares]

    def describe(self, query: str) -> Mapping[str, str | float] | None:
        """How many constraints there are and the first one's kind; None where malformed."""
        constraints = parse_constraints(query)
        if constraints is None:
            return None
        return {"constraints": len(constraints), "constraint": constraints[0].kind}
