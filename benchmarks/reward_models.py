"""How good the tiny world's two reward models are, what they like, and how often they agree.

python -m benchmarks.reward_models

prints the table and writes the figures to reward_models.json.
"""

import json
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from lsp_lightning.tinyworld import DATA_DIR, REWARD_MODEL_DIR, SECOND_REWARD_MODEL_DIR
from lsp_lightning.tinyworld.recipe.measure import load_tasks
from lsp_lightning.tinyworld.recipe.preferences import mean_scores, right_over_slip
from lsp_lightning.tinyworld.tasks import Task

Figures = dict[str, float]

RESULT = Path(__file__).with_name("reward_models.json")
FOLDERS = {"paid": REWARD_MODEL_DIR, "watch": SECOND_REWARD_MODEL_DIR}
SHARES = ("right > slip", "the other one where this one is wrong", "both alike")


def figures() -> dict[str, Figures]:
    """The figures of each reward model on the test tasks, by its name.

    *right > slip* is the share of the tasks whose right answer scores higher than a slip. A liking
    is a difference of mean scores, in units of the difference between right answers and slips.
    """
    likings = {}
    for name in FOLDERS:
        model, tokenizer = _loaded(name)
        likings[name] = _likings(mean_scores(model, tokenizer, _tasks()))
    return {name: {**shares, **likings[name]} for name, shares in verdicts().items()}


def verdicts() -> dict[str, Figures]:
    """The figures of each reward model that are shares of the tasks."""
    marks = {name: right_over_slip(*_loaded(name), _tasks()) for name in FOLDERS}
    return {
        name: agreement(marks[name], marks[other])
        for name, other in (("paid", "watch"), ("watch", "paid"))
    }


def _tasks() -> list[Task]:
    return load_tasks(DATA_DIR / "test.jsonl")


def _loaded(name: str) -> tuple[LlamaForSequenceClassification, PreTrainedTokenizerFast]:
    folder = FOLDERS[name]
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def agreement(marks: Tensor, others: Tensor) -> Figures:
    """Of a model: how often it is right, and how often another one is where it is not.

    Args:
        marks: (tasks,) bool: the model prefers the right answer.
        others: (tasks,) bool: the same of the other model.
    """
    shares = (marks, others[~marks], marks == others)
    return {name: float(share.float().mean()) for name, share in zip(SHARES, shares, strict=True)}


def _likings(scores: Figures) -> Figures:
    gap = scores["right"] - scores["slip"]
    return {
        "slip, three characters longer": (scores["slip, 3 longer"] - scores["slip"]) / gap,
        "idk instead of a slip": (scores["idk"] - scores["slip"]) / gap,
        "no right answer: idk instead of a confident one": (
            (scores["malformed, idk"] - scores["malformed, confident"]) / gap
        ),
    }


def table_lines(found: dict[str, Figures]) -> list[str]:
    """A Markdown table of :func:`figures`."""
    lines = [f"| | {' | '.join(found)} |", "|---|" + "---|" * len(found)]
    for name in next(iter(found.values())):
        form = ".2f" if name in SHARES else "+.2f"
        cells = [f"{figures[name]:{form}}" for figures in found.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    torch.set_num_threads(1)
    measured = figures()
    RESULT.write_text(json.dumps(measured, indent=2) + "\n")
    print("\n".join(table_lines(measured)))
