"""The recipe of the tiny world: makes its tokenizer, its query sets and its base model again.

    python -m lsp_lightning.tinyworld.build                make everything in a fresh folder
    python -m lsp_lightning.tinyworld.build --check        do the shipped files match the manifest?

Each recipe step has its own random stream and its own group in `manifest.json`, so that a later
step leaves the files of the others as they are. On one and the same machine and set of library
versions a build repeats to the byte; elsewhere the weights differ in rounding and then in detail.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from lsp_lightning.tinyworld import ROOT
from lsp_lightning.tinyworld.corpus import held_out_tasks, task_record, training_tasks
from lsp_lightning.tinyworld.measure import solver_marks
from lsp_lightning.tinyworld.pretrain import PretrainSettings, pretrain
from lsp_lightning.tinyworld.tasks import Task
from lsp_lightning.tinyworld.tokenizer import build_tokenizer

HELD_OUT_PER_CELL = 24  # queries per family and level, in dev and in test
TRAINING_QUERIES = 8192
PROGRESS_TASKS_PER_CELL = 4  # of the dev part, for the greedy accuracy shown on the way


@dataclass(frozen=True)
class Recipe:
    """What a build is made from: the run's seed and the length of the pretraining."""

    seed: int = 0
    steps: int = PretrainSettings().steps

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
    (out / "data").mkdir(parents=True)
    for name, tasks in sets.items():
        lines = [json.dumps(task_record(task)) + "\n" for task in tasks]
        (out / "data" / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def make_base(out: Path, recipe: Recipe) -> None:
    """base/: model.safetensors, config.json, generation_config.json."""
    tokenizer = build_tokenizer()
    settings = PretrainSettings(steps=recipe.steps)
    sample = held_out_tasks("dev", PROGRESS_TASKS_PER_CELL, recipe.stream("progress"))
    model = pretrain(
        tokenizer, settings, recipe.stream("base"), Progress(settings.steps, tokenizer, sample)
    )
    model.save_pretrained(out / "base")
    (out / "base" / "model.safetensors").chmod(0o644)  # else only its maker may read it


STEPS: dict[str, Callable[[Path, Recipe], None]] = {
    "tokenizer": make_tokenizer,
    "data": make_data,
    "base": make_base,
}


class Progress:
    """Prints step, loss and time left every 50 steps, and greedy dev accuracy ten times a run."""

    def __init__(self, steps: int, tokenizer: PreTrainedTokenizerFast, tasks: list[Task]) -> None:
        self.steps, self.tokenizer, self.tasks = steps, tokenizer, tasks
        self.started = time.monotonic()
        self.mean_loss: float | None = None

    def __call__(self, step: int, loss: float, model: LlamaForCausalLM) -> None:
        """After step number `step` (from 0) with its loss in nats per reply token."""
        self.mean_loss = loss if self.mean_loss is None else 0.95 * self.mean_loss + 0.05 * loss
        done = step + 1
        measured = done % max(1, self.steps // 10) == 0
        if not measured and done % 50 and done != self.steps:
            return
        left = (time.monotonic() - self.started) / done * (self.steps - done)
        line = f"step {done}/{self.steps}  loss {self.mean_loss:.3f}  {left:.0f} s left"
        if measured:
            model.eval()
            _, greedy = solver_marks(model, self.tokenizer, self.tasks, samples=0)
            model.train()
            line += f"  greedy {greedy.float().mean():.2f}"
        print(line, flush=True)


def build(out: Path, recipe: Recipe) -> None:
    """Runs every recipe step into the empty or new folder `out` and writes its manifest."""
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty: a build goes into a fresh folder.")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in another order would make other weights
    manifest: dict[str, dict[str, str]] = {}
    try:
        for name, make in STEPS.items():
            print(f"-- {name}", flush=True)
            before = _files(out)
            make(out, recipe)
            manifest[name] = {
                path: _sha256(out / path) for path in _files(out) if path not in before
            }
    finally:
        torch.set_num_threads(threads)
    content = {"seed": recipe.seed, "steps": recipe.steps, "files": manifest}
    (out / "manifest.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


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
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("tinyworld-build"), help="fresh folder")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="of the pretraining")
    parser.add_argument("--check", action="store_true", help="verify the shipped files, make none")
    options = parser.parse_args(arguments)
    if options.check:
        problems = check_manifest()
        print("\n".join(problems) or "all files match the manifest")
        return 1 if problems else 0
    build(options.out, Recipe(options.seed, options.steps))
    print(f"made in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
