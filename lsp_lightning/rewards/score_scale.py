"""The points that a judge would give, read from the probabilities of its next token."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from lsp_lightning.errors import ConfigError, warn
from lsp_lightning.text.prompts import MAX_SCORE, SCORE_PREFIX

_UNKNOWN = "\U0010fffd"  # a private-use character, in no vocabulary
_LITTLE_MASS = 0.5
_SCORES = {str(score): float(score) for score in range(MAX_SCORE + 1)}


class JudgingModel(Protocol):
    """A chat model that judges by its next token: the frozen reference, or a model of its own."""

    @property
    def context(self) -> int | None:
        """See :attr:`lsp_lightning.types.Reference.context`."""

    def encode(
        self,
        template: str,
        slots: Mapping[str, str],
        prefix: str = "",
        max_tokens: int | None = None,
    ) -> list[int]:
        """See :meth:`lsp_lightning.types.Reference.encode`."""

    def next_token_logprobs(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """See :meth:`lsp_lightning.types.Reference.next_token_logprobs`."""


class ScoreScale:
    """Reads the mean of some points, each weighted by the probability of its word as next token.

    No reply is parsed, so judged text that looks like a score cannot be read as one.

    Args:
        model: the judge.
        template: its prompt, to find the token of each word after the prefix.
        key: config key of the judge, for the error.
        remedy: what to do if a word has no token, for the error.
        prefix: the start of the judge's reply.
        points: the points that each word stands for, 0 or more.
        what: what the words are, for the warning.

    Raises:
        ConfigError: the tokenizer has no single token for one of the words.
    """

    def __init__(
        self,
        model: JudgingModel,
        template: str,
        key: str,
        remedy: str,
        prefix: str = SCORE_PREFIX,
        points: Mapping[str, float] = _SCORES,
        what: str = "the scores 0 to 7",
    ) -> None:
        self._model, self._prefix, self._what = model, prefix, what
        self._points = torch.tensor(list(points.values()))
        self._ids = _next_tokens(model, template, prefix, list(points), key, remedy)
        self._warned = False

    def read(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Expected points as a share of the most, and total probability of the words. (n,) each.

        Args:
            prompts: token ids that end with the prefix.
        """
        logprobs = self._model.next_token_logprobs(prompts)[:, self._ids].float().cpu()
        expected = logprobs.softmax(dim=-1) @ self._points / self._points.max()
        return expected, logprobs.exp().sum(dim=-1)

    def warn_if_little(self, mass: Tensor, judge: str, otherwise: str = "") -> None:
        """Warn once if the words have little probability.

        Args:
            mass: their total probability in each prompt.
            judge: what reads the points, for the message.
            otherwise: what else to do, for its end.
        """
        mean = float(mass.mean())
        if mean < _LITTLE_MASS and not self._warned:
            self._warned = True
            warn(
                f"{judge}: after {self._prefix!r} the judge gives {self._what} "
                f"only {mean:.0%} of its probability, so they may mean little{otherwise}"
            )


def _next_tokens(
    model: JudgingModel, template: str, prefix: str, words: Sequence[str], key: str, remedy: str
) -> list[int]:
    """The token that begins each word right after the prefix.

    Raises:
        ConfigError: the first token of a word is unknown, or begins another word too.
    """
    start = model.encode(template, {}, prefix=prefix)
    place = len(start)
    seen = [model.encode(template, {}, prefix=f"{prefix}{_UNKNOWN}")[place:][:1]]
    for word in words:
        ids = model.encode(template, {}, prefix=f"{prefix}{word}")
        token = ids[place:][:1]
        if ids[:place] != start or not token or token in seen:
            problem = f"the tokenizer has no single token for {word} after {prefix!r}"
            raise ConfigError(key, problem, remedy)
        seen.append(token)
    return [token for [token] in seen[1:]]
