"""Play SmolLM2-135M against itself, at a size that takes this CPU about an hour: ``make real``.

python -m benchmarks.real [--key value ...]: further arguments are those of ``lsp-lightning fit``.
"""

import argparse
import os
import re
import shlex
import sys
from pathlib import Path

from lsp_lightning.cli.main import main as lsp_lightning
from lsp_lightning.cli.main import underscored
from lsp_lightning.cli.threads import default_threads, usable_cores, wait_asleep

PRESET, SLOWER = "configs/laptop_smollm2_135m.yaml", "configs/sizes/slower_cpu.yaml"
FOLDER = Path("runs/laptop_smollm2_135m")
#: Queries of the first and the last round that are shown at the end.
COMPARED = 3
#: More threads than these were not measured.
MOST_THREADS = 4
SUMMARY, CHECKPOINT = "summary.json", "checkpoints/last.ckpt"


def main(arguments: list[str]) -> int:
    """Play, then compare the first round with the last one. -> the exit status."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--trainer.default_root_dir", dest="folder", type=Path, default=FOLDER)
    parser.add_argument("--ckpt_path", type=Path)
    given = parser.parse_known_args([underscored(word) for word in arguments])[0]
    folder: Path = given.ckpt_path.parent.parent if given.ckpt_path else given.folder
    threads = min(MOST_THREADS, default_threads(usable_cores()))
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    wait_asleep()
    configs = [] if given.ckpt_path else size_for_this_cpu()  # a resumed run keeps its size
    before = {name: runs_with(name, folder) for name in (SUMMARY, CHECKPOINT)}
    status = lsp_lightning(["fit", *configs, *arguments])
    played = sorted(runs_with(SUMMARY, folder) - before[SUMMARY])
    saved = sorted(runs_with(CHECKPOINT, folder) - before[CHECKPOINT])
    if status == 0 and played:
        print(f"\nthe first {COMPARED} queries of the first and of the last round:\n")
        return lsp_lightning(["show", str(played[0][0]), "--compare", str(COMPARED)])
    if saved:
        checkpoint = shlex.quote(f"--ckpt_path {saved[0][0] / CHECKPOINT}")
        print(f"or, to compare the rounds at the end as well:\n  make real ARGS={checkpoint}")
    return status


def size_for_this_cpu() -> list[str]:
    """The flags of the size that takes this CPU about an hour; print which it is."""
    from lsp_lightning.models.precision import cpu_has_bfloat16

    if cpu_has_bfloat16():
        print("this CPU has AVX512-BF16 or AMX: playing the full size", flush=True)
        return ["--config", PRESET]
    print(f"this CPU has neither AVX512-BF16 nor AMX: a smaller size, {SLOWER}", flush=True)
    return ["--config", PRESET, "--config", SLOWER]


def runs_with(name: str, folder: Path) -> set[tuple[Path, int]]:
    """Runs in a folder and beside it that have a file, and when it was written.

    Beside it, because fit adds a number to a folder in use.
    """
    numbered = re.compile(rf"{re.escape(folder.name)}(-\d+)?")
    runs = [run for run in folder.parent.glob("*") if numbered.fullmatch(run.name)]
    return {(run, (run / name).stat().st_mtime_ns) for run in runs if (run / name).is_file()}


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
