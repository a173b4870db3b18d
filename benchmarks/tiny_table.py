"""The README's table of learning on the tiny world: several arms and seeds, the same test tasks.

python -m benchmarks.tiny_table --out runs/table [--seeds 0 1 2] [--rounds 100] [--processes 2]

Each arm runs its preset from the command line; nothing is tuned here. Finished runs are not played
again, so you can interrupt this command and start it again.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.runs import Arm, cell, folder, play_all, queries_met
from lsp_lightning import Challenger, Player, Policy, Sampling, VerifiableReward
from lsp_lightning.evaluation.heldout import score_tasks
from lsp_lightning.functional.evaluation import pass_at_k
from lsp_lightning.game.known_queries import read_queries
from lsp_lightning.tinyworld.verifier import TinyWorldVerifier
from lsp_lightning.training.metrics import info_metrics

WORLD = "pkg:lsp_lightning/tinyworld"
DRAWS, QUERIES = 8, 512
SOLVER = Sampling(max_new_tokens=8)

#: Label of each arm, with its preset and further arguments.
ARMS: dict[str, Arm] = {
    "lr 0": ("tiny_lsp", ["--model.optimizer.init_args.lr", "0.0"]),
    "GRPO with data": ("tiny_grpo", []),
    "LSP-Zero": ("tiny_lsp_zero", []),
    "LSP, paper's form": ("tiny_lsp_paper", []),
    "LSP, recommended": ("tiny_lsp", []),
    "LSP, gate and pool": ("tiny_lsp_long", []),
}


def main() -> None:
    """Play all runs, measure each adapter, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/table"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    arms = {arm: ARMS[arm] for arm in args.arms}
    play_all(args.out, arms, args.seeds, args.rounds, args.processes)
    results: dict[str, Any] = {"base": [measure(None, seed) for seed in args.seeds]}
    for temperature in (0.7, 0.5, 0.3):
        results[f"base, temperature {temperature}"] = [
            measure(None, seed, temperature) for seed in args.seeds
        ]
    for arm in args.arms:
        results[arm] = [measure(folder(args.out, arm, seed), seed) for seed in args.seeds]
    report = {"rounds": args.rounds, "seeds": args.seeds, "arms": results}
    (args.out / "table.json").write_text(json.dumps(report, indent=2) + "\n")
    print(table(results))


def measure(run: Path | None, seed: int, temperature: float = 1.0) -> dict[str, float]:
    """Score one policy on the test tasks, and let it write queries as the Challenger."""
    policy = Policy(f"{WORLD}/base", init_adapter=str(run / "adapter") if run else None)
    player = Player.local(policy)
    tasks = read_queries(f"{WORLD}/data/test.jsonl", "test")
    verifier = TinyWorldVerifier()
    score = score_tasks(
        player,
        tasks,
        VerifiableReward(verifier),
        replace(SOLVER, temperature=temperature),
        "{query}",
        DRAWS,
        seed,
    )
    challenger = Challenger(
        prompt=f"{WORLD}/prompts/challenger.txt", sampling=Sampling(max_new_tokens=28)
    )
    written = challenger.draw(player, QUERIES, 0, seed + 1000).texts
    known = [info for query in written if (info := verifier.describe(query)) is not None]
    met = queries_met(run) if run else set()
    unmet = torch.tensor([task.text not in met for task in tasks])
    return {
        "sampled": float(score.sampled.mean()),
        "sampled, unmet tasks": float(score.sampled[unmet].mean()),
        "tasks met": len(tasks) - int(unmet.sum()),
        "greedy": float(score.greedy.mean()),
        "pass@8": float(pass_at_k(score.sampled, DRAWS).mean()),
        "malformed": 1 - len(known) / len(written),
        **info_metrics("level", [info["level"] for info in known]),
        **info_metrics("family", [info["family"] for info in known]),
    }


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """A Markdown table of means and standard deviations over the seeds."""
    names = list(next(iter(results.values()))[0])
    heads = [name.removeprefix("queries/").replace("_", " ") for name in names]
    lines = [f"| arm | {' | '.join(heads)} |", f"|---|{'---|' * len(names)}"]
    for arm, rows in results.items():
        cells = [cell([row.get(name, float("nan")) for row in rows]) for name in names]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
