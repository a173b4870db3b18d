"""Where a round's time goes: median seconds of each phase of a preset, over some rounds.

python -m benchmarks.round_time [--config configs/tiny_lsp.yaml] [--rounds 10]
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Fit for a few rounds in a process of its own and read its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/tiny_lsp.yaml")
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        subprocess.run(
            [
                *(sys.executable, "-m", "lsp_lightning", "fit", "--config", args.config),
                *("--trainer.max_steps", str(args.rounds + 2), "--data.heldout", "null"),
                *("--trainer.default_root_dir", str(run)),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with (run / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))[2:]  # the first rounds warm up
    phases = [name for name in rows[0] if name.startswith("seconds/")]
    medians = {name: statistics.median(float(row[name]) for row in rows) for name in phases}
    total = sum(medians.values())
    for name, seconds in medians.items():
        print(f"{name.removeprefix('seconds/'):<10}{seconds:8.3f} s  {seconds / total:5.0%}")
    print(f"{'round':<10}{total:8.3f} s")
    result = {"config": args.config, "rounds": len(rows), "seconds": medians, "total": total}
    Path("benchmarks/latest.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
