"""One constraint on an answer."""

from dataclasses import dataclass

from lsp_lightning.checks.constraint_kinds import COUNTS, FORMS

#: Names of all kinds, for logs.
KINDS = (*COUNTS, *FORMS)
#: In characters; ten times what any constraint can ask for.
_LONGEST_ANSWER = 100_000


@dataclass(frozen=True)
class Constraint:
    """One constraint on an answer.

    Args:
        kind: one of :data:`KINDS`.
        arguments: the words or texts that the constraint names.
        low: smallest allowed count; only for kinds that count.
        high: largest allowed count; only for kinds that count.
        text: the line in the query, without its bullet.
    """

    kind: str
    arguments: tuple[str, ...]
    low: int
    high: float
    text: str

    def holds(self, answer: str) -> bool:
        """Whether an answer satisfies it; a blank or extremely long answer never does."""
        answer = answer.strip()
        if not 0 < len(answer) <= _LONGEST_ANSWER:
            return False
        if self.kind in FORMS:
            return FORMS[self.kind].holds(answer, self.arguments)
        return all(self.low <= n <= self.high for n in self.counts(answer))

    def counts(self, text: str) -> list[int]:
        """The counts of this kind in a text."""
        return COUNTS[self.kind].of(text, self.arguments)

    @property
    def label(self) -> str:
        """The kind; "limit on KIND" if it only sets an upper limit."""
        return self.kind if self.demands else f"limit on {self.kind}"

    @property
    def demands(self) -> bool:
        """Whether the constraint requires something, rather than only setting an upper limit."""
        return self.kind in FORMS or self.low > 0
