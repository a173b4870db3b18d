"""Measure a base model in all three roles: Solver, Challenger and judge.

`python -m lsp_lightning.tinyworld.recipe.measure [--base DIR] [--part dev|test]` prints tables.
"""

import argparse
import json
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from lsp_lightning.tinyworld import BASE_DIR, DATA_DIR
from lsp_lightning.tinyworld.recipe.corpus import CHALLENGER_PROMPT, render_judge, slip
from lsp_lightning.tinyworld.tasks import MAX_ANSWER, MAX_QUERY, Task, make_malformed, parse

PASS_K = 8


def load_tasks(path: Path) -> list[Task]:
    """The tasks of a shipped query file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return [Task(r["query"], r["family"], r["level"], r["reference"]) for r in records]


def chat_prompts(contents: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """Each user turn in the chat template, as text up to where the reply starts."""
    return [
        str(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
            )
        )
        for content in contents
    ]


@torch.no_grad()
def replies(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    contents: Sequence[str],
    max_new_tokens: int,
    sample: bool,
    rows: int = 512,
) -> list[str]:
    """One reply to each user turn, sampled at temperature 1 or greedy, `rows` at a time."""
    texts: list[str] = []
    for start in range(0, len(contents), rows):
        prompts = chat_prompts(contents[start : start + rows], tokenizer)
        batch = tokenizer(prompts, return_tensors="pt", padding=True)
        output = model.generate(
            **{name: batch[name] for name in ("input_ids", "attention_mask")},
            max_new_tokens=max_new_tokens,
            do_sample=sample,
            **({"temperature": 1.0, "top_k": 0, "top_p": 1.0} if sample else {}),
        )
        completions = output[:, batch["input_ids"].shape[1] :]
        texts += tokenizer.batch_decode(completions, skip_special_tokens=True)
    return texts


def solver_marks(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    tasks: Sequence[Task],
    samples: int = PASS_K,
) -> tuple[Tensor, Tensor]:
    """Which answers are right: (tasks, samples) booleans sampled, (tasks,) booleans greedy.

    With `samples` of 0 nothing is sampled.
    """
    queries = [task.query for task in tasks]
    greedy = replies(model, tokenizer, queries, MAX_ANSWER + 1, sample=False)
    repeated = [query for query in queries for _ in range(samples)]
    sampled = replies(model, tokenizer, repeated, MAX_ANSWER + 1, sample=True)
    solutions = [task.answer for task in tasks for _ in range(samples)]
    marks = [text == solution for text, solution in zip(sampled, solutions, strict=True)]
    greedy_marks = [text == task.answer for text, task in zip(greedy, tasks, strict=True)]
    return torch.tensor(marks).view(len(tasks), samples), torch.tensor(greedy_marks)


@torch.no_grad()
def expected_scores(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    pairs: Sequence[tuple[str, str]],
) -> Tensor:
    """(n,) The judge's expected scores of (query, answer) pairs, in [0, 1].

    The mean is over the model's probabilities of the digits 0..7 after the token `<Score>`.
    """
    prompts = chat_prompts([render_judge(*pair) for pair in pairs], tokenizer)
    batch = tokenizer([p + "<Score>" for p in prompts], return_tensors="pt", padding=True)
    mask = batch["attention_mask"]
    logits = model(
        input_ids=batch["input_ids"],
        attention_mask=mask,
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
    ).logits[:, -1]
    digits = tokenizer.convert_tokens_to_ids(list("01234567"))
    probabilities = logits[:, digits].softmax(-1)
    scores: Tensor = probabilities @ torch.arange(8.0) / 7
    return scores


def solver_table(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tasks: Sequence[Task]
) -> str:
    """A Markdown table of sampled pass@1, pass@8 and greedy accuracy by family and level."""
    sampled, greedy = solver_marks(model, tokenizer, tasks)
    cells: dict[str, list[int]] = defaultdict(list)
    for name in ("{0.family} L{0.level}", "all {0.family}", "all L{0.level}", "all"):
        for index, task in enumerate(tasks):
            cells[name.format(task)].append(index)
    lines = ["| cell | n | pass@1 | pass@8 | greedy |", "|---|---|---|---|---|"]
    for name, members in cells.items():
        marks = sampled[members].float()
        numbers = (marks.mean(), marks.amax(1).mean(), greedy[members].float().mean())
        row = " | ".join(f"{number:.3f}" for number in numbers)
        lines.append(f"| {name} | {len(members)} | {row} |")
    return "\n".join(lines)


def challenger_summary(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, count: int = 512
) -> dict[str, object]:
    """Queries that the Challenger writes: share malformed, families, levels, distinct texts."""
    texts = replies(model, tokenizer, [CHALLENGER_PROMPT] * count, MAX_QUERY + 1, sample=True)
    tasks = [task for text in texts if (task := parse(text)) is not None]
    return {
        "malformed": round(1 - len(tasks) / count, 3),
        "families": dict(Counter(task.family for task in tasks)),
        "levels": dict(sorted(Counter(task.level for task in tasks).items())),
        "distinct": len(set(texts)),
    }


def judge_summary(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    tasks: Sequence[Task],
    seed: int = 0,
) -> dict[str, float]:
    """Mean expected score by kind of pair, and how often the right answer beats a wrong one."""
    rng = random.Random(f"{seed}:judge")
    texts = [make_malformed(rng) for _ in tasks]
    malformed = expected_scores(
        model, tokenizer, [(text, task.answer) for text, task in zip(texts, tasks, strict=True)]
    )
    right = expected_scores(model, tokenizer, [(t.query, t.answer) for t in tasks])
    wrong = expected_scores(model, tokenizer, [(t.query, slip(t.answer, rng)) for t in tasks])
    idk = expected_scores(model, tokenizer, [(t.query, "idk") for t in tasks])
    summary = {
        "malformed": malformed.mean(),
        "malformed above .4": (malformed > 0.4).float().mean(),
        "right": right.mean(),
        "right below .4": (right < 0.4).float().mean(),
        "wrong": wrong.mean(),
        "idk": idk.mean(),
        "right > wrong": (right > wrong).float().mean(),
    }
    return {name: round(float(value), 3) for name, value in summary.items()}


def main() -> None:
    """Print the tables of a base model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--base", type=Path, default=BASE_DIR, help="folder with model and tokenizer"
    )
    parser.add_argument(
        "--data", type=Path, default=DATA_DIR, help="folder with the dev and test files"
    )
    parser.add_argument("--part", choices=["dev", "test"], default="test")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    tokenizer = AutoTokenizer.from_pretrained(options.base)
    model = AutoModelForCausalLM.from_pretrained(options.base).eval()
    tasks = load_tasks(options.data / f"{options.part}.jsonl")
    print(f"{options.part}: {len(tasks)} tasks\n{solver_table(model, tokenizer, tasks)}")
    print("challenger:", challenger_summary(model, tokenizer))
    print("judge:", judge_summary(model, tokenizer, tasks, options.seed))


if __name__ == "__main__":
    main()
