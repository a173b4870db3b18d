"""Play SmolLM2-135M against itself, at a size that this CPU manages within an hour: ``make real``.

python -m benchmarks.real [--key value ...]: further arguments are those of ``lsp-lightning fit``.
"""

import sys
from pathlib import Path

from lsp_lightning.cli.main import main as lsp_lightning
from lsp_lightning.models.precision import cpu_has_bfloat16

PRESET, SMALLER = "configs/laptop_smollm2_135m.yaml", "configs/laptop_slower_cpu.yaml"
RUNS = "laptop_smollm2_135m*/summary.json"
#: Queries of the first and the last round that are shown at the end.
COMPARED = 3


def main(arguments: list[str]) -> int:
    """Play, then compare the first with the last round. -> the exit status."""
    configs = ["--config", PRESET]
    if cpu_has_bfloat16():
        print("this CPU computes in bfloat16: playing the full size")
    else:
        configs += ["--config", SMALLER]
        print(f"this CPU has neither AVX512-BF16 nor AMX: playing the smaller size of {SMALLER}")
    status = lsp_lightning(["fit", *configs, *arguments])
    finished = max(Path("runs").glob(RUNS), key=lambda path: path.stat().st_mtime, default=None)
    if status or finished is None:
        return status
    print()
    return lsp_lightning(["show", str(finished.parent), "--compare", str(COMPARED)])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
