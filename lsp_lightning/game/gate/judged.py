"""A check of the gate: the frozen reference finds the query good enough."""

from collections.abc import Sequence

from lsp_lightning.errors import ConfigError, require_number
from lsp_lightning.game.gate.base import QueryCheck
from lsp_lightning.rewards.grading import JudgeTemplate
from lsp_lightning.rewards.score_scale import ScoreScale
from lsp_lightning.text.prompts import JUDGE_QUERY, SCORE_PREFIX
from lsp_lightning.types import Reference

_KEY = "data.gate.checks.Judged"


class Judged(QueryCheck):
    """Refuses queries that the frozen reference scores too low. It takes one forward pass.

    The score is the mean of the points 0 to 7, weighted by their probabilities as the judge's next
    token, divided by 7. Models differ in how they spread their scores, and small ones give nearly
    the same to everything: look at the :meth:`scores` of some queries before you set the bar.
    Without a Trainer, call :meth:`connect` first.

    Args:
        least: the lowest score that passes, in [0, 1].
        prompt: file with the judge's template; it needs the slot {instruction}.
    """

    reason = "judged_low"

    def __init__(self, least: float, prompt: str | None = None) -> None:
        require_number(least, f"{_KEY}.least", least=0)
        if least > 1:
            raise ConfigError(f"{_KEY}.least", f"is {least}", "set at least 0 and at most 1")
        self.least, self.prompt = least, prompt
        self._template = JudgeTemplate(
            prompt, f"{_KEY}.prompt", JUDGE_QUERY, ("instruction",), ("instruction", "Score")
        )
        self._reference: Reference | None = None
        self._scale: ScoreScale | None = None

    def connect(self, reference: Reference) -> None:
        """Keep the reference as the judge."""
        self._scale = ScoreScale(reference, self._template.text, _KEY, "use another model")
        self._reference = reference

    def accepts(self, queries: Sequence[str], taken: Sequence[str]) -> list[bool]:
        """Whether the score of each query is at least ``least``."""
        return [score >= self.least for score in self.scores(queries)]

    def scores(self, queries: Sequence[str]) -> list[float]:
        """The judge's score of each query, in [0, 1]."""
        if self._scale is None or self._reference is None:
            raise ConfigError(_KEY, "has no judge", "call connect(reference) of the gate first")
        reference, template = self._reference, self._template
        prompts = [
            reference.encode(
                template.text,
                template.fenced({"instruction": query}),
                SCORE_PREFIX,
                reference.context,
            )
            for query in queries
        ]
        scores, mass = self._scale.read(prompts)
        self._scale.warn_if_little(mass, _KEY)
        found: list[float] = scores.tolist()
        return found
