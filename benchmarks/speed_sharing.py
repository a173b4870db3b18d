"""What sharing prompts saves: answers to a few long prompts, or each answer to its separate prompt.

Times are medians with micro-batches of the default size; the two ways take turns. Memory is the
peak during a phase minus the memory before it, with the whole round in one micro-batch. For memory
each way runs in a separate process, with an allocator that frees memory at once.
"""

import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.logits_memory import MALLOC, highest, reset_peak
from benchmarks.random_model import Shape, make_random_model
from benchmarks.speed_game import MICRO_BATCH, Game, Size
from benchmarks.speed_work import WARM_UP, Clock

SHAPE = Shape(128, 4, 512)
SIZE = Size(prompt=512)
QUICK: dict[str, Any] = {"shape": Shape(64, 1, 128), "size": Size(2, 2, 4, 32), "repeats": 1}
FIXED = {"warm_up": WARM_UP, "micro_batch_tokens": MICRO_BATCH}
ROWS = (
    ("rollouts_seconds", "rollouts, s"),
    ("update_seconds", "update, s"),
    ("rollouts_mb", "rollouts, peak MB"),
    ("update_mb", "update, peak MB"),
)


def sharing(
    shape: Shape = SHAPE, size: Size = SIZE, repeats: int = 3, clock: Clock = "wall"
) -> dict[str, Any]:
    """Seconds and MB of both phases, with shared and with separate prompts."""
    separate = replace(size, queries=size.queries * size.answers, answers=1)
    ways = {"shared": size, "separate": separate}
    with tempfile.TemporaryDirectory() as folder:
        make_random_model(Path(folder), shape)
        found = times(Game(Path(folder), clock), ways, repeats)
        for name, way in ways.items():
            found[name] |= in_a_process(peaks, folder, way)
    print(table(found, size), flush=True)
    return found


def times(game: Game, ways: dict[str, Size], repeats: int) -> dict[str, dict[str, float]]:
    """Median seconds of each phase after the warm-up; the ways take turns."""
    runs = [
        {name: game.seconds(way) for name, way in ways.items()} for _ in range(WARM_UP + repeats)
    ]
    return {
        name: {
            f"{phase}_seconds": statistics.median(run[name][phase] for run in runs[WARM_UP:])
            for phase in ("rollouts", "update")
        }
        for name in ways
    }


def peaks(folder: str, size: Size) -> dict[str, float]:
    """Peak memory of each phase minus the memory before it, in MB."""
    torch.set_num_threads(1)
    rows = size.queries * size.answers * (size.prompt + size.new_tokens)
    game = Game(Path(folder), micro_batch=max(rows, MICRO_BATCH))
    few = replace(size, queries=1, new_tokens=2)
    game.learn(game.play(few))  # for one-time allocations
    before = reset_peak()
    played = game.play(size)
    rollouts = highest() - before
    before = reset_peak()
    game.learn(played)
    return {"rollouts_mb": rollouts, "update_mb": highest() - before}


def in_a_process(function: Callable[..., dict[str, float]], *args: Any) -> dict[str, float]:
    """Call the function in a new process and return its result."""
    context = multiprocessing.get_context("spawn")
    with patch.dict(os.environ, MALLOC), ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args).result()


def table(found: dict[str, dict[str, float]], size: Size) -> str:
    """A Markdown table of time and memory of each phase, for both ways."""
    n, g = size.queries, size.answers
    lines = [
        f"\n| {n} x {g} answers of {size.new_tokens} tokens, prompts of {size.prompt} | "
        f"{n} prompts shared | {n * g} separate | ratio |",
        "|---|---:|---:|---:|",
    ]
    for key, label in ROWS:
        shared, separate = found["shared"][key], found["separate"][key]
        lines.append(f"| {label} | {shared:.2f} | {separate:.2f} | {separate / shared:.2f} |")
    return "\n".join(lines)
