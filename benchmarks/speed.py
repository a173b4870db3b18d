"""How fast we are: against TRL, as the work grows, with a prompt shared, and phase by phase.

python -m benchmarks.speed [--only peer scaling sharing preset gpu] [--config configs/...yaml]

One thread. Everything also goes to benchmarks/latest.json.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import speed_gpu, speed_peer, speed_preset, speed_scaling, speed_sharing
from benchmarks.speed_work import Clock

RESULT = Path("benchmarks/latest.json")
LIBRARIES = ("torch", "lightning", "transformers", "peft", "trl")
SECTIONS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "peer": (speed_peer.peer, speed_peer.QUICK),
    "scaling": (speed_scaling.scaling, speed_scaling.QUICK),
    "sharing": (speed_sharing.sharing, speed_sharing.QUICK),
    "preset": (speed_preset.preset, speed_preset.QUICK),
    "gpu": (speed_gpu.gpu, speed_gpu.QUICK),
}
QUIET = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore",
}


def main() -> None:
    """Measure what is asked for, print tables, write benchmarks/latest.json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run?")
    parser.add_argument("--rounds", type=int, help="counted of each side against TRL, and a preset")
    parser.add_argument("--config", help="the preset")
    parser.add_argument(
        "--cpu-time", action="store_true", help="for a busy machine: not the clock's"
    )
    args = parser.parse_args()
    os.environ.update(QUIET)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    clock: Clock = "cpu" if args.cpu_time else "wall"
    asked: dict[str, dict[str, Any]] = {
        "peer": {"rounds": args.rounds, "clock": clock},
        "scaling": {"clock": clock},
        "sharing": {"clock": clock},
        "preset": {"rounds": args.rounds, "config": args.config},
    }
    start = time.perf_counter()
    result: dict[str, Any] = {"machine": machine(), "versions": versions(), "clock": clock}
    for name in args.only:
        section, quick = SECTIONS[name]
        given = {key: value for key, value in asked.get(name, {}).items() if value is not None}
        result[name] = section(**{**(quick if args.quick else {}), **given})
    result["seconds"] = time.perf_counter() - start
    RESULT.write_text(json.dumps(result, indent=2, default=vars) + "\n")
    print(f"\n{result['seconds']:.0f} s; all figures in {RESULT}")


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
