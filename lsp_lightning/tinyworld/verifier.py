"""The verifier of the tiny world: it computes the right answer of every well-formed query."""

from collections.abc import Sequence

from lsp_lightning.rewards.verifiable import Verifier
from lsp_lightning.tinyworld.tasks import parse


class TinyWorldVerifier(Verifier):
    """Compares each answer with the right one, which the grammar of the tiny world gives."""

    def check(
        self, query: str, answers: Sequence[str], solution: object | None = None
    ) -> list[float]:
        """1.0 for each right answer, else 0.0; surrounding white space does not matter.

        All answers to a malformed query get 0.0. `solution` is not used.
        """
        task = parse(query)
        if task is None:
            return [0.0] * len(answers)
        return [float(answer.strip() == task.answer) for answer in answers]

    def describe(self, query: str) -> dict[str, str | int] | None:
        """The query's family and level for metrics, or None if it is malformed."""
        task = parse(query)
        return None if task is None else {"family": task.family, "level": task.level}
