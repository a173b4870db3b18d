"""Read what a hostile process writes, up to a size limit and a deadline."""

import os
import selectors
import subprocess
import time
from dataclasses import dataclass, field
from typing import IO, Literal

#: Seconds for the sandbox to start; a healthy machine needs far less.
START_SECONDS = 20.0
CHUNK = 65_536


@dataclass
class Reading:
    """What a process wrote, and why reading stopped early ("" if it did not)."""

    output: bytearray = field(default_factory=bytearray)
    report: bytearray = field(default_factory=bytearray)
    stopped: Literal["", "timeout", "output", "report"] = ""

    @property
    def started(self) -> bool:
        """Whether the report's first line has arrived, which starts the program's clock."""
        return b"\n" in self.report


def read(
    process: "subprocess.Popen[bytes]",
    report: IO[bytes],
    seconds: float,
    max_output: int,
    max_report: int,
) -> Reading:
    """Read until the process has ended and both pipes are closed, or a limit is reached.

    The caller must kill the process afterwards.

    Args:
        process: its standard output is read if it is a pipe.
        report: the second pipe.
        seconds: wall time, counted from the first line of the report.
        max_output: largest size of the standard output, in bytes.
        max_report: largest size of the report, in bytes.
    """
    reading = Reading()
    deadline = time.monotonic() + START_SECONDS
    waiting = True
    ended = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(ended, selectors.EVENT_READ, None)
            selector.register(report, selectors.EVENT_READ, (reading.report, max_report))
            if process.stdout is not None:
                selector.register(
                    process.stdout, selectors.EVENT_READ, (reading.output, max_output)
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
                if reading.stopped:  # checked here, so that both pipes are read once more
                    break
    finally:
        os.close(ended)
    return reading
