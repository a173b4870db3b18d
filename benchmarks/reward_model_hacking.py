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

from benchmarks.reward_model_scores import MODELS, Board, Row
from benchmarks.runs import Arm, folder, play_all, window
from benchmarks.runs import cell as mean_and_spread
from benchmarks.tiny_long import arguments, read_rows, write_rows
from benchmarks.two_reward_models import adapter_after

RESULT = Path(__file__).with_name("reward_model_hacking.json")
EVERY = 15
#: Seeds of an arm that is confirmed.
MAIN = 3
CONTROL = "learnability"

_KEEP = {
    "class_path": "benchmarks.two_reward_models.KeepAdapters",
    "init_args": {"every": EVERY},
}
_ALL = ["--trainer.callbacks", json.dumps(_KEEP), "--data.heldout", "null"]
_ALL += ["--trainer.val_check_interval", "null"]
_LEARNABILITY = ["--model.objective", "lsp_lightning.Learnability", *_ALL]


def _rewards(*task: Mapping[str, object], quality: float = 2.0) -> list[str]:
    """The argument for the preset's rewards with these task rewards and this weight of Q."""
    judge = {
        "name": "self_reward",
        "weight": quality,
        "prompt": "pkg:lsp_lightning/tinyworld/prompts/judge.txt",
    }
    truth = {
        "name": "true_score",
        "weight": 0.0,
        "verifier": "lsp_lightning.tinyworld.verifier.TinyWorldVerifier",
    }
    rewards = [
        *task,
        {"class_path": "lsp_lightning.SelfReward", "init_args": judge},
        {"class_path": "lsp_lightning.VerifiableReward", "init_args": truth},
    ]
    return ["--model.rewards", json.dumps(rewards)]


def _model(which: str, name: str, weight: float, standardize: bool = True) -> dict[str, object]:
    settings = {"model": MODELS[which], "name": name, "weight": weight, "standardize": standardize}
    return {"class_path": "lsp_lightning.PreferenceReward", "init_args": settings}


_PAID = _model("paid", "preference", 1.0)
_WATCH = _model("watch", "watch", 0.0, standardize=False)
_MEAN = (_model("paid", "preference", 0.5), _model("watch", "watch", 0.5))
_MINIMUM = {
    "class_path": "benchmarks.two_reward_models.MinimumReward",
    "init_args": {"models": list(MODELS.values())},
}
#: Both reward models, logged beside their minimum.
_LOGGED = (_model("paid", "preference", 0.0, standardize=False), _WATCH)


def _beta(beta: float) -> list[str]:
    return ["--model.beta", str(beta)]


#: Label of each arm, with its preset and further arguments.
ARMS: dict[str, Arm] = {
    CONTROL: ("tiny_preference", _LEARNABILITY),
    "paper": ("tiny_preference", _ALL),
    "paper without Q": ("tiny_preference_zero", _ALL),
    "beta 0.2": ("tiny_preference", [*_LEARNABILITY, *_beta(0.2)]),
    "beta 0.5": ("tiny_preference", [*_LEARNABILITY, *_beta(0.5)]),
    "Q 4": ("tiny_preference", [*_LEARNABILITY, *_rewards(_PAID, _WATCH, quality=4.0)]),
    "Q 8": ("tiny_preference", [*_LEARNABILITY, *_rewards(_PAID, _WATCH, quality=8.0)]),
    "mean of two": ("tiny_preference", [*_LEARNABILITY, *_rewards(*_MEAN)]),
    "minimum of two": ("tiny_preference", [*_LEARNABILITY, *_rewards(_MINIMUM, *_LOGGED)]),
    "mean of two, beta 0.2": (
        "tiny_preference",
        [*_LEARNABILITY, *_rewards(*_MEAN), *_beta(0.2)],
    ),
}
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
#: Which held-out figure of the dev tasks decides the round whose adapter is kept; None: the last.
RULES: dict[str, str | None] = {
    "last round": None,
    "best for the paid model": "dev, sampled, paid wins",
    "best for the watch": "dev, sampled, watch wins",
    "best for the watch, greedy": "dev, greedy, watch wins",
    "best in truth": "dev, sampled, true",
}


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
        rows.append({"round": end, **figures, **board.row(adapter_after(run, end))})
    return rows


def kept(rows: Sequence[Row], rule: str | None) -> Row:
    """The row whose adapter a rule keeps: the first with the highest figure; None: the last."""
    return rows[-1] if rule is None else max(rows, key=lambda row: row[rule])


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
    for lines in (during_lines(rows), stopping_lines(rows)):
        print("\n".join(lines), end="\n\n")


def during_lines(rows: Mapping[str, list[Row]]) -> list[str]:
    """A Markdown table: what an arm's reward models and the truth say about its queries and at its
    end about the test tasks."""
    heads = ["arm", "seeds", "paid", "watch", "true", "malformed", "KL"]
    heads += ["paid wins", "watch wins", "sampled", "- control", "greedy", "- control"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    arms = runs_of(rows)
    control = arms.get(CONTROL, {})
    if control:
        base = [[run[0]] for run in control.values()]
        ends = [cell for name in _AT_THE_END for cell in _end(base, name)]
        lines.append(f"| base | {len(base)} | | | | | | {' | '.join(ends)} |")
    for arm, runs in arms.items():
        played = list(runs.values())
        cells = [_course(played, name) for name in ("paid score", "watch score", "true score")]
        cells += [_course(played, "malformed"), cell([run[-1]["KL"] for run in played])]
        for name in _AT_THE_END:
            compared = [] if arm == CONTROL else differences(runs, control, name)
            cells += _end(played, name, compared)
        lines.append(f"| {arm} | {len(runs)} | {' | '.join(cells)} |")
    return lines


_WINS = ("test, sampled, paid wins", "test, sampled, watch wins")
_TRUE = ("test, sampled, true", "test, greedy, true")
_AT_THE_END = (*_WINS, *_TRUE)


def differences(
    runs: Mapping[int, Sequence[Row]], control: Mapping[int, Sequence[Row]], name: str
) -> list[float]:
    """The differences to the control in the last row, one for each seed that both have."""
    return [runs[seed][-1][name] - control[seed][-1][name] for seed in runs if seed in control]


def _end(runs: Sequence[Sequence[Row]], name: str, compared: Sequence[float] = ()) -> list[str]:
    """The cells of a figure in the last row; true scores have one for the differences, too."""
    found = [cell([run[-1][name] for run in runs])]
    return [*found, _signed(compared) or "-"] if name in _TRUE else found


def cell(values: Sequence[float]) -> str:
    """Mean and standard deviation over the seeds; the figure alone if there is one seed."""
    return mean_and_spread(values) if len(values) > 1 else f"{values[0]:.3f}"


def _signed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:+.3f}" for value in values)


def _course(runs: Sequence[Sequence[Row]], name: str) -> str:
    """Means over the seeds of the first, the middle and the last window."""
    chosen = (1, len(runs[0]) // 2, len(runs[0]) - 1)
    return ", ".join(f"{mean(run[i][name] for run in runs):.2f}" for i in chosen)


def stopping_lines(rows: Mapping[str, list[Row]]) -> list[str]:
    """A Markdown table: the adapter that each rule keeps, and its true scores of the test tasks.

    Arms that were only tried, with fewer than ``MAIN`` seeds, are left out.
    """
    lines = [
        "| arm | seeds | kept adapter | rounds | sampled | - last | greedy | - last |",
        "|---|---|---|---|---|---|---|---|",
    ]
    confirmed = {arm: runs for arm, runs in runs_of(rows).items() if len(runs) >= MAIN}
    for arm, runs in confirmed.items():
        for rule, figure in RULES.items():
            chosen = [kept(run, figure) for run in runs.values()]
            cells = [", ".join(str(row["round"]) for row in chosen)]
            for way in ("sampled", "greedy"):
                name = f"test, {way}, true"
                gains = [
                    row[name] - run[-1][name]
                    for row, run in zip(chosen, runs.values(), strict=True)
                ]
                cells.append(cell([row[name] for row in chosen]))
                cells.append("-" if figure is None else _signed(gains))
            lines.append(f"| {arm} | {len(runs)} | {rule} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
