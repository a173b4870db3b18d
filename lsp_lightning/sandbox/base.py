"""What every sandbox promises: a program and its limits in, an outcome out, whatever it does."""

import keyword
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal

from lsp_lightning.errors import ConfigError, require_at_least
from lsp_lightning.runtime.background import Prefetcher
from lsp_lightning.sandbox.plain import plain

#: The config key under which a sandbox stands.
KEY = "model.rewards.sandbox"
#: Bytes of JSON that the arguments of one program may take.
MOST_INPUT_BYTES = 16 * 2**20
#: Characters of an outcome's ``detail``.
DETAIL_CHARS = 200

Status = Literal["ok", "error", "timeout", "memory", "output"]


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    Args:
        seconds: wall time of one program, all its calls together.
        memory_mib: memory in MiB; 64 is the least with which an interpreter starts.
        output_bytes: bytes of what it prints, and of the results it gives back.

    Raises:
        ConfigError: a limit that no program could keep.
    """

    seconds: float = 2.0
    memory_mib: int = 256
    output_bytes: int = 65_536

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise ConfigError(
                f"{KEY}.limits.seconds", f"is {self.seconds}", "set a finite number above 0"
            )
        key = f"{KEY}.limits.memory_mib"
        require_at_least(self.memory_mib, 64, key, "an interpreter takes some 40 MiB to start")
        key = f"{KEY}.limits.output_bytes"
        require_at_least(self.output_bytes, 1, key, "a program must be able to answer")


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Program:
    """Hostile source and what to do with it.

    Args:
        source: Python text, as the model wrote it.
        function: None runs the source and reports what it prints; a name calls that function, once
            per case, after the source has run.
        cases: the positional arguments of each call: plain values, in which tuples stay tuples. The
            program can read them all, so expected answers never belong here.
        world: in which of many worlds it runs: what a program should not depend on (seeds of random
            numbers and of hashes, Monty's clock) differs between them, and repeats within one as
            far as the sandbox rules it.

    Raises:
        ValueError: the caller's mistake: cases without a function, or arguments that are not plain.
    """

    source: str
    function: str | None = None
    cases: tuple[tuple[object, ...], ...] = ()
    world: int = 0

    def __post_init__(self) -> None:
        if self.cases and self.function is None:
            raise ValueError("cases need the name of a function to call")
        plain(self.cases, MOST_INPUT_BYTES)


@dataclass(frozen=True)
class Outcome:
    """What became of a program. Never a verdict: whoever knows the answers compares.

    Args:
        status: "ok" only when it ran to its end and, with a function, gave a plain value per case;
            "error" when it does not parse, raised, crashed, left early or gave back anything else.
        output: what it printed, cut at the limit; empty when a function was called.
        values: what the calls returned, in order; complete only when the status is "ok".
        detail: one line for people. Written by the program in part: show it, never act on it.
    """

    status: Status
    output: str = ""
    values: tuple[object, ...] = ()
    detail: str = ""


class SandboxError(RuntimeError):
    """The sandbox itself cannot run: our failure, never the program's."""


def one_line(text: str) -> str:
    """Text for a log: control, format and bidirectional characters become spaces, cut to length."""
    return "".join(c if c.isprintable() else " " for c in text[:DETAIL_CHARS])


class Sandbox(ABC):
    """Runs programs, each in a fresh interpreter behind a wall.

    Usable from any thread. Holds nothing until first used and after ``close``; a copy or a pickle
    carries the settings only.

    Args:
        limits: of each program.
        processes: programs that run at once, those of ``run_all`` and those prefetched.

    Raises:
        ConfigError: ``processes`` is below 1.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS, processes: int = 2) -> None:
        require_at_least(processes, 1, f"{KEY}.processes", "something must run the programs")
        self.limits = limits
        self.processes = processes
        self._lock = threading.Lock()
        self._ready = False
        # by what they look like: a program's arguments need have no hash, and True is not 1
        self._prefetch: Prefetcher[str, Outcome] = Prefetcher(processes)

    def __reduce__(self) -> tuple[type["Sandbox"], tuple[Limits, int]]:
        return type(self), (self.limits, self.processes)

    def prepare(self) -> None:
        """Probe once whether this sandbox holds here.

        Raises:
            ConfigError: it does not, with the reason and what to use instead.
        """
        with self._lock:
            if not self._ready:
                self._probe()
                self._ready = True

    def run(self, program: Program) -> Outcome:
        """Run one program, in little more than its limit of seconds whatever it does.

        Raises:
            SandboxError: the sandbox failed, so nothing is known of the program.
            ConfigError: at the first run, if the sandbox does not hold here.
        """
        self.prepare()
        try:
            program.source.encode()
        except UnicodeEncodeError:
            return Outcome("error", detail="SyntaxError: the source has lone surrogates")
        name = program.function
        if name is not None and (not name.isidentifier() or keyword.iskeyword(name)):
            return Outcome("error", detail="SyntaxError: the function's name is no identifier")
        return self._run(program)

    def prefetch(self, program: Program) -> None:
        """Begin a program that :meth:`run_all` will soon be asked for; returns at once.

        A sandbox that takes no time worth mentioning may leave it all to then.
        """
        self._prefetch.begin(repr(program), partial(self.run, program))

    def prefetched(self, program: Program) -> Outcome | None:
        """What became of a program that was prefetched, if that is known by now."""
        return self._prefetch.peek(repr(program))

    def run_all(self, programs: Sequence[Program]) -> list[Outcome | None]:
        """Outcomes in the order of the programs, ``processes`` of them at once.

        None stands where the sandbox itself failed.

        Raises:
            SandboxError: it failed at every one of them.
        """
        failures: list[SandboxError] = []
        keys = [repr(program) for program in programs]
        # time is short beside the sampling: what took too long then gets its time now
        begun = self._prefetch.take(keys)
        known = {key: outcome for key, outcome in begun.items() if outcome.status != "timeout"}

        def outcome(program: Program, key: str) -> Outcome | None:
            try:
                return known[key] if key in known else self.run(program)
            except SandboxError as failure:
                failures.append(failure)
                return None

        with ThreadPoolExecutor(self.processes, thread_name_prefix="sandbox") as pool:
            outcomes = list(pool.map(outcome, programs, keys))
        if failures and len(failures) == len(programs):
            raise failures[0]
        return outcomes

    def close(self) -> None:
        """Give back what is held; the next run prepares again. No run may be under way."""
        self._prefetch.close()
        with self._lock:
            self._ready = False

    @abstractmethod
    def _probe(self) -> None:
        """Find out whether the sandbox holds here, or raise ConfigError."""

    @abstractmethod
    def _run(self, program: Program) -> Outcome:
        """Run a program whose text is valid Unicode and whose function is a name."""
