"""Asks a rollout server: many requests at once, each within bounds, or one clear error."""

import asyncio
import json
import math
import os
import random
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from lsp_lightning.errors import ConfigError, require_at_least
from lsp_lightning.generation.served_errors import BadReply, EngineLost, Refused, quoted

if TYPE_CHECKING:
    import httpx2

#: Bytes of an answer that is no completion.
SMALL_BODY = 1_000_000
_FIRST_WAIT = 0.5
_LONGEST_WAIT = 30.0
_SECONDS_TO_CONNECT = 10.0
_SECONDS_IN_A_HURRY = 5.0
# its own, so that waiting does not move a generator that somebody seeded
_JITTER = random.Random()


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
        _check_url(self.url, f"{self.key}.url")
        require_at_least(self.concurrency, 1, f"{self.key}.concurrency", "none would be asked")
        require_at_least(self.retries, 0, f"{self.key}.retries", "the first try is not counted")
        if not 0 < self.timeout < math.inf:
            raise ConfigError(f"{self.key}.timeout", f"is {self.timeout}", "set seconds above 0")
        self.api_key()

    @property
    def root(self) -> str:
        """Where paths begin that are not OpenAI's."""
        return self.url.rstrip("/").removesuffix("/v1")

    def api_key(self) -> str | None:
        """The key, from the environment.

        Raises:
            ConfigError: the variable is missing, or holds what no header can.
        """
        if self.api_key_env is None:
            return None
        secret = os.environ.get(self.api_key_env, "").strip()
        if not secret or not secret.isascii() or not secret.isprintable():
            raise ConfigError(
                f"{self.key}.api_key_env",
                f"no environment variable {self.api_key_env!r} that holds a key",
                "export it, or leave api_key_env out where the server asks for none",
            )
        return secret

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
        import httpx2

        secret = self.api_key()
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if secret is not None:
            headers["Authorization"] = f"Bearer {secret}"
        slots = asyncio.Semaphore(self.concurrency)
        async with httpx2.AsyncClient(
            headers=headers,
            # the time of a whole try is limited around it: these would begin anew with each byte
            timeout=httpx2.Timeout(None, connect=min(_SECONDS_TO_CONNECT, self.timeout)),
            limits=httpx2.Limits(max_connections=self.concurrency),
            # plain http needs no certificates, which take time to load
            verify=urlsplit(self.url).scheme != "http",
            trust_env=False,
            follow_redirects=False,
        ) as http:

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
                own = _FIRST_WAIT * 2.0 ** min(k, 10) * _JITTER.uniform(0.5, 1.0)
                await asyncio.sleep(min(max(own, failure.wait), _LONGEST_WAIT))
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
            raise _Passing(f"nobody listens at {self.url} ({_why(error)})") from None
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
        wait = _seconds(response.headers.get("retry-after"))
        raise _Passing(f"{url} cannot answer now ({status}: {quoted(body)})", wait)
    raise Refused(status, quoted(body), url)


def _run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(work)


def _why(error: BaseException) -> str:
    """What a connection failed for, in short: the system's own error at the root of the chain."""
    while inner := error.__cause__ or (None if isinstance(error, OSError) else error.__context__):
        if isinstance(inner, BaseExceptionGroup):  # one for each address of the host
            inner = inner.exceptions[0]
        error = inner
    return "connection refused" if isinstance(error, ConnectionRefusedError) else quoted(str(error))


def _check_url(url: str, key: str) -> None:
    try:
        parts = urlsplit(url)
        bare = not (parts.username or parts.password or parts.query or parts.fragment)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        bare = sound = False
    if not (bare and sound and url.isprintable()) or re.search(r"\s|completions/?$", url):
        # it is not shown, for somebody may have put a key in it
        raise ConfigError(
            key,
            "is not the bare url of a server",
            "give what comes before /completions, such as http://127.0.0.1:8000/v1",
        )


def _seconds(header: str | None) -> float:
    """What Retry-After asks for; 0 where it is a date or nothing."""
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        return 0.0
