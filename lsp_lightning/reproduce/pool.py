"""Do the jobs of a comparison in processes of their own, some at a time.

Everything can be interrupted: what is finished is not done again, and a run goes on from its last
round.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from lsp_lightning.errors import ConfigError, in_one_line
from lsp_lightning.reproduce.comparison import Comparison, Job, Measure, Play
from lsp_lightning.reproduce.measured import MEASURED
from lsp_lightning.runs.writing import write_text

#: Seconds between two looks at the processes.
_LOOK = 0.2
#: Seconds that an interrupted process gets to end.
_PATIENCE = 30
#: Bytes at the end of a log in which its last line is looked for.
_TAIL = 4000


@dataclass
class Running:
    """A job in a process."""

    job: Job
    process: "subprocess.Popen[bytes]"
    since: float

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self.since


@dataclass(frozen=True)
class Failure:
    """A job that ended with an error, or could not be started."""

    job: Job
    reason: str


class Watcher:
    """Is told what happens; the methods do nothing by themselves."""

    def started(self, job: Job) -> None:
        """A job begins."""

    def ended(self, job: Job, seconds: float) -> None:
        """A job is done."""

    def failed(self, failure: Failure) -> None:
        """A job has failed, or cannot be done because of another that has."""

    def looked(self, running: Sequence[Running]) -> None:
        """Called several times a second."""


class Pool:
    """Does jobs, each as soon as the runs that it needs are played.

    Args:
        comparison: the folder.
        processes: how many jobs at a time.
        watcher: is told what happens.
    """

    def __init__(self, comparison: Comparison, processes: int, watcher: Watcher) -> None:
        self._comparison = comparison
        self._processes = processes
        self._watcher = watcher
        self._running: list[Running] = []
        self._failures: dict[str, Failure] = {}

    def run(self, jobs: Sequence[Job]) -> list[Failure]:
        """Do all jobs. -> those that failed.

        Raises:
            ConfigError: another process is at work in the folder.
            KeyboardInterrupt: Ctrl-C or SIGTERM; all processes have ended.
        """
        waiting = deque(jobs)
        with self._alone() as lock, _terminated_as_interrupted():
            try:
                while waiting or self._running:
                    self._start(waiting, lock)
                    time.sleep(_LOOK)
                    self._look()
            finally:
                self._stop()
        return list(self._failures.values())

    def _start(self, waiting: "deque[Job]", lock: int) -> None:
        """Start jobs while there are free places; drop those that cannot be done any more."""
        for _ in range(len(waiting)):
            job = waiting.popleft()
            if lost := next((run for run in job.needs if run in self._failures), None):
                self._fail(job, f"{lost} failed")
            elif len(self._running) < self._processes and self._is_ready(job):
                self._watcher.started(job)
                process = self._process(job, lock)
                self._running.append(Running(job, process, time.monotonic()))
            else:
                waiting.append(job)

    def _is_ready(self, job: Job) -> bool:
        return all(map(self._comparison.is_played, job.needs))

    def _look(self) -> None:
        """Note which processes have ended."""
        for running in list(self._running):
            status = running.process.poll()
            if status is not None:
                self._running.remove(running)
                if status == 0 and self._comparison.is_done(running.job):
                    self._watcher.ended(running.job, running.seconds)
                else:
                    log = self._comparison.log_path(running.job.run)
                    self._fail(running.job, f"{_last_line(log)} ({log})")
        self._watcher.looked(self._running)

    def _fail(self, job: Job, reason: str) -> None:
        failure = Failure(job, reason)
        key = job.run if isinstance(job, Play) else f"measuring {job.run}"
        self._failures[key] = failure
        self._watcher.failed(failure)

    def _stop(self) -> None:
        """Interrupt all processes and wait for them."""
        for running in self._running:
            with suppress(ProcessLookupError):
                running.process.send_signal(signal.SIGINT)
        for running in self._running:
            try:
                running.process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                running.process.kill()
                running.process.wait()
        self._running = []

    def _process(self, job: Job, lock: int) -> "subprocess.Popen[bytes]":
        log_path = self._comparison.log_path(job.run)
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                self._command(job),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on
                pass_fds=(lock,),
            )
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin as pipe:
            if isinstance(job, Measure):
                pipe.write(json.dumps(asdict(job.spec)).encode())
        return process

    def _command(self, job: Job) -> list[str]:
        folder = self._comparison.folder(job.run)
        if isinstance(job, Measure):
            target = str(folder.path / MEASURED)
            return [sys.executable, "-m", "lsp_lightning.reproduce.measure", target]
        path = self._comparison.config_path(job.run)
        resume: list[str] = []
        if folder.checkpoint_path.is_file():
            resume = ["--ckpt_path", str(folder.checkpoint_path)]
        elif folder.path.exists():  # interrupted in its first round
            shutil.rmtree(folder.path)
        write_text(path, yaml.safe_dump(job.config, sort_keys=False))
        return [sys.executable, "-m", "lsp_lightning", "fit", "--config", str(path), *resume]

    @contextmanager
    def _alone(self) -> Iterator[int]:
        """Hold a lock on the folder, also in all processes that are started. -> its descriptor."""
        path = self._comparison.out / ".lock"
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                problem = f"runs are still being played in {str(path.parent)!r}"
                raise ConfigError(
                    "reproduce --out", problem, "wait for them, or end them"
                ) from error
            yield file.fileno()


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C inside the block."""

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _last_line(log: Path) -> str:
    """The last line of a log that says something."""
    text = log.read_bytes()[-_TAIL:].decode(errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    return in_one_line(lines[-1]) if lines else "it printed nothing"
