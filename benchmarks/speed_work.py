"""Training steps on command, in separate processes, for both sides of the comparison with TRL."""

import importlib
import multiprocessing
import os
import random
import string
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.random_model import TEMPLATE_TOKENS

#: Settings of both trainers: LoRA on all linear layers, AdamW, KL to the reference.
RANK, ALPHA, BETA, RATE, MAX_NORM = 16, 32, 0.02, 1e-4, 1.0
#: Rounds that are played first and do not count.
WARM_UP = 1

#: CPU time varies less while other programs run.
Clock = Literal["wall", "cpu"]
CLOCKS: dict[Clock, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Work:
    """The work of both sides; each answer has exactly ``new_tokens`` tokens."""

    folder: str
    """Folder of the model."""
    queries: tuple[str, ...]
    """N queries, the same in every step."""
    group_size: int
    """G, answers to each query."""
    new_tokens: int
    """T, tokens of each answer."""
    steps: int
    """Training steps, including the warm-up."""
    clock: Clock = "wall"
    """Wall time or CPU time."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """The type that this package computes in; TRL's side is float32."""


@dataclass(frozen=True)
class Step:
    """The time of one step, and the work that it did."""

    seconds: dict[str, float]
    """Seconds of each phase; ``step`` is the whole step."""
    prompts: frozenset[tuple[int, ...]]
    """Token ids of the prompts, each one once."""
    lengths: tuple[int, ...]
    """Number of tokens of each completion."""


def make_queries(count: int, prompt_tokens: int) -> tuple[str, ...]:
    """Different queries. With the chat template each has exactly ``prompt_tokens`` tokens."""
    rng, length = random.Random(0), prompt_tokens - TEMPLATE_TOKENS
    return tuple("".join(rng.choices(string.ascii_letters, k=length)) for _ in range(count))


class Stopwatch:
    """Starts each step of a trainer on command and reports the time it took."""

    def __init__(self, connection: "Connection[Any, Any]", work: Work) -> None:
        self._connection = connection
        self._left = work.steps
        self._now = CLOCKS[work.clock]
        self._seconds: dict[str, float] = defaultdict(float)
        self._inner = 0.0
        self._start = 0.0

    def wait(self) -> None:
        """Wait for the command to start the next step; return at once after the last one."""
        if self._left:
            self._connection.recv()
            self._left -= 1
            self._seconds.clear()
            self._start = self._now()

    def timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that its time counts for ``phase``, without phases inside it."""

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            outer, self._inner = self._inner, 0.0
            start = self._now()
            try:
                return function(*args, **kwargs)
            finally:
                took = self._now() - start
                self._seconds[phase] += took - self._inner
                self._inner = outer + took

        return wrapper

    def report(self, prompts: list[list[int]], completions: list[list[int]]) -> None:
        """Report a finished step, with its prompts and completions as token ids."""
        total = self._now() - self._start
        rest = total - sum(self._seconds.values())
        self._connection.send(
            Step(
                seconds={**self._seconds, "rest": rest, "step": total},
                prompts=frozenset(map(tuple, prompts)),
                lengths=tuple(map(len, completions)),
            )
        )


class Side:
    """A trainer in a separate process.

    Args:
        name: a module of benchmarks with a function ``run(work, stopwatch)``.
        folder: folder for the output of the process.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self._log = folder / f"{name}.log"
        context = multiprocessing.get_context("spawn")
        self._connection, its_end = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(f"benchmarks.{name}", its_end, str(self._log)), daemon=True
        )
        self._process.start()
        its_end.close()  # so that the pipe ends with the process

    def begin(self, work: Work) -> None:
        """Set up a trainer for this work, ready for its first step."""
        with suppress(OSError):  # if the process has ended, ``step`` says why
            self._connection.send(work)

    def step(self) -> Step:
        """Run one step. If the process failed, exit with its log."""
        try:
            self._connection.send("go")
            step: Step = self._connection.recv()
        except (EOFError, OSError):
            sys.exit(f"{self._log.stem} failed:\n{self._log.read_text(encoding='utf-8')[-3000:]}")
        return step

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()


def _serve(module: str, connection: "Connection[Any, Any]", log: str) -> None:
    with open(log, "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    run = importlib.import_module(module).run
    while True:
        try:
            work = connection.recv()
        except EOFError:
            return
        run(work, Stopwatch(connection, work))
