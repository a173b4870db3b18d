"""Asking an HTTP server: URL and key checks, timeouts, retries, and readable errors."""

import asyncio
import math
import os
import random
import re
import socket
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

from lsp_lightning.errors import ConfigError, require_at_least

if TYPE_CHECKING:
    import httpx2

Result = TypeVar("Result")

#: Retries of a request after a failure that may be temporary.
RETRIES = 3

_SECONDS_TO_CONNECT = 10.0
_FIRST_WAIT = 0.5
_LONGEST_WAIT = 30.0
_LONGEST_QUOTE = 200
# a private generator: waiting must not change the global random state
_JITTER = random.Random()


@dataclass(frozen=True)
class Client:
    """API key, timeout and number of concurrent requests to a server.

    Args:
        api_key_env: name of the environment variable with the server's key; null if the server
            needs no key.
        timeout: seconds for one try of a request, until the whole answer has arrived.
        concurrency: requests at once.
    """

    api_key_env: str | None = None
    timeout: float = 60.0
    concurrency: int = 8

    def check(self, key: str) -> None:
        """Raise ConfigError about ``key`` unless all settings are usable, ``api_key_env`` too."""
        require_at_least(self.concurrency, 1, f"{key}.concurrency", "no request could be sent")
        if not 0 < self.timeout < math.inf:
            raise ConfigError(f"{key}.timeout", f"is {self.timeout}", "set a finite number above 0")
        self.api_key(key)

    def api_key(self, key: str) -> str | None:
        """The server's key from the environment; None if ``api_key_env`` is not set.

        Args:
            key: config key of this client.

        Raises:
            ConfigError: the variable is missing, or cannot be sent as a header.
        """
        if self.api_key_env is None:
            return None
        secret = os.environ.get(self.api_key_env, "").strip()
        if not secret or not secret.isascii() or not secret.isprintable():
            name = self.api_key_env
            # anything else may be a key, typed where its name belongs
            shown = f"{name!r} " if re.fullmatch(r"[A-Z]+(_[A-Z]+)+", name) else ""
            raise ConfigError(
                f"{key}.api_key_env",
                f"environment variable {shown}holds no usable key",
                "export it, or remove api_key_env if the server needs no key",
            )
        return secret


@dataclass(frozen=True)
class Answer:
    """An HTTP answer of any status."""

    status: int
    """HTTP status code."""
    body: bytes
    """The body; empty if it was too large."""
    too_large: bool
    """Whether the body was larger than allowed."""
    said: str
    """The start of the body as one short printable line, without the API key."""
    wait: float
    """Seconds to wait before the next try, as the server asks for; 0 if it does not."""
    seconds: float
    """How long the answer took."""

    @property
    def busy(self) -> bool:
        """Whether the server cannot answer now, but another try may succeed."""
        return self.status == 429 or self.status >= 500


class Unanswered(Exception):
    """A request got no answer: no connection, a timeout, or a broken connection.

    Args:
        problem: what is wrong and where.
        remedy: what to do about it.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem


class Connection:
    """Connections to one server, open inside ``async with``.

    Requests go to ``url`` and nowhere else: proxies of the environment are not used and redirects
    are not followed. The API key is read for each connection and never stored.

    Args:
        url: the base URL of the server.
        client: API key, timeout and number of requests at once.
        key: config key of ``client``.
        retries: how often a request is retried; None for :data:`RETRIES`.
    """

    def __init__(self, url: str, client: Client, key: str, retries: int | None = None) -> None:
        self._url = url
        self._timeout = client.timeout
        self._retries = RETRIES if retries is None else retries
        self._secret = client.api_key(key)
        self._http = _open(url, self._secret, client)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._http.__aexit__(*error)

    async def request(self, url: str, content: bytes | None, largest: int) -> Answer:
        """The answer to one request, retried if the server is busy or does not answer.

        Args:
            url: full url.
            content: JSON to POST; None for GET.
            largest: most bytes of the body.

        Raises:
            Unanswered: no try was answered.
        """
        for k in range(self._retries):
            try:
                answer = await self._try(url, content, largest)
                if not answer.busy:
                    return answer
                wait = answer.wait
            except Unanswered:
                wait = 0.0
            await asyncio.sleep(_pause(k, wait))
        return await self._try(url, content, largest)

    async def _try(self, url: str, content: bytes | None, largest: int) -> Answer:
        import httpx2

        started = time.monotonic()
        method, body = "GET" if content is None else "POST", bytearray()
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._http.stream(method, url, content=content) as response,
            ):
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > largest:
                        break
        except httpx2.ConnectError as error:
            raise Unanswered(_no_server(self._url, error), "start it") from None
        except (TimeoutError, httpx2.TimeoutException):
            problem = f"{url} did not answer within {self._timeout:g} s"
            raise Unanswered(problem, "increase client.timeout or lower max_tokens") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            why = quoted(str(error)) or type(error).__name__
            problem = f"the connection to {url} broke ({why})"
            raise Unanswered(problem, "see the server's log") from None
        too_large, start = len(body) > largest, bytes(body[:4096])
        if self._secret is not None:  # some servers quote the key that they refuse
            start = start.replace(self._secret.encode(), b"***")
        return Answer(
            status=response.status_code,
            body=b"" if too_large else bytes(body),
            too_large=too_large,
            said=quoted(start),
            wait=_retry_after(response.headers.get("retry-after")),
            seconds=time.monotonic() - started,
        )


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end, even if an event loop is already running (in a notebook)."""

    def run_here() -> Result:
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            return runner.run(work)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run_here()
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run_here).result()


def check_url(url: str, key: str, path: str) -> None:
    """Raise ConfigError unless ``url`` is the base URL of a server.

    Args:
        url: the URL from the config.
        key: config key of the URL.
        path: the path that requests append, such as ``/chat/completions``; ``url`` must not end
            with it.
    """
    try:
        parts = urlsplit(url)
        bare = not (parts.username or parts.password or parts.query or parts.fragment)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        bare = sound = False
    ends = re.search(rf"\s|{re.escape(path)}/?$", url)
    if not (bare and sound and url.isprintable()) or ends:
        # the url is not shown: it may contain a key
        raise ConfigError(
            key,
            "is not the base URL of a server",
            f"give the part before {path}, such as http://127.0.0.1:8000/v1",
        )


def check_reachable(url: str, key: str, remedy: str) -> None:
    """Raise ConfigError, with this remedy, unless a server accepts connections at ``url``."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), _SECONDS_TO_CONNECT):
            return
    except OSError as error:
        raise ConfigError(key, _no_server(url, error), remedy) from error


def quoted(said: str | bytes) -> str:
    """The message of a server or an error, as one short printable line."""
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    printable = "".join(c if c.isprintable() else " " for c in text[: 2 * _LONGEST_QUOTE])
    line = " ".join(printable.split())
    return line if len(line) <= _LONGEST_QUOTE else f"{line[:_LONGEST_QUOTE]} ..."


def _open(url: str, secret: str | None, client: Client) -> "httpx2.AsyncClient":
    import httpx2

    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    if secret is not None:
        headers["Authorization"] = f"Bearer {secret}"
    return httpx2.AsyncClient(
        headers=headers,
        # httpx2's other timeouts restart with each byte, so `_try` limits the whole try
        timeout=httpx2.Timeout(None, connect=min(_SECONDS_TO_CONNECT, client.timeout)),
        limits=httpx2.Limits(max_connections=client.concurrency),
        # plain http needs no certificates, and loading them takes time
        verify=urlsplit(url).scheme != "http",
        trust_env=False,
        follow_redirects=False,
    )


def _no_server(url: str, error: BaseException) -> str:
    """'no server at URL' with the operating system's error, the root of the chain of causes."""
    while inner := error.__cause__ or (None if isinstance(error, OSError) else error.__context__):
        if isinstance(inner, BaseExceptionGroup):  # one error for each address of the host
            inner = inner.exceptions[0]
        error = inner
    refused = isinstance(error, ConnectionRefusedError)
    return f"no server at {url} ({'connection refused' if refused else quoted(str(error))})"


def _pause(k: int, asked: float) -> float:
    """Seconds before retry ``k``, from 0; at least ``asked``, but never long."""
    backoff = _FIRST_WAIT * 2.0 ** min(k, 10) * _JITTER.uniform(0.5, 1.0)
    return min(max(backoff, asked), _LONGEST_WAIT)


def _retry_after(header: str | None) -> float:
    """Seconds in a Retry-After header; 0 if it is missing or a date."""
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        return 0.0
