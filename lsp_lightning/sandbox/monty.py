"""The default sandbox: Monty, an interpreter for a subset of Python without access to the host."""

import json
import secrets
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from lsp_lightning.errors import ConfigError
from lsp_lightning.sandbox.base import (
    KEY,
    PROCESSES,
    Outcome,
    Program,
    Sandbox,
    SandboxError,
    one_line,
)
from lsp_lightning.sandbox.plain import NotPlainError, plain

if TYPE_CHECKING:
    from pydantic_monty import Monty, MontyError

#: Seconds after the time limit at which a worker that did not stop is killed.
GRACE_SECONDS = 0.5
#: Time of the clock in world 0, and the time from one world to the next.
FIRST_WORLD_TIME = datetime(2025, 3, 14, 9, 26, 53, 589_793, UTC)
WORLD_STEP = timedelta(days=37, hours=5, seconds=41, microseconds=271_829)
#: Seconds to wait for a free worker; far more than the programs ahead in the queue can take.
QUEUE_SECONDS = 600.0


class _Printed:
    """Collects what a program prints; at the limit it raises, which stops the program."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.text = ""
        self.full = False

    def __call__(self, stream: Literal["stdout", "stderr"], text: str) -> None:
        if self.limit is None or stream == "stderr":
            return
        self.text += text
        if len(self.text) > self.limit or len(self.text.encode()) > self.limit:
            self.text = self.text.encode()[: self.limit].decode(errors="ignore")
            self.full = True
            raise OverflowError("printed too much")


class MontySandbox(Sandbox):
    """Runs programs in worker processes of ``pydantic-monty``; needs no system package.

    Monty interprets a subset of Python (no class inheritance, no generators, few modules), so some
    correct programs end with status "error". A program has no files, network, environment or
    processes, and cannot catch the time and memory limits. ``time.sleep`` returns at once.
    """

    _pool: "Monty | None" = None

    def _probe(self) -> None:
        try:
            from pydantic_monty import Monty, MontyError
        except ImportError as error:
            raise ConfigError(
                KEY, "pydantic-monty is not installed", "pip install pydantic-monty"
            ) from error
        try:
            self._pool = Monty(
                min_processes=PROCESSES,
                max_processes=PROCESSES,
                checkout_timeout=QUEUE_SECONDS,
                request_timeout=self.limits.seconds + GRACE_SECONDS,
                feed_duration_limit_grace=GRACE_SECONDS,
            ).__enter__()
            hello = self._run(Program("print('hello')"))
        except (MontyError, OSError, SandboxError) as error:
            raise ConfigError(
                KEY,
                f"the workers of pydantic-monty do not start ({one_line(str(error))})",
                "reinstall pydantic-monty",
            ) from error
        if hello.status == "error":
            raise ConfigError(KEY, f"Monty fails: {hello.detail}", "reinstall pydantic-monty")

    def prefetch(self, program: Program) -> None:
        """Do nothing: running a program beside the sampling costs more time than it saves."""

    def close(self) -> None:
        """End the workers; the next run starts new ones."""
        super().close()
        pool, self._pool = self._pool, None
        if pool is not None:
            none: tuple[type[BaseException] | None, BaseException | None, TracebackType | None]
            none = (None, None, None)
            pool.__exit__(*none)

    def _run(self, program: Program) -> Outcome:
        from pydantic_monty import MontyCrashedError, MontyError

        printed = _Printed(self.limits.output_bytes if program.function is None else None)
        code, inputs = _with_calls(program)
        try:
            result = self._feed(code, inputs, printed, program.world)
            values = () if program.function is None else _values(result, self.limits.output_bytes)
        except MontyCrashedError as error:
            return Outcome(
                "timeout" if error.timed_out else "error",
                printed.text,
                detail=one_line(str(error)),
            )
        except MontyError as error:
            return _stopped(error, printed)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            # a returned value could not be converted, such as a named tuple with hostile fields
            return Outcome("error", detail=one_line(f"{type(error).__name__}: {error}"))
        return Outcome("ok", printed.text, values)

    def _feed(self, code: str, inputs: dict[str, object], printed: _Printed, world: int) -> object:
        from pydantic_monty import MontyError

        if self._pool is None:
            raise SandboxError("the sandbox was closed before the program could run")
        try:
            session = self._pool.checkout(
                limits={
                    "max_feed_duration_secs": self.limits.seconds,
                    "max_memory": self.limits.memory_mib * 2**20,
                },
                os_policy={
                    # a real sleep would block a worker, and the time limit does not count it
                    "sleep": "zero",
                    # a fixed time: the same program prints the same in every run
                    "datetime": FIRST_WORLD_TIME + world * WORLD_STEP,
                    "random_start": {"seed": world},
                },
            )
            session.__enter__()
        except (MontyError, TimeoutError, OSError, RuntimeError) as error:
            raise SandboxError(f"no Monty worker is available: {error}") from error
        try:
            return session.feed_run(code, inputs=inputs, print_callback=printed)
        finally:
            session.__exit__(None, None, None)


def _with_calls(program: Program) -> tuple[str, dict[str, object]]:
    """The source followed by all calls, and their arguments under an unguessable name.

    It is one feed, because the time limit is per feed. A source with an open bracket or string
    fails to parse with the calls appended, as it would alone. The values come back as objects and
    as JSON: Monty converts what has no host type (a range, a function) to text, and only the JSON
    tells it from a returned text.
    """
    if program.function is None:
        return program.source, {}
    name = f"_{secrets.token_hex(16)}"
    calls = (
        f"import json as {name}_json\n"
        f"{name} = [{program.function}(*a) for a in {name}]\n"
        f"({name}, {name}_json.dumps({name}))"
    )
    return f"{program.source}\n\n{calls}", {name: _copy(program.cases)}


def _copy(value: object) -> object:
    """A deep copy in which no list or dict occurs twice, as if parsed from source text.

    Not ``ast.literal_eval(repr(value))``: programs run in threads, and before Python 3.13 two
    threads that parse at once can fail ("AST constructor recursion depth mismatch").
    """
    if isinstance(value, list | tuple):
        return type(value)(_copy(item) for item in value)
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return value


def _values(result: object, max_bytes: int) -> tuple[object, ...]:
    """The checked values of all calls.

    Raises:
        NotPlainError: a value is not plain, or the values together are too large.
    """
    if type(result) is not tuple or len(result) != 2 or type(result[1]) is not str:
        raise NotPlainError("the calls returned no list of values")
    values = plain(result[0], max_bytes)
    if type(values) is not list or json.loads(result[1]) != values:
        raise NotPlainError("a value of a type that Monty can only show as text")
    return tuple(values)


def _stopped(error: "MontyError", printed: _Printed) -> Outcome:
    """The outcome of a program that Monty stopped or that raised an exception."""
    detail = one_line(str(error))
    if printed.full:
        return Outcome("output", printed.text, detail="printed more than the limit")
    cause = error.exception()
    if isinstance(cause, TimeoutError) and "time limit exceeded" in detail:
        return Outcome("timeout", printed.text, detail=detail)
    status: Literal["memory", "error"] = "memory" if isinstance(cause, MemoryError) else "error"
    return Outcome(status, printed.text, detail=detail)
