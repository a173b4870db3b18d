"""Make all output of a command printable (errors, log lines, tracebacks); closed streams."""

import contextlib
import io
import logging
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any

from lsp_lightning.errors import in_one_line, printable, storage_failure

#: The statuses that a shell gives a process ended by SIGINT and by SIGPIPE.
INTERRUPTED = 130
BROKEN_PIPE = 141


def complain(error: BaseException | str) -> None:
    """Print an error to stderr, in one line."""
    print(in_one_line(f"error: {error}"), file=sys.stderr)


def show_traceback(error: BaseException) -> None:
    """Print an error with its place in the code to stderr."""
    print(printable("".join(traceback.format_exception(error))), end="", file=sys.stderr)


class PrintableRecord(logging.LogRecord):
    """A log record whose message and traceback are printable, whatever they quote."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.exc_info and self.exc_info[0] is not None:  # a formatter takes it from here
            self.exc_text = printable("".join(traceback.format_exception(*self.exc_info))).rstrip()

    def getMessage(self) -> str:
        """The message with its arguments."""
        return printable(super().getMessage())


def escape_messages() -> None:
    """Make all warnings, log lines and tracebacks of this process printable.

    They may quote text of a model, of a server or of a file.
    """
    if logging.getLogRecordFactory() is not PrintableRecord:
        logging.setLogRecordFactory(PrintableRecord)
        warnings.formatwarning = _printable_warning(warnings.formatwarning)
        sys.excepthook = _show_uncaught
        threading.excepthook = _show_uncaught_of_thread


def ready_streams() -> None:
    """Replace closed output streams, and let no character be impossible to print."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller, as in `lsp-lightning fit >&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush_stdout(more: str = "") -> bool:
    """Write ``more`` and what stdout still buffers. -> False if the reader has gone."""
    try:
        print(more, end="", flush=True)
    except BrokenPipeError:
        # Python would try again when it exits, and print a traceback
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def _printable_warning(form: Callable[..., str]) -> Callable[..., str]:
    def formatted(*args: Any, **kwargs: Any) -> str:
        return printable(form(*args, **kwargs))

    return formatted


def _show_uncaught(
    kind: type[BaseException], error: BaseException, place: TracebackType | None
) -> None:
    show_traceback(error.with_traceback(place))


def _show_uncaught_of_thread(found: threading.ExceptHookArgs) -> None:
    if found.exc_value is None or found.exc_type is SystemExit:
        return
    # a full disk ends TensorBoard's thread; the next logging call gets the same error
    if storage_failure(found.exc_value) is None:
        show_traceback(found.exc_value)
