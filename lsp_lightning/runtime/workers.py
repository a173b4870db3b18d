"""Worker processes for computations that may hang, crash or use too much memory.

Parent and workers exchange JSON lines over pipes, and the parent kills a worker at the time limit.
Python's multiprocessing does not work here: it would run the user's script again (spawn) or copy a
process that has threads and a GPU (fork).
"""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from lsp_lightning.runtime.background import Prefetcher

_READY = b'"ready"\n'
#: Seconds for a worker to start, also on a busy machine.
_START_SECONDS = 60.0
_START_ATTEMPTS = 3
#: Seconds after the time limit at which a worker ends itself, in case the parent has died.
_GRACE_SECONDS = 2.0


class WorkersError(RuntimeError):
    """The worker processes do not start; the message ends with the last line of their output."""


class LineWorkers:
    """A pool of processes, each running ``python -m module``, which must call :func:`serve`.

    Processes start when they are first needed and are replaced when they end. Any thread may call
    any method. Copies and pickles hold the settings only.

    Args:
        module: full name of the module that the workers run.
        processes: workers that run at the same time.
        memory: largest address space of each worker in bytes, where the system can limit it.
    """

    def __init__(self, module: str, processes: int = 2, memory: int = 2 * 2**30) -> None:
        self.module = module
        self.processes = processes
        self.memory = memory
        # last in, first out: use a running worker before starting another
        self._places: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(processes):
            self._places.put(None)
        weakref.finalize(self, _stop_all, self._places)
        self._prefetch: Prefetcher[bytes, Any] = Prefetcher(processes)

    def __reduce__(self) -> tuple[type["LineWorkers"], tuple[str, int, int]]:
        return type(self), (self.module, self.processes, self.memory)

    def prefetch(self, request: object, seconds: float) -> None:
        """Send a request in the background, for a later :meth:`map`; returns at once."""
        line = _line(request, seconds)
        self._prefetch.begin(line, partial(self._ask, line, seconds))

    def map(self, requests: Sequence[object], seconds: float) -> list[Any]:
        """The reply to each request, in order. Requests and replies are JSON values.

        A reply is None if the request took more than ``seconds``, ended its worker or raised an
        error there; the other requests are not affected.

        Raises:
            WorkersError: no worker starts.
        """
        lines = [_line(request, seconds) for request in requests]
        # sampling slows prefetched requests down, so one that timed out is sent again
        prefetched = self._prefetch.take(lines)
        known = {line: reply for line, reply in prefetched.items() if reply is not None}
        unknown = [line for line in lines if line not in known]
        with ThreadPoolExecutor(self.processes) as threads:
            replies = threads.map(lambda line: self._ask(line, seconds), unknown)
            return [known[line] if line in known else next(replies) for line in lines]

    def close(self) -> None:
        """End all idle workers. The pool can be used again; it then starts new ones."""
        self._prefetch.close()
        for _ in range(_stop_all(self._places)):
            self._places.put(None)

    def _ask(self, line: bytes, seconds: float) -> Any:
        worker = self._places.get()
        try:
            if worker is not None and not worker.alive:
                worker.stop()
                worker = None  # if no new worker starts, the slot stays empty
            if worker is None:
                worker = self._start()
            return worker.ask(line, seconds)
        finally:
            self._places.put(worker)

    def _start(self) -> "_Worker":
        for _ in range(_START_ATTEMPTS):
            worker = _Worker([sys.executable, "-m", self.module, str(self.memory)])
            first_line = worker.exchange(b"", _START_SECONDS)
            if first_line == _READY:
                return worker
            cause = worker.stop() or f"its first line was {first_line!r}"
        raise WorkersError(f"'python -m {self.module}' does not start: {cause}")


def _line(request: object, seconds: float) -> bytes:
    return json.dumps([seconds, request]).encode() + b"\n"


class _Worker:
    """One worker process, used by one thread at a time."""

    def __init__(self, command: list[str]) -> None:
        self._killed = False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed by stop
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,  # Ctrl-C reaches the parent only, which ends the workers
                # a fixed hash seed: sets have the same order in every worker and every run
                env={**os.environ, "PYTHONHASHSEED": "0"},
            )
        except OSError as error:
            self._errors.close()
            raise WorkersError(f"{command[0]!r} does not start: {error}") from error

    @property
    def alive(self) -> bool:
        return not self._killed and self._process.poll() is None

    def ask(self, line: bytes, seconds: float) -> Any:
        """The reply; without a valid one in time, kill the process and return None."""
        reply = self.exchange(line, seconds)
        try:
            # an incomplete line may be valid JSON: "12" of "123"
            return json.loads(reply) if reply.endswith(b"\n") else self._kill()
        except ValueError:
            return self._kill()

    def exchange(self, line: bytes, seconds: float) -> bytes:
        """Send a line. -> the process's next line, or the part of it that arrived in time."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # killing the process ends a blocked write and a blocked read, on every system
        killer = threading.Timer(seconds, self._kill)
        killer.daemon = True
        killer.start()
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
            return self._process.stdout.readline()
        except OSError:  # the process has ended
            return b""
        finally:
            killer.cancel()
            killer.join()  # from here on it cannot kill the process

    def _kill(self) -> None:
        self._killed = True
        self._process.kill()

    def stop(self) -> str:
        """End the process. -> the last line that it wrote to stderr before it was ready."""
        self._kill()
        try:
            self._process.communicate()
        except OSError:  # part of a request was still unwritten
            self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        self._errors.close()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _stop_all(places: "queue.LifoQueue[_Worker | None]") -> int:
    """Take all slots that no thread is using and end their workers. -> number of slots taken."""
    count = 0
    while True:
        try:
            worker = places.get_nowait()
        except queue.Empty:
            return count
        count += 1
        if worker is not None:
            worker.stop()


def serve(handle: Callable[[Any], object]) -> None:
    """Run as a worker: reply to each request on stdin with ``handle(request)`` until stdin closes.

    If ``handle`` raises an exception, the reply is null. Whatever it prints is discarded.
    """
    _limit_memory(int(sys.argv[1]))
    with os.fdopen(os.dup(1), "wb", buffering=0) as replies:
        with open(os.devnull, "wb") as nowhere:
            # discard prints: they must neither look like replies nor fill the parent's stderr file
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        replies.write(_READY)
        for line in sys.stdin.buffer:
            seconds, request = json.loads(line)
            _end_after(seconds + _GRACE_SECONDS)
            try:
                reply = json.dumps(handle(request))
            except Exception:
                reply = "null"
            _end_after(0)
            replies.write(reply.encode() + b"\n")


def _limit_memory(limit: int) -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    except (ImportError, ValueError, OSError):  # not possible on Windows and macOS
        return


def _end_after(seconds: float) -> None:
    """Set a timer with which the system ends this process, even in a long C call; 0 cancels it."""
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)
