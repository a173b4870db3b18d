"""Progress of long work on stderr: what is done, and how long the rest will take."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lsp_lightning.callbacks.progress import StatusLine, say

#: Without a terminal, progress is a line for about each tenth of the work.
_LINES = 10


class Progress:
    """Says what is done: one line that is updated on a terminal, else about ten lines."""

    def __init__(self) -> None:
        self._line: StatusLine | None = None
        self._what, self._first, self._start, self._said = "", 0, 0.0, 0

    def __call__(self, what: str, done: int, total: int) -> None:
        """``done`` of ``total`` are done."""
        if what != self._what or (self._line and self._line.total != total) or done < self._first:
            self.close()
            self._what, self._first, self._start, self._said = what, done, time.monotonic(), done
            if sys.stderr.isatty():
                self._line = StatusLine(what, total, done)
        if self._line is not None:
            self._line.show(done)
        elif done - self._said >= total / _LINES or done == total:
            self._said = done
            new = done - self._first
            left = (time.monotonic() - self._start) / new * (total - done) if new else 0.0
            more = f", about {StatusLine.format_interval(left)} left" if done < total else ""
            say(f"{what} {done}/{total}{more}")
        if done == total:
            self.close()

    def close(self) -> None:
        """End the line."""
        if self._line is not None:
            self._line.close()
        self._line, self._what = None, ""


@contextmanager
def progress() -> Iterator[Progress]:
    """Progress whose line ends when the work does, also by an error or Ctrl-C."""
    shown = Progress()
    try:
        yield shown
    finally:
        shown.close()
