"""Sends requests to a rollout server: many at once, all answered or one clear error."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from lsp_lightning.generation.served.errors import BadReply, EngineLost, Refused
from lsp_lightning.runtime.http import Client, Connection, Unanswered, check_url, run

#: Largest answer to any request other than for completions, in bytes.
SMALL_BODY = 1_000_000
_QUICK_SECONDS = 5.0


@dataclass(frozen=True)
class ServerClient:
    """A rollout server."""

    url: str
    """Base URL of the protocol, such as ``http://127.0.0.1:8000/v1``."""
    client: Client
    """API key, timeout and number of requests at once."""
    key: str
    """Config key to name in errors."""
    retries: int | None = None
    """Retries of a request; None for the usual number."""

    def __post_init__(self) -> None:
        check_url(self.url, f"{self.key}.url", "/completions")
        self.client.check(f"{self.key}.client")

    @property
    def base(self) -> str:
        """The URL without a slash at its end."""
        return self.url.rstrip("/")

    @property
    def root(self) -> str:
        """The URL without ``/v1``, for vLLM's paths outside of OpenAI's protocol."""
        return self.base.removesuffix("/v1")

    def quick(self) -> Self:
        """The same server, asked with a short timeout and without retries."""
        timeout = min(self.client.timeout, _QUICK_SECONDS)
        return replace(self, client=replace(self.client, timeout=timeout), retries=0)

    def ask(self, url: str, request: Mapping[str, object] | None = None) -> bytes:
        """The body of the answer to one request: POST, or GET if ``request`` is None.

        Raises:
            EngineLost: the server did not answer, or was overloaded or failing in every try.
            Refused: the status of the answer is not 200.
            BadReply: the body is too large for an answer of this kind.
        """
        bodies: list[bytes] = []
        self.ask_all(url, [request], lambda _, body: bodies.append(body), SMALL_BODY)
        return bodies[0]

    def ask_all(
        self,
        url: str,
        requests: Sequence[Mapping[str, object] | None],
        take: Callable[[int, bytes], None],
        largest: int,
    ) -> None:
        """Send all requests side by side. The first that fails cancels the others.

        Args:
            url: the URL of all requests.
            requests: JSON to POST; None for GET.
            take: called with the index of a request and the body of its answer, as answers arrive,
                one at a time. An exception in it cancels the other requests too.
            largest: most bytes of a body.

        Raises:
            EngineError: see :meth:`ask`.
        """
        run(self._ask_all(url, requests, take, largest))

    async def _ask_all(
        self,
        url: str,
        requests: Sequence[Mapping[str, object] | None],
        take: Callable[[int, bytes], None],
        largest: int,
    ) -> None:
        slots = asyncio.Semaphore(self.client.concurrency)
        async with Connection(self.url, self.client, f"{self.key}.client", self.retries) as server:

            async def one(i: int) -> None:
                async with slots:
                    take(i, await _body(server, url, requests[i], largest))

            try:
                async with asyncio.TaskGroup() as group:
                    for i in range(len(requests)):
                        group.create_task(one(i))
            except BaseExceptionGroup as errors:
                raise errors.exceptions[0] from None


async def _body(
    server: Connection, url: str, request: Mapping[str, object] | None, largest: int
) -> bytes:
    content = None if request is None else json.dumps(request).encode()
    try:
        answer = await server.request(url, content, largest)
    except Unanswered as error:
        raise EngineLost(error.problem) from None
    if answer.busy:
        raise EngineLost(f"{url} is overloaded or failing ({answer.status}: {answer.said})")
    if answer.status != 200:
        raise Refused(answer.status, answer.said, url)
    if answer.too_large:
        raise BadReply(f"{url} sent more than {largest} bytes, too much for this request")
    return answer.body
