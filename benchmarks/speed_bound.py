"""Lower bounds of rollouts and updates: their matrix products at this machine's best speed.

The seconds come from plain runs. Their shares by kind of operation come from torch's profiler in a
separate run; the profiler's cost does not count as an operation.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.random_model import Shape, make_random_model
from benchmarks.speed_game import Game, Size
from benchmarks.speed_ours import MICRO_BATCH
from benchmarks.speed_peer import SHAPES
from benchmarks.speed_work import WARM_UP

QUICK: dict[str, Any] = {"shapes": (Shape(64, 1, 128),), "size": Size(2, 2, 4, 32), "repeats": 1}
FIXED = {"warm_up": WARM_UP, "micro_batch_tokens": MICRO_BATCH, "clock": "wall"}
_PRODUCTS = ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::baddbmm")


def bound(
    shapes: tuple[Shape, ...] = SHAPES,
    size: Size = Size(),  # noqa: B008 - frozen
    repeats: int = 5,
) -> list[dict[str, Any]]:
    """A dict for each phase of each model: seconds, seconds by kind of operation, and the bound."""
    best = products_a_second()
    print(f"\nproducts of two matrices of 1024 x 1024: {best / 1e9:.0f} GF/s")
    print("| model, phase | s | products | attention | other operations | GF | at least, s | x |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    found = []
    for shape in shapes:
        with tempfile.TemporaryDirectory() as folder:
            parameters = make_random_model(Path(folder), shape)
            for name, row in phases(Game(Path(folder), "wall", MICRO_BATCH), size, repeats).items():
                row |= {"bound": row["flops"] / best}
                found.append({"parameters": parameters, "phase": name, **row})
                times = " | ".join(
                    f"{row[k]:.3f}" for k in ("seconds", "products", "attention", "other")
                )
                print(
                    f"| {parameters / 1e6:.1f}M, {name} | {times} | {row['flops'] / 1e9:.1f} | "
                    f"{row['bound']:.3f} | {row['seconds'] / row['bound']:.1f} |",
                    flush=True,
                )
    return found


def products_a_second(side: int = 1024, repeats: int = 10) -> float:
    """Best floating-point operations per second of a product of square float32 matrices."""
    a, b = torch.randn(side, side), torch.randn(side, side)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds)


def phases(game: Game, size: Size, repeats: int) -> dict[str, dict[str, float]]:
    """Seconds of rollouts and update, in all and by kind of operation."""
    runs = [game.seconds(size) for _ in range(WARM_UP + repeats)][WARM_UP:]
    played = game.play(size)
    steps: dict[str, Callable[[], object]] = {
        "rollouts": lambda: game.play(size),
        "update": lambda: game.learn(played),
    }
    return {
        name: {"seconds": statistics.median(run[name] for run in runs), **operations(step)}
        for name, step in steps.items()
    }


def operations(step: Callable[[], object]) -> dict[str, float]:
    """Seconds by kind of operation, and the floating-point operations of the products."""
    step()  # the first step also allocates memory
    # counting keeps inputs alive, which costs time: it gets a separate run
    timed, counted = (_profiled(step, with_flops) for with_flops in (False, True))
    found = {"products": 0.0, "attention": 0.0, "other": 0.0}
    for event in timed:
        kind = "products" if event.key in _PRODUCTS else "other"
        if "scaled_dot_product" in event.key:
            kind = "attention"
        if event.key.startswith("aten::"):
            found[kind] += event.self_cpu_time_total / 1e6
    return {**found, "flops": sum(event.flops for event in counted if event.key in _PRODUCTS)}


def _profiled(step: Callable[[], object], with_flops: bool) -> Any:
    with profile(activities=[ProfilerActivity.CPU], with_flops=with_flops) as seen:
        step()
    return seen.key_averages()
