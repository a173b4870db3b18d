"""Servers on loopback: ``transformers serve``, and a base class for scripted servers."""

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
from typing import Any, Self
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import pytest


def free_port() -> int:
    """A loopback port without a server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def transformers_serve(model: Path, log: Path, seconds: float = 120) -> Iterator[str]:
    """``transformers serve`` with one model, in a new process; yields its url."""
    port = free_port()
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model)]
    options = ["--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as output:
        # a new session, so that all its child processes can be ended with it
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
    """An HTTP answer to send."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class LoopbackServer(ThreadingHTTPServer):
    """Real HTTP on loopback; it remembers all requests.

    Args:
        handler: answers the requests.
        port: port to listen on; 0 is any free one.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # with socketserver's 5, some connections wait a second for a retry

    def __init__(self, handler: type["Handler"], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), handler)
        self.requests: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.busy = self.most_busy = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self.server_address[1]

    @property
    def url(self) -> str:
        """Base URL of its protocol."""
        return f"http://127.0.0.1:{self.port}/v1"

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that disconnect."""

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.die()

    def die(self) -> None:
        """Stop listening."""
        if not self.closing.is_set():
            self.closing.set()
            self.shutdown()
            self.server_close()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes
    server: Any

    def body(self) -> dict:
        """The request as JSON."""
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def follow(self, script: Callable[[int, dict], "Answer | Misbehaviour"], request: dict) -> None:
        """Remember a request and answer it as the script says, by its number from 0."""
        server = self.server
        with server.lock:
            k = len(server.requests)
            server.requests.append(request)
            server.headers.append(dict(self.headers))
            server.busy += 1
            server.most_busy = max(server.most_busy, server.busy)
        try:
            answer = script(k, request)
            if isinstance(answer, Answer):
                self.send(answer)
            else:
                self.close_connection = True
                answer(self)
        finally:
            with server.lock:
                server.busy -= 1

    def send(self, answer: Answer) -> None:
        """Send an answer."""
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


#: Does something with the connection instead of sending an answer.
Misbehaviour = Callable[[Handler], None]


def hangs(handler: Handler) -> None:
    """Never answers."""
    handler.server.closing.wait(20)


def drips(handler: Handler, what: bytes = b" ") -> None:
    """Sends a byte now and then until the server stops."""
    while not handler.server.closing.wait(0.02):
        handler.wfile.write(what)


def drips_body(handler: Handler) -> None:
    """Sends the headers of a long answer, then a byte now and then."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n")
    drips(handler)


def drips_headers(handler: Handler) -> None:
    """Sends a header that grows by a byte now and then."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    drips(handler, b"x")


def hangs_up(handler: Handler) -> None:
    """Closes the connection without an answer."""
    handler.connection.shutdown(socket.SHUT_RDWR)
