"""A check of the gate: the frozen reference finds the query good enough."""

from collections.abc import Sequence

from lsp_lightning.errors import ConfigError, require_number
from lsp_lightning.game.gate.base import QueryCheck
from lsp_lightning.rewards.grading import JudgeTemplate
from lsp_lightning.rewards.score_scale import ScoreScale
from lsp_lightning.text.prompts import JUDGE_QUERY, SCORE_PREFIX
from lsp_lightning.types import Reference

_KEY = "data.gate.checks.Judged"
#: Slots that other judges' templates have.
_NOT_FILLED = ("response", "passage")


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
        self.template = JudgeTemplate(
            prompt, f"{_KEY}.prompt", JUDGE_QUERY, ("instruction",), ("instruction", "Score")
        )
        for slot in _NOT_FILLED:
            if f"{{{slot}}}" in self.template.text:
                problem = f"{prompt!r} has the slot {{{slot}}}, but only the query is judged"
                raise ConfigError(f"{_KEY}.prompt", problem, "remove it from the template")
        self._reference: Reference | None = None
        self._scale: ScoreScale | None = None

    def connect(self, reference: Reference) -> None:
        """Keep the reference as the judge.

        Raises:
            ConfigError: the template leaves no room for a query in the reference's context, or the
                tokenizer has no single token for one of the scores.
        """
        length = len(reference.encode(self.template.text, {}, SCORE_PREFIX))
        if reference.context is not None:
            self.check_length(length, reference.context, "the model's context")
        self._scale = ScoreScale(reference, self.template.text, _KEY, "use another model")
        self._reference = reference

    def check_length(self, length: int, context: int, name: str) -> None:
        """Raise ConfigError unless the context holds a prompt.

        Args:
            length: tokens of the prompt.
            context: the most that the judge can take.
            name: what that limit is called.
        """
        if length > context:
            problem = f"makes prompts of up to {length} tokens, but {name} is {context} tokens"
            remedy = "set a file with a shorter template, or use another model"
            raise ConfigError(f"{_KEY}.prompt", problem, remedy)

    def accepts(self, queries: Sequence[str], taken: Sequence[str]) -> list[bool]:
        """Whether the score of each query is at least ``least``."""
        return [score >= self.least for score in self.scores(queries)]

    def scores(self, queries: Sequence[str]) -> list[float]:
        """The judge's score of each query, in [0, 1]."""
        if self._scale is None or self._reference is None:
            raise ConfigError(_KEY, "has no judge", "call connect(reference) of the gate first")
        reference, template = self._reference, self.template
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
