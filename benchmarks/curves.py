"""How runs went: their metrics.csv as one table, a row every so many rounds.

python -m benchmarks.curves runs/tiny_lsp [runs/tiny_lsp-2 ...] [--every 50]

Held-out scores are those of the round; all else is the mean over the rounds since the last row. Of
several runs: mean and standard deviation over them.
"""

import argparse
import csv
from pathlib import Path
from statistics import mean

from benchmarks.runs import cell

HELDOUT = ("heldout/sampled", "heldout/greedy")
KNOWN = "queries/verifiable"
MEANS = (
    "value",
    f"{KNOWN}/malformed",
    f"{KNOWN}/level",
    f"{KNOWN}/family_entropy",
    "kl/challenger",
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--every", type=int, default=50)
    args = parser.parse_args()
    heads = [name.rpartition("/")[2].replace("_", " ") for name in (*HELDOUT, *MEANS)]
    print(f"| round | {' | '.join(heads)} |")
    print(f"|---|{'---|' * len(heads)}")
    for rows in zip(*(figures_of(run, args.every) for run in args.runs), strict=True):
        cells = [cell([row[name] for row in rows]) for name in (*HELDOUT, *MEANS)]
        print(f"| {rows[0]['round']:.0f} | {' | '.join(cells)} |")


def figures_of(run: Path, every: int) -> list[dict[str, float]]:
    """The figures of each so many rounds."""
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    last = max(int(row["step"]) for row in rows) + 1
    found = []
    for end in range(every, last + 1, every):
        window = [row for row in rows if end - every <= int(row["step"]) < end]
        figures = {"round": float(end)}
        for name in (*HELDOUT, *MEANS):
            values = [float(row[name]) for row in window if row.get(name)] or [float("nan")]
            figures[name] = values[-1] if name in HELDOUT else mean(values)
        found.append(figures)
    return found


if __name__ == "__main__":
    main()
