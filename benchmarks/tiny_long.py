"""Long runs on the tiny world, with and without a gate and a pool: does the game stay in shape?

python -m benchmarks.tiny_long play --out runs/long [--seeds 0 1 2] [--rounds 1000] [--arms ...]
python -m benchmarks.tiny_long table

`play` plays the arms, two at a time; a run of 1,000 rounds takes some ten minutes of one core. It
writes the figures of every 100 rounds to tiny_long.json as soon as a run has ended, and plays no
finished run again. `table` prints them.
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

from benchmarks.runs import Arm, cell, folder, play_all
from lsp_lightning.runs import RunFolder
from lsp_lightning.runs.transcripts import by_query
from lsp_lightning.runs.writing import write_text

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).with_name("tiny_long.json")
EVERY = 100
#: A family counts if it makes up this share of the well-formed queries.
LEAST_SHARE = 0.05

_PRESET = yaml.safe_load((ROOT / "configs/tiny_lsp.yaml").read_text(encoding="utf-8"))
GATE = ["--data.gate", json.dumps(_PRESET["data"]["gate"])]
_POOL = ["--data.pool", json.dumps(_PRESET["data"]["pool"])]
#: The recommended preset with a stronger KL term and no penalty: what the arms change.
EARLIER = [
    *("--model.alpha_ch", "0.2"),
    *("--model.beta", "0.05"),
    *("--model.objective.init_args.penalty", "0"),
]
#: The same without a gate and a pool.
PLAIN = [*EARLIER, "--data.gate", "null", "--data.pool", "null"]
_ADDED = {"": [], ", gate": GATE, ", pool": _POOL, ", gate and pool": [*GATE, *_POOL]}
_NO_REST = ["--data.pool.rest", "0"]
#: The pool as it was at first.
_NARROW = [*_NO_REST, "--data.pool.solve_rate", "[0.25, 0.75]"]
_TRIED = {", gate and pool without rest": _NO_REST, ", gate and narrow pool": _NARROW}
_CHECKS = [*GATE, "--data.gate.solve_rate", "null"]
_RANGE = ["--data.gate.solve_rate", "[0.1, 0.9]"]
_UNSURE = ["--model.objective.uncertainty", "0.5"]
_NOVELTY = {"class_path": "lsp_lightning.NoveltyReward", "init_args": {"weight": 0.1}}
_R, _Q = _PRESET["model"]["rewards"]
_HALF_Q = [_R, {**_Q, "init_args": {**_Q["init_args"], "weight": 0.5}}]
#: What could be changed in the game with a gate and a pool, one at a time.
_CHANGES = {
    "alpha_ch 0.5": ["--model.alpha_ch", "0.5"],
    "alpha_ch 1": ["--model.alpha_ch", "1"],
    "beta 0.02": ["--model.beta", "0.02"],
    "beta 0.2": ["--model.beta", "0.2"],
    "Q 0.5": ["--model.rewards", json.dumps(_HALF_Q)],
    "gate to 0.8": ["--data.gate.solve_rate", "[0.1, 0.8]"],
    "band": ["--model.objective", "lsp_lightning.Band"],
    "frontier": ["--model.objective", "lsp_lightning.Frontier"],
    "penalty 0.7": ["--model.objective.penalty", "0.7"],
    "penalty 0.7, beta 0.03": ["--model.objective.penalty", "0.7", "--model.beta", "0.03"],
    "novelty": ["--model.rewards+", json.dumps(_NOVELTY)],
    "past": ["--data.past", "{share: 0.25, age: 50}"],
}
_PRESETS: dict[str, Arm] = {"paper": ("tiny_lsp_paper", []), "learnability": ("tiny_lsp", PLAIN)}
#: Label of each arm, with its preset and further arguments.
ARMS: dict[str, Arm] = (
    {
        f"{name}{added}": (preset, [*plain, *extra])
        for name, (preset, plain) in _PRESETS.items()
        for added, extra in _ADDED.items()
    }
    | {
        f"{name}{tried}": (preset, [*plain, *GATE, *_POOL, *extra])
        for name, (preset, plain) in _PRESETS.items()
        for tried, extra in _TRIED.items()
    }
    | {
        "paper, checks alone": ("tiny_lsp_paper", _CHECKS),
        "paper, range alone": ("tiny_lsp_paper", _RANGE),
        "learnability and uncertainty": ("tiny_lsp", [*PLAIN, *_UNSURE]),
        "learnability and uncertainty, gate and pool": (
            "tiny_lsp",
            [*PLAIN, *_UNSURE, *GATE, *_POOL, "--data.gate.solve_rate", "[0.1, 1.0]"],
        ),
    }
    | {f"long, {change}": ("tiny_lsp", [*EARLIER, *extra]) for change, extra in _CHANGES.items()}
)

Figures = dict[str, float]


#: What a command of a benchmark does.
Command = Callable[[argparse.Namespace], None]


def main() -> None:
    """Run one command."""
    args = arguments(__doc__, ARMS, Path("runs/long"), 1000, play, table)
    args.run(args)


def arguments(
    description: str | None,
    arms: Iterable[str],
    out: Path,
    rounds: int,
    play: Command,
    table: Command,
) -> argparse.Namespace:
    """The parsed command line of a benchmark with the commands ``play`` and ``table``.

    Args:
        description: what its help says.
        arms: the names of all arms.
        out: the default folder of the runs.
        rounds: the default number of rounds of a run.
        play: plays arms.
        table: prints their figures.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("play")
    command.add_argument("--out", type=Path, default=out)
    command.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    command.add_argument("--rounds", type=int, default=rounds)
    command.add_argument("--processes", type=int, default=2)
    command.add_argument("--arms", nargs="+", default=list(arms), choices=list(arms))
    command.set_defaults(run=play)
    commands.add_parser("table").set_defaults(run=table)
    return parser.parse_args()


def play(args: argparse.Namespace) -> None:
    """Play the arms, and keep the figures of all that have ended."""
    for seed in args.seeds:
        for arm in args.arms:
            if (folder(args.out, arm, seed) / "summary.json").is_file():
                _keep(arm, seed, folder(args.out, arm, seed))
    for seed in args.seeds:
        for start in range(0, len(args.arms), args.processes):
            some = args.arms[start : start + args.processes]
            play_all(
                args.out, {arm: ARMS[arm] for arm in some}, [seed], args.rounds, args.processes
            )
            for arm in some:
                _keep(arm, seed, folder(args.out, arm, seed))
    table(args)


def _keep(arm: str, seed: int, run: Path) -> None:
    """Write the figures of a run into the result file."""
    write_rows(RESULT, {**read_rows(RESULT), f"{arm}-{seed}": windows(run)})


def write_rows(path: Path, rows: Mapping[str, Sequence[Figures]]) -> None:
    """Write the figures of runs, by their names."""
    lines = ",\n".join(
        f"{json.dumps(name)}: [\n"
        + ",\n".join(f"  {json.dumps(figures)}" for figures in found)
        + "\n]"
        for name, found in sorted(rows.items())
    )
    write_text(path, f"{{\n{lines}\n}}\n")


def read_rows(path: Path) -> dict[str, list[Figures]]:
    """The figures of runs that were written before; none without a file."""
    found: dict[str, list[Figures]] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def windows(run: Path, every: int = EVERY) -> list[Figures]:
    """The figures of every 100 (``every``) rounds of a run, each the mean over these rounds.

    Malformed, families, level and distinct are of the queries that the Challenger wrote, not of
    those that the pool played again; malformed also counts those that the gate refused.
    """
    found = RunFolder(run)
    metrics = found.metrics()
    queries = _written(found.transcripts())
    last = int(max(row["step"] for row in metrics)) + 1
    return [
        _figures(
            end,
            [row for row in metrics if end - every <= row["step"] < end],
            [row for row in queries if end - every <= row["round"] < end],
        )
        for end in range(every, last + 1, every)
    ]


def _written(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """A row for each query that the Challenger wrote, also for those that the gate refused."""
    first = (group[0] for group in by_query(rows))
    return [row for row in first if not (row.get("replayed") or row.get("past"))]


def _figures(
    end: int, metrics: Sequence[Mapping[str, float]], queries: Sequence[Mapping[str, Any]]
) -> Figures:
    name = "query/verifiable"
    played = [row for row in queries if not row.get("refused")]
    known = [row for row in played if not row[f"{name}/malformed"]]
    bad = [row for row in queries if row.get("refused") == "malformed"]
    bad += [row for row in played if row[f"{name}/malformed"]]
    shares = [count / len(known) for count in Counter(r[f"{name}/family"] for r in known).values()]

    def average(metric: str, default: float = float("nan")) -> float:
        values = [row[metric] for row in metrics if metric in row]
        return mean(values) if values else default

    return {
        "round": end,
        "sampled": round(average("heldout/sampled"), 4),
        "greedy": round(average("heldout/greedy"), 4),
        "malformed": round(len(bad) / max(1, len(queries)), 4),
        "families": sum(share > LEAST_SHARE for share in shares),
        "largest family": round(max(shares, default=0.0), 4),
        "level": round(mean([row[f"{name}/level"] for row in known] or [0.0]), 3),
        "distinct": round(len({row["query"] for row in played}) / max(1, len(played)), 4),
        "solve rate": round(average("value"), 4),
        "drawn": round(average("gate/drawn", 16.0), 2),
        "seconds": round(sum(average(f"seconds/{p}", 0.0) for p in _PHASES), 3),
    }


_PHASES = ("queries", "answers", "rewards", "update")
#: The hundreds of rounds whose scores the table shows, by their last round; the columns after them
#: are about the last one.
_ENDS = (100, 300, 500, 1000)
_SHARES = ("malformed", "largest family", "level", "solve rate")


def table(args: argparse.Namespace) -> None:
    """Print the tables."""
    rows = read_rows(RESULT)
    print("\n".join([*table_lines(rows), "", *wide_lines(rows)]))


def table_lines(rows: Mapping[str, Sequence[Figures]]) -> list[str]:
    """A Markdown table with a row for each arm: means over the seeds."""
    scores = [f"sampled, {end - EVERY + 1}-{end}" for end in _ENDS]
    columns = ["arm", "seeds", *scores, *_SHARES, "families", "fewest", "drawn"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for arm in ARMS:
        runs = [found for name, found in rows.items() if arm_of(name) == arm]
        if runs:
            lines.append(f"| {arm} | {len(runs)} | {' | '.join(_cells(runs))} |")
    return lines


#: Seeds by which settings were chosen; others confirm the choice.
_CHOOSING = ("0", "1", "2")
#: What a game that stays wide fulfils in its last hundred rounds: the held-out score is at most so
#: far below that of its best hundred, fewer queries are malformed, at least so many families make
#: up 5 % each, and the level is at least that of the base's queries and half a step.
_BELOW_BEST, _MALFORMED, _FAMILIES, _LEVEL = 0.02, 0.1, 4, 1.523 + 0.5


def wide_lines(rows: Mapping[str, Sequence[Figures]]) -> list[str]:
    """A Markdown table: which changes of the game with a gate and a pool keep it wide."""
    columns = ["changed", "seeds", "sampled, 901-1000", "below its best hundred", "malformed"]
    columns += ["families", "level", "all four", "runs with all four"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    arms = {"nothing": "learnability, gate and pool", **{c: f"long, {c}" for c in _CHANGES}}
    for change, arm in arms.items():
        found = {name.rpartition("-")[2]: run for name, run in rows.items() if arm_of(name) == arm}
        for seeds in (_CHOOSING, sorted(set(found) - set(_CHOOSING))):
            runs = [found[seed] for seed in seeds if seed in found]
            tried = [_wide(run) for run in runs if run[-1]["round"] == _ENDS[-1]]
            if tried:
                label = change if seeds is _CHOOSING else f"{change}, fresh seeds"
                lines.append(f"| {label} | {len(tried)} | {' | '.join(_wide_cells(tried))} |")
    return lines


def arm_of(run: str) -> str:
    """The arm of a run, which has the seed behind it."""
    return run.rpartition("-")[0]


def _wide(run: Sequence[Figures]) -> Figures:
    """The last hundred rounds of a run, with how far the score is below that of its best ones."""
    last = run[-1]
    return {**last, "below": max(row["sampled"] for row in run) - last["sampled"]}


def _wide_cells(runs: Sequence[Figures]) -> list[str]:
    names = ("sampled", "below", "malformed", "families", "level")
    average = {name: mean(run[name] for run in runs) for name in names}
    return [
        cell([run["sampled"] for run in runs]),
        cell([run["below"] for run in runs]),
        f"{average['malformed']:.3f}",
        f"{average['families']:.1f}",
        f"{average['level']:.2f}",
        "yes" if _is_wide(average) else "no",
        str(sum(_is_wide(run) for run in runs)),
    ]


def _is_wide(last: Figures) -> bool:
    return (
        last["below"] <= _BELOW_BEST
        and last["malformed"] < _MALFORMED
        and last["families"] >= _FAMILIES
        and last["level"] >= _LEVEL
    )


def _cells(runs: Sequence[Sequence[Figures]]) -> list[str]:
    """The figures of an arm, from those of its runs."""

    def at(end: int, name: str) -> list[float]:
        return [row[name] for run in runs for row in run if row["round"] == end]

    last = _ENDS[-1]
    scores = [at(end, "sampled") for end in _ENDS]
    fewest = min(row["families"] for run in runs for row in run)
    return [
        *map(cell, scores),
        *(f"{mean(at(last, name)):.2f}" for name in _SHARES),
        f"{mean(at(last, 'families')):.1f}",
        f"{fewest:.0f}",
        f"{mean(at(last, 'drawn')):.1f}",
    ]


if __name__ == "__main__":
    main()
