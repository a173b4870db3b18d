"""The quality self-reward: the frozen reference, prompted, judges the round."""

import re

import torch
from torch import Tensor

from lsp_lightning.errors import ConfigError
from lsp_lightning.prompts import JUDGE, JUDGE_TAGS, MAX_SCORE, SCORE_PREFIX, fence, read_template
from lsp_lightning.rewards.base import Reward
from lsp_lightning.types import Playout, Reference

_UNKNOWN = "\U0010fffd"  # a character for private use, in no vocabulary


class SelfReward(Reward):
    """Q of full LSP: the reference's points for query and answer, scaled to [0, 1].

    The *expected* reading: the judge's reply is made to begin with the score tag, and the score is
    the probability-weighted mean over the numbers that may follow. One forward pass, no rationale,
    no reply to parse, so nothing that the judged text spells can be taken for a score.

    Args:
        weight: factor of Q; the paper adds its 0 to 7 points to R as they are, which is weight 7.
        name: what it is called in metrics and transcripts.
        prompt: file with the judge's template; slots {instruction} and {response}.
    """

    span = (0.0, 1.0)

    def __init__(
        self, weight: float = 1.0, name: str = "self_reward", prompt: str | None = None
    ) -> None:
        super().__init__(weight, name, enters="quality")
        slots = ("instruction", "response")
        self._template = read_template(prompt, JUDGE, "model.rewards.SelfReward.prompt", slots)
        # every tag of the template is one that a judged text must not spell
        self._tags = {*re.findall(r"</?(\w+)>", self._template), *JUDGE_TAGS}
        self._reference: Reference | None = None
        self._score_ids: list[int] = []

    def connect(self, reference: Reference) -> None:
        """Keep the reference as the judge and find the tokens of its scores.

        Raises:
            ConfigError: the tokenizer has no single token for one of the scores.
        """
        start = reference.encode(self._template, {}, prefix=SCORE_PREFIX)
        unknown = reference.encode(self._template, {}, prefix=f"{SCORE_PREFIX}{_UNKNOWN}")[-1]
        self._score_ids = []
        for score in range(MAX_SCORE + 1):
            ids = reference.encode(self._template, {}, prefix=f"{SCORE_PREFIX}{score}")
            if ids[:-1] != start or ids[-1] == unknown:
                raise ConfigError(
                    "model.rewards.SelfReward",
                    f"this model's tokenizer has no token for {score} after {SCORE_PREFIX!r}",
                    "use another judge or leave the self-reward out",
                )
            self._score_ids.append(ids[-1])
        self._reference = reference

    def score(self, playout: Playout) -> Tensor:
        """Expected score over the highest one, (N, G)."""
        if self._reference is None:
            raise RuntimeError(
                "call connect(policy) first: the self-reward judges with the reference"
            )
        prompts = [
            self._reference.encode(
                self._template,
                {
                    "instruction": fence(query, self._tags),
                    "response": fence(answer, self._tags),
                },
                prefix=SCORE_PREFIX,
            )
            for query, answers in zip(playout.query_texts, playout.answer_groups(), strict=True)
            for answer in answers
        ]
        return self.read(prompts).view(len(playout.query_texts), playout.group_size)

    def read(self, prompts: list[list[int]]) -> Tensor:
        """Expected score in [0, 1] after each judge prompt. -> (n,)."""
        assert self._reference is not None
        logprobs = self._reference.next_token_logprobs(prompts)[:, self._score_ids]
        points = torch.arange(MAX_SCORE + 1, dtype=torch.float32, device=logprobs.device)
        return logprobs.softmax(dim=-1) @ points / MAX_SCORE
