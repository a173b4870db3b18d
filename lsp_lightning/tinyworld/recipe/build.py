"""Build the tiny world: its tokenizer, query sets, base model and two reward models.

    python -m lsp_lightning.tinyworld.recipe.build
        build everything in a new folder
    python -m lsp_lightning.tinyworld.recipe.build --out FOLDER --only programs reward_model
        repeat these steps in a folder that was built before
    python -m lsp_lightning.tinyworld.recipe.build --check
        compare the shipped files with the manifest

Each step has a separate random stream and a separate group in `manifest.json`, so you can repeat
one step and the files of the others stay as they are. On the same machine with the same library
versions a build gives the same bytes. Elsewhere rounding differs, and with it the weights.
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
from lsp_lightning.tinyworld.recipe.annotators import FIRST, SECOND, Annotators
from lsp_lightning.tinyworld.recipe.corpus import held_out_tasks, task_record, training_tasks
from lsp_lightning.tinyworld.recipe.measure import solver_marks
from lsp_lightning.tinyworld.recipe.preferences import SETTINGS, right_over_slip, train_reward_model
from lsp_lightning.tinyworld.recipe.pretrain import PretrainSettings, pretrain
from lsp_lightning.tinyworld.tasks import Task
from lsp_lightning.tinyworld.tokenizer import build_tokenizer

HELD_OUT_PER_CELL = 24  # queries for each family and level, in dev and in test
PROGRAMS_PER_LEVEL = 140  # in dev and in test; level 1 has fewer programs in all
TRAINING_QUERIES = 8192
PROGRESS_TASKS_PER_CELL = 4  # of the dev split, for the accuracy printed during training
#: The steps write their files here.
FOLDERS = ("base", "data", "reward_model", "second_reward_model")


@dataclass(frozen=True)
class Recipe:
    """The settings of a build."""

    seed: int = 0
    """Seed of all random streams."""
    steps: int = PretrainSettings().steps
    """Optimiser steps of the base model."""
    reward_steps: int = SETTINGS.steps
    """Optimiser steps of each reward model."""

    def stream(self, step: str) -> str:
        """The seed of one step's random stream."""
        return f"{self.seed}:{step}"


def make_tokenizer(out: Path, recipe: Recipe) -> None:
    """Write base/: tokenizer.json, tokenizer_config.json, chat_template.jinja."""
    build_tokenizer().save_pretrained(out / "base")


def make_data(out: Path, recipe: Recipe) -> None:
    """Write data/: dev.jsonl, test.jsonl and train.jsonl."""
    stream = recipe.stream("data")
    sets = {part: held_out_tasks(part, HELD_OUT_PER_CELL, stream) for part in ("dev", "test")}
    sets["train"] = training_tasks(TRAINING_QUERIES, stream)
    _write_sets(out, sets)


def make_base(out: Path, recipe: Recipe) -> None:
    """Write base/: model.safetensors, config.json, generation_config.json."""
    tokenizer = build_tokenizer()
    settings = PretrainSettings(steps=recipe.steps)
    sample = held_out_tasks("dev", PROGRESS_TASKS_PER_CELL, recipe.stream("progress"))
    progress = Progress(
        settings.steps, "greedy", lambda model: solver_marks(model, tokenizer, sample, samples=0)[1]
    )
    model = pretrain(tokenizer, settings, recipe.stream("base"), progress)
    _save(model, out / "base")


def make_programs(out: Path, recipe: Recipe) -> None:
    """Write data/: programs_dev.jsonl and programs_test.jsonl, more queries of family `prog`.

    A program may also be in dev.jsonl or test.jsonl, but only in the file of its split.
    """
    stream = recipe.stream("programs")
    sets = {
        f"programs_{part}": held_out_tasks(part, PROGRAMS_PER_LEVEL, stream, ("prog",))
        for part in ("dev", "test")
    }
    _write_sets(out, sets)


def make_reward_model(out: Path, recipe: Recipe) -> None:
    """Write reward_model/: a sequence classifier with the base's tokenizer and chat template."""
    _make_reward_model(out, recipe, "reward_model", FIRST)


def make_second_reward_model(out: Path, recipe: Recipe) -> None:
    """Write second_reward_model/: the same kind of model, by other annotators with other pairs."""
    _make_reward_model(out, recipe, "second_reward_model", SECOND)


def _make_reward_model(out: Path, recipe: Recipe, step: str, annotators: Annotators) -> None:
    tokenizer = build_tokenizer()
    settings = replace(SETTINGS, steps=recipe.reward_steps)
    sample = held_out_tasks("dev", PROGRESS_TASKS_PER_CELL, recipe.stream("progress"))
    progress = Progress(
        settings.steps, "right > slip", lambda model: right_over_slip(model, tokenizer, sample)
    )
    model = train_reward_model(tokenizer, settings, recipe.stream(step), progress, annotators)
    build_tokenizer().save_pretrained(out / step)  # a used one would also save its padding
    _save(model, out / step)


STEPS: dict[str, Callable[[Path, Recipe], None]] = {
    "tokenizer": make_tokenizer,
    "data": make_data,
    "base": make_base,
    "programs": make_programs,
    "reward_model": make_reward_model,
    "second_reward_model": make_second_reward_model,
}
LENGTH_OF = {  # Recipe fields: training length
    "base": "steps",
    "reward_model": "reward_steps",
    "second_reward_model": "reward_steps",
}


def _write_sets(out: Path, sets: dict[str, list[Task]]) -> None:
    (out / "data").mkdir(parents=True, exist_ok=True)
    for name, tasks in sets.items():
        lines = [json.dumps(task_record(task)) + "\n" for task in tasks]
        (out / "data" / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def _save(model: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # else only the current user may read it


class Progress:
    """Prints the loss and the time left every 50 steps, and the accuracy ten times a run."""

    def __init__(self, steps: int, name: str, marks: Callable[[Any], Tensor]) -> None:
        self.steps, self.name, self.marks = steps, name, marks
        self.started = time.monotonic()
        self.mean_loss: float | None = None

    def __call__(self, step: int, loss: float, model: Any) -> None:
        """Note the loss in nats of step number `step` (from 0), and print a line if one is due."""
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
    """Run the recipe's steps in the folder `out` and write its manifest.

    Without `only`, run every step; the folder must be empty or new. With `only`, repeat the named
    steps in a folder that was built before, and replace their files.
    """
    if not only and out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty; give a new folder")
    files = _make_room(out, recipe, only) if only else {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the number of threads changes rounding, and with it the weights
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
    """Remove the files of the named steps; return the manifest's groups of the other steps.

    The other steps keep their files, so their fields of the recipe must not change.
    """
    if unknown := set(only) - set(STEPS):
        raise ValueError(
            f"no such step: {', '.join(sorted(unknown))}; choose from {', '.join(STEPS)}"
        )
    old = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    for field, value in asdict(recipe).items():
        users = {step for step in old["files"] if LENGTH_OF.get(step) == field}
        made_again = field in LENGTH_OF.values() and users <= set(only)
        if not made_again and old.get(field, value) != value:
            raise ValueError(
                f"{out} was built with {field} {old[field]}, not {value}; give {old[field]}"
            )
    for path in [path for step in only for path in old["files"].get(step, {})]:
        (out / path).unlink(missing_ok=True)
    return {step: group for step, group in old["files"].items() if step not in only}


def check_manifest(root: Path = ROOT) -> list[str]:
    """Problems with the files that `root/manifest.json` lists, one line each; [] if all match."""
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
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("tinyworld-build"), help="output folder")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=STEPS,
        default=(),
        metavar="STEP",
        help="repeat these steps in a folder that was built before: " + ", ".join(STEPS),
    )
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument(
        "--steps", type=int, default=Recipe.steps, help="training steps of the base model"
    )
    parser.add_argument(
        "--reward-steps",
        type=int,
        default=Recipe.reward_steps,
        help="training steps of each reward model",
    )
    parser.add_argument(
        "--check", action="store_true", help="only compare the shipped files with the manifest"
    )
    options = parser.parse_args(arguments)
    if options.check:
        problems = check_manifest()
        print("\n".join(problems) or "all files match the manifest")
        return 1 if problems else 0
    recipe = Recipe(options.seed, options.steps, options.reward_steps)
    build(options.out, recipe, options.only)
    print(f"written to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
