"""Steps of training on command: what both sides of the speed comparison do, each in a process."""

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
#: Rounds that are played first and not counted.
WARM_UP = 1

#: The CPU's time is the steadier one where other programs run.
Clock = Literal["wall", "cpu"]
CLOCKS: dict[Clock, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Work:
    """Equal work: steps of so many queries x answers of so many tokens exactly."""

    folder: str
    """The model."""
    queries: tuple[str, ...]
    """N queries, the same in every step."""
    group_size: int
    """G."""
    new_tokens: int
    """T."""
    steps: int
    """Steps of this trainer in all."""
    clock: Clock = "wall"
    """What is measured."""


@dataclass(frozen=True)
class Step:
    """What one step took, and that it did the work."""

    seconds: dict[str, float]
    """Of each phase; ``step`` is the whole."""
    prompts: frozenset[tuple[int, ...]]
    """Token ids of the prompts, without repetition."""
    lengths: tuple[int, ...]
    """Tokens of each completion."""


def make_queries(count: int, prompt_tokens: int) -> tuple[str, ...]:
    """Different queries whose prompts have exactly so many tokens, the chat template's included."""
    rng, length = random.Random(0), prompt_tokens - TEMPLATE_TOKENS
    return tuple("".join(rng.choices(string.ascii_letters, k=length)) for _ in range(count))


class Stopwatch:
    """Lets a trainer go from step to step when it is told to, and reports what each one took."""

    def __init__(self, connection: "Connection[Any, Any]", work: Work) -> None:
        self._connection = connection
        self._left = work.steps
        self._now = CLOCKS[work.clock]
        self._seconds: dict[str, float] = defaultdict(float)
        self._inner = 0.0
        self._start = 0.0

    def wait(self) -> None:
        """Until the next step is wanted; at once after the last one."""
        if self._left:
            self._connection.recv()
            self._left -= 1
            self._seconds.clear()
            self._start = self._now()

    def timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose time counts for ``phase``, less that of phases within it."""

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
        """The step is done; its prompts and completions as token ids."""
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
    """A trainer in a process of its own: ``benchmarks.<name>`` has ``run(work, stopwatch)``.

    Args:
        name: the module.
        folder: where its output goes.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self._log = folder / f"{name}.log"
        context = multiprocessing.get_context("spawn")
        self._connection, its_end = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(f"benchmarks.{name}", its_end, str(self._log)), daemon=True
        )
        self._process.start()
        its_end.close()  # so that the end of the process is the end of the pipe

    def begin(self, work: Work) -> None:
        """Set up a trainer for this work; it waits for its first step."""
        with suppress(OSError):  # if the process has ended, ``step`` says why
            self._connection.send(work)

    def step(self) -> Step:
        """One step, when it is done; ends the program with the log of a side that failed."""
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
