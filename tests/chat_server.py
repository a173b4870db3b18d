"""Judges behind a server: a real one of transformers, and a stand-in that follows a script."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import pytest


def free_port() -> int:
    """A port of loopback on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def transformers_serve(model: Path, log: Path, seconds: float = 120) -> Iterator[str]:
    """``transformers serve`` with one model, as a process of its own; yields its url."""
    port = free_port()
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model)]
    options = ["--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as output:
        # a session of its own, so that all its children can be ended with it
        process = subprocess.Popen(
            [*command, *options],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + seconds
        while not _is_up(f"http://127.0.0.1:{port}/health"):
            if process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"transformers serve did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _is_up(url: str) -> bool:
    try:
        return build_opener(ProxyHandler({})).open(url, timeout=1).status == 200
    except (URLError, TimeoutError):
        return False


@dataclass(frozen=True)
class Answer:
    """What the stand-in sends back."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


#: What the stand-in does with a handler instead of answering as servers do.
Misbehaviour = Callable[["_Handler"], None]


def says(text: object, finish: str = "stop") -> Answer:
    """A chat completion whose message is ``text``."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}}
    return Answer(json.dumps({"choices": [choice | {"finish_reason": finish}]}).encode())


def hangs(handler: "_Handler") -> None:
    """Never answers."""
    handler.server.closing.wait(20)


def drips(handler: "_Handler", what: bytes = b" ") -> None:
    """Sends a byte now and then, for ever."""
    while not handler.server.closing.wait(0.02):
        handler.wfile.write(what)


def drips_body(handler: "_Handler") -> None:
    """The headers of a long reply, and a byte now and then."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n")
    drips(handler)


def drips_headers(handler: "_Handler") -> None:
    """A header that grows by a byte now and then."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    drips(handler, b"x")


def hangs_up(handler: "_Handler") -> None:
    """Closes the connection without a word."""
    handler.connection.shutdown(socket.SHUT_RDWR)


class StandIn(ThreadingHTTPServer):
    """A stand-in for a judge's server: real HTTP on loopback, and a script instead of a model.

    Args:
        script: what is done with a prompt; it is told which one it is, from 0, and its text.
        seconds: how long each answer takes.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(
        self, script: Callable[[int, str], Answer | Misbehaviour], seconds: float = 0.0
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.seconds = seconds
        self.closing = threading.Event()
        self.lock = threading.Lock()
        self.requests: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.busy = self.most_busy = 0

    @property
    def url(self) -> str:
        """Where its protocol begins."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @property
    def prompts(self) -> list[str]:
        """What it was asked, in order."""
        return [request["messages"][0]["content"] for request in self.requests]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone is no news."""

    def __enter__(self) -> "StandIn":
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes
    server: StandIn

    def do_POST(self) -> None:
        server = self.server
        assert self.path == "/v1/chat/completions"
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            k = len(server.requests)
            server.requests.append(request)
            server.headers.append(dict(self.headers))
            server.busy += 1
            server.most_busy = max(server.most_busy, server.busy)
        try:
            time.sleep(server.seconds)
            answer = server.script(k, request["messages"][0]["content"])
            if isinstance(answer, Answer):
                self._send(answer)
            else:
                self.close_connection = True
                answer(self)
        finally:
            with server.lock:
                server.busy -= 1

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""
