"""Reads what a hostile process writes: never more than a limit, never longer than a deadline."""

import os
import selectors
import subprocess
import time
from dataclasses import dataclass, field
from typing import IO, Literal

#: Seconds that a box may take to stand; only a machine in trouble needs more.
START_SECONDS = 20.0
CHUNK = 65_536


@dataclass
class Reading:
    """What a process wrote, and why reading stopped before its end, if it did."""

    output: bytearray = field(default_factory=bytearray)
    report: bytearray = field(default_factory=bytearray)
    stopped: Literal["", "timeout", "output", "report"] = ""

    @property
    def started(self) -> bool:
        """Whether the first line of the report is there: the program's time runs from then on."""
        return b"\n" in self.report


def read(
    process: "subprocess.Popen[bytes]",
    report: IO[bytes],
    seconds: float,
    most_output: int,
    most_report: int,
) -> Reading:
    """Read until the process has ended and both its pipes are closed, or a limit is reached.

    The caller kills the process, whatever the result.

    Args:
        process: its standard output is read if it is a pipe.
        report: the second pipe.
        seconds: wall time from the first line of the report on.
        most_output: bytes of standard output.
        most_report: bytes of the report.
    """
    reading = Reading()
    deadline = time.monotonic() + START_SECONDS
    waiting = True
    ended = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(ended, selectors.EVENT_READ, None)
            selector.register(report, selectors.EVENT_READ, (reading.report, most_report))
            if process.stdout is not None:
                selector.register(
                    process.stdout, selectors.EVENT_READ, (reading.output, most_output)
                )
            while selector.get_map():
                if waiting and reading.started:
                    waiting, deadline = False, time.monotonic() + seconds
                left = deadline - time.monotonic()
                if left <= 0:
                    reading.stopped = "timeout"
                    break
                for key, _ in selector.select(left):
                    chunk = b"" if key.data is None else os.read(key.fd, CHUNK)
                    if not chunk:
                        selector.unregister(key.fileobj)
                        continue
                    buffer, most = key.data
                    buffer += chunk
                    if len(buffer) > most:
                        reading.stopped = "report" if buffer is reading.report else "output"
                if reading.stopped:  # only now: what came before the flood is read as well
                    break
    finally:
        os.close(ended)
    return reading
