"""What keeps a reward model from being hacked? Compares its score with the true one.

python -m benchmarks.reward_model_hacking play --out runs/hacking [--seeds 0 1 2] [--arms ...]
python -m benchmarks.reward_model_hacking table

`play` plays the arms; a run of 150 rounds takes some three minutes of one core. Then it scores the
adapter of every 15th round on the held-out tasks: by the reward model that is paid, by the watch (a
second one, which is not paid), and by the verifier. The rows go to reward_model_hacking.json as
soon as a run has ended, and no finished run is played again. `table` prints the tables.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

import yaml

from benchmarks.reward_model_scores import Board, Row
from benchmarks.runs import Arm, folder, play_all, window
from benchmarks.runs import cell as mean_and_spread
from benchmarks.tiny_long import ROOT, arguments, read_rows, write_rows
from lsp_lightning.runs import RunFolder

RESULT = Path(__file__).with_name("reward_model_hacking.json")
EVERY = 15
CONTROL = "learnability"

_ALL = ["--checkpoint.snapshots", str(EVERY), "--data.heldout", "null"]
_ALL += ["--trainer.val_check_interval", "null"]


def _learnability(
    beta: float = 0.05, paid: float = 1.0, quality: float = 2.0, watch: float = 0.0
) -> Arm:
    """The preset with `Learnability`, and the weights of its rewards; a paid watch is standardised
    as the other reward model is."""
    text = (ROOT / "configs/tiny_preference.yaml").read_text(encoding="utf-8")
    rewards = yaml.safe_load(text)["model"]["rewards"]
    for reward, weight in zip(rewards, (paid, quality, watch, 0.0), strict=True):
        reward["init_args"]["weight"] = weight
    rewards[2]["init_args"]["standardize"] = watch > 0
    given = ["--model.objective", "lsp_lightning.Learnability", "--model.beta", str(beta)]
    return "tiny_preference", [*_ALL, *given, "--model.rewards", json.dumps(rewards)]


#: Label of each arm, with its preset and further arguments.
ARMS: dict[str, Arm] = {
    CONTROL: _learnability(),
    "beta 0.2": _learnability(beta=0.2),
    "beta 0.5": _learnability(beta=0.5),
    "Q 8": _learnability(quality=8.0),
    "mean of two": _learnability(paid=0.5, watch=0.5),
    "mean of two, beta 0.2": _learnability(beta=0.2, paid=0.5, watch=0.5),
    "paper": ("tiny_preference", _ALL),
    "paper without Q": ("tiny_preference_zero", _ALL),
}
#: The arms for which stopping early is compared.
STOPPED = (CONTROL, "beta 0.2", "paper")
#: Figures of the queries that the Challenger wrote, means over the rounds since the row before.
METRICS = {
    "paid score": "reward/preference",
    "watch score": "reward/watch",
    "true score": "reward/true_score",
    "malformed": "queries/true_score/malformed",
    "family entropy": "queries/true_score/family_entropy",
    "answer tokens": "answers/tokens",
    "KL": "kl/solver",
}
#: Which held-out figure of the dev tasks decides the round whose adapter is kept.
RULES = {
    "best for the paid model": "dev, sampled, paid wins",
    "best for the watch": "dev, sampled, watch wins",
    "best in truth": "dev, sampled, true",
}
_QUERIES = ("malformed", "family entropy", "KL")
_TRUE = ("test, sampled, true", "test, greedy, true")
_WINS = ("test, sampled, paid wins", "test, sampled, watch wins")


def main() -> None:
    """Run one command."""
    args = arguments(__doc__, ARMS, Path("runs/hacking"), 150, play, table)
    args.run(args)


def play(args: argparse.Namespace) -> None:
    """Play the arms, score their adapters, and keep the rows of all that have ended."""
    boards: dict[int, Board] = {}
    for seed in args.seeds:
        for start in range(0, len(args.arms), args.processes):
            some = args.arms[start : start + args.processes]
            arms = {arm: ARMS[arm] for arm in some}
            play_all(args.out, arms, [seed], args.rounds, args.processes)
            for arm in some:
                if f"{arm}-{seed}" not in read_rows(RESULT):
                    board = boards.setdefault(seed, Board(seed))
                    rows = run_rows(board, folder(args.out, arm, seed), args.rounds)
                    write_rows(RESULT, {**read_rows(RESULT), f"{arm}-{seed}": rows})
    table(args)


def run_rows(board: Board, run: Path, rounds: int, every: int = EVERY) -> list[Row]:
    """The base (round 0), and a row for every ``every`` rounds: means since the row before, and
    the held-out scores of the adapter."""
    rows: list[Row] = [{"round": 0, **board.row(None)}]
    for end in range(every, rounds + 1, every):
        figures = {
            name: round(window(run, metric, end - every + 1, end), 4)
            for name, metric in METRICS.items()
        }
        rows.append({"round": end, **figures, **board.row(RunFolder(run).snapshot_path(end))})
    return rows


def kept(rows: Sequence[Row], figure: str) -> Row:
    """The row whose adapter is kept: the first with the highest figure."""
    return max(rows, key=lambda row: row[figure])


def runs_of(rows: Mapping[str, list[Row]]) -> dict[str, dict[int, list[Row]]]:
    """The runs by arm and seed, in the order of the arms."""
    found: dict[str, dict[int, list[Row]]] = {arm: {} for arm in ARMS}
    for name, run in rows.items():
        arm, seed = name.rsplit("-", 1)
        found[arm][int(seed)] = run
    return {arm: dict(sorted(runs.items())) for arm, runs in found.items() if runs}


def table(args: argparse.Namespace) -> None:
    """Print the tables."""
    rows = read_rows(RESULT)
    for lines in (course_lines(rows), outcome_lines(rows)):
        print("\n".join(lines), end="\n\n")


def course_lines(rows: Mapping[str, list[Row]]) -> list[str]:
    """A Markdown table: means over the seeds at a fifth, three fifths and the end of the runs."""
    arms = runs_of(rows)
    base = [run[0] for run in arms[CONTROL].values()]
    cells = [f"{mean(row[name] for row in base):.2f}" for name in (*_WINS, *_TRUE)]
    lines = [
        "| arm | seeds | malformed | entropy | KL | paid wins | watch wins | sampled | greedy |",
        "|---|---|---|---|---|---|---|---|---|",
        f"| base | {len(base)} | | | | {' | '.join(cells)} |",
    ]
    for arm, runs in arms.items():
        cells = [_course(list(runs.values()), name) for name in (*_QUERIES, *_WINS, *_TRUE)]
        lines.append(f"| {arm} | {len(runs)} | {' | '.join(cells)} |")
    return lines


def _course(runs: Sequence[Sequence[Row]], name: str) -> str:
    last = len(runs[0]) - 1
    return ", ".join(
        f"{mean(run[last * fifths // 5][name] for run in runs):.2f}" for fifths in (1, 3, 5)
    )


def outcome_lines(rows: Mapping[str, list[Row]]) -> list[str]:
    """A Markdown table: the true scores on the test tasks of the adapters that are kept, and the
    differences to the control's last round, the mean and every seed."""
    arms = runs_of(rows)
    control = {seed: run[-1] for seed, run in arms[CONTROL].items()}
    lines = [
        "| arm | kept adapter | rounds | sampled | - control | greedy | - control |",
        "|---|---|---|---|---|---|---|",
        _outcome("base | -", {seed: run[0] for seed, run in arms[CONTROL].items()}, control),
    ]
    for arm, runs in arms.items():
        last = {seed: run[-1] for seed, run in runs.items()}
        lines.append(_outcome(f"{arm} | last round", last, {} if arm == CONTROL else control))
        for rule, figure in RULES.items() if arm in STOPPED else ():
            chosen = {seed: kept(run, figure) for seed, run in runs.items()}
            lines.append(_outcome(f"{arm} | {rule}", chosen, control))
    return lines


def _outcome(label: str, chosen: Mapping[int, Row], control: Mapping[int, Row]) -> str:
    """A line about the rows that are kept, by seed."""
    cells = [", ".join(f"{row['round']:.0f}" for row in chosen.values())]
    for name in _TRUE:
        values = [row[name] for row in chosen.values()]
        cells.append(mean_and_spread(values) if len(values) > 1 else f"{values[0]:.3f}")
        gains = [row[name] - control[seed][name] for seed, row in chosen.items() if seed in control]
        each = ", ".join(f"{gain:+.3f}" for gain in gains)
        cells.append(f"{mean(gains):+.3f} ({each})" if len(gains) > 1 else each or "-")
    return f"| {label} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
