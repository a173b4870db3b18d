"""Folders of runs as a run writes them, with made-up numbers."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

CONFIG = """\
seed_everything: {seed}
trainer: {{max_steps: {rounds}, default_root_dir: {folder}}}
model:
  base: tiny
  beta: {beta}
  rewards:
  - class_path: lsp_lightning.VerifiableReward
    init_args: {{name: verifiable, weight: 1.0, enters: task}}
  objective: {{class_path: lsp_lightning.Learnability, init_args: {{uncertainty: 0.0}}}}
data: {{num_queries: 2, group_size: 4, gate: null}}
ckpt_path: null
"""


def healthy(share: float) -> dict[str, float]:
    """Metrics of a round that is this share of the run away from its start."""
    return {
        "reward": 0.5 + 0.4 * share,
        "value": 0.5 + 0.4 * share,
        "kl/solver": share,
        "kl/challenger": share / 2,
        "entropy/solver": 1 - 0.4 * share,
        "entropy/challenger": 1.0,
        "queries/verifiable/malformed": 0.1,
        "queries/similarity": 0.2,
        "queries/tokens": 9.0,
        "reward/mine": share,
    }


def collapsed(share: float) -> dict[str, float]:
    """The same of a run whose Challenger leaves the task."""
    fall = 0.5 * (1 - share)
    broken = {"reward": fall, "value": fall, "queries/verifiable/malformed": 0.1 + 0.85 * share}
    return {**healthy(share), **broken, "entropy/challenger": 1 + 2 * share}


def answers(
    round_: int, query: str = "", texts: Sequence[str] = "abcd", **more: Any
) -> list[dict[str, Any]]:
    """The rows of a query; its first answer is right."""
    row = {"round": round_, "number": 0, "query": query or f"query {round_}", "valid": True}
    scores = [float(i == 0) for i in range(len(texts))]
    return [
        {**row, "query/verifiable/malformed": False, "query/verifiable/family": "sums", **more,
         "answer": text, "reward/verifiable": score, "R": score, "Q": None}
        for text, score in zip(texts, scores, strict=True)
    ]  # fmt: skip


def write_run(
    folder: Path,
    metrics: Callable[[float], Mapping[str, float]] = healthy,
    rounds: int = 60,
    rows: Sequence[Mapping[str, Any]] | None = None,
    heldout: tuple[float, float] | None = (0.5, 0.8),
    **settings: Any,
) -> Path:
    """Write a run that has ended; ``heldout`` is solved before and after, of 400 tasks."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {"seed": 0, "beta": 0.05, "rounds": rounds, "folder": folder, **settings}
    (folder / "config.yaml").write_text(CONFIG.format(**values))
    table = [{"step": t, **metrics(t / max(1, rounds - 1))} for t in range(rounds)]
    if heldout:
        score = {"heldout/sampled": heldout[1], "heldout/sampled_se": 0.02, "heldout/tasks": 400}
        table.append({"step": rounds - 1, **score})
        scores = [{"sampled": s, "sampled_se": 0.02, "n": 400, "kind": "solved"} for s in heldout]
        summary = dict(zip(("heldout_before", "heldout_after"), scores, strict=True))
        (folder / "summary.json").write_text(json.dumps({"seconds": 90.0, **summary}))
    write_metrics(folder, table)
    found = [row for t in range(rounds) for row in answers(t)] if rows is None else rows
    write_rows(folder, found)
    return folder


def write_metrics(folder: Path, table: Sequence[Mapping[str, object]]) -> None:
    with (folder / "metrics.csv").open("w", newline="") as file:
        names = dict.fromkeys(name for row in table for name in row)
        writer = csv.DictWriter(file, list(names))
        writer.writeheader()
        writer.writerows(table)


def write_rows(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The transcripts, in one file."""
    (folder / "transcripts").mkdir(exist_ok=True)
    if rows:
        table = pa.Table.from_pylist(list(rows))
        pq.write_table(table, folder / "transcripts" / "rounds-000000.parquet")
