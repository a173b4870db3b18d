"""OpenAI's chat protocol: the request, and the meaning of each answer."""

import json
from dataclasses import dataclass

from lsp_lightning.runtime.http import Answer

#: Most bytes of an answer; a larger one is not read.
LARGEST_BODY = 1_000_000
#: Names under which servers send a model's thinking.
_THOUGHTS = ("reasoning_content", "reasoning")


@dataclass(frozen=True)
class Reply:
    """The model's reply to a prompt."""

    text: str
    """The text; empty if the length limit cut it off, because half a reply must not be read."""
    seconds: float
    """How long the reply took."""


@dataclass(frozen=True)
class Failure:
    """A prompt without a reply."""

    cause: str
    """What is wrong, where, and what to do about it, in one line."""
    only_this_prompt: bool = False
    """Whether other prompts may still get a reply."""


def payload(model: str, prompt: str, temperature: float, max_tokens: int) -> bytes:
    """A request for one reply to one user turn."""
    request = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": temperature,
        "max_tokens": max_tokens,
        "stream": False,
    }
    return json.dumps(request).encode()


def read_answer(url: str, answer: Answer) -> Reply | Failure:
    """The reply in a server's answer, or why there is none."""
    if answer.status != 200:
        return _refusal(url, answer)
    text = _text_of(answer.body)
    if text is None:
        cause = f"the judge at {url} sent no chat completion ({answer.said}); check url"
        return Failure(cause, only_this_prompt=True)
    return Reply(text, answer.seconds)


def _refusal(url: str, answer: Answer) -> Failure:
    status, said = answer.status, f"({answer.status}: {answer.said})"
    if status in (401, 403):
        return Failure(f"the judge at {url} refuses the key {said}; check client.api_key_env")
    if status == 404:
        cause = f"{url} has no chat endpoint, or no model of this name {said}"
        return Failure(f"{cause}; check url and model")
    if 300 <= status < 400:
        return Failure(f"{url} redirects ({status}); set url to the address it redirects to")
    if answer.busy:
        cause = f"the judge at {url} is overloaded or failing {said}"
        return Failure(f"{cause}; lower client.concurrency or check the server's log")
    cause = f"the judge at {url} refuses a request {said}; check model and max_tokens"
    return Failure(cause, only_this_prompt=True)


def _text_of(body: bytes) -> str | None:
    """The text of a chat completion, or None if the body is not one."""
    try:
        choice = json.loads(body)["choices"][0]
        cut_off = choice.get("finish_reason") == "length"
        message = choice["message"]
        # a server that separates the thinking sends no content if the thinking never ends
        thought_only = message["content"] is None and any(map(message.get, _THOUGHTS))
        text = "" if cut_off or thought_only else message["content"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    # JSON may contain half a surrogate pair, which cannot be stored as text
    return text.encode(errors="replace").decode() if isinstance(text, str) else None
