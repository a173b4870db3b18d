"""vLLM's form of OpenAI's completions: what is sent, and what may be believed of what comes back.

Written from vLLM's published source (0.10.2 and later, read up to 0.33). **Not yet run against a
real vLLM**, which needs a GPU: what is tested is a stand-in that speaks the same.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lsp_lightning.generation.served.errors import BadReply
from lsp_lightning.runtime.http import quoted
from lsp_lightning.types import Sampling

#: A log-prob this far above 0 is the rounding of a number format; further up it is none.
_ROUNDING = 1e-3
#: No sampled token is down here: float32 has no probability below e**-104 but 0. vLLM's -9999 for
#: minus infinity is further down, and other kernels than the sampler's may differ by some.
_IMPOSSIBLE = -200.0
#: A token's number, text, place and log-prob in an answer, generously; and what does not grow.
_BYTES_A_TOKEN, _BYTES_BESIDE = 512, 1_000_000


@dataclass(frozen=True)
class ServedCompletion:
    """One completion."""

    ids: list[int]
    """Its tokens, the stop token included."""
    logprobs: list[float] | None
    """As the server gives them, or None where it gives none."""
    truncated: bool
    """The length limit came before a stop token."""


@dataclass(frozen=True)
class Request:
    """Some completions of one prompt.

    A prompt is token ids, never text: what a player wrote could spell control tokens.
    """

    url: str
    """Of the server, named in errors."""
    model: str
    """The adapter's name on the server, which its answer must bear."""
    prompt: Sequence[int]
    """Token ids."""
    draws: int
    """How many completions."""
    sampling: Sampling
    """How they are drawn."""
    seed: int
    """Of the first draw: vLLM gives draw j the seed plus j."""
    stop_ids: Sequence[int]
    """Tokens that end a completion: these and no others."""
    vocabulary: int
    """How many tokens there are."""
    top: int | None
    """Log-probs of so many likeliest tokens beside the sampled one's; None is no log-probs."""

    def payload(self) -> dict[str, object]:
        """The request as the server reads it.

        Everything that a model's ``generation_config.json`` could change on the server is said.
        """
        greedy = self.sampling.temperature == 0
        payload: dict[str, object] = {
            "model": self.model,
            "prompt": list(self.prompt),
            "n": self.draws,
            "max_tokens": self.sampling.max_new_tokens,
            "temperature": self.sampling.temperature,
            "top_p": 1.0 if greedy else self.sampling.top_p,
            "top_k": 0 if greedy else self.sampling.top_k,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "seed": self.seed,
            # not the model's own stop tokens beside ours: a completion ends where ours says
            "ignore_eos": True,
            "stop_token_ids": list(self.stop_ids),
            "return_token_ids": True,
            "stream": False,
        }
        return payload if self.top is None else {**payload, "logprobs": self.top}

    @property
    def largest_answer(self) -> int:
        """Bytes of an answer at most."""
        tokens = self.draws * (self.sampling.max_new_tokens + len(self.prompt))
        return _BYTES_BESIDE + _BYTES_A_TOKEN * tokens

    def read(self, body: bytes) -> list[ServedCompletion]:
        """The completions of an answer, each checked for what training relies on.

        Raises:
            BadReply: it is not an answer to this request.
        """
        return [self._drawn(choice) for choice in self._choices(body)]

    def likeliest(self, body: bytes) -> float:
        """Log-prob of the likeliest first token, of an answer with ``top`` above 0.

        Raises:
            BadReply: it has none.
        """
        try:
            (choice,) = self._choices(body)
            return max(map(float, choice["logprobs"]["top_logprobs"][0].values()))
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
            raise self._bad(f"has no top log-probs ({quoted(body)})") from None

    def _choices(self, body: bytes) -> list[Mapping[str, Any]]:
        reply = parsed(body)
        if not isinstance(reply, dict) or not isinstance(reply.get("choices"), list):
            raise self._bad(f"is no completion ({quoted(body)})")
        if reply.get("model") != self.model:
            raise self._bad(f"is by {quoted(repr(reply.get('model')))}: stale or foreign weights")
        choices: list[Any] = reply["choices"]
        if not all(isinstance(c, dict) and type(c.get("index")) is int for c in choices):
            raise self._bad("has choices that are none")
        by_index = sorted(choices, key=lambda choice: choice["index"])
        if [choice["index"] for choice in by_index] != list(range(self.draws)):
            raise self._bad(f"has {len(choices)} choices where {self.draws} are asked for")
        if any(c.get("prompt_token_ids") not in (None, list(self.prompt)) for c in choices):
            raise self._bad("continues another prompt than was sent")
        return by_index

    def _drawn(self, choice: Mapping[str, Any]) -> ServedCompletion:
        ids, limit = choice.get("token_ids"), self.sampling.max_new_tokens
        if ids is None:
            raise self._bad("has no token ids: vLLM 0.10.2 or newer is needed")
        if not isinstance(ids, list) or not all(type(i) is int for i in ids):
            raise self._bad("has token ids that are no numbers")
        if not 0 < len(ids) <= limit:
            raise self._bad(f"has {len(ids)} tokens where 1 to {limit} are asked for")
        outside = [i for i in ids if not 0 <= i < self.vocabulary]
        if outside:
            what = f"has token {quoted(str(outside[0]))} of {self.vocabulary}"
            raise self._bad(f"{what}: another model, or another tokenizer")
        stops = set(self.stop_ids)
        if not stops.isdisjoint(ids[:-1]):
            raise self._bad("goes on behind a stop token")
        truncated = ids[-1] not in stops
        if truncated and len(ids) < limit:
            raise self._bad(f"ends after {len(ids)} tokens, without a stop token")
        return ServedCompletion(ids, self._logprobs(choice.get("logprobs"), len(ids)), truncated)

    def _logprobs(self, found: Any, count: int) -> list[float] | None:
        if self.top is None or found is None:
            return None
        try:
            logprobs = [float(value) for value in found["token_logprobs"]]
        except (LookupError, TypeError, ValueError, OverflowError):
            raise self._bad("has log-probs that are no numbers") from None
        if len(logprobs) != count:
            raise self._bad(f"has {len(logprobs)} log-probs for {count} tokens")
        for value in logprobs:
            if not (math.isfinite(value) and _IMPOSSIBLE < value <= _ROUNDING):
                raise self._bad(f"has a sampled token of log-prob {value:g}")
        return [min(value, 0.0) for value in logprobs]

    def _bad(self, what: str) -> BadReply:
        return BadReply(f"{self.url}: an answer for {self.model} {what}")


def parsed(body: bytes) -> Any:
    """The JSON of an answer, or None where it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
