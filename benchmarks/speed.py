"""How fast we are: against TRL, as work grows, prompts shared, judging meanwhile, phase by phase.

python -m benchmarks.speed [--only peer scaling sharing bound overlap preset gpu]
                           [--rounds 5] [--cpu-time] [--config configs/...yaml] [--quick]

One thread. Each section's figures replace its earlier ones in benchmarks/latest.json, with what
they were measured with; those of a section that was not asked for, or could not run, stay.
"""

import argparse
import importlib.metadata
import inspect
import json
import os
import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import (
    speed_bound,
    speed_gpu,
    speed_overlap,
    speed_peer,
    speed_preset,
    speed_scaling,
    speed_sharing,
)
from benchmarks.speed_work import Clock

RESULT = Path("benchmarks/latest.json")
LIBRARIES = ("torch", "lightning", "transformers", "peft", "trl")
#: What measures, its arguments for ``--quick``, and its settings that are no arguments.
SECTIONS: dict[str, tuple[Callable[..., Any], dict[str, Any], dict[str, Any]]] = {
    "peer": (speed_peer.peer, speed_peer.QUICK, speed_peer.FIXED),
    "scaling": (speed_scaling.scaling, speed_scaling.QUICK, speed_scaling.FIXED),
    "sharing": (speed_sharing.sharing, speed_sharing.QUICK, speed_sharing.FIXED),
    "bound": (speed_bound.bound, speed_bound.QUICK, speed_bound.FIXED),
    "overlap": (speed_overlap.overlap, speed_overlap.QUICK, speed_overlap.FIXED),
    "preset": (speed_preset.preset, speed_preset.QUICK, speed_preset.FIXED),
    "gpu": (speed_gpu.gpu, speed_gpu.QUICK, speed_gpu.FIXED),
}
THREADS = 1
QUIET = {
    "OMP_NUM_THREADS": str(THREADS),
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore",
}


def main() -> None:
    """Measure what is asked for, print tables, keep the figures in benchmarks/latest.json."""
    args = arguments()
    os.environ.update(QUIET)
    warnings.simplefilter("ignore")
    torch.set_num_threads(THREADS)
    clock: Clock = "cpu" if args.cpu_time else "wall"
    asked: dict[str, dict[str, Any]] = {
        "peer": {"rounds": args.rounds, "clock": clock},
        "scaling": {"clock": clock},
        "sharing": {"clock": clock},
        "preset": {"rounds": args.rounds, "config": args.config},
    }
    figures = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    kept = []
    for name in args.only:
        given = {key: value for key, value in asked.get(name, {}).items() if value is not None}
        record = measure(name, given, args.quick)
        if record and not args.quick:  # at once: what comes later may fail
            figures[name] = record
            RESULT.write_text(json.dumps(figures, indent=2, default=vars) + "\n")
            kept.append(name)
    reason = " (--quick is a smoke test)" if args.quick else ""
    print(f"\nwritten to {RESULT}: {', '.join(kept) or 'nothing'}{reason}")


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--rounds", type=int, help="counted of each side against TRL, and a preset")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="the CPU's time, not the clock's, for a busy machine; not of a preset or a GPU",
    )
    parser.add_argument("--config", help="the preset")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: does it run? Writes no file"
    )
    args = parser.parse_args()
    if args.rounds is not None and args.rounds < 1:
        parser.error("--rounds: set 1 or more")
    return args


def measure(name: str, given: dict[str, Any], quick: bool) -> dict[str, Any] | None:
    """A section's figures with all that they were measured with; None if it cannot run here."""
    section, small, fixed = SECTIONS[name]
    settings = inspect.signature(section).bind(**{**(small if quick else {}), **given})
    settings.apply_defaults()
    start = time.perf_counter()
    result = section(**settings.arguments)
    if result is None:
        return None
    return {
        "machine": machine(),
        "versions": versions(),
        "settings": {**settings.arguments, **fixed, "threads": THREADS},
        "seconds": time.perf_counter() - start,
        "result": result,
    }


def machine() -> dict[str, Any]:
    """What it ran on."""
    cpu, facts = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if facts.is_file():
        lines = facts.read_text(encoding="utf-8").splitlines()
        cpu = next((x.partition(": ")[2] for x in lines if x.startswith("model name")), cpu)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": cpu, "cores": os.cpu_count(), "gpu": gpu}


def versions() -> dict[str, str]:
    """Of what matters, as far as it is installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
