"""Write what a comparison has found: results.json, results.md and plots.html."""

import json
import math
from typing import Any

from lsp_lightning import __version__
from lsp_lightning.errors import ConfigError
from lsp_lightning.reproduce.claims import FURTHER, PAPER, Decided, decide
from lsp_lightning.reproduce.comparison import Comparison
from lsp_lightning.reproduce.figures import Interval, Row, compared, read_rows
from lsp_lightning.reproduce.plots import page
from lsp_lightning.reproduce.tables import Rows, markdown
from lsp_lightning.runs.writing import write_text, writing

#: Figures whose differences are written.
_COMPARED = ("sampled, unmet", "greedy", "queries, malformed")
_PEERS = ("base", "grpo", "lsp")


def write_results(comparison: Comparison) -> tuple[dict[str, Any], str]:
    """Read all that has been measured in a folder, and write the results beside it.

    -> what results.json and results.md contain.

    Raises:
        ConfigError: nothing has been measured, or a file cannot be read.
    """
    rows = read_rows(comparison)
    if not rows:
        problem = f"nothing has been measured yet in {str(comparison.out)!r}"
        raise ConfigError("reproduce --out", problem, "play some arms first")
    results = as_json(comparison, rows)
    table = markdown(comparison.world, comparison.rounds, rows)
    contents = {
        "results.json": json.dumps(results, indent=1, allow_nan=False) + "\n",
        "results.md": table,
        "plots.html": page(comparison.world, comparison.rounds, rows),
    }
    for name, text in contents.items():
        with writing(comparison.out / name):
            write_text(comparison.out / name, text)
    return results, table


def as_json(comparison: Comparison, rows: Rows) -> dict[str, Any]:
    """Everything that was found, as plain values. NaN is null."""
    world = comparison.world
    arms: dict[str, Any] = {}
    for arm in world.arms:
        if arm.name in rows:
            controls = [n for n in (*_PEERS, arm.control, arm.changes) if n and n != arm.name]
            arms[arm.name] = {
                "label": arm.label,
                "about": arm.about,
                "presets": [stage.preset for stage in arm.stages],
                "changes": arm.changes,
                "temperature": arm.temperature,
                "seeds": {str(seed): _of_row(row) for seed, row in rows[arm.name].items()},
                "minus": {
                    other: {
                        figure: _interval(compared(rows[arm.name], rows[other], figure))
                        for figure in _COMPARED
                    }
                    for other in dict.fromkeys(controls)
                    if other in rows
                },
            }
    return {
        "version": __version__,
        "world": world.name,
        "rounds": comparison.rounds,
        "model": comparison.model,
        "tasks": world.tasks,
        "arms": arms,
        "claims": {
            "paper": [_of_claim(found) for found in decide(PAPER, rows)],
            "further": [_of_claim(found) for found in decide(FURTHER, rows)],
        },
    }


def _of_row(row: Row) -> dict[str, Any]:
    found = row.measured
    return {
        **{name: _number(value) for name, value in row.figures().items()},
        "pass@k": {str(k): _number(value) for k, value in row.curve().items()},
        "heldout over rounds": [[played, _number(score)] for played, score in row.heldout],
        "queries over rounds": [
            [end, {name: _number(value) for name, value in figures.items()}]
            for end, figures in row.game
        ],
        "right": " ".join(map(str, found.right)),
        "met": " ".join(map(str, found.met)),
        "seconds": round(row.seconds, 1),
    }


def _of_claim(found: Decided) -> dict[str, Any]:
    claim = found.claim
    return {
        "claim": claim.says,
        "paper v3": claim.v3,
        "paper v1": claim.v1,
        "arm": claim.arm,
        "minus": claim.other,
        "figure": claim.figure,
        "kind": claim.kind,
        **_interval(found.found),
        "verdict": found.verdict,
    }


def _interval(found: Interval) -> dict[str, float | int | str | None]:
    ends = {"mean": found.mean, "low": found.low, "high": found.high}
    return {
        **{name: _number(value) for name, value in ends.items()},
        "n": found.n,
        "over": found.over,
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)
