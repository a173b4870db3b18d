"""vLLM's form of OpenAI's completions: the request, and the checks of each answer.

Written from vLLM's published source (0.10.2 to 0.33). **Not run against a real vLLM yet**, which
needs a GPU; the tests use a server with the same protocol.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lsp_lightning.generation.served.errors import BadReply
from lsp_lightning.runtime.http import quoted
from lsp_lightning.types import Sampling

#: Log-probs up to this far above 0 are rounding errors; larger ones are refused.
_ROUNDING = 1e-3
#: No sampled token has a log-prob this low: the smallest float32 probability is e**-104. The limit
#: is lower because log-probs may come from another kernel. vLLM writes minus infinity as -9999.
_IMPOSSIBLE = -200.0
#: Bytes of an answer: an upper bound for each token, and for everything else.
_BYTES_A_TOKEN, _BYTES_BESIDE = 512, 1_000_000


@dataclass(frozen=True)
class ServedCompletion:
    """One completion from a rollout server."""

    ids: list[int]
    """Token ids, including the stop token."""
    logprobs: list[float] | None
    """The server's log-probs of the tokens; None if not requested or not sent."""
    truncated: bool
    """Whether it was cut off by the length limit."""


@dataclass(frozen=True)
class Request:
    """A request for completions of one prompt.

    The prompt is sent as token ids, not as text: text of a player could contain control tokens.
    """

    url: str
    """URL of the server, for errors."""
    model: str
    """Name of the adapter on the server; the answer must carry it."""
    prompt: Sequence[int]
    """Token ids."""
    draws: int
    """Number of completions."""
    sampling: Sampling
    """How they are sampled."""
    seed: int
    """Seed of the first completion; vLLM uses seed + j for completion j."""
    stop_ids: Sequence[int]
    """The only tokens that end a completion."""
    vocabulary: int
    """Number of tokens in the vocabulary."""
    top: int | None
    """How many most likely tokens to get log-probs for, besides the sampled one; None: no
    log-probs."""

    def payload(self) -> dict[str, object]:
        """The request as JSON.

        It sets everything that the model's ``generation_config.json`` could change on the server.
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
            # only stop_token_ids end a completion, not the model's default stop tokens
            "ignore_eos": True,
            "stop_token_ids": list(self.stop_ids),
            "return_token_ids": True,
            "stream": False,
        }
        return payload if self.top is None else {**payload, "logprobs": self.top}

    @property
    def largest_answer(self) -> int:
        """Most bytes of an answer."""
        tokens = self.draws * (self.sampling.max_new_tokens + len(self.prompt))
        return _BYTES_BESIDE + _BYTES_A_TOKEN * tokens

    def read(self, body: bytes) -> list[ServedCompletion]:
        """The completions in an answer, after checking everything that training relies on.

        Raises:
            BadReply: the body is not a valid answer to this request.
        """
        return [self._completion(choice) for choice in self._choices(body)]

    def likeliest(self, body: bytes) -> float:
        """Log-prob of the most likely first token, in an answer with ``top`` above 0.

        Raises:
            BadReply: the answer has no log-probs.
        """
        try:
            (choice,) = self._choices(body)
            return max(map(float, choice["logprobs"]["top_logprobs"][0].values()))
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
            raise self._bad(f"has no top log-probs ({quoted(body)})") from None

    def _choices(self, body: bytes) -> list[Mapping[str, Any]]:
        reply = parsed(body)
        if not isinstance(reply, dict) or not isinstance(reply.get("choices"), list):
            raise self._bad(f"is not a completion ({quoted(body)})")
        if reply.get("model") != self.model:
            name = quoted(repr(reply.get("model")))
            raise self._bad(
                f"comes from model {name}, with weights that are stale or of another run"
            )
        choices: list[Any] = reply["choices"]
        if not all(isinstance(c, dict) and type(c.get("index")) is int for c in choices):
            raise self._bad("has malformed choices")
        by_index = sorted(choices, key=lambda choice: choice["index"])
        if [choice["index"] for choice in by_index] != list(range(self.draws)):
            raise self._bad(f"has {len(choices)} choices instead of {self.draws}")
        if any(c.get("prompt_token_ids") not in (None, list(self.prompt)) for c in choices):
            raise self._bad("continues a different prompt")
        return by_index

    def _completion(self, choice: Mapping[str, Any]) -> ServedCompletion:
        ids, limit = choice.get("token_ids"), self.sampling.max_new_tokens
        if ids is None:
            raise self._bad("has no token ids; they need vLLM 0.10.2 or newer")
        if not isinstance(ids, list) or not all(type(i) is int for i in ids):
            raise self._bad("has token ids that are not integers")
        if not 0 < len(ids) <= limit:
            raise self._bad(f"has {len(ids)} tokens instead of 1 to {limit}")
        outside = [i for i in ids if not 0 <= i < self.vocabulary]
        if outside:
            token = quoted(str(outside[0]))
            raise self._bad(
                f"has the token {token}, but the vocabulary has {self.vocabulary}, so it comes "
                "from another model or tokenizer"
            )
        stops = set(self.stop_ids)
        if not stops.isdisjoint(ids[:-1]):
            raise self._bad("continues after a stop token")
        truncated = ids[-1] not in stops
        if truncated and len(ids) < limit:
            raise self._bad(f"ends after {len(ids)} tokens without a stop token")
        return ServedCompletion(ids, self._logprobs(choice.get("logprobs"), len(ids)), truncated)

    def _logprobs(self, found: Any, count: int) -> list[float] | None:
        if self.top is None or found is None:
            return None
        try:
            logprobs = [float(value) for value in found["token_logprobs"]]
        except (LookupError, TypeError, ValueError, OverflowError):
            raise self._bad("has log-probs that are not numbers") from None
        if len(logprobs) != count:
            raise self._bad(f"has {len(logprobs)} log-probs for {count} tokens")
        for value in logprobs:
            if not (math.isfinite(value) and _IMPOSSIBLE < value <= _ROUNDING):
                raise self._bad(f"has a sampled token with the log-prob {value:g}")
        return [min(value, 0.0) for value in logprobs]

    def _bad(self, problem: str) -> BadReply:
        return BadReply(f"{self.url}: an answer for {self.model} {problem}")


def parsed(body: bytes) -> Any:
    """The JSON of an answer, or None if it is not JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
