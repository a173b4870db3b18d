"""Median seconds of each phase of a round, for a preset."""

import csv
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

QUICK: dict[str, Any] = {"rounds": 2}
WARM_UP = 2
FIXED = {"warm_up": WARM_UP, "clock": "wall"}


def preset(config: str = "configs/tiny_lsp.yaml", rounds: int = 5) -> dict[str, Any]:
    """Fit a few rounds in a separate process and read metrics.csv, without the warm-up rounds."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [
            *(sys.executable, "-m", "lsp_lightning", "fit", "--config", config),
            *("--trainer.max_steps", str(WARM_UP + rounds), "--data.heldout", "null"),
            *("--trainer.default_root_dir", str(run)),
            *("--data.gate", "null", "--data.pool", "null"),  # the time of the bare game
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{config} failed:\n{done.stderr[-2000:]}")
        with (run / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))[WARM_UP:]
    phases = [name for name in rows[0] if name.startswith("seconds/")]
    medians = {
        name.removeprefix("seconds/"): statistics.median(float(row[name]) for row in rows)
        for name in phases
    }
    total = sum(medians.values())
    print(f"\n| {config} | s | share of the round |\n|---|---:|---:|")
    for name, seconds in {**medians, "round": total}.items():
        print(f"| {name} | {seconds:.3f} | {seconds / total:.0%} |", flush=True)
    return {"seconds": medians, "total": total}
