"""Rollouts from a server with vLLM's form of OpenAI's completions.

Tested: the whole protocol against a test server with a real small model, and against
``transformers serve`` as far as that supports it. **Not tested yet, because it needs vLLM on a
GPU**: that vLLM loads these adapters, its speed, how far its log-probs are from the trainer's, and
how similar two runs of one seed are.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lsp_lightning.errors import ConfigError
from lsp_lightning.generation.base import Finished, Seed
from lsp_lightning.generation.served.adapters import AdapterPublisher, TrainedPolicy
from lsp_lightning.generation.served.client import ServerClient
from lsp_lightning.generation.served.errors import EngineError, EngineLost, Refused
from lsp_lightning.generation.served.protocol import Request, ServedCompletion, parsed
from lsp_lightning.models.loading import rows_of
from lsp_lightning.runtime.http import quoted
from lsp_lightning.seeding import derive_seed
from lsp_lightning.text.padding import pad_right
from lsp_lightning.types import Completions, Sampling

#: Two tokenizers count as equal if they agree on this: digits, spaces, code, accents, emoji.
_SAMPLE = (
    "In 2024, 1234.5 km:\n\tdef f(x):  return x**2 + 10 # caf\u00e9 \u2014 \u4f60\u597d \U0001f600"
)
#: Temperatures of two test requests. If log-probs depend on the temperature, those of the most
#: likely token differ by more than _APART.
_PROBES, _APART = (1.0, 8.0), 0.1


class ServedEngine:
    """Samples from the policy's adapter on a server; an :class:`lsp_lightning.generation.Engine`.

    The adapter is published again whenever its weights have changed, and every answer must carry
    its name. The server's log-probs are used if they are at the sampling temperature, before top-p
    and top-k. Otherwise they are NaN, and the trainer computes them.

    Args:
        client: the server.
        model: the name of the base model on the server.
        policy: the policy to sample from.
        publisher: publishes the policy's adapter on the server.
    """

    def __init__(
        self,
        client: ServerClient,
        model: str,
        policy: TrainedPolicy,
        publisher: AdapterPublisher,
    ) -> None:
        self._client = client
        self._model = model
        self._policy = policy
        self._publisher = publisher
        self._stop_ids = list(policy.codec.stop_ids)
        self._vocabulary = rows_of(policy.causal_lm)
        self._context: int | None = None
        self._processed: bool | None = None

    def check(self) -> None:
        """Check that the server has the base model and the same tokenizer.

        Raises:
            ConfigError: the model or the tokenizer differs, or this is not a vLLM server.
            EngineError: the server does not answer, or its answer is too large.
        """
        url, key = self._client.url, self._client.key
        try:
            listed = _cards(self._client.ask(f"{self._client.base}/models"))
        except Refused as error:
            raise ConfigError(key, error.cause, "check url and client.api_key_env") from error
        if listed is None:
            raise ConfigError(f"{key}.url", f"{url} lists no models", "give a vLLM server's URL")
        if self._model not in listed:
            names = quoted(", ".join(list(listed)[:5])) or "nothing"
            raise ConfigError(
                f"{key}.model",
                f"the server has no model {self._model!r} (it has {names})",
                "set it to the server's name of the base model",
            )
        self._check_tokenizer()
        self._context, self._processed = listed[self._model], None

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        draws: int,
        sampling: Sampling,
        seed: Seed,
        finished: Finished | None = None,
    ) -> Completions:
        """See :class:`lsp_lightning.generation.base.Engine`.

        ``finished`` is called as answers arrive, for all rows of a prompt at once.

        Raises:
            EngineLost: the server does not answer, is failing, or has lost the adapter.
            EngineError: the server cannot be used for another reason.
            ConfigError: a prompt and its completion do not fit into the server's context, another
                server answers at its URL, or the adapter's folder cannot be written.
        """
        try:
            return self._generate(prompts, draws, sampling, seed, finished)
        except EngineError:
            # the server may have lost the adapter
            self._publisher.invalidate()
            raise

    def close(self) -> None:
        """Unload the adapter from the server."""
        self._publisher.unload(quick=True)

    def _generate(
        self,
        prompts: Sequence[Sequence[int]],
        draws: int,
        sampling: Sampling,
        seed: Seed,
        finished: Finished | None,
    ) -> Completions:
        # check before each version: another server may answer at this URL
        name = self._publisher.publish(before=self.check)
        self._check_room(max(map(len, prompts)) + sampling.max_new_tokens)
        top = 0 if self._gives_logprobs(sampling, name, prompts[0]) else None
        # vLLM refuses several greedy completions of one prompt, because they are all equal
        asked = 1 if sampling.temperature == 0 else draws
        seeds = [
            derive_seed(*((seed, "served", i) if isinstance(seed, int) else (seed[i], "served")))
            for i in range(len(prompts))
        ]
        requests = [
            # >> 1 leaves room, because the server adds the number of the draw
            self._request(name, prompt, asked, sampling, own >> 1, top)
            for prompt, own in zip(prompts, seeds, strict=True)
        ]
        rows: dict[int, ServedCompletion] = {}

        def take(i: int, body: bytes) -> None:
            completions = requests[i].read(body) * (draws // asked)
            for row, completion in enumerate(completions, start=i * draws):
                rows[row] = completion
                if finished is not None:
                    finished(row, completion.ids)

        self._complete(requests, take)
        return _completions([rows[row] for row in range(len(rows))], self._policy.pad_id)

    def _request(
        self,
        name: str,
        prompt: Sequence[int],
        draws: int,
        sampling: Sampling,
        seed: int,
        top: int | None,
    ) -> Request:
        return Request(
            url=self._client.url,
            model=name,
            prompt=prompt,
            draws=draws,
            sampling=sampling,
            seed=seed,
            stop_ids=self._stop_ids,
            vocabulary=self._vocabulary,
            top=top,
        )

    def _complete(self, requests: Sequence[Request], take: Callable[[int, bytes], None]) -> None:
        url, largest = self._client.url, max(request.largest_answer for request in requests)
        payloads = [request.payload() for request in requests]
        try:
            self._client.ask_all(f"{self._client.base}/completions", payloads, take, largest)
        except Refused as error:
            if error.status != 404:
                raise
            model = requests[0].model
            cause = f"{url} has lost the adapter {model}, perhaps by a restart ({error.said})"
            raise EngineLost(cause) from error

    def _gives_logprobs(self, sampling: Sampling, name: str, prompt: Sequence[int]) -> bool:
        """Whether the server's log-probs are at the sampling temperature and before truncation.

        A server gives log-probs raw, at temperature 1 (vLLM's default), or processed, at the
        sampling temperature and after top-p and top-k (``--logprobs-mode processed_logprobs``).
        """
        raw_fits = sampling.temperature in (0, 1)
        if raw_fits and not sampling.truncates:
            return True
        if not raw_fits and sampling.truncates:
            return False
        if self._processed is None:
            self._processed = self._probe(name, prompt)
        return self._processed != raw_fits

    def _probe(self, name: str, prompt: Sequence[int]) -> bool:
        """Whether the server's log-probs change with the temperature."""
        requests = [
            self._request(name, prompt, 1, Sampling(temperature, max_new_tokens=1), seed=0, top=1)
            for temperature in _PROBES
        ]
        found: dict[int, float] = {}

        def take(i: int, body: bytes) -> None:
            found[i] = requests[i].likeliest(body)

        self._complete(requests, take)
        return abs(found[0] - found[1]) > _APART

    def _check_room(self, longest: int) -> None:
        if self._context is not None and longest > self._context:
            raise ConfigError(
                self._client.key,
                f"the server's context is {self._context} tokens, but {longest} are needed",
                "start the server with a larger --max-model-len, or lower max_new_tokens",
            )

    def _check_tokenizer(self) -> None:
        tokenizer = self._policy.codec.tokenizer
        # the text contains the stop tokens, because these must be the same too
        text = _SAMPLE + "".join(tokenizer.convert_ids_to_tokens(self._stop_ids[:8]))
        request = {"model": self._model, "prompt": text, "add_special_tokens": False}
        key = f"{self._client.key}.url"
        try:
            reply = parsed(self._client.ask(f"{self._client.root}/tokenize", request))
        except Refused as error:
            raise ConfigError(
                key, f"no rollout server: {error.cause}", "start vLLM there"
            ) from error
        tokens = reply.get("tokens") if isinstance(reply, dict) else None
        if tokens != tokenizer.encode(text, add_special_tokens=False):
            raise ConfigError(
                f"{self._client.key}.model",
                f"{self._model!r} on the server does not tokenize like model.base (or returned no "
                "tokens)",
                "serve the same base model",
            )


def _completions(rows: Sequence[ServedCompletion], pad_id: int) -> Completions:
    ids, mask = pad_right([row.ids for row in rows], pad_id)
    logprobs: Tensor = torch.zeros(ids.shape)
    unknown = torch.full((), float("nan"))
    logprobs[mask] = torch.cat(
        [
            unknown.expand(len(row.ids)) if row.logprobs is None else torch.tensor(row.logprobs)
            for row in rows
        ]
    )
    return Completions(ids, mask, logprobs, torch.tensor([row.truncated for row in rows]))


def _cards(body: bytes) -> dict[str, int | None] | None:
    """The models of a server, each with its context length if the server reports it."""
    reply: Any = parsed(body)
    try:
        found = {str(card["id"]): card.get("max_model_len") for card in reply["data"]}
    except (LookupError, TypeError, AttributeError):
        return None
    return {name: size if type(size) is int and size > 0 else None for name, size in found.items()}
