"""Runs of the command line for benchmarks: play each one once and read its files."""

import csv
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

#: An arm: the name of its preset, and further command-line arguments.
Arm = tuple[str, list[str]]


def folder(out: Path, arm: str, seed: int) -> Path:
    """The folder of a run."""
    return out / f"{arm.replace(' ', '_').replace(',', '')}-{seed}"


def play_all(
    out: Path, arms: Mapping[str, Arm], seeds: Sequence[int], rounds: int, processes: int
) -> None:
    """Play every arm with every seed, ``processes`` runs at a time."""
    jobs = [(arm, seed) for seed in seeds for arm in arms]
    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(lambda job: _play(folder(out, *job), arms[job[0]], job[1], rounds), jobs))


def _play(run: Path, arm: Arm, seed: int, rounds: int) -> None:
    """Play one run on one thread, unless it is finished already."""
    preset, extra = arm
    if (run / "summary.json").is_file():
        return
    command = [
        *(sys.executable, "-m", "lsp_lightning", "fit", "--config", f"configs/{preset}.yaml"),
        *extra,
        *("--seed_everything", str(seed), "--trainer.max_steps", str(rounds)),
        *("--trainer.default_root_dir", str(run)),
    ]
    run.parent.mkdir(parents=True, exist_ok=True)
    with run.with_name(f"{run.name}.log").open("w") as log:
        subprocess.run(
            command,
            check=True,
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    print(f"played {run}", flush=True)


def summary(run: Path) -> dict[str, Any]:
    """The summary.json of a finished run."""
    content: dict[str, Any] = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    return content


def queries_met(run: Path) -> set[str]:
    """All queries that were answered in a run. By chance, some may be test tasks."""
    shards = sorted((run / "transcripts").glob("*.parquet"))
    rows = (
        row for s in shards for row in pq.read_table(s, columns=["query", "answer"]).to_pylist()
    )
    return {row["query"] for row in rows if row["answer"] is not None}


def window(run: Path, metric: str, start: int, end: int) -> float:
    """Mean of a metric over the rounds ``start`` to ``end``, counted from 1, both included."""
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if start <= int(row["step"]) + 1 <= end]
    values = [float(row[metric]) for row in rows if row.get(metric)]
    return statistics.mean(values) if values else float("nan")


def cell(values: Sequence[float]) -> str:
    """Mean and standard deviation over the seeds, as ``0.790 ± 0.008``; of one seed its value."""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"
