"""TRL's GRPO trainer and this package at the same work, one step of each in turn."""

import importlib.util
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.random_model import Shape, make_random_model
from benchmarks.speed_ours import MICRO_BATCH
from benchmarks.speed_work import WARM_UP, Clock, Side, Step, Work, make_queries

SHAPES = (Shape(128, 4, 512), Shape(256, 8, 4096))
PROMPTS = (70, 256)
PHASES = ("generation", "reference", "policy", "rest", "step")
QUICK: dict[str, Any] = {"shapes": (Shape(64, 1, 128),), "prompts": (16,), "new_tokens": 4}
#: Constant settings, for the record; TRL takes a whole step as one batch.
FIXED = {"warm_up": WARM_UP, "micro_batch_tokens": MICRO_BATCH}


def peer(
    shapes: Sequence[Shape] = SHAPES,
    prompts: Sequence[int] = PROMPTS,
    num_queries: int = 8,
    group_size: int = 8,
    new_tokens: int = 64,
    rounds: int = 5,
    clock: Clock = "wall",
) -> list[dict[str, Any]] | None:
    """Seconds of each phase on both sides, a dict for each model and prompt length.

    The first steps do not count. None if TRL is not installed.
    """
    if not all(map(importlib.util.find_spec, ("trl", "datasets"))):
        print("TRL is not installed, so section peer is skipped; pip install '.[bench]'")
        return None
    cases = []
    with tempfile.TemporaryDirectory() as folder, sides(Path(folder)) as both:
        for shape in shapes:
            model = Path(folder) / f"{shape.hidden}-{shape.layers}"
            parameters = make_random_model(model, shape)
            for prompt in prompts:
                queries = make_queries(num_queries, prompt)
                work = Work(str(model), queries, group_size, new_tokens, WARM_UP + rounds, clock)
                steps = in_turn(both, work)
                check_equal(steps, work, prompt)
                case = {"parameters": parameters, "prompt": prompt, **summary(steps)}
                print(table(case), flush=True)
                cases.append(case)
    return cases


@contextmanager
def sides(folder: Path) -> Iterator[dict[str, Side]]:
    """The processes of both trainers."""
    both = {"trl": Side("speed_trl", folder), "ours": Side("speed_ours", folder)}
    try:
        yield both
    finally:
        for side in both.values():
            side.close()


def in_turn(both: dict[str, Side], work: Work) -> dict[str, list[Step]]:
    """The steps of each side, without the warm-up; the sides take turns step by step."""
    for side in both.values():
        side.begin(work)
    steps: dict[str, list[Step]] = {name: [] for name in both}
    for _ in range(work.steps):
        for name, side in both.items():
            steps[name].append(side.step())
    return {name: done[WARM_UP:] for name, done in steps.items()}


def check_equal(steps: dict[str, list[Step]], work: Work, prompt: int) -> None:
    """Exit with an error unless both sides did the same work."""
    expected = (work.new_tokens,) * len(work.queries) * work.group_size
    prompts = {step.prompts for side in steps.values() for step in side}
    lengths = {step.lengths for side in steps.values() for step in side}
    sizes = {len(ids) for some in prompts for ids in some}
    if lengths != {expected} or len(prompts) != 1 or sizes != {prompt}:
        sys.exit(f"unequal work: {len(prompts)} sets of prompts of {sizes} tokens, {lengths}")


def summary(steps: dict[str, list[Step]]) -> dict[str, Any]:
    """Median seconds of each phase on each side, their ratio, and the seconds of each step."""
    medians = {
        name: {p: statistics.median(s.seconds[p] for s in side) for p in PHASES}
        for name, side in steps.items()
    }
    ratio = {p: medians["trl"][p] / medians["ours"][p] for p in PHASES}
    every = {name: [s.seconds["step"] for s in side] for name, side in steps.items()}
    return {**medians, "ratio": ratio, "steps": every}


def table(case: dict[str, Any]) -> str:
    """A Markdown table with a row for each phase; the row step also shows its range."""
    lines = [
        f"\n{case['parameters'] / 1e6:.1f}M parameters, prompts of {case['prompt']} tokens",
        "| phase | TRL, s | ours, s | ratio |",
        "|---|---:|---:|---:|",
    ]
    for phase in PHASES:
        trl, ours = (
            f"{case[name][phase]:.3f}" + (spread(case["steps"][name]) if phase == "step" else "")
            for name in ("trl", "ours")
        )
        lines.append(f"| {phase} | {trl} | {ours} | {case['ratio'][phase]:.2f} |")
    return "\n".join(lines)


def spread(seconds: Sequence[float]) -> str:
    """The range of some times, as `` (min-max)``."""
    return f" ({min(seconds):.3f}-{max(seconds):.3f})"
