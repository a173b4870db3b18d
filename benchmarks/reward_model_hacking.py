"""Does the policy hack a reward model, with and without Q? Compares its score with the true one.

python -m benchmarks.reward_model_hacking --out runs/hacking [--seeds 0 1 2] [--rounds 150]
"""

import argparse
import json
from pathlib import Path

from benchmarks.runs import Arm, cell, folder, play_all, summary, window

ARMS: dict[str, Arm] = {
    "with Q": ("tiny_preference", []),
    "with Q, learnability": (
        "tiny_preference",
        ["--model.objective", "lsp_lightning.Learnability"],
    ),
    "without Q": ("tiny_preference_zero", []),
}
METRICS = {
    "reward model": "reward/preference",
    "true score": "reward/true_score",
    "malformed": "queries/true_score/malformed",
    "family entropy": "queries/true_score/family_entropy",
    "answer tokens": "answers/tokens",
}


def main() -> None:
    """Play all runs and print a row for every 25 rounds (``--every``)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/hacking"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=150)
    parser.add_argument("--every", type=int, default=25)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    play_all(args.out, ARMS, args.seeds, args.rounds, args.processes)
    report: dict[str, object] = {"rounds": args.rounds, "seeds": args.seeds}
    print(f"| arm | rounds | {' | '.join(METRICS)} |\n|---|---|{'---|' * len(METRICS)}")
    for arm in ARMS:
        runs = [folder(args.out, arm, seed) for seed in args.seeds]
        rows = []
        for start in range(1, args.rounds + 1, args.every):
            end = start + args.every - 1
            figures = {
                name: [window(run, metric, start, end) for run in runs]
                for name, metric in METRICS.items()
            }
            rows.append({"rounds": f"{start}-{end}", **figures})
            cells = [cell(values) for values in figures.values()]
            print(f"| {arm} | {start}-{end} | {' | '.join(cells)} |")
        heldout = [
            {when: summary(run)[f"heldout_{when}"] for when in ("before", "after")} for run in runs
        ]
        report[arm] = {"rows": rows, "heldout": heldout}
        for name in ("sampled", "greedy"):
            before, after = (cell([h[when][name] for h in heldout]) for when in ("before", "after"))
            print(f"| {arm} | held-out tasks solved, {name} | {before} -> {after} |")
    (args.out / "hacking.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
