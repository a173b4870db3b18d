"""Bounds on time that hold on a busy machine."""

import time
from collections.abc import Callable

ATTEMPTS = 3


def assert_fast(call: Callable[[], object], seconds: float, what: str = "the call") -> None:
    """Fail unless one of three calls takes less CPU time than ``seconds``.

    A single call can be slow because caches are cold or garbage is collected. Code that takes
    quadratic time for a hostile text is slow every time.
    """
    taken = []
    for _ in range(ATTEMPTS):
        start = time.thread_time()
        call()
        taken.append(time.thread_time() - start)
        if taken[-1] < seconds:
            return
    raise AssertionError(f"{what} took {min(taken):.2f} s of CPU time, more than {seconds} s")
