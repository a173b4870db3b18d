"""A test server with OpenAI's chat protocol: real HTTP on loopback, a script for a model."""

import json
import time
from collections.abc import Callable

from loopback import Answer, Handler, LoopbackServer, Misbehaviour


def says(text: object, finish: str = "stop") -> Answer:
    """A chat completion whose message is ``text``."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}}
    return Answer(json.dumps({"choices": [choice | {"finish_reason": finish}]}).encode())


class StandIn(LoopbackServer):
    """A judge's server with a script instead of a model.

    Args:
        script: makes the answer from the prompt's number, from 0, and its text.
        seconds: how long each answer takes.
    """

    def __init__(
        self, script: Callable[[int, str], Answer | Misbehaviour], seconds: float = 0.0
    ) -> None:
        super().__init__(_Handler)
        self.script = script
        self.seconds = seconds

    @property
    def prompts(self) -> list[str]:
        """All prompts received, in order."""
        return [request["messages"][0]["content"] for request in self.requests]


class _Handler(Handler):
    def do_POST(self) -> None:
        assert self.path == "/v1/chat/completions"
        self.follow(self._answer, self.body())

    def _answer(self, k: int, request: dict) -> Answer | Misbehaviour:
        time.sleep(self.server.seconds)
        return self.server.script(k, request["messages"][0]["content"])
