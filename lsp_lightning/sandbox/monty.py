"""The default sandbox: Monty, an interpreter of a part of Python that has no way to the outside."""

import ast
import json
import secrets
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from lsp_lightning.errors import ConfigError
from lsp_lightning.sandbox.base import KEY, Outcome, Program, Sandbox, SandboxError, one_line
from lsp_lightning.sandbox.plain import NotPlainError, plain

if TYPE_CHECKING:
    from pydantic_monty import Monty, MontyError

#: Seconds past the limit after which the worker is killed, should it not stop by itself.
GRACE_SECONDS = 0.5
#: The clock's time in world 0, and how far it is from one world to the next.
FIRST_DAY = datetime(2025, 3, 14, 9, 26, 53, 589_793, UTC)
A_WHILE = timedelta(days=37, hours=5, seconds=41, microseconds=271_829)
#: Seconds to wait for a free worker, far more than those ahead in the queue may take.
QUEUE_SECONDS = 600.0


class _Printed:
    """Takes what a program prints, up to a limit; a raise from here stops the program for good."""

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
    """Runs programs in worker processes of ``pydantic-monty``; needs no package of the system.

    Monty interprets a subset of Python (no class inheritance, no generators, few modules), so some
    honest programs end as "error". Its workers have no files, network, environment or processes to
    give away; ``time.sleep`` returns at once. The limits of time and memory cannot be caught.
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
                min_processes=self.processes,
                max_processes=self.processes,
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
        """Nothing: a program takes less time here than the sampling loses beside it."""

    def close(self) -> None:
        """Stop the workers; the next run starts others."""
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
            # what it gave back does not even convert: a named tuple with hostile fields, say
            return Outcome("error", detail=one_line(f"{type(error).__name__}: {error}"))
        return Outcome("ok", printed.text, values)

    def _feed(self, code: str, inputs: dict[str, object], printed: _Printed, world: int) -> object:
        from pydantic_monty import MontyError

        if self._pool is None:
            raise SandboxError("the sandbox was closed while a program was to run")
        try:
            session = self._pool.checkout(
                limits={
                    "max_feed_duration_secs": self.limits.seconds,
                    "max_memory": self.limits.memory_mib * 2**20,
                },
                os_policy={
                    # waiting would only hold a worker: the limits' clock does not run meanwhile
                    "sleep": "zero",
                    # the same program prints the same again, in a resumed run too
                    "datetime": FIRST_DAY + world * A_WHILE,
                    "random_start": {"seed": world},
                },
            )
            session.__enter__()
        except (MontyError, TimeoutError, OSError, RuntimeError) as error:
            raise SandboxError(f"no Monty worker: {error}") from error
        try:
            return session.feed_run(code, inputs=inputs, print_callback=printed)
        finally:
            session.__exit__(None, None, None)


def _with_calls(program: Program) -> tuple[str, dict[str, object]]:
    """The source with all calls behind it, and their arguments under a name nobody can guess.

    One feed, because each feed has a clock of its own. A source that leaves a bracket or a string
    open takes the calls with it and does not parse, as it would not alone. The values come as
    objects and as JSON: where Monty has no object for the host (a range, a function), it hands out
    text, which only the JSON tells from text that was returned.
    """
    if program.function is None:
        return program.source, {}
    name = f"_{secrets.token_hex(16)}"
    calls = (
        f"import json as {name}_json\n"
        f"{name} = [{program.function}(*a) for a in {name}]\n"
        f"({name}, {name}_json.dumps({name}))"
    )
    # written out: within one feed, a list that two cases share would be one object
    return f"{program.source}\n\n{calls}", {name: ast.literal_eval(repr(program.cases))}


def _values(result: object, most_bytes: int) -> tuple[object, ...]:
    """The values of all calls, checked.

    Raises:
        NotPlainError: a value is not plain, or all are too large together.
    """
    if type(result) is not tuple or len(result) != 2 or type(result[1]) is not str:
        raise NotPlainError("the calls gave back no list of values")
    values = plain(result[0], most_bytes)
    if type(values) is not list or json.loads(result[1]) != values:
        raise NotPlainError("an object that only looks like text")
    return tuple(values)


def _stopped(error: "MontyError", printed: _Printed) -> Outcome:
    """The outcome of a program that Monty stopped, or that stopped by an exception of its own."""
    detail = one_line(str(error))
    if printed.full:
        return Outcome("output", printed.text, detail="printed more than the limit")
    cause = error.exception()
    if isinstance(cause, TimeoutError) and "time limit exceeded" in detail:
        return Outcome("timeout", printed.text, detail=detail)
    status: Literal["memory", "error"] = "memory" if isinstance(cause, MemoryError) else "error"
    return Outcome(status, printed.text, detail=detail)
