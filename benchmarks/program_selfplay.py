"""Does self-play on program output raise the score on held-out programs? Four arms, several seeds.

python -m benchmarks.program_selfplay --out runs/programs [--seeds 0 1 2] [--rounds 100]

The right answer is what the sandbox prints; no programs or solutions are given. Controls are the
same game with learning rate 0, and with random rewards in place of the verifier's, once with the
quality score Q (which also prefers right answers) and once without.
"""

import argparse
import json
from pathlib import Path

import torch

from benchmarks.runs import Arm, cell, folder, play_all, queries_met, window
from lsp_lightning import Player, Policy, ProgramOutputVerifier, Sampling, VerifiableReward
from lsp_lightning.evaluation.heldout import score_tasks
from lsp_lightning.game.known_queries import read_queries

WORLD = "pkg:lsp_lightning/tinyworld"
DRAWS = 8

ARMS: dict[str, Arm] = {
    "program output": ("tiny_programs", []),
    "lr 0": ("tiny_programs", ["--model.optimizer.init_args.lr", "0.0"]),
    "random rewards": ("tiny_programs", ["--config", "benchmarks/random_rewards.yaml"]),
    "random rewards without Q": (
        "tiny_programs",
        ["--config", "benchmarks/random_rewards_without_q.yaml"],
    ),
}


def main() -> None:
    """Play all runs, score each on the test programs, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/programs"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    play_all(args.out, ARMS, args.seeds, args.rounds, args.processes)
    results = {"base": [measure(None, seed, args.rounds) for seed in args.seeds]}
    for arm in ARMS:
        runs = [(folder(args.out, arm, seed), seed) for seed in args.seeds]
        results[arm] = [measure(run, seed, args.rounds) for run, seed in runs]
    report = {"rounds": args.rounds, "seeds": args.seeds, "arms": results}
    (args.out / "programs.json").write_text(json.dumps(report, indent=2) + "\n")
    names = list(results["program output"][0])
    print(f"| arm | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for arm, rows in results.items():
        cells = [cell([row[name] for row in rows]) for name in names if name in rows[0]]
        print(f"| {arm} | {' | '.join(cells)} |")


def measure(run: Path | None, seed: int, rounds: int) -> dict[str, float]:
    """Scores of one policy on the test programs, and what its Challenger wrote."""
    policy = Policy(f"{WORLD}/base", init_adapter=str(run / "adapter") if run else None)
    tasks = read_queries(f"{WORLD}/data/programs_test.jsonl", "test")
    score = score_tasks(
        Player.local(policy),
        tasks,
        VerifiableReward(ProgramOutputVerifier()),
        Sampling(max_new_tokens=8),
        "{query}",
        DRAWS,
        seed,
    )
    met = queries_met(run) if run else set()
    unmet = torch.tensor([task.text not in met for task in tasks])
    figures = {
        "sampled": float(score.sampled.mean()),
        "sampled, unmet programs": float(score.sampled[unmet].mean()),
        "greedy": float(score.greedy.mean()),
    }
    if run is None:
        return figures
    last = (max(1, rounds - 24), rounds)
    return figures | {
        "not a program, first 10 rounds": window(run, "queries/verifiable/malformed", 1, 10),
        "last 25": window(run, "queries/verifiable/malformed", *last),
        "statements, last 25": window(run, "queries/verifiable/statements", *last),
        "duplicates, last 25": window(run, "queries/duplicate", *last),
    }


if __name__ == "__main__":
    main()
