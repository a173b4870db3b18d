"""OpenAI's chat protocol: what is sent, and what becomes of what comes back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from lsp_lightning.runtime.http import quoted, retry_after

#: Bytes of an answer that are looked at; a reply that needs more is none.
LARGEST_BODY = 1_000_000


@dataclass(frozen=True)
class Reply:
    """What the model said."""

    text: str
    """Its words; none where the length limit cut it off, for half a reply is not to be read."""
    seconds: float
    """How long it took."""


@dataclass(frozen=True)
class Failure:
    """Why there is no reply."""

    cause: str
    """What is wrong and what to do about it, in one line."""
    passing: bool = False
    """It may pass by itself: another try is worth it."""
    of_prompt: bool = False
    """It is about this prompt; others may fare better."""
    wait: float = 0.0
    """Seconds that the server asks to be left alone."""


def payload(model: str, prompt: str, temperature: float, max_tokens: int) -> bytes:
    """A request for one reply to one turn of the user's."""
    request = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": temperature,
        "max_tokens": max_tokens,
        "stream": False,
    }
    return json.dumps(request).encode()


def read_answer(
    url: str, status: int, headers: Mapping[str, str], body: bytes, seconds: float
) -> Reply | Failure:
    """What the server's answer means."""
    if status != 200:
        return _refusal(url, status, headers, quoted(body))
    text = _text_of(body)
    if text is None:
        cause = f"the judge at {url} sent no chat completion ({quoted(body)}); check url"
        return Failure(cause, of_prompt=True)
    return Reply(text, seconds)


def _refusal(url: str, status: int, headers: Mapping[str, str], said: str) -> Failure:
    """What another status than 200 means."""
    said = f"({status}: {said})"
    if status in (401, 403):
        return Failure(f"the judge at {url} refuses the key {said}; check api_key_env")
    if status == 404:
        return Failure(f"{url} has no chat, or not this model {said}; check url and model")
    if 300 <= status < 400:
        return Failure(f"{url} redirects ({status}); give the url that it leads to")
    if status == 429 or status >= 500:
        return Failure(
            f"the judge at {url} cannot answer now {said}; lower concurrency or see its log",
            passing=True,
            wait=retry_after(headers.get("retry-after")),
        )
    cause = f"the judge at {url} refuses a request {said}; check model and max_tokens"
    return Failure(cause, of_prompt=True)


def _text_of(body: bytes) -> str | None:
    """What a chat completion says, or None where it is no such."""
    try:
        choice = json.loads(body)["choices"][0]
        cut_off = choice.get("finish_reason") == "length"
        text = "" if cut_off else choice["message"]["content"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    # half a surrogate pair is JSON, and no text that can be stored
    return text.encode(errors="replace").decode() if isinstance(text, str) else None
