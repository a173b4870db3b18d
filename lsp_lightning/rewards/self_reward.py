"""The self-reward: the frozen reference policy, prompted as a judge, scores the answers."""

from typing import Literal, get_args

from lsp_lightning.errors import require_at_least, require_one_of
from lsp_lightning.rewards.base import Judgement, Reward
from lsp_lightning.rewards.grading import JudgeTemplate, grade_scores, judged_texts
from lsp_lightning.rewards.score_scale import ScoreScale
from lsp_lightning.seeding import derive_seed
from lsp_lightning.text.prompts import SCORE_PREFIX, parse_grade
from lsp_lightning.types import Playout, Reference, Sampling

Reading = Literal["expected", "sampled"]

_KEY = "model.rewards.SelfReward"


class SelfReward(Reward):
    """Q of full LSP: the reference's points for query and answer, scaled to [0, 1].

    *expected* reading: the judge's reply is forced to start with the score tag. The score is the
    mean of the points 0 to 7, weighted by their probabilities as the next token. This takes one
    forward pass. No reply is parsed, so judged text that looks like a score cannot be read as one.

    *sampled* reading, as in the paper: the judge writes a justification, the sum and the score. A
    reply is unreadable unless it ends with a sum and a score that agree. Unreadable replies are
    counted, and their score is NaN.

    Args:
        weight: factor of Q; the paper adds 0 to 7 points to R unscaled, which is weight 7.
        name: the name in metrics and transcripts.
        prompt: file with the judge's template; it needs the slots {instruction} and {response}, and
            may have {passage}, which is empty for a query without a passage.
        reading: how the score is read: expected is one forward pass, sampled writes a reply.
        sampling: how replies are sampled (only for *sampled*); leave room for the justification.
    """

    span = (0.0, 1.0)

    def __init__(
        self,
        weight: float = 1.0,
        name: str = "self_reward",
        prompt: str | None = None,
        reading: Reading = "expected",
        sampling: Sampling = Sampling(max_new_tokens=320),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(weight, name, enters="quality")
        self.template = JudgeTemplate(prompt, f"{_KEY}.prompt", optional=("passage",))
        require_one_of(reading, get_args(Reading), f"{_KEY}.reading")
        key = f"{_KEY}.sampling.max_new_tokens"
        require_at_least(sampling.max_new_tokens, 1, key, "a reply needs room")
        self.reading: Reading = reading
        self.sampling = sampling
        self._reference: Reference | None = None
        self._scale: ScoreScale | None = None

    def connect(self, reference: Reference) -> None:
        """Keep the reference as the judge, and find the tokens of the scores 0 to 7.

        Raises:
            ConfigError: the tokenizer has no single token for one of the scores.
        """
        if self.reading == "expected":
            remedy = "use reading: sampled or another model, or remove the self-reward"
            self._scale = ScoreScale(reference, self.template.text, _KEY, remedy)
        self._reference = reference

    def score(self, playout: Playout) -> Judgement:
        """The reference's points divided by 7, (N, G).

        Metrics: ``score_mass`` (*expected*), or ``unreadable`` and the points of each criterion
        (*sampled*).
        """
        if self._reference is None:
            raise RuntimeError(
                "call connect(reference) first: the self-reward judges with the reference"
            )
        prefix = SCORE_PREFIX if self.reading == "expected" else ""
        room = self._room(self._reference.context)
        prompts = [
            self._reference.encode(self.template.text, self.template.fenced(texts), prefix, room)
            for texts in judged_texts(playout)
        ]
        if self._scale is None:
            seed = derive_seed(playout.seed, self.name)
            replies = self._reference.respond(prompts, 1, self.sampling, seed)
            return grade_scores([parse_grade(text) for text in replies.spoken], playout)
        scores, mass = self._scale.read(prompts)
        otherwise = "; see the metric score_mass, or use reading: sampled"
        self._scale.warn_if_little(mass, f"reward {self.name!r}", otherwise)
        shape = (len(playout.query_texts), playout.group_size)
        return Judgement(scores.view(shape), metrics={"score_mass": mass})

    def _room(self, context: int | None) -> int | None:
        """Most tokens of a prompt, so that prompt and reply fit into the judge's context."""
        if context is None or self.reading == "expected":
            return context
        return max(context // 2, context - self.sampling.max_new_tokens)
