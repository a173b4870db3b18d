"""Which runs does the watch on collapse warn of, and when?

python -m benchmarks.collapse_watch play --out runs/collapse_watch [--seeds 0 1 2] [--processes 2]
python -m benchmarks.collapse_watch replay runs/collapse_watch/* runs/long/* runs/laptop/*
python -m benchmarks.collapse_watch table
python -m benchmarks.collapse_watch symptoms

`play` plays 100 rounds of the presets of the tiny world. The benchmarks tiny_long, way_back and
laptop play longer games and SmolLM2. `replay` gives the metrics of finished runs to the code of the
callback, round by round, and writes what it finds to collapse_watch.json. Metrics that a run has
not logged are computed from its transcripts. `table` prints the warnings, also those of a run whose
verifier does not tell which queries are malformed. `symptoms` prints the limits of each symptom.
"""

import argparse
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.runs import Arm, play_all
from benchmarks.tiny_long import PLAIN
from lsp_lightning.diagnosis import SYMPTOMS, Finding, Windows
from lsp_lightning.errors import ConfigError
from lsp_lightning.runs import RunFolder
from lsp_lightning.runs.transcripts import by_query
from lsp_lightning.text.breadth import zlib_ratio
from lsp_lightning.training.metrics import answer_text_metrics
from lsp_lightning.training.seen_queries import SeenQueries

RESULT = Path(__file__).with_name("collapse_watch.json")
ROUNDS = 100
#: The arms that `play` plays, with their presets.
PLAYED: dict[str, Arm] = {
    **{
        name: (name, [])
        for name in ("tiny_lsp_zero", "tiny_lsp_paper", "tiny_preference", "tiny_grpo")
    },
    "tiny_lsp": ("tiny_lsp", PLAIN),
    "zero_judged": ("tiny_lsp_zero", ["--config", "benchmarks/judged_zero.yaml"]),
}
#: The label of each arm in the table, by the name of its runs' folders, in the table's order.
ARMS = {
    "tiny_lsp_zero": "`tiny_lsp_zero`",
    "zero_judged": "the same, judged by `SelfReward`",
    "tiny_lsp_paper": "`tiny_lsp_paper`",
    "tiny_preference": "`tiny_preference`",
    "paper": "`tiny_lsp_paper`, 1,000 rounds",
    "paper_pool": "the same with a pool",
    "start": "narrowed on purpose (`way_back`)",
    "tiny_lsp": "`tiny_lsp`, beta 0.05, no penalty, without gate and pool",
    "tiny_grpo": "`tiny_grpo`",
    "LSP_recommended": "`tiny_lsp`, beta 0.05, no penalty",
    "learnability": "`tiny_lsp`, beta 0.05, no penalty, without gate and pool, 1,000 rounds",
    "learnability_gate": "the same with a gate",
    "learnability_pool": "the same with a pool",
    "learnability_gate_and_pool": "`tiny_lsp`, beta 0.05, no penalty, 1,000 rounds",
    "long_penalty_0.7_beta_0.03": "`tiny_lsp`, 1,000 rounds",
    "paper_gate": "`tiny_lsp_paper` with a gate, 1,000 rounds",
    "paper_gate_and_pool": "the same with gate and pool",
    "gate": "SmolLM2 with a gate",
    "pool": "SmolLM2 with a pool",
}
#: Metrics of a verifier that tells which queries have no right answer.
_OF_PARSER = ("/malformed",)
Row = dict[str, float]
Result = Mapping[str, Any]


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(required=True)
    playing = commands.add_parser("play")
    playing.add_argument("--out", type=Path, default=Path("runs/collapse_watch"))
    playing.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    playing.add_argument("--processes", type=int, default=2)
    playing.set_defaults(run=play)
    replaying = commands.add_parser("replay")
    replaying.add_argument("runs", type=Path, nargs="+")
    replaying.set_defaults(run=replay)
    commands.add_parser("table").set_defaults(run=table)
    commands.add_parser("symptoms").set_defaults(run=symptoms)
    args = parser.parse_args()
    args.run(args)


def play(args: argparse.Namespace) -> None:
    """Play the presets of the tiny world."""
    play_all(args.out, PLAYED, args.seeds, ROUNDS, args.processes)


def replay(args: argparse.Namespace) -> None:
    """Replay runs, print their warnings and write the results."""
    results = json.loads(RESULT.read_text("utf-8")) if RESULT.is_file() else {}
    for path in args.runs:
        if not path.is_dir():
            continue
        try:
            rounds = rows_of(RunFolder(path))
        except ConfigError as error:  # a run of a few rounds, or none
            print(f"skipped {path}: {error}")
            continue
        before = scores_before(RunFolder(path))
        found = list(findings(rounds, before))
        print(f"{path.name}, {len(rounds)} rounds", *(f"  {one.text}" for one in found), sep="\n")
        without = [leave_out(row, _OF_PARSER) for row in rounds]
        results[path.name] = {
            "rounds": len(rounds),
            "malformed": half_malformed(rounds),
            "found": [[one.last, one.symptom.name] for one in found],
            "without a parser": [[one.last, one.symptom.name] for one in findings(without, before)],
        }
    lines = [f"{json.dumps(name)}: {json.dumps(results[name])}" for name in sorted(results)]
    RESULT.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def table(args: argparse.Namespace) -> None:
    """Print the table."""
    print("\n".join(table_lines(json.loads(RESULT.read_text("utf-8")))))


def symptoms(args: argparse.Namespace) -> None:
    """Print the symptoms."""
    print("\n".join(symptom_lines()))


def symptom_lines() -> list[str]:
    """A Markdown table: what shows each symptom, from which value on, and what helps."""
    lines = ["| symptom | what shows it | limit | meaning | what helps |", "|---|---|---|---|---|"]
    for symptom in SYMPTOMS:
        metrics = ", ".join(f"`{name}`" for name in symptom.metrics)
        over = f" / `{symptom.per}`" if symptom.per else ""
        helps = re.sub(r"\b(?:model|data)(?:\.\w+)+", r"`\g<0>`", symptom.helps)
        cells = [symptom.name, metrics + over, symptom.rule, symptom.meaning, helps]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def findings(rounds: Sequence[Row], before: Row) -> Iterator[Finding]:
    """What the callback finds in a run, in the order of the rounds."""
    windows = Windows()
    windows.start(before)
    for row in rounds:
        index = int(row["step"])
        yield from windows.observe(index, row, {})
        scores = {name: value for name, value in row.items() if name.startswith("heldout/")}
        if scores:
            yield from windows.score(index, scores)


def rows_of(run: RunFolder) -> list[Row]:
    """The metrics of each round, with those that only its transcripts can tell."""
    rounds: dict[int, Row] = {}
    for row in run.metrics():  # one row of the round, and one of a scoring after it
        known = {name: value for name, value in row.items() if not math.isnan(value)}
        rounds.setdefault(int(row["step"]), {}).update(known)
    if rounds and "queries/seen" not in rounds[min(rounds)]:
        for index, found in text_metrics(run.transcripts(lambda line: None)):
            if index in rounds:
                rounds[index] = found | rounds[index]
    return [rounds[index] for index in sorted(rounds)]


def text_metrics(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, Row]]:
    """The metrics of each round that a run of an earlier version has not logged."""
    seen = SeenQueries()
    binary = all(row["R"] in (0.0, 1.0, None) for row in rows)
    for index, of_round in groupby(by_query(rows), lambda group: group[0]["round"]):
        groups = list(of_round)
        written = [g[0]["query"] for g in groups if g[0].get("replayed") is not True]
        answers = [
            row.get("judged_answer") or row["answer"]
            for group in groups
            for row in group
            if row["answer"] is not None
        ]
        found = {**seen.measure_texts(written), "queries/zlib": zlib_ratio(written)}
        found |= answer_text_metrics(answers)
        if binary:
            found |= solve_rates(groups)
        yield index, {name: value for name, value in found.items() if not math.isnan(value)}


def solve_rates(groups: Iterable[Sequence[Mapping[str, Any]]]) -> Row:
    """Solve rates of the judged queries that were written in a round; R is 0 or 1."""
    written = (group for group in groups if group[0].get("replayed") is not True)
    scores = [[row["R"] for row in group if row.get("R") is not None] for group in written]
    rates = [mean(group) for group in scores if group]
    if not rates:
        return {}
    return {
        "solve_rate": mean(rates),
        "queries/unsolved": mean(float(rate == 0) for rate in rates),
        "queries/solved": mean(float(rate == 1) for rate in rates),
    }


def scores_before(run: RunFolder) -> Row:
    """The held-out scores before training, as the metrics name them; empty if unknown."""
    try:
        found = run.summary()["heldout_before"] or {}
    except (ConfigError, KeyError):
        return {}
    return {f"heldout/{k}": float(v) for k, v in found.items() if isinstance(v, float)}


def leave_out(row: Row, ends: tuple[str, ...]) -> Row:
    """The row without the metrics whose names end so."""
    return {name: value for name, value in row.items() if not name.endswith(ends)}


def half_malformed(rounds: Sequence[Row], window: int = 5) -> int | None:
    """The first round up to which more than half of the queries of five rounds are malformed."""
    shares = [(int(row["step"]), max(_malformed(row), default=math.nan)) for row in rounds]
    for start in range(len(shares) - window + 1):
        part = shares[start : start + window]
        if mean(share for _, share in part) > 0.5:
            return part[-1][0]
    return None


def _malformed(row: Row) -> list[float]:
    return [value for name, value in row.items() if name.endswith("/malformed")]


def table_lines(results: Mapping[str, Result]) -> list[str]:
    """A Markdown table: the warnings of each arm, one run after another."""
    lines = [
        "| run | runs | first warning | later warnings | first without a parser | half malformed |",
        "|---|---|---|---|---|---|",
    ]
    for arm, label in ARMS.items():
        names = sorted(name for name in results if name.rpartition("-")[0] == arm)
        runs = [results[name] for name in names]
        if runs:
            halves = [str(run["malformed"]) for run in runs if run["malformed"] is not None]
            half = ", ".join(halves) or "never"
            cells = [label, str(len(runs)), _first(runs, "found"), _later(runs)]
            lines.append(f"| {' | '.join([*cells, _first(runs, 'without a parser'), half])} |")
    return lines


def _first(runs: Sequence[Result], kind: str) -> str:
    """The first warning of each run, with its round."""
    rounds: dict[str, list[str]] = {}
    for run in runs:
        for index, name in run[kind][:1]:
            rounds.setdefault(name, []).append(str(index))
    silent = sum(not run[kind] for run in runs)
    cells = [f"{name} ({', '.join(found)})" for name, found in rounds.items()]
    return "; ".join([*cells, *([f"none ({silent} of {len(runs)})"] if silent else [])])


def _later(runs: Sequence[Result]) -> str:
    """The other symptoms, and in how many of the runs each is found."""
    names = [{name for _, name in run["found"][1:]} for run in runs]
    counts = {name: sum(name in of_run for of_run in names) for name in sorted(set().union(*names))}
    return ", ".join(f"{name} ({count})" for name, count in counts.items()) or "none"


if __name__ == "__main__":
    main()
