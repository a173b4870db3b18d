"""TRL's GRPO trainer and this package at the same work, one step of each in turn."""

import importlib.util
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.random_model import Shape, make_random_model
from benchmarks.speed_ours import MICRO_BATCH
from benchmarks.speed_work import WARM_UP, Clock, Side, Step, Work, make_queries
from lsp_lightning.models.precision import cpu_has_bfloat16

SHAPES = (Shape(128, 4, 512), Shape(256, 8, 4096))
#: The size of SmolLM2-135M. Random weights take as long as the published ones.
SMOLLM2 = Shape(576, 30, 49152, intermediate=1536, heads=9, kv_heads=3)
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
    bfloat16: bool = False,
) -> list[dict[str, Any]] | None:
    """Seconds of each phase on both sides, a dict for each model and prompt length.

    The first steps do not count. None if TRL is not installed. With ``bfloat16`` this package also
    runs in bfloat16, if the processor has units for it.
    """
    if not all(map(importlib.util.find_spec, ("trl", "datasets"))):
        print("TRL is not installed, so there is no comparison with it; pip install '.[bench]'")
        return None
    if bfloat16 and not cpu_has_bfloat16():
        print("bfloat16 is not measured: this processor has no units for it")
        bfloat16 = False
    cases = []
    with tempfile.TemporaryDirectory() as folder, sides(Path(folder), bfloat16) as both:
        for shape in shapes:
            model = Path(folder) / f"{shape.hidden}-{shape.layers}"
            parameters = make_random_model(model, shape)
            for prompt in prompts:
                queries = make_queries(num_queries, prompt)
                work = Work(str(model), queries, group_size, new_tokens, WARM_UP + rounds, clock)
                steps = in_turn(both, work)
                check_equal(steps, work, prompt)
                case = {"parameters": parameters, "prompt": prompt, **summary(steps)}
                case["tokens"] = tokens(work, prompt)
                print(table(case), flush=True)
                cases.append(case)
    return cases


#: The same for a model of SmolLM2-135M's size.
smollm2 = partial(peer, shapes=(SMOLLM2,), num_queries=4, group_size=4, rounds=2, bfloat16=True)


@contextmanager
def sides(folder: Path, bfloat16: bool = False) -> Iterator[dict[str, Side]]:
    """The processes of both trainers, and one more of this package in bfloat16."""
    both = {"trl": Side("speed_trl", folder), "ours": Side("speed_ours", folder)}
    if bfloat16:
        separate = folder / "bfloat16"
        separate.mkdir()
        both["ours_bfloat16"] = Side("speed_ours", separate)
    try:
        yield both
    finally:
        for side in both.values():
            side.close()


def in_turn(both: dict[str, Side], work: Work) -> dict[str, list[Step]]:
    """The steps of each side, without the warm-up; the sides take turns step by step."""
    for name, side in both.items():
        side.begin(replace(work, dtype="bfloat16") if name == "ours_bfloat16" else work)
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


def tokens(work: Work, prompt: int) -> dict[str, dict[str, int]]:
    """Tokens that pass through the model in each phase, on each side.

    Their ratio is what sharing prompts can save: time saved beyond it has other causes. An answer's
    last token predicts nothing, so no side needs it; TRL computes it in the passes over whole rows.
    """
    rows = len(work.queries) * work.group_size
    before_last = rows * (work.new_tokens - 1)
    shared, copied = len(work.queries) * prompt, rows * prompt
    trl = {"generation": copied + before_last}
    trl |= dict.fromkeys(("reference", "policy"), copied + rows * work.new_tokens)
    ours = dict.fromkeys(("generation", "reference", "policy"), shared + before_last)
    return {
        name: {**of_side, "step": sum(of_side.values())}
        for name, of_side in (("trl", trl), ("ours", ours))
    }


def table(case: dict[str, Any]) -> str:
    """A Markdown table with a row for each phase; the row step also shows its range."""
    names = {"trl": "TRL", "ours": "ours"}
    if "ours_bfloat16" in case:
        names["ours_bfloat16"] = "ours in bfloat16"
    seconds = " | ".join(f"{label}, s" for label in names.values())
    lines = [
        f"\n{case['parameters'] / 1e6:.1f}M parameters, prompts of {case['prompt']} tokens",
        f"| phase | {seconds} | ratio | tokens: TRL | ours | ratio |",
        f"|---|{'---:|' * (len(names) + 4)}",
    ]
    for phase in PHASES:
        cells = [
            f"{case[name][phase]:.3f}" + (spread(case["steps"][name]) if phase == "step" else "")
            for name in names
        ]
        cells.append(f"{case['ratio'][phase]:.2f}")
        trl, ours = (case["tokens"][name].get(phase) for name in ("trl", "ours"))
        cells += [f"{trl:,}", f"{ours:,}", f"{trl / ours:.2f}"] if ours else ["", "", ""]
        lines.append(f"| {phase} | {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(seconds: Sequence[float]) -> str:
    """The range of some times, as `` (min-max)``."""
    return f" ({min(seconds):.3f}-{max(seconds):.3f})"
