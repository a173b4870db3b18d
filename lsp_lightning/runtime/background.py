"""Work that will be asked for soon, begun beside what has to come first."""

import threading
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

Question = TypeVar("Question", bound=Hashable)
Reply = TypeVar("Reply")

#: Questions of one round; what is beyond them waits until it is asked.
_MOST = 4096


class Prefetcher(Generic[Question, Reply]):
    """Replies to questions that will be asked soon, found out by threads meanwhile.

    It answers nothing by itself: whoever asks takes over what is known by then and finds out the
    rest as ever, failures too. So a reply must depend on its question alone.

    What is begun belongs to one round. The first :meth:`take` ends it: nothing that still waits is
    begun any more, and the next :meth:`begin` drops the replies that nobody has taken.

    Any thread may call any method. Copies and pickles begin empty.

    Args:
        threads: how many questions are worked on at once; a thread lives while there are any.
        leave: what is under way is left alone at the interpreter's end and by :meth:`close` (a
            request to a slow server), not waited for (a call of native code, which must return).
    """

    def __init__(self, threads: int, leave: bool = False) -> None:
        self._arguments = (threads, leave)
        self._most_threads = threads
        self._leave = leave
        self._lock = threading.Lock()
        self._waiting: dict[Question, Callable[[], Reply]] = {}
        self._begun: dict[Question, Future[Reply]] = {}
        self._threads: set[threading.Thread] = set()
        self._over = False

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments

    def begin(self, question: Question, find: Callable[[], Reply]) -> None:
        """Have ``find`` called for a question, once; returns at once."""
        with self._lock:
            if self._over:
                self._begun.clear()
                self._over = False
            if question in self._waiting or question in self._begun:
                return
            if len(self._waiting) + len(self._begun) >= _MOST:
                return
            self._waiting[question] = find
            if len(self._threads) < self._most_threads:
                thread = threading.Thread(target=self._work, name="prefetch", daemon=self._leave)
                self._threads.add(thread)
                thread.start()

    def peek(self, question: Question) -> Reply | None:
        """The reply, if it is there already."""
        with self._lock:
            future = self._begun.get(question)
        known = future is not None and future.done() and future.exception() is None
        return future.result() if future is not None and known else None

    def take(self, questions: Iterable[Question]) -> dict[Question, Reply]:
        """The replies to those of the questions that have been begun, waiting for their end.

        What failed is left out, like what was never begun.
        """
        with self._lock:
            self._over = True
            self._waiting.clear()
            begun = {q: self._begun.pop(q) for q in dict.fromkeys(questions) if q in self._begun}
        return {q: future.result() for q, future in begun.items() if future.exception() is None}

    def close(self) -> None:
        """Drop everything; it can be used again."""
        with self._lock:
            self._waiting.clear()
            self._begun.clear()
            threads = list(self._threads)
        if not self._leave:
            for thread in threads:
                thread.join()

    def _work(self) -> None:
        while True:
            with self._lock:
                # a program that has ended waits for what is under way, not for all that waits
                if not self._waiting or not threading.main_thread().is_alive():
                    self._threads.discard(threading.current_thread())
                    return
                question = next(iter(self._waiting))
                find = self._waiting.pop(question)
                future = self._begun[question] = Future()
            try:
                future.set_result(find())
            except BaseException as error:  # whoever waits for it must be told
                future.set_exception(error)
