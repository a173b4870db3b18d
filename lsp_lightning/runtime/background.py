"""Prefetching: start slow work in background threads and collect the results later.

Rewards use it to overlap slow verifiers and judges with sampling.
"""

import threading
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")

#: Calls accepted in one round; the caller makes any further ones itself after sampling.
_MAX_CALLS = 4096


class Prefetcher(Generic[Key, Result]):
    """Runs calls in background threads; a later :meth:`take` collects the results.

    If a result is missing, because its call failed or never began, the caller makes the call. So a
    result must depend on its key alone; then prefetching never changes what the caller gets.

    Calls belong to a round. The first :meth:`take` ends the round: waiting calls are dropped. The
    first :meth:`begin` after that drops the results that were not taken.

    Any thread may call any method. Copies and pickles start empty.

    Args:
        threads: calls that run at the same time. Threads end when no call is waiting.
        daemon: whether :meth:`close` and the end of the program abandon running calls (right for
            requests to a slow server) instead of waiting for them (needed for native code).
    """

    def __init__(self, threads: int, daemon: bool = False) -> None:
        self._arguments = (threads, daemon)
        self._max_threads = threads
        self._daemon = daemon
        self._lock = threading.Lock()
        self._waiting: dict[Key, Callable[[], Result]] = {}
        self._begun: dict[Key, Future[Result]] = {}
        self._threads: set[threading.Thread] = set()
        self._round_over = False

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments

    def begin(self, key: Key, call: Callable[[], Result]) -> None:
        """Queue a call unless its key is known or the round is full; returns at once."""
        with self._lock:
            if self._round_over:
                self._begun.clear()
                self._round_over = False
            if key in self._waiting or key in self._begun:
                return
            if len(self._waiting) + len(self._begun) >= _MAX_CALLS:
                return
            self._waiting[key] = call
            if len(self._threads) < self._max_threads:
                thread = threading.Thread(target=self._work, name="prefetch", daemon=self._daemon)
                self._threads.add(thread)
                thread.start()

    def peek(self, key: Key) -> Result | None:
        """The result of a call; None if it is not there yet or the call failed."""
        with self._lock:
            future = self._begun.get(key)
        known = future is not None and future.done() and future.exception() is None
        return future.result() if future is not None and known else None

    def take(self, keys: Iterable[Key]) -> dict[Key, Result]:
        """The results for these keys. Waits for their running calls.

        Drops all queued calls, which ends the round. Keys whose call failed or never started are
        left out.
        """
        with self._lock:
            self._round_over = True
            self._waiting.clear()
            begun = {k: self._begun.pop(k) for k in dict.fromkeys(keys) if k in self._begun}
        return {k: future.result() for k, future in begun.items() if future.exception() is None}

    def close(self) -> None:
        """Drop queued calls and all results; reusable afterwards."""
        with self._lock:
            self._waiting.clear()
            self._begun.clear()
            threads = list(self._threads)
        if not self._daemon:
            for thread in threads:
                thread.join()

    def _work(self) -> None:
        while True:
            with self._lock:
                # when the program ends, running calls finish but no waiting call begins
                if not self._waiting or not threading.main_thread().is_alive():
                    self._threads.discard(threading.current_thread())
                    return
                key = next(iter(self._waiting))
                call = self._waiting.pop(key)
                future = self._begun[key] = Future()
            try:
                future.set_result(call())
            except BaseException as error:  # pass every error on: take waits for this future
                future.set_exception(error)
