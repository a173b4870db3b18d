"""What the commands that score and answer held-out tasks print and write."""

import json
from collections.abc import Iterable
from typing import Any

from lightning.pytorch import Trainer

from lsp_lightning.callbacks.closing import without_nan
from lsp_lightning.module import SelfPlayModule
from lsp_lightning.runs import RunFolder


def write_predictions(folder: RunFolder, answered: Iterable[Any]) -> None:
    """Write batches of queries and answers as JSON lines, and print where they are."""
    path = folder.predictions_path
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for row in (row for batch in answered for row in batch):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(f"answers written to {path}")


def print_scores(module: SelfPlayModule, trainer: Trainer) -> None:
    """Print the held-out scores of a command as one line of JSON."""
    scores = {k: float(v) for k, v in trainer.callback_metrics.items() if "heldout" in k}
    if not scores:
        print(
            "nothing to score: set data.heldout or data.test, and use a reward that can score "
            "a single answer"
        )
        return
    tasks = int(scores.pop("heldout/tasks"))
    print(json.dumps({"tasks": tasks, "kind": module.heldout.kind, **without_nan(scores)}))
