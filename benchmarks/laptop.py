"""The evidence for the laptop preset: SmolLM2-135M on 200 instructions that no arm has seen.

python -m benchmarks.laptop train ARM --seed 0 --runs DIR [--base PATH] [--threads 1] [-- FLAGS]
python -m benchmarks.laptop score ARM --seed 0 --runs DIR [--base PATH] [--threads 1] [--tasks 8]
python -m benchmarks.laptop agree DIR/ARM-0 ... [--examples 3]
python -m benchmarks.laptop table

`train` plays an arm in DIR/ARM-SEED; start it again after an interruption, and it resumes. `score`
answers the tasks (also as the arm `base`, which needs no run), and writes a row of laptop.json;
with `--tasks` it only prints it. With `--room 128` answers may have 128 tokens, sampled at
temperature 1 only; this is a row of its own. `agree` compares our verdicts with IFEval's.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import yaml

from benchmarks import ifeval
from benchmarks.laptop_arms import EXAMPLES, FOUR, PRESET, ROOT, arms, preset
from benchmarks.laptop_score import (
    DRAWS,
    WAYS,
    Row,
    exam_of,
    figures,
    model_name,
    read_answers,
    run_figures,
    take,
    tasks_digest,
    unseen_kinds,
)
from benchmarks.laptop_table import tables
from benchmarks.runs import folder
from benchmarks.speed import machine
from lsp_lightning import ConfigError, InstructionVerifier, Policy, Sampling, VerifiableReward
from lsp_lightning.evaluation.exam import Exam
from lsp_lightning.game.known_queries import read_queries
from lsp_lightning.models.settings import Lora
from lsp_lightning.paths import resolve
from lsp_lightning.runs import RunFolder
from lsp_lightning.runs.writing import write_text

RESULT = ROOT / "benchmarks/laptop.json"
TASKS = "pkg:lsp_lightning/data/instruction_tasks.jsonl"
#: The preset was chosen by runs of this seed, so the tables have it without this seed as well.
CHOSEN_BY = 0


def main() -> None:
    """Run one command."""
    args, flags = arguments()
    try:
        args.run(args, flags)
    except ConfigError as error:
        sys.exit(f"error: {error}")


def arguments() -> tuple[argparse.Namespace, list[str]]:
    """The parsed command line, and further flags for ``fit``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    ways: tuple[tuple[str, Callable[..., None], list[str]], ...] = (
        ("train", train, list(arms())),
        ("score", score, ["base", *arms()]),
    )
    for name, run, known in ways:
        command = commands.add_parser(name)
        command.add_argument("arm", choices=known)
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--base", default=preset()["model"]["base"], help="the base model")
        command.add_argument("--runs", type=Path, required=True, help="folder of all runs")
        command.add_argument("--threads", type=int, default=1)
        command.set_defaults(run=run)
    command.add_argument("--tasks", type=int, help="score only so many tasks; writes no row")
    command.add_argument("--room", type=int, help="most tokens of an answer; default: the preset's")
    command = commands.add_parser("agree")
    command.add_argument("folders", type=Path, nargs="+")
    command.add_argument("--examples", type=int, default=3, help="of disagreements of a kind")
    command.set_defaults(run=agree)
    commands.add_parser("table").set_defaults(run=table)
    args, flags = parser.parse_known_args()
    if flags and args.run is not train:
        parser.error(f"unknown arguments: {' '.join(flags)}")
    return args, [flag for flag in flags if flag != "--"]


def train(args: argparse.Namespace, flags: Sequence[str]) -> None:
    """Play an arm, from its last checkpoint if there is one. This process becomes ``fit``."""
    path = folder(args.runs, args.arm, args.seed).absolute()
    run = RunFolder(path)
    if run.summary_path.is_file():
        print(f"{path} is finished")
        return
    if run.checkpoint_path.is_file():
        settings = ["--ckpt_path", str(run.checkpoint_path)]
    else:
        if path.exists():  # interrupted in its first round
            shutil.rmtree(path)
        settings = ["--config", str(PRESET), "--config", str(_arm_file(args, path)), *flags]
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "lsp_lightning", "fit", *settings])


def _arm_file(args: argparse.Namespace, path: Path) -> Path:
    """Write what the arm changes in the preset as a config, beside the run's folder."""
    config = arms()[args.arm]
    config |= {"seed_everything": args.seed, "trainer": {"default_root_dir": str(path)}}
    config["model"] = {**config.get("model", {}), "base": args.base}
    config["data"] = {**config.get("data", {}), "heldout": None}
    queries = config["data"].get("queries", {}).get("init_args", {})
    path.parent.mkdir(parents=True, exist_ok=True)
    if queries.get("examples") == FOUR:
        queries["examples"] = str(path.with_name(FOUR))
        lines = resolve(EXAMPLES).read_text(encoding="utf-8").splitlines()
        write_text(path.with_name(FOUR), "\n".join(lines[:4]) + "\n")
    file = path.with_name(f"{path.name}.yaml")
    write_text(file, yaml.safe_dump(config))
    return file


def score(args: argparse.Namespace, flags: Sequence[str]) -> None:
    """Score an arm on the tasks and replace its row in the result file."""
    torch.set_num_threads(args.threads)
    path = folder(args.runs, args.arm, args.seed)
    run = None if args.arm == "base" else RunFolder(path)
    if run:
        run.summary()  # raises unless the run has ended
    adapter = run.weights_path(has_adapter=True) if run else None
    every = read_queries(TASKS, "tasks")
    tasks = every[:: max(1, len(every) // args.tasks)][: args.tasks] if args.tasks else every
    model, solver = preset()["model"], Sampling(**preset()["data"]["solver"])
    ways, arm = WAYS, args.arm
    if args.room:
        solver, ways = replace(solver, max_new_tokens=args.room), {"T 1": 1.0}
        arm = f"{args.arm}, {args.room} tokens"
    policy = Policy(
        args.base,
        Lora(**model.get("lora", {})),
        init_adapter=str(adapter) if adapter else None,
        reference="base",
        dtype=model.get("dtype", "auto"),
    )
    exam = Exam.of(
        policy.codec,
        tasks,
        VerifiableReward(InstructionVerifier()),
        solver,
        "{query}",
        DRAWS,
        args.seed,
    ).drawn_from("heldout")
    unseen = unseen_kinds(tasks, read_queries(EXAMPLES, "examples"))
    row: Row = {
        "arm": arm,
        "seed": args.seed,
        "tasks": tasks_digest(tasks),
        "dtype": str(policy.dtype).removeprefix("torch."),
        "cpu": machine()["cpu"],
    }
    if run and not args.room:
        row["run"] = run_figures(path)
    answering = model_name(args.base, adapter)
    kind = f"tried-{len(tasks)}" if args.tasks else f"answers{args.room or ''}"
    for way, temperature in ways.items():
        asked = exam_of(exam, temperature)
        name = f"{kind}-{way.replace(' ', '')}.jsonl"
        row[way] = figures(take(policy, asked, answering, path / name), asked.draws, unseen)
    if ifeval.instructions() is None:
        print(f"IFEval is not installed, so its verdicts are left out: {ifeval.INSTALL}")
    if args.tasks:
        print(_written({f"{arm}-{args.seed}": row}))
        return
    rows = _rows()
    rows[f"{arm}-{args.seed}"] = row
    write_text(RESULT, _written(rows))
    print(f"written to {RESULT}: {arm}-{args.seed}")


def agree(args: argparse.Namespace, flags: Sequence[str]) -> None:
    """Compare our verdicts on the answers in folders with IFEval's, kind by kind."""
    if ifeval.instructions() is None:
        sys.exit(f"error: IFEval is not installed: {ifeval.INSTALL}")
    paths = [path for folder in args.folders for path in sorted(folder.glob("answers-*.jsonl"))]
    if not paths:
        sys.exit("error: no answers in these folders; give the folders that `score` wrote to")
    rows = [row for path in paths for row in read_answers(path)[1]]
    found = ifeval.compare((row["query"], row["answer"]) for row in rows)
    print("\n".join(found.lines(args.examples)))
    print(f"\nin all: {found.figures()}")


def table(args: argparse.Namespace, flags: Sequence[str]) -> None:
    """Print the rows of the result file as Markdown tables."""
    rows = _rows()
    tasks = read_queries(TASKS, "tasks")
    others = [name for name, row in rows.items() if row["tasks"] != tasks_digest(tasks)]
    if others:
        sys.exit(f"error: scored on other tasks than {TASKS}: {', '.join(others)}; score again")
    if len(dtypes := {row["dtype"] for row in rows.values()}) > 1:
        sys.exit(f"error: rows in {' and '.join(sorted(dtypes))} cannot stand in one table")
    unseen = unseen_kinds(tasks, read_queries(EXAMPLES, "examples"))
    name = f"recommended without seed {CHOSEN_BY}"
    unbiased = [
        {**row, "arm": name}
        for row in rows.values()
        if row["arm"] == "recommended" and row["seed"] != CHOSEN_BY
    ]
    print("\n\n".join(tables([*rows.values(), *unbiased], ["base", *arms()], unseen)))


def _written(rows: dict[str, Row]) -> str:
    """The rows as JSON with a line for each entry of a row."""
    texts = []
    for name, row in sorted(rows.items()):
        entries = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in row.items())
        texts.append(f"{json.dumps(name)}: {{\n" + ",\n".join(entries) + "\n}")
    return "{\n" + ",\n".join(texts) + "\n}\n"


def _rows() -> dict[str, Row]:
    found: dict[str, Row] = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    return found


if __name__ == "__main__":
    main()
