"""What the paper claims, and whether it is seen here: decided by intervals.

The paper is arXiv 2509.07414. Its figures are win rates in percent on the 805 prompts of
AlpacaEval. Version 1 (judge GPT-4o) and version 3 (judge Llama-4-Maverick) have other judges, other
opponents and another order of stages, so they stand in columns of their own. They are no scores on
our tasks, so only the direction of a difference can be compared.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lsp_lightning.reproduce.figures import Interval, Row, compared

#: A score counts as no worse if it is at most so much lower: our choice.
MARGIN = 0.02
_SCORE = "sampled, unmet"

Verdict = Literal["seen here", "not seen", "not decided"]


@dataclass(frozen=True)
class Claim:
    """A difference between two arms that is claimed to be above, or not far below, zero."""

    says: str
    """The claim."""
    arm: str
    other: str
    """Arm minus other arm is looked at."""
    v3: str = "-"
    """The figures of version 3 of the paper."""
    v1: str = "-"
    """The figures of version 1 of the paper."""
    kind: Literal["above", "no worse", "below"] = "above"
    """What the difference is claimed to be; no worse allows :data:`MARGIN`."""
    figure: str = _SCORE
    """The figure whose difference it is."""

    def verdict(self, found: Interval) -> Verdict:
        """Whether the interval of the difference lies wholly on one side of the limit.

        An interval that contains the limit decides nothing, and neither does a single seed: another
        run could differ more than its tasks do.
        """
        if found.over == "tasks":
            return "not decided"
        limit = -MARGIN if self.kind == "no worse" else 0.0
        if found.low > limit:
            return "not seen" if self.kind == "below" else "seen here"
        if found.high < limit:
            return "seen here" if self.kind == "below" else "not seen"
        return "not decided"


@dataclass(frozen=True)
class Decided:
    """A claim with what was found."""

    claim: Claim
    found: Interval
    verdict: Verdict


_Q = "Q makes LSP better than LSP-Zero"
_AFTER = "LSP improves a model that RL with data has trained"
_BEFORE = "LSP before RL is better than RL alone"
_EVEN = "without data, LSP is as good as GRPO with data"

#: Claims of the paper. Where an arm is in the paper's form, it is what the paper describes.
PAPER = (
    Claim("GRPO with data improves on the base", "grpo", "base", "38.8 against 26.5", "40.9"),
    Claim("LSP improves on the base without data", "paper", "base", "36.4 against 26.5", "40.6"),
    Claim("LSP improves on the base without data", "lsp", "base", "36.4 against 26.5", "40.6"),
    Claim(_EVEN, "paper", "grpo", "36.4 against 38.8", "40.6 against 40.9", "no worse"),
    Claim(_EVEN, "lsp", "grpo", "36.4 against 38.8", "40.6 against 40.9", "no worse"),
    Claim("LSP-Zero improves on the base", "zero", "base", "32.0 against 26.5", "40.1"),
    Claim(_Q, "paper", "zero", "36.4 against 32.0", "40.6 against 40.1"),
    Claim(
        "Q keeps the queries from becoming nonsense",
        *("paper", "zero", "no figure", "no figure", "below", "queries, malformed"),
    ),
    Claim(_AFTER, "grpo-paper", "grpo", v1="43.1 against 40.9"),
    Claim(_AFTER, "grpo-paper", "grpo-grpo", v1="no such control"),
    Claim(_AFTER, "grpo-lsp", "grpo-grpo", v1="no such control"),
    Claim(_BEFORE, "paper-grpo", "grpo", "39.5 against 38.8"),
    Claim(_BEFORE, "paper-grpo", "grpo-grpo", "no such control"),
    Claim(_BEFORE, "lsp-grpo", "grpo-grpo", "no such control"),
)

#: What the paper does not ask.
FURTHER = (
    Claim("random rewards do not improve on the base", "base", "random", kind="no worse"),
    Claim("when data run out, LSP adds to what they taught", "few-lsp", "few-few"),
    Claim("LSP without data beats 48 fixed queries", "lsp", "few"),
    Claim("the recommended form beats the paper's form", "lsp", "paper"),
    Claim("LSP does better than a low temperature", "lsp", "base-0.3"),
    Claim("LSP improves greedy answers", "lsp", "base", figure="greedy"),
    Claim("LSP solves tasks that 64 draws of the base do not", "lsp", "base", figure="curve@64"),
)


def decide(claims: tuple[Claim, ...], rows: Mapping[str, Mapping[int, Row]]) -> list[Decided]:
    """The claims about arms that have been measured, each with its verdict."""
    found = []
    for claim in claims:
        both = [rows.get(name) for name in (claim.arm, claim.other)]
        if all(both):
            one, other = (arm or {} for arm in both)
            interval = compared(one, other, claim.figure)
            if interval.n:
                found.append(Decided(claim, interval, claim.verdict(interval)))
    return found
