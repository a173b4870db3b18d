"""The points that a judge would give, read from the probabilities of its next token."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lsp_lightning.errors import ConfigError, warn
from lsp_lightning.text.prompts import MAX_SCORE, SCORE_PREFIX
from lsp_lightning.types import Reference

_UNKNOWN = "\U0010fffd"  # a private-use character, in no vocabulary
_LITTLE_MASS = 0.5


class ScoreScale:
    """Reads the mean of the points 0 to 7, weighted by their probabilities as the next token.

    No reply is parsed, so judged text that looks like a score cannot be read as one.

    Args:
        reference: the judge.
        template: its prompt, to find the token of each score after the score tag.
        key: config key of the judge, for the error.
        remedy: what to do if a score has no token, for the error.

    Raises:
        ConfigError: the tokenizer has no single token for one of the scores.
    """

    def __init__(self, reference: Reference, template: str, key: str, remedy: str) -> None:
        self._reference = reference
        self._ids = _score_tokens(reference, template, key, remedy)
        self._warned = False

    def read(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Expected score in [0, 1] and total probability of the score tokens, (n,) each.

        Args:
            prompts: token ids that end with the score tag.
        """
        logprobs = self._reference.next_token_logprobs(prompts)[:, self._ids].float().cpu()
        points = torch.arange(MAX_SCORE + 1, dtype=torch.float32)
        return logprobs.softmax(dim=-1) @ points / MAX_SCORE, logprobs.exp().sum(dim=-1)

    def warn_if_little(self, mass: Tensor, judge: str, otherwise: str = "") -> None:
        """Warn once if the score tokens have little probability.

        Args:
            mass: their total probability in each prompt.
            judge: what reads the scores, for the message.
            otherwise: what else to do, for its end.
        """
        mean = float(mass.mean())
        if mean < _LITTLE_MASS and not self._warned:
            self._warned = True
            warn(
                f"{judge}: after {SCORE_PREFIX!r} the judge gives the scores 0 to 7 "
                f"only {mean:.0%} of its probability, so they may mean little{otherwise}"
            )


def _score_tokens(reference: Reference, template: str, key: str, remedy: str) -> list[int]:
    """The token id of each score 0 to 7 right after the score tag."""
    start = reference.encode(template, {}, prefix=SCORE_PREFIX)
    unknown = reference.encode(template, {}, prefix=f"{SCORE_PREFIX}{_UNKNOWN}")[-1]
    score_ids = []
    for score in range(MAX_SCORE + 1):
        ids = reference.encode(template, {}, prefix=f"{SCORE_PREFIX}{score}")
        if ids[:-1] != start or ids[-1] == unknown:
            raise ConfigError(
                key,
                f"the tokenizer has no single token for {score} after {SCORE_PREFIX!r}",
                remedy,
            )
        score_ids.append(ids[-1])
    return score_ids
