"""What all clients of servers have in common: urls, keys, how failures are told and waited for."""

import math
import os
import random
import re
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lsp_lightning.errors import ConfigError, require_at_least

if TYPE_CHECKING:
    import httpx2

_SECONDS_TO_CONNECT = 10.0
_FIRST_WAIT = 0.5
_LONGEST_WAIT = 30.0
_LONGEST_QUOTE = 200
# its own, so that waiting does not move a generator that somebody seeded
_JITTER = random.Random()


def check_bounds(key: str, concurrency: int, timeout: float, retries: int) -> None:
    """Whether the bounds within which a server is asked can be kept.

    Args:
        key: the config key that they stand under.
        concurrency: requests at once.
        timeout: seconds for one try in all.
        retries: further tries.

    Raises:
        ConfigError: one cannot.
    """
    require_at_least(concurrency, 1, f"{key}.concurrency", "none would be asked")
    require_at_least(retries, 0, f"{key}.retries", "the first try is not counted")
    if not 0 < timeout < math.inf:
        raise ConfigError(f"{key}.timeout", f"is {timeout}", "set seconds above 0")


def check_url(url: str, key: str, path: str) -> None:
    """Whether a url is a server's, without what belongs elsewhere.

    Args:
        url: as it was given.
        key: its config key.
        path: what is put behind it, such as ``/chat/completions``, and not to be in it already.

    Raises:
        ConfigError: it is not.
    """
    try:
        parts = urlsplit(url)
        bare = not (parts.username or parts.password or parts.query or parts.fragment)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        bare = sound = False
    ends = re.search(rf"\s|{re.escape(path)}/?$", url)
    if not (bare and sound and url.isprintable()) or ends:
        # it is not shown, for somebody may have put a key in it
        raise ConfigError(
            key,
            "is not the bare url of a server",
            f"give what comes before {path}, such as http://127.0.0.1:8000/v1",
        )


def api_key(variable: str | None, key: str) -> str | None:
    """A key from the environment, or None where no variable is named.

    Args:
        variable: name of the environment variable.
        key: the config key that the variable's stands under.

    Raises:
        ConfigError: the variable is missing, or holds what no header can.
    """
    if variable is None:
        return None
    secret = os.environ.get(variable, "").strip()
    if not secret or not secret.isascii() or not secret.isprintable():
        raise ConfigError(
            f"{key}.api_key_env",
            f"no environment variable {variable!r} that holds a key",
            "export it, or leave api_key_env out where the server asks for none",
        )
    return secret


def check_reachable(url: str, key: str, remedy: str) -> None:
    """Find out whether somebody listens at a url.

    Args:
        url: of the server.
        key: its config key.
        remedy: what to do where nobody does.

    Raises:
        ConfigError: nobody does.
    """
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), _SECONDS_TO_CONNECT):
            return
    except OSError as error:
        raise ConfigError(key, f"nobody listens at {url} ({cause_of(error)})", remedy) from error


def open_client(
    url: str, secret: str | None, concurrency: int, timeout: float
) -> "httpx2.AsyncClient":
    """Connections to one server, and to nowhere else: no proxies, no redirects.

    Args:
        url: of the server.
        secret: its key.
        concurrency: connections at once.
        timeout: seconds for one try in all, for whose keeping the caller sees.
    """
    import httpx2

    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    if secret is not None:
        headers["Authorization"] = f"Bearer {secret}"
    return httpx2.AsyncClient(
        headers=headers,
        # the time of a whole try is limited around it: these would begin anew with each byte
        timeout=httpx2.Timeout(None, connect=min(_SECONDS_TO_CONNECT, timeout)),
        limits=httpx2.Limits(max_connections=concurrency),
        # plain http needs no certificates, which take time to load
        verify=urlsplit(url).scheme != "http",
        trust_env=False,
        follow_redirects=False,
    )


def cause_of(error: BaseException) -> str:
    """What a connection failed for, in short: the system's own error at the root of the chain."""
    while inner := error.__cause__ or (None if isinstance(error, OSError) else error.__context__):
        if isinstance(inner, BaseExceptionGroup):  # one for each address of the host
            inner = inner.exceptions[0]
        error = inner
    return "connection refused" if isinstance(error, ConnectionRefusedError) else quoted(str(error))


def quoted(said: str | bytes) -> str:
    """What a server or an error says, as one short printable line."""
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    printable = "".join(c if c.isprintable() else " " for c in text[: 2 * _LONGEST_QUOTE])
    line = " ".join(printable.split())
    return line if len(line) <= _LONGEST_QUOTE else f"{line[:_LONGEST_QUOTE]} ..."


def pause(k: int, asked: float) -> float:
    """Seconds before another try after the ``k``-th, from 0; ``asked`` is what the server wants."""
    own = _FIRST_WAIT * 2.0 ** min(k, 10) * _JITTER.uniform(0.5, 1.0)
    return min(max(own, asked), _LONGEST_WAIT)


def retry_after(header: str | None) -> float:
    """Seconds that Retry-After asks for; 0 where it is a date or nothing."""
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        return 0.0
