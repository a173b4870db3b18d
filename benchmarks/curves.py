"""Print the metrics.csv of runs as one table, with a row for every few rounds.

python -m benchmarks.curves runs/tiny_lsp [runs/tiny_lsp-2 ...] [--every 50] [--reward verifiable]

Held-out scores are the last ones up to the row's round; other metrics are means over the rounds
since the row above. With several runs, cells show mean and standard deviation over the runs.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from benchmarks.runs import cell

HELDOUT = ("heldout/sampled", "heldout/greedy")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--every", type=int, default=50, help="rounds for each row")
    parser.add_argument("--reward", default="verifiable", help="name of the verifiable reward")
    args = parser.parse_args()
    means = averaged_metrics(args.reward)
    heads = [name.rpartition("/")[2].replace("_", " ") for name in (*HELDOUT, *means)]
    print(f"| round | {' | '.join(heads)} |")
    print(f"|---|{'---|' * len(heads)}")
    for rows in zip(*(figures_of(run, args.every, means) for run in args.runs), strict=True):
        cells = [cell([row[name] for row in rows]) for name in (*HELDOUT, *means)]
        print(f"| {rows[0]['round']:.0f} | {' | '.join(cells)} |")


def averaged_metrics(reward: str) -> tuple[str, ...]:
    """The metrics that are averaged over rounds; ``reward`` logs what is known of the queries."""
    queries = [f"queries/{reward}/{entry}" for entry in ("malformed", "level", "family_entropy")]
    return ("value", *queries, "kl/challenger")


def figures_of(run: Path, every: int, means: Sequence[str]) -> list[dict[str, float]]:
    """The figures of a run, a dict for every ``every`` rounds; NaN for missing metrics."""
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    last = max(int(row["step"]) for row in rows) + 1
    found = []
    for end in range(every, last + 1, every):
        window = [row for row in rows if end - every <= int(row["step"]) < end]
        figures = {"round": float(end)}
        for name in (*HELDOUT, *means):
            values = [float(row[name]) for row in window if row.get(name)] or [float("nan")]
            figures[name] = values[-1] if name in HELDOUT else mean(values)
        found.append(figures)
    return found


if __name__ == "__main__":
    main()
