"""What a gate costs: the time of a round when it accepts 90, 50 or 20 % of the queries.

python -m benchmarks.gate_cost --out runs/gate_cost [--preset laptop_smollm2_135m] [--rounds 4]

Each run plays the preset with learning rate 0 and a gate that accepts queries at random, so that
only the share differs. The first round warms up and is not counted. With `--redraws` refused
queries are drawn again so often.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from benchmarks.runs import Arm, folder, play_all
from lsp_lightning import QueryCheck
from lsp_lightning.runs import RunFolder
from lsp_lightning.seeding import derive_seed

PHASES = ("queries", "answers", "rewards", "update")


class Chance(QueryCheck):
    """Accepts a share of all queries, the same ones each time.

    Args:
        share: the share.
    """

    def __init__(self, share: float) -> None:
        self._share = share

    def accepts(self, queries: Sequence[str], taken: Sequence[str]) -> list[bool]:
        """Whether a number that follows from the query is below the share."""
        return [derive_seed(0, query) / 2**63 < self._share for query in queries]


def main() -> None:
    """Play the runs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/gate_cost"))
    parser.add_argument("--preset", default="laptop_smollm2_135m")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--redraws", type=int, default=3)
    args = parser.parse_args()
    arms: dict[str, Arm] = {"no gate": (args.preset, _fixed())}
    for share in (0.9, 0.5, 0.2):
        check = {"class_path": "benchmarks.gate_cost.Chance", "init_args": {"share": share}}
        gate = json.dumps({"redraws": args.redraws, "checks": [check]})
        arms[f"{share:.0%} pass"] = (args.preset, [*_fixed(), "--data.gate", gate])
    play_all(args.out, arms, [0], args.rounds, processes=1)
    print(f"| gate | drawn | played | seconds | of no gate | {' | '.join(PHASES)} |")
    print(f"|---|---|---|---|---|{'---|' * len(PHASES)}")
    usual = None
    for arm in arms:
        figures = _figures(folder(args.out, arm, 0))
        usual = usual or figures["seconds"]
        cells = [f"{figures[name]:.1f}" for name in ("drawn", "played", "seconds")]
        cells += [f"x{figures['seconds'] / usual:.2f}", *(f"{figures[p]:.1f}" for p in PHASES)]
        print(f"| {arm} | {' | '.join(cells)} |")


def _fixed() -> list[str]:
    return ["--model.optimizer.init_args.lr", "0.0", "--data.heldout", "null"]


def _figures(run: Path) -> dict[str, float]:
    rows = [row for row in RunFolder(run).metrics() if "seconds/update" in row][1:]
    found = {phase: mean(row[f"seconds/{phase}"] for row in rows) for phase in PHASES}
    found["seconds"] = sum(found.values())
    queries = len({row["number"] for row in RunFolder(run).transcripts() if row["round"] == 1})
    for name in ("drawn", "played"):
        found[name] = mean(row.get(f"gate/{name}", queries) for row in rows)
    return found


if __name__ == "__main__":
    main()
