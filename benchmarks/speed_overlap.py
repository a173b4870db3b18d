"""Judging during sampling (prefetch), compared with judging after it.

A random model samples tokens and completions end at random. Each completion is then replaced by one
of some written answers, because a random model writes no mathematics and no programs.
"""

import os
import random
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.random_model import Shape, make_random_model
from benchmarks.speed_work import WARM_UP, make_queries
from lsp_lightning import (
    CodeVerifier,
    Lora,
    MathVerifier,
    Player,
    Policy,
    Sampling,
    VerifiableReward,
    play_round,
)
from lsp_lightning.game.queries import QueryBatch, QuerySource
from lsp_lightning.rewards import Verifier
from lsp_lightning.sandbox import BubblewrapSandbox

QUERIES, ANSWERS = 8, 8
QUICK: dict[str, Any] = {"shape": Shape(64, 1, 512), "new_tokens": 8, "rounds": 1}
FIXED = {"warm_up": WARM_UP, "queries": QUERIES, "answers": ANSWERS, "clock": "wall"}
#: Stop tokens in a vocabulary of 512: a completion has 85 tokens on average if there is room.
_STOPS = range(2, 512, 85)
_TESTS = {"tests": [f"assert f([3, 1, 2, {i}]) == [{max(3, i)}]" for i in range(5)]}

#: The verifier, the solution of each query, and a function that writes an answer.
Case = tuple[Verifier, Any, Callable[[random.Random], str]]


def cases() -> Iterator[tuple[str, Case]]:
    """The cases that can run on this machine. Monty is too fast for prefetching to help."""
    yield "final answers", (MathVerifier(), "3/4", _maths)
    if shutil.which("bwrap"):
        yield "functions, bubblewrap", (CodeVerifier(BubblewrapSandbox()), _TESTS, _function)


def overlap(
    shape: Shape = Shape(256, 8, 512),  # noqa: B008 - frozen
    new_tokens: int = 128,
    rounds: int = 5,
) -> dict[str, Any]:
    """Median seconds of sampling, and of judging after it, for both ways in turn."""
    found: dict[str, Any] = {}
    print(f"\n| {os.cpu_count()} cores | answers, s | rewards, s | both, s |\n|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        make_random_model(Path(folder), shape)
        policy = Policy(folder, Lora(), dtype="float32")
        policy.codec.stop_ids = tuple(_STOPS)
        for name, (verifier, solution, write) in cases():
            player = Player.local(policy)
            codec: Any = _Written(player.codec, write)
            player = Player(player.engine, codec, player.pad_id)
            with _ready(verifier):
                found[name] = _measured(player, verifier, solution, new_tokens, rounds)
            for way, seconds in found[name].items():
                figures = (seconds["answers"], seconds["rewards"], sum(seconds.values()))
                print(f"| {name}, {way} | {' | '.join(f'{s:.3f}' for s in figures)} |", flush=True)
    return found


def _measured(
    player: Player, verifier: Verifier, solution: Any, new_tokens: int, rounds: int
) -> dict[str, dict[str, float]]:
    ways = {"after": VerifiableReward(verifier), "meanwhile": VerifiableReward(verifier)}
    ways["after"].prefetch = lambda *args: None  # type: ignore[method-assign]
    runs = []
    for k in range(WARM_UP + rounds):
        played = {
            way: play_round(
                player,
                _Given(solution),
                [reward],
                num_queries=QUERIES,
                group_size=ANSWERS,
                sampling=Sampling(max_new_tokens=new_tokens),
                seed=k,
            )
            for way, reward in ways.items()
        }
        after, meanwhile = (p.rewards_NG for p in played.values())
        assert torch.equal(after, meanwhile), "the two ways judge differently"
        runs.append({way: p.seconds for way, p in played.items()})
    return {
        way: {
            phase: statistics.median(run[way][phase] for run in runs[WARM_UP:])
            for phase in ("answers", "rewards")
        }
        for way in ways
    }


@contextmanager
def _ready(verifier: Verifier) -> Iterator[None]:
    verifier.prepare()
    try:
        yield
    finally:
        verifier.close()


class _Written:
    """A codec that decodes each completion as one of some written answers."""

    def __init__(self, codec: Any, write: Callable[[random.Random], str]) -> None:
        self._codec = codec
        self._write = write

    def decode(self, tokens: Sequence[int]) -> str:
        return self._write(random.Random(str(tokens)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codec, name)


class _Given(QuerySource):
    """Queries that all have the same solution."""

    def __init__(self, solution: Any) -> None:
        self._solution = solution

    def draw(self, player: Player, num_queries: int, index: int, seed: int) -> QueryBatch:
        texts = make_queries(num_queries, 70)
        return QueryBatch(texts, solutions=(self._solution,) * num_queries)


def _maths(draw: random.Random) -> str:
    a, b = draw.randint(1, 9), draw.randint(2, 9)
    forms = (rf"\frac{{{a}}}{{{b}}}", rf"{a}+\sqrt{{{b}}}", f"{a}", f"x={a}/{b}")
    return rf"So it is \boxed{{{draw.choice(forms)}}}."


def _function(draw: random.Random) -> str:
    form = draw.choice(("sorted(x)[-1:]", "[max(x)]", "x[:1]", "[sum(x)]"))
    return f"def f(x):\n    return {form}  # {draw.random()}"
