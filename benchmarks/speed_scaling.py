"""How the time of a round grows with answers, queries, new tokens and vocabulary."""

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.random_model import Shape, make_random_model
from benchmarks.speed_game import MICRO_BATCH, Game, Size
from benchmarks.speed_work import Clock

BASE = Size(queries=4, answers=4, new_tokens=32)
SHAPE = Shape(128, 4, 512)
POWERS = (1, 2, 4, 8, 16, 32, 64)
VALUES: dict[str, Sequence[int]] = {
    "answers": POWERS,
    "queries": POWERS,
    "new_tokens": (32, 64, 128, 256, 512),
    "vocabulary": (1024, 4096, 16_384, 32_768, 65_536, 131_072),
}
QUICK: dict[str, Any] = {
    "values": {"answers": (1, 2, 4), "vocabulary": (128, 256)},
    "base": Size(2, 2, 4, 16),
    "shape": Shape(64, 1, 128),
    "repeats": 1,
}
FIXED = {"warm_up": 1, "micro_batch_tokens": MICRO_BATCH}


def scaling(
    values: dict[str, Sequence[int]] = VALUES,
    base: Size = BASE,
    shape: Shape = SHAPE,
    repeats: int = 3,
    clock: Clock = "wall",
) -> dict[str, Any]:
    """Median seconds of rollouts and update for each value of one size, and a fitted line.

    The other sizes are those of ``base``. For the vocabulary, the model has half the width and
    depth, so that the vocabulary dominates.
    """
    tables = {}
    for what, sizes in values.items():
        rows = []
        for size, game, value in games(what, sizes, base, shape, clock):
            times = [game.seconds(size) for _ in range(repeats)]
            median = {k: statistics.median(t[k] for t in times) for k in ("rollouts", "update")}
            cost = 1e6 * sum(median.values()) / size.tokens
            rows.append({"value": value, **median, "microseconds_per_token": cost})
        lines = {
            phase: straight_line(list(sizes), [row[phase] for row in rows])
            for phase in ("rollouts", "update")
        }
        tables[what] = {"rows": rows, "lines": lines}
        print(table(what, rows, lines), flush=True)
    return tables


def games(
    what: str, values: Sequence[int], base: Size, shape: Shape, clock: Clock
) -> Iterator[tuple[Size, Game, int]]:
    """The size and a warmed-up game for each value."""
    with tempfile.TemporaryDirectory() as folder:
        if what != "vocabulary":
            make_random_model(Path(folder), shape)
            game = Game(Path(folder), clock)
            game.seconds(replace(base, **{what: max(values)}))
            for value in values:
                yield replace(base, **{what: value}), game, value
            return
        for value in values:
            model = Path(folder) / str(value)
            small = replace(shape, hidden=shape.hidden // 2, layers=max(1, shape.layers // 2))
            make_random_model(model, replace(small, vocabulary=value))
            game = Game(model, clock)
            game.seconds(base)
            yield base, game, value


def straight_line(x: Sequence[float], y: Sequence[float]) -> dict[str, float]:
    """The line a + b x with the least squared relative error from y, and its largest one."""
    weights = 1 / torch.tensor(y, dtype=torch.float64)
    columns = torch.stack([torch.ones_like(weights), torch.tensor(x, dtype=torch.float64)], dim=1)
    a, b = torch.linalg.lstsq(columns * weights[:, None], weights.reciprocal() * weights).solution
    errors = (columns @ torch.stack([a, b])) * weights - 1
    return {"a": float(a), "b": float(b), "largest_error": float(errors.abs().max())}


def table(what: str, rows: list[dict[str, float]], lines: dict[str, dict[str, float]]) -> str:
    """A Markdown table, with the fitted line of each phase below."""
    least = min(row["microseconds_per_token"] for row in rows)
    text = [
        f"\n| {what} | rollouts, s | update, s | microseconds a new token | x the least |",
        "|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        cost = row["microseconds_per_token"]
        text.append(
            f"| {row['value']:,} | {row['rollouts']:.3f} | {row['update']:.3f} | {cost:.0f} | "
            f"{cost / least:.2f} |"
        )
    for phase, line in lines.items():
        text.append(
            f"{phase}: {line['a']:.4f} s + {line['b'] * 1e3:.5f} ms x {what}, "
            f"within {line['largest_error']:.0%}"
        )
    return "\n".join(text)
