"""The recipe of the tiny world: makes its tokenizer, query sets, base and reward model again.

    python -m lsp_lightning.tinyworld.build                make everything in a fresh folder
    python -m lsp_lightning.tinyworld.build --out FOLDER --only programs reward_model
                                                           make these steps again in a made folder
    python -m lsp_lightning.tinyworld.build --check        do the shipped files match the manifest?

Each recipe step has its own random stream and its own group in `manifest.json`, so that a later
step leaves the files of the others as they are, and a step can be made again alone. On one and the
same machine and set of library versions a build repeats to the byte; elsewhere the weights differ
in rounding and then in detail.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lsp_lightning.tinyworld import ROOT
from lsp_lightning.tinyworld.corpus import held_out_tasks, task_record, training_tasks
from lsp_lightning.tinyworld.measure import solver_marks
from lsp_lightning.tinyworld.preferences import SETTINGS, right_over_slip, train_reward_model
from lsp_lightning.tinyworld.pretrain import PretrainSettings, pretrain
from lsp_lightning.tinyworld.tasks import Task
from lsp_lightning.tinyworld.tokenizer import build_tokenizer

HELD_OUT_PER_CELL = 24  # queries per family and level, in dev and in test
PROGRAMS_PER_LEVEL = 140  # in each part; fewer programs of level 1 exist
TRAINING_QUERIES = 8192
PROGRESS_TASKS_PER_CELL = 4  # of the dev part, for the accuracy shown on the way
FOLDERS = ("base", "data", "reward_model")  # where the steps put their files


@dataclass(frozen=True)
class Recipe:
    """What a build is made from: the run's seed and the lengths of the two trainings."""

    seed: int = 0
    steps: int = PretrainSettings().steps
    reward_steps: int = SETTINGS.steps

    def stream(self, step: str) -> str:
        """The seed of one recipe step's own random stream."""
        return f"{self.seed}:{step}"


def make_tokenizer(out: Path, recipe: Recipe) -> None:
    """base/: tokenizer.json, tokenizer_config.json, chat_template.jinja."""
    build_tokenizer().save_pretrained(out / "base")


def make_data(out: Path, recipe: Recipe) -> None:
    """data/: dev.jsonl, test.jsonl and train.jsonl."""
    stream = recipe.stream("data")
    sets = {part: held_out_tasks(part, HELD_OUT_PER_CELL, stream) for part in ("dev", "test")}
    sets["train"] = training_tasks(TRAINING_QUERIES, stream)
    _write_sets(out, sets)


def make_base(out: Path, recipe: Recipe) -> None:
    """base/: model.safetensors, config.json, generation_config.json."""
    tokenizer = build_tokenizer()
    settings = PretrainSettings(steps=recipe.steps)
    sample = held_out_tasks("dev", PROGRESS_TASKS_PER_CELL, recipe.stream("progress"))
    progress = Progress(
        settings.steps, "greedy", lambda model: solver_marks(model, tokenizer, sample, samples=0)[1]
    )
    model = pretrain(tokenizer, settings, recipe.stream("base"), progress)
    _save(model, out / "base")


def make_programs(out: Path, recipe: Recipe) -> None:
    """data/: programs_dev.jsonl and programs_test.jsonl, more of the family `prog` alone.

    A program may also be in the smaller set of the same part, never in one of another part.
    """
    stream = recipe.stream("programs")
    sets = {
        f"programs_{part}": held_out_tasks(part, PROGRAMS_PER_LEVEL, stream, ("prog",))
        for part in ("dev", "test")
    }
    _write_sets(out, sets)


def make_reward_model(out: Path, recipe: Recipe) -> None:
    """reward_model/: a sequence classifier with the base's tokenizer and chat template."""
    tokenizer = build_tokenizer()
    settings = replace(SETTINGS, steps=recipe.reward_steps)
    sample = held_out_tasks("dev", PROGRESS_TASKS_PER_CELL, recipe.stream("progress"))
    progress = Progress(
        settings.steps, "right > slip", lambda model: right_over_slip(model, tokenizer, sample)
    )
    model = train_reward_model(tokenizer, settings, recipe.stream("reward_model"), progress)
    build_tokenizer().save_pretrained(out / "reward_model")  # a used one remembers its padding
    _save(model, out / "reward_model")


STEPS: dict[str, Callable[[Path, Recipe], None]] = {
    "tokenizer": make_tokenizer,
    "data": make_data,
    "base": make_base,
    "programs": make_programs,
    "reward_model": make_reward_model,
}
LENGTH_OF = {"base": "steps", "reward_model": "reward_steps"}  # a step's own field of the recipe


def _write_sets(out: Path, sets: dict[str, list[Task]]) -> None:
    (out / "data").mkdir(parents=True, exist_ok=True)
    for name, tasks in sets.items():
        lines = [json.dumps(task_record(task)) + "\n" for task in tasks]
        (out / "data" / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def _save(model: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # else only its maker may read it


class Progress:
    """Prints step, loss and time left every 50 steps, and the share of marks ten times a run."""

    def __init__(self, steps: int, name: str, marks: Callable[[Any], Tensor]) -> None:
        self.steps, self.name, self.marks = steps, name, marks
        self.started = time.monotonic()
        self.mean_loss: float | None = None

    def __call__(self, step: int, loss: float, model: Any) -> None:
        """After step number `step` (from 0) with its loss in nats."""
        self.mean_loss = loss if self.mean_loss is None else 0.95 * self.mean_loss + 0.05 * loss
        done = step + 1
        measured = done % max(1, self.steps // 10) == 0
        if not measured and done % 50 and done != self.steps:
            return
        left = (time.monotonic() - self.started) / done * (self.steps - done)
        line = f"step {done}/{self.steps}  loss {self.mean_loss:.3f}  {left:.0f} s left"
        if measured:
            model.eval()
            line += f"  {self.name} {self.marks(model).float().mean():.2f}"
            model.train()
        print(line, flush=True)


def build(out: Path, recipe: Recipe, only: Collection[str] = ()) -> None:
    """Runs the recipe steps into `out` and writes its manifest.

    Without `only` it runs every step into an empty or new folder. With `only` it runs the steps
    named in a folder that was built before, and replaces what they had made there.
    """
    if not only and out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty: a build goes into a fresh folder.")
    files = _make_room(out, recipe, only) if only else {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in another order would make other weights
    try:
        for name, make in STEPS.items():
            if only and name not in only:
                continue
            print(f"-- {name}", flush=True)
            before = _files(out)
            make(out, recipe)
            made = [path for path in _files(out) if path not in before]
            files[name] = {path: _sha256(out / path) for path in made}
    finally:
        torch.set_num_threads(threads)
    in_order = {name: files[name] for name in STEPS if name in files}
    content = {**asdict(recipe), "files": in_order}
    (out / "manifest.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _make_room(out: Path, recipe: Recipe, only: Collection[str]) -> dict[str, dict[str, str]]:
    """Removes the files of the steps named; returns the groups of the steps that stay.

    These were made from the folder's recipe, so the new one may differ in no other step's field.
    """
    if unknown := set(only) - set(STEPS):
        raise ValueError(
            f"no such step: {', '.join(sorted(unknown))}; there are {', '.join(STEPS)}"
        )
    old = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    for field, value in asdict(recipe).items():
        made_again = any(LENGTH_OF.get(step) == field for step in only)
        if not made_again and old.get(field, value) != value:
            raise ValueError(
                f"{out} was made with {field} {old[field]}: give the same, not {value}"
            )
    for path in [path for step in only for path in old["files"].get(step, {})]:
        (out / path).unlink(missing_ok=True)
    return {step: group for step, group in old["files"].items() if step not in only}


def check_manifest(root: Path = ROOT) -> list[str]:
    """What is wrong with the files that `root/manifest.json` lists, one line each; [] is well."""
    content = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
    problems = []
    for step, files in content["files"].items():
        for path, expected in files.items():
            if not (root / path).is_file():
                problems.append(f"{step}: {path} is missing")
            elif _sha256(root / path) != expected:
                problems.append(f"{step}: {path} differs from the manifest")
    return problems


def _files(root: Path) -> list[str]:
    found = [p for folder in FOLDERS for p in (root / folder).rglob("*") if p.is_file()]
    return sorted(p.relative_to(root).as_posix() for p in found)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("tinyworld-build"), help="its folder")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=STEPS,
        default=(),
        metavar="STEP",
        help="make these steps again in a folder made before: " + ", ".join(STEPS),
    )
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="of the pretraining")
    parser.add_argument(
        "--reward-steps", type=int, default=Recipe.reward_steps, help="of the reward model"
    )
    parser.add_argument("--check", action="store_true", help="verify the shipped files, make none")
    options = parser.parse_args(arguments)
    if options.check:
        problems = check_manifest()
        print("\n".join(problems) or "all files match the manifest")
        return 1 if problems else 0
    recipe = Recipe(options.seed, options.steps, options.reward_steps)
    build(options.out, recipe, options.only)
    print(f"made in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
