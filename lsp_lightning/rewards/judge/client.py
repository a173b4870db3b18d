"""Asks a server that speaks OpenAI's chat protocol: many prompts at once, each within bounds."""

import asyncio
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lsp_lightning.errors import ConfigError, require_at_least
from lsp_lightning.rewards.judge.protocol import LARGEST_BODY, Failure, Reply, payload, read_answer
from lsp_lightning.runtime.http import (
    api_key,
    cause_of,
    check_bounds,
    check_reachable,
    check_url,
    open_client,
    pause,
    quoted,
)

if TYPE_CHECKING:
    import httpx2

#: So many requests must fail in a row, at least, before a server is given up.
_FEWEST_FAILURES = 3


@dataclass(frozen=True)
class ChatClient:
    """A model behind a server, and the bounds within which it is asked.

    Proxies of the environment are not used, and redirects not followed: what is asked goes to
    ``url`` and nowhere else.
    """

    url: str
    """Where the protocol's paths begin, such as ``http://127.0.0.1:8000/v1``."""
    model: str
    """The model's name on that server."""
    api_key_env: str | None
    """Name of the environment variable that holds the key; read for each round, never kept."""
    concurrency: int
    """Requests at once."""
    timeout: float
    """Seconds for one try in all, however slowly the server drips."""
    retries: int
    """Further tries after a failure that may pass."""
    temperature: float
    """0 is greedy."""
    max_tokens: int
    """Tokens of a reply."""
    key: str
    """Config key to name in errors."""

    def __post_init__(self) -> None:
        check_url(self.url, f"{self.key}.url", "/chat/completions")
        if not self.model.strip():
            raise ConfigError(f"{self.key}.model", "is empty", "give the name the server knows")
        check_bounds(self.key, self.concurrency, self.timeout, self.retries)
        require_at_least(self.max_tokens, 1, f"{self.key}.max_tokens", "a reply needs room")
        if not 0 <= self.temperature < math.inf:
            raise ConfigError(
                f"{self.key}.temperature", f"is {self.temperature}", "set 0 or a number above"
            )
        api_key(self.api_key_env, self.key)

    def check_reachable(self) -> None:
        """See :func:`lsp_lightning.runtime.http.check_reachable`."""
        check_reachable(self.url, f"{self.key}.url", "start the server, or take the reward out")

    def ask(self, prompts: Sequence[str]) -> list[Reply | Failure]:
        """What the model says to each prompt, side by side.

        A server that fails request after request is given up, and the rest of the prompts with it.
        """
        if not prompts:
            return []
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._ask(prompts)
        # a notebook's thread runs a loop already
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(self._ask, prompts).result()

    def _ask(self, prompts: Sequence[str]) -> list[Reply | Failure]:
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            return runner.run(self._ask_all(prompts))

    async def _ask_all(self, prompts: Sequence[str]) -> list[Reply | Failure]:
        secret = api_key(self.api_key_env, self.key)
        async with open_client(self.url, secret, self.concurrency, self.timeout) as http:
            asking = _Asking(self, http, None if secret is None else secret.encode())
            return await asyncio.gather(*map(asking.ask, prompts))


class _Asking:
    """One round of requests, and whether the server is still worth asking."""

    def __init__(
        self, client: ChatClient, http: "httpx2.AsyncClient", secret: bytes | None
    ) -> None:
        self._client = client
        self._http = http
        self._secret = secret
        self._slots = asyncio.Semaphore(client.concurrency)
        self._failures_in_a_row = 0
        self._given_up: Failure | None = None

    async def ask(self, prompt: str) -> Reply | Failure:
        """The reply to a prompt, after as many tries as it takes and is allowed."""
        async with self._slots:
            for k in range(self._client.retries + 1):
                if self._given_up is not None:
                    return self._given_up
                outcome = await self._try(prompt)
                if isinstance(outcome, Reply) or not outcome.passing:
                    break
                if k < self._client.retries:
                    await asyncio.sleep(pause(k, outcome.wait))
            self._count(outcome)
            return outcome

    def _count(self, outcome: Reply | Failure) -> None:
        """Give the server up once as many requests as run at once have failed in a row.

        So a dead one costs the patience of one request, not that of all.
        """
        if isinstance(outcome, Reply) or outcome.of_prompt:
            self._failures_in_a_row = 0
            return
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= max(self._client.concurrency, _FEWEST_FAILURES):
            self._given_up = outcome

    async def _try(self, prompt: str) -> Reply | Failure:
        import httpx2

        client, url = self._client, self._client.url
        request = payload(client.model, prompt, client.temperature, client.max_tokens)
        started = time.monotonic()
        try:
            async with (
                asyncio.timeout(client.timeout),
                self._http.stream(
                    "POST", f"{url.rstrip('/')}/chat/completions", content=request
                ) as response,
            ):
                body = await _read(response)
        except httpx2.ConnectError as error:
            cause = f"no judge at {url}: {cause_of(error)}; start it or take the reward out"
            return Failure(cause, passing=True)
        except (TimeoutError, httpx2.TimeoutException):
            cause = f"the judge at {url} does not reply in time; raise timeout or lower max_tokens"
            return Failure(cause, passing=True)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            why = quoted(str(error)) or type(error).__name__
            cause = f"the judge at {url} broke off: {why}; see its log"
            return Failure(cause, passing=True)
        if self._secret is not None:
            # some servers quote the key that they refuse
            body = body.replace(self._secret, b"***")
        seconds = time.monotonic() - started
        return read_answer(url, response.status_code, response.headers, body, seconds)


async def _read(response: "httpx2.Response") -> bytes:
    """The body, cut where it grows too large for a reply."""
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > LARGEST_BODY:
            break
    return bytes(body[:LARGEST_BODY])
