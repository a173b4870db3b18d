"""What `lsp-lightning reproduce` found, for the results page.

python -m benchmarks.reproduced runs/reproduce

Copies results.json to reproduced_tiny.json (reproduced_smollm2.json) without the lists of single
tasks and rounds, and photographs two plots of plots.html into docs/images. Needs Chromium and its
driver (Debian: chromium, chromium-driver).
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.photograph import photograph
from lsp_lightning.runs.writing import write_text

ROOT = Path(__file__).parents[1]
#: What is long, and what nothing here is computed from.
_LISTS = ("heldout over rounds", "queries over rounds", "right", "met")
#: Plots of the page that are kept: its id there, and the name of the picture.
_PICTURES = {"figure-0": "scores", "figure-1": "rounds"}


def result_path(world: str) -> Path:
    """The results of a world that are kept."""
    return Path(__file__).with_name(f"reproduced_{world}.json")


def read_results(world: str) -> Mapping[str, Any]:
    """What results.json contained."""
    found: Mapping[str, Any] = json.loads(result_path(world).read_text(encoding="utf-8"))
    return found


def main() -> None:
    """Keep the results of a folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    world = results["world"]
    for arm in results["arms"].values():
        for seed in arm["seeds"].values():
            for name in _LISTS:
                del seed[name]
    write_text(result_path(world), json.dumps(results, indent=1) + "\n")
    for figure, name in _PICTURES.items():
        png = ROOT / f"docs/images/reproduced-{world}-{name}.png"
        photograph(folder.resolve() / "plots.html", png, f"#{figure}")
        print(f"wrote {png}")


if __name__ == "__main__":
    main()
