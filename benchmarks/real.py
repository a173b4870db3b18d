"""Play SmolLM2-135M against itself, at a size that this CPU manages within an hour: ``make real``.

python -m benchmarks.real [--key value ...]: further arguments are those of ``lsp-lightning fit``.
"""

import argparse
import os
import re
import sys
from pathlib import Path

from lsp_lightning.cli.main import main as lsp_lightning
from lsp_lightning.cli.threads import usable_cpus

PRESET, SLOWER = "configs/laptop_smollm2_135m.yaml", "configs/sizes/slower_cpu.yaml"
FOLDER = Path("runs/laptop_smollm2_135m")
#: Queries of the first and the last round that are shown at the end.
COMPARED = 3


def main(arguments: list[str]) -> int:
    """Play, then compare the first round with the last one. -> the exit status."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--trainer.default_root_dir", dest="folder", type=Path, default=FOLDER)
    folder: Path = parser.parse_known_args(arguments)[0].folder
    # here a second thread pays: most of the time goes into products of large matrices
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, round(usable_cpus()))))
    from lsp_lightning.models.precision import cpu_has_bfloat16

    configs = ["--config", PRESET]
    if cpu_has_bfloat16():
        print("this CPU has AVX512-BF16 or AMX: playing the full size", flush=True)
    else:
        configs += ["--config", SLOWER]
        print(f"this CPU has neither AVX512-BF16 nor AMX: a smaller size, {SLOWER}", flush=True)
    before = set(runs_at(folder))
    status = lsp_lightning(["fit", *configs, *arguments])
    played = [run for run in runs_at(folder) if run not in before]
    if status or not played:
        return status
    print(f"\nthe first {COMPARED} queries of the first and of the last round:\n")
    return lsp_lightning(["show", str(played[0]), "--compare", str(COMPARED)])


def runs_at(folder: Path) -> list[Path]:
    """Finished runs in a folder and beside it: fit adds a number to the name of a folder in use."""
    names = re.compile(rf"{re.escape(folder.name)}(-\d+)?")
    runs = (path.parent for path in folder.parent.glob("*/summary.json"))
    return [run for run in runs if names.fullmatch(run.name)]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
