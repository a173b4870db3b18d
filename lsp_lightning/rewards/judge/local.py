"""A judge in this process that compares two answers: a causal LM, or the frozen reference."""

import torch
from torch import Tensor

from lsp_lightning.errors import ConfigError
from lsp_lightning.models.quantization import Quantization
from lsp_lightning.models.sources import check_base
from lsp_lightning.rewards.base import (
    AnswerEnters,
    Judgement,
    LoadedModel,
    Reward,
    require_answers,
)
from lsp_lightning.rewards.grading import JudgeTemplate
from lsp_lightning.rewards.judge.model import JudgeModel
from lsp_lightning.rewards.judge.ring import Ring, points
from lsp_lightning.rewards.score_scale import JudgingModel, ScoreScale
from lsp_lightning.runtime.memory import is_out_of_memory
from lsp_lightning.text.prompts import COMPARE, COMPARE_TAGS, WINNER_PREFIX, Winner
from lsp_lightning.types import Playout, Reference

_KEY = "model.rewards.LocalJudge"
_SLOTS = ("instruction", "first", "second")
#: The points of the first answer by the judge's next word.
_POINTS = {str(winner): points(winner) for winner in Winner}
#: Longest prompt that is planned for, in tokens.
_PLANNED_TOKENS = 2048


class LocalJudge(Reward):
    """A score in [0, 1] from comparisons with the other answers, by a model in this process.

    The answers to a query form a ring. The judge compares each answer with the next one, in both
    orders, and its reply is forced to start with the winner's tag. The points of an answer are the
    probability that it is named next, plus half that of a tie. This takes one forward pass; no
    reply is parsed, so no judged text can be read as a verdict. A pair counts with the mean of its
    two orders; if they name different winners, it is a tie. An answer's score is the mean over its
    pairs.

    Args:
        model: folder or hub id of a causal LM; null judges with the frozen reference.
        weight: factor in R or Q; 0 only logs the scores.
        name: the name in metrics and transcripts.
        enters: where it enters, see :class:`lsp_lightning.rewards.base.Reward`.
        prompt: file with the judge's template; it needs the slots {instruction}, {first} and
            {second}, and may have {passage}, which is empty for a query without a passage.
        quantization: nf4 stores the model's linear layers in 4 bits; null leaves them as they are.
    """

    span = (0.0, 1.0)
    needs_group = True

    def __init__(
        self,
        model: str | None = None,
        weight: float = 1.0,
        name: str = "local_judge",
        enters: AnswerEnters = "task",
        prompt: str | None = None,
        quantization: Quantization | None = None,
    ) -> None:
        super().__init__(weight, name, require_answers(enters, name))
        if model is not None:
            check_base(model, f"{_KEY}.model")
        elif quantization:
            problem = "is set, but the frozen reference judges"
            raise ConfigError(f"{_KEY}.quantization", problem, "set model, too")
        self.model = model
        self.quantization: Quantization | None = quantization
        self.template = JudgeTemplate(
            prompt, f"{_KEY}.prompt", COMPARE, _SLOTS, COMPARE_TAGS, ("passage",)
        )
        self._judge: JudgingModel | None = None
        self._scale: ScoreScale

    def loads(self) -> LoadedModel | None:
        """The judge, unless it is the reference. The plan leaves out an untied head."""
        if self.model is None:
            return None
        return LoadedModel(self.model, self.quantization, "resident", _PLANNED_TOKENS)

    def connect(self, reference: Reference) -> None:
        """Load the judge beside the policy, and find the tokens of its verdicts.

        Raises:
            ConfigError: the judge cannot be loaded or does not fit into memory, or its tokenizer
                has no token for a verdict.
        """
        judge: JudgingModel = reference if self.model is None else self._loaded(reference)
        remedy = "use another model as the judge"
        self._scale = ScoreScale(
            judge, self.template.text, _KEY, remedy, WINNER_PREFIX, _POINTS, "its verdicts"
        )
        self._judge = judge

    def _loaded(self, reference: Reference) -> JudgingModel:
        assert self.model is not None
        if self._judge is not None:
            return self._judge
        key = f"{_KEY}.model"
        try:
            return JudgeModel(
                self.model,
                key,
                self.quantization,
                reference.device,
                reference.pass_tokens,
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            problem = f"{self.model!r} does not fit into memory beside the policy"
            raise ConfigError(
                key, problem, "set quantization: nf4, or use a smaller judge"
            ) from error

    def score(self, playout: Playout) -> Judgement:
        """Each answer's mean points in its comparisons, (N, G).

        Metrics: ``order_disagreement``, the share of pairs whose winner depends on the order, and
        ``verdict_mass``, the judge's probability of a verdict as its next token.
        """
        if self._judge is None:
            raise RuntimeError("call connect(reference) first: it loads the judge")
        ring = Ring.of(playout, "set data.group_size to 2 or more")
        shown, judge = ring.shown, self._judge
        expected, metrics = torch.empty(0), dict[str, Tensor | float]()
        if shown:
            text, room = self.template.text, judge.context
            prompts = [
                judge.encode(text, self.template.fenced(texts), WINNER_PREFIX, room)
                for texts in shown
            ]
            expected, mass = self._scale.read(prompts)
            self._scale.warn_if_little(mass, f"reward {self.name!r}", "; use another judge")
            metrics["verdict_mass"] = mass
        judgement = ring.judgement(expected.tolist())
        return Judgement(judgement.scores, metrics={**judgement.metrics, **metrics})
