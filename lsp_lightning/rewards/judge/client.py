"""Sends many prompts at once to an OpenAI-compatible server."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

from lsp_lightning.errors import ConfigError, require_at_least
from lsp_lightning.rewards.judge.protocol import LARGEST_BODY, Failure, Reply, payload, read_answer
from lsp_lightning.runtime.http import (
    Client,
    Connection,
    Unanswered,
    check_reachable,
    check_url,
    run,
)

#: Fewest failed requests in a row after which a batch stops.
_FEWEST_FAILURES = 3


@dataclass(frozen=True)
class ChatClient:
    """A chat model on an OpenAI-compatible server."""

    url: str
    """The server's base URL, such as ``http://127.0.0.1:8000/v1``."""
    model: str
    """The model's name on that server."""
    client: Client
    """API key, timeout and number of requests at once."""
    temperature: float
    """0 is greedy."""
    max_tokens: int
    """Longest reply, in tokens."""
    key: str
    """Config key to name in errors."""

    def __post_init__(self) -> None:
        check_url(self.url, f"{self.key}.url", "/chat/completions")
        if not self.model.strip():
            raise ConfigError(
                f"{self.key}.model", "is empty", "give the model's name on the server"
            )
        self.client.check(f"{self.key}.client")
        require_at_least(self.max_tokens, 1, f"{self.key}.max_tokens", "a reply needs room")
        if not 0 <= self.temperature < math.inf:
            key = f"{self.key}.temperature"
            raise ConfigError(key, f"is {self.temperature}", "set a finite number, 0 or more")

    def check_reachable(self) -> None:
        """Raise ConfigError unless the server accepts connections."""
        check_reachable(self.url, f"{self.key}.url", "start the server, or remove the reward")

    def ask(self, prompts: Sequence[str]) -> list[Reply | Failure]:
        """The model's reply to each prompt, or why there is none.

        After several failed requests in a row the remaining prompts fail without a request.
        """
        return run(self._ask_all(prompts)) if prompts else []

    async def _ask_all(self, prompts: Sequence[str]) -> list[Reply | Failure]:
        async with Connection(self.url, self.client, f"{self.key}.client") as connection:
            batch = _Batch(self, connection)
            return await asyncio.gather(*map(batch.ask, prompts))


class _Batch:
    """The prompts of one call; stops asking a server that keeps failing."""

    def __init__(self, client: ChatClient, connection: Connection) -> None:
        self._client = client
        self._connection = connection
        self._slots = asyncio.Semaphore(client.client.concurrency)
        self._failures_in_a_row = 0
        self._given_up: Failure | None = None

    async def ask(self, prompt: str) -> Reply | Failure:
        async with self._slots:
            if self._given_up is not None:
                return self._given_up
            outcome = await self._request(prompt)
            self._count(outcome)
            return outcome

    def _count(self, outcome: Reply | Failure) -> None:
        """Stop after as many failures in a row as requests run at once, but not before three.

        So a dead server costs only the retries of the first requests.
        """
        if isinstance(outcome, Reply) or outcome.only_this_prompt:
            self._failures_in_a_row = 0
            return
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= max(self._client.client.concurrency, _FEWEST_FAILURES):
            self._given_up = outcome

    async def _request(self, prompt: str) -> Reply | Failure:
        client = self._client
        request = payload(client.model, prompt, client.temperature, client.max_tokens)
        url = f"{client.url.rstrip('/')}/chat/completions"
        try:
            answer = await self._connection.request(url, request, LARGEST_BODY)
        except Unanswered as error:
            return Failure(str(error))
        return read_answer(client.url, answer)
