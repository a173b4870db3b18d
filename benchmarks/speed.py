"""Speed: compared with TRL, with growing work, shared prompts, early judging, and by phase.

python -m benchmarks.speed [--only peer smollm2 profile scaling sharing bound overlap preset gpu]
                           [--rounds 5] [--cpu-time] [--config configs/...yaml] [--quick]

One thread. benchmarks/latest.json holds the latest figures of each section, with their settings and
machine. Sections that you leave out, or that cannot run here, keep their earlier figures.
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
    speed_profile,
    speed_scaling,
    speed_sharing,
)
from benchmarks.speed_work import Clock

RESULT = Path("benchmarks/latest.json")
LIBRARIES = ("torch", "lightning", "transformers", "peft", "trl")
#: For each section: its function, its arguments for ``--quick``, and its constant settings.
SECTIONS: dict[str, tuple[Callable[..., Any], dict[str, Any], dict[str, Any]]] = {
    "peer": (speed_peer.peer, speed_peer.QUICK, speed_peer.FIXED),
    "smollm2": (speed_peer.smollm2, speed_peer.QUICK, speed_peer.FIXED),
    "profile": (speed_profile.breakdown, speed_profile.QUICK, speed_profile.FIXED),
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
    """Measure the chosen sections, print tables and write benchmarks/latest.json."""
    args = arguments()
    os.environ.update(QUIET)
    warnings.simplefilter("ignore")
    torch.set_num_threads(THREADS)
    clock: Clock = "cpu" if args.cpu_time else "wall"
    asked: dict[str, dict[str, Any]] = {
        "peer": {"rounds": args.rounds, "clock": clock},
        "smollm2": {"rounds": args.rounds, "clock": clock},
        "scaling": {"clock": clock},
        "sharing": {"clock": clock},
        "preset": {"rounds": args.rounds, "config": args.config},
    }
    figures = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    kept = []
    for name in args.only:
        given = {key: value for key, value in asked.get(name, {}).items() if value is not None}
        record = measure(name, given, args.quick)
        if record and not args.quick:  # now, because a later section may fail
            figures[name] = record
            RESULT.write_text(json.dumps(figures, indent=2, default=vars) + "\n")
            kept.append(name)
    reason = " (--quick is a smoke test)" if args.quick else ""
    print(f"\nwritten to {RESULT}: {', '.join(kept) or 'nothing'}{reason}")


def arguments() -> argparse.Namespace:
    """The parsed command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument(
        "--rounds", type=int, help="measured rounds of the sections peer, smollm2 and preset"
    )
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="measure CPU time, for a busy machine; not in the sections preset and gpu",
    )
    parser.add_argument("--config", help="config of the section preset")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, to test that it runs; writes no file"
    )
    args = parser.parse_args()
    if args.rounds is not None and args.rounds < 1:
        parser.error("--rounds: set 1 or more")
    return args


def measure(name: str, given: dict[str, Any], quick: bool) -> dict[str, Any] | None:
    """A section's figures with settings, machine and versions; None if it cannot run here."""
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
    """The machine: CPU, number of cores, GPU."""
    cpu, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8").splitlines()
        cpu = next((x.partition(": ")[2] for x in lines if x.startswith("model name")), cpu)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": cpu, "cores": os.cpu_count(), "gpu": gpu}


def versions() -> dict[str, str]:
    """Versions of Python and of the installed libraries that matter."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
