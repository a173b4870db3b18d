"""Asks a rollout server: many requests at once, each within bounds, or one clear error."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from lsp_lightning.generation.served.errors import BadReply, EngineLost, Refused
from lsp_lightning.runtime.http import (
    api_key,
    cause_of,
    check_bounds,
    check_url,
    open_client,
    pause,
    quoted,
    retry_after,
)

if TYPE_CHECKING:
    import httpx2

#: Bytes of an answer that is no completion.
SMALL_BODY = 1_000_000
_SECONDS_IN_A_HURRY = 5.0


class _Passing(Exception):
    """A failure that may pass by itself; ``wait`` seconds are asked for before the next try."""

    def __init__(self, cause: str, wait: float = 0.0) -> None:
        super().__init__(cause)
        self.wait = wait


@dataclass(frozen=True)
class ServerClient:
    """A rollout server, and the bounds within which it is asked.

    Proxies of the environment are not used, and redirects not followed: what is asked goes to
    ``url`` and nowhere else.
    """

    url: str
    """Where the protocol's paths begin, such as ``http://127.0.0.1:8000/v1``."""
    api_key_env: str | None
    """Name of the environment variable that holds the key; read for each call, never kept."""
    concurrency: int
    """Requests at once."""
    timeout: float
    """Seconds for one try in all, however slowly the server drips."""
    retries: int
    """Further tries after a failure that may pass."""
    key: str
    """Config key to name in errors."""

    def __post_init__(self) -> None:
        check_url(self.url, f"{self.key}.url", "/completions")
        check_bounds(self.key, self.concurrency, self.timeout, self.retries)
        self.api_key()

    @property
    def root(self) -> str:
        """Where paths begin that are not OpenAI's."""
        return self.url.rstrip("/").removesuffix("/v1")

    def api_key(self) -> str | None:
        """The key, from the environment; see :func:`lsp_lightning.runtime.http.api_key`."""
        return api_key(self.api_key_env, self.key)

    def hurried(self) -> Self:
        """One short try, and no more."""
        return replace(self, timeout=min(self.timeout, _SECONDS_IN_A_HURRY), retries=0)

    def ask(self, url: str, request: Mapping[str, object] | None = None) -> bytes:
        """The body of the answer to one request; without a request, to GET.

        Raises:
            EngineLost: no answer in all tries.
            Refused: an answer with another status than 200.
            BadReply: a body larger than such an answer can be.
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
        """All requests side by side; the first that fails ends the others.

        Args:
            url: of each.
            requests: what is posted as JSON; None is GET.
            take: is given each answer's body as it comes, with the index of its request; one at a
                time. What it raises ends the others too.
            largest: bytes of a body at most.

        Raises:
            EngineError: see :meth:`ask`.
        """
        work = self._ask_all(url, requests, take, largest)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return _run(work)
        # a notebook's thread runs a loop already
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(_run, work).result()

    async def _ask_all(
        self,
        url: str,
        requests: Sequence[Mapping[str, object] | None],
        take: Callable[[int, bytes], None],
        largest: int,
    ) -> None:
        slots = asyncio.Semaphore(self.concurrency)
        secret = self.api_key()
        async with open_client(self.url, secret, self.concurrency, self.timeout) as http:

            async def one(i: int) -> None:
                async with slots:
                    take(i, await self._persist(http, url, requests[i], largest))

            try:
                async with asyncio.TaskGroup() as group:
                    for i in range(len(requests)):
                        group.create_task(one(i))
            except BaseExceptionGroup as errors:
                raise errors.exceptions[0] from None

    async def _persist(
        self,
        http: "httpx2.AsyncClient",
        url: str,
        request: Mapping[str, object] | None,
        largest: int,
    ) -> bytes:
        k = 0
        while True:
            try:
                return await self._try(http, url, request, largest)
            except _Passing as failure:
                if k == self.retries:
                    raise EngineLost(str(failure)) from None
                await asyncio.sleep(pause(k, failure.wait))
            k += 1

    async def _try(
        self,
        http: "httpx2.AsyncClient",
        url: str,
        request: Mapping[str, object] | None,
        largest: int,
    ) -> bytes:
        import httpx2

        method, content = ("GET", None) if request is None else ("POST", json.dumps(request))
        try:
            async with (
                asyncio.timeout(self.timeout),
                http.stream(method, url, content=content) as response,
            ):
                body = bytearray()
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > largest:
                        raise BadReply(
                            f"{url} answers with more than the {largest} bytes that an answer "
                            "to this request can have"
                        )
        except httpx2.ConnectError as error:
            raise _Passing(f"nobody listens at {self.url} ({cause_of(error)})") from None
        except (TimeoutError, httpx2.TimeoutException):
            raise _Passing(f"{url} does not answer in {self.timeout:g} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            why = quoted(str(error)) or type(error).__name__
            raise _Passing(f"{url} broke off ({why})") from None
        return _accepted(url, response, bytes(body), self.api_key())


def _accepted(url: str, response: "httpx2.Response", body: bytes, secret: str | None) -> bytes:
    """The body, where the status says that it is an answer."""
    status = response.status_code
    if status == 200:
        return body
    if secret is not None:
        # some servers quote the key that they refuse
        body = body.replace(secret.encode(), b"***")
    if status == 429 or status >= 500:
        wait = retry_after(response.headers.get("retry-after"))
        raise _Passing(f"{url} cannot answer now ({status}: {quoted(body)})", wait)
    raise Refused(status, quoted(body), url)


def _run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(work)
