"""The interface of every sandbox: run a program within limits and return its outcome."""

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

#: The config key of a sandbox, for error messages.
KEY = "model.rewards.sandbox"
#: Number of programs that ``run_all`` and ``prefetch`` each run at once.
PROCESSES = 2
#: Largest size of one program's arguments, in bytes of JSON.
MAX_INPUT_BYTES = 16 * 2**20
#: Largest length of an outcome's ``detail``, in characters.
DETAIL_CHARS = 200

Status = Literal["ok", "error", "timeout", "memory", "output"]


@dataclass(frozen=True)
class Limits:
    """The resources that one program may use.

    Args:
        seconds: wall time of the program with all its calls.
        memory_mib: memory in MiB, at least 64: with less the interpreter does not start.
        output_bytes: largest size of the printed output, and of the returned values, in bytes.

    Raises:
        ConfigError: a limit is too small for any program.
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
        require_at_least(self.memory_mib, 64, key, "the interpreter needs about 40 MiB to start")
        key = f"{KEY}.limits.output_bytes"
        require_at_least(self.output_bytes, 1, key, "a program needs room for its output")


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Program:
    """Python source to run, which may be hostile.

    Args:
        source: Python text, as the model wrote it.
        function: None runs the source and captures what it prints. A name runs the source, then
            calls that function once per case.
        cases: the positional arguments of each call, plain values; tuples stay tuples. The program
            can read all of them, so never put expected answers here.
        world: seed of everything that a program should not depend on (random numbers, string
            hashes, Monty's clock). Runs in different worlds differ in these; runs in the same world
            repeat them, as far as the sandbox controls them.

    Raises:
        ValueError: there are cases but no function, or arguments are not plain values.
    """

    source: str
    function: str | None = None
    cases: tuple[tuple[object, ...], ...] = ()
    world: int = 0

    def __post_init__(self) -> None:
        if self.cases and self.function is None:
            raise ValueError("cases are given without a function; name the function to call")
        plain(self.cases, MAX_INPUT_BYTES)


@dataclass(frozen=True)
class Outcome:
    """How a program ended. It holds no verdict: the caller checks the values.

    Args:
        status: "ok" if the program ran to its end and, with a function, returned a plain value for
            every case; "timeout", "memory" or "output" if it exceeded that limit; "error" if it
            does not parse, raised, crashed, exited early or returned anything else.
        output: what it printed, cut at the limit; empty if a function was called.
        values: what the calls returned, in order; complete only if the status is "ok".
        detail: one line for logs. The program may have written part of it, so never act on it.
    """

    status: Status
    output: str = ""
    values: tuple[object, ...] = ()
    detail: str = ""


class SandboxError(RuntimeError):
    """The sandbox itself failed. Nothing is known about the program."""


def one_line(text: str) -> str:
    """Text for a log: at most 200 characters; control and format characters become spaces."""
    return "".join(c if c.isprintable() else " " for c in text[:DETAIL_CHARS])


class Sandbox(ABC):
    """Runs each program in a fresh, isolated interpreter.

    Any thread may call any method. Processes start at the first use and end with :meth:`close`.
    Copies and pickles hold the settings only.

    Args:
        limits: what each program may use.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        self._lock = threading.Lock()
        self._ready = False
        # keyed by repr: a program's arguments may have no hash, and True equals 1
        self._prefetch: Prefetcher[str, Outcome] = Prefetcher(PROCESSES)

    def __reduce__(self) -> tuple[type["Sandbox"], tuple[Limits]]:
        return type(self), (self.limits,)

    def prepare(self) -> None:
        """Check once that this sandbox works and isolates programs on this machine.

        Raises:
            ConfigError: the sandbox does not; the message says why and what to do.
        """
        with self._lock:
            if not self._ready:
                self._probe()
                self._ready = True

    def run(self, program: Program) -> Outcome:
        """Run one program; takes little longer than the time limit, whatever the program does.

        Raises:
            SandboxError: the sandbox itself failed.
            ConfigError: at the first run, if :meth:`prepare` finds a problem.
        """
        self.prepare()
        try:
            program.source.encode()
        except UnicodeEncodeError:
            return Outcome("error", detail="SyntaxError: the source has lone surrogates")
        name = program.function
        if name is not None and (not name.isidentifier() or keyword.iskeyword(name)):
            return Outcome("error", detail="SyntaxError: the function name is not an identifier")
        return self._run(program)

    def prefetch(self, program: Program) -> None:
        """Start a program in the background, for a later :meth:`run_all`; returns at once.

        A fast sandbox may ignore this call and run everything in :meth:`run_all`.
        """
        self._prefetch.begin(repr(program), partial(self.run, program))

    def prefetched(self, program: Program) -> Outcome | None:
        """The outcome of a prefetched program; None if there is none yet."""
        return self._prefetch.peek(repr(program))

    def run_all(self, programs: Sequence[Program]) -> list[Outcome | None]:
        """Run programs, several at once. -> outcomes in the order of the programs.

        An outcome is None if the sandbox itself failed for that program.

        Raises:
            SandboxError: the sandbox failed for every program.
        """
        failures: list[SandboxError] = []
        keys = [repr(program) for program in programs]
        # sampling slows prefetched programs down, so one that timed out is run again
        prefetched = self._prefetch.take(keys)
        known = {key: outcome for key, outcome in prefetched.items() if outcome.status != "timeout"}

        def outcome(program: Program, key: str) -> Outcome | None:
            try:
                return known[key] if key in known else self.run(program)
            except SandboxError as failure:
                failures.append(failure)
                return None

        with ThreadPoolExecutor(PROCESSES, thread_name_prefix="sandbox") as pool:
            outcomes = list(pool.map(outcome, programs, keys))
        if failures and len(failures) == len(programs):
            raise failures[0]
        return outcomes

    def close(self) -> None:
        """End the processes; the next run prepares again. Call it while no program runs."""
        self._prefetch.close()
        with self._lock:
            self._ready = False

    @abstractmethod
    def _probe(self) -> None:
        """Raise ConfigError unless the sandbox works and isolates programs on this machine."""

    @abstractmethod
    def _run(self, program: Program) -> Outcome:
        """Run a program; its source is valid Unicode and its function name an identifier."""
