"""How a run went: its metrics.csv as a table, a row every so many rounds.

python -m benchmarks.curves runs/tiny_lsp [--every 50]

Held-out scores are those of the round; all else is the mean over the rounds since the last row.
"""

import argparse
import csv
from pathlib import Path
from statistics import mean

HELDOUT = ("heldout/sampled", "heldout/greedy")
MEANS = ("value", "queries/malformed", "queries/level", "queries/family_entropy", "kl/challenger")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--every", type=int, default=50)
    args = parser.parse_args()
    with (args.run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    heads = [name.rpartition("/")[2].replace("_", " ") for name in (*HELDOUT, *MEANS)]
    print(f"| round | {' | '.join(heads)} |")
    print(f"|---|{'---|' * len(heads)}")
    last = max(int(row["step"]) for row in rows) + 1
    for end in range(args.every, last + 1, args.every):
        window = [row for row in rows if end - args.every <= int(row["step"]) < end]
        cells = []
        for name in (*HELDOUT, *MEANS):
            values = [float(row[name]) for row in window if row.get(name)]
            figure = values[-1] if name in HELDOUT else mean(values) if values else float("nan")
            cells.append(f"{figure:.3f}")
        print(f"| {end} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
