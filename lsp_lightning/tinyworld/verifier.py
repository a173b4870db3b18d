"""The tiny world's program: it knows the one right answer to every well-formed query."""

from collections.abc import Sequence

from lsp_lightning.rewards.verifiable import Verifier
from lsp_lightning.tinyworld.tasks import parse


class TinyWorldVerifier(Verifier):
    """Judges answers by the grammar of the tiny world; needs no solution answers."""

    def check(
        self, query: str, answers: Sequence[str], solution: object | None = None
    ) -> list[float]:
        """1.0 for each answer that is right up to surrounding white space, else 0.0.

        A malformed query has no right answer: 0.0 throughout. `solution` is not used.
        """
        task = parse(query)
        if task is None:
            return [0.0] * len(answers)
        return [float(answer.strip() == task.answer) for answer in answers]

    def describe(self, query: str) -> dict[str, str | int] | None:
        """The query's family and level for the records, or None where it is malformed."""
        task = parse(query)
        return None if task is None else {"family": task.family, "level": task.level}
