"""What brings a game back in which every answer is right?

python -m benchmarks.way_back play --out runs/way_back [--seeds 0 1 2] [--processes 2]
python -m benchmarks.way_back table

Each seed is first led into a dead end: 200 rounds in which the Challenger is paid for sums of two
digits (solved_start.yaml). From there every arm plays 150 rounds of the usual game, with the base
as its reference. `play` takes some 25 minutes of one core and writes the figures of every 25 rounds
to way_back.json; `table` prints them.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.runs import Arm, folder, play_all
from benchmarks.tiny_long import (
    EARLIER,
    GATE,
    PLAIN,
    Figures,
    arguments,
    read_rows,
    windows,
    write_rows,
)

RESULT = Path(__file__).with_name("way_back.json")
EVERY, ROUNDS, START_ROUNDS = 25, 150, 200
#: A run goes on from its start with another seed: this one more.
SHIFT = 10
START: Arm = ("tiny_lsp", [*PLAIN, "--config", "benchmarks/solved_start.yaml"])
#: Label of each arm, with its preset and further arguments.
ARMS: dict[str, Arm] = {
    "learnability": ("tiny_lsp", PLAIN),
    "uncertainty 0.5": ("tiny_lsp", [*PLAIN, "--model.objective.uncertainty", "0.5"]),
    "uncertainty 1": ("tiny_lsp", [*PLAIN, "--model.objective.uncertainty", "1.0"]),
    "gate": ("tiny_lsp", [*PLAIN, *GATE]),
    "gate and pool": ("tiny_lsp", EARLIER),
}


def main() -> None:
    """Run one command."""
    args = arguments(__doc__, ARMS, Path("runs/way_back"), ROUNDS, play, table)
    args.run(args)


def play(args: argparse.Namespace) -> None:
    """Play the starts and the arms, and write the figures."""
    play_all(args.out, {"start": START}, args.seeds, START_ROUNDS, args.processes)
    for seed in args.seeds:
        adapter = str(folder(args.out, "start", seed) / "adapter")
        fixed = ["--model.init_adapter", adapter, "--model.reference", "base"]
        arms: dict[str, Arm] = {arm: (ARMS[arm][0], [*ARMS[arm][1], *fixed]) for arm in args.arms}
        play_all(args.out, arms, [seed + SHIFT], args.rounds, args.processes)
        runs = {f"{arm}-{seed}": folder(args.out, arm, seed + SHIFT) for arm in args.arms}
        found = {name: windows(run, EVERY) for name, run in runs.items()}
        write_rows(RESULT, {**read_rows(RESULT), **found})
    table(args)


def table(args: argparse.Namespace) -> None:
    """Print the table."""
    print("\n".join(table_lines(read_rows(RESULT))))


def table_lines(rows: Mapping[str, Sequence[Figures]]) -> list[str]:
    """A Markdown table: figures of each arm over the rounds, a value for each seed."""
    ends = range(EVERY, ROUNDS + 1, EVERY)
    lines = [f"| arm | figure | {' | '.join(f'{end - EVERY + 1}-{end}' for end in ends)} |"]
    lines.append(f"|---|---|{'---|' * len(ends)}")
    for arm in ARMS:
        runs = [rows[name] for name in sorted(rows) if name.rpartition("-")[0] == arm]
        for figure, digits in (("solve rate", 2), ("level", 1), ("sampled", 2)) if runs else ():
            cells = [
                " ".join(f"{run[k][figure]:.{digits}f}" for run in runs) for k in range(len(ends))
            ]
            lines.append(f"| {arm} | {figure} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
